//! Tokenizers of the `tokenizers` crate from vocabularies.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::vocabulary::{Algorithm, TokenKind, Vocabulary};
use super::{Pieces, Tokenizer, pre_tokenizer};
use crate::generate::GenerateError;

/// The character that stands for a space in SentencePiece vocabularies.
pub(super) const SPACE: char = '\u{2581}';

fn fail(error: impl std::fmt::Display) -> GenerateError {
    GenerateError::Tokenizer(error.to_string())
}

/// The tokenizer of a vocabulary.
pub fn tokenizer(vocabulary: &Vocabulary) -> Result<Tokenizer, GenerateError> {
    vocabulary.check()?;
    let ids: HashMap<&str, u32> = vocabulary.tokens.iter().map(String::as_str).zip(0u32..).collect();
    let mut inner = match vocabulary.algorithm {
        Algorithm::SentencePiece => sentence_piece(vocabulary, &ids)?,
        Algorithm::ByteLevel => byte_level(vocabulary, &ids)?,
    };
    inner.add_tokens(added_tokens(vocabulary)).map_err(fail)?;
    let byte_of = alphabet();
    let mut pieces = Pieces::default();
    for (text, kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
        match (kind, vocabulary.algorithm) {
            (TokenKind::Byte, _) => pieces.push(&[byte_token(text)?]),
            (TokenKind::Normal | TokenKind::Unused, Algorithm::SentencePiece) => {
                pieces.push(text.replace(SPACE, " ").as_bytes());
            }
            (TokenKind::Normal | TokenKind::Unused, Algorithm::ByteLevel) => {
                pieces.push(&unprintable(text, &byte_of));
            }
            (TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined, _) => {
                pieces.push(text.as_bytes())
            }
        }
    }
    let marks = vocabulary.marks.clone();
    Ok(Tokenizer {
        inner,
        pieces,
        kinds: vocabulary.kinds.clone(),
        prefix: marks.begin.filter(|_| marks.add_begin).into_iter().collect(),
        suffix: marks.end.filter(|_| marks.add_end).into_iter().collect(),
        marks,
        adds_space: vocabulary.add_space,
    })
}

/// Control and user-defined tokens, which are found in a text before anything else happens to it.
fn added_tokens(vocabulary: &Vocabulary) -> Vec<AddedToken> {
    let all = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
    all.filter(|((text, kind), _)| {
        !text.is_empty() && matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)
    })
    .map(|((text, kind), token)| {
        AddedToken::from(text.clone(), *kind != TokenKind::UserDefined)
            .normalized(false)
            .rstrip(vocabulary.strip_after.contains(&token))
    })
    .collect()
}

fn sentence_piece(
    vocabulary: &Vocabulary,
    ids: &HashMap<&str, u32>,
) -> Result<tokenizers::Tokenizer, GenerateError> {
    let unknown = vocabulary.marks.unknown.and_then(|token| vocabulary.tokens.get(token as usize)).cloned();
    let mut builder = BPE::builder()
        .vocab_and_merges(owned(ids), score_merges(vocabulary, ids))
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(unknown);
    }
    let mut tokenizer = tokenizers::Tokenizer::new(builder.build().map_err(fail)?);
    let spaces = Replace::new(" ", SPACE.to_string()).map_err(fail)?;
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if vocabulary.add_space {
        steps.push(Prepend::new(SPACE.to_string()).into());
    }
    steps.push(spaces.into());
    tokenizer.with_normalizer(Some(Normalizers::new(steps))).map_err(fail)?;
    Ok(tokenizer)
}

/// Every way to make a token from two others, in the order in which SentencePiece merges: the highest score of what is
/// made comes first.
fn score_merges(vocabulary: &Vocabulary, ids: &HashMap<&str, u32>) -> Vec<(String, String)> {
    let mut order: Vec<u32> = (0u32..).take(vocabulary.tokens.len()).collect();
    let score = |token: u32| vocabulary.scores[token as usize];
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)).then(a.cmp(b)));
    let mut merges = Vec::new();
    for token in order {
        let text = vocabulary.tokens[token as usize].as_str();
        // Of several tokens of one text only the last can be found.
        if ids.get(text) != Some(&token) {
            continue;
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((left.to_string(), right.to_string()));
            }
        }
    }
    merges
}

fn byte_level(
    vocabulary: &Vocabulary,
    ids: &HashMap<&str, u32>,
) -> Result<tokenizers::Tokenizer, GenerateError> {
    let family = pre_tokenizer::named(&vocabulary.pre_tokenizer)?;
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    let mut merged = String::new();
    for (index, merge) in vocabulary.merges.iter().enumerate() {
        // A space at the very front belongs to the first text.
        let cut = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
        let (left, right) = cut.map(|(at, _)| (&merge[..at], &merge[at + 1..])).ok_or_else(|| {
            fail(format!("merge {index} ('{merge}') is not two texts with a space between"))
        })?;
        merged.clear();
        merged.extend([left, right]);
        if let Some(missing) = [left, right, &merged].into_iter().find(|text| !ids.contains_key(text)) {
            let missing = missing.to_string();
            return Err(fail(format!(
                "merge {index} ('{merge}') needs the token '{missing}', which is missing"
            )));
        }
        merges.push((left.to_string(), right.to_string()));
    }
    let model = BPE::builder()
        .vocab_and_merges(owned(ids), merges)
        .ignore_merges(family.ignore_merges)
        .build()
        .map_err(fail)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for expression in family.expressions {
        let pattern = SplitPattern::Regex((*expression).to_string());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(fail)?;
        steps.push(split.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
    Ok(tokenizer)
}

/// The map as the `tokenizers` crate takes it.
fn owned(ids: &HashMap<&str, u32>) -> ahash::AHashMap<String, u32> {
    ids.iter().map(|(text, token)| ((*text).to_string(), *token)).collect()
}

/// The byte of a token `<0xNN>`.
pub(super) fn byte_token(text: &str) -> Result<u8, GenerateError> {
    text.strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        .ok_or_else(|| fail(format!("the byte token '{text}' is not of the form <0xNN>")))
}

/// The bytes behind the printable characters of byte-level vocabularies: printable Latin-1 stands for itself, the other
/// bytes follow in order from U+0100.
pub(super) fn alphabet() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let themselves = (0..=u8::MAX).filter(printable).map(|byte| (char::from(byte), byte));
    let others = (0..=u8::MAX).filter(|byte| !printable(byte));
    themselves.chain(('\u{100}'..).zip(others)).collect()
}

/// The bytes of a token of a byte-level vocabulary; characters outside of its alphabet stand for themselves.
pub(super) fn unprintable(text: &str, byte_of: &HashMap<char, u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of.get(&character) {
            Some(byte) => bytes.push(*byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}
