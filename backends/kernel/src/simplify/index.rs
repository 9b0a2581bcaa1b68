//! Index arithmetic in canonical form: expressions to sums and back, quotients, remainders and extrema.

use tcc_ir::scalar::{Function, ScalarOp};

use super::range::Shape;
use super::sum::{self, Atom, Sum};
use super::{OpaqueEntry, Simplifier, rules};
use crate::ir::Expr;

impl Simplifier {
    /// The canonical form of a scalar `i64` expression.
    pub fn sum(&mut self, expr: &Expr) -> Sum {
        match expr {
            Expr::Const(scalar) => Sum::constant(scalar.as_i64()),
            Expr::Dim(number) => Sum::atom(Atom::Dim(*number)),
            Expr::Var(var) => match self.bound.get(var) {
                Some(value) => value.clone(),
                None if self.loop_of(*var).is_some_and(|entry| entry.last == 0) => Sum::constant(0),
                None => Sum::atom(Atom::Var(*var)),
            },
            Expr::Call(ScalarOp::Call(function), args) => match (function, &args[..]) {
                (Function::Add, [a, b]) => {
                    let a = self.sum(a);
                    a.plus(&self.sum(b))
                }
                (Function::Sub, [a, b]) => {
                    let a = self.sum(a);
                    a.minus(&self.sum(b))
                }
                (Function::Neg, [a]) => self.sum(a).scaled(-1),
                (Function::Mul, [a, b]) => {
                    let a = self.sum(a);
                    a.times(&self.sum(b))
                }
                (Function::Div, [a, b]) => {
                    let (a, b) = (self.sum(a), self.sum(b));
                    self.quotient(a, b)
                }
                (Function::Rem, [a, b]) => {
                    let (a, b) = (self.sum(a), self.sum(b));
                    self.remainder(a, b)
                }
                (Function::Mod, [a, b]) => {
                    let (a, b) = (self.sum(a), self.sum(b));
                    self.modulo(a, b)
                }
                (Function::Min, [a, b]) => {
                    let (a, b) = (self.sum(a), self.sum(b));
                    self.extremum(Function::Min, a, b)
                }
                (Function::Max, [a, b]) => {
                    let (a, b) = (self.sum(a), self.sum(b));
                    self.extremum(Function::Max, a, b)
                }
                (Function::Select, [condition, a, b]) => {
                    let condition = self.expr(condition);
                    let (a, b) = (self.sum(a), self.sum(b));
                    match rules::truth(&condition) {
                        Some(true) => a,
                        Some(false) => b,
                        None if a == b => a,
                        None => {
                            let select = condition.choose(self.rebuild(&a), self.rebuild(&b));
                            self.intern(select, Shape::Unknown)
                        }
                    }
                }
                _ => self.other(expr),
            },
            _ => self.other(expr),
        }
    }

    /// An expression that is no index arithmetic, with simplified parts.
    fn other(&mut self, expr: &Expr) -> Sum {
        let simple = match expr {
            Expr::Call(op, args) => {
                let args: Vec<Expr> = args.iter().map(|arg| self.expr(arg)).collect();
                rules::call(*op, args, 1)
            }
            Expr::Load { buffer, index, lanes, valid } => self.load(*buffer, index, *lanes, valid.as_deref()),
            Expr::ReduceLanes(kind, value) => Expr::ReduceLanes(*kind, Box::new(self.expr(value))),
            Expr::Shuffle(a, b, picks) => {
                Expr::Shuffle(Box::new(self.expr(a)), Box::new(self.expr(b)), picks.clone())
            }
            Expr::Splat(value, _) => return self.sum(value),
            Expr::Ramp { base, .. } => return self.sum(base),
            other => other.clone(),
        };
        match simple {
            Expr::Const(scalar) => Sum::constant(scalar.as_i64()),
            simple => self.intern(simple, Shape::Unknown),
        }
    }

    fn intern(&mut self, expr: Expr, shape: Shape) -> Sum {
        let number = match self.interned.get(&expr) {
            Some(number) => *number,
            None => {
                let number = self.opaque.len() as u32;
                self.opaque.push(OpaqueEntry { expr: expr.clone(), shape });
                self.interned.insert(expr, number);
                number
            }
        };
        Sum::atom(Atom::Opaque(number))
    }

    fn quotient(&mut self, a: Sum, b: Sum) -> Sum {
        if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant()) {
            return Sum::constant(if y == 0 { 0 } else { x.wrapping_div(y) });
        }
        if b.as_constant() == Some(1) {
            return a;
        }
        if let Some((q, r)) = a.split(&b)
            && self.is_address(&a)
            && self.is_address(&b)
            && self.interval(&b).low >= 1
        {
            if r == Sum::default() {
                return q;
            }
            if self.never_negative(&q) && self.never_negative(&r) {
                if self.always_less(&r, &b) {
                    return q;
                }
                let rest = self.plain_quotient(r, b);
                return q.plus(&rest);
            }
        }
        self.plain_quotient(a, b)
    }

    /// A quotient that has no whole part, reduced by common factors.
    fn plain_quotient(&mut self, a: Sum, b: Sum) -> Sum {
        let (mut a, mut b) = (a, b);
        if let Some(divisor) = b.as_constant().filter(|divisor| *divisor > 1)
            && self.is_address(&a)
            && self.never_negative(&a)
        {
            // (6 i + 5) / 4 = (3 i + 2) / 2: below the common factor nothing changes the quotient.
            let factor = sum::greatest_common_divisor(a.common_factor(), divisor.unsigned_abs()) as i64;
            if factor > 1 {
                a = Sum {
                    constant: a.constant.div_euclid(factor),
                    terms: a
                        .terms
                        .iter()
                        .map(|(monomial, value)| (monomial.clone(), value / factor))
                        .collect(),
                };
                b = Sum::constant(divisor / factor);
                return self.quotient(a, b);
            }
            // (x / m) / n = x / (m n).
            if let Some(Atom::Opaque(number)) = a.as_atom()
                && let Shape::Quotient(inner, by) = self.opaque[number as usize].shape.clone()
                && let Some(product) =
                    by.as_constant().filter(|by| *by > 0).and_then(|by| by.checked_mul(divisor))
                && self.never_negative(&inner)
            {
                return self.quotient(inner, Sum::constant(product));
            }
        }
        let expr = Expr::call(Function::Div, vec![self.rebuild(&a), self.rebuild(&b)]);
        self.intern(expr, Shape::Quotient(a, b))
    }

    fn remainder(&mut self, a: Sum, b: Sum) -> Sum {
        if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant())
            && y != 0
        {
            return Sum::constant(x.wrapping_rem(y));
        }
        if b.as_constant() == Some(1) {
            return Sum::constant(0);
        }
        let (mut a, b) = (a, b);
        if let Some((q, r)) = a.split(&b)
            && self.is_address(&a)
            && self.is_address(&b)
            && self.interval(&b).low >= 1
        {
            if r == Sum::default() {
                return r;
            }
            if self.never_negative(&q) && self.never_negative(&r) {
                if self.always_less(&r, &b) {
                    return r;
                }
                a = r;
            }
        }
        let expr = Expr::call(Function::Rem, vec![self.rebuild(&a), self.rebuild(&b)]);
        self.intern(expr, Shape::Remainder(a, b))
    }

    /// The remainder with the sign of the divisor.
    fn modulo(&mut self, a: Sum, b: Sum) -> Sum {
        if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant())
            && y > 0
        {
            return Sum::constant(x.rem_euclid(y));
        }
        if self.never_negative(&a) && self.is_address(&b) && self.interval(&b).low >= 0 {
            return self.remainder(a, b);
        }
        let expr = Expr::call(Function::Mod, vec![self.rebuild(&a), self.rebuild(&b)]);
        self.intern(expr, Shape::Unknown)
    }

    fn extremum(&mut self, function: Function, a: Sum, b: Sum) -> Sum {
        let (a, b) = if function == Function::Min { (a, b) } else { (b, a) };
        // From here on: a minimum takes a where a <= b, a maximum takes b.
        if a == b {
            return a;
        }
        if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant()) {
            return Sum::constant(if function == Function::Min { x.min(y) } else { x.max(y) });
        }
        let difference = a.clone().minus(&b);
        // Where data takes part, the difference could have wrapped.
        let address = self.is_address(&a) && self.is_address(&b);
        if address && self.never_positive(&difference) {
            return if function == Function::Min { a } else { b };
        }
        if address && self.never_negative(&difference) {
            return if function == Function::Min { b } else { a };
        }
        let expr = Expr::call(function, vec![self.rebuild(&a), self.rebuild(&b)]);
        let shape = if function == Function::Min { Shape::Min(a, b) } else { Shape::Max(a, b) };
        self.intern(expr, shape)
    }

    /// How deep in the loop nest an atom's value changes.
    fn depth(&self, atom: Atom) -> usize {
        match atom {
            Atom::Dim(_) => 0,
            Atom::Var(var) => self.open.get(&var).map_or(self.loops.len(), |position| position + 1),
            Atom::Opaque(number) => {
                let mut depth = 0;
                self.opaque[number as usize].expr.visit(&mut |part| {
                    depth = depth.max(match part {
                        Expr::Var(var) => self.depth(Atom::Var(*var)),
                        Expr::Load { .. } => self.loops.len(),
                        _ => 0,
                    });
                });
                depth
            }
        }
    }

    /// The expression of a sum: outer terms first, so that what a loop does not change is a common part, constants last.
    pub fn rebuild(&self, sum: &Sum) -> Expr {
        let mut terms: Vec<(usize, &(sum::Monomial, i64))> = sum
            .terms
            .iter()
            .map(|term| (term.0.iter().map(|atom| self.depth(*atom)).max().unwrap_or(0), term))
            .collect();
        // A term to subtract from comes first.
        terms.sort_by_key(|(depth, _)| *depth);
        if let Some(position) = terms.iter().position(|(_, (_, coefficient))| *coefficient > 0) {
            terms[..=position].rotate_right(1);
        }
        let mut total: Option<Expr> = None;
        for (_, (monomial, coefficient)) in terms {
            let mut product: Option<Expr> = None;
            for atom in monomial {
                let factor = match atom {
                    Atom::Dim(number) => Expr::Dim(*number),
                    Atom::Var(var) => Expr::Var(*var),
                    Atom::Opaque(number) => self.opaque[*number as usize].expr.clone(),
                };
                product = Some(match product {
                    Some(product) => Expr::call(Function::Mul, vec![product, factor]),
                    None => factor,
                });
            }
            let product = product.unwrap_or_else(|| Expr::index(1));
            let scaled = |factor: i64| product.clone().times(Expr::index(factor));
            total = Some(match total {
                None => scaled(*coefficient),
                Some(total) if *coefficient < 0 && *coefficient != i64::MIN => {
                    total.minus(scaled(-coefficient))
                }
                Some(total) => total.plus(scaled(*coefficient)),
            });
        }
        match total {
            None => Expr::index(sum.constant),
            Some(total) if sum.constant < 0 && sum.constant != i64::MIN => {
                total.minus(Expr::index(-sum.constant))
            }
            Some(total) => total.plus(Expr::index(sum.constant)),
        }
    }
}
