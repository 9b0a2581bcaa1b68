//! 8-bit and 4-bit floating point: OCP FP8 / MX formats and their FNUZ variants.
//!
//! Formats are described by exponent width, mantissa width, bias and what the top codes mean, so one decoder and one
//! encoder serve all (OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0).

use crate::dtype::DType;

struct Format {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    special: Special,
}

#[derive(Clone, Copy, PartialEq)]
enum Special {
    /// IEEE style: the top exponent holds infinities and NaNs.
    Ieee,
    /// Finite: only the all-ones code of each sign is NaN.
    Finite,
    /// Finite, no negative zero: code 0x80 is the only NaN.
    Unsigned,
    /// Finite without NaN.
    None,
}

fn format(dtype: DType) -> Format {
    let (exponent, mantissa, bias, special) = match dtype {
        DType::F8E5M2 => (5, 2, 15, Special::Ieee),
        DType::F8E4M3FNUZ => (4, 3, 8, Special::Unsigned),
        DType::F8E5M2FNUZ => (5, 2, 16, Special::Unsigned),
        DType::F4E2M1FN => (2, 1, 1, Special::None),
        // F8E4M3FN; the scale type F8E8M0FNU is handled apart.
        _ => (4, 3, 7, Special::Finite),
    };
    Format { exponent, mantissa, bias, special }
}

/// The number that a code stands for.
pub fn decode(dtype: DType, code: u8) -> f32 {
    if dtype == DType::F8E8M0FNU {
        return if code == 0xff { f32::NAN } else { 2f32.powi(i32::from(code) - 127) };
    }
    let f = format(dtype);
    let width = 1 + f.exponent + f.mantissa;
    let sign = if code >> (width - 1) & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = u32::from(code) >> f.mantissa & ((1 << f.exponent) - 1);
    let mantissa = u32::from(code) & ((1 << f.mantissa) - 1);
    let top = (1 << f.exponent) - 1;
    match f.special {
        Special::Ieee if exponent == top => {
            return if mantissa == 0 { sign * f32::INFINITY } else { f32::NAN };
        }
        Special::Finite if exponent == top && mantissa == (1 << f.mantissa) - 1 => return f32::NAN,
        Special::Unsigned if code == 0x80 => return f32::NAN,
        _ => {}
    }
    let scale = 2f32.powi(-(f.mantissa as i32));
    if exponent == 0 {
        sign * mantissa as f32 * scale * 2f32.powi(1 - f.bias)
    } else {
        sign * (1.0 + mantissa as f32 * scale) * 2f32.powi(exponent as i32 - f.bias)
    }
}

/// The code nearest to a number, ties to even; too large a number becomes the largest finite one where `saturate`,
/// else NaN or infinity as the format has it. (The MX scale type rounds up to a power of two.)
pub fn encode(dtype: DType, value: f32, saturate: bool) -> u8 {
    if dtype == DType::F8E8M0FNU {
        if value.is_nan() || value < 0.0 {
            return 0xff;
        }
        if value <= 2f32.powi(-127) {
            return 0;
        }
        let bits = value.to_bits();
        let up = u32::from(bits & 0x7f_ffff != 0);
        let code = (bits >> 23) + up;
        return if code >= 0xff { if saturate { 0xfe } else { 0xff } } else { code as u8 };
    }
    let f = format(dtype);
    let width = 1 + f.exponent + f.mantissa;
    let sign = if value.is_sign_negative() { 1u8 << (width - 1) } else { 0 };
    let nan = match f.special {
        Special::Unsigned => 0x80,
        Special::None => sign,
        Special::Ieee => sign | (((1u8 << f.exponent) - 1) << f.mantissa) | 2,
        Special::Finite => sign | 0x7f,
    };
    if value.is_nan() {
        return nan;
    }
    let magnitude = f64::from(value.abs());
    // The largest finite code.
    let largest_code: u8 = match f.special {
        Special::Ieee => (((1u8 << f.exponent) - 2) << f.mantissa) | ((1 << f.mantissa) - 1),
        Special::Finite => (1u8 << (width - 1)) - 2,
        Special::Unsigned | Special::None => ((1u16 << (width - 1)) - 1) as u8,
    };
    let largest = f64::from(decode(dtype, largest_code));
    // Round at the spacing of the binade (the smallest binade's spacing serves subnormals).
    let exponent = if magnitude == 0.0 { 0 } else { magnitude.log2().floor() as i32 }.max(1 - f.bias);
    let spacing = 2f64.powi(exponent - f.mantissa as i32);
    let rounded = (magnitude / spacing).round_ties_even() * spacing;
    if rounded > largest || value.is_infinite() {
        return match (saturate, f.special) {
            (true, _) | (_, Special::None) => sign | largest_code,
            (false, Special::Ieee) => sign | (((1u8 << f.exponent) - 1) << f.mantissa),
            (false, _) => nan,
        };
    }
    if rounded == 0.0 {
        return if f.special == Special::Unsigned { 0 } else { sign };
    }
    let exponent = (rounded.log2().floor() as i32).max(1 - f.bias);
    let steps = (rounded / 2f64.powi(exponent - f.mantissa as i32)) as u32;
    let hidden = 1u32 << f.mantissa;
    let code =
        if steps < hidden { steps } else { ((exponent + f.bias) as u32) << f.mantissa | (steps - hidden) };
    sign | code as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        let formats = [
            DType::F8E4M3FN,
            DType::F8E4M3FNUZ,
            DType::F8E5M2,
            DType::F8E5M2FNUZ,
            DType::F8E8M0FNU,
            DType::F4E2M1FN,
        ];
        for dtype in formats {
            for code in 0..1u16 << dtype.bits() {
                let value = decode(dtype, code as u8);
                let again = decode(dtype, encode(dtype, value, false));
                assert!(
                    value == again || value.is_nan() && again.is_nan(),
                    "{dtype} {code:#x} {value} {again}"
                );
            }
        }
    }

    #[test]
    fn overflow_follows_the_format() {
        assert_eq!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 1e6, true)), 448.0);
        assert!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 1e6, false)).is_nan());
        assert_eq!(decode(DType::F8E5M2, encode(DType::F8E5M2, -1e9, false)), f32::NEG_INFINITY);
        assert_eq!(decode(DType::F4E2M1FN, encode(DType::F4E2M1FN, 100.0, false)), 6.0);
    }
}
