//! How the element types of a model become types of a design.
//!
//! Integers and truth values keep their width. Floating-point numbers stay what they are, or f32 becomes fixed point as
//! [`tcc_kernel::fixed`] defines it: each array has a format, and each call of a kernel a wider one for its local variables.

use std::fmt;
use std::str::FromStr;

use tcc_ir::dtype::{Class, DType};
use tcc_kernel::fixed::{Fixed, Formats};
use tcc_kernel::ir::{BufferId, Kernel};

use crate::error::Error;

/// Widest fixed-point value.
pub const MAX_WIDTH: u32 = 64;

/// The number format that a user asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Numbers {
    /// Floating-point types stay.
    #[default]
    Float,
    /// f32 is of one format everywhere.
    Fixed(Fixed),
    /// f32 is of this width, with as many integer bits for each tensor as its values need.
    Ranged(u32),
    /// As `Ranged`, with the least width whose results are within 1 % of floating point.
    Searched,
}

/// Checks a format that a user gives.
fn checked(format: Fixed) -> Result<Fixed, Error> {
    let failed = |reason: String| Error::Numbers { text: format.to_string(), reason };
    if format.width < 2 || format.width > MAX_WIDTH {
        return Err(failed(format!("the width {} is not within 2 to {MAX_WIDTH} bits", format.width)));
    }
    if format.integer < 1 || format.integer > format.width as i32 {
        return Err(failed(format!("{} integer bits are not within 1 to the width", format.integer)));
    }
    Ok(format)
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numbers::Float => f.write_str("float"),
            Numbers::Fixed(format) => write!(f, "{format}"),
            Numbers::Ranged(width) => write!(f, "fixed<{width}>"),
            Numbers::Searched => f.write_str("fixed"),
        }
    }
}

impl FromStr for Numbers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Numbers, Error> {
        match text {
            "float" => return Ok(Numbers::Float),
            "fixed" => return Ok(Numbers::Searched),
            _ => {}
        }
        let malformed = |reason: &str| Error::Numbers { text: text.to_string(), reason: reason.to_string() };
        let inside = text.strip_prefix("fixed<").and_then(|rest| rest.strip_suffix('>'));
        let inside = inside.ok_or_else(|| malformed("it has no width"))?;
        let number = |digits: &str| {
            digits.trim().parse::<u32>().map_err(|_| malformed("the widths are no whole numbers"))
        };
        let Some((width, integer)) = inside.split_once(',') else {
            let format = checked(Fixed { width: number(inside)?, integer: 1 })?;
            return Ok(Numbers::Ranged(format.width));
        };
        let integer =
            i32::try_from(number(integer)?).map_err(|_| malformed("the widths are no whole numbers"))?;
        Ok(Numbers::Fixed(checked(Fixed { width: number(width)?, integer })?))
    }
}

/// The C++ name of a format.
pub fn format_name(format: Fixed) -> String {
    let sign = if format.integer < 0 { "m" } else { "" };
    format!("fixed_{}_{sign}{}", format.width, format.integer.unsigned_abs())
}

/// The C++ definition of a format's name.
pub fn format_definition(format: Fixed) -> String {
    let Fixed { width, integer } = format;
    format!("typedef ap_fixed<{width}, {integer}, AP_RND_CONV, AP_SAT> {};\n", format_name(format))
}

/// The C++ type of elements, f32 in `format` where there is one; none where the type has no counterpart.
pub fn element_type(dtype: DType, format: Option<Fixed>) -> Option<String> {
    match (dtype, dtype.class(), format) {
        (DType::F32, _, Some(format)) => Some(format_name(format)),
        (DType::F32, _, None) => Some("float".to_string()),
        (DType::F64, _, None) => Some("double".to_string()),
        (_, Class::Signed, _) => Some(format!("ap_int<{}>", dtype.bits())),
        (_, Class::Unsigned, _) => Some(format!("ap_uint<{}>", dtype.bits())),
        (_, Class::Bool, _) => Some("bool".to_string()),
        _ => None,
    }
}

/// Bits of an element.
pub fn element_bits(dtype: DType, format: Option<Fixed>) -> u32 {
    match (format, dtype) {
        (Some(format), DType::F32) => format.width,
        (_, DType::Bool) => 1,
        _ => dtype.bits() as u32,
    }
}

/// The types of a kernel's numbers in one call; without formats floating point.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Types(pub Option<Formats>);

impl Types {
    /// One format for all arrays, and sums that hold 256 products of any two values exactly.
    pub fn uniform(kernel: &Kernel, value: Fixed) -> Types {
        Types(Some(Formats { buffers: vec![value; kernel.buffers.len()], local: sum_of(value) }))
    }

    /// The types of a kernel with more buffers, which hold elements of these.
    pub fn with_windows(&self, windows: &[BufferId]) -> Types {
        let mut types = self.clone();
        if let Some(formats) = &mut types.0 {
            let of =
                |window: &BufferId| formats.buffers.get(window.0 as usize).copied().unwrap_or(formats.local);
            let added: Vec<Fixed> = windows.iter().map(of).collect();
            formats.buffers.extend(added);
        }
        types
    }

    /// True where f32 has become fixed point.
    pub fn is_fixed(&self) -> bool {
        self.0.is_some()
    }

    /// The format of local f32 variables.
    pub fn local_format(&self) -> Option<Fixed> {
        self.0.as_ref().map(|formats| formats.local)
    }

    /// The format of a buffer's elements, if they are f32.
    pub fn buffer_format(&self, kernel: &Kernel, id: BufferId) -> Option<Fixed> {
        self.0.as_ref().map(|formats| formats.buffer(kernel, id))
    }

    /// The C++ type of a buffer's elements; none where the type has no counterpart.
    pub fn buffer(&self, kernel: &Kernel, id: BufferId) -> Option<String> {
        element_type(kernel.buffer_of(id).dtype, self.buffer_format(kernel, id))
    }

    /// The C++ type of a local variable; none where the type has no counterpart.
    pub fn local(&self, dtype: DType) -> Option<String> {
        element_type(dtype, self.local_format())
    }

    /// Bits of a buffer's element.
    pub fn buffer_bits(&self, kernel: &Kernel, id: BufferId) -> u32 {
        element_bits(kernel.buffer_of(id).dtype, self.buffer_format(kernel, id))
    }

    /// Bits of a local variable.
    pub fn local_bits(&self, dtype: DType) -> u32 {
        element_bits(dtype, self.local_format())
    }
}

/// The format of sums of products of values of one format.
pub fn sum_of(value: Fixed) -> Fixed {
    Fixed { width: 2 * value.width + 8, integer: 2 * value.integer + 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["float", "fixed<16,6>", "fixed<2,1>", "fixed<64,64>", "fixed<12>", "fixed"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_formats_are_named() {
        for text in [
            "fixed<65,6>",
            "fixed<65>",
            "fixed<16,17>",
            "fixed<16,0>",
            "fixed<>",
            "half",
            "fixed<a,b>",
            "fixed<1,1>",
        ] {
            assert!(matches!(text.parse::<Numbers>(), Err(Error::Numbers { .. })), "{text}");
        }
    }
}
