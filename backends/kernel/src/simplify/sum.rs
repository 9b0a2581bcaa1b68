//! Sums of products: the canonical form of index arithmetic.
//!
//! Arithmetic wraps like `i64`, so that two expressions with the same canonical form are equal for all values.

use smallvec::SmallVec;

use crate::ir::Var;

/// A factor that the canonical form does not look into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Atom {
    /// A run-time dimension.
    Dim(u32),
    /// A loop counter or index variable.
    Var(Var),
    /// An interned expression.
    Opaque(u32),
}

/// A product of atoms, sorted.
pub type Monomial = SmallVec<[Atom; 3]>;

/// A constant plus products with coefficients; sorted, without zero coefficients.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sum {
    /// The part without atoms.
    pub constant: i64,
    /// Products and their coefficients.
    pub terms: SmallVec<[(Monomial, i64); 4]>,
}

impl Sum {
    /// A number.
    pub fn constant(value: i64) -> Sum {
        Sum { constant: value, terms: SmallVec::new() }
    }

    /// One atom.
    pub fn atom(atom: Atom) -> Sum {
        Sum { constant: 0, terms: SmallVec::from_iter([(SmallVec::from_iter([atom]), 1)]) }
    }

    /// The value, if no atom occurs.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// The atom, if the sum is just that.
    pub fn as_atom(&self) -> Option<Atom> {
        match (&self.terms[..], self.constant) {
            ([(monomial, 1)], 0) if monomial.len() == 1 => Some(monomial[0]),
            _ => None,
        }
    }

    /// Adds one product.
    pub fn add_term(&mut self, monomial: Monomial, coefficient: i64) {
        if monomial.is_empty() {
            self.constant = self.constant.wrapping_add(coefficient);
            return;
        }
        match self.terms.binary_search_by(|(have, _)| have.cmp(&monomial)) {
            Ok(position) => {
                let sum = self.terms[position].1.wrapping_add(coefficient);
                if sum == 0 {
                    self.terms.remove(position);
                } else {
                    self.terms[position].1 = sum;
                }
            }
            Err(position) if coefficient != 0 => self.terms.insert(position, (monomial, coefficient)),
            Err(_) => {}
        }
    }

    /// `self + other * factor`.
    pub fn plus_scaled(mut self, other: &Sum, factor: i64) -> Sum {
        self.constant = self.constant.wrapping_add(other.constant.wrapping_mul(factor));
        for (monomial, coefficient) in &other.terms {
            self.add_term(monomial.clone(), coefficient.wrapping_mul(factor));
        }
        self
    }

    /// Sum of two.
    pub fn plus(self, other: &Sum) -> Sum {
        self.plus_scaled(other, 1)
    }

    /// Difference of two.
    pub fn minus(self, other: &Sum) -> Sum {
        self.plus_scaled(other, -1)
    }

    /// Product with a number.
    pub fn scaled(&self, factor: i64) -> Sum {
        Sum::default().plus_scaled(self, factor)
    }

    /// Product of two.
    pub fn times(&self, other: &Sum) -> Sum {
        let mut product = self.scaled(other.constant);
        for (right, b) in &other.terms {
            product.add_term(right.clone(), self.constant.wrapping_mul(*b));
            for (left, a) in &self.terms {
                product.add_term(multiplied(left, right), a.wrapping_mul(*b));
            }
        }
        product
    }

    /// Splits into the terms that contain the atom and the others.
    pub fn partition(&self, atom: Atom) -> (Sum, Sum) {
        let (mut with, mut without) = (Sum::default(), Sum::constant(self.constant));
        for (monomial, coefficient) in &self.terms {
            let side = if monomial.contains(&atom) { &mut with } else { &mut without };
            side.terms.push((monomial.clone(), *coefficient));
        }
        (with, without)
    }

    /// `c` and the rest where this sum is `c * atom + rest` with a constant `c` and a rest without the atom.
    pub fn affine_in(&self, atom: Atom) -> Option<(i64, Sum)> {
        let (with, without) = self.partition(atom);
        match &with.terms[..] {
            [] => Some((0, without)),
            [(monomial, coefficient)] if monomial.len() == 1 => Some((*coefficient, without)),
            _ => None,
        }
    }

    /// True where the atom is a factor of some term.
    pub fn mentions(&self, atom: Atom) -> bool {
        self.terms.iter().any(|(monomial, _)| monomial.contains(&atom))
    }

    /// `(q, r)` with `self = q * divisor + r`, where the terms of `q * divisor` are those that the divisor divides; the
    /// divisor is a positive constant or a single product.
    pub fn split(&self, divisor: &Sum) -> Option<(Sum, Sum)> {
        let (by, coefficient) = match (&divisor.terms[..], divisor.constant) {
            ([], constant) if constant > 0 => (Monomial::new(), constant),
            ([(monomial, coefficient)], 0) if *coefficient > 0 => (monomial.clone(), *coefficient),
            _ => return None,
        };
        let (mut quotient, mut rest) = (Sum::default(), Sum::default());
        for (monomial, value) in &self.terms {
            match divided(monomial, &by) {
                Some(left) if value % coefficient == 0 => quotient.add_term(left, value / coefficient),
                _ => rest.add_term(monomial.clone(), *value),
            }
        }
        if by.is_empty() {
            quotient.constant = quotient.constant.wrapping_add(self.constant.div_euclid(coefficient));
            rest.constant = rest.constant.wrapping_add(self.constant.rem_euclid(coefficient));
        } else {
            rest.constant = rest.constant.wrapping_add(self.constant);
        }
        Some((quotient, rest))
    }

    /// Greatest common divisor of the coefficients of all terms; 0 without terms.
    pub fn common_factor(&self) -> u64 {
        self.terms
            .iter()
            .fold(0, |factor, (_, coefficient)| greatest_common_divisor(factor, coefficient.unsigned_abs()))
    }
}

/// Greatest common divisor; of 0 and x it is x.
pub fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn multiplied(a: &Monomial, b: &Monomial) -> Monomial {
    let mut product: Monomial = a.iter().chain(b).copied().collect();
    product.sort_unstable();
    product
}

fn divided(a: &Monomial, by: &Monomial) -> Option<Monomial> {
    let mut rest = a.clone();
    for atom in by {
        let position = rest.iter().position(|candidate| candidate == atom)?;
        rest.remove(position);
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Sum {
        Sum::atom(Atom::Dim(0))
    }

    fn y() -> Sum {
        Sum::atom(Atom::Dim(1))
    }

    #[test]
    fn products_expand_and_cancel() {
        let a = x().plus(&Sum::constant(1)).times(&x().minus(&Sum::constant(1)));
        assert_eq!(a, x().times(&x()).minus(&Sum::constant(1)));
        assert_eq!(a.clone().minus(&a), Sum::default());
    }

    #[test]
    fn splitting_keeps_the_value() {
        let sum = x().scaled(16).plus(&y().scaled(4)).plus(&Sum::constant(-3));
        let by = Sum::constant(8);
        let (quotient, rest) = sum.split(&by).unwrap();
        assert_eq!(quotient.times(&by).plus(&rest), sum);
        assert_eq!(rest, y().scaled(4).plus(&Sum::constant(5)));
        let (quotient, rest) = x().times(&y()).plus(&x()).split(&y()).unwrap();
        assert_eq!((quotient, rest), (x(), x()));
    }
}
