//! Block formats of quantized weights, as GGUF files hold them.
//!
//! A row of weights is a whole number of blocks; each block is `bytes()` bytes that decode to `elements()` numbers on
//! their own. The layouts are those of the ggml project (`ggml-common.h`, `ggml-quants.c`).

use std::ops::Range;

use crate::attribute::{Attribute, AttributeValue};
use crate::word_attribute;

word_attribute! {
    /// How a block of weights is stored.
    BlockFormat {
        /// 32 elements: f16 scale `d`, 4-bit codes; `d * (q - 8)`.
        Q4_0 "q4_0",
        /// 32 elements: f16 scale and minimum, 4-bit codes; `d * q + m`.
        Q4_1 "q4_1",
        /// 32 elements: f16 scale, fifth bits, 4-bit codes; `d * (q - 16)`.
        Q5_0 "q5_0",
        /// 32 elements: f16 scale and minimum, fifth bits, 4-bit codes; `d * q + m`.
        Q5_1 "q5_1",
        /// 32 elements: f16 scale, signed bytes; `d * q`.
        Q8_0 "q8_0",
        /// 256 elements: 4-bit scales and minima of 16, 2-bit codes, f16 `d` and `dmin`; `d * s * q - dmin * m`.
        Q2K "q2_k",
        /// 256 elements: third bits, 2-bit codes, 6-bit scales of 16, f16 `d`; `d * (s - 32) * (q - 4)`.
        Q3K "q3_k",
        /// 256 elements: f16 `d` and `dmin`, 6-bit scales and minima of 32, 4-bit codes; `d * s * q - dmin * m`.
        Q4K "q4_k",
        /// 256 elements: as `q4_k` with fifth bits.
        Q5K "q5_k",
        /// 256 elements: 4-bit and 2-bit halves of 6-bit codes, signed 8-bit scales of 16, f16 `d`; `d * s * (q - 32)`.
        Q6K "q6_k",
        /// 256 elements: f32 scale, signed bytes, sums of 16 that decoding does not need; `d * q`.
        Q8K "q8_k",
        /// 32 elements: f16 scale, 4-bit indices into a table of 16 values; `d * table[q]`.
        Iq4Nl "iq4_nl",
        /// 256 elements: f16 `d`, 6-bit scales of 32, indices as in `iq4_nl`; `d * (s - 32) * table[q]`.
        Iq4Xs "iq4_xs",
        /// 256 elements of -1, 0, 1: five to a byte in base 3 (the last 16 four to a byte), f16 scale.
        Tq1_0 "tq1_0",
        /// 256 elements of -1, 0, 1: four to a byte, f16 scale.
        Tq2_0 "tq2_0",
    }
}

impl BlockFormat {
    /// Numbers in a block.
    pub fn elements(self) -> usize {
        use BlockFormat as B;
        match self {
            B::Q4_0 | B::Q4_1 | B::Q5_0 | B::Q5_1 | B::Q8_0 | B::Iq4Nl => 32,
            B::Q2K | B::Q3K | B::Q4K | B::Q5K | B::Q6K | B::Q8K | B::Iq4Xs | B::Tq1_0 | B::Tq2_0 => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        use BlockFormat as B;
        match self {
            B::Q4_0 | B::Iq4Nl => 18,
            B::Q4_1 => 20,
            B::Q5_0 => 22,
            B::Q5_1 => 24,
            B::Q8_0 => 34,
            B::Q2K => 84,
            B::Q3K => 110,
            B::Q4K => 144,
            B::Q5K => 176,
            B::Q6K => 210,
            B::Q8K => 292,
            B::Iq4Xs => 136,
            B::Tq1_0 => 54,
            B::Tq2_0 => 66,
        }
    }

    /// Bytes of a row of `elements` numbers; `None` where the row is no whole number of blocks.
    pub fn row_bytes(self, elements: usize) -> Option<usize> {
        elements
            .is_multiple_of(self.elements())
            .then(|| elements / self.elements())?
            .checked_mul(self.bytes())
    }

    /// Numbers in a row of so many bytes; `None` where the row is no whole number of blocks.
    pub fn row_elements(self, bytes: usize) -> Option<usize> {
        bytes.is_multiple_of(self.bytes()).then(|| bytes / self.bytes())?.checked_mul(self.elements())
    }
}

word_attribute! {
    /// How a `block_contract` takes its activations.
    RowForm {
        /// As floats.
        Float "float",
        /// As bytes with a scale for each run.
        Int8 "int8",
        /// As two bytes, coarse and fine, with a scale for each run.
        Int16 "int16",
    }
}

impl RowForm {
    /// The largest code of a run of activations; `None` for floats.
    pub fn largest_code(self) -> Option<i64> {
        match self {
            RowForm::Float => None,
            RowForm::Int8 => Some(127),
            RowForm::Int16 => Some(127 * COARSE_STEP),
        }
    }

    /// Number of operands: `x`, or codes, scales and sums, and then fine codes.
    pub fn operands(self) -> usize {
        match self {
            RowForm::Float => 1,
            RowForm::Int8 => 3,
            RowForm::Int16 => 4,
        }
    }
}

/// What a step of the coarse codes of [`RowForm::Int16`] stands for, in steps of the fine ones.
pub const COARSE_STEP: i64 = 128;

/// How the weights of a `block_contract` are given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum WeightForm {
    /// One operand: rows of whole blocks, as for `decode_blocks`.
    Blocks(BlockFormat),
    /// Three operands as for `dequantize` along the last axis: integer codes, and a scale and a zero for each `block`.
    Affine {
        /// Codes along the last axis that share a scale and a zero.
        block: usize,
    },
}

const AFFINE: &str = "affine:";

impl Attribute for WeightForm {
    fn to_value(&self) -> AttributeValue {
        match self {
            WeightForm::Blocks(format) => format.to_value(),
            WeightForm::Affine { block } => AttributeValue::Text(format!("{AFFINE}{block}")),
        }
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Text(text) if text.starts_with(AFFINE) => {
                let block = text[AFFINE.len()..].parse();
                let block = block.map_err(|_| format!("'{text}' names no block length"))?;
                Ok(WeightForm::Affine { block })
            }
            other => BlockFormat::from_value(other).map(WeightForm::Blocks),
        }
    }
}

/// Positions of the operands of a `block_contract`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockOperands {
    /// The activations: `x`, or codes, scales and sums, and then fine codes.
    pub activations: Range<usize>,
    /// The weights: bytes, or codes, scale and zero.
    pub weights: Range<usize>,
    /// The expert of each row.
    pub experts: Option<usize>,
    /// The first further operand of the epilogue.
    pub rest: usize,
}

impl BlockOperands {
    /// The positions for attributes of the operator.
    pub fn of(weights: WeightForm, rows: RowForm, experts: bool) -> BlockOperands {
        let first = rows.operands();
        let count = match weights {
            WeightForm::Blocks(_) => 1,
            WeightForm::Affine { .. } => 3,
        };
        BlockOperands {
            activations: 0..first,
            weights: first..first + count,
            experts: experts.then_some(first + count),
            rest: first + count + usize::from(experts),
        }
    }
}

/// The values that the indices of `iq4_nl` and `iq4_xs` stand for.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        for format in BlockFormat::ALL {
            assert_eq!(format.row_bytes(format.elements() * 3), Some(format.bytes() * 3));
            assert_eq!(format.row_elements(format.bytes() * 3), Some(format.elements() * 3));
            assert_eq!(format.row_bytes(format.elements() + 1), None);
            assert_eq!(format.row_elements(format.bytes() + 1), None);
        }
    }
}
