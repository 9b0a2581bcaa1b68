//! Loads a relocatable ELF object into memory, without an external linker.
//!
//! A relocatable object is what every code generator writes first, and loading one takes three steps: lay out its
//! sections, resolve its symbols, apply its relocations. The memory is first writable and then, never at the same
//! time, executable: code pages become read and execute, constants read-only, data stays writable.
//!
//! Unresolved symbols are looked up in a fixed table of C library functions ([`externals`]); anything else is
//! refused by name. Unwind tables, debug sections and notes are left out. Thread-local data, constructors and common
//! symbols are refused.

pub mod elf;
pub mod externals;
pub mod relocate;

use crate::error::{Error, Result};
use elf::{INDEX_ABSOLUTE, INDEX_UNDEFINED, MACHINE_AARCH64, MACHINE_X86_64, Object, Section};
use memmap2::MmapMut;
use relocate::{Addresses, Needs, STUB_BYTES};
use std::collections::BTreeMap;

/// Zero-initialised data beyond the size of the object that is still plausible.
const LARGEST_ZERO_DATA: u64 = 1 << 24;

/// Parts of an image start at multiples of this, the largest page of any supported machine.
const PAGE: usize = 1 << 16;

/// Largest alignment of a section: the smallest page, which is what a mapping starts at.
const LARGEST_ALIGNMENT: u64 = 1 << 12;

const SLOT_BYTES: usize = 8;

/// An object in memory, ready to be called. Unloaded when dropped.
#[derive(Debug)]
pub struct CodeImage {
    memory: MmapMut,
    functions: BTreeMap<String, usize>,
}

/// Which part of the image a section belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Text,
    Constants,
    Data,
}

/// Machine of this process, as ELF numbers it.
pub fn host_machine() -> Option<u16> {
    match std::env::consts::ARCH {
        "x86_64" => Some(MACHINE_X86_64),
        "aarch64" => Some(MACHINE_AARCH64),
        _ => None,
    }
}

/// Where a section goes: `None` when it takes no memory.
fn part_of(section: &Section) -> Result<Option<Part>> {
    if section.flags & elf::FLAG_ALLOC == 0 || section.name.starts_with(".eh_frame") {
        return Ok(None);
    }
    if section.flags & elf::FLAG_THREAD_LOCAL != 0 {
        return Err(Error::code(section.name, "is thread-local data, which is not supported"));
    }
    match section.kind {
        elf::SECTION_PROGBITS | elf::SECTION_NOBITS => {}
        14..=16 => return Err(Error::code(section.name, "holds constructors, which are not supported")),
        _ => return Ok(None),
    }
    if !section.alignment.is_power_of_two() || section.alignment > LARGEST_ALIGNMENT {
        return Err(Error::code(section.name, format!("has alignment {}", section.alignment)));
    }
    Ok(Some(if section.flags & elf::FLAG_EXECUTE != 0 {
        if section.flags & elf::FLAG_WRITE != 0 {
            return Err(Error::code(section.name, "is both writable and executable"));
        }
        Part::Text
    } else if section.flags & elf::FLAG_WRITE != 0 && !section.name.starts_with(".data.rel.ro") {
        Part::Data
    } else {
        Part::Constants
    }))
}

/// Sizes of the three parts while sections are laid out.
#[derive(Default)]
struct Layout {
    text: usize,
    constants: usize,
    data: usize,
}

impl Layout {
    fn place(&mut self, part: Part, bytes: usize, alignment: usize) -> usize {
        let end = match part {
            Part::Text => &mut self.text,
            Part::Constants => &mut self.constants,
            Part::Data => &mut self.data,
        };
        let start = end.next_multiple_of(alignment);
        *end = start + bytes;
        start
    }
}

impl CodeImage {
    /// Loads an object whose unresolved symbols are those of [`externals::standard`].
    pub fn load(object: &[u8]) -> Result<Self> {
        Self::load_with(object, &externals::standard)
    }

    /// Loads an object whose unresolved symbols are found by `resolve`.
    pub fn load_with(bytes: &[u8], resolve: &dyn Fn(&str) -> Option<*const ()>) -> Result<Self> {
        let object = Object::parse(bytes)?;
        if host_machine() != Some(object.machine) {
            let needed = match object.machine {
                MACHINE_X86_64 => "x86_64".to_owned(),
                MACHINE_AARCH64 => "aarch64".to_owned(),
                other => format!("ELF machine {other}"),
            };
            return Err(Error::WrongArchitecture { needed, host: std::env::consts::ARCH.to_owned() });
        }

        let mut layout = Layout::default();
        let mut places: Vec<Option<(Part, usize)>> = Vec::with_capacity(object.sections.len());
        let mut zero_data = 0u64;
        for section in &object.sections {
            let Some(part) = part_of(section)? else {
                places.push(None);
                continue;
            };
            if section.kind == elf::SECTION_NOBITS {
                zero_data = zero_data.saturating_add(section.size);
                if zero_data > LARGEST_ZERO_DATA {
                    return Err(Error::code(section.name, "declares more zero data than is plausible"));
                }
            }
            let start = layout.place(part, section.size as usize, section.alignment as usize);
            places.push(Some((part, start)));
        }

        let references = References::collect(&object, &places)?;
        let stubs = layout.place(Part::Text, references.calls.len() * STUB_BYTES, STUB_BYTES);
        let slots = layout.place(Part::Constants, references.slots.len() * SLOT_BYTES, SLOT_BYTES);

        let text_bytes = layout.text.next_multiple_of(PAGE).max(PAGE);
        let constants_bytes = layout.constants.next_multiple_of(PAGE).max(PAGE);
        let data_bytes = layout.data.next_multiple_of(PAGE).max(PAGE);
        let mut memory = Mapping::new(text_bytes, constants_bytes, data_bytes)?;
        let base = memory.base();
        let address = |(part, start): (Part, usize)| -> u64 {
            (base
                + start
                + match part {
                    Part::Text => 0,
                    Part::Constants => text_bytes,
                    Part::Data => text_bytes + constants_bytes,
                }) as u64
        };
        for (section, place) in object.sections.iter().zip(&places) {
            if let Some(place) = place {
                let start = address(*place) as usize - base;
                memory.bytes()[start..start + section.data.len()].copy_from_slice(section.data);
            }
        }

        let symbol_address = |index: u32| -> Result<u64> {
            let symbol = &object.symbols[index as usize];
            let fail = |reason: &str| Err(Error::code(format!("symbol `{}`", symbol.name), reason));
            match symbol.section {
                INDEX_UNDEFINED if index == 0 => Ok(0),
                INDEX_UNDEFINED => match resolve(symbol.name) {
                    Some(pointer) => Ok(pointer as u64),
                    None => fail("is not a function that compiled code may call"),
                },
                INDEX_ABSOLUTE => Ok(symbol.value),
                section => match places.get(usize::from(section)).copied().flatten() {
                    Some(place) => Ok(address(place) + symbol.value),
                    None => fail("is in a section that is not loaded"),
                },
            }
        };
        for (&symbol, &position) in &references.calls {
            let start = stubs + position * STUB_BYTES;
            let stub = relocate::stub(object.machine, symbol_address(symbol)?);
            memory.bytes()[start..start + STUB_BYTES].copy_from_slice(&stub);
        }
        for (&symbol, &position) in &references.slots {
            let start = text_bytes + slots + position * SLOT_BYTES;
            memory.bytes()[start..start + SLOT_BYTES].copy_from_slice(&symbol_address(symbol)?.to_le_bytes());
        }

        for (target, list) in &object.relocations {
            let Some(place) = places[*target] else { continue };
            let section = &object.sections[*target];
            let start = address(place);
            for relocation in list {
                let fail = |reason: String| {
                    let name = object.symbols[relocation.symbol as usize].name;
                    Error::code(
                        format!("{} + {:#x} (symbol `{name}`)", section.name, relocation.offset),
                        reason,
                    )
                };
                let slot = references.slots.get(&relocation.symbol);
                let stub = references.calls.get(&relocation.symbol);
                let symbol = match (relocate::needs(object.machine, relocation.kind), slot, stub) {
                    (None, ..) => {
                        return Err(fail(format!("relocation {} is not supported", relocation.kind)));
                    }
                    (Some(Needs::Nothing), ..) => continue,
                    (Some(Needs::Slot), Some(slot), _) => {
                        address((Part::Constants, slots + slot * SLOT_BYTES))
                    }
                    (Some(Needs::Call), _, Some(stub)) => address((Part::Text, stubs + stub * STUB_BYTES)),
                    _ => symbol_address(relocation.symbol)?,
                };
                if relocation.offset >= section.size {
                    return Err(fail("changes bytes outside the section".into()));
                }
                let first = start + relocation.offset;
                let range = first as usize - base..(start + section.size) as usize - base;
                let at = Addresses { target: symbol.wrapping_add_signed(relocation.addend), place: first };
                relocate::apply(object.machine, relocation.kind, at, &mut memory.bytes()[range])
                    .map_err(fail)?;
            }
        }

        let mut functions = BTreeMap::new();
        for (index, symbol) in object.symbols.iter().enumerate() {
            let place = places.get(usize::from(symbol.section)).copied().flatten();
            if let Some((Part::Text, _)) = place
                && !symbol.name.is_empty()
                && symbol.section != INDEX_UNDEFINED
                && symbol.value < object.sections[usize::from(symbol.section)].size
            {
                functions.insert(symbol.name.to_owned(), symbol_address(index as u32)? as usize);
            }
        }
        memory.protect()?;
        Ok(CodeImage { memory: memory.whole, functions })
    }

    /// Address of a function of the object.
    pub fn function(&self, name: &str) -> Option<*const u8> {
        self.functions.get(name).map(|&address| address as *const u8)
    }

    /// Names of the functions of the object, sorted.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// Bytes of memory that the image takes.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }
}

/// Symbols that need a stub or a slot: index of the symbol, position among its kind.
struct References {
    calls: BTreeMap<u32, usize>,
    slots: BTreeMap<u32, usize>,
}

impl References {
    fn collect(object: &Object, places: &[Option<(Part, usize)>]) -> Result<Self> {
        let mut references = References { calls: BTreeMap::new(), slots: BTreeMap::new() };
        for (target, list) in &object.relocations {
            if places[*target].is_none() {
                continue;
            }
            for relocation in list {
                let symbol = relocation.symbol;
                match relocate::needs(object.machine, relocation.kind) {
                    Some(Needs::Call) if object.symbols[symbol as usize].section == INDEX_UNDEFINED => {
                        let position = references.calls.len();
                        references.calls.entry(symbol).or_insert(position);
                    }
                    Some(Needs::Slot) => {
                        let position = references.slots.len();
                        references.slots.entry(symbol).or_insert(position);
                    }
                    _ => {}
                }
            }
        }
        Ok(references)
    }
}

/// One contiguous run of addresses, so that every part reaches every other.
struct Mapping {
    whole: MmapMut,
    text_bytes: usize,
    constants_bytes: usize,
}

impl Mapping {
    fn new(text_bytes: usize, constants_bytes: usize, data_bytes: usize) -> Result<Self> {
        let bytes = text_bytes + constants_bytes + data_bytes;
        let whole = MmapMut::map_anon(bytes)
            .map_err(|_| Error::OutOfMemory { what: "the code".into(), bytes: bytes as u64 })?;
        Ok(Mapping { whole, text_bytes, constants_bytes })
    }

    fn base(&self) -> usize {
        self.whole.as_ptr() as usize
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.whole
    }

    /// Makes code executable and constants read-only. After this, nothing may be written through `bytes`.
    fn protect(&mut self) -> Result<()> {
        let base = self.whole.as_mut_ptr();
        let protect = |start: usize, bytes: usize, mode: libc::c_int| {
            // SAFETY: the range lies within the mapping, which this value owns and nobody borrows.
            let status = unsafe { libc::mprotect(base.add(start).cast(), bytes, mode) };
            if status == 0 {
                return Ok(());
            }
            let reason = std::io::Error::last_os_error();
            Err(Error::code("memory", format!("the system refuses to make it executable ({reason})")))
        };
        flush_instruction_cache(base, self.text_bytes);
        protect(0, self.text_bytes, libc::PROT_READ | libc::PROT_EXEC)?;
        protect(self.text_bytes, self.constants_bytes, libc::PROT_READ)
    }
}

/// Makes instructions just written visible to instruction fetch, which is automatic on x86.
#[cfg(not(target_arch = "aarch64"))]
fn flush_instruction_cache(_start: *const u8, _bytes: usize) {}

/// Makes instructions just written visible to instruction fetch.
#[cfg(target_arch = "aarch64")]
fn flush_instruction_cache(start: *const u8, bytes: usize) {
    // The smallest line of any implementation; a larger one is only cleaned more than once.
    const LINE: usize = 16;
    let lines = || (0..bytes).step_by(LINE).map(|offset| start as usize + offset);
    // SAFETY: cache maintenance by address on mapped memory changes no contents.
    unsafe {
        use std::arch::asm;
        lines().for_each(|line| asm!("dc cvau, {}", in(reg) line));
        asm!("dsb ish");
        lines().for_each(|line| asm!("ic ivau, {}", in(reg) line));
        asm!("dsb ish", "isb");
    }
}

#[cfg(test)]
mod tests;
