//! Test data files of the ONNX conformance suite: one serialized value a `.pb` file.

use super::error::{OnnxError, TensorError};
use super::external::ExternalFiles;
use super::proto::{OptionalProto, SequenceProto, TensorProto};
use super::tensor::Tensor;
use super::value::ValueType;
use super::wire;
use crate::map::map_file;
use bytes::Bytes;
use prost::Message;
use std::path::Path;

/// A value of test data.
#[derive(Clone, Debug, PartialEq)]
pub enum TestValue {
    /// A tensor.
    Tensor(Tensor),
    /// A list of values.
    Sequence(Vec<TestValue>),
    /// A value that may be absent.
    Optional(Option<Box<TestValue>>),
}

/// Reads a value of the type that the model declares for it, with its name (often empty). The files do not say which
/// kind of value they hold.
///
/// # Errors
/// The file is unreadable or holds no well-formed value of that kind.
pub fn read_value(path: &Path, declared: &ValueType) -> Result<(String, TestValue), OnnxError> {
    let buffer = map_file(path).map_err(|source| OnnxError::Read { path: path.to_owned(), source })?;
    let malformed =
        |message, error: prost::DecodeError| OnnxError::Malformed { message, reason: error.to_string() };
    match declared {
        ValueType::Sequence(_) => {
            wire::check_expansion(wire::Message::Sequence, &buffer)?;
            let proto = SequenceProto::decode(buffer).map_err(|error| malformed("sequence", error))?;
            Ok((proto.name().to_owned(), sequence(&proto)?))
        }
        ValueType::Optional(_) => {
            wire::check_expansion(wire::Message::Sequence, &buffer)?;
            let proto = OptionalProto::decode(buffer).map_err(|error| malformed("optional", error))?;
            Ok((proto.name().to_owned(), optional(&proto)?))
        }
        _ => decode_tensor(buffer).map(|(name, tensor)| (name, TestValue::Tensor(tensor))),
    }
}

/// Reads a serialized `TensorProto`; its name is the name of the graph input or output, or empty.
///
/// # Errors
/// The file is unreadable or holds no well-formed tensor.
pub fn read_tensor(path: &Path) -> Result<(String, Tensor), OnnxError> {
    let buffer = map_file(path).map_err(|source| OnnxError::Read { path: path.to_owned(), source })?;
    decode_tensor(buffer)
}

/// Decodes a serialized `TensorProto`.
///
/// # Errors
/// The bytes are no well-formed tensor.
pub fn decode_tensor(buffer: Bytes) -> Result<(String, Tensor), OnnxError> {
    wire::check_expansion(wire::Message::Tensor, &buffer)?;
    let proto = TensorProto::decode(buffer)
        .map_err(|error| OnnxError::Malformed { message: "tensor", reason: error.to_string() })?;
    Ok((proto.name().to_owned(), tensor(&proto)?))
}

fn tensor(proto: &TensorProto) -> Result<Tensor, OnnxError> {
    Tensor::from_proto(proto, &ExternalFiles::default())
        .map_err(|source| OnnxError::Tensor { tensor: proto.name().to_owned(), source })
}

fn unsupported(kind: &'static str, name: &str) -> OnnxError {
    OnnxError::Tensor { tensor: name.to_owned(), source: TensorError::UnsupportedType(kind) }
}

fn sequence(proto: &SequenceProto) -> Result<TestValue, OnnxError> {
    if !proto.sparse_tensor_values.is_empty() || !proto.map_values.is_empty() {
        return Err(unsupported("sequence of sparse tensors or maps", proto.name()));
    }
    let mut values = Vec::new();
    for value in &proto.tensor_values {
        values.push(TestValue::Tensor(tensor(value)?));
    }
    for value in &proto.sequence_values {
        values.push(sequence(value)?);
    }
    for value in &proto.optional_values {
        values.push(optional(value)?);
    }
    Ok(TestValue::Sequence(values))
}

fn optional(proto: &OptionalProto) -> Result<TestValue, OnnxError> {
    let inner = if let Some(value) = &proto.tensor_value {
        Some(TestValue::Tensor(tensor(value)?))
    } else if let Some(value) = &proto.sequence_value {
        Some(sequence(value)?)
    } else if let Some(value) = &proto.optional_value {
        Some(optional(value)?)
    } else if proto.sparse_tensor_value.is_some() || proto.map_value.is_some() {
        return Err(unsupported("optional sparse tensor or map", proto.name()));
    } else {
        None
    };
    Ok(TestValue::Optional(inner.map(Box::new)))
}
