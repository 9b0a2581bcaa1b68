//! Sign and integer powers.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar};

use super::Code;
use crate::ir::{Expr, LoopKind, Stmt};

impl Code<'_> {
    /// -1, 0 or 1; zeros and NaN stay what they are.
    pub(super) fn sign(&mut self, x: &Expr) -> Expr {
        let negative = self.select(self.lt(x.clone(), self.num(0.0)), self.num(-1.0), x.clone());
        self.select(self.lt(self.num(0.0), x.clone()), self.num(1.0), negative)
    }

    /// A number of the integer type of the arguments.
    fn whole(&self, value: i64) -> Expr {
        self.splat(Scalar::integer(self.ty.dtype, value))
    }

    pub(super) fn integer_sign(&mut self, x: &Expr) -> Expr {
        let positive = self.select(self.lt(self.whole(0), x.clone()), self.whole(1), self.whole(0));
        if self.ty.dtype.is_signed() {
            self.select(self.lt(x.clone(), self.whole(0)), self.whole(-1), positive)
        } else {
            positive
        }
    }

    /// The remainder with the sign of the divisor.
    pub(super) fn integer_modulo(&mut self, x: &Expr, y: &Expr) -> Expr {
        let rest = self.call(Function::Rem, &[x.clone(), y.clone()]);
        if !self.ty.dtype.is_signed() {
            return rest;
        }
        let rest = self.name(rest);
        // Signs differ where the exclusive or is negative.
        let differ = self.lt(self.bitxor(rest.clone(), y.clone()), self.whole(0));
        let inexact = self.not(self.eq(rest.clone(), self.whole(0)));
        self.select(self.and(inexact, differ), self.add(rest.clone(), y.clone()), rest)
    }

    /// Square and multiply over all bits of the exponent, wrapping; negative exponents truncate the reciprocal.
    pub(super) fn integer_power(&mut self, x: &Expr, y: &Expr) -> Expr {
        let variable = |code: &mut Self, value: Expr| {
            let var = code.kernel.variable("t", code.ty);
            code.out.push(Stmt::Assign { var, value });
            var
        };
        let power = variable(self, self.whole(1));
        let square = variable(self, x.clone());
        let rest = variable(self, y.clone());
        let counter = self.kernel.counter("bit");
        let odd = self.eq(self.bitand(rest.into(), self.whole(1)), self.whole(1));
        let next = self.select(odd, self.mul(power.into(), square.into()), power.into());
        let body = vec![
            Stmt::Assign { var: power, value: next },
            Stmt::Assign { var: square, value: self.mul(square.into(), square.into()) },
            Stmt::Assign { var: rest, value: self.call(Function::ShiftRight, &[rest.into(), self.whole(1)]) },
        ];
        let extent = Expr::index(self.ty.dtype.bits() as i64);
        self.out.push(Stmt::For { var: counter, extent, kind: LoopKind::Serial, body });
        if !self.ty.dtype.is_signed() {
            return power.into();
        }
        let even = self.eq(self.bitand(y.clone(), self.whole(1)), self.whole(0));
        let alternating = self.select(even, self.whole(1), self.whole(-1));
        let minus_one = self.select(self.eq(x.clone(), self.whole(-1)), alternating, self.whole(0));
        let reciprocal = self.select(self.eq(x.clone(), self.whole(1)), self.whole(1), minus_one);
        self.select(self.lt(y.clone(), self.whole(0)), reciprocal, power.into())
    }

    /// The integer type of indices.
    pub(super) const INDEX: DType = DType::I64;
}
