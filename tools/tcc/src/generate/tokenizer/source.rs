//! Tokenizers from what a model's files say about tokens.

use tcc_frontend::language_model::{LanguageModel, SpecialTokens, TokenizerData, Vocabulary as Stored};

use super::vocabulary::{Algorithm, Marks, TokenKind, Vocabulary};
use super::{TokenizerSource, pre_tokenizer};
use crate::generate::GenerateError;

fn fail(reason: impl Into<String>) -> GenerateError {
    GenerateError::Tokenizer(reason.into())
}

impl TokenizerSource {
    /// The tokenizer of a model.
    pub fn of_model(model: &LanguageModel) -> Result<TokenizerSource, GenerateError> {
        let special = &model.tokens.special;
        match &model.tokens.data {
            TokenizerData::Gguf(stored) => {
                let mut vocabulary = vocabulary(stored, special)?;
                if model.decoder.family == "phi3" && vocabulary.algorithm == Algorithm::SentencePiece {
                    vocabulary.strip_after = strip_after(&vocabulary);
                }
                Ok(TokenizerSource::Vocabulary(vocabulary))
            }
            TokenizerData::Json(bytes) => {
                let text =
                    String::from_utf8(bytes.to_vec()).map_err(|_| fail("tokenizer.json is not UTF-8"))?;
                Ok(TokenizerSource::Json { text, marks: marks(special, false, None) })
            }
            TokenizerData::None => Err(fail(
                "the model has none; a GGUF file has to carry its vocabulary, a folder a tokenizer.json",
            )),
        }
    }
}

/// What the files say about marks, with what is usual for SentencePiece models where they say nothing.
fn marks(special: &SpecialTokens, spaced: bool, add_begin: Option<bool>) -> Marks {
    let or = |token: Option<u32>, usual: u32| token.or(spaced.then_some(usual));
    Marks {
        begin: or(special.begin, 1),
        end: or(special.end.first().copied(), 2),
        unknown: or(special.unknown, 0),
        stops: special.end.clone(),
        add_begin: special.add_begin.or(add_begin).unwrap_or(false),
        add_end: special.add_end.unwrap_or(false),
    }
}

/// A vocabulary as GGUF metadata has it.
fn vocabulary(stored: &Stored, special: &SpecialTokens) -> Result<Vocabulary, GenerateError> {
    let algorithm = match stored.model.as_str() {
        "llama" => Algorithm::SentencePiece,
        "gpt2" => Algorithm::ByteLevel,
        other => {
            return Err(fail(format!(
                "tokenizer.ggml.model is '{other}'; tcc knows llama (SentencePiece) and gpt2 (byte-level)"
            )));
        }
    };
    let texts = |array: &tcc_frontend::gguf::Array, key: &str| -> Result<Vec<String>, GenerateError> {
        let texts = array.texts().ok_or_else(|| fail(format!("tokenizer.ggml.{key} is no list of texts")))?;
        Ok(texts.map(str::to_string).collect())
    };
    let tokens = texts(&stored.tokens, "tokens")?;
    let kinds = match &stored.types {
        Some(codes) => codes.iter().map(|code| kind_of(*code)).collect::<Result<Vec<_>, _>>()?,
        None => vec![TokenKind::Normal; tokens.len()],
    };
    let pre_tokenizer = stored.pre.clone().unwrap_or_else(|| "default".into());
    let spaced = algorithm == Algorithm::SentencePiece;
    let (scores, merges, add_begin) = match algorithm {
        Algorithm::SentencePiece => {
            let scores = stored.scores.clone().ok_or_else(|| fail("tokenizer.ggml.scores is missing"))?;
            (scores, Vec::new(), true)
        }
        Algorithm::ByteLevel => {
            let merges = stored.merges.as_ref().ok_or_else(|| fail("tokenizer.ggml.merges is missing"))?;
            (Vec::new(), texts(merges, "merges")?, pre_tokenizer::named(&pre_tokenizer)?.add_bos)
        }
    };
    let mut marks = marks(special, spaced, Some(add_begin));
    let named = (0u32..).zip(&tokens).zip(&kinds);
    marks.find_stops(named.map(|((token, text), kind)| (token, text.as_str(), *kind)));
    let vocabulary = Vocabulary {
        algorithm,
        pre_tokenizer,
        tokens,
        kinds,
        scores,
        merges,
        add_space: spaced && stored.add_space_prefix.unwrap_or(true),
        strip_after: Vec::new(),
        marks,
    };
    vocabulary.check()?;
    Ok(vocabulary)
}

/// In Phi-3 vocabularies the white space after every control token but these is part of it; GGUF has no place for that.
fn strip_after(vocabulary: &Vocabulary) -> Vec<u32> {
    let plain = ["<unk>", "<s>", "<|endoftext|>"];
    let all = (0u32..).zip(&vocabulary.tokens).zip(&vocabulary.kinds);
    all.filter(|((_, text), kind)| **kind == TokenKind::Control && !plain.contains(&text.as_str()))
        .map(|((token, _), _)| token)
        .collect()
}

/// The types of tokens as GGUF numbers them.
fn kind_of(code: i32) -> Result<TokenKind, GenerateError> {
    Ok(match code {
        1 => TokenKind::Normal,
        2 => TokenKind::Unknown,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        5 => TokenKind::Unused,
        6 => TokenKind::Byte,
        _ => return Err(fail(format!("tokenizer.ggml.token_type has {code}; expected 1 to 6"))),
    })
}
