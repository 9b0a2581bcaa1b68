//! Rounding and wrapping numbers to element types.

use tcc_ir::dtype::{Class, DType};
use tcc_ir::minifloat;

/// The value of type `dtype` nearest to `value`, ties to even; 8- and 4-bit types saturate, wider ones overflow to infinity.
pub(crate) fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F64 => value,
        DType::F32 => f64::from(value as f32),
        DType::F16 => round_binary(value, 10, -14, 65504.0),
        DType::BF16 => round_binary(value, 7, -126, f64::from(f32::from_bits(0x7f7f_0000))),
        _ => f64::from(minifloat::decode(dtype, minifloat::encode(dtype, value as f32, true))),
    }
}

/// As [`round`], except that 8- and 4-bit types overflow to infinity or NaN where they have one.
pub(crate) fn round_overflowing(dtype: DType, value: f64) -> f64 {
    if dtype.bits() > 8 {
        return round(dtype, value);
    }
    f64::from(minifloat::decode(dtype, minifloat::encode(dtype, value as f32, false)))
}

/// Rounds to a binary format with this many stored mantissa bits and this smallest normal exponent.
fn round_binary(value: f64, mantissa: i32, smallest: i32, largest: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // The exponent field of the double; subnormal doubles are far below every subnormal of these formats.
    let exponent = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let spacing = 2f64.powi(exponent.max(smallest) - mantissa);
    let rounded = (value / spacing).round_ties_even() * spacing;
    if rounded.abs() > largest { f64::INFINITY.copysign(value) } else { rounded }
}

/// The mathematical value of a stored integer; 64-bit unsigned numbers are stored as the same bits.
pub(crate) fn widen(dtype: DType, stored: i64) -> i128 {
    if dtype == DType::U64 { i128::from(stored as u64) } else { i128::from(stored) }
}

/// A number reduced to the width of an integer type; anything but 0 is true.
pub(crate) fn wrap(dtype: DType, value: i128) -> i64 {
    let bits = dtype.bits() as u32;
    match dtype.class() {
        Class::Bool => i64::from(value != 0),
        Class::Unsigned => (value as u128 & ((1u128 << bits) - 1)) as u64 as i64,
        _ => ((value << (128 - bits)) >> (128 - bits)) as i64,
    }
}

/// A number limited to the range of an integer type; anything but 0 is true.
pub(crate) fn saturate(dtype: DType, value: i128) -> i64 {
    match dtype.integer_range() {
        Some((low, high)) if dtype != DType::Bool => wrap(dtype, value.clamp(low, high)),
        _ => wrap(dtype, value),
    }
}

/// A floating-point number as an integer: towards zero, limited to the range, NaN as 0.
pub(crate) fn to_integer(dtype: DType, value: f64) -> i64 {
    // `as` truncates, saturates and turns NaN into 0; i128 holds every range.
    if dtype == DType::Bool { i64::from(value != 0.0) } else { saturate(dtype, value as i128) }
}
