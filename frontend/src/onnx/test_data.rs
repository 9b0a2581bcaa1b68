//! Test data files of the ONNX conformance suite: one serialized value a `.pb` file.

use super::error::OnnxError;
use super::external::ExternalFiles;
use super::proto::TensorProto;
use super::tensor::Tensor;
use super::wire;
use crate::map::map_file;
use bytes::Bytes;
use prost::Message;
use std::path::Path;

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
    let tensor = Tensor::from_proto(&proto, &ExternalFiles::default())
        .map_err(|source| OnnxError::Tensor { tensor: proto.name().to_owned(), source })?;
    Ok((proto.name().to_owned(), tensor))
}
