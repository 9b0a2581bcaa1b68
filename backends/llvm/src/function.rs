//! Scalar functions, lane by lane.

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Expr, Ty};

use crate::builder::{Order, Ssa};
use crate::error::Error;
use crate::lower::{Lowering, Typed};

impl<'c> Lowering<'c, '_> {
    /// Lowers [`Expr::Call`].
    pub(crate) fn apply(&mut self, op: ScalarOp, args: &[Expr]) -> Result<Typed<'c>, Error> {
        let operands = args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>, _>>()?;
        let constants: Vec<Option<i64>> = args.iter().map(integer_constant).collect();
        self.call(op, &operands, &constants)
    }

    /// Applies a function to values. `constants` holds the integer that an operand is known to be in every lane.
    pub(crate) fn call(
        &self,
        op: ScalarOp,
        operands: &[Typed<'c>],
        constants: &[Option<i64>],
    ) -> Result<Typed<'c>, Error> {
        let dtypes: Vec<DType> = operands.iter().map(|operand| operand.ty.dtype).collect();
        let dtype = op.infer(&dtypes).map_err(|reason| self.malformed(reason))?;
        let lanes = operands[0].ty.lanes;
        if operands.iter().any(|operand| operand.ty.lanes != lanes) {
            return Err(self.malformed(format!("{op} of operands with different lanes")));
        }
        let ty = Ty::vector(dtype, lanes);
        let value = match (op, operands) {
            (ScalarOp::Cast(to), [from]) => self.cast(*from, to)?,
            (ScalarOp::CastAlternate(to), [from]) => self.cast_alternate(*from, to)?,
            (ScalarOp::Bitcast(to), [from]) => self.bitcast(*from, to)?,
            (ScalarOp::Call(function), operands) => self.function(function, operands, constants, ty)?,
            _ => return Err(self.malformed(format!("{op} of {} operands", operands.len()))),
        };
        Ok(Typed { value, ty })
    }

    fn function(
        &self,
        function: Function,
        operands: &[Typed<'c>],
        constants: &[Option<i64>],
        ty: Ty,
    ) -> Result<Ssa<'c>, Error> {
        let class = operands[operands.len() - 1].ty.dtype.class();
        let narrow_float = |operand: &Typed| matches!(operand.ty.dtype, DType::F16 | DType::BF16);
        if operands.iter().any(narrow_float) && function != Function::Select {
            return Err(self.unsupported(format!("{} of 16-bit floats", function.text())));
        }
        let values: Vec<Ssa> = operands.iter().map(|operand| operand.value).collect();
        let r#type = self.register_type(ty)?;
        let lanes = u32::from(ty.lanes);
        let same = |name: &str| self.builder.same_type(name, &values, r#type);
        let float = class == Class::Float;
        let signed = class == Class::Signed;
        match function {
            Function::Neg if float => same("arith.negf"),
            Function::Neg => {
                let zero = self.integer(ty, 0)?;
                self.builder.same_type("arith.subi", &[zero, values[0]], r#type)
            }
            Function::Abs if float => same("math.absf"),
            Function::Abs if signed => same("math.absi"),
            Function::Abs => Ok(values[0]),
            Function::Floor => same("math.floor"),
            Function::Ceil => same("math.ceil"),
            Function::Round => same("math.roundeven"),
            Function::Trunc => same("math.trunc"),
            Function::Sqrt => same("math.sqrt"),
            Function::Add => same(if float { "arith.addf" } else { "arith.addi" }),
            Function::Sub => same(if float { "arith.subf" } else { "arith.subi" }),
            Function::Mul => same(if float { "arith.mulf" } else { "arith.muli" }),
            Function::Div if float => same("arith.divf"),
            Function::Rem if float => same("arith.remf"),
            Function::Div | Function::Rem => self.divide(function, [values[0], values[1]], constants[1], ty),
            Function::Max if float => {
                self.builder.float_extreme("arith.maximumf", [values[0], values[1]], r#type)
            }
            Function::Min if float => {
                self.builder.float_extreme("arith.minimumf", [values[0], values[1]], r#type)
            }
            Function::Max => same(if signed { "arith.maxsi" } else { "arith.maxui" }),
            Function::Min => same(if signed { "arith.minsi" } else { "arith.minui" }),
            Function::BitAnd | Function::And => same("arith.andi"),
            Function::BitOr | Function::Or => same("arith.ori"),
            Function::BitXor | Function::Xor => same("arith.xori"),
            Function::BitNot | Function::Not => {
                let ones = self.integer(ty, -1)?;
                self.builder.same_type("arith.xori", &[values[0], ones], r#type)
            }
            Function::ShiftLeft | Function::ShiftRight => {
                self.shift(function, [values[0], values[1]], constants[1], ty)
            }
            Function::Equal | Function::Less | Function::LessEqual => {
                let order = match (function, signed || float) {
                    (Function::Equal, _) => Order::Equal,
                    (Function::Less, true) => Order::Less,
                    (Function::Less, false) => Order::UnsignedLess,
                    (_, true) => Order::LessEqual,
                    (_, false) => Order::UnsignedLessEqual,
                };
                let pair = [values[0], values[1]];
                if float {
                    self.builder.compare_floats(order, pair, lanes)
                } else {
                    self.builder.compare_integers(order, pair, lanes)
                }
            }
            Function::IsNan => self.builder.compare_floats(Order::Unordered, [values[0], values[0]], lanes),
            Function::Select => self.builder.select(values[0], values[1], values[2], r#type),
            other => Err(self.unsupported(format!("function {}", other.text()))),
        }
    }

    /// Integer quotient or remainder. A zero divisor gives zero; the quotient of the smallest number and -1 wraps. Both
    /// would trap, so the divisor is replaced by 1 in these lanes, unless it is a constant that is neither.
    fn divide(
        &self,
        function: Function,
        [x, y]: [Ssa<'c>; 2],
        divisor: Option<i64>,
        ty: Ty,
    ) -> Result<Ssa<'c>, Error> {
        let r#type = self.register_type(ty)?;
        let lanes = u32::from(ty.lanes);
        let signed = ty.dtype.is_signed();
        let name = match (function, signed) {
            (Function::Div, true) => "arith.divsi",
            (Function::Div, false) => "arith.divui",
            (_, true) => "arith.remsi",
            (_, false) => "arith.remui",
        };
        if divisor.is_some_and(|divisor| divisor != 0 && divisor != -1) {
            return self.builder.same_type(name, &[x, y], r#type);
        }
        let zero = self.integer(ty, 0)?;
        let one = self.integer(ty, 1)?;
        let is_zero = self.builder.compare_integers(Order::Equal, [y, zero], lanes)?;
        let mut divisor = self.builder.select(is_zero, one, y, r#type)?;
        let mut dividend = x;
        if signed {
            // x / -1 is (-x) / 1 and x rem -1 is (-x) rem 1, where the negation wraps.
            let minus_one = self.integer(ty, -1)?;
            let is_minus_one = self.builder.compare_integers(Order::Equal, [y, minus_one], lanes)?;
            let negated = self.builder.same_type("arith.subi", &[zero, x], r#type)?;
            dividend = self.builder.select(is_minus_one, negated, x, r#type)?;
            divisor = self.builder.select(is_minus_one, one, divisor, r#type)?;
        }
        let result = self.builder.same_type(name, &[dividend, divisor], r#type)?;
        self.builder.select(is_zero, zero, result, r#type)
    }

    /// A shift; by the width or more, all bits leave.
    fn shift(
        &self,
        function: Function,
        [x, amount]: [Ssa<'c>; 2],
        constant: Option<i64>,
        ty: Ty,
    ) -> Result<Ssa<'c>, Error> {
        let r#type = self.register_type(ty)?;
        let bits = ty.dtype.bits() as i64;
        let arithmetic = function == Function::ShiftRight && ty.dtype.is_signed();
        let name = match (function, arithmetic) {
            (Function::ShiftLeft, _) => "arith.shli",
            (_, true) => "arith.shrsi",
            (_, false) => "arith.shrui",
        };
        if constant.is_some_and(|amount| (0..bits).contains(&amount)) {
            return self.builder.same_type(name, &[x, amount], r#type);
        }
        let last = self.integer(ty, bits - 1)?;
        // A negative amount counts as a large unsigned one.
        let clamped = self.builder.same_type("arith.minui", &[amount, last], r#type)?;
        let shifted = self.builder.same_type(name, &[x, clamped], r#type)?;
        if arithmetic {
            return Ok(shifted);
        }
        let inside =
            self.builder.compare_integers(Order::UnsignedLessEqual, [amount, last], u32::from(ty.lanes))?;
        let zero = self.integer(ty, 0)?;
        self.builder.select(inside, shifted, zero, r#type)
    }

    /// An integer constant in every lane of a type.
    pub(crate) fn integer(&self, ty: Ty, value: i64) -> Result<Ssa<'c>, Error> {
        self.builder.integer(self.element_type(ty.dtype)?, u32::from(ty.lanes), value)
    }
}

/// The integer that an expression is in every lane, where that is plain to see.
fn integer_constant(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Const(scalar) if scalar.dtype.is_integer() => Some(scalar.as_i64()),
        Expr::Splat(value, _) => integer_constant(value),
        _ => None,
    }
}
