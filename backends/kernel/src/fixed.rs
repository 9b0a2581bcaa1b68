//! The fixed-point mode of the kernel interpreter: what a kernel computes where f32 has become fixed point.
//!
//! Elements of a buffer have the buffer's [`Fixed`] format; local variables and register arrays have the kernel's local
//! format. Sums, differences and products are exact; a value is rounded (to nearest, halves to even) and saturated where it
//! is assigned, stored, or an argument of another function. Quotients and roots are cut off after the last bit of the local
//! format; transcendental functions are looked up in a [`Table`]. Integers, truth values and indices stay what they are.
//!
//! Without formats the same interpreter computes in floating point and observes the range of every value, from which formats
//! are chosen.

mod evaluate;
mod exact;
mod functions;
mod table;

use std::fmt;

pub use evaluate::{Cell, FixedError, Formats, Observed, cell, evaluate, scalar};
pub use exact::Exact;
pub use table::Table;

/// A signed fixed-point format: `width` bits, of which `integer` stand before the binary point, sign included. A negative
/// number of integer bits leaves out leading bits of the fraction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Fixed {
    /// All bits, at least 1.
    pub width: u32,
    /// Bits before the binary point, at most `width`.
    pub integer: i32,
}

impl Fixed {
    /// Bits after the binary point.
    pub fn fraction(self) -> u32 {
        (i64::from(self.width) - i64::from(self.integer)).max(0) as u32
    }

    /// Smallest and largest value.
    pub fn range(self) -> (f64, f64) {
        let limit = 2f64.powi(self.integer - 1);
        (-limit, limit - 2f64.powi(-(self.fraction() as i32)))
    }

    /// The fewest integer bits whose range holds values up to this magnitude.
    pub fn integer_bits(magnitude: f64) -> i32 {
        if magnitude > 0.0 { magnitude.log2().floor() as i32 + 2 } else { 1 }
    }
}

/// `fixed<W,I>`.
impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fixed<{},{}>", self.width, self.integer)
    }
}

#[cfg(test)]
mod tests;
