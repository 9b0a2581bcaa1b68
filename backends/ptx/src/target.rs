//! The GPU generations that PTX is written for, with what they have.

use crate::architecture::Architecture;
use crate::error::Error;

/// One generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Name as in `.target`.
    pub name: &'static str,
    /// The first PTX ISA version that knows the target, as in `.version`.
    pub version: &'static str,
    /// Compute capability times ten.
    pub capability: u32,
    /// Bytes of shared memory that a block may have when it asks for more than [`Target::STATIC_SHARED`] at launch.
    pub shared: u64,
}

const fn target(name: &'static str, version: &'static str, capability: u32, kibibytes: u64) -> Target {
    Target { name, version, capability, shared: kibibytes << 10 }
}

/// Known targets, oldest first (PTX ISA, release notes and target directives; CUDA programming guide, compute capabilities).
pub const TARGETS: &[Target] = &[
    target("sm_75", "6.3", 75, 64),
    target("sm_80", "7.0", 80, 163),
    target("sm_86", "7.1", 86, 99),
    target("sm_87", "7.4", 87, 163),
    target("sm_89", "7.8", 89, 99),
    target("sm_90", "7.8", 90, 227),
    target("sm_90a", "8.0", 90, 227),
    target("sm_100", "8.6", 100, 227),
    target("sm_100a", "8.6", 100, 227),
    target("sm_120", "8.7", 120, 99),
    target("sm_120a", "8.7", 120, 99),
];

impl Target {
    /// Bytes of shared memory that a module may declare, on every target.
    pub const STATIC_SHARED: u64 = 48 << 10;
    /// Threads of a block.
    pub const THREADS: u64 = 1024;
    /// Threads along the last dimension of a block.
    pub const THREADS_DEEP: u64 = 64;
    /// Bytes of kernel parameters that every driver takes.
    pub const PARAMETERS: u64 = 4096;
    /// Registers of a thread; what exceeds them is spilled by the assembler.
    pub const REGISTERS: u64 = 255;
    /// Registers of a block.
    pub const BLOCK_REGISTERS: u64 = 65536;

    /// The target of a name such as `sm_80`.
    pub fn named(name: &str) -> Result<Target, Error> {
        TARGETS.iter().copied().find(|target| target.name == name).ok_or_else(|| Error::Target {
            name: name.to_string(),
            known: TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// A typical device of the generation.
    pub fn architecture(&self) -> &'static Architecture {
        Architecture::of(self.capability)
    }

    /// True where `min` and `max` have a form that returns NaN where an operand is NaN.
    pub fn nan_extrema(&self) -> bool {
        self.capability >= 80
    }

    /// True where warps multiply matrices of f16, bfloat16 and bytes in steps of 32 bytes, and copies to shared memory go past the
    /// registers.
    pub fn tensor_cores(&self) -> bool {
        self.capability >= 80
    }

    /// True where bfloat16 conversions exist.
    pub fn bfloat16(&self) -> bool {
        self.capability >= 80
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_targets_are_refused_by_name() {
        let error = Target::named("sm_42").unwrap_err().to_string();
        assert!(error.contains("'sm_42'") && error.contains("sm_120a"), "{error}");
        assert_eq!(Target::named("sm_90a").unwrap().version, "8.0");
    }
}
