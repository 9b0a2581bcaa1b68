//! Why a pass cannot do its work.

use tcc_ir::infer::InferError;

/// An error of a pass.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A pass name that the table does not have.
    #[error("unknown pass '{name}'; known passes: {known}")]
    UnknownPass {
        /// The name as given.
        name: String,
        /// All names.
        known: String,
    },
    /// A function calls itself, directly or through others.
    #[error("function '{0}' calls itself")]
    RecursiveCall(String),
    /// A call of a function that the module does not have, or with the wrong number of operands.
    #[error("call of '{callee}': {reason}")]
    Call {
        /// The function that is called.
        callee: String,
        /// What is wrong.
        reason: String,
    },
    /// An operator does not take its operands.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A bug of ours: an invariant between passes does not hold.
    #[error("internal error in the optimizer: {0}")]
    Internal(String),
}

impl Error {
    /// An error that the user cannot cause.
    pub fn internal(text: impl Into<String>) -> Error {
        Error::Internal(text.into())
    }
}
