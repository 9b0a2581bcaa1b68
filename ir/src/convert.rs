//! Numbers to and from the bytes of a tensor, for every element type with at least one byte an element.

use bytes::Bytes;
use half::{bf16, f16};

use crate::data::{Data, DataError};
use crate::dtype::DType;
use crate::minifloat;
use crate::scalar::Scalar;

/// Appends the little-endian bytes of `value`, rounded to its type.
pub fn push_scalar(value: Scalar, bytes: &mut Vec<u8>) {
    match value.dtype {
        DType::F32 => bytes.extend((value.as_f64() as f32).to_le_bytes()),
        DType::F64 => bytes.extend(value.as_f64().to_le_bytes()),
        DType::F16 => bytes.extend(f16::from_f64(value.as_f64()).to_le_bytes()),
        DType::BF16 => bytes.extend(bf16::from_f64(value.as_f64()).to_le_bytes()),
        dtype if dtype.is_float() => bytes.push(minifloat::encode(dtype, value.as_f64() as f32, true)),
        dtype => bytes.extend(&value.bits.to_le_bytes()[..dtype.size()]),
    }
}

/// A rank-0 tensor with this value.
pub fn scalar_data(value: Scalar) -> Result<Data, DataError> {
    let mut bytes = Vec::with_capacity(8);
    push_scalar(value, &mut bytes);
    Data::new(value.dtype, &[], Bytes::from(bytes))
}

/// Element `index` of a tensor; `None` outside it and for text. Packed elements are unpacked.
pub fn element(data: &Data, index: usize) -> Option<Scalar> {
    let dtype = data.dtype();
    if index >= data.count() {
        return None;
    }
    let bytes = data.bytes();
    if dtype.is_packed() {
        let per_byte = 8 / dtype.bits();
        let byte = *bytes.get(index / per_byte)?;
        let mask = (1u8 << dtype.bits()) - 1;
        let code = (byte >> ((index % per_byte) * dtype.bits())) & mask;
        return Some(match dtype {
            DType::F4E2M1FN => Scalar::float(dtype, f64::from(minifloat::decode(dtype, code))),
            _ if dtype.is_signed() => {
                let shift = 8 - dtype.bits();
                Scalar::integer(dtype, i64::from(((code << shift) as i8) >> shift))
            }
            _ => Scalar::integer(dtype, i64::from(code)),
        });
    }
    let size = dtype.size();
    let raw = bytes.get(index * size..(index + 1) * size)?;
    let mut wide = [0u8; 8];
    wide[..size].copy_from_slice(raw);
    let bits = u64::from_le_bytes(wide);
    Some(match dtype {
        DType::F32 => Scalar::float(dtype, f64::from(f32::from_bits(bits as u32))),
        DType::F64 => Scalar { dtype, bits },
        DType::F16 => Scalar::float(dtype, f16::from_bits(bits as u16).to_f64()),
        DType::BF16 => Scalar::float(dtype, bf16::from_bits(bits as u16).to_f64()),
        DType::I8 => Scalar::integer(dtype, i64::from(bits as i8)),
        DType::I16 => Scalar::integer(dtype, i64::from(bits as i16)),
        DType::I32 => Scalar::integer(dtype, i64::from(bits as i32)),
        DType::String => return None,
        dtype if dtype.is_float() => Scalar::float(dtype, f64::from(minifloat::decode(dtype, bits as u8))),
        dtype => Scalar { dtype, bits },
    })
}
