//! What an IR value is at run time.

use tcc_ir::data::Data;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A run-time value; cloning shares tensors.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A dense tensor.
    Tensor(Tensor),
    /// A list of values.
    Sequence(Vec<Value>),
    /// A value that may be absent.
    Optional(Option<Box<Value>>),
}

impl Value {
    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Result<&Tensor> {
        match self {
            Value::Tensor(tensor) => Ok(tensor),
            Value::Sequence(_) => Err(Error::operands("expected a tensor, got a sequence")),
            Value::Optional(_) => Err(Error::operands("expected a tensor, got an optional")),
        }
    }

    /// Short text for diagnostics: `f32[2, 3]`, `sequence of 4`.
    pub fn summary(&self) -> String {
        match self {
            Value::Tensor(tensor) => format!("{}{:?}", tensor.dtype(), tensor.shape()),
            Value::Sequence(items) => format!("sequence of {}", items.len()),
            Value::Optional(None) => "absent".into(),
            Value::Optional(Some(inner)) => format!("optional {}", inner.summary()),
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Value {
        Value::Tensor(tensor)
    }
}

impl From<Data> for Value {
    fn from(data: Data) -> Value {
        Value::Tensor(Tensor::from(&data))
    }
}
