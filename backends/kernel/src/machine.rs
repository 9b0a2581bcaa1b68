//! What a backend's target can do, as far as [`crate::passes::finalize`] has to know.

/// Sign combinations of the four-way 8-bit dot product ([`crate::ir::Expr::Dot`]) that a machine has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DotForms {
    /// Unsigned by signed (`vpdpbusd`, `usdot`).
    pub unsigned_signed: bool,
    /// Signed by signed (`sdot`, AVX-VNNI-INT8).
    pub signed_signed: bool,
    /// Unsigned by unsigned (`udot`, AVX-VNNI-INT8).
    pub unsigned_unsigned: bool,
}

/// Properties of a target that decide how kernels are made ready for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Machine {
    /// Width of the widest vector register that should be used; a power of two, at least 64.
    pub vector_bits: u32,
    /// Has a fused multiply-add instruction for f32 and f64.
    pub fma: bool,
    /// Converts between f16 and f32 in hardware.
    pub f16_convert: bool,
    /// Loads and stores the leading lanes of a vector under a mask.
    pub masked: bool,
    /// The 8-bit dot products it has.
    pub dot: DotForms,
}

impl Machine {
    /// The least that a machine with 128-bit vectors offers.
    pub const BASELINE: Machine = Machine {
        vector_bits: 128,
        fma: false,
        f16_convert: false,
        masked: false,
        dot: DotForms { unsigned_signed: false, signed_signed: false, unsigned_unsigned: false },
    };

    /// Lanes of a native vector of elements with so many bits.
    pub fn lanes(&self, bits: usize) -> u16 {
        (self.vector_bits as usize / bits.max(8)).max(1) as u16
    }
}
