//! What a model says about its tokens: the vocabulary as it is stored, special tokens, the chat template.

use super::error::{LanguageModelError, Result};
use crate::gguf::{Array, Gguf, Value};
use crate::map::map_file;
use bytes::Bytes;
use serde_json::Value as Json;
use std::path::Path;

/// The vocabulary as the files have it.
#[derive(Clone, Debug)]
pub enum TokenizerData {
    /// The metadata of a GGUF file.
    Gguf(Box<Vocabulary>),
    /// The contents of `tokenizer.json`, for the `tokenizers` crate.
    Json(Bytes),
    /// The files have none.
    None,
}

/// A vocabulary in GGUF metadata (`tokenizer.ggml.*`).
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Kind: `gpt2` (byte-level pair encoding), `llama` (SentencePiece), `bert`, ...
    pub model: String,
    /// Name of the rule by which text is split first, for byte-level pair encoding.
    pub pre: Option<String>,
    /// The tokens, an array of texts.
    pub tokens: Array,
    /// A score each, for SentencePiece.
    pub scores: Option<Vec<f32>>,
    /// A type each: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub types: Option<Vec<i32>>,
    /// Merges `left right`, first one first, an array of texts.
    pub merges: Option<Array>,
    /// Whether a space is put in front of text.
    pub add_space_prefix: Option<bool>,
}

/// Tokens that stand for no text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SpecialTokens {
    /// Begin of text.
    pub begin: Option<u32>,
    /// Tokens that end a text or a turn; generation stops at any of them.
    pub end: Vec<u32>,
    /// What stands for unknown text.
    pub unknown: Option<u32>,
    /// Padding.
    pub padding: Option<u32>,
    /// Whether [`SpecialTokens::begin`] is put in front of text; `None` where the files do not say.
    pub add_begin: Option<bool>,
    /// Whether the first of [`SpecialTokens::end`] is put behind text.
    pub add_end: Option<bool>,
}

/// All about tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The vocabulary.
    pub data: TokenizerData,
    /// Special tokens.
    pub special: SpecialTokens,
    /// The Jinja template of conversations.
    pub chat_template: Option<String>,
}

/// What a GGUF file says.
///
/// # Errors
/// Lists of different length, or special tokens outside the vocabulary.
pub(super) fn of_gguf(file: &Gguf, vocabulary: usize) -> Result<Tokens> {
    let refuse = |key: &str, reason: String| LanguageModelError::Value {
        source_name: "the metadata",
        key: format!("tokenizer.ggml.{key}"),
        reason,
    };
    let value = |key: &str| file.value(&format!("tokenizer.ggml.{key}"));
    let token = |key: &str| -> Result<Option<u32>> {
        let Some(found) = value(key) else { return Ok(None) };
        match found.unsigned().filter(|token| *token < vocabulary as u64) {
            Some(token) => Ok(Some(token as u32)),
            // Converters write 2^32 - 1 for tokens that a model does not have.
            None if found.unsigned() == Some(u64::from(u32::MAX)) => Ok(None),
            None => Err(refuse(key, format!("{found:?}, and the vocabulary has {vocabulary} tokens"))),
        }
    };
    let mut end = Vec::new();
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        end.extend(token(key)?.filter(|token| !end.contains(token)));
    }
    let truth = |key: &str| value(key).and_then(Value::truth);
    let special = SpecialTokens {
        begin: token("bos_token_id")?,
        end,
        unknown: token("unknown_token_id")?,
        padding: token("padding_token_id")?,
        add_begin: truth("add_bos_token"),
        add_end: truth("add_eos_token"),
    };
    let chat_template = file.value("tokenizer.chat_template").and_then(Value::text).map(str::to_owned);
    let texts =
        |key: &str| value(key).and_then(Value::array).filter(|array| array.texts().is_some()).cloned();
    let (Some(model), Some(tokens)) = (value("model").and_then(Value::text), texts("tokens")) else {
        return Ok(Tokens { data: TokenizerData::None, special, chat_template });
    };
    let count = tokens.len();
    let numbers = |key: &str| -> Result<Option<Vec<f64>>> {
        let Some(array) = value(key).and_then(Value::array) else { return Ok(None) };
        let numbers: Option<Vec<f64>> =
            array.values().and_then(|values| values.map(|value| value.number()).collect());
        match numbers.filter(|numbers| numbers.len() == count) {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(refuse(key, format!("{array:?}, expected {count} numbers"))),
        }
    };
    let data = Vocabulary {
        model: model.to_owned(),
        pre: value("pre").and_then(Value::text).map(str::to_owned),
        scores: numbers("scores")?.map(|scores| scores.into_iter().map(|score| score as f32).collect()),
        types: numbers("token_type")?.map(|types| types.into_iter().map(|kind| kind as i32).collect()),
        merges: texts("merges"),
        add_space_prefix: truth("add_space_prefix"),
        tokens,
    };
    Ok(Tokens { data: TokenizerData::Gguf(Box::new(data)), special, chat_template })
}

/// What the files beside `config.json` say.
///
/// # Errors
/// A file that is there and is no JSON, or special tokens outside the vocabulary.
pub(super) fn of_folder(folder: &Path, config: &Json, vocabulary: usize) -> Result<Tokens> {
    let generation = json(folder, "generation_config.json")?.unwrap_or(Json::Null);
    let tokenizer = json(folder, "tokenizer_config.json")?.unwrap_or(Json::Null);
    // What is said about generation goes before what is said about the model.
    let ids = |key: &'static str| -> Result<Vec<u32>> {
        let text = config.get("text_config").unwrap_or(&Json::Null);
        let found = [&generation, config, text].into_iter().find_map(|object| match object.get(key) {
            None | Some(Json::Null) => None,
            Some(Json::Array(ids)) => Some(ids.clone()),
            Some(id) => Some(vec![id.clone()]),
        });
        let id = |id: &Json| id.as_u64().filter(|id| *id < vocabulary as u64).map(|id| id as u32);
        let refuse = |id: &Json| LanguageModelError::Value {
            source_name: "config.json",
            key: key.to_owned(),
            reason: format!("{id}, and the vocabulary has {vocabulary} tokens"),
        };
        // -1 and ids outside the vocabulary stand for no token in older configurations of padding.
        let lenient = key == "pad_token_id";
        let found = found.unwrap_or_default();
        found
            .iter()
            .filter(|one| !lenient || id(one).is_some())
            .map(|one| id(one).ok_or_else(|| refuse(one)))
            .collect()
    };
    let truth = |key: &str| tokenizer.get(key).and_then(Json::as_bool);
    let special = SpecialTokens {
        begin: ids("bos_token_id")?.first().copied(),
        end: ids("eos_token_id")?,
        unknown: None,
        padding: ids("pad_token_id")?.first().copied(),
        add_begin: truth("add_bos_token"),
        add_end: truth("add_eos_token"),
    };
    let path = folder.join("tokenizer.json");
    let data = if path.is_file() {
        TokenizerData::Json(map_file(&path).map_err(|source| LanguageModelError::Io { path, source })?)
    } else {
        TokenizerData::None
    };
    let path = folder.join("chat_template.jinja");
    let chat_template = if path.is_file() {
        Some(std::fs::read_to_string(&path).map_err(|source| LanguageModelError::Io { path, source })?)
    } else {
        template(&tokenizer)
    };
    Ok(Tokens { data, special, chat_template })
}

/// The template in `tokenizer_config.json`: a text, or named ones of which `default` counts.
fn template(tokenizer: &Json) -> Option<String> {
    let found = tokenizer.get("chat_template")?;
    let named = |found: &Json| -> Option<String> {
        let all = found.as_array()?;
        let default = all.iter().find(|one| one.get("name").and_then(Json::as_str) == Some("default"))?;
        default.get("template").and_then(Json::as_str).map(str::to_owned)
    };
    found.as_str().map(str::to_owned).or_else(|| named(found))
}

/// A JSON file of the folder; `None` where it is not there.
pub(super) fn json(folder: &Path, file: &'static str) -> Result<Option<Json>> {
    let path = folder.join(file);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = map_file(&path).map_err(|source| LanguageModelError::Io { path, source })?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(LanguageModelError::Json { file, reason: error.to_string() }),
    }
}
