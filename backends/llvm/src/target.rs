//! The machine that code is generated for.

use std::collections::BTreeSet;
use std::sync::Once;

use inkwell::OptimizationLevel;
use inkwell::targets::{
    CodeModel, InitializationConfig, RelocMode, Target as Backend, TargetMachine, TargetMachineOptions,
    TargetTriple,
};

use tcc_kernel::machine::{DotForms, Machine};

use crate::error::Error;

/// A processor: triple, CPU name and features, in LLVM's spelling.
///
/// A target is plain data; it is cheap to clone and may be sent to other threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    triple: String,
    cpu: String,
    /// Handed to LLVM: `+name` and `-name`, comma separated.
    feature_string: String,
    abi: &'static str,
    /// Every feature that is on, implied ones included, without the sign.
    features: BTreeSet<String>,
}

/// Features that `x86-64-v3` implies beyond the baseline, in LLVM's names.
const X86_64_V3: &[&str] = &[
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt",
    "movbe", "xsave",
];
/// Features that `x86-64-v4` adds to `x86-64-v3`.
const X86_64_V4: &[&str] = &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/// Features that may be added to a named target, and the feature that each builds on. What is not listed is refused: LLVM
/// would only warn about a name that it does not know, and code for it could not be selected.
const EXTENSIONS: &[(&str, &str, &str)] = &[
    ("x86_64", "avx512vnni", "avx512f"),
    ("x86_64", "avx512bf16", "avx512bw"),
    ("x86_64", "avx512vbmi", "avx512bw"),
    ("x86_64", "avxvnni", "avx2"),
    ("x86_64", "avxvnniint8", "avx2"),
    ("aarch64", "dotprod", "neon"),
    ("aarch64", "i8mm", "neon"),
    ("aarch64", "bf16", "neon"),
    ("aarch64", "fullfp16", "neon"),
    ("riscv64", "zfhmin", "f"),
    ("riscv64", "zvfhmin", "v"),
    ("wasm32", "relaxed-simd", "simd128"),
];

impl Target {
    /// The processor that this process runs on, with all its features.
    pub fn host() -> Result<Self, Error> {
        initialize();
        let triple = TargetMachine::get_default_triple().as_str().to_string_lossy().into_owned();
        let cpu = TargetMachine::get_host_cpu_name().to_string();
        let feature_string = TargetMachine::get_host_cpu_features().to_string();
        let features = enabled(&feature_string);
        let abi = if triple.starts_with("riscv64") { "lp64d" } else { "" };
        Self { triple, cpu, feature_string, abi, features }.checked("host")
    }

    /// A target by name: `host`, `x86-64-v1`, `x86-64-v3`, `x86-64-v4`, `aarch64`, `riscv64` or `wasm32`, each but the host
    /// optionally followed by features as in `aarch64+dotprod+i8mm` or `x86-64-v4+avx512vnni`.
    pub fn named(name: &str) -> Result<Self, Error> {
        let mut parts = name.split('+');
        let base = parts.next().unwrap_or_default();
        let extra: Vec<&str> = parts.collect();
        if base == "host" && extra.is_empty() {
            return Self::host();
        }
        let (triple, cpu, features, abi): (&str, &str, Vec<&str>, &str) = match base {
            "x86-64-v1" => ("x86_64-unknown-linux-gnu", "x86-64", vec!["sse2"], ""),
            "x86-64-v3" => ("x86_64-unknown-linux-gnu", "x86-64-v3", X86_64_V3.to_vec(), ""),
            "x86-64-v4" => ("x86_64-unknown-linux-gnu", "x86-64-v4", [X86_64_V3, X86_64_V4].concat(), ""),
            "aarch64" => ("aarch64-unknown-linux-gnu", "generic", vec!["neon", "fp-armv8"], ""),
            "riscv64" => {
                ("riscv64-unknown-linux-gnu", "generic-rv64", vec!["m", "a", "f", "d", "c", "v"], "lp64d")
            }
            "wasm32" => ("wasm32-unknown-unknown", "generic", vec!["simd128"], ""),
            _ => {
                return Err(Error::Target {
                    name: name.to_owned(),
                    reason: "known are host, x86-64-v1, x86-64-v3, x86-64-v4, aarch64, riscv64 and wasm32"
                        .to_owned(),
                });
            }
        };
        let architecture = triple.split('-').next().unwrap_or_default();
        for feature in &extra {
            let builds_on = EXTENSIONS.iter().find(|entry| entry.0 == architecture && entry.1 == *feature);
            if !builds_on.is_some_and(|entry| features.contains(&entry.2)) {
                let known =
                    EXTENSIONS.iter().filter(|entry| entry.0 == architecture && features.contains(&entry.2));
                let known: Vec<&str> = known.map(|entry| entry.1).collect();
                let reason = format!("feature '{feature}' cannot be added; these can: {}", known.join(", "));
                return Err(Error::Target { name: name.to_owned(), reason });
            }
        }
        initialize();
        let features: BTreeSet<String> = features.into_iter().chain(extra).map(str::to_owned).collect();
        let feature_string =
            features.iter().map(|feature| format!("+{feature}")).collect::<Vec<_>>().join(",");
        Self { triple: triple.to_owned(), cpu: cpu.to_owned(), feature_string, abi, features }.checked(name)
    }

    fn checked(mut self, name: &str) -> Result<Self, Error> {
        if self.has("avx512f") {
            // Some CPU models prefer 256 bits for code that LLVM vectorizes itself, and then split our 512-bit values.
            self.feature_string.push_str(",-prefer-256-bit");
        }
        self.machine(0).map(|_| self).map_err(|error| match error {
            Error::Target { reason, .. } => Error::Target { name: name.to_owned(), reason },
            other => other,
        })
    }

    /// The target triple.
    pub fn triple(&self) -> &str {
        &self.triple
    }

    /// The CPU name as LLVM knows it.
    pub fn cpu(&self) -> &str {
        &self.cpu
    }

    /// The features that are on, without signs, in alphabetical order.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(String::as_str)
    }

    /// Whether a feature, in LLVM's spelling, is on.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }

    /// The architecture, which is the first part of the triple.
    pub fn architecture(&self) -> &str {
        self.triple.split('-').next().unwrap_or_default()
    }

    /// Bytes of the widest vector register.
    pub fn vector_bytes(&self) -> usize {
        if self.has("avx512f") {
            64
        } else if self.has("avx") {
            32
        } else {
            16
        }
    }

    /// Bits of the widest vector that may be handed to LLVM for this target. Wider ones than the registers are split, but past
    /// some width code generators fail in ways that end the process, so they are refused before.
    pub(crate) fn widest_vector_bits(&self) -> usize {
        match self.architecture() {
            "x86_64" | "aarch64" => 4096,
            _ => 128,
        }
    }

    /// Bytes of a pointer.
    pub fn pointer_bytes(&self) -> usize {
        if self.architecture() == "wasm32" { 4 } else { 8 }
    }

    /// Whether the processor itself converts between `f16` and `f32`, vectors included.
    pub(crate) fn converts_half(&self) -> bool {
        match self.architecture() {
            "x86_64" => self.has("f16c"),
            "aarch64" => true,
            "riscv64" => self.has("zfhmin") && self.has("zvfhmin"),
            _ => false,
        }
    }

    /// Whether the processor multiplies and adds with one rounding.
    pub(crate) fn has_fma(&self) -> bool {
        match self.architecture() {
            "x86_64" => self.has("fma") || self.has("avx512f"),
            "aarch64" => true,
            "riscv64" => self.has("f") && self.has("d"),
            _ => false,
        }
    }

    /// What the kernel IR has to know of this target to make kernels ready for it.
    pub fn machine_description(&self) -> Machine {
        let dot = match self.architecture() {
            "x86_64" => DotForms {
                unsigned_signed: self.has("avxvnni") || self.has("avx512vnni"),
                signed_signed: self.has("avxvnniint8"),
                unsigned_unsigned: self.has("avxvnniint8"),
            },
            "aarch64" => DotForms {
                unsigned_signed: self.has("i8mm"),
                signed_signed: self.has("dotprod"),
                unsigned_unsigned: self.has("dotprod"),
            },
            _ => DotForms::default(),
        };
        Machine {
            vector_bits: 8 * self.vector_bytes() as u32,
            fma: self.has_fma(),
            f16_convert: self.converts_half(),
            // AVX2 masks elements of 32 and 64 bits only, and slowly; where there are no masks LLVM branches lane by lane.
            masked: (self.has("avx512bw") && self.has("avx512vl")) || self.has("v"),
            dot,
        }
    }

    /// Whether an object for this target can be loaded into this process.
    pub fn is_native(&self) -> bool {
        let host = TargetMachine::get_default_triple();
        host.as_str().to_string_lossy().split('-').next() == Some(self.architecture())
    }

    /// A code generator for this target. `level` is 0 to 3 and steers instruction selection only.
    pub(crate) fn machine(&self, level: u8) -> Result<TargetMachine, Error> {
        let triple = TargetTriple::create(&self.triple);
        let refuse = |reason: String| Error::Target { name: self.triple.clone(), reason };
        let backend = Backend::from_triple(&triple).map_err(|error| refuse(error.to_string()))?;
        let level = match level {
            0 => OptimizationLevel::None,
            1 => OptimizationLevel::Less,
            2 => OptimizationLevel::Default,
            _ => OptimizationLevel::Aggressive,
        };
        let mut options = TargetMachineOptions::new()
            .set_cpu(&self.cpu)
            .set_features(&self.feature_string)
            .set_level(level)
            .set_reloc_mode(RelocMode::PIC)
            .set_code_model(CodeModel::Small);
        if !self.abi.is_empty() {
            options = options.set_abi(self.abi);
        }
        backend
            .create_target_machine_from_options(&triple, options)
            .ok_or_else(|| refuse("LLVM cannot create a code generator for it".to_owned()))
    }
}

/// The features with a `+` in an LLVM feature string.
fn enabled(feature_string: &str) -> BTreeSet<String> {
    feature_string.split(',').filter_map(|feature| feature.strip_prefix('+')).map(str::to_owned).collect()
}

/// Registers the code generators, once in a process.
fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = InitializationConfig::default();
        Backend::initialize_x86(&config);
        Backend::initialize_aarch64(&config);
        Backend::initialize_riscv(&config);
        Backend::initialize_webassembly(&config);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_target_has_a_code_generator() {
        for name in ["host", "x86-64-v3", "x86-64-v4", "aarch64+dotprod", "riscv64", "wasm32"] {
            let target = Target::named(name).unwrap();
            assert!(target.vector_bytes() >= 16, "{name}");
        }
        assert_eq!(Target::named("x86-64-v4").unwrap().vector_bytes(), 64);
        assert!(Target::named("aarch64+dotprod").unwrap().has("dotprod"));
    }

    #[test]
    fn an_unknown_target_is_refused_by_name() {
        for (name, word) in
            [("z80", "known are"), ("aarch64+avx2", "dotprod"), ("x86-64-v3+avx512vnni", "avxvnni")]
        {
            let error = Target::named(name).unwrap_err().to_string();
            assert!(error.contains(&format!("'{name}'")) && error.contains(word), "{error}");
        }
    }
}
