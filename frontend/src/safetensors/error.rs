//! What can be wrong with a file or a folder of files.

use std::path::PathBuf;
use tcc_ir::data::DataError;

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The file cannot be mapped.
    #[error("{0}")]
    Io(std::io::Error),
    /// The header is not inside the file.
    #[error("not a safetensors file: the header takes {length} bytes and {available} are there")]
    Header {
        /// As declared.
        length: u64,
        /// Bytes behind the length.
        available: usize,
    },
    /// The header is not what it should be.
    #[error("the header is damaged: {0}")]
    Json(String),
    /// An element type that the IR does not have.
    #[error("tensor '{name}' has the unknown element type '{dtype}'")]
    ElementType {
        /// The tensor.
        name: String,
        /// As the header has it.
        dtype: String,
    },
    /// A tensor that is not inside the file.
    #[error("tensor '{name}' takes the bytes {first}..{end}, and the file has {available} bytes of data")]
    Outside {
        /// The tensor.
        name: String,
        /// First byte.
        first: u64,
        /// The one behind the last.
        end: u64,
        /// Bytes of data in the file.
        available: usize,
    },
    /// A tensor whose bytes do not follow from its shape.
    #[error("tensor '{name}' of shape {shape:?} and type {dtype} has {found} bytes")]
    Length {
        /// The tensor.
        name: String,
        /// Element type.
        dtype: String,
        /// As declared.
        shape: Vec<u64>,
        /// Length of its range.
        found: u64,
    },
    /// A tensor that the IR refuses.
    #[error("tensor '{name}': {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Why.
        source: DataError,
    },
    /// Two tensors share bytes.
    #[error("the tensors '{first}' and '{second}' overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
    /// A file of a folder.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<SafetensorsError>,
    },
    /// A folder without weights.
    #[error("the folder has neither model.safetensors nor model.safetensors.index.json")]
    NoWeights,
    /// An index that is not what it should be.
    #[error("model.safetensors.index.json is damaged: {0}")]
    Index(String),
    /// An index that names a file outside the folder.
    #[error(
        "model.safetensors.index.json names the file '{0}', which is not a plain file name in the folder"
    )]
    Shard(String),
    /// A tensor that the index puts into a file that does not have it.
    #[error("model.safetensors.index.json says that '{name}' is in '{file}', which does not have it")]
    Missing {
        /// The tensor.
        name: String,
        /// The file.
        file: String,
    },
}
