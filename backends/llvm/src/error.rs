//! What can go wrong between a kernel and its machine code.

use thiserror::Error;

/// An error of the LLVM backend.
///
/// [`Error::Target`] and [`Error::Unsupported`] are about what was asked for. Every other variant means that tcc itself
/// produced something that MLIR or LLVM refuses: a bug to report, never the fault of a model.
#[derive(Debug, Error)]
pub enum Error {
    /// The target is not known, or this LLVM was built without it.
    #[error("target '{name}': {reason}")]
    Target {
        /// The target as it was named.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A kernel uses a construct that this backend has no lowering for on this target.
    #[error("kernel '{kernel}': {construct} has no lowering for {target}")]
    Unsupported {
        /// The symbol of the kernel.
        kernel: String,
        /// The construct, as the kernel IR prints it.
        construct: String,
        /// The triple of the target.
        target: String,
    },
    /// The kernel breaks a rule of the kernel IR.
    #[error("kernel '{kernel}' is malformed: {reason}")]
    Malformed {
        /// The symbol of the kernel.
        kernel: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// MLIR refused the module that was built, or a pass over it failed.
    #[error("MLIR {stage}: {message}")]
    Mlir {
        /// The step that failed.
        stage: &'static str,
        /// The diagnostics of MLIR.
        message: String,
    },
    /// LLVM refused the translated module, or could not emit it.
    #[error("LLVM {stage}: {message}")]
    Llvm {
        /// The step that failed.
        stage: &'static str,
        /// The message of LLVM.
        message: String,
    },
    /// The object could not be linked into this process.
    #[error("loading compiled code: {0}")]
    Load(String),
}
