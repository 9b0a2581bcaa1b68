//! How a key-value cache lies in memory.
//!
//! The logical cache is `[slots, heads, d]` of `f32` numbers that were rounded to a [`CacheFormat`] when they were
//! appended. In memory, `block` consecutive slots of one head stand together, heads next, blocks outermost, so a block of
//! one slot is the token-major order and a block of a page is head-major inside the page. Within a block the order is
//! token by token (`rows`) or channel by channel (`columns`, which lets vector lanes be tokens). Integer formats hold one
//! `f16` scale for each token, head and [`SCALE_GROUP`] channels behind the codes of the block, in the order of the block:
//! a token's scales do not depend on its neighbours, so a later append never changes what is stored.

use std::fmt;
use std::str::FromStr;

use crate::attribute::{Attribute, AttributeValue};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::word_attribute;

/// Channels of a token and head that share a scale in the integer formats.
pub const SCALE_GROUP: i64 = 32;

word_attribute! {
    /// What a cached number is rounded to.
    CacheFormat {
        /// IEEE 754 binary32.
        F32 "f32",
        /// IEEE 754 binary16.
        F16 "f16",
        /// `code * scale` with codes in -127..=127; the scale is `f16(largest magnitude of the group / 127)`, a code
        /// `round_half_even(x / scale)`, 0 where the scale is 0.
        I8 "i8",
        /// As `i8` with codes in -7..=7; byte `j` of a group holds channel `j` plus 8 in the low half and channel
        /// `j + 16` plus 8 in the high half.
        I4 "i4",
    }
}

impl CacheFormat {
    /// True for the formats that store integer codes and scales.
    pub fn has_scales(self) -> bool {
        matches!(self, CacheFormat::I8 | CacheFormat::I4)
    }

    /// The largest code of an integer format.
    pub fn largest_code(self) -> Option<i64> {
        match self {
            CacheFormat::I8 => Some(127),
            CacheFormat::I4 => Some(7),
            CacheFormat::F32 | CacheFormat::F16 => None,
        }
    }

    /// Bits of one number without its share of a scale.
    pub fn bits(self) -> i64 {
        match self {
            CacheFormat::F32 => 32,
            CacheFormat::F16 => 16,
            CacheFormat::I8 => 8,
            CacheFormat::I4 => 4,
        }
    }

    /// Bytes of one token of one head.
    pub fn row_bytes(self, depth: &Dim) -> Dim {
        let codes = (depth.clone() * Dim::Const(self.bits())).floor_div(&Dim::Const(8));
        match self.has_scales() {
            true => codes + depth.floor_div(&Dim::Const(SCALE_GROUP)) * Dim::Const(2),
            false => codes,
        }
    }
}

word_attribute! {
    /// The order inside a block of a cache.
    CacheOrder {
        /// Token by token: `[block, d]`.
        Rows "rows",
        /// Channel by channel: `[d, block]`.
        Columns "columns",
    }
}

/// Format and layout of one cache tensor; in the text form `"f16 columns 16"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CacheStorage {
    /// What numbers are rounded to.
    pub format: CacheFormat,
    /// Order inside a block.
    pub order: CacheOrder,
    /// Slots in a block, at least 1.
    pub block: usize,
}

impl CacheStorage {
    /// Token-major storage: `[slots, heads, d]` as it is.
    pub fn plain(format: CacheFormat) -> CacheStorage {
        CacheStorage { format, order: CacheOrder::Rows, block: 1 }
    }

    /// Element type and shape of the memory of a cache of logical shape `[slots, heads, d]`: numbers for float formats,
    /// bytes for integer ones.
    pub fn memory(&self, slots: &Dim, heads: &Dim, depth: &Dim) -> (DType, Vec<Dim>) {
        let block = Dim::from(self.block);
        let blocks = slots.ceil_div(&block);
        let (rows, columns) = (block.clone(), depth.clone());
        let inner = match self.order {
            CacheOrder::Rows => [rows, columns],
            CacheOrder::Columns => [columns, rows],
        };
        let [outer, inner] = inner;
        match self.format {
            CacheFormat::F32 => (DType::F32, vec![blocks, heads.clone(), outer, inner]),
            CacheFormat::F16 => (DType::F16, vec![blocks, heads.clone(), outer, inner]),
            CacheFormat::I8 => (DType::I8, vec![blocks, heads.clone(), block * self.format.row_bytes(depth)]),
            CacheFormat::I4 => (DType::U8, vec![blocks, heads.clone(), block * self.format.row_bytes(depth)]),
        }
    }
}

impl fmt::Display for CacheStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.format.text(), self.order.text(), self.block)
    }
}

impl FromStr for CacheStorage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [format, order, block] = parts[..] else {
            return Err(format!(
                "'{text}' is not a format, an order and a number of slots, as in 'f16 rows 1'"
            ));
        };
        let word = |text: &str| AttributeValue::Text(text.to_string());
        let block = block.parse().ok().filter(|block| (1..=1 << 20).contains(block));
        Ok(CacheStorage {
            format: CacheFormat::from_value(&word(format))?,
            order: CacheOrder::from_value(&word(order))?,
            block: block.ok_or_else(|| format!("'{text}' has no number of slots in a block"))?,
        })
    }
}

impl Attribute for CacheStorage {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Text(self.to_string())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        String::from_value(value)?.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_refuses() {
        for text in ["f16 columns 16", "i4 rows 32", "f32 rows 1"] {
            assert_eq!(text.parse::<CacheStorage>().unwrap().to_string(), text);
        }
        for text in ["f16 rows", "f16 rows 0", "f15 rows 1", "f16 diagonals 1", "f16 rows -1", "f16 rows 1 1"]
        {
            assert!(text.parse::<CacheStorage>().is_err(), "{text}");
        }
    }

    #[test]
    fn memory_of_blocks() {
        let memory = |text: &str, slots: i64| {
            text.parse::<CacheStorage>().unwrap().memory(&Dim::Const(slots), &Dim::Const(3), &Dim::Const(64))
        };
        let shape = |extents: &[i64]| extents.iter().map(|extent| Dim::Const(*extent)).collect::<Vec<_>>();
        assert_eq!(memory("f16 columns 16", 33), (DType::F16, shape(&[3, 3, 64, 16])));
        assert_eq!(memory("f32 rows 1", 5), (DType::F32, shape(&[5, 3, 1, 64])));
        assert_eq!(memory("i8 rows 1", 5), (DType::I8, shape(&[5, 3, 68])));
        assert_eq!(memory("i4 columns 16", 16), (DType::U8, shape(&[1, 3, 16 * 36])));
    }
}
