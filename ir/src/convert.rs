//! Numbers to and from the bytes of a tensor, for every element type with at least one byte an element.

use bytes::Bytes;
use half::{bf16, f16};

use crate::data::{Data, DataError};
use crate::dtype::DType;
use crate::minifloat;
use crate::scalar::Scalar;

/// The `f32` next to a number that keeps whether the number was exact: rounding the result once more, to half the precision
/// or less, gives what rounding the number once would give (Boldo and Melquiond, "Emulation of a FMA and correctly
/// rounded sums: proved algorithms using rounding to odd", 2008).
pub fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || value.is_nan() || nearest.is_infinite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    // Inexact with an even last bit: the odd neighbour on the number's side.
    let away = back.abs() < value.abs();
    f32::from_bits(if away { nearest.to_bits() + 1 } else { nearest.to_bits() - 1 })
}

/// Appends the little-endian bytes of `value`, rounded to its type; numbers beyond an 8-bit type become its largest,
/// infinities stay infinite or become NaN.
pub fn push_scalar(value: Scalar, bytes: &mut Vec<u8>) {
    match value.dtype {
        DType::F32 => bytes.extend((value.as_f64() as f32).to_le_bytes()),
        DType::F64 => bytes.extend(value.as_f64().to_le_bytes()),
        DType::F16 => bytes.extend(f16::from_f32(round_to_odd(value.as_f64())).to_le_bytes()),
        DType::BF16 => bytes.extend(bf16::from_f32(round_to_odd(value.as_f64())).to_le_bytes()),
        dtype if dtype.is_float() => {
            let number = value.as_f64() as f32;
            bytes.push(minifloat::encode(dtype, number, number.is_finite()));
        }
        dtype => bytes.extend(&value.bits.to_le_bytes()[..dtype.size()]),
    }
}

/// Appends an element of a text tensor: its length in bytes as `u32`, then its UTF-8 bytes.
pub fn push_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// The elements of a text tensor; `None` for other types.
pub fn texts(data: &Data) -> Option<Vec<&str>> {
    if data.dtype() != DType::String {
        return None;
    }
    let mut rest = &data.bytes()[..];
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let (text, tail) = split_text(rest)?;
        texts.push(text);
        rest = tail;
    }
    Some(texts)
}

/// The first text of the bytes of a text tensor, and what follows it.
pub(crate) fn split_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// The low bits that stand for a value of a packed type.
pub fn packed_code(value: Scalar) -> u8 {
    let mask = (1u8 << value.dtype.bits().min(7)) - 1;
    let code = match value.dtype {
        dtype if dtype.is_float() => minifloat::encode(dtype, value.as_f64() as f32, true),
        _ => value.bits as u8,
    };
    code & mask
}

/// Codes of a packed type put together, the first in the low bits.
pub fn pack(dtype: DType, codes: &[u8]) -> Vec<u8> {
    let (bits, per_byte) = (dtype.bits(), 8 / dtype.bits());
    let byte =
        |group: &[u8]| group.iter().enumerate().fold(0, |byte, (index, code)| byte | code << (index * bits));
    codes.chunks(per_byte).map(byte).collect()
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

#[cfg(test)]
mod rounding {
    use super::*;

    #[test]
    fn halves_round_once() {
        for (value, bits) in [
            (1.0 + 2f64.powi(-11) + 2f64.powi(-52), 0x3c01),
            (1.0 + 2f64.powi(-11), 0x3c00),
            (-1.0 - 2f64.powi(-11) - 2f64.powi(-52), 0xbc01),
            (2f64.powi(-25) + 2f64.powi(-70), 0x0001),
            (2f64.powi(-25), 0x0000),
            (65520.0 - 2f64.powi(-30), 0x7bff),
        ] {
            let mut bytes = Vec::new();
            push_scalar(Scalar::float(DType::F16, value), &mut bytes);
            assert_eq!(u16::from_le_bytes([bytes[0], bytes[1]]), bits, "{value}");
        }
    }
}
