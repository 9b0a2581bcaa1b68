//! Expressions over symbolic dimensions, evaluated when a session learns the shapes of its inputs.
//!
//! Division and modulo round towards negative infinity, so that `a == b * FloorDiv(a, b) + Mod(a, b)` holds for
//! every sign. Overflow, division by zero and a symbol without a value are errors, never wrapped numbers.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Position of a symbol in [`Manifest::symbols`](crate::manifest::Manifest::symbols).
pub type SymbolId = u32;

/// An integer expression over symbols.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DimExpr {
    /// A constant.
    Const(i64),
    /// The value of a symbol.
    Symbol(SymbolId),
    /// Sum.
    Add(Box<DimExpr>, Box<DimExpr>),
    /// Difference.
    Sub(Box<DimExpr>, Box<DimExpr>),
    /// Product.
    Mul(Box<DimExpr>, Box<DimExpr>),
    /// Quotient, rounded towards negative infinity.
    FloorDiv(Box<DimExpr>, Box<DimExpr>),
    /// Quotient, rounded towards positive infinity.
    CeilDiv(Box<DimExpr>, Box<DimExpr>),
    /// Remainder of `FloorDiv`: has the sign of the divisor.
    Mod(Box<DimExpr>, Box<DimExpr>),
    /// The smaller.
    Min(Box<DimExpr>, Box<DimExpr>),
    /// The larger.
    Max(Box<DimExpr>, Box<DimExpr>),
}

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DimError {
    /// The result does not fit 64 bits.
    #[error("the value overflows 64 bits")]
    Overflow,
    /// A divisor is zero.
    #[error("a divisor is zero")]
    DivisionByZero,
    /// A symbol that no input and no step has given a value yet.
    #[error("symbol {0} has no value yet")]
    Unbound(SymbolId),
}

/// Values of the symbols of a manifest, by position; `None` where a value is not known yet.
pub type SymbolValues = [Option<i64>];

impl DimExpr {
    /// `self + other`.
    #[allow(clippy::should_implement_trait)] // The operands are taken by value and nothing is folded.
    pub fn add(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::Add(Box::new(self), Box::new(other.into()))
    }

    /// `self - other`.
    #[allow(clippy::should_implement_trait)]
    pub fn sub(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::Sub(Box::new(self), Box::new(other.into()))
    }

    /// `self * other`.
    #[allow(clippy::should_implement_trait)]
    pub fn mul(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::Mul(Box::new(self), Box::new(other.into()))
    }

    /// `floor(self / other)`.
    pub fn floor_div(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::FloorDiv(Box::new(self), Box::new(other.into()))
    }

    /// `ceil(self / other)`.
    pub fn ceil_div(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::CeilDiv(Box::new(self), Box::new(other.into()))
    }

    /// `self - other * floor(self / other)`.
    pub fn modulo(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::Mod(Box::new(self), Box::new(other.into()))
    }

    /// The smaller of the two.
    pub fn min(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::Min(Box::new(self), Box::new(other.into()))
    }

    /// The larger of the two.
    pub fn max(self, other: impl Into<DimExpr>) -> Self {
        DimExpr::Max(Box::new(self), Box::new(other.into()))
    }

    /// The value under `symbols`; allocates nothing.
    pub fn evaluate(&self, symbols: &SymbolValues) -> Result<i64, DimError> {
        let both = |a: &DimExpr, b: &DimExpr| Ok((a.evaluate(symbols)?, b.evaluate(symbols)?));
        match self {
            DimExpr::Const(value) => Ok(*value),
            DimExpr::Symbol(id) => symbols.get(*id as usize).copied().flatten().ok_or(DimError::Unbound(*id)),
            DimExpr::Add(a, b) => both(a, b).and_then(|(a, b)| a.checked_add(b).ok_or(DimError::Overflow)),
            DimExpr::Sub(a, b) => both(a, b).and_then(|(a, b)| a.checked_sub(b).ok_or(DimError::Overflow)),
            DimExpr::Mul(a, b) => both(a, b).and_then(|(a, b)| a.checked_mul(b).ok_or(DimError::Overflow)),
            DimExpr::FloorDiv(a, b) => both(a, b).and_then(|(a, b)| floor_div(a, b)),
            DimExpr::CeilDiv(a, b) => both(a, b).and_then(|(a, b)| ceil_div(a, b)),
            DimExpr::Mod(a, b) => both(a, b).and_then(|(a, b)| modulo(a, b)),
            DimExpr::Min(a, b) => both(a, b).map(|(a, b)| a.min(b)),
            DimExpr::Max(a, b) => both(a, b).map(|(a, b)| a.max(b)),
        }
    }

    /// Bounds of the value where each symbol is anywhere in its interval; allocates nothing. Bounds beyond 64 bits are
    /// the largest and smallest numbers.
    ///
    /// # Errors
    /// A symbol has no interval, or a divisor can be zero.
    pub fn interval(&self, symbols: &[Option<Interval>]) -> Result<Interval, DimError> {
        let both = |a: &DimExpr, b: &DimExpr| Ok((a.interval(symbols)?, b.interval(symbols)?));
        match self {
            DimExpr::Const(value) => Ok(Interval::of(*value)),
            DimExpr::Symbol(id) => symbols.get(*id as usize).copied().flatten().ok_or(DimError::Unbound(*id)),
            DimExpr::Add(a, b) => both(a, b).map(|(a, b)| Interval {
                low: a.low.saturating_add(b.low),
                high: a.high.saturating_add(b.high),
            }),
            DimExpr::Sub(a, b) => both(a, b).map(|(a, b)| Interval {
                low: a.low.saturating_sub(b.high),
                high: a.high.saturating_sub(b.low),
            }),
            DimExpr::Mul(a, b) => both(a, b).map(|(a, b)| a.corners(b, i64::saturating_mul)),
            DimExpr::FloorDiv(a, b) => both(a, b).and_then(|(a, b)| a.quotients(b, floor_div)),
            DimExpr::CeilDiv(a, b) => both(a, b).and_then(|(a, b)| a.quotients(b, ceil_div)),
            DimExpr::Mod(a, b) => both(a, b).and_then(|(a, b)| {
                if a.low == a.high && b.low == b.high {
                    return Ok(Interval::of(modulo(a.low, b.low)?));
                }
                if b.low <= 0 && b.high >= 0 {
                    return Err(DimError::DivisionByZero);
                }
                Ok(Interval { low: b.low.saturating_add(1).min(0), high: b.high.saturating_sub(1).max(0) })
            }),
            DimExpr::Min(a, b) => {
                both(a, b).map(|(a, b)| Interval { low: a.low.min(b.low), high: a.high.min(b.high) })
            }
            DimExpr::Max(a, b) => {
                both(a, b).map(|(a, b)| Interval { low: a.low.max(b.low), high: a.high.max(b.high) })
            }
        }
    }

    /// The value of an expression without symbols, `None` when a symbol occurs or the value is an error.
    pub fn as_const(&self) -> Option<i64> {
        self.evaluate(&[]).ok()
    }

    /// Calls `visit` with every symbol that occurs, as often as it occurs.
    pub fn for_each_symbol(&self, visit: &mut impl FnMut(SymbolId)) {
        match self {
            DimExpr::Const(_) => {}
            DimExpr::Symbol(id) => visit(*id),
            DimExpr::Add(a, b)
            | DimExpr::Sub(a, b)
            | DimExpr::Mul(a, b)
            | DimExpr::FloorDiv(a, b)
            | DimExpr::CeilDiv(a, b)
            | DimExpr::Mod(a, b)
            | DimExpr::Min(a, b)
            | DimExpr::Max(a, b) => {
                a.for_each_symbol(visit);
                b.for_each_symbol(visit);
            }
        }
    }

    /// Whether any symbol occurs for which `matches` holds.
    pub fn any_symbol(&self, mut matches: impl FnMut(SymbolId) -> bool) -> bool {
        let mut found = false;
        self.for_each_symbol(&mut |id| found |= matches(id));
        found
    }
}

/// All integers from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The smallest.
    pub low: i64,
    /// The largest.
    pub high: i64,
}

impl Interval {
    /// One number.
    pub const fn of(value: i64) -> Interval {
        Interval { low: value, high: value }
    }

    /// Bounds of an operation that takes its extremes at the ends of the operands.
    fn corners(self, other: Interval, of: impl Fn(i64, i64) -> i64) -> Interval {
        let ends = [
            of(self.low, other.low),
            of(self.low, other.high),
            of(self.high, other.low),
            of(self.high, other.high),
        ];
        let (mut low, mut high) = (ends[0], ends[0]);
        for end in ends {
            (low, high) = (low.min(end), high.max(end));
        }
        Interval { low, high }
    }

    /// Bounds of rounded quotients. The only quotient beyond 64 bits is 2^63.
    fn quotients(
        self,
        divisor: Interval,
        of: impl Fn(i64, i64) -> Result<i64, DimError>,
    ) -> Result<Interval, DimError> {
        if divisor.low <= 0 && divisor.high >= 0 {
            return Err(DimError::DivisionByZero);
        }
        Ok(self.corners(divisor, |a, b| of(a, b).unwrap_or(i64::MAX)))
    }
}

/// Quotient rounded towards negative infinity.
fn floor_div(a: i64, b: i64) -> Result<i64, DimError> {
    if b == 0 {
        return Err(DimError::DivisionByZero);
    }
    let quotient = a.checked_div(b).ok_or(DimError::Overflow)?;
    Ok(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}

/// Quotient rounded towards positive infinity.
fn ceil_div(a: i64, b: i64) -> Result<i64, DimError> {
    let floor = floor_div(a, b)?;
    Ok(if modulo(a, b)? == 0 { floor } else { floor + 1 })
}

/// Remainder with the sign of the divisor.
fn modulo(a: i64, b: i64) -> Result<i64, DimError> {
    if b == 0 {
        return Err(DimError::DivisionByZero);
    }
    let remainder = a.checked_rem(b).unwrap_or(0);
    Ok(if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder })
}

impl From<i64> for DimExpr {
    fn from(value: i64) -> Self {
        DimExpr::Const(value)
    }
}

impl fmt::Display for DimExpr {
    /// Prints symbols as `s0`; see [`Manifest::describe_dim`](crate::manifest::Manifest::describe_dim) for names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &|id, f| write!(f, "s{id}"))
    }
}

impl DimExpr {
    /// Writes the expression with symbols spelt by `symbol`.
    pub fn write<W: fmt::Write>(
        &self,
        out: &mut W,
        symbol: &impl Fn(SymbolId, &mut W) -> fmt::Result,
    ) -> fmt::Result {
        let (open, a, separator, b) = match self {
            DimExpr::Const(value) => return write!(out, "{value}"),
            DimExpr::Symbol(id) => return symbol(*id, out),
            DimExpr::Add(a, b) => ("(", a, " + ", b),
            DimExpr::Sub(a, b) => ("(", a, " - ", b),
            DimExpr::Mul(a, b) => ("(", a, " * ", b),
            DimExpr::FloorDiv(a, b) => ("(", a, " / ", b),
            DimExpr::CeilDiv(a, b) => ("ceildiv(", a, ", ", b),
            DimExpr::Mod(a, b) => ("(", a, " mod ", b),
            DimExpr::Min(a, b) => ("min(", a, ", ", b),
            DimExpr::Max(a, b) => ("max(", a, ", ", b),
        };
        out.write_str(open)?;
        a.write(out, symbol)?;
        out.write_str(separator)?;
        b.write(out, symbol)?;
        out.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(value: i64) -> DimExpr {
        DimExpr::Const(value)
    }

    #[test]
    fn division_rounds_as_documented_for_every_sign() {
        for (a, b) in [(7, 2), (-7, 2), (7, -2), (-7, -2), (6, 3), (0, 5), (-6, 3), (i64::MIN, 1)] {
            let floor = constant(a).floor_div(b).as_const().unwrap();
            let ceil = constant(a).ceil_div(b).as_const().unwrap();
            let rest = constant(a).modulo(b).as_const().unwrap();
            assert_eq!(
                i128::from(floor),
                (i128::from(a) * if b < 0 { -1 } else { 1 }).div_euclid(b.abs().into())
            );
            assert_eq!(b * floor + rest, a);
            assert_eq!(ceil, if rest == 0 { floor } else { floor + 1 });
        }
    }

    #[test]
    fn errors_are_reported_and_never_wrapped() {
        assert_eq!(constant(i64::MAX).add(1).evaluate(&[]), Err(DimError::Overflow));
        assert_eq!(constant(i64::MIN).floor_div(-1).evaluate(&[]), Err(DimError::Overflow));
        assert_eq!(constant(i64::MIN).modulo(-1).evaluate(&[]), Ok(0));
        assert_eq!(constant(1).modulo(0).evaluate(&[]), Err(DimError::DivisionByZero));
        assert_eq!(DimExpr::Symbol(1).evaluate(&[Some(1), None]), Err(DimError::Unbound(1)));
        assert_eq!(DimExpr::Symbol(9).evaluate(&[Some(1)]), Err(DimError::Unbound(9)));
    }

    #[test]
    fn prints_as_written_in_textbooks() {
        let expression = DimExpr::Symbol(0).add(3).mul(DimExpr::Symbol(1)).ceil_div(4).max(1);
        assert_eq!(expression.to_string(), "max(ceildiv(((s0 + 3) * s1), 4), 1)");
    }

    #[test]
    fn intervals_hold_every_value() {
        let (x, y) = (|| DimExpr::Symbol(0), || DimExpr::Symbol(1));
        let expressions = [
            x().add(y()),
            x().sub(y()),
            x().mul(y()),
            x().floor_div(y()),
            x().ceil_div(y()),
            x().modulo(y()),
            x().min(y()),
            x().max(y()),
            x().sub(y()).mul(x()).floor_div(3),
        ];
        for (low, high) in [(-4, 4), (0, 7), (5, 5), (-3, -2)] {
            for (from, to) in [(1, 6), (-5, -2), (3, 3)] {
                let symbols = [Some(Interval { low, high }), Some(Interval { low: from, high: to })];
                for expression in &expressions {
                    let interval = expression.interval(&symbols).unwrap();
                    for a in low..=high {
                        for b in from..=to {
                            let value = expression.evaluate(&[Some(a), Some(b)]).unwrap();
                            assert!(
                                interval.low <= value && value <= interval.high,
                                "{expression:?} at {a}, {b} is {value}, outside of {interval:?}"
                            );
                            let point = expression.interval(&[Some(Interval::of(a)), Some(Interval::of(b))]);
                            assert_eq!(point, Ok(Interval::of(value)), "{expression:?} at {a}, {b}");
                        }
                    }
                }
            }
        }
        let zero = Interval { low: -1, high: 1 };
        assert_eq!(x().floor_div(y()).interval(&[Some(zero), Some(zero)]), Err(DimError::DivisionByZero));
        assert_eq!(x().interval(&[None]), Err(DimError::Unbound(0)));
    }
}
