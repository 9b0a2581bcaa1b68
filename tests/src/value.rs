//! Values that cross the border of a model: tensors, text, sequences and optionals.

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use tcc_frontend::onnx::external::ExternalFiles;
use tcc_frontend::onnx::import::dtype;
use tcc_frontend::onnx::proto::TensorProto;
use tcc_frontend::onnx::tensor::{Payload, Tensor};
use tcc_ir::data::Data;

/// Kinds of values in a [`SequenceProto`] or [`OptionalProto`] (`onnx-data.proto`).
mod content {
    pub(super) const UNDEFINED: i32 = 0;
    pub(super) const TENSOR: i32 = 1;
    pub(super) const SEQUENCE: i32 = 3;
    pub(super) const OPTIONAL: i32 = 5;
}

/// `SequenceProto` of `onnx-data.proto`, without sparse tensors and maps, which no case of the suite has.
#[derive(Clone, PartialEq, prost::Message)]
struct SequenceProto {
    #[prost(int32, tag = "2")]
    elem_type: i32,
    #[prost(message, repeated, tag = "3")]
    tensor_values: Vec<TensorProto>,
    #[prost(message, repeated, tag = "5")]
    sequence_values: Vec<SequenceProto>,
    #[prost(message, repeated, tag = "7")]
    optional_values: Vec<OptionalProto>,
}

/// `OptionalProto` of `onnx-data.proto`, likewise.
#[derive(Clone, PartialEq, prost::Message)]
struct OptionalProto {
    #[prost(int32, tag = "2")]
    elem_type: i32,
    #[prost(message, optional, tag = "3")]
    tensor_value: Option<TensorProto>,
    #[prost(message, optional, tag = "5")]
    sequence_value: Option<SequenceProto>,
}

/// An input or output of a model.
#[derive(Clone, Debug)]
pub enum Value {
    /// Numbers, truth values or text.
    Tensor(Data),
    /// An ONNX sequence.
    Sequence(Vec<Value>),
    /// An ONNX optional that holds nothing.
    Absent,
}

impl Value {
    /// Type and shape for messages, as `f32[2,3]`.
    pub fn describe(&self) -> String {
        let list = |shape: &[usize]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Value::Tensor(data) => format!("{}[{}]", data.dtype(), list(data.shape())),
            Value::Sequence(elements) => format!("a sequence of {}", elements.len()),
            Value::Absent => "an absent optional".to_owned(),
        }
    }
}

/// What a test data file of the ONNX suite holds; the declared type of the graph input or output decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A serialized `TensorProto`.
    Tensor,
    /// A serialized `SequenceProto`.
    Sequence,
    /// A serialized `OptionalProto`.
    Optional,
}

/// Reads a test data file of the ONNX suite.
///
/// # Errors
/// The file is unreadable, damaged, or holds a kind of value that no case of the suite has.
pub fn read_onnx_value(path: &Path, kind: Kind) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    decode_onnx_value(Bytes::from(bytes), kind).map_err(|error| format!("{}: {error}", path.display()))
}

fn decode_onnx_value(bytes: Bytes, kind: Kind) -> Result<Value, String> {
    let damaged = |error: prost::DecodeError| error.to_string();
    match kind {
        Kind::Tensor => tensor(&TensorProto::decode(bytes).map_err(damaged)?),
        Kind::Sequence => sequence(&SequenceProto::decode(bytes).map_err(damaged)?),
        Kind::Optional => optional(&OptionalProto::decode(bytes).map_err(damaged)?),
    }
}

fn tensor(proto: &TensorProto) -> Result<Value, String> {
    let tensor = Tensor::from_proto(proto, &ExternalFiles::default()).map_err(|error| error.to_string())?;
    let shape: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
    match tensor.payload {
        Payload::Strings(elements) => {
            let texts: Vec<_> = elements.iter().map(|text| String::from_utf8_lossy(text)).collect();
            Data::from_texts(&shape, &texts).map(Value::Tensor).map_err(|error| error.to_string())
        }
        Payload::Bytes(bytes) => {
            let dtype =
                dtype(tensor.element).ok_or_else(|| format!("no element type {:?}", tensor.element))?;
            Data::new(dtype, &shape, bytes).map(Value::Tensor).map_err(|error| error.to_string())
        }
    }
}

fn sequence(proto: &SequenceProto) -> Result<Value, String> {
    let elements = match proto.elem_type {
        content::TENSOR | content::UNDEFINED => proto.tensor_values.iter().map(tensor).collect(),
        content::SEQUENCE => proto.sequence_values.iter().map(sequence).collect(),
        content::OPTIONAL => proto.optional_values.iter().map(optional).collect(),
        _ => Err("the sequence holds sparse tensors or maps".to_owned()),
    };
    elements.map(Value::Sequence)
}

fn optional(proto: &OptionalProto) -> Result<Value, String> {
    match (proto.elem_type, &proto.tensor_value, &proto.sequence_value) {
        (content::TENSOR, Some(value), _) => tensor(value),
        (content::SEQUENCE, _, Some(value)) => sequence(value),
        (content::UNDEFINED | content::TENSOR | content::SEQUENCE, ..) => Ok(Value::Absent),
        _ => Err("the optional holds a sparse tensor or a map".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(values: &[i64]) -> TensorProto {
        TensorProto {
            dims: vec![values.len() as i64],
            data_type: Some(7),
            int64_data: values.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn sequences_and_optionals_nest() {
        let proto = SequenceProto {
            elem_type: content::TENSOR,
            tensor_values: vec![integers(&[1, 2]), integers(&[])],
            ..Default::default()
        };
        let value = decode_onnx_value(proto.encode_to_vec().into(), Kind::Sequence).unwrap();
        let Value::Sequence(elements) = value else { panic!("{value:?}") };
        assert_eq!(elements.iter().map(Value::describe).collect::<Vec<_>>(), ["i64[2]", "i64[0]"]);
        let empty = OptionalProto { elem_type: content::TENSOR, ..Default::default() };
        assert!(matches!(decode_onnx_value(empty.encode_to_vec().into(), Kind::Optional), Ok(Value::Absent)));
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        assert!(decode_onnx_value(Bytes::from_static(b"\xff\xff\xff"), Kind::Tensor).is_err());
        let short =
            TensorProto { dims: vec![9], data_type: Some(7), int64_data: vec![1], ..Default::default() };
        assert!(decode_onnx_value(short.encode_to_vec().into(), Kind::Tensor).is_err());
    }
}
