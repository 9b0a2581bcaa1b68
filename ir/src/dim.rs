//! Symbolic dimensions.
//!
//! A [`Dim`] is an integer polynomial over named symbols, with floor division, modulo, minimum and maximum as opaque
//! atoms. Construction keeps a canonical form (sorted monomials, merged coefficients, folded constants), so two
//! dimensions that are equal by ring arithmetic compare equal. Symbols stand for sizes, so they are never negative.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

/// The name of a dimension that is known only at run time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// A symbol with this name; equal names are the same symbol.
    pub fn new(name: &str) -> Self {
        Symbol(Arc::from(name))
    }

    /// The name as given.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// True where the text form can hold the name: a letter or `_`, then letters, digits and `_`.
    pub fn is_valid_name(name: &str) -> bool {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The inclusive range of values that a symbol may take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Range {
    /// Smallest value.
    pub low: i64,
    /// Largest value; `i64::MAX` where nothing is known.
    pub high: i64,
}

impl Default for Range {
    fn default() -> Self {
        Range { low: 0, high: i64::MAX }
    }
}

/// Something that a polynomial multiplies without looking inside.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Atom {
    /// A named run-time size.
    Symbol(Symbol),
    /// `floor(a / b)`.
    FloorDiv(Dim, Dim),
    /// `a - b * floor(a / b)`.
    Mod(Dim, Dim),
    /// The smaller of the two.
    Min(Dim, Dim),
    /// The larger of the two.
    Max(Dim, Dim),
}

/// Sorted atoms with their powers; the empty monomial is the constant 1.
type Monomial = Vec<(Atom, u32)>;

/// One dimension: a constant or a polynomial over symbols.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A number known at compile time.
    Const(i64),
    /// A polynomial that is not a constant; coefficients are never zero.
    Poly(Arc<BTreeMap<Monomial, i64>>),
}

/// Why a dimension has no value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DimError {
    /// The symbol has no value yet.
    #[error("dimension '{0}' has no value")]
    Unbound(Symbol),
    /// The arithmetic left the 64-bit range.
    #[error("dimension '{0}' overflows 64 bits")]
    Overflow(String),
    /// Division by zero.
    #[error("dimension '{0}' divides by zero")]
    DivisionByZero(String),
}

impl Dim {
    /// The dimension that a symbol stands for.
    pub fn symbol(symbol: &Symbol) -> Dim {
        Dim::atom(Atom::Symbol(symbol.clone()))
    }

    /// The dimension of the symbol with this name.
    pub fn named(name: &str) -> Dim {
        Dim::symbol(&Symbol::new(name))
    }

    fn atom(atom: Atom) -> Dim {
        Dim::Poly(Arc::new(BTreeMap::from([(vec![(atom, 1)], 1)])))
    }

    fn terms(&self) -> BTreeMap<Monomial, i64> {
        match self {
            Dim::Const(0) => BTreeMap::new(),
            Dim::Const(value) => BTreeMap::from([(Vec::new(), *value)]),
            Dim::Poly(terms) => (**terms).clone(),
        }
    }

    fn from_terms(mut terms: BTreeMap<Monomial, i64>) -> Dim {
        terms.retain(|_, coefficient| *coefficient != 0);
        match (terms.len(), terms.first_key_value()) {
            (0, _) => Dim::Const(0),
            (1, Some((monomial, &value))) if monomial.is_empty() => Dim::Const(value),
            _ => Dim::Poly(Arc::new(terms)),
        }
    }

    /// The value where it is known at compile time.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(value) => Some(*value),
            Dim::Poly(_) => None,
        }
    }

    /// The symbol where the dimension is exactly one symbol.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        let Dim::Poly(terms) = self else { return None };
        match terms.first_key_value() {
            Some((monomial, 1)) if terms.len() == 1 => match &monomial[..] {
                [(Atom::Symbol(symbol), 1)] => Some(symbol),
                _ => None,
            },
            _ => None,
        }
    }

    /// True for the constant `value`.
    pub fn is(&self, value: i64) -> bool {
        self.as_const() == Some(value)
    }

    /// `floor(self / divisor)`, simplified where every coefficient divides or both are constants.
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if divisor.is(1) {
            return self.clone();
        }
        if let (Dim::Const(a), Dim::Const(b)) = (self, divisor)
            && *b != 0
        {
            let quotient = a.saturating_div(*b);
            let inexact = a.wrapping_rem(*b) != 0 && (*a < 0) != (*b < 0);
            return Dim::Const(if inexact { quotient - 1 } else { quotient });
        }
        if self == divisor && !divisor.is(0) {
            return Dim::Const(1);
        }
        if let Some(quotient) = self.exact_quotient(divisor) {
            return quotient;
        }
        if let Dim::Const(b) = divisor
            && *b > 1
        {
            // Split off the part that divides: floor((b*p + r) / b) = p + floor(r / b).
            let (mut whole, mut rest) = (BTreeMap::new(), BTreeMap::new());
            for (monomial, coefficient) in self.terms() {
                let quotient = coefficient.div_euclid(*b);
                if coefficient % b == 0 || monomial.is_empty() {
                    whole.insert(monomial.clone(), quotient);
                }
                if coefficient % b != 0 {
                    let rem = if monomial.is_empty() { coefficient.rem_euclid(*b) } else { coefficient };
                    rest.insert(monomial, rem);
                }
            }
            let whole = Dim::from_terms(whole);
            if !whole.is(0) {
                return whole + Dim::from_terms(rest).floor_div(divisor);
            }
        }
        Dim::atom(Atom::FloorDiv(self.clone(), divisor.clone()))
    }

    /// `ceil(self / divisor)` for a positive divisor.
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        (self.clone() + divisor.clone() - Dim::Const(1)).floor_div(divisor)
    }

    /// The quotient where the division is exact by polynomial division through a single monomial.
    pub fn exact_quotient(&self, divisor: &Dim) -> Option<Dim> {
        if divisor.is(0) {
            return None;
        }
        if self == divisor {
            return Some(Dim::Const(1));
        }
        let divisor = divisor.terms();
        let (monomial, &coefficient) = divisor.first_key_value()?;
        if divisor.len() != 1 {
            // (p * d) / d for a sum d: try the quotient that the leading terms suggest.
            return self.quotient_by_sum(&divisor);
        }
        let mut result = BTreeMap::new();
        for (term, value) in self.terms() {
            if value.wrapping_rem(coefficient) != 0 {
                return None;
            }
            result.insert(divide_monomial(&term, monomial)?, value.saturating_div(coefficient));
        }
        Some(Dim::from_terms(result))
    }

    fn quotient_by_sum(&self, divisor: &BTreeMap<Monomial, i64>) -> Option<Dim> {
        let (lead, &lead_coefficient) = divisor.last_key_value()?;
        let mut rest = self.clone();
        let mut quotient = Dim::Const(0);
        // Each step removes the largest term, so the number of terms bounds the work.
        for _ in 0..16 {
            if rest.is(0) {
                return Some(quotient);
            }
            let terms = rest.terms();
            let (monomial, &coefficient) = terms.last_key_value()?;
            if coefficient.wrapping_rem(lead_coefficient) != 0 {
                return None;
            }
            let step = Dim::from_terms(BTreeMap::from([(
                divide_monomial(monomial, lead)?,
                coefficient.saturating_div(lead_coefficient),
            )]));
            rest = rest - step.clone() * Dim::from_terms(divisor.clone());
            quotient = quotient + step;
        }
        None
    }

    /// `self - divisor * floor(self / divisor)`.
    pub fn modulo(&self, divisor: &Dim) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (self, divisor)
            && *b != 0
        {
            let remainder = a.wrapping_rem(*b);
            let other_sign = remainder != 0 && (remainder < 0) != (*b < 0);
            return Dim::Const(if other_sign { remainder + b } else { remainder });
        }
        if self.exact_quotient(divisor).is_some() {
            return Dim::Const(0);
        }
        Dim::atom(Atom::Mod(self.clone(), divisor.clone()))
    }

    /// The smaller of two dimensions.
    pub fn minimum(&self, other: &Dim) -> Dim {
        match (self.clone() - other.clone()).as_const() {
            Some(difference) if difference <= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Dim::atom(Atom::Min(a.clone(), b.clone()))
            }
        }
    }

    /// The larger of two dimensions.
    pub fn maximum(&self, other: &Dim) -> Dim {
        match (self.clone() - other.clone()).as_const() {
            Some(difference) if difference >= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Dim::atom(Atom::Max(a.clone(), b.clone()))
            }
        }
    }

    /// The product of all dimensions; 1 for none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::Const(1), |product, dim| product * dim.clone())
    }

    /// The value under a binding of symbols.
    pub fn evaluate(&self, value_of: &dyn Fn(&Symbol) -> Option<i64>) -> Result<i64, DimError> {
        let overflow = || DimError::Overflow(self.to_string());
        let terms = match self {
            Dim::Const(value) => return Ok(*value),
            Dim::Poly(terms) => terms,
        };
        let mut sum = 0i64;
        for (monomial, &coefficient) in terms.iter() {
            let mut product = coefficient;
            for (atom, power) in monomial {
                let value = atom.evaluate(value_of)?;
                for _ in 0..*power {
                    product = product.checked_mul(value).ok_or_else(overflow)?;
                }
            }
            sum = sum.checked_add(product).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// Replaces symbols; those that `replace` does not know stay.
    pub fn substitute(&self, replace: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        let Dim::Poly(terms) = self else { return self.clone() };
        let mut sum = Dim::Const(0);
        for (monomial, &coefficient) in terms.iter() {
            let mut product = Dim::Const(coefficient);
            for (atom, power) in monomial {
                let value = atom.substitute(replace);
                for _ in 0..*power {
                    product = product * value.clone();
                }
            }
            sum = sum + product;
        }
        sum
    }

    /// Calls `visit` for each symbol that occurs, atoms included.
    pub fn visit_symbols(&self, visit: &mut dyn FnMut(&Symbol)) {
        let Dim::Poly(terms) = self else { return };
        for (atom, _) in terms.keys().flatten() {
            match atom {
                Atom::Symbol(symbol) => visit(symbol),
                Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                    a.visit_symbols(visit);
                    b.visit_symbols(visit);
                }
            }
        }
    }

    /// Bounds of the value when each symbol stays inside its range; saturating.
    pub fn bounds(&self, range_of: &dyn Fn(&Symbol) -> Range) -> Range {
        let terms = match self {
            Dim::Const(value) => return Range { low: *value, high: *value },
            Dim::Poly(terms) => terms,
        };
        let mut sum = Range { low: 0, high: 0 };
        for (monomial, &coefficient) in terms.iter() {
            let mut product = Range { low: coefficient, high: coefficient };
            for (atom, power) in monomial {
                let range = atom.bounds(range_of);
                for _ in 0..*power {
                    product = multiply_ranges(product, range);
                }
            }
            sum = Range {
                low: saturating_sum(sum.low, product.low),
                high: saturating_sum(sum.high, product.high),
            };
        }
        sum
    }

    /// How many monomials the polynomial has.
    pub fn term_count(&self) -> usize {
        match self {
            Dim::Const(_) => 1,
            Dim::Poly(terms) => terms.len(),
        }
    }

    /// The monomials as (coefficient, atoms with powers), for lowering to other expression forms.
    pub fn monomials(&self) -> Vec<(i64, Vec<(Atom, u32)>)> {
        self.terms().into_iter().map(|(monomial, coefficient)| (coefficient, monomial)).collect()
    }
}

/// An infinite bound stays infinite whatever is added to it.
fn saturating_sum(a: i64, b: i64) -> i64 {
    if a == i64::MAX || b == i64::MAX { i64::MAX } else { a.saturating_add(b) }
}

fn multiply_ranges(a: Range, b: Range) -> Range {
    let products = [
        a.low.saturating_mul(b.low),
        a.low.saturating_mul(b.high),
        a.high.saturating_mul(b.low),
        a.high.saturating_mul(b.high),
    ];
    Range {
        low: products.into_iter().fold(i64::MAX, i64::min),
        high: products.into_iter().fold(i64::MIN, i64::max),
    }
}

fn divide_monomial(term: &Monomial, by: &Monomial) -> Option<Monomial> {
    let mut result = term.clone();
    for (atom, power) in by {
        let position = result.iter().position(|(candidate, have)| candidate == atom && have >= power)?;
        result[position].1 -= power;
        if result[position].1 == 0 {
            result.remove(position);
        }
    }
    Some(result)
}

impl Atom {
    fn evaluate(&self, value_of: &dyn Fn(&Symbol) -> Option<i64>) -> Result<i64, DimError> {
        let (a, b) = match self {
            Atom::Symbol(symbol) => return value_of(symbol).ok_or_else(|| DimError::Unbound(symbol.clone())),
            Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                (a.evaluate(value_of)?, b.evaluate(value_of)?)
            }
        };
        let zero = || DimError::DivisionByZero(format!("{self}"));
        Ok(match self {
            Atom::FloorDiv(..) => {
                let quotient = a.checked_div(b).ok_or_else(zero)?;
                if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }
            }
            Atom::Mod(..) => {
                let rem = a.checked_rem(b).ok_or_else(zero)?;
                if rem != 0 && (rem < 0) != (b < 0) { rem + b } else { rem }
            }
            Atom::Min(..) => a.min(b),
            Atom::Max(..) | Atom::Symbol(_) => a.max(b),
        })
    }

    fn substitute(&self, replace: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        match self {
            Atom::Symbol(symbol) => replace(symbol).unwrap_or_else(|| Dim::symbol(symbol)),
            Atom::FloorDiv(a, b) => a.substitute(replace).floor_div(&b.substitute(replace)),
            Atom::Mod(a, b) => a.substitute(replace).modulo(&b.substitute(replace)),
            Atom::Min(a, b) => a.substitute(replace).minimum(&b.substitute(replace)),
            Atom::Max(a, b) => a.substitute(replace).maximum(&b.substitute(replace)),
        }
    }

    fn bounds(&self, range_of: &dyn Fn(&Symbol) -> Range) -> Range {
        let everything = Range { low: i64::MIN, high: i64::MAX };
        match self {
            Atom::Symbol(symbol) => range_of(symbol),
            Atom::FloorDiv(a, b) => match (a.bounds(range_of), b.bounds(range_of)) {
                (a, b) if b.low > 0 => Range {
                    low: a.low.div_euclid(if a.low >= 0 { b.high } else { b.low }),
                    high: match a.high {
                        i64::MAX => i64::MAX,
                        high => high.div_euclid(if high >= 0 { b.low } else { b.high }),
                    },
                },
                _ => everything,
            },
            Atom::Mod(_, b) => match b.bounds(range_of) {
                b if b.low > 0 => Range { low: 0, high: b.high.saturating_sub(1) },
                _ => everything,
            },
            Atom::Min(a, b) => {
                let (a, b) = (a.bounds(range_of), b.bounds(range_of));
                Range { low: a.low.min(b.low), high: a.high.min(b.high) }
            }
            Atom::Max(a, b) => {
                let (a, b) = (a.bounds(range_of), b.bounds(range_of));
                Range { low: a.low.max(b.low), high: a.high.max(b.high) }
            }
        }
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Dim {
        Dim::Const(value)
    }
}

impl From<i32> for Dim {
    fn from(value: i32) -> Dim {
        Dim::Const(i64::from(value))
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Dim {
        Dim::Const(value as i64)
    }
}

impl Add for Dim {
    type Output = Dim;

    fn add(self, other: Dim) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (&self, &other) {
            return Dim::Const(a.saturating_add(*b));
        }
        let mut terms = self.terms();
        for (monomial, coefficient) in other.terms() {
            let entry = terms.entry(monomial).or_insert(0);
            *entry = entry.saturating_add(coefficient);
        }
        Dim::from_terms(terms)
    }
}

impl Neg for Dim {
    type Output = Dim;

    fn neg(self) -> Dim {
        self * Dim::Const(-1)
    }
}

impl Sub for Dim {
    type Output = Dim;

    fn sub(self, other: Dim) -> Dim {
        self + -other
    }
}

impl Mul for Dim {
    type Output = Dim;

    #[allow(
        clippy::suspicious_arithmetic_impl,
        reason = "powers of equal atoms add up when monomials multiply"
    )]
    fn mul(self, other: Dim) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (&self, &other) {
            return Dim::Const(a.saturating_mul(*b));
        }
        let mut terms: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (left, a) in self.terms() {
            for (right, b) in other.terms() {
                let mut powers: BTreeMap<Atom, u32> = left.iter().cloned().collect();
                for (atom, power) in right {
                    *powers.entry(atom).or_insert(0) += power;
                }
                let entry = terms.entry(powers.into_iter().collect()).or_insert(0);
                *entry = entry.saturating_add(a.saturating_mul(b));
            }
        }
        Dim::from_terms(terms)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(symbol) => write!(f, "{symbol}"),
            Atom::FloorDiv(a, b) => write!(f, "floordiv({a}, {b})"),
            Atom::Mod(a, b) => write!(f, "mod({a}, {b})"),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match self {
            Dim::Const(value) => return write!(f, "{value}"),
            Dim::Poly(terms) => terms,
        };
        // The constant sorts first; `n+1` reads better than `1+n`.
        for (position, (monomial, &coefficient)) in terms.iter().rev().enumerate() {
            if position > 0 && coefficient >= 0 {
                write!(f, "+")?;
            }
            if monomial.is_empty() {
                write!(f, "{coefficient}")?;
                continue;
            }
            match coefficient {
                1 => {}
                -1 => write!(f, "-")?,
                _ => write!(f, "{coefficient}*")?,
            }
            let factors = monomial.iter().flat_map(|(atom, power)| (0..*power).map(move |_| atom));
            for (index, atom) in factors.enumerate() {
                if index > 0 {
                    write!(f, "*")?;
                }
                write!(f, "{atom}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests;
