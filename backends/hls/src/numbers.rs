//! How the element types of a model become types of a design.
//!
//! Integers and truth values keep their width. Floating-point numbers stay what they are, or become fixed point: arrays
//! in memory then hold [`Fixed`] values, while local variables and register arrays hold wider sums. Products and sums are
//! exact; rounding (to nearest, halves to even) and saturation happen where a value is assigned or stored.

use std::fmt;
use std::str::FromStr;

use tcc_ir::dtype::{Class, DType};

use crate::error::Error;

/// Widest fixed-point value.
pub const MAX_WIDTH: u32 = 64;

/// A signed fixed-point format: `width` bits, of which `integer` stand before the binary point, sign included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fixed {
    /// All bits.
    pub width: u32,
    /// Bits before the binary point.
    pub integer: u32,
}

impl Fixed {
    /// Bits after the binary point.
    pub fn fraction(self) -> u32 {
        self.width - self.integer
    }

    /// Smallest and largest value.
    pub fn range(self) -> (f64, f64) {
        let limit = 2f64.powi(self.integer as i32 - 1);
        (-limit, limit - 2f64.powi(-(self.fraction() as i32)))
    }
}

/// The C++ type.
impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ap_fixed<{}, {}, AP_RND_CONV, AP_SAT>", self.width, self.integer)
    }
}

/// The number format of a design.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Numbers {
    /// Floating-point types stay.
    #[default]
    Float,
    /// f32 becomes fixed point.
    Fixed {
        /// In memory.
        value: Fixed,
        /// In local variables and register arrays.
        sum: Fixed,
    },
}

impl Numbers {
    /// Fixed point with sums that hold 256 products of any two values exactly.
    pub fn fixed(value: Fixed) -> Result<Numbers, Error> {
        let failed = |reason: String| Err(Error::Numbers { text: format!("{value:?}"), reason });
        if value.width < 2 || value.width > MAX_WIDTH {
            return failed(format!("the width {} is not within 2 to {MAX_WIDTH} bits", value.width));
        }
        if value.integer < 1 || value.integer > value.width {
            return failed(format!("{} integer bits are not within 1 to the width", value.integer));
        }
        let sum = Fixed { width: 2 * value.width + 8, integer: 2 * value.integer + 8 };
        Ok(Numbers::Fixed { value, sum })
    }

    /// True where floating-point types have become fixed point.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Numbers::Fixed { .. })
    }

    /// The C++ type of an array element in memory; none where the type has no counterpart.
    pub fn memory(&self, dtype: DType) -> Option<String> {
        self.named(dtype, "value_t")
    }

    /// The C++ type of a local variable; none where the type has no counterpart.
    pub fn local(&self, dtype: DType) -> Option<String> {
        self.named(dtype, "sum_t")
    }

    fn named(&self, dtype: DType, fixed: &str) -> Option<String> {
        match (dtype, dtype.class()) {
            (DType::F32, _) if self.is_fixed() => Some(fixed.to_string()),
            (DType::F32, _) => Some("float".to_string()),
            (DType::F64, _) if !self.is_fixed() => Some("double".to_string()),
            (_, Class::Signed) => Some(format!("ap_int<{}>", dtype.bits())),
            (_, Class::Unsigned) => Some(format!("ap_uint<{}>", dtype.bits())),
            (_, Class::Bool) => Some("bool".to_string()),
            _ => None,
        }
    }

    /// Bits of an array element in memory.
    pub fn memory_bits(&self, dtype: DType) -> u32 {
        match (self, dtype) {
            (Numbers::Fixed { value, .. }, DType::F32) => value.width,
            (_, DType::Bool) => 1,
            _ => dtype.bits() as u32,
        }
    }

    /// Bits of a local variable.
    pub fn local_bits(&self, dtype: DType) -> u32 {
        match (self, dtype) {
            (Numbers::Fixed { sum, .. }, DType::F32) => sum.width,
            _ => self.memory_bits(dtype),
        }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numbers::Float => f.write_str("float"),
            Numbers::Fixed { value, .. } => write!(f, "fixed<{},{}>", value.width, value.integer),
        }
    }
}

impl FromStr for Numbers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Numbers, Error> {
        if text == "float" {
            return Ok(Numbers::Float);
        }
        let malformed = |reason: &str| Error::Numbers { text: text.to_string(), reason: reason.to_string() };
        let inside = text.strip_prefix("fixed<").and_then(|rest| rest.strip_suffix('>'));
        let (width, integer) = inside
            .and_then(|inside| inside.split_once(','))
            .ok_or_else(|| malformed("it has no width and integer bits"))?;
        let number = |digits: &str| {
            digits.trim().parse::<u32>().map_err(|_| malformed("the widths are no whole numbers"))
        };
        Numbers::fixed(Fixed { width: number(width)?, integer: number(integer)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["float", "fixed<16,6>", "fixed<2,1>", "fixed<64,64>"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_formats_are_named() {
        for text in
            ["fixed<65,6>", "fixed<16,17>", "fixed<16,0>", "fixed<16>", "half", "fixed<a,b>", "fixed<1,1>"]
        {
            assert!(matches!(text.parse::<Numbers>(), Err(Error::Numbers { .. })), "{text}");
        }
    }

    #[test]
    fn the_range_is_that_of_twos_complement() {
        assert_eq!(Fixed { width: 8, integer: 4 }.range(), (-8.0, 7.9375));
    }
}
