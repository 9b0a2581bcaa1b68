//! Conversions between f32 and floats of 16 bits and less, in integer arithmetic on their codes.
//!
//! All encoders round to nearest, ties to even. They rely on subnormal f32 being honoured.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use super::Code;
use crate::ir::{Expr, Kernel, Stmt, Ty};

/// What the top codes of a format mean (OCP 8-bit Floating Point Specification 1.0 and the FNUZ variants).
#[derive(Clone, Copy, PartialEq)]
enum Special {
    /// Infinities and NaNs as in IEEE 754.
    Ieee,
    /// The code of all ones is NaN, the others are numbers.
    Finite,
    /// The code of negative zero is NaN, the others are numbers.
    Unsigned,
    /// All codes are numbers.
    Numbers,
}

struct Format {
    exponent: i64,
    mantissa: i64,
    bias: i64,
    special: Special,
}

impl Format {
    fn of(dtype: DType) -> Format {
        let (exponent, mantissa, bias, special) = match dtype {
            DType::F16 => (5, 10, 15, Special::Ieee),
            DType::F8E5M2 => (5, 2, 15, Special::Ieee),
            DType::F8E4M3FNUZ => (4, 3, 8, Special::Unsigned),
            DType::F8E5M2FNUZ => (5, 2, 16, Special::Unsigned),
            DType::F4E2M1FN => (2, 1, 1, Special::Numbers),
            _ => (4, 3, 7, Special::Finite),
        };
        Format { exponent, mantissa, bias, special }
    }

    /// Position of the sign bit.
    fn sign(&self) -> i64 {
        self.exponent + self.mantissa
    }

    /// The code of the largest finite number.
    fn largest(&self) -> i64 {
        let all = (1 << self.sign()) - 1;
        match self.special {
            Special::Ieee => all - (1 << self.mantissa),
            Special::Finite => all - 1,
            Special::Unsigned | Special::Numbers => all,
        }
    }
}

const QUIET: i64 = 0x7fc0_0000;
const TOP_EXPONENT: i64 = 0x7f80_0000;

fn code_for<'k>(kernel: &'k mut Kernel, out: &'k mut Vec<Stmt>, fma: bool, lanes: u16) -> Code<'k> {
    Code { kernel, out, fma, ty: Ty::vector(DType::F32, lanes) }
}

/// The f32 that the codes of `dtype` stand for; `codes` are unsigned integers of the format's width.
pub fn decode(kernel: &mut Kernel, out: &mut Vec<Stmt>, dtype: DType, codes: Expr) -> Expr {
    let lanes = kernel.type_of(&codes).lanes;
    let mut code = code_for(kernel, out, false, lanes);
    let wide = code.name(Expr::Call(ScalarOp::Cast(DType::I32), vec![codes]));
    match dtype {
        DType::BF16 => code.float(code.shl(wide, 16)),
        DType::F8E8M0FNU => code.decode_scale(wide),
        _ => code.decode_format(&Format::of(dtype), wide),
    }
}

/// The codes of `dtype` nearest to f32 values, as unsigned integers of its width. What overflows becomes the largest finite
/// number where `saturate`, else infinity or NaN.
pub fn encode(kernel: &mut Kernel, out: &mut Vec<Stmt>, dtype: DType, value: Expr, saturate: bool) -> Expr {
    let lanes = kernel.type_of(&value).lanes;
    let mut code = code_for(kernel, out, false, lanes);
    let value = code.name(value);
    let result = match dtype {
        DType::BF16 => code.encode_bfloat(&value),
        DType::F8E8M0FNU => code.encode_scale(&value, saturate),
        DType::F16 => code.encode_format(&Format::of(dtype), &value, false),
        _ => code.encode_format(&Format::of(dtype), &value, saturate),
    };
    let storage = if dtype.bits() == 16 { DType::U16 } else { DType::U8 };
    Expr::Call(ScalarOp::Cast(storage), vec![result])
}

/// f64 to f32 so that rounding the result once more to a shorter format gives what rounding once would: an inexact result
/// has an odd last bit.
pub fn narrow_to_odd(kernel: &mut Kernel, out: &mut Vec<Stmt>, value: Expr) -> Expr {
    let lanes = kernel.type_of(&value).lanes;
    let mut code = code_for(kernel, out, false, lanes);
    let value = code.name(value);
    let near = code.name(Expr::Call(ScalarOp::Cast(DType::F32), vec![value.clone()]));
    let back = code.name(Expr::Call(ScalarOp::Cast(DType::F64), vec![near.clone()]));
    let bits = code.name(code.bits(near.clone()));
    let above = code.lt(code.abs(value.clone()), code.abs(back.clone()));
    let truncated = code.sub(bits.clone(), code.select(above, code.int(1), code.int(0)));
    let odd = code.call(Function::BitOr, &[truncated, code.int(1)]);
    // NaN is not equal to itself, and stays NaN with an odd last bit.
    let exact = code.eq(value, back);
    code.float(code.select(exact, bits, odd))
}

impl Code<'_> {
    fn bitor(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::BitOr, vec![a, b])
    }

    fn is_nan(&self, x: &Expr) -> Expr {
        self.not(self.eq(x.clone(), x.clone()))
    }

    fn decode_format(&mut self, format: &Format, wide: Expr) -> Expr {
        let sign_bit = 1 << format.sign();
        let sign = self.shl(self.bitand(wide.clone(), self.int(sign_bit)), 31 - format.sign());
        let magnitude = self.bitand(wide.clone(), self.int(sign_bit - 1));
        let magnitude = self.name(magnitude);
        // The fields at their places in an f32 are too small by the difference of the biases; multiplying normalizes
        // subnormal numbers on the way.
        let placed = self.shl(magnitude.clone(), self.mantissa() - format.mantissa);
        let placed = self.name(placed);
        let scale = self.num(2f64.powi((127 - format.bias) as i32));
        let number = self.bits(self.mul(self.float(placed.clone()), scale));
        let bits = match format.special {
            Special::Numbers => number,
            Special::Ieee => {
                let special = self.lt(self.int(format.largest()), magnitude);
                self.select(special, self.bitor(placed, self.int(TOP_EXPONENT)), number)
            }
            Special::Finite => {
                self.select(self.eq(magnitude, self.int(sign_bit - 1)), self.int(QUIET), number)
            }
            Special::Unsigned => self.select(self.eq(wide, self.int(sign_bit)), self.int(QUIET), number),
        };
        self.float(self.bitor(bits, sign))
    }

    fn encode_format(&mut self, format: &Format, value: &Expr, saturate: bool) -> Expr {
        let dropped = self.mantissa() - format.mantissa;
        let bits = self.bits(value.clone());
        let bits = self.name(bits);
        let magnitude = self.bitand(bits.clone(), self.int(0x7fff_ffff));
        let magnitude = self.name(magnitude);
        // Just under half a unit, and the rest where the last kept bit is odd; then the bias of the short format.
        let odd = self.bitand(self.shr(magnitude.clone(), dropped), self.int(1));
        let offset = (1i64 << (dropped - 1)) - 1 - ((127 - format.bias) << self.mantissa());
        let normal = self.shr(self.add(self.add(magnitude.clone(), self.int(offset)), odd), dropped);
        // Subnormal results: adding a number with their spacing lets the float unit round.
        let spacing = 2f64.powi((1 - format.bias - format.mantissa + self.mantissa()) as i32);
        let spacing_bits = i64::from((spacing as f32).to_bits());
        let aligned = self.add(self.float(magnitude.clone()), self.num(spacing));
        let subnormal = self.sub(self.bits(aligned), self.int(spacing_bits));
        let smallest = self.num(2f64.powi((1 - format.bias) as i32));
        let is_subnormal = self.lt(self.float(magnitude), smallest);
        let rounded = self.select(is_subnormal, subnormal, normal);
        let rounded = self.name(rounded);
        let infinity = ((1 << format.exponent) - 1) << format.mantissa;
        let nan = match format.special {
            Special::Ieee => infinity | 1 << (format.mantissa - 1),
            Special::Finite => (1 << format.sign()) - 1,
            Special::Unsigned => 1 << format.sign(),
            Special::Numbers => 0,
        };
        let overflow = match format.special {
            _ if saturate => format.largest(),
            Special::Numbers => format.largest(),
            Special::Ieee => infinity,
            Special::Finite | Special::Unsigned => nan,
        };
        let too_large = self.lt(self.int(format.largest()), rounded.clone());
        let finite = self.select(too_large, self.int(overflow), rounded.clone());
        let is_nan = self.is_nan(value);
        let code = self.select(is_nan.clone(), self.int(nan), finite);
        let sign = self.bitand(self.shr(bits, 31 - format.sign()), self.int(1 << format.sign()));
        let signed = self.bitor(code, sign);
        if format.special != Special::Unsigned {
            return signed;
        }
        // There is no negative zero, and NaN has no sign.
        let zero = self.eq(rounded, self.int(0));
        let number = self.select(zero, self.int(0), signed);
        self.select(is_nan, self.int(nan), number)
    }

    fn encode_bfloat(&mut self, value: &Expr) -> Expr {
        let bits = self.bits(value.clone());
        let bits = self.name(bits);
        let upper = self.shr(bits.clone(), 16);
        let upper = self.name(upper);
        let odd = self.bitand(upper.clone(), self.int(1));
        let rounded = self.shr(self.add(self.add(bits, self.int(0x7fff)), odd), 16);
        // Rounding could carry a NaN into infinity.
        self.select(self.is_nan(value), self.bitor(upper, self.int(0x40)), rounded)
    }

    /// The MX block scale: the exponent field of an f32, without sign and fraction.
    fn decode_scale(&mut self, wide: Expr) -> Expr {
        let power = self.shl(wide.clone(), self.mantissa());
        let power = self.select(self.eq(wide.clone(), self.int(0)), self.int(0x40_0000), power);
        self.float(self.select(self.eq(wide, self.int(0xff)), self.int(QUIET), power))
    }

    fn encode_scale(&mut self, value: &Expr, saturate: bool) -> Expr {
        let magnitude = self.bitand(self.bits(value.clone()), self.int(0x7fff_ffff));
        let magnitude = self.name(magnitude);
        let exact = self.eq(self.bitand(magnitude.clone(), self.int(0x7f_ffff)), self.int(0));
        let up = self.select(exact, self.int(0), self.int(1));
        let code = self.add(self.shr(magnitude.clone(), self.mantissa()), up);
        // The smallest scale is 2^-127.
        let lowest = self.lt(magnitude, self.int(0x40_0001));
        let code = self.select(lowest, self.int(0), code);
        let code = self.name(code);
        let limit = if saturate { 0xfe } else { 0xff };
        let code = self.select(self.lt(self.int(0xfe), code.clone()), self.int(limit), code);
        let undefined = self.or(self.is_nan(value), self.lt(value.clone(), self.num(0.0)));
        self.select(undefined, self.int(0xff), code)
    }
}

/// The code of a constant, as an unsigned integer of the format's width.
pub fn constant_code(value: Scalar) -> Scalar {
    let storage = if value.dtype.bits() == 16 { DType::U16 } else { DType::U8 };
    Scalar::integer(storage, crate::fold::to_bits(value) as i64)
}

#[cfg(test)]
mod tests;
