//! Logarithms.
//!
//! `x = 2^k m` with `m` between `sqrt(1/2)` and `sqrt(2)`. With `f = m - 1`, f32 uses `log(1 + f) = f - f^2/2 + f^3 P(f)`; f64 uses
//! `s = f / (2 + f)` and `log(1 + f) = f - (f^2/2 - s (f^2/2 + s^2 R(s^2)))`, the classical form of fdlibm.

use super::Code;
use super::exponential::{LN2_DOUBLE, LN2_SINGLE};
use crate::ir::Expr;

const POLYNOMIAL_SINGLE: [f64; 9] = [
    0.333333105,
    -0.249999866,
    0.200022236,
    -0.166692629,
    0.142187119,
    -0.123841844,
    0.118725158,
    -0.117905602,
    0.0691711009,
];

/// `(2 atanh(s) - 2 s) / s^3` as a polynomial in `s^2`.
pub(super) const ATANH_DOUBLE: [f64; 7] = [
    0.6666666666666734,
    0.39999999999414315,
    0.2857142874262692,
    0.22222198534717397,
    0.18183566972705134,
    0.15313967737075979,
    0.14796917396210374,
];
/// As [`ATANH_DOUBLE`], for f32.
pub(super) const ATANH_SINGLE: [f64; 4] = [0.666666627, 0.400003344, 0.285372585, 0.235832334];

impl Code<'_> {
    /// `(k, f)` with `x = 2^k (1 + f)` for positive finite `x`, `k` as a float.
    pub(super) fn split_exponent(&mut self, x: &Expr) -> (Expr, Expr) {
        let smallest = self.by_type(f64::from(f32::MIN_POSITIVE), f64::MIN_POSITIVE);
        // Subnormal numbers are scaled up first.
        let (scale, shift) = self.by_type((33_554_432.0, 25.0), (18_014_398_509_481_984.0, 54.0));
        let subnormal = self.lt(x.clone(), self.num(smallest));
        let subnormal = self.name(subnormal);
        let normal = self.select(subnormal.clone(), self.mul(x.clone(), self.num(scale)), x.clone());
        let bits = self.bits(normal);
        let bits = self.name(bits);
        // Counted from the bits of sqrt(1/2), the exponent field changes where the significand leaves its interval.
        let root = std::f64::consts::FRAC_1_SQRT_2;
        let origin = self.by_type(i64::from((root as f32).to_bits()), root.to_bits() as i64);
        let k = self.shr(self.sub(bits.clone(), self.int(origin)), self.mantissa());
        let k = self.name(k);
        let significand = self.float(self.sub(bits, self.shl(k.clone(), self.mantissa())));
        let f = self.sub(significand, self.num(1.0));
        let f = self.name(f);
        let k = self.float_of_small(k);
        let k = self.sub(k, self.select(subnormal, self.num(shift), self.num(0.0)));
        (self.name(k), f)
    }

    /// The logarithm of a positive finite number, without the checks for others.
    fn log_positive(&mut self, x: &Expr) -> Expr {
        let (k, f) = self.split_exponent(x);
        let square = self.mul(f.clone(), f.clone());
        let square = self.name(square);
        let (high, low) = self.by_type(LN2_SINGLE, LN2_DOUBLE);
        let small = self.mul(k.clone(), self.num(low));
        let sum = if self.single() {
            let tail = self.mul(self.mul(f.clone(), square.clone()), self.polynomial(&f, &POLYNOMIAL_SINGLE));
            let tail = self.add(tail, small);
            self.add(f, self.fma(square, self.num(-0.5), tail))
        } else {
            let s = self.div(f.clone(), self.add(f.clone(), self.num(2.0)));
            let s = self.name(s);
            let z = self.mul(s.clone(), s.clone());
            let z = self.name(z);
            let half = self.mul(square, self.num(0.5));
            let half = self.name(half);
            let series = self.mul(z.clone(), self.polynomial(&z, &ATANH_DOUBLE));
            let inner = self.fma(s, self.add(half.clone(), series), small);
            self.sub(f, self.sub(half, inner))
        };
        self.fma(k, self.num(high), sum)
    }

    /// Natural logarithm.
    pub(super) fn log(&mut self, x: &Expr) -> Expr {
        let value = self.log_positive(x);
        let infinity = self.num(f64::INFINITY);
        // Infinity and NaN are their own logarithms.
        let negative = self.select(self.lt(x.clone(), self.num(0.0)), self.num(f64::NAN), x.clone());
        let special = self.select(self.eq(x.clone(), self.num(0.0)), self.num(f64::NEG_INFINITY), negative);
        let regular = self.and(self.lt(self.num(0.0), x.clone()), self.lt(x.clone(), infinity));
        self.select(regular, value, special)
    }

    /// `log(1 + x)`: the logarithm of the rounded sum `u`, corrected by what rounding lost over `u`.
    pub(super) fn log1p(&mut self, x: &Expr) -> Expr {
        let u = self.add(x.clone(), self.num(1.0));
        let u = self.name(u);
        let lost_small = self.sub(x.clone(), self.sub(u.clone(), self.num(1.0)));
        let lost_large = self.sub(self.num(1.0), self.sub(u.clone(), x.clone()));
        let lost = self.select(self.lt(x.clone(), self.num(1.0)), lost_small, lost_large);
        let value = self.log_positive(&u);
        let value = self.add(value, self.div(lost, u));
        let outside = self.select(self.lt(x.clone(), self.num(-1.0)), self.num(f64::NAN), x.clone());
        let special = self.select(self.eq(x.clone(), self.num(-1.0)), self.num(f64::NEG_INFINITY), outside);
        let regular =
            self.and(self.lt(self.num(-1.0), x.clone()), self.lt(x.clone(), self.num(f64::INFINITY)));
        // Zero keeps its sign.
        let regular = self.and(regular, self.not(self.eq(x.clone(), self.num(0.0))));
        self.select(regular, value, special)
    }
}
