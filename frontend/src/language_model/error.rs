//! Why a language model is refused.

use super::family;
use crate::gguf::GgufError;
use crate::safetensors::SafetensorsError;
use std::path::PathBuf;
use tcc_ir::data::DataError;
use tcc_ir::infer::InferError;

/// Why a model is refused.
#[derive(Debug, thiserror::Error)]
pub enum LanguageModelError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A GGUF file that is not well formed.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// Weights that are not well formed.
    #[error("{}: {source}", path.display())]
    Safetensors {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: SafetensorsError,
    },
    /// A JSON file that is not what it should be.
    #[error("{file}: {reason}")]
    Json {
        /// The file in the model's folder.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A folder or file that is no model.
    #[error("{}: {reason}", path.display())]
    NoModel {
        /// The folder or file.
        path: PathBuf,
        /// What was expected.
        reason: &'static str,
    },
    /// An architecture that is not in the table.
    #[error("the architecture '{0}' is not supported; known: {known}", known = family::known())]
    Architecture(String),
    /// A value that is missing.
    #[error("{source_name} does not have '{key}'")]
    MissingValue {
        /// `config.json`, or the metadata.
        source_name: &'static str,
        /// What is missing.
        key: String,
    },
    /// A value that is not usable.
    #[error("{source_name} has '{key}': {reason}")]
    Value {
        /// `config.json`, or the metadata.
        source_name: &'static str,
        /// Which value.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the description asks for.
    #[error("the weights lack '{name}', which a {family} model with this configuration has ({reason})")]
    MissingTensor {
        /// The name, with the alternatives.
        name: String,
        /// The family.
        family: &'static str,
        /// What asks for it.
        reason: String,
    },
    /// A tensor of another shape than the description asks for.
    #[error("tensor '{name}' has the shape {found:?}, the configuration makes it {expected:?} ({reason})")]
    Shape {
        /// The tensor.
        name: String,
        /// As stored, outermost first.
        found: Vec<usize>,
        /// As described.
        expected: Vec<usize>,
        /// Which values of the configuration say so.
        reason: String,
    },
    /// Tensors that the description has no use for.
    #[error("the weights have {}, which a {family} model with this configuration does not use", list(names))]
    Unused {
        /// The tensors.
        names: Vec<String>,
        /// The family.
        family: &'static str,
    },
    /// A tensor whose numbers cannot be used.
    #[error("tensor '{name}': {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Tensor contents that do not fit: a bug, as shapes are checked before.
    #[error("{0}")]
    Data(#[from] DataError),
    /// The function cannot be built: a bug, as shapes are checked before.
    #[error("{0}")]
    Build(#[from] InferError),
}

/// The first few of many names.
fn list(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(4).map(|name| format!("'{name}'")).collect();
    match names.len().saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Short for results of this module.
pub(super) type Result<T> = std::result::Result<T, LanguageModelError>;
