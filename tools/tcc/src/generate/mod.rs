//! Text from language models: prompts in, continuations out.
//!
//! | module | holds |
//! |---|---|
//! | [`tokenizer`] | text to tokens and back, from GGUF vocabularies and `tokenizer.json` |
//! | [`template`] | chat templates |
//! | [`sampler`] | choosing a token |
//! | [`grammar`] | answers that follow a grammar |
//! | [`stream`] | text from tokens as they come, stop strings |
//! | [`step`] | one run of a model, whoever executes it |
//! | [`generator`] | sequences: create, extend, sample, fork, truncate, remove |
//! | [`serve`] | many prompts at once |
//! | [`evaluate`], [`measure`] | perplexity, speed |
//! | [`model`] | models from files and bundles, ready to generate |
//! | [`compiled`], [`interpreted`] | what runs a model |

pub mod compiled;
pub mod error;
pub mod evaluate;
pub mod generator;
pub mod grammar;
pub mod interpreted;
pub mod measure;
pub mod model;
pub mod sampler;
pub mod serve;
pub mod step;
pub mod stream;
pub mod template;
pub mod tokenizer;
#[cfg(test)]
mod toy;

pub use error::GenerateError;
pub use generator::{Generator, SequenceId};
pub use model::{CompiledLanguageModel, LoadedLanguageModel};
pub use sampler::{Sampler, Sampling};
pub use template::{ChatTemplate, Message};
pub use tokenizer::Tokenizer;
