//! Hyperbolic functions and their inverses, from exponentials and logarithms that keep small arguments accurate.

use super::Code;
use crate::ir::Expr;

impl Code<'_> {
    /// `2^k (e^r - 1) + (2^k - 1)` for arguments in `0..40`.
    fn expm1_moderate(&mut self, x: &Expr) -> Expr {
        let (k, minus_one) = self.reduced_exponential(x, None);
        let power = self.power_of_two(k);
        let power = self.name(power);
        let value = self.fma(power.clone(), minus_one, self.sub(power, self.num(1.0)));
        self.name(value)
    }

    /// `tanh x = m / (m + 2)` with `m = e^2x - 1`; 1 where that rounds to it.
    pub(super) fn tanh(&mut self, x: &Expr) -> Expr {
        let magnitude = self.abs(x.clone());
        let magnitude = self.name(magnitude);
        let limited = self.capped(&magnitude, self.by_type(9.5, 20.0));
        let double = self.add(limited.clone(), limited);
        let double = self.name(double);
        let minus_one = self.expm1_moderate(&double);
        let value = self.div(minus_one.clone(), self.add(minus_one, self.num(2.0)));
        self.with_sign_of(value, x)
    }

    /// `e^|x| / 2`, which overflows later than the exponential.
    fn half_exponential(&mut self, magnitude: &Expr) -> Expr {
        let limited = self.capped(magnitude, self.by_type(90.0, 711.0));
        let half = self.exp_below(&limited, 0.0, -1);
        self.name(half)
    }

    /// `h + 1 / (4 h)` with `h = e^|x| / 2`.
    pub(super) fn cosh(&mut self, x: &Expr) -> Expr {
        let magnitude = self.abs(x.clone());
        let magnitude = self.name(magnitude);
        let half = self.half_exponential(&magnitude);
        self.add(half.clone(), self.div(self.num(0.25), half))
    }

    /// `h - 1 / (4 h)`, near zero `(m + m / (m + 1)) / 2` with `m = e^|x| - 1`.
    pub(super) fn sinh(&mut self, x: &Expr) -> Expr {
        let magnitude = self.abs(x.clone());
        let magnitude = self.name(magnitude);
        let half = self.half_exponential(&magnitude);
        let large = self.sub(half.clone(), self.div(self.num(0.25), half));
        let limited = self.capped(&magnitude, 2.0);
        let minus_one = self.expm1_moderate(&limited);
        let small =
            self.add(minus_one.clone(), self.div(minus_one.clone(), self.add(minus_one, self.num(1.0))));
        let small = self.mul(small, self.num(0.5));
        let value = self.select(self.lt(self.num(1.0), magnitude.clone()), large, small);
        // Halving loses bits of subnormal numbers.
        let tiny = self.lt(magnitude.clone(), self.num(self.by_type(1e-9, 1e-18)));
        let value = self.select(tiny, magnitude, value);
        self.with_sign_of(value, x)
    }

    /// Beyond this a square swallows 1.
    fn huge(&self) -> f64 {
        self.by_type(1e9, 1e17)
    }

    /// `log1p(y)`, plus ln 2 where the argument is huge: there `y` stands for half of what is meant.
    fn log1p_or_double(&mut self, y: Expr, huge: Expr) -> Expr {
        let y = self.name(y);
        let value = self.log1p(&y);
        self.add(value, self.select(huge, self.num(std::f64::consts::LN_2), self.num(0.0)))
    }

    /// `log1p(|x| + x^2 / (1 + sqrt(x^2 + 1)))`; `log |x| + ln 2` for huge arguments.
    pub(super) fn asinh(&mut self, x: &Expr) -> Expr {
        let magnitude = self.abs(x.clone());
        let magnitude = self.name(magnitude);
        let huge = self.lt(self.num(self.huge()), magnitude.clone());
        let huge = self.name(huge);
        let square = self.mul(magnitude.clone(), magnitude.clone());
        let square = self.name(square);
        let root = self.sqrt(self.add(square.clone(), self.num(1.0)));
        let more = self.div(square, self.add(root, self.num(1.0)));
        let sum = self.add(magnitude.clone(), more);
        let y = self.select(huge.clone(), magnitude, sum);
        let value = self.log1p_or_double(y, huge);
        self.with_sign_of(value, x)
    }

    /// `log1p(t + sqrt(2 t + t^2))` with `t = x - 1`; `log x + ln 2` for huge arguments.
    pub(super) fn acosh(&mut self, x: &Expr) -> Expr {
        let huge = self.lt(self.num(self.huge()), x.clone());
        let huge = self.name(huge);
        let t = self.sub(x.clone(), self.num(1.0));
        let t = self.name(t);
        let root = self.sqrt(self.fma(t.clone(), t.clone(), self.add(t.clone(), t.clone())));
        let y = self.select(huge.clone(), x.clone(), self.add(t, root));
        let value = self.log1p_or_double(y, huge);
        self.select(self.lt(x.clone(), self.num(1.0)), self.num(f64::NAN), value)
    }

    /// `log1p(2 |x| / (1 - |x|)) / 2`.
    pub(super) fn atanh(&mut self, x: &Expr) -> Expr {
        let magnitude = self.abs(x.clone());
        let magnitude = self.name(magnitude);
        let double = self.add(magnitude.clone(), magnitude.clone());
        let y = self.div(double, self.sub(self.num(1.0), magnitude.clone()));
        let y = self.name(y);
        let value = self.log1p(&y);
        let value = self.mul(value, self.num(0.5));
        let tiny = self.lt(magnitude.clone(), self.num(self.by_type(1e-9, 1e-18)));
        let value = self.select(tiny, magnitude, value);
        self.with_sign_of(value, x)
    }
}
