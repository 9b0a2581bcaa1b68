//! What instructions compute, on bits (PTX ISA, instruction set).

use half::{bf16, f16};

use super::instruction::{Arithmetic, Comparison, Rounding, Type};

/// The NaN that f32 arithmetic produces.
const NAN: u32 = 0x7fff_ffff;

/// The integer that the low bits stand for.
fn integer(ty: Type, bits: u64) -> i128 {
    let shift = 64 - ty.bits();
    match ty {
        Type::Signed(_) => i128::from(((bits << shift) as i64) >> shift),
        _ => i128::from((bits << shift) >> shift),
    }
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn single_bits(value: f32) -> u64 {
    if value.is_nan() { NAN.into() } else { value.to_bits().into() }
}

/// Minimum or maximum of floats: a NaN operand loses or wins, -0 is less than +0.
macro_rules! extremum {
    ($a:expr, $b:expr, $max:expr, $nan:expr, $canonical:expr) => {{
        let (a, b) = ($a, $b);
        if a.is_nan() || b.is_nan() {
            match (a.is_nan() && b.is_nan()) || $nan {
                true => $canonical,
                false => {
                    if a.is_nan() {
                        b
                    } else {
                        a
                    }
                }
            }
        } else if a == b {
            if a.is_sign_negative() == $max { b } else { a }
        } else if (a > b) == $max {
            a
        } else {
            b
        }
    }};
}

/// Result of arithmetic; none for a type that the instruction does not take.
pub fn arithmetic(op: Arithmetic, ty: Type, a: u64, b: u64, c: u64) -> Option<u64> {
    match ty {
        Type::Float(32) => float_single(op, single(a), single(b), single(c)),
        Type::Float(64) => float_double(op, f64::from_bits(a), f64::from_bits(b), f64::from_bits(c)),
        Type::Pred => Some(match op {
            Arithmetic::And => a & b & 1,
            Arithmetic::Or => (a | b) & 1,
            Arithmetic::Xor => (a ^ b) & 1,
            Arithmetic::Not => !a & 1,
            _ => return None,
        }),
        Type::Float(_) | Type::Bfloat => None,
        _ => integer_arithmetic(op, ty, a, b, c),
    }
}

fn float_single(op: Arithmetic, a: f32, b: f32, c: f32) -> Option<u64> {
    let nan = f32::from_bits(NAN);
    let value = match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
        Arithmetic::Fma => a.mul_add(b, c),
        Arithmetic::Sqrt => a.sqrt(),
        Arithmetic::Neg => return Some((-a).to_bits().into()),
        Arithmetic::Abs => return Some(a.abs().to_bits().into()),
        Arithmetic::Max => extremum!(a, b, true, false, nan),
        Arithmetic::Min => extremum!(a, b, false, false, nan),
        Arithmetic::MaxNan => extremum!(a, b, true, true, nan),
        Arithmetic::MinNan => extremum!(a, b, false, true, nan),
        _ => return None,
    };
    Some(single_bits(value))
}

fn float_double(op: Arithmetic, a: f64, b: f64, c: f64) -> Option<u64> {
    let value = match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
        Arithmetic::Fma => a.mul_add(b, c),
        Arithmetic::Sqrt => a.sqrt(),
        Arithmetic::Neg => -a,
        Arithmetic::Abs => a.abs(),
        Arithmetic::Max => extremum!(a, b, true, false, f64::NAN),
        Arithmetic::Min => extremum!(a, b, false, false, f64::NAN),
        _ => return None,
    };
    Some(value.to_bits())
}

fn integer_arithmetic(op: Arithmetic, ty: Type, x: u64, y: u64, z: u64) -> Option<u64> {
    let (a, b) = (integer(ty, x), integer(ty, y));
    let bits = u128::from(ty.bits());
    let amount = u128::from(y as u32).min(bits) as u32;
    Some(match op {
        Arithmetic::Add => x.wrapping_add(y),
        Arithmetic::Sub => x.wrapping_sub(y),
        Arithmetic::Mul => x.wrapping_mul(y),
        Arithmetic::Mad => x.wrapping_mul(y).wrapping_add(z),
        // Unspecified by the ISA: a pattern that no caller can mistake for a result.
        Arithmetic::Div | Arithmetic::Rem if b == 0 => 0xdead_beef_dead_beef,
        Arithmetic::Div => (a / b) as u64,
        Arithmetic::Rem => (a % b) as u64,
        Arithmetic::Min => a.min(b) as u64,
        Arithmetic::Max => a.max(b) as u64,
        Arithmetic::Neg => x.wrapping_neg(),
        Arithmetic::Abs => a.unsigned_abs() as u64,
        Arithmetic::And => x & y,
        Arithmetic::Or => x | y,
        Arithmetic::Xor => x ^ y,
        Arithmetic::Not => !x,
        Arithmetic::Shl => ((x as u128) << amount) as u64,
        Arithmetic::Shr => (a >> amount) as u64,
        _ => return None,
    })
}

/// Result of a comparison; none for a type that it does not take.
pub fn compare(op: Comparison, ty: Type, a: u64, b: u64) -> Option<bool> {
    if !ty.is_float() {
        let (a, b) = (integer(ty, a), integer(ty, b));
        return Some(match op {
            Comparison::Eq => a == b,
            Comparison::Ne => a != b,
            Comparison::Lt => a < b,
            Comparison::Le => a <= b,
            Comparison::Gt => a > b,
            Comparison::Ge => a >= b,
            _ => return None,
        });
    }
    let (a, b) = (float(ty, a)?, float(ty, b)?);
    Some(match op {
        Comparison::Eq => a == b,
        Comparison::Lt => a < b,
        Comparison::Le => a <= b,
        Comparison::Gt => a > b,
        Comparison::Ge => a >= b,
        Comparison::Neu => a != b,
        Comparison::Num => !a.is_nan() && !b.is_nan(),
        Comparison::Nan => a.is_nan() || b.is_nan(),
        Comparison::Ne => return None,
    })
}

/// The number of a float, exactly.
fn float(ty: Type, bits: u64) -> Option<f64> {
    Some(match ty {
        Type::Float(64) => f64::from_bits(bits),
        Type::Float(32) => single(bits).into(),
        Type::Float(16) => f16::from_bits(bits as u16).to_f64(),
        Type::Bfloat => bf16::from_bits(bits as u16).to_f64(),
        _ => return None,
    })
}

/// Result of a conversion; none for a combination that PTX lacks.
pub fn convert(to: Type, from: Type, rounding: Rounding, bits: u64) -> Option<u64> {
    match (from.is_float(), to.is_float()) {
        (false, false) => {
            (rounding == Rounding::Exact).then(|| integer(to, integer(from, bits) as u64) as u64)
        }
        (false, true) => {
            let value = integer(from, bits);
            match (to, rounding) {
                (Type::Float(64), Rounding::Nearest) => Some((value as f64).to_bits()),
                (Type::Float(32), Rounding::Nearest) => Some(u64::from((value as f32).to_bits())),
                // Integers below 2^53 are exact in f64; larger ones overflow f16 either way.
                (Type::Float(16), Rounding::Nearest) => Some(f16::from_f64(value as f64).to_bits().into()),
                _ => None,
            }
        }
        (true, true) => float_to_float(to, from, rounding, bits),
        (true, false) => {
            let value = whole(rounding, float(from, bits)?)?;
            let width = to.bits();
            if value.is_nan() {
                // PTX ISA, cvt: zero unless source or destination has 64 bits.
                let zero = from != Type::Float(64) && width < 64;
                return Some(if zero { 0 } else { 1 << (width - 1) });
            }
            let (low, high) = match to {
                Type::Signed(_) => (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1),
                _ => (0, (1i128 << width) - 1),
            };
            Some((value as i128).clamp(low, high) as u64)
        }
    }
}

fn whole(rounding: Rounding, value: f64) -> Option<f64> {
    Some(match rounding {
        Rounding::WholeNearest => value.round_ties_even(),
        Rounding::WholeZero => value.trunc(),
        Rounding::WholeDown => value.floor(),
        Rounding::WholeUp => value.ceil(),
        Rounding::Exact | Rounding::Nearest => return None,
    })
}

fn float_to_float(to: Type, from: Type, rounding: Rounding, bits: u64) -> Option<u64> {
    let value = float(from, bits)?;
    if to == from {
        let value = whole(rounding, value)?;
        return match to {
            Type::Float(64) => Some(value.to_bits()),
            Type::Float(32) => Some(single_bits(value as f32)),
            _ => None,
        };
    }
    match (to, from, rounding) {
        (Type::Float(64), Type::Float(16 | 32), Rounding::Exact) => Some(value.to_bits()),
        (Type::Float(32), Type::Float(16), Rounding::Exact) => Some(single_bits(value as f32)),
        (Type::Float(32), Type::Float(64), Rounding::Nearest) => Some(single_bits(value as f32)),
        (Type::Float(16), Type::Float(32), Rounding::Nearest) => {
            Some(f16::from_f32(value as f32).to_bits().into())
        }
        (Type::Float(16), Type::Float(64), Rounding::Nearest) => Some(f16::from_f64(value).to_bits().into()),
        (Type::Bfloat, Type::Float(32), Rounding::Nearest) => {
            Some(bf16::from_f32(value as f32).to_bits().into())
        }
        _ => None,
    }
}
