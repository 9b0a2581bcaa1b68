//! Element types of tensors.

use std::fmt;
use std::str::FromStr;

macro_rules! dtypes {
    ($($(#[doc = $doc:literal])* $variant:ident $text:literal $bits:literal $class:ident;)*) => {
        /// The type of one tensor element.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum DType { $($(#[doc = $doc])* $variant,)* }

        impl DType {
            /// Every element type, in declaration order.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// The name in the text form, as MLIR spells it.
            pub fn text(self) -> &'static str {
                match self { $(DType::$variant => $text,)* }
            }

            /// Width of one element in bits; sub-byte elements are packed, first element in the low bits.
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }

            /// What kind of number this is.
            pub fn class(self) -> Class {
                match self { $(DType::$variant => Class::$class,)* }
            }
        }
    };
}

/// The kind of number that an element type holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Binary floating point.
    Float,
    /// Two's complement integer.
    Signed,
    /// Unsigned integer.
    Unsigned,
    /// Truth value, one byte in memory.
    Bool,
    /// Host-only text.
    Text,
}

dtypes! {
    /// IEEE 754 binary32.
    F32 "f32" 32 Float;
    /// IEEE 754 binary64.
    F64 "f64" 64 Float;
    /// IEEE 754 binary16.
    F16 "f16" 16 Float;
    /// bfloat16.
    BF16 "bf16" 16 Float;
    /// OCP FP8 E4M3, finite, one NaN a sign.
    F8E4M3FN "f8E4M3FN" 8 Float;
    /// FP8 E4M3, finite, unsigned zero, bias 8.
    F8E4M3FNUZ "f8E4M3FNUZ" 8 Float;
    /// OCP FP8 E5M2.
    F8E5M2 "f8E5M2" 8 Float;
    /// FP8 E5M2, finite, unsigned zero, bias 16.
    F8E5M2FNUZ "f8E5M2FNUZ" 8 Float;
    /// OCP MX block scale: a power of two.
    F8E8M0FNU "f8E8M0FNU" 8 Float;
    /// OCP FP4 E2M1, packed two to a byte.
    F4E2M1FN "f4E2M1FN" 4 Float;
    /// Signed 2-bit, packed four to a byte.
    I2 "i2" 2 Signed;
    /// Signed 4-bit, packed two to a byte.
    I4 "i4" 4 Signed;
    /// Signed 8-bit.
    I8 "i8" 8 Signed;
    /// Signed 16-bit.
    I16 "i16" 16 Signed;
    /// Signed 32-bit.
    I32 "i32" 32 Signed;
    /// Signed 64-bit.
    I64 "i64" 64 Signed;
    /// Unsigned 2-bit, packed four to a byte.
    U2 "ui2" 2 Unsigned;
    /// Unsigned 4-bit, packed two to a byte.
    U4 "ui4" 4 Unsigned;
    /// Unsigned 8-bit.
    U8 "ui8" 8 Unsigned;
    /// Unsigned 16-bit.
    U16 "ui16" 16 Unsigned;
    /// Unsigned 32-bit.
    U32 "ui32" 32 Unsigned;
    /// Unsigned 64-bit.
    U64 "ui64" 64 Unsigned;
    /// Truth value; one byte, 0 or 1.
    Bool "i1" 8 Bool;
    /// UTF-8 text; lives on the host, never in a kernel.
    String "!tir.string" 0 Text;
}

impl DType {
    /// Bytes that `count` elements take, rounded up to whole bytes; `None` on overflow.
    pub fn bytes_for(self, count: usize) -> Option<usize> {
        count.checked_mul(self.bits()).map(|bits| bits.div_ceil(8))
    }

    /// Bytes of one element; sub-byte types count as one byte.
    pub fn size(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// True for all binary floating point types.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// True for signed and unsigned integers, not for truth values.
    pub fn is_integer(self) -> bool {
        matches!(self.class(), Class::Signed | Class::Unsigned)
    }

    /// True for signed integers.
    pub fn is_signed(self) -> bool {
        self.class() == Class::Signed
    }

    /// True where several elements share a byte.
    pub fn is_packed(self) -> bool {
        self.bits() < 8 && self != DType::String
    }

    /// Smallest and largest value of an integer or truth type.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        let bits = self.bits() as u32;
        match self.class() {
            Class::Signed => Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)),
            Class::Unsigned => Some((0, (1i128 << bits) - 1)),
            Class::Bool => Some((0, 1)),
            Class::Float | Class::Text => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.text() == text)
            .ok_or_else(|| format!("unknown element type '{text}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &dtype in DType::ALL {
            assert_eq!(dtype.text().parse::<DType>().unwrap(), dtype);
        }
    }

    #[test]
    fn packed_types_round_up() {
        assert_eq!(DType::I4.bytes_for(3), Some(2));
        assert_eq!(DType::U2.bytes_for(5), Some(2));
        assert_eq!(DType::F64.bytes_for(usize::MAX), None);
    }
}
