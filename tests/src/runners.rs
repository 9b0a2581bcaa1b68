//! What runs whole ONNX models and file tests: the reference interpreter and each executable target.

use tcc::Device;

use crate::compiled::Compiled;
use crate::conformance::Runner;
use crate::filetest::Executor;
use crate::interpret::Interpret;

/// The runners of this build, the reference first.
#[cfg(feature = "llvm")]
pub const NAMES: &[&str] = &["interpret", "optimized", "llvm", "cranelift"];
/// The runners of this build, the reference first.
#[cfg(not(feature = "llvm"))]
pub const NAMES: &[&str] = &["interpret", "optimized", "cranelift"];

const REFERENCE: Interpret = Interpret { optimize: false };
const OPTIMIZED: Interpret = Interpret { optimize: true };
#[cfg(feature = "llvm")]
const LLVM: Compiled = Compiled { name: "llvm", target: "cpu", device: Device::Cpu };
const CRANELIFT: Compiled = Compiled { name: "cranelift", target: "cranelift", device: Device::Cpu };
/// PTX in the simulator: asked for by name, as it is too slow for the zoo of models.
const SIM: Compiled = Compiled { name: "sim", target: "ptx:sm_80", device: Device::Sim };

/// The runner of this name.
pub fn by_name(name: &str) -> Option<Box<dyn Runner>> {
    match name {
        "interpret" => Some(Box::new(REFERENCE)),
        "optimized" => Some(Box::new(OPTIMIZED)),
        #[cfg(feature = "llvm")]
        "llvm" => Some(Box::new(LLVM)),
        "cranelift" => Some(Box::new(CRANELIFT)),
        "sim" => Some(Box::new(SIM)),
        _ => None,
    }
}

/// Executors of file tests, the reference first.
pub fn executors() -> Vec<Box<dyn Executor>> {
    vec![
        Box::new(REFERENCE),
        Box::new(OPTIMIZED),
        #[cfg(feature = "llvm")]
        Box::new(LLVM),
        Box::new(CRANELIFT),
    ]
}
