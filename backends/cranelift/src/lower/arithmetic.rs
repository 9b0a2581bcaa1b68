//! Functions on numbers, lane by lane.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use tcc_ir::scalar::{Function, Scalar};

use super::Lowering;
use super::lanes::{Lanes, Origin, register};
use super::width::Narrow;

impl Lowering<'_, '_> {
    /// A function of one number.
    pub fn unary(&mut self, function: Function, a: &Lanes) -> Lanes {
        let float = a.ty.dtype.is_float();
        self.map(a, |this, x| {
            let ins = this.builder.ins();
            match function {
                Function::Neg if float => ins.fneg(x),
                Function::Neg => ins.ineg(x),
                Function::Abs if float => ins.fabs(x),
                Function::Abs if a.ty.dtype.is_signed() => ins.iabs(x),
                Function::Abs => x,
                Function::Floor => ins.floor(x),
                Function::Ceil => ins.ceil(x),
                Function::Round => ins.nearest(x),
                Function::Trunc => ins.trunc(x),
                Function::Sqrt => ins.sqrt(x),
                Function::BitNot => ins.bnot(x),
                other => unreachable!("{other:?} is not a function of one number"),
            }
        })
    }

    /// A function of two numbers of one type.
    pub fn binary(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        if a.ty.dtype.is_float() {
            return match function {
                Function::Max | Function::Min => self.float_extreme(function, a, b),
                _ => self.zip(a, b, |this, x, y| {
                    let ins = this.builder.ins();
                    match function {
                        Function::Add => ins.fadd(x, y),
                        Function::Sub => ins.fsub(x, y),
                        Function::Mul => ins.fmul(x, y),
                        Function::Div => ins.fdiv(x, y),
                        other => unreachable!("{other:?} is not a function of two floats"),
                    }
                }),
            };
        }
        match function {
            Function::Div | Function::Rem | Function::Mod => self.divide(function, a, b),
            Function::ShiftLeft | Function::ShiftRight => self.shift(function, a, b),
            Function::Max | Function::Min => self.integer_extreme(function, a, b),
            Function::Mul if !a.is_scalar() && a.lane == types::I8 => self.multiply_bytes(a, b),
            _ => self.zip(a, b, |this, x, y| {
                let ins = this.builder.ins();
                match function {
                    Function::Add => ins.iadd(x, y),
                    Function::Sub => ins.isub(x, y),
                    Function::Mul => ins.imul(x, y),
                    Function::BitAnd => ins.band(x, y),
                    Function::BitOr => ins.bor(x, y),
                    Function::BitXor => ins.bxor(x, y),
                    other => unreachable!("{other:?} is not a function of two integers"),
                }
            }),
        }
    }

    /// The larger or smaller; NaN where an operand is NaN, and -0 is smaller than 0.
    fn float_extreme(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        let max = function == Function::Max;
        let number = |lanes: &Lanes| {
            lanes.constant().map(|scalar| f64::from_bits(scalar.bits)).filter(|value| !value.is_nan())
        };
        let (variable, limit, value) = match (number(a), number(b)) {
            (_, Some(value)) => (a, b, value),
            (Some(value), None) => (b, a, value),
            (None, None) => {
                return self.zip(a, b, |this, x, y| {
                    if max { this.builder.ins().fmax(x, y) } else { this.builder.ins().fmin(x, y) }
                });
            }
        };
        // A comparison with a number is false for NaN, which then passes. Equal are only the zeros: the limit replaces them
        // where it is the zero that wins.
        let wins_ties = value.is_sign_negative() != max;
        let condition = match (max, wins_ties) {
            (true, true) => FloatCC::LessThanOrEqual,
            (true, false) => FloatCC::LessThan,
            (false, true) => FloatCC::GreaterThanOrEqual,
            (false, false) => FloatCC::GreaterThan,
        };
        self.zip(variable, limit, |this, x, y| {
            let replace = this.builder.ins().fcmp(condition, x, y);
            this.pick(replace, y, x)
        })
    }

    fn integer_extreme(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        let (max, signed) = (function == Function::Max, a.ty.dtype.is_signed());
        if !a.is_scalar() && a.lane != types::I64 {
            return self.zip(a, b, |this, x, y| {
                let ins = this.builder.ins();
                match (max, signed) {
                    (true, true) => ins.smax(x, y),
                    (true, false) => ins.umax(x, y),
                    (false, true) => ins.smin(x, y),
                    (false, false) => ins.umin(x, y),
                }
            });
        }
        let condition = match (max, signed) {
            (true, true) => IntCC::SignedGreaterThan,
            (true, false) => IntCC::UnsignedGreaterThan,
            (false, true) => IntCC::SignedLessThan,
            (false, false) => IntCC::UnsignedLessThan,
        };
        self.zip(a, b, |this, x, y| {
            let keep = this.builder.ins().icmp(condition, x, y);
            this.pick(keep, x, y)
        })
    }

    /// `x` where the outcome of a comparison of such values is true, else `y`.
    pub fn pick(&mut self, condition: Value, x: Value, y: Value) -> Value {
        let ty = self.builder.func.dfg.value_type(x);
        if ty.is_vector() {
            let mask = self.bitcast(ty, condition);
            self.builder.ins().bitselect(mask, x, y)
        } else {
            self.builder.ins().select(condition, x, y)
        }
    }

    /// Vectors of bytes have no multiplication of their own: through 16-bit lanes.
    fn multiply_bytes(&mut self, a: &Lanes, b: &Lanes) -> Lanes {
        let lanes = a.ty.lanes;
        let wide_a = self.widen(&a.parts, types::I8, types::I16, lanes, false);
        let wide_b = self.widen(&b.parts, types::I8, types::I16, lanes, false);
        let products = wide_a.iter().zip(&wide_b).map(|(x, y)| self.builder.ins().imul(*x, *y)).collect();
        let parts = self.narrow(&products, types::I16, types::I8, Narrow::Wrap);
        Lanes { parts, origin: Origin::Any, ..a.clone() }
    }

    /// Quotient or remainder of integers, one lane at a time: no processor here divides integer vectors.
    fn divide(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        let signed = a.ty.dtype.is_signed();
        let constant = b.constant();
        self.each_lane(a.ty.dtype, &[a, b], |this, args| {
            this.divide_scalar(function, signed, args[0], args[1], constant)
        })
    }

    fn divide_scalar(
        &mut self,
        function: Function,
        signed: bool,
        x: Value,
        y: Value,
        constant: Option<Scalar>,
    ) -> Value {
        let ty = self.builder.func.dfg.value_type(x);
        let zero = self.int(ty, 0);
        let divisor = constant.map(Scalar::as_i64);
        if divisor == Some(0) {
            return zero;
        }
        // Zero and, for signed types, -1 divide by 1 instead, and their result is corrected after.
        let one = self.int(ty, 1);
        let is_zero = self.builder.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let minus_one = self.int(ty, -1);
        let is_minus_one = self.builder.ins().icmp(IntCC::Equal, y, minus_one);
        let safe = match divisor {
            Some(-1) if signed => one,
            Some(_) => y,
            None => {
                let special = if signed { self.builder.ins().bor(is_zero, is_minus_one) } else { is_zero };
                self.builder.ins().select(special, one, y)
            }
        };
        let quotient_only = function == Function::Div;
        let ins = self.builder.ins();
        let mut result = match (quotient_only, signed) {
            (true, true) => ins.sdiv(x, safe),
            (true, false) => ins.udiv(x, safe),
            (false, true) => ins.srem(x, safe),
            (false, false) => ins.urem(x, safe),
        };
        if quotient_only {
            if signed && divisor.is_none_or(|divisor| divisor == -1) {
                let negated = self.builder.ins().ineg(x);
                result = self.builder.ins().select(is_minus_one, negated, result);
            }
            if divisor.is_none() {
                result = self.builder.ins().select(is_zero, zero, result);
            }
        } else if function == Function::Mod && signed {
            // The remainder has the sign of `x`; a modulus has that of `y`.
            let signs = self.builder.ins().bxor(result, y);
            let differ = self.builder.ins().icmp(IntCC::SignedLessThan, signs, zero);
            let nonzero = self.builder.ins().icmp(IntCC::NotEqual, result, zero);
            let adjust = self.builder.ins().band(differ, nonzero);
            let moved = self.builder.ins().iadd(result, y);
            result = self.builder.ins().select(adjust, moved, result);
        }
        // By zero and by -1 the division was by 1, whose remainder is zero.
        result
    }

    /// Shifts; amounts are unsigned, and those of the width or more shift everything out.
    fn shift(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        let left = function == Function::ShiftLeft;
        let signed = a.ty.dtype.is_signed();
        let width = i64::from(a.lane.bits());
        if let Some(scalar) = b.constant() {
            // Out of range as unsigned covers negative amounts.
            let amount = u64::try_from(scalar.as_i64()).unwrap_or(u64::MAX).min(width as u64) as i64;
            if amount == width && (left || !signed) {
                return self.zero(a.ty);
            }
            let amount = self.int(types::I32, amount.min(width - 1));
            return self.map(a, |this, x| this.shift_by(left, signed, x, amount));
        }
        if let (Origin::Splat(amount), false) = (b.origin, a.is_scalar()) {
            let (clamped, within) = self.shift_amount(amount, width);
            return self.map(a, |this, x| {
                let shifted = this.shift_by(left, signed, x, clamped);
                if !left && signed {
                    return shifted;
                }
                let flag = this.builder.ins().uextend(types::I64, within);
                let keep = this.builder.ins().ineg(flag);
                let keep = this.builder.ins().splat(types::I64X2, keep);
                let keep = this.bitcast(register(a.lane), keep);
                this.builder.ins().band(shifted, keep)
            });
        }
        self.each_lane(a.ty.dtype, &[a, b], |this, args| {
            let (clamped, within) = this.shift_amount(args[1], width);
            let shifted = this.shift_by(left, signed, args[0], clamped);
            if !left && signed {
                return shifted;
            }
            let zero = this.int(a.lane, 0);
            this.builder.ins().select(within, shifted, zero)
        })
    }

    /// The amount, at most the width less one, as `i32`, and whether it was that already.
    fn shift_amount(&mut self, amount: Value, width: i64) -> (Value, Value) {
        let ty = self.builder.func.dfg.value_type(amount);
        let limit = self.int(ty, width - 1);
        let within = self.builder.ins().icmp(IntCC::UnsignedLessThanOrEqual, amount, limit);
        let clamped = self.builder.ins().select(within, amount, limit);
        let clamped = match ty.bits() {
            64 => self.builder.ins().ireduce(types::I32, clamped),
            32 => clamped,
            _ => self.builder.ins().uextend(types::I32, clamped),
        };
        (clamped, within)
    }

    fn shift_by(&mut self, left: bool, signed: bool, x: Value, amount: Value) -> Value {
        let ins = self.builder.ins();
        match (left, signed) {
            (true, _) => ins.ishl(x, amount),
            (false, true) => ins.sshr(x, amount),
            (false, false) => ins.ushr(x, amount),
        }
    }

    /// `a * b + c` with one rounding.
    pub fn fma(&mut self, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
        if self.machine.fma {
            let parts = (0..a.parts.len())
                .map(|part| self.builder.ins().fma(a.parts[part], b.parts[part], c.parts[part]))
                .collect();
            return Lanes { parts, origin: Origin::Any, ..a.clone() };
        }
        self.each_lane(a.ty.dtype, &[a, b, c], |this, args| match a.lane {
            types::F32 => this.fma_single(args[0], args[1], args[2]),
            _ => this.fma_double(args[0], args[1], args[2]),
        })
    }

    /// Integer of the width of a float.
    pub fn float_bits(&mut self, value: Value) -> Value {
        let ty: Type = self.builder.func.dfg.value_type(value);
        self.bitcast(ty.as_int(), value)
    }
}
