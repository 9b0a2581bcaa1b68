//! Stored tensors: type, shape and a payload that is referenced from the memory map wherever the file allows it.

use super::element::{self, DataType};
use super::error::TensorError;
use super::external::ExternalFiles;
use super::proto::{TensorProto, tensor_proto::DataLocation};
use bytes::Bytes;

/// A constant tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub element: DataType,
    /// Sizes, outermost first; their product fits in 63 bits.
    pub dims: Vec<u64>,
    /// The elements in row-major order.
    pub payload: Payload,
}

/// The elements of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Little-endian, with no alignment promised; elements under 8 bits are packed, the first in the low bits.
    /// The length is exactly what type and shape take.
    Bytes(Bytes),
    /// One entry an element.
    Strings(Vec<Bytes>),
}

impl Tensor {
    /// Reads a tensor message. `raw_data` and external data are referenced; the typed fields, which protobuf
    /// stores in other widths, are converted.
    ///
    /// # Errors
    /// The type is unknown or complex, a dimension negative, or the payload not exactly as long as the shape says.
    pub fn from_proto(tensor: &TensorProto, files: &ExternalFiles) -> Result<Self, TensorError> {
        let number = tensor.data_type();
        let element = DataType::try_from(number).map_err(|_| TensorError::UnknownType(number))?;
        if tensor.segment.is_some() {
            return Err(TensorError::Segmented);
        }
        let (dims, count) = sizes(&tensor.dims)?;
        if element == DataType::String {
            expect("string_data", "entries", count, tensor.string_data.len() as u64)?;
            return Ok(Tensor { element, dims, payload: Payload::Strings(tensor.string_data.clone()) });
        }
        let bits = element::bit_width(element).ok_or(TensorError::UnsupportedType(element::name(element)))?;
        let length =
            count.checked_mul(bits).ok_or_else(|| TensorError::TooLarge(tensor.dims.clone()))?.div_ceil(8);
        let bytes = if tensor.data_location() == DataLocation::External {
            let bytes = files.read(&tensor.external_data, length)?;
            expect("external data", "bytes", length, bytes.len() as u64)?;
            bytes
        } else if let Some(raw) = &tensor.raw_data {
            expect("raw_data", "bytes", length, raw.len() as u64)?;
            raw.clone()
        } else {
            typed_field(tensor, element, count, length)?
        };
        if element == DataType::Bool
            && let Some(&value) = bytes.iter().find(|&&byte| byte > 1)
        {
            return Err(TensorError::Value { field: "raw_data", value: value.into(), element: "BOOL" });
        }
        Ok(Tensor { element, dims, payload: Payload::Bytes(bytes) })
    }

    /// Number of elements.
    pub fn count(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The elements as 64-bit integers, for integer tensors (shapes, axes); `None` for other element types.
    pub fn to_integers(&self) -> Option<Vec<i64>> {
        let Payload::Bytes(bytes) = &self.payload else { return None };
        macro_rules! widen {
            ($type:ty) => {
                bytes
                    .chunks_exact(size_of::<$type>())
                    .map(|b| <$type>::from_le_bytes(b.try_into().unwrap()) as i64)
                    .collect()
            };
        }
        Some(match self.element {
            DataType::Int64 | DataType::Uint64 => widen!(i64),
            DataType::Int32 => widen!(i32),
            DataType::Uint32 => widen!(u32),
            DataType::Int16 => widen!(i16),
            DataType::Uint16 => widen!(u16),
            DataType::Int8 => widen!(i8),
            DataType::Uint8 | DataType::Bool => widen!(u8),
            _ => return None,
        })
    }

    /// The elements as `f32`, for FLOAT tensors; `None` for other element types.
    pub fn to_floats(&self) -> Option<Vec<f32>> {
        match &self.payload {
            Payload::Bytes(bytes) if self.element == DataType::Float => {
                Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
            }
            _ => None,
        }
    }
}

/// Checks the dimensions and counts the elements.
fn sizes(dims: &[i64]) -> Result<(Vec<u64>, u64), TensorError> {
    let mut sizes = Vec::with_capacity(dims.len());
    for (axis, &size) in dims.iter().enumerate() {
        sizes.push(u64::try_from(size).map_err(|_| TensorError::NegativeDimension { axis, size })?);
    }
    // A zero anywhere makes the tensor empty, but the other sizes must still multiply without overflow: shapes
    // derived from this one drop and keep dimensions as they like.
    let product =
        sizes.iter().filter(|&&size| size != 0).try_fold(1u64, |product, &size| product.checked_mul(size));
    match product {
        Some(product) if product <= i64::MAX as u64 => {
            let count = if sizes.contains(&0) { 0 } else { product };
            Ok((sizes, count))
        }
        _ => Err(TensorError::TooLarge(dims.to_vec())),
    }
}

fn expect(field: &'static str, unit: &'static str, expected: u64, found: u64) -> Result<(), TensorError> {
    if expected == found { Ok(()) } else { Err(TensorError::Length { field, unit, expected, found }) }
}

/// Converts the typed field that belongs to the element type. `length` bytes are allocated only after the field
/// was found to have as many entries.
fn typed_field(
    tensor: &TensorProto,
    element: DataType,
    count: u64,
    length: u64,
) -> Result<Bytes, TensorError> {
    use DataType::*;
    let entries = |field, expected: u64, found: usize| expect(field, "entries", expected, found as u64);
    Ok(match element {
        Float => {
            entries("float_data", count, tensor.float_data.len())?;
            tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Double => {
            entries("double_data", count, tensor.double_data.len())?;
            tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Int64 => {
            entries("int64_data", count, tensor.int64_data.len())?;
            tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Uint64 => {
            entries("uint64_data", count, tensor.uint64_data.len())?;
            tensor.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Uint32 => {
            entries("uint64_data", count, tensor.uint64_data.len())?;
            let narrow = |&value: &u64| {
                u32::try_from(value).map_err(|_| TensorError::Value {
                    field: "uint64_data",
                    value: value as i64,
                    element: "UINT32",
                })
            };
            let values: Result<Vec<u32>, _> = tensor.uint64_data.iter().map(narrow).collect();
            values?.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Int32 => {
            entries("int32_data", count, tensor.int32_data.len())?;
            tensor.int32_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Int16 | Uint16 | Float16 | Bfloat16 => {
            entries("int32_data", count, tensor.int32_data.len())?;
            let range = if element == Int16 { -0x8000..0x8000 } else { 0..0x10000 };
            narrow(tensor, element, range)?.iter().flat_map(|&value| (value as u16).to_le_bytes()).collect()
        }
        _ => {
            // Elements of 8 bits, and packed groups of smaller ones: one byte an entry. Signed groups may have
            // been written either way.
            entries("int32_data", length, tensor.int32_data.len())?;
            let range = match element {
                Int8 => -0x80..0x80,
                Int4 | Int2 => -0x80..0x100,
                Bool => 0..2,
                _ => 0..0x100,
            };
            narrow(tensor, element, range)?.iter().map(|&value| value as u8).collect()
        }
    })
}

fn narrow(
    tensor: &TensorProto,
    element: DataType,
    range: std::ops::Range<i32>,
) -> Result<&[i32], TensorError> {
    match tensor.int32_data.iter().find(|value| !range.contains(value)) {
        None => Ok(&tensor.int32_data),
        Some(&value) => Err(TensorError::Value {
            field: "int32_data",
            value: value.into(),
            element: element::name(element),
        }),
    }
}
