//! Language models: GGUF files and Hugging Face folders become one function in tensor IR.
//!
//! | step | module |
//! |---|---|
//! | which family, and what it leaves unsaid | [`family`], [`names`] |
//! | the description of the model | [`decoder`], [`rope`]; filled by `gguf` and `config` over `values` and `shape` |
//! | weights by role, packed integers | [`weights`], [`packed`] |
//! | the function | `build` |
//! | vocabulary, special tokens, chat template | [`tokenizer`] |
//!
//! A model is refused where its parts disagree: a tensor of another shape than the configuration makes it, one that is
//! missing, or one that the description has no use for.

mod build;
mod config;
pub mod decoder;
mod error;
pub mod family;
mod gguf;
pub mod names;
pub mod packed;
pub mod rope;
mod shape;
pub mod tokenizer;
mod values;
pub mod weights;

pub use build::ImportOptions;
pub use decoder::Decoder;
pub use error::LanguageModelError;
pub use tokenizer::{SpecialTokens, TokenizerData, Tokens, Vocabulary};

use crate::gguf::Gguf;
use crate::safetensors::Folder;
use config::Config;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use tcc_ir::module::Module;
use weights::Weights;

/// A language model that has been read and not yet imported.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    /// What it computes.
    pub decoder: Decoder,
    /// Its tokens.
    pub tokens: Tokens,
    weights: Weights,
}

impl LanguageModel {
    /// Reads a GGUF file, or a folder with `config.json` and safetensors files.
    ///
    /// # Errors
    /// The files are not well formed, the architecture is unknown, or they disagree.
    pub fn open(path: &Path) -> Result<LanguageModel, LanguageModelError> {
        if path.is_dir() {
            return LanguageModel::open_folder(path);
        }
        let file = Gguf::open_parts(path)
            .map_err(|source| LanguageModelError::Gguf { path: path.to_owned(), source })?;
        LanguageModel::from_gguf(&file)
    }

    /// A model in a GGUF file that is in memory.
    ///
    /// # Errors
    /// As [`LanguageModel::open`].
    pub fn from_gguf(file: &Gguf) -> Result<LanguageModel, LanguageModelError> {
        let family = gguf::family(file)?;
        let weights = Weights::gguf(file, family)?;
        let decoder = gguf::decoder(file, family, &weights)?;
        let tokens = tokenizer::of_gguf(file, decoder.vocabulary)?;
        Ok(LanguageModel { decoder, tokens, weights })
    }

    fn open_folder(path: &Path) -> Result<LanguageModel, LanguageModelError> {
        let Some(root) = tokenizer::json(path, "config.json")? else {
            let reason = "expected a folder with config.json and safetensors files";
            return Err(LanguageModelError::NoModel { path: path.to_owned(), reason });
        };
        let (config, family) = Config::new(&root)?;
        let folder = Folder::open(path)
            .map_err(|source| LanguageModelError::Safetensors { path: path.to_owned(), source })?;
        let weights = Weights::folder(folder.tensors, family, config.packing()?)?;
        let decoder = config.decoder(family, weights.count())?;
        let tokens = tokenizer::of_folder(path, &root, decoder.vocabulary)?;
        Ok(LanguageModel { decoder, tokens, weights })
    }

    /// The model function, as `language_model::build` describes it.
    ///
    /// # Errors
    /// The weights do not fit the description.
    pub fn import(&self, options: &ImportOptions) -> Result<Module, LanguageModelError> {
        build::module(&self.decoder, &self.weights, options)
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> usize {
        self.weights.tensors().map(|stored| stored.data.bytes().len()).sum()
    }
}

impl fmt::Display for LanguageModel {
    /// The description, and how the weights are stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.decoder)?;
        let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for stored in self.weights.tensors() {
            let kind = stored.format.map_or(stored.data.dtype().text(), |format| format.text());
            let (count, bytes) = kinds.entry(kind).or_default();
            *count += 1;
            *bytes += stored.data.bytes().len();
        }
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, (count, bytes))| format!("{kind} {bytes} bytes in {count}")).collect();
        write!(f, "  weights: {} bytes ({})", self.weight_bytes(), kinds.join(", "))
    }
}
