//! Why a node is not imported: the model is at fault, or tcc does not support what it asks for.

use super::super::error::{NodeError, OnnxError};
use tcc_ir::data::DataError;
use tcc_ir::infer::InferError;

/// Outcome of a lowering that gives up.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The node contradicts the definition of its operator.
    Invalid(NodeError),
    /// tcc does not support this node; the text says what about it.
    Unsupported(String),
    /// The value of an operand must be known at compile time.
    RunTime {
        /// Position of the operand.
        operand: usize,
        /// What it is called in the operator's definition.
        name: &'static str,
    },
    /// The branches of an `If` give values that no type holds; the text names both types.
    Branches(String),
    /// An operand comes from a node that was refused before.
    Depends,
    /// An error in a subgraph.
    Nested(Box<OnnxError>),
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Self {
        Refusal::Invalid(error)
    }
}

impl From<OnnxError> for Refusal {
    fn from(error: OnnxError) -> Self {
        Refusal::Nested(Box::new(error))
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        Refusal::Invalid(NodeError::Operands(error.to_string()))
    }
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Self {
        Refusal::Invalid(NodeError::Operands(error.to_string()))
    }
}

/// Something about a node that tcc does not support.
pub(crate) fn unsupported(reason: impl Into<String>) -> Refusal {
    Refusal::Unsupported(reason.into())
}

/// Operands that do not fit the operator's definition.
pub(crate) fn operands(reason: impl Into<String>) -> Refusal {
    Refusal::Invalid(NodeError::Operands(reason.into()))
}

/// An attribute with a value that the operator does not define.
pub(crate) fn attribute(name: &str, value: impl Into<String>) -> Refusal {
    Refusal::Invalid(NodeError::AttributeValue { attribute: name.to_owned(), value: value.into() })
}
