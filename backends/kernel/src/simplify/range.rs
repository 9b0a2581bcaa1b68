//! What is known about the values of index expressions: ranges of loop counters, dimensions and interned expressions.

use super::Simplifier;
use super::sum::{Atom, Monomial, Sum};
use crate::ir::Var;

/// Beyond every `i64`, far from overflow of sums of products.
const INFINITE: i128 = 1 << 100;

/// Proof attempts stop after so many substitutions.
const PROOF_STEPS: u32 = 64;

/// Inclusive bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval {
    /// Least value.
    pub low: i128,
    /// Largest value.
    pub high: i128,
}

impl Interval {
    /// Nothing known.
    pub const ANY: Interval = Interval { low: -INFINITE, high: INFINITE };

    fn point(value: i64) -> Interval {
        Interval { low: value.into(), high: value.into() }
    }

    fn clamped(low: i128, high: i128) -> Interval {
        Interval { low: low.clamp(-INFINITE, INFINITE), high: high.clamp(-INFINITE, INFINITE) }
    }

    fn plus(self, other: Interval) -> Interval {
        Interval::clamped(self.low + other.low, self.high + other.high)
    }

    fn times(self, other: Interval) -> Interval {
        let product = |a: i128, b: i128| a.saturating_mul(b).clamp(-INFINITE, INFINITE);
        let corners = [
            product(self.low, other.low),
            product(self.low, other.high),
            product(self.high, other.low),
            product(self.high, other.high),
        ];
        Interval {
            low: corners.into_iter().fold(INFINITE, i128::min),
            high: corners.into_iter().fold(-INFINITE, i128::max),
        }
    }
}

/// How an interned expression is made up, as far as its range goes.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Shape {
    /// The smaller of two.
    Min(Sum, Sum),
    /// The larger of two.
    Max(Sum, Sum),
    /// A truncating quotient.
    Quotient(Sum, Sum),
    /// Its remainder.
    Remainder(Sum, Sum),
    /// Any number: memory contents, user arithmetic that may wrap.
    Unknown,
}

impl Simplifier {
    /// Bounds of a sum.
    pub fn interval(&self, sum: &Sum) -> Interval {
        sum.terms.iter().fold(Interval::point(sum.constant), |total, (monomial, coefficient)| {
            total.plus(self.product_interval(monomial).times(Interval::point(*coefficient)))
        })
    }

    fn product_interval(&self, monomial: &Monomial) -> Interval {
        monomial.iter().fold(Interval::point(1), |product, atom| product.times(self.atom_interval(*atom)))
    }

    fn atom_interval(&self, atom: Atom) -> Interval {
        match atom {
            Atom::Dim(number) => Interval { low: self.dim_low(number).into(), high: INFINITE },
            Atom::Var(var) => match self.loop_of(var) {
                Some(entry) => Interval { low: 0, high: entry.last },
                None => Interval::ANY,
            },
            Atom::Opaque(number) => self.opaque_interval(number),
        }
    }

    fn opaque_interval(&self, number: u32) -> Interval {
        match &self.opaque[number as usize].shape {
            Shape::Min(a, b) => {
                let (a, b) = (self.interval(a), self.interval(b));
                Interval { low: a.low.min(b.low), high: a.high.min(b.high) }
            }
            Shape::Max(a, b) => {
                let (a, b) = (self.interval(a), self.interval(b));
                Interval { low: a.low.max(b.low), high: a.high.max(b.high) }
            }
            Shape::Quotient(a, b) => {
                let (a, b) = (self.interval(a), self.interval(b));
                if a.low >= 0 && b.low >= 1 {
                    let high = if a.high >= INFINITE { INFINITE } else { a.high / b.low };
                    Interval { low: a.low / b.high, high }
                } else {
                    Interval::ANY
                }
            }
            Shape::Remainder(a, b) => {
                let (a, b) = (self.interval(a), self.interval(b));
                if a.low >= 0 && b.low >= 1 {
                    Interval { low: 0, high: a.high.min(b.high - 1) }
                } else {
                    Interval::ANY
                }
            }
            Shape::Unknown => Interval::ANY,
        }
    }

    /// True where no value of the sum comes from data: index arithmetic does not overflow, data arithmetic may wrap.
    pub fn is_address(&self, sum: &Sum) -> bool {
        sum.terms.iter().flat_map(|(monomial, _)| monomial).all(|atom| match atom {
            Atom::Dim(_) => true,
            Atom::Var(var) => self.loop_of(*var).is_some(),
            Atom::Opaque(number) => match &self.opaque[*number as usize].shape {
                Shape::Min(a, b) | Shape::Max(a, b) | Shape::Quotient(a, b) | Shape::Remainder(a, b) => {
                    self.is_address(a) && self.is_address(b)
                }
                Shape::Unknown => false,
            },
        })
    }

    /// True where `sum <= 0` is certain.
    pub fn never_positive(&self, sum: &Sum) -> bool {
        let mut steps = PROOF_STEPS;
        self.is_address(sum) && self.bounded_by_zero(sum, &mut steps)
    }

    /// True where `sum >= 0` is certain.
    pub fn never_negative(&self, sum: &Sum) -> bool {
        self.never_positive(&sum.scaled(-1))
    }

    /// True where `a < b` is certain.
    pub fn always_less(&self, a: &Sum, b: &Sum) -> bool {
        self.never_positive(&a.clone().minus(b).plus(&Sum::constant(1)))
    }

    /// Replaces what varies by its bounds, innermost counters first, until plain intervals decide.
    fn bounded_by_zero(&self, sum: &Sum, steps: &mut u32) -> bool {
        if self.interval(sum).high <= 0 {
            return true;
        }
        // At most 0 plus what is at most 0.
        for fact in &self.facts {
            if sum.clone().minus(fact).as_constant().is_some_and(|rest| rest <= 0) {
                return true;
            }
        }
        if *steps == 0 || sum.terms.is_empty() {
            return false;
        }
        *steps -= 1;
        // An interned minimum, maximum or quotient that occurs alone in its term.
        for (monomial, coefficient) in &sum.terms {
            let [Atom::Opaque(number)] = monomial[..] else { continue };
            let atom = Atom::Opaque(number);
            let (_, rest) = sum.partition(atom);
            let with = |bound: &Sum, factor: i64| rest.clone().plus_scaled(bound, factor);
            match &self.opaque[number as usize].shape {
                Shape::Min(a, b) if *coefficient > 0 => {
                    if self.bounded_by_zero(&with(a, *coefficient), steps)
                        || self.bounded_by_zero(&with(b, *coefficient), steps)
                    {
                        return true;
                    }
                }
                Shape::Max(a, b) if *coefficient < 0 => {
                    if self.bounded_by_zero(&with(a, *coefficient), steps)
                        || self.bounded_by_zero(&with(b, *coefficient), steps)
                    {
                        return true;
                    }
                }
                Shape::Min(a, b) | Shape::Max(a, b) => {
                    return self.bounded_by_zero(&with(a, *coefficient), steps)
                        && self.bounded_by_zero(&with(b, *coefficient), steps);
                }
                Shape::Quotient(a, b) => {
                    // b * (a / b) lies between a - b + 1 and a.
                    let Some(divisor) = b.as_constant().filter(|divisor| *divisor > 0) else { continue };
                    if coefficient % divisor != 0 || self.interval(a).low < 0 {
                        continue;
                    }
                    let bound = if *coefficient > 0 {
                        a.clone()
                    } else {
                        a.clone().plus(&Sum::constant(1 - divisor))
                    };
                    if self.bounded_by_zero(&with(&bound, coefficient / divisor), steps) {
                        return true;
                    }
                }
                Shape::Remainder(..) | Shape::Unknown => {}
            }
        }
        let Some((var, extent)) = self.innermost(sum) else { return false };
        let atom = Atom::Var(var);
        let (with, rest) = sum.partition(atom);
        // with = var * slope; linear in the counter, so one of the two ends is the largest.
        let Some((slope, remainder)) = with.split(&Sum::atom(atom)) else { return false };
        if remainder != Sum::default() || slope.mentions(atom) {
            return false;
        }
        let slope_range = self.interval(&slope);
        let last = extent.plus(&Sum::constant(-1));
        let at_last = rest.clone().plus(&slope.times(&last));
        (slope_range.low >= 0 || self.bounded_by_zero(&rest, steps))
            && (slope_range.high <= 0 || self.bounded_by_zero(&at_last, steps))
    }

    /// The innermost loop counter that occurs, with its extent.
    fn innermost(&self, sum: &Sum) -> Option<(Var, Sum)> {
        self.loops
            .iter()
            .rev()
            .find(|entry| sum.mentions(Atom::Var(entry.var)))
            .map(|entry| (entry.var, entry.extent.clone()))
    }
}
