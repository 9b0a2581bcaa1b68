//! Exact remainders of floats, and of indices where no statement can be placed.
//!
//! Long division in base two: every step subtracts a multiple `y 2^k` that is at most the rest, which is exact. The number of
//! steps is the distance of the exponents, of all lanes the largest.

use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

use super::Code;
use crate::ir::{Expr, LoopKind, Stmt, Ty, Var};

/// The remainder with the sign of the divisor, of indices far from the limits of `i64`, as one expression.
pub fn pure_modulo(x: Expr, y: Expr) -> Expr {
    x.remainder(y.clone()).plus(y.clone()).remainder(y)
}

impl Code<'_> {
    fn exponent(&mut self, x: &Expr) -> Expr {
        let exponent = self.shr(self.bits(x.clone()), self.mantissa());
        self.name(exponent)
    }

    /// Subtracts multiples of the positive `y` from the variable until it is less than `y`; `distance` says how many times
    /// `y` may have to be doubled, an integer of at least 0.
    fn divide(&mut self, rest: Var, y: &Expr, distance: &Expr) {
        let start = self.scaled(y.clone(), distance);
        let multiple = self.kernel.variable("t", self.ty);
        self.out.push(Stmt::Assign { var: multiple, value: start });
        let steps = match self.ty.lanes {
            1 => distance.clone(),
            _ => Expr::ReduceLanes(ReduceKind::Max, Box::new(distance.clone())),
        };
        let steps = steps.cast(self.bits_type(), Self::INDEX).plus(Expr::index(1));
        let steps_var = self.kernel.variable("steps", Ty::INDEX);
        self.out.push(Stmt::Assign { var: steps_var, value: steps });
        let counter = self.kernel.counter("step");
        let fits = self.and(self.le(y.clone(), multiple.into()), self.le(multiple.into(), rest.into()));
        let less = self.sub(rest.into(), multiple.into());
        let body = vec![
            Stmt::Assign { var: rest, value: self.select(fits, less, rest.into()) },
            Stmt::Assign { var: multiple, value: self.mul(multiple.into(), self.num(0.5)) },
        ];
        self.out.push(Stmt::For { var: counter, extent: steps_var.into(), kind: LoopKind::Serial, body });
    }

    /// The remainder with the sign of `x`, as C's `fmod`.
    pub(super) fn float_remainder(&mut self, x: &Expr, y: &Expr) -> Expr {
        let smallest = self.by_type(f64::from(f32::MIN_POSITIVE), f64::MIN_POSITIVE);
        let (scale, digits) = self.by_type((8_388_608.0, 23), (4_503_599_627_370_496.0, 52));
        let dividend = self.abs(x.clone());
        let dividend = self.name(dividend);
        let divisor = self.abs(y.clone());
        let divisor = self.name(divisor);
        let rest = self.kernel.variable("t", self.ty);
        self.out.push(Stmt::Assign { var: rest, value: dividend.clone() });
        // A subnormal divisor is first taken times a power of two, whose exponent field says how large it is.
        let subnormal = self.lt(divisor.clone(), self.num(smallest));
        let subnormal = self.name(subnormal);
        let scaled = self.mul(divisor.clone(), self.num(scale));
        let normal = self.select(subnormal.clone(), scaled, divisor.clone());
        let normal = self.name(normal);
        let (upper, lower) = (self.exponent(&dividend), self.exponent(&normal));
        let distance = self.sub(upper, lower);
        let distance = self.call(Function::Max, &[distance, self.int(0)]);
        let distance = self.name(distance);
        self.divide(rest, &normal, &distance);
        let more = self.select(subnormal, self.int(digits), self.int(0));
        let more = self.name(more);
        self.divide(rest, &divisor, &more);
        let value = self.with_sign_of(rest.into(), x);
        let infinite = self.eq(divisor.clone(), self.num(f64::INFINITY));
        let value = self.select(infinite, x.clone(), value);
        // NaN, an infinite dividend or a zero divisor.
        let regular = self.and(self.lt(dividend, self.num(f64::INFINITY)), self.lt(self.num(0.0), divisor));
        self.select(regular, value, self.num(f64::NAN))
    }

    /// The remainder with the sign of `y`.
    pub(super) fn float_modulo(&mut self, x: &Expr, y: &Expr) -> Expr {
        let rest = self.float_remainder(x, y);
        let rest = self.name(rest);
        let zero = self.num(0.0);
        let below = self.lt(rest.clone(), zero.clone());
        let above = self.lt(zero.clone(), rest.clone());
        let differ = self
            .or(self.and(below, self.lt(zero.clone(), y.clone())), self.and(above, self.lt(y.clone(), zero)));
        self.select(differ, self.add(rest.clone(), y.clone()), rest)
    }
}

#[cfg(test)]
mod tests {
    use tcc_ir::scalar::ScalarOp;

    use super::*;

    #[test]
    fn pure_modulo_has_the_sign_of_the_divisor() {
        for (x, y, expected) in [(5, 3, 2), (-5, 3, 1), (5, -3, -1), (-5, -3, -2), (0, 7, 0), (-6, 3, 0)] {
            let folded = pure_modulo(Expr::index(x), Expr::index(y));
            assert_eq!(folded.as_index(), Some(expected), "{x} mod {y}");
        }
        assert!(matches!(
            pure_modulo(Expr::Dim(0), Expr::Dim(1)),
            Expr::Call(ScalarOp::Call(Function::Rem), _)
        ));
    }
}
