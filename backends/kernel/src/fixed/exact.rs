//! Numbers `mantissa / 2^fraction` with exact sums and products.

use std::cmp::Ordering;

use super::Fixed;

/// An exact number. Operations give none where the result needs more than 127 bits.
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    /// The number times two to the power of `fraction`.
    pub mantissa: i128,
    /// Bits after the binary point.
    pub fraction: u32,
}

impl Exact {
    /// A whole number.
    pub fn whole(value: i64) -> Exact {
        Exact { mantissa: value.into(), fraction: 0 }
    }

    /// The value of a format nearest to a floating-point number, halves to even; NaN is 0.
    pub fn nearest(value: f64, format: Fixed) -> Exact {
        let fraction = format.fraction();
        let limit = 1i128 << (format.width - 1).min(126);
        // A power of two scales without error, and the conversion saturates.
        let scaled = (value * 2f64.powi(fraction as i32)).round_ties_even() as i128;
        Exact { mantissa: scaled.clamp(-limit, limit - 1), fraction }
    }

    /// The nearest floating-point number.
    pub fn to_f64(self) -> f64 {
        self.mantissa as f64 * 2f64.powi(-(self.fraction as i32))
    }

    /// True for 0.
    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    fn scaled(self, fraction: u32) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let shift = fraction - self.fraction;
        if shift > 126 { None } else { self.mantissa.checked_mul(1i128 << shift) }
    }

    fn aligned(self, other: Exact) -> Option<(i128, i128, u32)> {
        let fraction = self.fraction.max(other.fraction);
        Some((self.scaled(fraction)?, other.scaled(fraction)?, fraction))
    }

    /// The sum.
    pub fn plus(self, other: Exact) -> Option<Exact> {
        let (a, b, fraction) = self.aligned(other)?;
        Some(Exact { mantissa: a.checked_add(b)?, fraction })
    }

    /// The opposite.
    pub fn negated(self) -> Option<Exact> {
        Some(Exact { mantissa: self.mantissa.checked_neg()?, ..self })
    }

    /// The product.
    pub fn times(self, other: Exact) -> Option<Exact> {
        let mantissa = self.mantissa.checked_mul(other.mantissa)?;
        Some(Exact { mantissa, fraction: self.fraction + other.fraction })
    }

    /// Which is larger.
    pub fn compare(self, other: Exact) -> Option<Ordering> {
        let (a, b, _) = self.aligned(other)?;
        Some(a.cmp(&b))
    }

    /// The largest whole number that is not larger.
    pub fn floor(self) -> i128 {
        if self.fraction > 126 {
            if self.mantissa < 0 { -1 } else { 0 }
        } else {
            self.mantissa >> self.fraction
        }
    }

    /// The whole number between it and 0 that is nearest to it.
    pub fn truncated(self) -> i128 {
        if self.mantissa < 0 { -(Exact { mantissa: -self.mantissa, ..self }.floor()) } else { self.floor() }
    }

    /// Rounded to a format, halves to even, and saturated.
    pub fn rounded(self, format: Fixed) -> Exact {
        let fraction = format.fraction();
        let limit = 1i128 << (format.width - 1).min(126);
        let mantissa = if fraction >= self.fraction {
            let beyond = if self.mantissa < 0 { i128::MIN } else { i128::MAX };
            self.scaled(fraction).unwrap_or(beyond)
        } else {
            halves_to_even(self.mantissa, self.fraction - fraction)
        };
        Exact { mantissa: mantissa.clamp(-limit, limit - 1), fraction }
    }
}

/// `value / 2^shift`, halves to even.
fn halves_to_even(value: i128, shift: u32) -> i128 {
    if shift > 126 {
        return 0;
    }
    let (floor, rest, half) = (value >> shift, value & ((1i128 << shift) - 1), 1i128 << (shift - 1));
    if rest > half || (rest == half && floor & 1 == 1) { floor + 1 } else { floor }
}
