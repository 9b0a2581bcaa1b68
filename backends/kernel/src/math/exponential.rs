//! Exponential functions.
//!
//! `e^x = 2^k e^r` with `k` the integer nearest to `x / ln 2` and `|r| <= ln 2 / 2`; there `e^r = 1 + r + r^2 P(r)`.

use super::Code;
use crate::ir::Expr;

/// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
pub(super) const LN2_SINGLE: (f64, f64) = (0.693_359_375, -2.121_944_4e-4);
/// As [`LN2_SINGLE`], for f64.
pub(super) const LN2_DOUBLE: (f64, f64) =
    (f64::from_bits(0x3fe6_2e42_fee0_0000), 1.908_214_929_270_587_7e-10);

const POLYNOMIAL_SINGLE: [f64; 5] = [0.49999994, 0.166665196, 0.0416684002, 0.00836885069, 0.00138143601];
const POLYNOMIAL_DOUBLE: [f64; 10] = [
    0.5000000000000011,
    0.16666666666666402,
    0.04166666666652844,
    0.008333333333499532,
    0.001388888894418544,
    0.00019841269497601814,
    2.4801492435922807e-05,
    2.7557592564317966e-06,
    2.7630511275247693e-07,
    2.4998674655450122e-08,
];

impl Code<'_> {
    /// `(k, e^r - 1)` with `x = k ln 2 + r`; `correction` is added to `r`, for arguments in two parts.
    pub(super) fn reduced_exponential(&mut self, x: &Expr, correction: Option<&Expr>) -> (Expr, Expr) {
        let (high, low) = self.by_type(LN2_SINGLE, LN2_DOUBLE);
        let (whole, k) = self.nearest(x, std::f64::consts::LOG2_E);
        let rest = self.fma(whole.clone(), self.num(-high), x.clone());
        let mut rest = self.fma(whole, self.num(-low), rest);
        if let Some(correction) = correction {
            rest = self.add(rest, correction.clone());
        }
        let rest = self.name(rest);
        let coefficients = self.by_type(&POLYNOMIAL_SINGLE[..], &POLYNOMIAL_DOUBLE[..]);
        let square = self.mul(rest.clone(), rest.clone());
        let tail = self.polynomial(&rest, coefficients);
        let minus_one = self.fma(square, tail, rest);
        (k, self.name(minus_one))
    }

    /// Results below the smallest subnormal number are zero, above the largest number infinite.
    fn exp_range(&self) -> (f64, f64) {
        self.by_type((-104.0, 89.5), (-746.0, 710.5))
    }

    /// `e^x`.
    pub(super) fn exp(&mut self, x: &Expr) -> Expr {
        let (low, high) = self.exp_range();
        let x = self.capped(x, high);
        self.exp_below(&x, low, 0)
    }

    /// `e^x * 2^shift` for `x` that does not overflow; arguments below `low` count as `low`.
    pub(super) fn exp_below(&mut self, x: &Expr, low: f64, shift: i64) -> Expr {
        let x = self.floored(x, low);
        let (k, minus_one) = self.reduced_exponential(&x, None);
        let value = self.add(minus_one, self.num(1.0));
        let k = if shift == 0 { k } else { self.add(k, self.int(shift)) };
        let k = self.name(k);
        self.scaled(value, &k)
    }

    /// `e^x` for `x` at most 0 whose power is a normal number.
    pub(super) fn exp_normal(&mut self, x: &Expr) -> Expr {
        let (k, minus_one) = self.reduced_exponential(x, None);
        let power = self.power_of_two(k);
        let power = self.name(power);
        self.fma(minus_one, power.clone(), power)
    }

    /// `e^x - 1`: `2^k (e^r - 1) + (2^k - 1)`, computed at half size so that `2^k` does not overflow.
    pub(super) fn expm1(&mut self, x: &Expr) -> Expr {
        // Enough to overflow, and little enough that half the power does not.
        let clamped = self.capped(x, self.by_type(88.9, 709.9));
        let clamped = self.floored(&clamped, self.by_type(-18.0, -38.0));
        let (k, minus_one) = self.reduced_exponential(&clamped, None);
        let half = self.power_of_two(self.sub(k, self.int(1)));
        let half = self.name(half);
        let value = self.fma(half.clone(), minus_one, self.sub(half, self.num(0.5)));
        let value = self.add(value.clone(), value);
        // Small arguments are their own result, down to the sign of zero and subnormal numbers.
        let tiny = self.lt(self.abs(x.clone()), self.num(self.by_type(1e-9, 1e-18)));
        self.select(tiny, x.clone(), value)
    }

    /// `1 / (1 + e^-x)`, from the exponential of a negative number on both sides.
    pub(super) fn sigmoid(&mut self, x: &Expr) -> Expr {
        let (low, _) = self.exp_range();
        let negative = self.neg(self.abs(x.clone()));
        let negative = self.name(negative);
        let power = self.exp_below(&negative, low, 0);
        let power = self.name(power);
        let numerator = self.select(self.lt(x.clone(), self.num(0.0)), power.clone(), self.num(1.0));
        self.div(numerator, self.add(power, self.num(1.0)))
    }
}
