//! Ranges of index expressions, given the ranges of loop counters: trip counts and the width of counters follow.

use std::collections::HashMap;

use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Expr, Var};

/// Smallest and largest value of loop counters.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    counters: HashMap<Var, (i128, i128)>,
}

impl Ranges {
    /// Enters a loop over `0..extent` and returns the smallest and largest number of iterations.
    pub fn enter(&mut self, counter: Var, extent: &Expr) -> Option<(u64, u64)> {
        let range = self.of(extent);
        let (low, high) = range.map(|(low, high)| (low.max(0), high.max(0)))?;
        self.counters.insert(counter, (0, (high - 1).max(0)));
        Some((u64::try_from(low).ok()?, u64::try_from(high).ok()?))
    }

    /// Gives a variable a range, or takes it away.
    pub fn bind(&mut self, var: Var, range: Option<(i128, i128)>) {
        match range {
            Some(range) => self.counters.insert(var, range),
            None => self.counters.remove(&var),
        };
    }

    /// The values that an index expression can take; none where it reads memory or other variables.
    pub fn of(&self, expr: &Expr) -> Option<(i128, i128)> {
        let (function, args) = match expr {
            Expr::Const(scalar) => {
                let value = i128::from(scalar.as_i64());
                return Some((value, value));
            }
            Expr::Var(var) => return self.counters.get(var).copied(),
            Expr::Call(ScalarOp::Call(function), args) => (*function, args),
            _ => return None,
        };
        if function == Function::Select {
            let (a, b) = (self.of(args.get(1)?)?, self.of(args.get(2)?)?);
            return Some((a.0.min(b.0), a.1.max(b.1)));
        }
        let a = self.of(args.first()?)?;
        if function == Function::Neg {
            return Some((-a.1, -a.0));
        }
        let b = self.of(args.get(1)?)?;
        let corners = |apply: fn(i128, i128) -> Option<i128>| -> Option<(i128, i128)> {
            let values = [apply(a.0, b.0)?, apply(a.0, b.1)?, apply(a.1, b.0)?, apply(a.1, b.1)?];
            Some((*values.iter().min()?, *values.iter().max()?))
        };
        match function {
            Function::Add => corners(i128::checked_add),
            Function::Sub => corners(i128::checked_sub),
            Function::Mul => corners(i128::checked_mul),
            Function::Div if b.0 > 0 => corners(i128::checked_div),
            Function::Rem if b.0 > 0 && a.0 >= 0 => Some((0, a.1.min(b.1 - 1))),
            Function::Rem | Function::Mod if b.0 > 0 => {
                Some((if function == Function::Mod { 0 } else { -(b.1 - 1) }, b.1 - 1))
            }
            Function::Min => Some((a.0.min(b.0), a.1.min(b.1))),
            Function::Max => Some((a.0.max(b.0), a.1.max(b.1))),
            _ => None,
        }
    }
}

/// How much an index grows from one iteration of a counter to the next; none where that differs between iterations.
pub fn stride(expr: &Expr, counter: Var) -> Option<i64> {
    if !expr.mentions(counter) {
        return Some(0);
    }
    match expr {
        Expr::Var(_) => Some(1),
        Expr::Call(ScalarOp::Call(function), args) => match (function, &args[..]) {
            (Function::Add, [a, b]) => stride(a, counter)?.checked_add(stride(b, counter)?),
            (Function::Sub, [a, b]) => stride(a, counter)?.checked_sub(stride(b, counter)?),
            (Function::Mul, [a, b]) => match (a.as_index(), b.as_index()) {
                (_, Some(factor)) => stride(a, counter)?.checked_mul(factor),
                (Some(factor), _) => stride(b, counter)?.checked_mul(factor),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_counters() {
        let (i, j) = (Var(0), Var(1));
        let mut ranges = Ranges::default();
        assert_eq!(ranges.enter(i, &Expr::index(8)), Some((8, 8)));
        let rest = Expr::index(10).minus(i.into()).at_most(Expr::index(4));
        assert_eq!(ranges.enter(j, &rest), Some((3, 4)));
        let index = Expr::from(i).times(Expr::index(4)).plus(j.into());
        assert_eq!(ranges.of(&index), Some((0, 31)));
        assert_eq!(ranges.of(&index.clone().remainder(Expr::index(7))), Some((0, 6)));
        assert_eq!(stride(&index, i), Some(4));
        assert_eq!(stride(&index.over(Expr::index(4)), i), None);
        assert_eq!(ranges.of(&Expr::Var(Var(2))), None);
    }
}
