//! Relocation arithmetic: what is written where, by machine.
//!
//! S is the address of the symbol, A the addend, P the address of the place, G the address of the symbol's slot in
//! the table of addresses. x86-64: System V ABI, AMD64 supplement, section 4.4. aarch64: ELF for the Arm 64-bit
//! Architecture, section 5.7.

use super::elf::{MACHINE_AARCH64, MACHINE_X86_64};

/// What a relocation needs besides its symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The address of the symbol.
    Address,
    /// The address, or of a stub that jumps there when it is out of reach.
    Call,
    /// A slot that holds the address.
    Slot,
    /// Nothing: it has no effect.
    Nothing,
}

/// The addresses of the formulas.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// S + A, with G in place of S where a slot is needed.
    pub target: u64,
    /// P.
    pub place: u64,
}

/// What this relocation needs, `None` when the type is not supported.
pub fn needs(machine: u16, kind: u32) -> Option<Needs> {
    Some(match (machine, kind) {
        (_, 0) => Needs::Nothing,
        (MACHINE_X86_64, 1 | 10 | 11 | 24) => Needs::Address,
        (MACHINE_X86_64, 2 | 4) => Needs::Call,
        (MACHINE_X86_64, 9 | 41 | 42) => Needs::Slot,
        (MACHINE_AARCH64, 257 | 258 | 260 | 261) => Needs::Address,
        (MACHINE_AARCH64, 264..=269 | 273..=280 | 284..=286 | 299) => Needs::Address,
        (MACHINE_AARCH64, 282 | 283) => Needs::Call,
        (MACHINE_AARCH64, 311 | 312) => Needs::Slot,
        _ => return None,
    })
}

/// Writes the relocated value at the start of `place`, the rest of the section from there on.
pub fn apply(machine: u16, kind: u32, at: Addresses, place: &mut [u8]) -> Result<(), String> {
    match machine {
        MACHINE_X86_64 => apply_x86_64(kind, at, place),
        MACHINE_AARCH64 => apply_aarch64(kind, at, place),
        other => Err(format!("machine {other} is not supported")),
    }
}

fn put<const N: usize>(place: &mut [u8], bytes: [u8; N]) -> Result<(), String> {
    place.get_mut(..N).ok_or("changes bytes outside the section")?.copy_from_slice(&bytes);
    Ok(())
}

fn out_of_reach(kind: u32) -> String {
    format!("relocation {kind} does not reach; compile position-independent code")
}

fn apply_x86_64(kind: u32, at: Addresses, place: &mut [u8]) -> Result<(), String> {
    let relative = at.target.wrapping_sub(at.place) as i64;
    match kind {
        0 => Ok(()),
        1 => put(place, at.target.to_le_bytes()),
        24 => put(place, relative.to_le_bytes()),
        2 | 4 | 9 | 41 | 42 => {
            put(place, i32::try_from(relative).map_err(|_| out_of_reach(kind))?.to_le_bytes())
        }
        10 => put(place, u32::try_from(at.target).map_err(|_| out_of_reach(kind))?.to_le_bytes()),
        11 => put(place, i32::try_from(at.target as i64).map_err(|_| out_of_reach(kind))?.to_le_bytes()),
        _ => Err(format!("relocation {kind} is not supported")),
    }
}

fn page(address: u64) -> u64 {
    address & !0xfff
}

fn apply_aarch64(kind: u32, at: Addresses, place: &mut [u8]) -> Result<(), String> {
    let relative = at.target.wrapping_sub(at.place) as i64;
    let low = (at.target & 0xfff) as u32;
    // Replaces the bits of `mask` in the instruction.
    let mut patch = |mask: u32, bits: u32| {
        let old = place.first_chunk::<4>().copied().ok_or("changes bytes outside the section")?;
        put(place, (u32::from_le_bytes(old) & !mask | bits & mask).to_le_bytes())
    };
    // A signed byte distance as `width` bits counted in words.
    let words = |width: u32| -> Result<u32, String> {
        let limit = 1i64 << (width + 1);
        let fits = relative & 3 == 0 && (-limit..limit).contains(&relative);
        if fits { Ok((relative >> 2) as u32) } else { Err(out_of_reach(kind)) }
    };
    // The split immediate of ADR and ADRP.
    let split = |value: i64| ((value as u32 & 3) << 29) | (((value >> 2) as u32 & 0x7_ffff) << 5);
    // A page offset as the scaled immediate of a load or store.
    let scaled = |shift: u32| -> Result<u32, String> {
        if low & ((1 << shift) - 1) == 0 { Ok((low >> shift) << 10) } else { Err("is not aligned".into()) }
    };
    match kind {
        0 => Ok(()),
        257 => put(place, at.target.to_le_bytes()),
        258 => put(place, u32::try_from(at.target).map_err(|_| out_of_reach(kind))?.to_le_bytes()),
        260 => put(place, relative.to_le_bytes()),
        261 => put(place, i32::try_from(relative).map_err(|_| out_of_reach(kind))?.to_le_bytes()),
        // MOVW_UABS_G0_NC, G1, G1_NC, G2, G2_NC, G3: sixteen bits of the address.
        264 => patch(0xffff << 5, (at.target as u32 & 0xffff) << 5),
        265 | 266 => patch(0xffff << 5, ((at.target >> 16) as u32 & 0xffff) << 5),
        267 | 268 => patch(0xffff << 5, ((at.target >> 32) as u32 & 0xffff) << 5),
        269 => patch(0xffff << 5, ((at.target >> 48) as u32 & 0xffff) << 5),
        // LD_PREL_LO19, CONDBR19.
        273 | 280 => patch(0x7_ffff << 5, words(19)? << 5),
        // ADR_PREL_LO21.
        274 if (-(1 << 20)..1 << 20).contains(&relative) => patch(0x60ff_ffe0, split(relative)),
        // TSTBR14.
        279 => patch(0x3fff << 5, words(14)? << 5),
        // ADR_PREL_PG_HI21 and its unchecked form, ADR_GOT_PAGE.
        275 | 276 | 311 => {
            let pages = (page(at.target).wrapping_sub(page(at.place)) as i64) >> 12;
            if !(-(1 << 20)..1 << 20).contains(&pages) {
                return Err(out_of_reach(kind));
            }
            patch(0x60ff_ffe0, split(pages))
        }
        // ADD_ABS_LO12_NC, LDST8, 16, 32, 64, 128 _ABS_LO12_NC, LD64_GOT_LO12_NC.
        277 | 278 => patch(0xfff << 10, low << 10),
        284 => patch(0xfff << 10, scaled(1)?),
        285 => patch(0xfff << 10, scaled(2)?),
        286 | 312 => patch(0xfff << 10, scaled(3)?),
        299 => patch(0xfff << 10, scaled(4)?),
        // JUMP26, CALL26.
        282 | 283 => patch(0x3ff_ffff, words(26)?),
        274 => Err(out_of_reach(kind)),
        _ => Err(format!("relocation {kind} is not supported")),
    }
}

/// Bytes of a stub, also its alignment.
pub const STUB_BYTES: usize = 16;

/// Code that jumps to any address.
pub fn stub(machine: u16, target: u64) -> [u8; STUB_BYTES] {
    let mut code = [0; STUB_BYTES];
    match machine {
        MACHINE_AARCH64 => {
            code[..4].copy_from_slice(&0x5800_0050u32.to_le_bytes()); // ldr x16, .+8
            code[4..8].copy_from_slice(&0xd61f_0200u32.to_le_bytes()); // br x16
            code[8..].copy_from_slice(&target.to_le_bytes());
        }
        _ => {
            code[..6].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]); // jmp [rip + 0]
            code[6..14].copy_from_slice(&target.to_le_bytes());
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(kind: u32, target: u64, place: u64, instruction: u32) -> Result<u32, String> {
        let mut bytes = instruction.to_le_bytes();
        apply(MACHINE_AARCH64, kind, Addresses { target, place }, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    #[test]
    fn aarch64_instructions_are_those_of_the_assembler() {
        assert_eq!(word(283, 0x2000, 0x1000, 0x9400_0000), Ok(0x9400_0400)); // bl .+0x1000
        assert_eq!(word(282, 0x1000, 0x1004, 0x1400_0000), Ok(0x17ff_ffff)); // b .-4
        assert_eq!(word(275, 0x5123, 0x1008, 0x9000_0000), Ok(0x9000_0020)); // adrp x0, .+0x4000
        assert_eq!(word(275, 0x1000, 0x2000, 0x9000_0000), Ok(0xf0ff_ffe0)); // adrp x0, .-0x1000
        assert_eq!(word(277, 0x5123, 0, 0x9100_0000), Ok(0x9104_8c00)); // add x0, x0, #0x123
        assert_eq!(word(286, 0x5008, 0, 0xf940_0000), Ok(0xf940_0400)); // ldr x0, [x0, #8]
        assert_eq!(word(299, 0x5020, 0, 0x3dc0_0000), Ok(0x3dc0_0800)); // ldr q0, [x0, #32]
        assert_eq!(word(280, 0x1008, 0x1000, 0x5400_0000), Ok(0x5400_0040)); // b.eq .+8
        assert_eq!(word(266, 0x1234_5678, 0, 0xf2a0_0000), Ok(0xf2a2_4680)); // movk x0, #0x1234, lsl 16
    }

    #[test]
    fn what_does_not_reach_is_an_error() {
        assert!(word(283, 1 << 28, 0, 0x9400_0000).is_err());
        assert!(word(286, 0x5004, 0, 0xf940_0000).is_err());
        assert!(word(275, 1 << 40, 0, 0x9000_0000).is_err());
        let mut bytes = [0; 4];
        let far = Addresses { target: 1 << 40, place: 0 };
        for kind in [2, 4, 9, 10, 11] {
            assert!(apply(MACHINE_X86_64, kind, far, &mut bytes).is_err());
        }
        assert!(apply(MACHINE_X86_64, 1, far, &mut bytes).is_err(), "eight bytes in four");
        assert!(apply(MACHINE_X86_64, 77, far, &mut bytes).is_err());
    }

    #[test]
    fn x86_distances_are_signed() {
        let mut bytes = [0; 4];
        apply(MACHINE_X86_64, 4, Addresses { target: 0x1000 - 4, place: 0x2000 }, &mut bytes).unwrap();
        assert_eq!(i32::from_le_bytes(bytes), -0x1004);
    }
}
