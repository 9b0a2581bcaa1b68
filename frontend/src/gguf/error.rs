//! What can be wrong with a file.

use super::encoding::Encoding;

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be mapped.
    #[error("{0}")]
    Io(std::io::Error),
    /// The file does not start with the magic number.
    #[error("not a GGUF file: it does not start with 'GGUF'")]
    Magic,
    /// The byte order is that of other machines.
    #[error("a big-endian GGUF file; only little-endian files are read")]
    BigEndian,
    /// A version of the format that is not read.
    #[error("GGUF version {0} is not supported, only 2 and 3")]
    Version(u32),
    /// The file ends too early.
    #[error("the file is truncated: {what} at byte {offset} takes {needed} bytes and {available} are left")]
    Truncated {
        /// What is read there.
        what: &'static str,
        /// Where.
        offset: usize,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are there.
        available: usize,
    },
    /// A count that the file cannot hold.
    #[error("the file declares {count} {what}, and has room for {limit} at most")]
    Count {
        /// What is counted.
        what: &'static str,
        /// As declared.
        count: u64,
        /// The most that fit.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} at byte {offset} is not UTF-8")]
    Text {
        /// What is read there.
        what: &'static str,
        /// Where.
        offset: usize,
    },
    /// Two metadata entries of one name.
    #[error("the metadata key '{0}' occurs twice")]
    DuplicateKey(String),
    /// A metadata value of an unknown type.
    #[error("the metadata value '{key}' has the unknown type number {code}")]
    ValueType {
        /// The key.
        key: String,
        /// Type number.
        code: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("the metadata value '{key}' is the truth value {value}, which is neither 0 nor 1")]
    Truth {
        /// The key.
        key: String,
        /// The byte.
        value: u8,
    },
    /// An array of arrays.
    #[error("the metadata value '{0}' is an array of arrays")]
    NestedArray(String),
    /// An alignment that is not a power of two from 8 to 2^20.
    #[error("general.alignment is {0}, expected a power of two from 8 to 1048576")]
    Alignment(String),
    /// A tensor without or with too many dimensions.
    #[error("tensor '{name}' has {rank} dimensions, expected 1 to 4")]
    Rank {
        /// The tensor.
        name: String,
        /// As declared.
        rank: u32,
    },
    /// A tensor too large to address.
    #[error("tensor '{name}' of shape {shape:?} is too large to address")]
    Shape {
        /// The tensor.
        name: String,
        /// As declared, outermost first.
        shape: Vec<u64>,
    },
    /// An encoding that is not read.
    #[error(
        "tensor '{name}' has the encoding {encoding}, which is not supported; supported: {}",
        Encoding::supported()
    )]
    Encoding {
        /// The tensor.
        name: String,
        /// Its name or number.
        encoding: String,
    },
    /// Rows that are not whole blocks.
    #[error(
        "tensor '{name}' has rows of {row} elements, which are no whole blocks of {block} as {format} has them"
    )]
    Row {
        /// The tensor.
        name: String,
        /// Elements in a row.
        row: u64,
        /// The encoding.
        format: &'static str,
        /// Elements in a block.
        block: usize,
    },
    /// An offset that is no multiple of the alignment.
    #[error("tensor '{name}' has offset {offset}, which is no multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// From the start of the data.
        offset: u64,
        /// As declared or 32.
        alignment: u64,
    },
    /// A tensor that is not inside the file.
    #[error(
        "tensor '{name}' takes {bytes} bytes from offset {offset}, and the file has {available} bytes of data"
    )]
    Outside {
        /// The tensor.
        name: String,
        /// From the start of the data.
        offset: u64,
        /// Its size.
        bytes: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Two tensors of one name.
    #[error("two tensors are called '{0}'")]
    DuplicateTensor(String),
    /// A file that is one of several.
    #[error("a model in several files: {0}")]
    Split(String),
    /// Two tensors share bytes.
    #[error("the tensors '{first}' and '{second}' overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
}
