//! Sine, cosine and tangent.
//!
//! `x = n pi/2 + r` with `|r| <= pi/4`, pi/2 in three parts (Cody and Waite); the quadrant `n mod 4` picks polynomial and sign.

use std::{f32, f64};

use super::Code;
use crate::ir::Expr;

/// pi/2 in parts; with a fused multiply-add the products need no spare bits.
const FUSED_SINGLE: [f64; 3] = [f32::consts::FRAC_PI_2 as f64, -4.371138828673793e-8, -1.7151245100059e-15];
const FUSED_DOUBLE: [f64; 3] = [f64::consts::FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591833e-33];
/// pi/2 in parts whose products with small integers are exact.
const SHORT_SINGLE: [f64; 3] = [1.5703125, 4.837512969970703e-4, 7.549789948768648e-8];
const SHORT_DOUBLE: [f64; 3] = [1.5707963267341256, 6.0771005063039e-11, 2.0222662487959506e-21];

const SIN_SINGLE: [f64; 3] = [-0.166666552, 0.00833215471, -0.000195140936];
const COS_SINGLE: [f64; 3] = [0.0416666456, -0.00138873374, 2.44348885e-05];
const SIN_DOUBLE: [f64; 6] = [
    -0.1666666666666663,
    0.008333333333321886,
    -0.00019841269829364648,
    2.755731353155733e-06,
    -2.505073205867319e-08,
    1.589523487506451e-10,
];
const COS_DOUBLE: [f64; 6] = [
    0.041666666666666595,
    -0.0013888888888873392,
    2.4801587289002862e-05,
    -2.7557314208225785e-07,
    2.0875702985753036e-09,
    -1.1358564019479528e-11,
];

impl Code<'_> {
    /// `(n, sin r, cos r)`.
    fn quadrant(&mut self, x: &Expr) -> (Expr, Expr, Expr) {
        let (whole, n) = self.nearest(x, f64::consts::FRAC_2_PI);
        let parts = match self.fma {
            true => self.by_type(FUSED_SINGLE, FUSED_DOUBLE),
            false => self.by_type(SHORT_SINGLE, SHORT_DOUBLE),
        };
        let mut rest = x.clone();
        for part in parts {
            rest = self.fma(whole.clone(), self.num(-part), rest);
        }
        let rest = self.name(rest);
        // Beyond what the parts reduce, results stay between -1 and 1. NaN and infinities stay NaN.
        let lost = self.lt(self.num(1.0), self.abs(rest.clone()));
        let rest = self.select(lost, self.num(0.0), rest);
        let rest = self.name(rest);
        let square = self.mul(rest.clone(), rest.clone());
        let square = self.name(square);
        let series = self.by_type(&SIN_SINGLE[..], &SIN_DOUBLE[..]);
        let cube = self.mul(square.clone(), rest.clone());
        let sine = self.fma(cube, self.polynomial(&square, series), rest);
        let series = self.by_type(&COS_SINGLE[..], &COS_DOUBLE[..]);
        let fourth = self.mul(square.clone(), square.clone());
        let head = self.fma(square.clone(), self.num(-0.5), self.num(1.0));
        // What rounding of 1 - r^2/2 lost comes back with the tail.
        let head = self.name(head);
        let lost = self.fma(square.clone(), self.num(-0.5), self.sub(self.num(1.0), head.clone()));
        let tail = self.fma(fourth, self.polynomial(&square, series), lost);
        let cosine = self.add(head, tail);
        (n, self.name(sine), self.name(cosine))
    }

    fn is_odd(&self, n: &Expr) -> Expr {
        self.eq(self.bitand(n.clone(), self.int(1)), self.int(1))
    }

    /// `value` with its sign changed where bit 1 of `n` is set.
    fn flipped(&self, value: Expr, n: Expr) -> Expr {
        let top = self.by_type(30, 62);
        let sign = self.shl(self.bitand(n, self.int(2)), top);
        self.float(self.bitxor(self.bits(value), sign))
    }

    /// Sine.
    pub(super) fn sin(&mut self, x: &Expr) -> Expr {
        let (n, sine, cosine) = self.quadrant(x);
        let value = self.select(self.is_odd(&n), cosine, sine);
        let value = self.flipped(value, n);
        self.select(self.eq(x.clone(), self.num(0.0)), x.clone(), value)
    }

    /// Cosine.
    pub(super) fn cos(&mut self, x: &Expr) -> Expr {
        let (n, sine, cosine) = self.quadrant(x);
        let value = self.select(self.is_odd(&n), sine, cosine);
        let next = self.add(n, self.int(1));
        self.flipped(value, next)
    }

    /// Tangent: `sin / cos`, in odd quadrants `-cos / sin`.
    pub(super) fn tan(&mut self, x: &Expr) -> Expr {
        let (n, sine, cosine) = self.quadrant(x);
        let odd = self.is_odd(&n);
        let odd = self.name(odd);
        let numerator = self.select(odd.clone(), cosine.clone(), sine.clone());
        let denominator = self.select(odd, sine, cosine);
        let value = self.div(numerator, denominator);
        let value = self.flipped(value, self.add(n.clone(), n));
        self.select(self.eq(x.clone(), self.num(0.0)), x.clone(), value)
    }
}
