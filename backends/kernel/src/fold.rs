//! The value of scalar functions on constants, for constant folding and for the kernel interpreter.
//!
//! Core functions give the bits that every target gives. The others go through `f64` and round once, which is the
//! reference that the polynomials of [`crate::math`] are measured against.

use half::{bf16, f16};
use tcc_ir::dtype::{Class, DType};
use tcc_ir::minifloat;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use thiserror::Error;

/// A function that is not defined on its arguments.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct FoldError(pub String);

/// The value of `op` on constants of the types that it takes.
pub fn apply(op: ScalarOp, args: &[Scalar]) -> Result<Scalar, FoldError> {
    let dtypes: Vec<DType> = args.iter().map(|arg| arg.dtype).collect();
    let result = op.infer(&dtypes).map_err(FoldError)?;
    let args: Vec<Scalar> = args.iter().map(|arg| canonical(*arg)).collect();
    let scalar = match op {
        ScalarOp::Cast(to) => cast(args[0], to, false),
        ScalarOp::CastAlternate(to) => cast(args[0], to, true),
        ScalarOp::Bitcast(to) => from_bits(to, to_bits(args[0])),
        ScalarOp::Call(function) => match dtypes[dtypes.len() - 1].class() {
            Class::Float => float_call(function, &args, result),
            Class::Signed | Class::Unsigned => integer_call(function, &args, result),
            Class::Bool => logic_call(function, &args),
            Class::Text => return Err(FoldError("text has no scalar functions".into())),
        },
    };
    Ok(scalar)
}

/// `value` rounded to a floating-point type.
pub fn round(dtype: DType, value: f64) -> Scalar {
    let rounded = match dtype {
        DType::F64 => value,
        DType::F32 => f64::from(value as f32),
        DType::F16 => f16::from_f32(narrow_to_odd(value)).to_f64(),
        DType::BF16 => bf16::from_f32(narrow_to_odd(value)).to_f64(),
        _ => f64::from(minifloat::decode(dtype, minifloat::encode(dtype, narrow_to_odd(value), true))),
    };
    Scalar::float(dtype, rounded)
}

/// The value as f32 with an odd last bit where that is inexact, so that rounding to a shorter format rounds only once.
fn narrow_to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() {
        return near;
    }
    let above = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(above)) | 1)
}

/// An integer wrapped to its type.
pub fn wrap(dtype: DType, value: i64) -> Scalar {
    let shift = 64 - dtype.bits() as u32;
    let value = match dtype.class() {
        Class::Bool => i64::from(value != 0),
        Class::Unsigned => (((value as u64) << shift) >> shift) as i64,
        _ => (value << shift) >> shift,
    };
    Scalar::integer(dtype, value)
}

/// The constant rounded or wrapped to its type.
pub fn canonical(scalar: Scalar) -> Scalar {
    if scalar.dtype.is_float() {
        round(scalar.dtype, scalar.as_f64())
    } else {
        wrap(scalar.dtype, scalar.as_i64())
    }
}

/// The bits that the value has in memory.
pub fn to_bits(scalar: Scalar) -> u64 {
    match scalar.dtype {
        DType::F64 => scalar.bits,
        DType::F32 => u64::from((scalar.as_f64() as f32).to_bits()),
        DType::F16 => u64::from(f16::from_f32(narrow_to_odd(scalar.as_f64())).to_bits()),
        DType::BF16 => u64::from(bf16::from_f32(narrow_to_odd(scalar.as_f64())).to_bits()),
        dtype if dtype.is_float() => u64::from(minifloat::encode(dtype, scalar.as_f64() as f32, true)),
        dtype => scalar.bits & (u64::MAX >> (64 - dtype.bits() as u32)),
    }
}

/// The value that memory bits stand for.
pub fn from_bits(dtype: DType, bits: u64) -> Scalar {
    match dtype {
        DType::F64 => Scalar { dtype, bits },
        DType::F32 => Scalar::float(dtype, f64::from(f32::from_bits(bits as u32))),
        DType::F16 => Scalar::float(dtype, f16::from_bits(bits as u16).to_f64()),
        DType::BF16 => Scalar::float(dtype, bf16::from_bits(bits as u16).to_f64()),
        dtype if dtype.is_float() => Scalar::float(dtype, f64::from(minifloat::decode(dtype, bits as u8))),
        dtype => wrap(dtype, bits as i64),
    }
}

fn cast(value: Scalar, to: DType, alternate: bool) -> Scalar {
    let from = value.dtype;
    match (from.class(), to.class()) {
        (Class::Float, Class::Float) => {
            if alternate && to.bits() <= 8 {
                let code = minifloat::encode(to, narrow_to_odd(value.as_f64()), false);
                Scalar::float(to, f64::from(minifloat::decode(to, code)))
            } else {
                round(to, value.as_f64())
            }
        }
        (Class::Float, Class::Bool) => Scalar::integer(to, i64::from(value.as_f64() != 0.0)),
        (_, Class::Bool) => Scalar::integer(to, i64::from(value.bits != 0)),
        (Class::Float, _) => {
            let (low, high) = to.integer_range().unwrap_or((0, 0));
            Scalar::integer(to, (value.as_f64() as i128).clamp(low, high) as i64)
        }
        (Class::Unsigned, Class::Float) => match to {
            DType::F32 => Scalar::float(to, f64::from(value.bits as f32)),
            _ => round(to, value.bits as f64),
        },
        (_, Class::Float) => match to {
            DType::F32 => Scalar::float(to, f64::from(value.bits as i64 as f32)),
            _ => round(to, value.bits as i64 as f64),
        },
        _ if alternate => {
            let wide = if from.is_signed() { i128::from(value.bits as i64) } else { i128::from(value.bits) };
            let (low, high) = to.integer_range().unwrap_or((0, 0));
            Scalar::integer(to, wide.clamp(low, high) as i64)
        }
        _ => wrap(to, value.bits as i64),
    }
}

fn float_call(function: Function, args: &[Scalar], result: DType) -> Scalar {
    use Function::*;
    let values: Vec<f64> = args.iter().map(|arg| arg.as_f64()).collect();
    let truth = |value: bool| Scalar::integer(DType::Bool, value.into());
    let x = values[0];
    let y = values.get(1).copied().unwrap_or(0.0);
    let value = match function {
        Equal => return truth(x == y),
        Less => return truth(x < y),
        LessEqual => return truth(x <= y),
        IsNan => return truth(x.is_nan()),
        IsInf => return truth(x.is_infinite()),
        Select => return if args[0].bits != 0 { args[1] } else { args[2] },
        Neg => -x,
        Abs => x.abs(),
        Sign => {
            if x.is_nan() || x == 0.0 {
                x
            } else {
                x.signum()
            }
        }
        Floor => x.floor(),
        Ceil => x.ceil(),
        Round => x.round_ties_even(),
        Trunc => x.trunc(),
        Sqrt => x.sqrt(),
        Reciprocal => 1.0 / x,
        Exp => x.exp(),
        Log => x.ln(),
        Log1p => x.ln_1p(),
        Expm1 => x.exp_m1(),
        Sin => x.sin(),
        Cos => x.cos(),
        Tan => x.tan(),
        Asin => x.asin(),
        Acos => x.acos(),
        Atan => x.atan(),
        Sinh => x.sinh(),
        Cosh => x.cosh(),
        Tanh => x.tanh(),
        Asinh => libm::asinh(x),
        Acosh => libm::acosh(x),
        Atanh => libm::atanh(x),
        Erf => libm::erf(x),
        Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Add => x + y,
        Sub => x - y,
        Mul => x * y,
        Div => x / y,
        Rem => libm::fmod(x, y),
        Mod => {
            let rest = libm::fmod(x, y);
            if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
        }
        Pow => x.powf(y),
        Max => {
            if x.is_nan() || y.is_nan() {
                f64::NAN
            } else {
                x.max(y)
            }
        }
        Min => {
            if x.is_nan() || y.is_nan() {
                f64::NAN
            } else {
                x.min(y)
            }
        }
        // Not defined on floats; inference has refused them.
        BitAnd | BitOr | BitXor | BitNot | ShiftLeft | ShiftRight | And | Or | Xor | Not => f64::NAN,
    };
    round(result, value)
}

fn integer_call(function: Function, args: &[Scalar], result: DType) -> Scalar {
    use Function::*;
    let signed = args[args.len() - 1].dtype.is_signed();
    let x = args[0].bits as i64;
    let y = args.get(1).map_or(0, |arg| arg.bits as i64);
    let truth = |value: bool| Scalar::integer(DType::Bool, value.into());
    let less = |a: i64, b: i64| if signed { a < b } else { (a as u64) < b as u64 };
    let bits = result.bits() as i64;
    let value = match function {
        Equal => return truth(x == y),
        Less => return truth(less(x, y)),
        LessEqual => return truth(!less(y, x)),
        Select => return if args[0].bits != 0 { args[1] } else { args[2] },
        Neg => x.wrapping_neg(),
        Abs => {
            if signed {
                x.wrapping_abs()
            } else {
                x
            }
        }
        Sign => {
            if signed {
                x.signum()
            } else {
                i64::from(x != 0)
            }
        }
        Add => x.wrapping_add(y),
        Sub => x.wrapping_sub(y),
        Mul => x.wrapping_mul(y),
        Div | Rem | Mod if y == 0 => 0,
        Div if signed => x.wrapping_div(y),
        Div => (x as u64 / y as u64) as i64,
        Rem if signed => x.wrapping_rem(y),
        Mod if signed => {
            let rest = x.wrapping_rem(y);
            if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        Rem | Mod => (x as u64 % y as u64) as i64,
        Pow => integer_power(x, y, signed),
        Max => {
            if less(x, y) {
                y
            } else {
                x
            }
        }
        Min => {
            if less(x, y) {
                x
            } else {
                y
            }
        }
        BitAnd => x & y,
        BitOr => x | y,
        BitXor => x ^ y,
        BitNot => !x,
        ShiftLeft => {
            if y < 0 || y >= bits {
                0
            } else {
                x << y
            }
        }
        ShiftRight if signed => x >> if y < 0 || y >= bits { bits - 1 } else { y },
        ShiftRight => {
            if y < 0 || y >= bits {
                0
            } else {
                (x as u64 >> y) as i64
            }
        }
        // Not defined on integers; inference has refused them.
        _ => 0,
    };
    wrap(result, value)
}

/// Repeated multiplication, wrapping; a negative exponent truncates the reciprocal, and 0 to it is 0.
fn integer_power(base: i64, exponent: i64, signed: bool) -> i64 {
    if signed && exponent < 0 {
        return match base {
            1 => 1,
            -1 => {
                if exponent % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        };
    }
    let (mut power, mut square, mut rest) = (1i64, base, exponent as u64);
    while rest > 0 {
        if rest & 1 == 1 {
            power = power.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    power
}

fn logic_call(function: Function, args: &[Scalar]) -> Scalar {
    let truth = |value: bool| Scalar::integer(DType::Bool, value.into());
    let x = args[0].bits != 0;
    let y = args.get(1).is_some_and(|arg| arg.bits != 0);
    match function {
        Function::And => truth(x && y),
        Function::Or => truth(x || y),
        Function::Xor => truth(x != y),
        Function::Not => truth(!x),
        Function::Equal => truth(x == y),
        Function::Less => truth(!x && y),
        Function::LessEqual => truth(!x || y),
        Function::Select => {
            if x {
                args[1]
            } else {
                args[2]
            }
        }
        _ => truth(false),
    }
}
