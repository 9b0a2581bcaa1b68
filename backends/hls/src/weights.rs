//! Constant data as C++ headers.

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::Scalar;
use tcc_kernel::fixed::{Exact, Fixed};
use tcc_kernel::fold;

use crate::numbers::element_type;
use crate::tables::{literal as fixed_literal, rows};

/// The header of a constant array; none where the data is too short or its type has no literals.
pub fn header(name: &str, dtype: DType, format: Option<Fixed>, elements: u64, data: &[u8]) -> Option<String> {
    let ty = element_type(dtype, format)?;
    let count = usize::try_from(elements).ok()?;
    let literals: Vec<String> =
        (0..count).map(|index| literal(dtype, bits(dtype, data, index)?, format)).collect::<Option<_>>()?;
    // C++ has no empty arrays.
    let contents = if literals.is_empty() { "  0".to_string() } else { rows(&literals) };
    Some(format!(
        "// Constant data of the model, {} elements.\n#pragma once\n\n#include \"types.h\"\n\n\
         static const {ty} {name}[{}] = {{\n{contents}\n}};\n",
        literals.len(),
        literals.len().max(1)
    ))
}

/// The bits of one element; elements narrower than a byte are packed, the first in the low bits.
pub fn bits(dtype: DType, data: &[u8], index: usize) -> Option<u64> {
    let width = dtype.bits();
    if width < 8 {
        let per_byte = 8 / width;
        let byte = *data.get(index / per_byte)?;
        return Some(u64::from(byte >> (index % per_byte * width)) & ((1 << width) - 1));
    }
    let size = width / 8;
    let bytes = data.get(index * size..(index + 1) * size)?;
    let mut word = [0u8; 8];
    word[..size].copy_from_slice(bytes);
    Some(u64::from_le_bytes(word))
}

fn literal(dtype: DType, bits: u64, format: Option<Fixed>) -> Option<String> {
    let scalar = fold::from_bits(dtype, bits);
    Some(match (dtype.class(), format) {
        (Class::Float, Some(format)) => fixed_literal(Exact::nearest(scalar.as_f64(), format)),
        (Class::Float, _) if scalar.as_f64().is_nan() => "NAN".into(),
        (Class::Float, _) if scalar.as_f64().is_infinite() => {
            if scalar.as_f64() > 0.0 {
                "INFINITY".into()
            } else {
                "-INFINITY".into()
            }
        }
        (Class::Float, _) if dtype == DType::F32 => format!("{:?}f", scalar.as_f64() as f32),
        (Class::Float, _) => format!("{:?}", scalar.as_f64()),
        (Class::Unsigned, _) if dtype == DType::U64 => format!("{}ULL", scalar.bits),
        (Class::Unsigned | Class::Bool, _) => scalar.bits.to_string(),
        (Class::Signed, _) if scalar.as_i64() == i64::MIN => "(-9223372036854775807LL - 1)".into(),
        (Class::Signed, _) if dtype == DType::I64 => format!("{}LL", scalar.as_i64()),
        (Class::Signed, _) => scalar.as_i64().to_string(),
        (Class::Text, _) => return None,
    })
}

/// A value as decimal text for a testbench file.
pub fn decimal(scalar: Scalar) -> String {
    match scalar.dtype.class() {
        Class::Float => format!("{:?}", scalar.as_f64()),
        Class::Unsigned | Class::Bool => scalar.bits.to_string(),
        _ => scalar.as_i64().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_elements_start_in_the_low_bits() {
        let text = header("w", DType::I4, None, 3, &[0xf1, 0x08]).unwrap();
        assert!(text.contains("static const ap_int<4> w[3] = {\n  1, -1, -8\n};"), "{text}");
        assert_eq!(header("w", DType::F32, None, 1, &[0, 0]), None);
    }

    #[test]
    fn fixed_point_weights_saturate() {
        let format = Fixed { width: 8, integer: 4 };
        let text = header("w", DType::F32, Some(format), 1, &100f32.to_le_bytes()).unwrap();
        assert!(text.contains("static const fixed_8_4 w[1] = {\n  7.9375\n};"), "{text}");
    }
}
