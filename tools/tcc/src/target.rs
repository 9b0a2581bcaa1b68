//! Target names and what they stand for: a backend, a processor, schedule parameters, a cost model.

use tcc_kernel::lower::Tuning;
use tcc_kernel::machine::Machine;
use tcc_runtime::manifest;

use crate::error::Error;

/// Where code is generated for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name as given: `cpu`, `cpu:x86-64-v3`, `cranelift`.
    pub name: String,
    /// What generates the code.
    pub backend: Backend,
    /// What kernels are made ready for.
    pub machine: Machine,
    /// The machine model of every pass.
    pub cost: tcc_passes::cost::Machine,
    /// Where that model is from: the shipped table, or which measurement of this host.
    pub cost_origin: String,
}

/// A code generator with its view of the processor.
#[derive(Clone, Debug)]
pub enum Backend {
    /// MLIR and LLVM.
    #[cfg(feature = "llvm")]
    Llvm(tcc_llvm::Target),
    /// Cranelift.
    Cranelift(tcc_cranelift::Target),
    /// PTX text for a GPU.
    Ptx(tcc_ptx::Target),
}

/// Names that [`Target::named`] takes, with a line about each.
pub const KNOWN: &[(&str, &str)] = &[
    ("cpu", "this machine, through LLVM where this build has it"),
    ("cpu:x86-64-v3", "x86-64 with AVX2 and FMA"),
    ("cpu:x86-64-v4", "x86-64 with AVX-512"),
    ("cpu:aarch64", "64-bit Arm with Neon"),
    ("cpu:riscv64", "64-bit RISC-V with vectors"),
    ("cpu:wasm32", "WebAssembly with 128-bit SIMD"),
    ("cranelift", "this machine, through Cranelift: compiles in milliseconds and needs no LLVM"),
    ("ptx:sm_80", "NVIDIA GPUs, sm_75 to sm_120a; runs on the devices cuda and sim"),
];

/// Targets of designs, which run as a whole on the device csim.
pub const WRITTEN: &[(&str, &str)] =
    &[("hls:zcu104", "FPGA parts pynq-z2, zcu104, kv260, u50, u280, vcu118: an HLS C++ project")];

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Result<Target, Error> {
        let failed = |reason: String| Error::Target { name: name.to_string(), reason };
        if name == "cranelift" || (name == "cpu" && cfg!(not(feature = "llvm"))) {
            let target = tcc_cranelift::Target::host();
            let machine = target.machine().map_err(|error| failed(error.to_string()))?;
            let (cost, cost_origin) = cost_model(name);
            let (name, backend) = (name.to_string(), Backend::Cranelift(target));
            return Ok(Target { name, backend, machine, cost, cost_origin });
        }
        if let Some(architecture) = name.strip_prefix("ptx:") {
            let target = tcc_ptx::Target::named(architecture).map_err(|error| failed(error.to_string()))?;
            return Ok(Target {
                name: name.to_string(),
                backend: Backend::Ptx(target),
                machine: tcc_ptx::schedule::MACHINE,
                cost: tcc_passes::cost::Machine::host(),
                cost_origin: "shipped table".to_string(),
            });
        }
        if name.starts_with("hls:") {
            return Err(failed(
                "`tcc compile`, run, verify and bench take it, with the device csim; this command does not"
                    .into(),
            ));
        }
        if name != "cpu" && !name.starts_with("cpu:") {
            let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
            return Err(failed(format!("unknown; known are {}", known.join(", "))));
        }
        llvm_target(name)
    }

    /// What kernels are compared with: the machine model, of GPUs that of the architecture, and where it is from.
    pub fn limits(&self) -> (tcc_passes::cost::Machine, String) {
        match &self.backend {
            Backend::Ptx(target) => {
                let device = target.architecture().device;
                (crate::gpu_limits::machine(target), format!("a model of {device}, not a measurement"))
            }
            _ => (self.cost.clone(), self.cost_origin.clone()),
        }
    }

    /// True where code for this target runs in this process.
    pub fn is_native(&self) -> bool {
        match &self.backend {
            #[cfg(feature = "llvm")]
            Backend::Llvm(target) => target.is_native(),
            Backend::Cranelift(_) => true,
            Backend::Ptx(_) => false,
        }
    }

    /// Schedule parameters.
    pub fn tuning(&self) -> Tuning {
        if let Backend::Ptx(target) = &self.backend {
            return tcc_ptx::schedule::tuning(target);
        }
        let cache =
            |level: usize, default: u64| self.cost.caches.get(level).map_or(default, |cache| cache.bytes);
        Tuning {
            vector_bits: self.machine.vector_bits,
            vector_registers: if self.machine.vector_bits >= 512 || self.architecture() == "aarch64" {
                32
            } else {
                16
            },
            l1_bytes: cache(0, 32 << 10),
            l2_bytes: cache(1, 1 << 20),
            dot: self.machine.dot.unsigned_signed,
            gpu: None,
        }
    }

    fn architecture(&self) -> &str {
        match &self.backend {
            #[cfg(feature = "llvm")]
            Backend::Llvm(target) => target.architecture(),
            Backend::Cranelift(target) => target.triple.split('-').next().unwrap_or_default(),
            Backend::Ptx(target) => target.name,
        }
    }

    /// What a loader checks before it runs the code.
    pub fn requirements(&self) -> manifest::Target {
        let features: Vec<String> = match &self.backend {
            #[cfg(feature = "llvm")]
            Backend::Llvm(target) => target.features().map(str::to_string).collect(),
            Backend::Cranelift(target) => target.features.clone(),
            Backend::Ptx(_) => Vec::new(),
        };
        // Only features that vector code can use; the runtime refuses names it does not know.
        let known = |feature: &String| {
            let foreign = self.architecture() != std::env::consts::ARCH;
            foreign || tcc_runtime::program::cpu::has_feature(feature) == Some(true)
        };
        manifest::Target {
            arch: self.architecture().to_string(),
            features: features.into_iter().filter(known).collect(),
        }
    }
}

/// The machine model of a target, and where it is from. What was measured was measured of code for `cpu`.
fn cost_model(name: &str) -> (tcc_passes::cost::Machine, String) {
    use tcc_passes::cost::Machine;
    if name == "cpu" {
        return Machine::of_this_host();
    }
    (Machine::of(name).unwrap_or_else(Machine::host), "shipped table".to_string())
}

#[cfg(feature = "llvm")]
fn llvm_target(name: &str) -> Result<Target, Error> {
    let failed = |reason: String| Error::Target { name: name.to_string(), reason };
    let target = match name.strip_prefix("cpu:") {
        Some(processor) => tcc_llvm::Target::named(processor),
        None => tcc_llvm::Target::host(),
    }
    .map_err(|error| failed(error.to_string()))?;
    let machine = target.machine_description();
    let (cost, cost_origin) = cost_model(name);
    Ok(Target { name: name.to_string(), backend: Backend::Llvm(target), machine, cost, cost_origin })
}

#[cfg(not(feature = "llvm"))]
fn llvm_target(name: &str) -> Result<Target, Error> {
    let reason = "this build has no LLVM; use `cranelift`, or build with the default features".to_string();
    Err(Error::Target { name: name.to_string(), reason })
}
