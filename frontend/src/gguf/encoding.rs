//! How tensors of a file store their numbers.

use std::fmt;
use tcc_ir::block_format::BlockFormat;
use tcc_ir::dtype::DType;

/// The numbers of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// One number after the other.
    Plain(DType),
    /// Blocks of quantized numbers along the rows.
    Blocks(BlockFormat),
}

/// The numbers that ggml gives its types, with what they are here.
const CODES: &[(u32, &str, Option<Encoding>)] = &[
    (0, "F32", Some(Encoding::Plain(DType::F32))),
    (1, "F16", Some(Encoding::Plain(DType::F16))),
    (2, "Q4_0", Some(Encoding::Blocks(BlockFormat::Q4_0))),
    (3, "Q4_1", Some(Encoding::Blocks(BlockFormat::Q4_1))),
    (6, "Q5_0", Some(Encoding::Blocks(BlockFormat::Q5_0))),
    (7, "Q5_1", Some(Encoding::Blocks(BlockFormat::Q5_1))),
    (8, "Q8_0", Some(Encoding::Blocks(BlockFormat::Q8_0))),
    (9, "Q8_1", None),
    (10, "Q2_K", Some(Encoding::Blocks(BlockFormat::Q2K))),
    (11, "Q3_K", Some(Encoding::Blocks(BlockFormat::Q3K))),
    (12, "Q4_K", Some(Encoding::Blocks(BlockFormat::Q4K))),
    (13, "Q5_K", Some(Encoding::Blocks(BlockFormat::Q5K))),
    (14, "Q6_K", Some(Encoding::Blocks(BlockFormat::Q6K))),
    (15, "Q8_K", Some(Encoding::Blocks(BlockFormat::Q8K))),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", Some(Encoding::Blocks(BlockFormat::Iq4Nl))),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", Some(Encoding::Blocks(BlockFormat::Iq4Xs))),
    (24, "I8", Some(Encoding::Plain(DType::I8))),
    (25, "I16", Some(Encoding::Plain(DType::I16))),
    (26, "I32", Some(Encoding::Plain(DType::I32))),
    (27, "I64", Some(Encoding::Plain(DType::I64))),
    (28, "F64", Some(Encoding::Plain(DType::F64))),
    (29, "IQ1_M", None),
    (30, "BF16", Some(Encoding::Plain(DType::BF16))),
    (34, "TQ1_0", Some(Encoding::Blocks(BlockFormat::Tq1_0))),
    (35, "TQ2_0", Some(Encoding::Blocks(BlockFormat::Tq2_0))),
    (39, "MXFP4", None),
];

impl Encoding {
    /// The encoding that a file calls by this number; the error names an encoding that is not supported.
    pub fn of_code(code: u32) -> Result<Encoding, String> {
        match CODES.iter().find(|(known, ..)| *known == code) {
            Some((_, _, Some(encoding))) => Ok(*encoding),
            Some((_, name, None)) => Err((*name).to_owned()),
            None => Err(format!("number {code}")),
        }
    }

    /// The number by which files call this encoding; `None` for types that no file has.
    pub fn code(self) -> Option<u32> {
        CODES.iter().find(|(.., known)| *known == Some(self)).map(|(code, ..)| *code)
    }

    /// The names of all encodings that are read.
    pub fn supported() -> String {
        let names: Vec<&str> =
            CODES.iter().filter(|(.., encoding)| encoding.is_some()).map(|(_, name, _)| *name).collect();
        names.join(", ")
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CODES.iter().find(|(.., known)| *known == Some(*self)) {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "{self:?}"),
        }
    }
}
