//! Element types of tensors, and how many bytes a run of elements takes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The element type of a tensor.
///
/// Types below eight bits are packed, the first element in the lowest bits of a byte; the unused high bits of
/// the last byte are zero. `Bool` is one byte, 0 or 1. `String` lives on the host only: no kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinity.
    F8e4m3fn,
    /// As `F8e4m3fn` with one NaN in place of the negative zero.
    F8e4m3fnuz,
    /// 8-bit float, 5 exponent and 2 mantissa bits, IEEE style.
    F8e5m2,
    /// As `F8e5m2` with one NaN in place of the negative zero.
    F8e5m2fnuz,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// One byte, 0 or 1.
    Bool,
    /// Signed 4-bit integer, two to a byte.
    I4,
    /// Unsigned 4-bit integer, two to a byte.
    U4,
    /// Signed 2-bit integer, four to a byte.
    I2,
    /// Unsigned 2-bit integer, four to a byte.
    U2,
    /// Two binary32: real part, imaginary part.
    Complex64,
    /// Two binary64: real part, imaginary part.
    Complex128,
    /// UTF-8 text, on the host only.
    String,
}

impl DType {
    /// Every element type, in the order of declaration; the position is the code of the C ABI.
    pub const ALL: [DType; 24] = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::Bf16,
        DType::F8e4m3fn,
        DType::F8e4m3fnuz,
        DType::F8e5m2,
        DType::F8e5m2fnuz,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
        DType::I4,
        DType::U4,
        DType::I2,
        DType::U2,
        DType::Complex64,
        DType::Complex128,
        DType::String,
    ];

    /// Bits of one element; 0 for `String`, which has no fixed size.
    pub const fn bits(self) -> u32 {
        match self {
            DType::I2 | DType::U2 => 2,
            DType::I4 | DType::U4 => 4,
            DType::F8e4m3fn
            | DType::F8e4m3fnuz
            | DType::F8e5m2
            | DType::F8e5m2fnuz
            | DType::I8
            | DType::U8
            | DType::Bool => 8,
            DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => 16,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F64 | DType::I64 | DType::U64 | DType::Complex64 => 64,
            DType::Complex128 => 128,
            DType::String => 0,
        }
    }

    /// Bytes that `elements` packed elements take, or `None` when the product overflows or the type has no size.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        if self == DType::String {
            return None;
        }
        let bits = u128::from(elements) * u128::from(self.bits());
        u64::try_from(bits.div_ceil(8)).ok()
    }

    /// Alignment of one element in bytes: what a pointer to the type needs in C, 1 for packed types.
    pub const fn alignment(self) -> usize {
        match self {
            DType::Complex64 => 4,
            DType::Complex128 => 8,
            DType::String => align_of::<String>(),
            other => match other.bits() / 8 {
                0 | 1 => 1,
                bytes => bytes as usize,
            },
        }
    }

    /// The name as written in manifests and messages.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F8e4m3fn => "f8e4m3fn",
            DType::F8e4m3fnuz => "f8e4m3fnuz",
            DType::F8e5m2 => "f8e5m2",
            DType::F8e5m2fnuz => "f8e5m2fnuz",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
            DType::I4 => "i4",
            DType::U4 => "u4",
            DType::I2 => "i2",
            DType::U2 => "u2",
            DType::Complex64 => "complex64",
            DType::Complex128 => "complex128",
            DType::String => "string",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_are_the_display_names() {
        for dtype in DType::ALL {
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
        }
    }

    #[test]
    fn packed_types_round_up_to_whole_bytes() {
        assert_eq!(DType::I4.bytes_for(3), Some(2));
        assert_eq!(DType::U2.bytes_for(5), Some(2));
        assert_eq!(DType::I2.bytes_for(0), Some(0));
        assert_eq!(DType::F64.bytes_for(u64::MAX), None);
        assert_eq!(DType::String.bytes_for(1), None);
    }

    #[test]
    fn order_of_all_is_the_order_of_declaration() {
        assert!(DType::ALL.iter().enumerate().all(|(code, dtype)| *dtype as usize == code));
    }
}
