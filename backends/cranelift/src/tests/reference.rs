//! What the functions of the kernel IR compute, in plain Rust, on bit patterns.

use half::f16;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

/// The core types.
pub const CORE: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
];

/// Numbers at which functions and conversions change their behaviour.
const SPECIAL: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.1,
    -0.1,
    0.499_999_999_999_999_94,
    126.5,
    127.0,
    127.5,
    128.0,
    -128.0,
    -128.9,
    -129.0,
    255.0,
    255.5,
    256.0,
    32767.0,
    32768.0,
    -32768.0,
    -32769.0,
    65504.0,
    65519.0,
    65520.0,
    65535.0,
    65536.0,
    2147483647.0,
    2147483648.0,
    -2147483648.0,
    -2147483649.0,
    4294967295.0,
    4294967296.0,
    8388609.0,
    8388608.5,
    16777217.0,
    9007199254740993.0,
    4503599627370497.5,
    9223372036854775807.0,
    9223373136366403584.0,
    -9223372036854775808.0,
    -9223373136366403584.0,
    18446744073709551615.0,
    18446744073709549568.0,
    1e20,
    -1e20,
    3.4e38,
    -3.4e38,
    1e300,
    5.96e-8,
    2.98e-8,
    2.981e-8,
    6.1e-5,
    6.0975e-5,
    1.0009765625,
    1.00048828125,
    1.0004882812500002,
    1.0014648437500002,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    f64::MIN_POSITIVE,
    5e-324,
    1.4e-45,
    1.18e-38,
    f64::MAX,
    f64::MIN,
    f64::EPSILON,
];

/// Interesting bit patterns of a type.
pub fn specials(dtype: DType) -> Vec<u64> {
    match dtype {
        DType::F32 => SPECIAL
            .iter()
            .map(|x| u64::from((*x as f32).to_bits()))
            .chain([0x0000_0001, 0x807f_ffff, 0x7f7f_ffff])
            .collect(),
        DType::F64 => SPECIAL.iter().map(|x| x.to_bits()).collect(),
        DType::F16 => {
            SPECIAL.iter().map(|x| u64::from(f16::from_f64(*x).to_bits())).chain([1, 0x83ff]).collect()
        }
        DType::Bool => vec![0, 1],
        _ => {
            let width = dtype.bits() as u32;
            let top = 1u64 << (width - 1);
            let mask = u64::MAX >> (64 - width);
            [
                0,
                1,
                2,
                3,
                7,
                8,
                15,
                16,
                31,
                32,
                33,
                63,
                64,
                65,
                100,
                127,
                128,
                255,
                256,
                32767,
                32768,
                65535,
                65536,
                16_777_217,
                0x7fff_ff80,
                0xffff_ff81,
                (1 << 53) + 1,
                0x7fff_ffff_ffff_fdff,
                0xffff_ffff_ffff_fbff,
                top,
                top - 1,
                top + 1,
                mask,
                mask - 1,
                mask - 2,
                0x1234_5678_9abc_def1,
            ]
            .map(|value: u64| value & mask)
            .into()
        }
    }
}

/// An integer's value.
pub fn integer(dtype: DType, bits: u64) -> i128 {
    if dtype.is_signed() {
        let unused = 64 - dtype.bits();
        i128::from(((bits << unused) as i64) >> unused)
    } else {
        i128::from(bits)
    }
}

/// An integer's bits, by wrapping.
pub fn wrap(dtype: DType, value: i128) -> u64 {
    value as u64 & (u64::MAX >> (64 - dtype.bits()))
}

/// Equal bits, or both NaN.
pub fn same(dtype: DType, a: u64, b: u64) -> bool {
    a == b
        || match dtype {
            DType::F32 => f32::from_bits(a as u32).is_nan() && f32::from_bits(b as u32).is_nan(),
            DType::F64 => f64::from_bits(a).is_nan() && f64::from_bits(b).is_nan(),
            DType::F16 => f16::from_bits(a as u16).is_nan() && f16::from_bits(b as u16).is_nan(),
            _ => false,
        }
}

macro_rules! float_function {
    ($function:expr, $args:expr, $float:ty, $bits:ty) => {{
        let x = <$float>::from_bits($args[0] as $bits);
        let y = <$float>::from_bits(*$args.get(1).unwrap_or(&0) as $bits);
        let larger_zero = |x: $float, y: $float| if x.is_sign_negative() { y } else { x };
        let smaller_zero = |x: $float, y: $float| if x.is_sign_negative() { x } else { y };
        let value = match $function {
            Function::Neg => -x,
            Function::Abs => x.abs(),
            Function::Floor => x.floor(),
            Function::Ceil => x.ceil(),
            Function::Round => x.round_ties_even(),
            Function::Trunc => x.trunc(),
            Function::Sqrt => x.sqrt(),
            Function::Add => x + y,
            Function::Sub => x - y,
            Function::Mul => x * y,
            Function::Div => x / y,
            Function::Max if x.is_nan() || y.is_nan() => <$float>::NAN,
            Function::Max if x == y => larger_zero(x, y),
            Function::Max => {
                if x > y {
                    x
                } else {
                    y
                }
            }
            Function::Min if x.is_nan() || y.is_nan() => <$float>::NAN,
            Function::Min if x == y => smaller_zero(x, y),
            Function::Min => {
                if x < y {
                    x
                } else {
                    y
                }
            }
            Function::Equal => return u64::from(x == y),
            Function::Less => return u64::from(x < y),
            Function::LessEqual => return u64::from(x <= y),
            other => panic!("{other:?} of floats"),
        };
        u64::from(value.to_bits())
    }};
}

/// A function of the core set on bit patterns of one type.
pub fn function(function: Function, dtype: DType, args: &[u64]) -> u64 {
    match dtype {
        DType::F32 => return float_function!(function, args, f32, u32),
        DType::F64 => return float_function!(function, args, f64, u64),
        _ => {}
    }
    let x = integer(dtype, args[0]);
    let y = integer(dtype, *args.get(1).unwrap_or(&0));
    let width = dtype.bits() as u32;
    let amount = args.get(1).copied().unwrap_or(0).min(127) as u32;
    let value = match function {
        Function::Neg => -x,
        Function::Abs => x.abs(),
        Function::Add => x + y,
        Function::Sub => x - y,
        Function::Mul => x.wrapping_mul(y),
        Function::Div | Function::Rem | Function::Mod if y == 0 => 0,
        Function::Div => x / y,
        Function::Rem => x % y,
        Function::Mod => {
            let rest = x % y;
            if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        Function::Max => x.max(y),
        Function::Min => x.min(y),
        Function::BitAnd => x & y,
        Function::BitOr => x | y,
        Function::BitXor => x ^ y,
        Function::BitNot => !x,
        Function::ShiftLeft if amount >= width => 0,
        Function::ShiftLeft => x << amount,
        Function::ShiftRight => x >> amount.min(100),
        Function::And => x & y,
        Function::Or => x | y,
        Function::Xor => x ^ y,
        Function::Not => 1 - x,
        Function::Equal => i128::from(x == y),
        Function::Less => i128::from(x < y),
        Function::LessEqual => i128::from(x <= y),
        other => panic!("{other:?} of integers"),
    };
    wrap(dtype, value)
}

/// The half nearest to a number by search among neighbours: `half` itself rounds twice on some machines.
fn half_of(number: f64) -> u16 {
    let guess = f16::from_f64(number);
    if number.is_nan() || guess.to_f64() == number {
        return guess.to_bits();
    }
    let sign = guess.to_bits() & 0x8000;
    // Infinity stands for 2^16, the next number of its exponent.
    let size = |bits: u16| if bits == 0x7c00 { 65536.0 } else { f16::from_bits(bits).to_f64() };
    let magnitude = guess.to_bits() & 0x7fff;
    let nearest = [magnitude.saturating_sub(1), magnitude, (magnitude + 1).min(0x7c00)]
        .into_iter()
        .min_by(|a, b| {
            let distance = |bits: u16| (size(bits) - number.abs()).abs();
            distance(*a).total_cmp(&distance(*b)).then((a & 1).cmp(&(b & 1)))
        })
        .unwrap();
    sign | nearest
}

/// A conversion, wrapping or saturating integers.
pub fn cast(from: DType, to: DType, bits: u64, saturating: bool) -> u64 {
    if from == to {
        return bits;
    }
    let number = match from {
        DType::F32 => f64::from(f32::from_bits(bits as u32)),
        DType::F64 => f64::from_bits(bits),
        DType::F16 => f16::from_bits(bits as u16).to_f64(),
        _ => {
            let value = integer(from, bits);
            return match to {
                DType::Bool => u64::from(value != 0),
                DType::F32 => u64::from((value as f32).to_bits()),
                DType::F64 => (value as f64).to_bits(),
                // Halves have fewer bits than what f64 holds of any integer that matters to them.
                DType::F16 => u64::from(half_of(value as f64)),
                _ if saturating => {
                    let (low, high) = to.integer_range().unwrap();
                    wrap(to, value.clamp(low, high))
                }
                _ => wrap(to, value),
            };
        }
    };
    match to {
        DType::Bool => u64::from(number != 0.0),
        DType::F32 => u64::from((number as f32).to_bits()),
        DType::F64 => number.to_bits(),
        DType::F16 => u64::from(half_of(number)),
        _ => {
            let (low, high) = to.integer_range().unwrap();
            // `as` truncates, saturates and takes NaN to zero.
            wrap(to, (number as i128).clamp(low, high))
        }
    }
}
