//! Inverse trigonometric functions.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use super::Code;
use crate::ir::Expr;

const ATAN_SINGLE: [f64; 4] = [-0.333329558, 0.199778795, -0.138792366, 0.0805804133];
const ATAN_DOUBLE: [f64; 11] = [
    -0.333333333333332,
    0.1999999999995374,
    -0.1428571428021038,
    0.11111110784082459,
    -0.09090897773785477,
    0.07692060467907776,
    -0.06663106546257451,
    0.058479046552504875,
    -0.05039361073903204,
    0.03806567062854576,
    -0.017908078460672903,
];
const ASIN_SINGLE: [f64; 5] = [0.166667536, 0.074952364, 0.0454779379, 0.0241426434, 0.0422282405];
const ASIN_DOUBLE: [f64; 13] = [
    0.16666666666666763,
    0.07499999999970147,
    0.04464285717524796,
    0.030381942676854984,
    0.02237221586652093,
    0.017351596140601975,
    0.013981011480571221,
    0.011397346675641401,
    0.010789039521249974,
    0.0036731886010266308,
    0.0217883308797063,
    -0.021113594963522345,
    0.03270029206351618,
];

impl Code<'_> {
    /// What rounding takes from a constant.
    fn rounded_off(&self, value: f64, double: f64) -> f64 {
        if self.single() { value - f64::from(value as f32) } else { double }
    }

    /// Inverse tangent: `atan a = pi/2 + atan(-1/a)` above `tan(3 pi/8)`, `pi/4 + atan((a - 1) / (a + 1))` above `tan(pi/8)`.
    pub(super) fn atan(&mut self, x: &Expr) -> Expr {
        let a = self.abs(x.clone());
        let a = self.name(a);
        let large = self.lt(self.num(2.414213562373095), a.clone());
        let large = self.name(large);
        let middle = self.lt(self.num(0.41421356237309503), a.clone());
        let middle = self.name(middle);
        let one = self.num(1.0);
        let numerator = self.select(middle.clone(), self.sub(a.clone(), one.clone()), a.clone());
        let numerator = self.select(large.clone(), self.num(-1.0), numerator);
        let denominator = self.select(middle.clone(), self.add(a.clone(), one.clone()), one);
        let denominator = self.select(large.clone(), a, denominator);
        let z = self.div(numerator, denominator);
        let z = self.name(z);
        let square = self.mul(z.clone(), z.clone());
        let square = self.name(square);
        let series = self.by_type(&ATAN_SINGLE[..], &ATAN_DOUBLE[..]);
        let tail = self.mul(self.mul(square.clone(), z.clone()), self.polynomial(&square, series));
        let low = self.rounded_off(FRAC_PI_2, 6.123233995736766e-17);
        let pick = |code: &Self, at_large: f64, at_middle: f64| {
            let rest = code.select(middle.clone(), code.num(at_middle), code.num(0.0));
            code.select(large.clone(), code.num(at_large), rest)
        };
        let tail = self.add(tail, pick(self, low, low / 2.0));
        let value = self.add(pick(self, FRAC_PI_2, FRAC_PI_4), self.add(z, tail));
        self.with_sign_of(value, x)
    }

    /// `(is |x| > 1/2, asin)` of the reduced argument: of `|x|` below 1/2, of `sqrt((1 - |x|) / 2)` above.
    fn reduced_arcsine(&mut self, x: &Expr) -> (Expr, Expr) {
        let a = self.abs(x.clone());
        let a = self.name(a);
        let large = self.lt(self.num(0.5), a.clone());
        let large = self.name(large);
        let half = self.mul(self.sub(self.num(1.0), a.clone()), self.num(0.5));
        let z = self.select(large.clone(), half, self.mul(a.clone(), a.clone()));
        let z = self.name(z);
        let s = self.select(large.clone(), self.sqrt(z.clone()), a);
        let s = self.name(s);
        let series = self.by_type(&ASIN_SINGLE[..], &ASIN_DOUBLE[..]);
        let cube = self.mul(s.clone(), z.clone());
        let value = self.fma(cube, self.polynomial(&z, series), s);
        (large, self.name(value))
    }

    /// `high + low - x` for a constant in two parts.
    fn less_from(&self, high: f64, double_low: f64, x: Expr) -> Expr {
        let low = self.rounded_off(high, double_low);
        self.sub(self.num(high), self.sub(x, self.num(low)))
    }

    /// Inverse sine: `pi/2 - 2 asin(sqrt((1 - a) / 2))` above 1/2.
    pub(super) fn asin(&mut self, x: &Expr) -> Expr {
        let (large, p) = self.reduced_arcsine(x);
        let double = self.add(p.clone(), p.clone());
        let value = self.select(large, self.less_from(FRAC_PI_2, 6.123233995736766e-17, double), p);
        let value = self.with_sign_of(value, x);
        // The sign of a NaN would hide in the bits; outside the domain the root is NaN already.
        self.select(self.eq(x.clone(), self.num(0.0)), x.clone(), value)
    }

    /// Inverse cosine: `pi/2 - asin x` below 1/2, `2 asin(sqrt((1 - a) / 2))` or pi less that above.
    pub(super) fn acos(&mut self, x: &Expr) -> Expr {
        let (large, p) = self.reduced_arcsine(x);
        let negative = self.lt(x.clone(), self.num(0.0));
        let negative = self.name(negative);
        let double = self.add(p.clone(), p.clone());
        let double = self.name(double);
        let opposite = self.less_from(PI, 1.2246467991473532e-16, double.clone());
        let outer = self.select(negative.clone(), opposite, double);
        let signed = self.select(negative, self.neg(p.clone()), p);
        let inner = self.less_from(FRAC_PI_2, 6.123233995736766e-17, signed);
        self.select(large, outer, inner)
    }
}
