//! The Gauss error function.
//!
//! Near zero `erf x = x + x P(x^2)`. Beyond, `1 - erfc |x|`: f32 takes `erfc t = e^(-t Q(t))`, f64 `e^(-t^2) W((t - 3) / (t + 3))`.

use super::Code;
use crate::ir::Expr;

const SMALL_SINGLE: [f64; 7] =
    [0.128379166, -0.376126349, 0.112836942, -0.0268592704, 0.00520063471, -0.000813744031, 8.34522507e-05];
const SMALL_DOUBLE: [f64; 13] = [
    0.1283791670955126,
    -0.3761263890318375,
    0.11283791670954885,
    -0.026866170645077875,
    0.005223977624828431,
    -0.0008548326981425542,
    0.0001205533113295582,
    -1.4925595772180906e-05,
    1.64610084778027e-06,
    -1.6350396222864617e-07,
    1.466032872274226e-08,
    -1.137495573607015e-09,
    5.960685338520971e-11,
];
const LARGE_SINGLE: [f64; 7] =
    [1.12864852, 0.635151327, 0.10623686, -0.0237620529, 0.00364245754, -0.000322804466, 1.12314692e-05];
const LARGE_DOUBLE: [f64; 14] = [
    0.17900115118138973,
    -0.3262335600430529,
    0.24560380171217347,
    -0.1501159364972964,
    0.07166583728212753,
    -0.024392498694982383,
    0.0042691366360608305,
    0.0007077188214536312,
    -0.0005972930400098543,
    4.423949333142371e-05,
    6.122929113889548e-05,
    -1.8041737810441332e-05,
    -1.4111217540633525e-05,
    -2.1654398483939137e-06,
];

impl Code<'_> {
    /// The error function.
    pub(super) fn erf(&mut self, x: &Expr) -> Expr {
        let magnitude = self.abs(x.clone());
        // Beyond, the result rounds to 1.
        let magnitude = self.name(magnitude);
        let a = self.capped(&magnitude, self.by_type(4.0, 6.0));
        let square = self.mul(a.clone(), a.clone());
        let square = self.name(square);
        let series = self.by_type(&SMALL_SINGLE[..], &SMALL_DOUBLE[..]);
        let small = self.fma(a.clone(), self.polynomial(&square, series), a.clone());
        let complement = if self.single() {
            let exponent = self.mul(self.neg(a.clone()), self.polynomial(&a, &LARGE_SINGLE));
            let exponent = self.name(exponent);
            self.exp_normal(&exponent)
        } else {
            let u = self.div(self.sub(a.clone(), self.num(3.0)), self.add(a.clone(), self.num(3.0)));
            let u = self.name(u);
            let exponent = self.neg(square);
            let exponent = self.name(exponent);
            let power = self.exp_normal(&exponent);
            self.mul(power, self.polynomial(&u, &LARGE_DOUBLE))
        };
        let large = self.sub(self.num(1.0), complement);
        let seam = self.num(self.by_type(0.925, 1.0));
        let value = self.select(self.lt(a, seam), small, large);
        self.with_sign_of(value, x)
    }
}
