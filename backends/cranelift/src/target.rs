//! The machine that code is generated for.

use std::str::FromStr;

use cranelift_codegen::isa::{self, Builder, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use tcc_kernel::machine::{DotForms, Machine};

use crate::error::Error;

/// A processor: triple, and features in LLVM's spelling (`sse4.1`, `avx2`, `fma`, `dotprod`, ...).
///
/// Features that Cranelift makes no use of are ignored: they only permit instructions. x86-64 needs the features of
/// x86-64-v2 at least (SSSE3, SSE4.1, SSE4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The target triple, as `x86_64-unknown-linux-gnu`.
    pub triple: String,
    /// Features that the processor has. Empty for the host means that they are detected.
    pub features: Vec<String>,
    /// Whether `features` are those of this process' machine, to be detected.
    native: bool,
}

/// Names of x86 features and of the Cranelift settings that stand for them.
const X86_SETTINGS: &[(&str, &str)] = &[
    ("sse3", "has_sse3"),
    ("ssse3", "has_ssse3"),
    ("cx16", "has_cmpxchg16b"),
    ("sse4.1", "has_sse41"),
    ("sse4.2", "has_sse42"),
    ("popcnt", "has_popcnt"),
    ("avx", "has_avx"),
    ("avx2", "has_avx2"),
    ("fma", "has_fma"),
    ("bmi", "has_bmi1"),
    ("bmi1", "has_bmi1"),
    ("bmi2", "has_bmi2"),
    ("lzcnt", "has_lzcnt"),
    ("avxvnni", "has_avx_vnni"),
    ("avx512f", "has_avx512f"),
    ("avx512dq", "has_avx512dq"),
    ("avx512vl", "has_avx512vl"),
    ("avx512vbmi", "has_avx512vbmi"),
    ("avx512bitalg", "has_avx512bitalg"),
    ("avx512vnni", "has_avx512vnni"),
];

/// The same for 64-bit Arm.
const ARM_SETTINGS: &[(&str, &str)] =
    &[("lse", "has_lse"), ("pauth", "has_pauth"), ("fullfp16", "has_fp16"), ("dotprod", "has_dotprod")];

/// What x86-64-v2 has over the first x86-64 processors, as far as vectors are concerned.
const X86_REQUIRED: &[&str] = &["has_ssse3", "has_sse41", "has_sse42"];

impl Target {
    /// The processor that this process runs on, with all its features.
    pub fn host() -> Target {
        Target {
            triple: cranelift_native::builder()
                .map_or_else(|_| String::new(), |builder| builder.triple().to_string()),
            features: Vec::new(),
            native: true,
        }
    }

    /// A processor by triple and features.
    pub fn new(triple: &str, features: &[&str]) -> Target {
        Target {
            triple: triple.to_owned(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
            native: false,
        }
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Target { name: self.triple.clone(), reason: reason.into() }
    }

    /// Cranelift's view of this processor.
    fn builder(&self) -> Result<Builder, Error> {
        if self.native {
            return cranelift_native::builder().map_err(|reason| self.refuse(reason));
        }
        let triple = FromStr::from_str(&self.triple)
            .map_err(|error| self.refuse(format!("not a target triple: {error}")))?;
        let mut builder = isa::lookup(triple).map_err(|error| self.refuse(error.to_string()))?;
        let known = match builder.triple().architecture.to_string().as_str() {
            "x86_64" => X86_SETTINGS,
            "aarch64" => ARM_SETTINGS,
            _ => &[],
        };
        for (_, setting) in known.iter().filter(|(name, _)| self.features.iter().any(|have| have == name)) {
            // A table row that this version of Cranelift lacks would be an instruction that it never uses.
            if builder.iter().any(|known| known.name == *setting) {
                builder.enable(setting).map_err(|error| self.refuse(error.to_string()))?;
            }
        }
        Ok(builder)
    }

    /// The code generator. Position independent code is for objects; code for this process needs none.
    pub(crate) fn isa(&self, position_independent: bool) -> Result<OwnedTargetIsa, Error> {
        let mut flags = settings::builder();
        let mut set = |name: &str, value: &str| {
            flags.set(name, value).map_err(|error| self.refuse(format!("{name}: {error}")))
        };
        set("opt_level", "speed")?;
        set("is_pic", if position_independent { "true" } else { "false" })?;
        // Stack buffers may be larger than a page: touch each page on the way, so that an overflow hits the guard page.
        set("enable_probestack", "true")?;
        set("probestack_strategy", "inline")?;
        // Kernels are verified before, so that Cranelift's own verifier only repeats the work, except in debug builds.
        set("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" })?;
        let isa = self
            .builder()?
            .finish(settings::Flags::new(flags))
            .map_err(|error| self.refuse(error.to_string()))?;
        let little = isa.endianness() == cranelift_codegen::ir::Endianness::Little;
        if isa.pointer_bits() != 64 || !little {
            return Err(self.refuse("only 64-bit little-endian processors are supported"));
        }
        match isa.name() {
            "x64" => {
                if let Some(missing) = X86_REQUIRED.iter().find(|name| !is_on(&*isa, name)) {
                    return Err(
                        self.refuse(format!("lacks {} (x86-64-v2 is needed)", &missing["has_".len()..]))
                    );
                }
            }
            "aarch64" => {}
            other => return Err(self.refuse(format!("vectors of '{other}' are not supported"))),
        }
        Ok(isa)
    }

    /// What [`tcc_kernel`]'s passes have to know to make kernels ready for this backend on this target.
    ///
    /// # Errors
    ///
    /// [`Error::Target`] where no code can be generated for the target.
    pub fn machine(&self) -> Result<Machine, Error> {
        let isa = self.isa(false)?;
        let all = DotForms { unsigned_signed: true, signed_signed: true, unsigned_unsigned: true };
        Ok(Machine {
            vector_bits: 128,
            fma: has_fma(&*isa),
            // Half precision is converted in integer vectors, products of bytes go through 16-bit ones, and a partly valid
            // access copies lane by lane: all better than what a pass could write in scalar kernel IR.
            f16_convert: true,
            masked: true,
            dot: all,
        })
    }
}

impl Default for Target {
    fn default() -> Target {
        Target::host()
    }
}

/// Whether a setting of the processor is on.
pub(crate) fn is_on(isa: &dyn isa::TargetIsa, setting: &str) -> bool {
    isa.isa_flags().iter().any(|value| value.name == setting && value.as_bool() == Some(true))
}

/// Whether the processor multiplies and adds with one rounding.
pub(crate) fn has_fma(isa: &dyn isa::TargetIsa) -> bool {
    isa.name() != "x64" || is_on(isa, "has_avx") && is_on(isa, "has_fma")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_cross_targets_have_code_generators() {
        assert!(Target::host().isa(false).is_ok());
        assert!(Target::new("aarch64-unknown-linux-gnu", &["dotprod"]).isa(true).is_ok());
        let v2 = Target::new("x86_64-unknown-linux-gnu", &["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt"]);
        assert!(!v2.machine().unwrap().fma);
    }

    #[test]
    fn unusable_targets_are_refused_by_name() {
        for triple in ["z80-unknown-none", "x86_64-unknown-linux-gnu", "nonsense", ""] {
            let error = Target::new(triple, &[]).machine().unwrap_err();
            assert!(error.to_string().contains(&format!("'{triple}'")), "{error}");
        }
    }
}
