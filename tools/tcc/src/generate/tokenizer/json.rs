//! Tokenizers from `tokenizer.json`.

use serde::Deserialize;
use serde_json::Value;

use super::build::{SPACE, alphabet, byte_token, unprintable};
use super::vocabulary::{Marks, TokenKind};
use super::{Pieces, Tokenizer};
use crate::generate::GenerateError;

fn fail(error: impl std::fmt::Display) -> GenerateError {
    GenerateError::Tokenizer(format!("tokenizer.json: {error}"))
}

/// What of the file is looked at here; the rest is the crate's.
#[derive(Deserialize)]
struct File {
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
    continuing_subword_prefix: Option<String>,
}

/// A pair of texts, as older files write it with a space between and newer ones as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

/// How tokens spell bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    ByteLevel,
    SentencePiece,
}

/// The tokenizer of a `tokenizer.json`. Its post-processor decides what surrounds a text; `marks` adds what ends an
/// answer.
pub fn tokenizer(text: &str, marks: &Marks) -> Result<Tokenizer, GenerateError> {
    let file: File = serde_json::from_str(text).map_err(fail)?;
    check_merges(&file.model)?;
    let spelling = file
        .decoder
        .as_ref()
        .and_then(spelling)
        .ok_or_else(|| fail("its decoder is neither of bytes nor of SentencePiece pieces"))?;
    let inner = tokenizers::Tokenizer::from_bytes(text.as_bytes()).map_err(fail)?;
    let vocabulary = inner.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |last| *last as usize + 1);
    // Numbers may have holes, but a table of them must not become absurdly large.
    if size > 2 * vocabulary.len() + 65_536 {
        return Err(fail(format!("{} tokens are numbered up to {}", vocabulary.len(), size - 1)));
    }
    let mut texts = vec![String::new(); size];
    let mut kinds = vec![TokenKind::Unused; size];
    for (text, token) in vocabulary {
        kinds[token as usize] = match byte_token(&text) {
            Ok(_) if spelling == Spelling::SentencePiece => TokenKind::Byte,
            _ => TokenKind::Normal,
        };
        texts[token as usize] = text;
    }
    for (token, added) in inner.get_added_tokens_decoder() {
        if let Some(kind) = kinds.get_mut(token as usize) {
            *kind = if added.special { TokenKind::Control } else { TokenKind::UserDefined };
        }
    }
    let byte_of = alphabet();
    let mut pieces = Pieces::default();
    for (text, kind) in texts.iter().zip(&kinds) {
        match (kind, spelling) {
            (TokenKind::Byte, _) => pieces.push(&[byte_token(text)?]),
            (TokenKind::Normal, Spelling::ByteLevel) => pieces.push(&unprintable(text, &byte_of)),
            (TokenKind::Normal, Spelling::SentencePiece) => pieces.push(text.replace(SPACE, " ").as_bytes()),
            _ => pieces.push(text.as_bytes()),
        }
    }
    let (prefix, suffix) = surroundings(&inner)?;
    let mut marks = marks.clone();
    marks.begin = marks.begin.or(prefix.first().copied());
    (marks.add_begin, marks.add_end) = (!prefix.is_empty(), !suffix.is_empty());
    marks.find_stops(
        (0u32..).zip(&texts).zip(&kinds).map(|((token, text), kind)| (token, text.as_str(), *kind)),
    );
    if let Some(token) = marks.begin.iter().chain(&marks.stops).find(|token| **token as usize >= size) {
        return Err(GenerateError::Token { token: *token, size });
    }
    let adds_space = spelling == Spelling::SentencePiece && begins_with_space(&inner, &pieces)?;
    Ok(Tokenizer { inner, pieces, kinds, marks, prefix, suffix, adds_space })
}

/// The crate relies on every merge making a token.
fn check_merges(model: &Model) -> Result<(), GenerateError> {
    let Some(vocabulary) = model.vocab.as_object() else { return Ok(()) };
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or_default();
    for (index, merge) in model.merges.iter().enumerate() {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Text(text) => text
                .split_once(' ')
                .ok_or_else(|| fail(format!("merge {index} ('{text}') is not two texts")))?,
        };
        let rest = right
            .strip_prefix(prefix)
            .ok_or_else(|| fail(format!("merge {index}: '{right}' does not begin with '{prefix}'")))?;
        let merged = format!("{left}{rest}");
        for text in [left, right, &merged] {
            if !vocabulary.contains_key(text) {
                return Err(fail(format!(
                    "merge {index} ('{left}', '{right}') needs the token '{text}', which is missing"
                )));
            }
        }
    }
    Ok(())
}

/// What the decoder, or one of a sequence of decoders, says about bytes.
fn spelling(decoder: &Value) -> Option<Spelling> {
    match decoder.get("type")?.as_str()? {
        "ByteLevel" => Some(Spelling::ByteLevel),
        "ByteFallback" | "Metaspace" => Some(Spelling::SentencePiece),
        "Replace" => {
            (decoder.pointer("/pattern/String")?.as_str()? == "\u{2581}").then_some(Spelling::SentencePiece)
        }
        "Sequence" => decoder.get("decoders")?.as_array()?.iter().find_map(spelling),
        _ => None,
    }
}

/// The tokens that the post-processor puts before and after a text.
fn surroundings(inner: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), GenerateError> {
    let encode =
        |marks| inner.encode_fast("a", marks).map(|encoding| encoding.get_ids().to_vec()).map_err(fail);
    let (bare, whole) = (encode(false)?, encode(true)?);
    let before = (0..=whole.len().saturating_sub(bare.len()))
        .find(|start| whole[*start..].starts_with(&bare))
        .ok_or_else(|| fail("its post-processor changes the tokens of a text"))?;
    let after = before + bare.len();
    Ok((whole[..before].to_vec(), whole[after..].to_vec()))
}

/// True where the first piece of a text begins with a space that the text does not have.
fn begins_with_space(inner: &tokenizers::Tokenizer, pieces: &Pieces) -> Result<bool, GenerateError> {
    let encoding = inner.encode_fast("a", false).map_err(fail)?;
    let first = encoding.get_ids().first().and_then(|token| pieces.get(*token));
    Ok(first.is_some_and(|piece| piece.starts_with(b" ")))
}
