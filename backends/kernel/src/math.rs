//! Mathematical functions as kernel code over core functions, without tables and without calls.
//!
//! Every function works on scalars and vectors of f32 and f64. The usual scheme applies: reduce the argument to a short
//! interval, evaluate a polynomial there (minimax, fitted with the relative error as weight), and undo the reduction.
//! Where the argument is special (zero, infinite, NaN, outside the domain) the result is IEEE 754's, signs of zero included.
//!
//! Accuracy against the exact result, over the whole range unless stated, as the tests of each module check; "ulp" is the
//! distance of neighbouring floats at the result:
//!
//! | functions | f32, ulp | f64, ulp |
//! |---|---|---|
//! | exp, log, log1p, expm1, erf | 1.5 | 2 |
//! | sigmoid, tanh, sin, cos, atan, acos, cosh, sinh, asinh, acosh, atanh | 2 | 4 |
//! | asin, tan | 3 | 4 |
//! | pow | 4 | 32 |
//!
//! Sine, cosine and tangent are that accurate up to 4096.
//! Larger arguments lose accuracy gradually, from 2^21 (f32) and 2^50 (f64) on all of it; results stay in range.

mod elementary;
mod error_function;
mod exponential;
mod hyperbolic;
mod inverse;
mod logarithm;
mod power;
mod remainder;
pub mod short_float;
mod trigonometric;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use crate::ir::{Expr, Kernel, Stmt, Ty};

pub use remainder::pure_modulo;

/// Statements under construction for values of one type.
pub struct Code<'k> {
    kernel: &'k mut Kernel,
    out: &'k mut Vec<Stmt>,
    fma: bool,
    ty: Ty,
}

/// The code of `function` on arguments of one type that is f32, f64 or an integer; statements that it needs are appended to
/// `out`, and the result is an expression over their variables. None for functions that need no code.
pub fn expand(
    kernel: &mut Kernel,
    out: &mut Vec<Stmt>,
    fma: bool,
    function: Function,
    args: &[Expr],
) -> Option<Expr> {
    use Function::*;
    let ty = kernel.type_of(args.first()?);
    let mut code = Code { kernel, out, fma, ty };
    let code = &mut code;
    if ty.dtype.is_integer() {
        let args: Vec<Expr> = args.iter().map(|arg| code.name(arg.clone())).collect();
        return match (function, &args[..]) {
            (Sign, [x]) => Some(code.integer_sign(x)),
            (Mod, [x, y]) => Some(code.integer_modulo(x, y)),
            (Pow, [x, y]) => Some(code.integer_power(x, y)),
            _ => None,
        };
    }
    if !matches!(ty.dtype, DType::F32 | DType::F64) {
        return None;
    }
    let args: Vec<Expr> = args.iter().map(|arg| code.name(arg.clone())).collect();
    Some(match (function, &args[..]) {
        (Exp, [x]) => code.exp(x),
        (Expm1, [x]) => code.expm1(x),
        (Sigmoid, [x]) => code.sigmoid(x),
        (Tanh, [x]) => code.tanh(x),
        (Sinh, [x]) => code.sinh(x),
        (Cosh, [x]) => code.cosh(x),
        (Log, [x]) => code.log(x),
        (Log1p, [x]) => code.log1p(x),
        (Asinh, [x]) => code.asinh(x),
        (Acosh, [x]) => code.acosh(x),
        (Atanh, [x]) => code.atanh(x),
        (Sin, [x]) => code.sin(x),
        (Cos, [x]) => code.cos(x),
        (Tan, [x]) => code.tan(x),
        (Asin, [x]) => code.asin(x),
        (Acos, [x]) => code.acos(x),
        (Atan, [x]) => code.atan(x),
        (Erf, [x]) => code.erf(x),
        (Pow, [x, y]) => code.pow(x, y),
        (Rem, [x, y]) => code.float_remainder(x, y),
        (Mod, [x, y]) => code.float_modulo(x, y),
        (Sign, [x]) => code.sign(x),
        (Reciprocal, [x]) => code.div(code.num(1.0), x.clone()),
        (IsNan, [x]) => code.not(code.eq(x.clone(), x.clone())),
        (IsInf, [x]) => code.eq(code.abs(x.clone()), code.num(f64::INFINITY)),
        _ => return None,
    })
}

/// Builders of expressions: short names, since polynomials and their reductions are made of little else.
impl Code<'_> {
    /// True where values are f32.
    fn single(&self) -> bool {
        self.ty.dtype == DType::F32
    }

    /// One of two constants, by element type.
    fn by_type<T>(&self, single: T, double: T) -> T {
        if self.single() { single } else { double }
    }

    /// The integer type of the same width.
    fn bits_type(&self) -> DType {
        self.by_type(DType::I32, DType::I64)
    }

    /// Explicit bits of the significand.
    fn mantissa(&self) -> i64 {
        self.by_type(23, 52)
    }

    fn splat(&self, scalar: Scalar) -> Expr {
        let constant = Expr::Const(scalar);
        if self.ty.lanes == 1 { constant } else { Expr::Splat(Box::new(constant), self.ty.lanes) }
    }

    /// A number of the value type, in all lanes.
    fn num(&self, value: f64) -> Expr {
        self.splat(Scalar::of(self.ty.dtype, value))
    }

    /// A number of the integer type of the same width.
    fn int(&self, value: i64) -> Expr {
        self.splat(Scalar::integer(self.bits_type(), value))
    }

    /// Gives a value a name, so that it can be used several times.
    fn name(&mut self, value: Expr) -> Expr {
        let trivial = match &value {
            Expr::Const(_) | Expr::Var(_) => true,
            Expr::Splat(inner, _) => matches!(**inner, Expr::Const(_) | Expr::Var(_)),
            _ => false,
        };
        if trivial {
            return value;
        }
        let ty = self.kernel.type_of(&value);
        let var = self.kernel.variable("t", ty);
        self.out.push(Stmt::Assign { var, value });
        Expr::Var(var)
    }

    fn call(&self, function: Function, args: &[Expr]) -> Expr {
        Expr::call(function, args.to_vec())
    }

    fn add(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Add, vec![a, b])
    }

    fn sub(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Sub, vec![a, b])
    }

    fn mul(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Mul, vec![a, b])
    }

    fn div(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Div, vec![a, b])
    }

    fn neg(&self, a: Expr) -> Expr {
        Expr::call(Function::Neg, vec![a])
    }

    fn abs(&self, a: Expr) -> Expr {
        Expr::call(Function::Abs, vec![a])
    }

    fn sqrt(&self, a: Expr) -> Expr {
        Expr::call(Function::Sqrt, vec![a])
    }

    fn floor(&self, a: Expr) -> Expr {
        Expr::call(Function::Floor, vec![a])
    }

    fn eq(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Equal, vec![a, b])
    }

    fn lt(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Less, vec![a, b])
    }

    fn le(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::LessEqual, vec![a, b])
    }

    fn and(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::And, vec![a, b])
    }

    fn or(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Or, vec![a, b])
    }

    fn not(&self, a: Expr) -> Expr {
        Expr::call(Function::Not, vec![a])
    }

    fn select(&self, condition: Expr, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Select, vec![condition, a, b])
    }

    /// `a * b + c`, fused where the machine does that in one instruction.
    fn fma(&self, a: Expr, b: Expr, c: Expr) -> Expr {
        if self.fma { Expr::Fma(Box::new(a), Box::new(b), Box::new(c)) } else { self.add(self.mul(a, b), c) }
    }

    /// The value's bits as an integer.
    fn bits(&self, x: Expr) -> Expr {
        Expr::Call(ScalarOp::Bitcast(self.bits_type()), vec![x])
    }

    /// The value with these bits.
    fn float(&self, bits: Expr) -> Expr {
        Expr::Call(ScalarOp::Bitcast(self.ty.dtype), vec![bits])
    }

    fn shl(&self, x: Expr, by: i64) -> Expr {
        self.call(Function::ShiftLeft, &[x, self.int(by)])
    }

    fn shr(&self, x: Expr, by: i64) -> Expr {
        self.call(Function::ShiftRight, &[x, self.int(by)])
    }

    fn bitand(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::BitAnd, vec![a, b])
    }

    fn bitxor(&self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::BitXor, vec![a, b])
    }

    /// The polynomial with these coefficients, lowest power first, by Horner's scheme.
    fn polynomial(&self, x: &Expr, coefficients: &[f64]) -> Expr {
        let mut powers = coefficients.iter().rev();
        let first = self.num(powers.next().copied().unwrap_or(0.0));
        powers.fold(first, |sum, coefficient| self.fma(sum, x.clone(), self.num(*coefficient)))
    }

    /// Magnitude of `x` and sign of `sign`; `x` is not negative.
    fn with_sign_of(&self, x: Expr, sign: &Expr) -> Expr {
        let mask = self.int(self.by_type(i64::from(i32::MIN), i64::MIN));
        let sign = self.bitand(self.bits(sign.clone()), mask);
        self.float(self.call(Function::BitOr, &[self.bits(x), sign]))
    }

    /// `min(x, limit)` that keeps NaN.
    fn capped(&mut self, x: &Expr, limit: f64) -> Expr {
        let limit = self.num(limit);
        let capped = self.select(self.lt(limit.clone(), x.clone()), limit, x.clone());
        self.name(capped)
    }

    /// `max(x, limit)` that keeps NaN.
    fn floored(&mut self, x: &Expr, limit: f64) -> Expr {
        let limit = self.num(limit);
        let floored = self.select(self.lt(x.clone(), limit.clone()), limit, x.clone());
        self.name(floored)
    }

    /// The integer nearest to `x * scale` in two forms, both exact: a float, and an integer of the same width. Adding a large
    /// number pushes the fraction out of the significand; the result is exact below 2^21 (f32), 2^50 (f64).
    fn nearest(&mut self, x: &Expr, scale: f64) -> (Expr, Expr) {
        let magic: f64 = self.by_type(12_582_912.0, 6_755_399_441_055_744.0);
        let bits = self.by_type(i64::from((magic as f32).to_bits()), magic.to_bits() as i64);
        let shifted = self.fma(x.clone(), self.num(scale), self.num(magic));
        let shifted = self.name(shifted);
        let whole = self.sub(shifted.clone(), self.num(magic));
        let number = self.sub(self.bits(shifted), self.int(bits));
        (self.name(whole), self.name(number))
    }

    /// The float of a small integer, as [`Code::nearest`] backwards.
    fn float_of_small(&self, number: Expr) -> Expr {
        let magic: f64 = self.by_type(12_582_912.0, 6_755_399_441_055_744.0);
        let bits = self.by_type(i64::from((magic as f32).to_bits()), magic.to_bits() as i64);
        self.sub(self.float(self.add(number, self.int(bits))), self.num(magic))
    }

    /// `2^k` for an integer `k` whose power is a normal number.
    fn power_of_two(&self, k: Expr) -> Expr {
        let bias = self.by_type(127, 1023);
        self.float(self.shl(self.add(k, self.int(bias)), self.mantissa()))
    }

    /// `x * 2^k` where the power itself may lie outside the range of floats.
    fn scaled(&mut self, x: Expr, k: &Expr) -> Expr {
        let half = self.shr(k.clone(), 1);
        let half = self.name(half);
        let rest = self.sub(k.clone(), half.clone());
        let once = self.mul(x, self.power_of_two(half));
        self.mul(once, self.power_of_two(rest))
    }

    /// The rounding error of `a * b`, given the rounded product.
    fn product_error(&mut self, a: &Expr, b: &Expr, product: &Expr) -> Expr {
        if self.fma {
            let error = self.fma(a.clone(), b.clone(), self.neg(product.clone()));
            return self.name(error);
        }
        // Dekker: both factors in halves whose products are exact.
        let (a_high, a_low) = self.halves(a);
        let (b_high, b_low) = self.halves(b);
        let sum = self.sub(self.mul(a_high.clone(), b_high.clone()), product.clone());
        let sum = self.add(sum, self.mul(a_high, b_low.clone()));
        let sum = self.add(sum, self.mul(a_low.clone(), b_high));
        let error = self.add(sum, self.mul(a_low, b_low));
        self.name(error)
    }

    /// Upper and lower half of the significand (Veltkamp).
    fn halves(&mut self, x: &Expr) -> (Expr, Expr) {
        let mask = self.by_type(-(1i64 << 12), -(1i64 << 27));
        let high = self.float(self.bitand(self.bits(x.clone()), self.int(mask)));
        let high = self.name(high);
        let low = self.sub(x.clone(), high.clone());
        let low = self.name(low);
        (high, low)
    }
}

#[cfg(test)]
mod tests;
