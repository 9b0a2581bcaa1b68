//! From text to tokens and back.
//!
//! Cutting and merging is the work of the `tokenizers` crate; this module builds its tokenizers from vocabularies as GGUF
//! files carry them ([`vocabulary`]) and from `tokenizer.json`, and keeps the bytes of every token: text is put together
//! from bytes, so that characters which are cut by token boundaries come out whole ([`crate::generate::stream`]).

mod build;
mod json;
pub mod pre_tokenizer;
mod source;
pub mod vocabulary;

use serde::{Deserialize, Serialize};
use vocabulary::{Marks, TokenKind, Vocabulary};

use super::GenerateError;

/// What a tokenizer is made from, as artifacts store it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TokenizerSource {
    /// A vocabulary with merges or scores.
    Vocabulary(Vocabulary),
    /// The text of a `tokenizer.json`, with the marks that other files of its folder name.
    Json {
        /// The file.
        text: String,
        /// Begin, end and the like.
        marks: Marks,
    },
}

/// The bytes of all tokens, one after the other.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, token: u32) -> Option<&[u8]> {
        let index = token as usize;
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

/// A tokenizer of one model.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    kinds: Vec<TokenKind>,
    marks: Marks,
    /// Tokens before and after every text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// A space that the tokenizer puts before a text is no part of it.
    adds_space: bool,
}

impl Tokenizer {
    /// Builds the tokenizer.
    pub fn new(source: &TokenizerSource) -> Result<Tokenizer, GenerateError> {
        match source {
            TokenizerSource::Vocabulary(vocabulary) => build::tokenizer(vocabulary),
            TokenizerSource::Json { text, marks } => json::tokenizer(text, marks),
        }
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.kinds.len()
    }

    /// Begin, end and the like.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// True for a token that ends an answer.
    pub fn is_stop(&self, token: u32) -> bool {
        self.marks.stops.contains(&token)
    }

    /// What kind of token this is.
    pub fn kind(&self, token: u32) -> Option<TokenKind> {
        self.kinds.get(token as usize).copied()
    }

    /// The bytes that a token adds to a text; a control token's are its name.
    pub fn piece(&self, token: u32) -> Option<&[u8]> {
        self.pieces.get(token)
    }

    /// The bytes that a token adds to a text that people read: none for control tokens.
    pub fn visible(&self, token: u32) -> &[u8] {
        match self.kind(token) {
            Some(TokenKind::Control | TokenKind::Unused) | None => &[],
            Some(_) => self.piece(token).unwrap_or_default(),
        }
    }

    /// Whether the names of control tokens in a text are text; at first they are the control tokens.
    pub fn set_control_as_text(&mut self, on: bool) {
        self.inner.set_encode_special_tokens(on);
    }

    /// The tokens of a text, with the marks that the model expects around one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        let mut tokens = self.prefix.clone();
        tokens.extend(self.encode_bare(text)?);
        tokens.extend(&self.suffix);
        Ok(tokens)
    }

    /// The tokens of a text that a chat template made: the begin mark is added only where the template did not write it,
    /// and no end mark.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        let bare = self.encode_bare(text)?;
        if bare.starts_with(&self.prefix) {
            return Ok(bare);
        }
        Ok(self.prefix.iter().copied().chain(bare).collect())
    }

    /// The tokens of a text and nothing else.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| GenerateError::Tokenizer(error.to_string()))?;
        let tokens = encoding.get_ids().to_vec();
        match tokens.iter().find(|token| **token as usize >= self.size()) {
            Some(token) => Err(GenerateError::Token { token: *token, size: self.size() }),
            None => Ok(tokens),
        }
    }

    /// The text of tokens from the beginning of a text; control tokens are left out, and bytes that are no UTF-8 become
    /// replacement characters.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.visible(*token)).copied().collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match text.strip_prefix(' ') {
            Some(rest) if self.adds_space => rest.to_string(),
            _ => text,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.size())
    }
}

#[cfg(test)]
pub(crate) mod tests;
