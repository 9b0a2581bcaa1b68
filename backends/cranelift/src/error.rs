//! What can go wrong between a kernel and its machine code.

use tcc_kernel::verify::VerifyError;
use thiserror::Error;

/// An error of the Cranelift backend.
///
/// [`Error::Target`] is about what was asked for. Every other variant means that tcc itself produced something that this
/// backend or Cranelift refuses: a bug to report, never the fault of a model.
#[derive(Debug, Error)]
pub enum Error {
    /// The target is not known, or lacks instructions that the generated code needs.
    #[error("target '{name}': {reason}")]
    Target {
        /// The triple of the target.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The kernel breaks a rule of the kernel IR.
    #[error("kernel '{kernel}' is malformed: {source}")]
    Malformed {
        /// The symbol of the kernel.
        kernel: String,
        /// The rule that it breaks.
        source: VerifyError,
    },
    /// A kernel uses a construct that CPU backends do not receive.
    #[error("kernel '{kernel}': {construct} has no lowering")]
    Unsupported {
        /// The symbol of the kernel.
        kernel: String,
        /// The construct, as the kernel IR names it.
        construct: String,
    },
    /// Two kernels of one object have the same name, or a name is not an identifier.
    #[error("'{0}' cannot be the symbol of a kernel here: it must be a unique identifier")]
    Symbol(String),
    /// Cranelift refused the code that was built for a kernel.
    #[error("Cranelift, {stage}: {message}")]
    Cranelift {
        /// The kernel or step.
        stage: String,
        /// Cranelift's message.
        message: String,
    },
}

impl Error {
    /// An error of Cranelift at a step or in a kernel.
    pub(crate) fn cranelift(stage: &str, error: impl std::fmt::Debug) -> Error {
        Error::Cranelift { stage: stage.to_owned(), message: format!("{error:?}") }
    }
}
