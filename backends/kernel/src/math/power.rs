//! Powers of floats.
//!
//! `x^y = e^(y log x)` with the logarithm and the product in two parts, since the exponential turns an absolute error of its
//! argument into a relative one of the result.

use super::Code;
use super::exponential::{LN2_DOUBLE, LN2_SINGLE};
use super::logarithm::{ATANH_DOUBLE, ATANH_SINGLE};
use crate::ir::Expr;

impl Code<'_> {
    /// The logarithm of a positive finite number as a sum of two.
    fn extended_log(&mut self, x: &Expr) -> (Expr, Expr) {
        let (k, f) = self.split_exponent(x);
        // s = f / (2 + f), and what the quotient lacks.
        let d = self.add(f.clone(), self.num(2.0));
        let d = self.name(d);
        let d_low = self.sub(f.clone(), self.sub(d.clone(), self.num(2.0)));
        let s = self.div(f.clone(), d.clone());
        let s = self.name(s);
        let product = self.mul(s.clone(), d.clone());
        let product = self.name(product);
        let error = self.product_error(&s, &d, &product);
        let rest = self.sub(self.sub(self.sub(f, product), error), self.mul(s.clone(), d_low));
        let s_low = self.div(rest, d);
        let z = self.mul(s.clone(), s.clone());
        let z = self.name(z);
        let series = self.by_type(&ATANH_SINGLE[..], &ATANH_DOUBLE[..]);
        let cube = self.mul(self.mul(s.clone(), z.clone()), self.polynomial(&z, series));
        let (high, low) = self.by_type(LN2_SINGLE, LN2_DOUBLE);
        let whole = self.mul(k.clone(), self.num(high));
        let whole = self.name(whole);
        let double = self.add(s.clone(), s);
        let double = self.name(double);
        let sum = self.add(whole.clone(), double.clone());
        let sum = self.name(sum);
        let lost = self.sub(double, self.sub(sum.clone(), whole));
        let small = self.add(self.add(s_low.clone(), s_low), self.mul(k, self.num(low)));
        let small = self.add(self.add(lost, small), cube);
        let small = self.name(small);
        let head = self.add(sum.clone(), small.clone());
        let head = self.name(head);
        let tail = self.sub(small, self.sub(head.clone(), sum));
        (head, self.name(tail))
    }

    /// `x^y` with the special cases of IEEE 754 `pow`.
    pub(super) fn pow(&mut self, x: &Expr, y: &Expr) -> Expr {
        let zero = self.num(0.0);
        let one = self.num(1.0);
        let infinity = self.num(f64::INFINITY);
        let magnitude = self.abs(x.clone());
        let magnitude = self.name(magnitude);
        let (log, log_low) = self.extended_log(&magnitude);
        let log = self.select(self.eq(magnitude.clone(), zero.clone()), self.num(f64::NEG_INFINITY), log);
        let log = self.select(self.eq(magnitude.clone(), infinity.clone()), infinity.clone(), log);
        let log = self.name(log);
        let product = self.mul(y.clone(), log.clone());
        let product = self.name(product);
        let error = self.product_error(y, &log, &product);
        let error = self.fma(y.clone(), log_low, error);
        let limit = self.by_type(105.0, 750.0);
        let inside = self.lt(self.abs(product.clone()), self.num(limit));
        let error = self.select(inside, error, zero.clone());
        let error = self.name(error);
        let argument = self.capped(&product, self.by_type(89.5, 710.5));
        let argument = self.floored(&argument, self.by_type(-104.0, -746.0));
        let (k, minus_one) = self.reduced_exponential(&argument, Some(&error));
        let value = self.scaled(self.add(minus_one, one.clone()), &k);
        // |x| = 1 to an infinite power.
        let value = self.select(self.eq(magnitude.clone(), one.clone()), one.clone(), value);
        let value = self.name(value);
        let whole = self.eq(self.floor(y.clone()), y.clone());
        let whole = self.name(whole);
        let half = self.mul(y.clone(), self.num(0.5));
        let half = self.name(half);
        let odd = self.and(whole.clone(), self.not(self.eq(self.floor(half.clone()), half)));
        let negative = self.lt(self.bits(x.clone()), self.int(0));
        let value = self.select(self.and(odd, negative), self.neg(value.clone()), value);
        let finite_negative = self.and(self.lt(x.clone(), zero.clone()), self.lt(magnitude, infinity));
        let undefined = self.and(finite_negative, self.not(whole));
        let unordered = self.not(self.and(self.eq(x.clone(), x.clone()), self.eq(y.clone(), y.clone())));
        let value = self.select(self.or(undefined, unordered), self.num(f64::NAN), value);
        let trivial = self.or(self.eq(x.clone(), one.clone()), self.eq(y.clone(), zero));
        self.select(trivial, one, value)
    }
}
