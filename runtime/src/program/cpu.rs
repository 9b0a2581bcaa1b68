//! Whether this machine has what a program needs.

use crate::error::{Error, Result};
use crate::manifest::Target;

/// A match over names, each looked up by the standard library's detection macro, which takes only literals.
macro_rules! detect {
    ($name:expr; $($feature:tt)*) => {
        match $name {
            $($feature => Some(is_detected!($feature)),)*
            _ => None,
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! is_detected {
    ($feature:tt) => {
        std::is_x86_feature_detected!($feature)
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! is_detected {
    ($feature:tt) => {
        std::arch::is_aarch64_feature_detected!($feature)
    };
}

/// Whether the CPU has a feature, named as Rust names it; `None` for an unknown name.
#[cfg(target_arch = "x86_64")]
pub fn has_feature(name: &str) -> Option<bool> {
    detect!(name;
        "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "movbe"
        "aes" "pclmulqdq" "sha" "adx" "avx512f" "avx512cd" "avx512bw" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi"
        "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16" "avxvnni" "avxvnniint8"
        "avxifma" "avxneconvert" "gfni" "vaes" "vpclmulqdq")
}

/// Whether the CPU has a feature, named as Rust names it; `None` for an unknown name.
#[cfg(target_arch = "aarch64")]
pub fn has_feature(name: &str) -> Option<bool> {
    detect!(name;
        "neon" "asimd" "fp" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2" "fhm" "lse" "rdm" "fcma" "crc" "aes" "sha2"
        "sha3" "rcpc" "jsconv")
}

/// Whether the CPU has a feature; on this architecture none is known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn has_feature(_name: &str) -> Option<bool> {
    None
}

/// Refuses a program for another machine. A feature that this runtime does not know counts as missing.
pub fn check(target: &Target) -> Result<()> {
    let host = std::env::consts::ARCH;
    if target.arch != host {
        return Err(Error::WrongArchitecture { needed: target.arch.clone(), host: host.to_owned() });
    }
    let missing: Vec<_> =
        target.features.iter().filter(|name| has_feature(name) != Some(true)).cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::MissingCpuFeatures { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_refused_by_name() {
        assert!(check(&Target::host_baseline()).is_ok());
        let mut target = Target { arch: "vax".into(), features: Vec::new() };
        assert!(matches!(check(&target), Err(Error::WrongArchitecture { .. })));
        target = Target { features: vec!["warp-drive".into()], ..Target::host_baseline() };
        assert!(check(&target).unwrap_err().to_string().contains("warp-drive"));
    }
}
