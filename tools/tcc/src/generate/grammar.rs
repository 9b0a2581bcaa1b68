//! Grammars that an answer must follow, through the `llguidance` crate.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use super::GenerateError;
use super::tokenizer::Tokenizer;
use super::tokenizer::vocabulary::TokenKind;

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrammarSource {
    /// A grammar in the Lark-like notation of `llguidance`.
    Lark(String),
    /// A JSON schema.
    JsonSchema(String),
}

/// A grammar for one vocabulary; every text gets a [`GrammarState`] of its own.
pub struct Grammar {
    start: Matcher,
    size: usize,
}

/// How far a text has come in its grammar.
pub struct GrammarState {
    matcher: Matcher,
    size: usize,
}

/// The tokens that a grammar allows next.
#[derive(Debug)]
pub struct Allowed(SimpleVob);

impl Allowed {
    /// True for an allowed token.
    pub fn contains(&self, token: u32) -> bool {
        (token as usize) < self.0.len() && self.0.is_allowed(token)
    }
}

fn refuse(error: impl std::fmt::Display) -> GenerateError {
    GenerateError::Grammar(error.to_string())
}

impl Grammar {
    /// Compiles a grammar for a tokenizer. The end of an answer is the tokenizer's end token.
    pub fn new(source: &GrammarSource, tokenizer: &Tokenizer) -> Result<Grammar, GenerateError> {
        let environment = environment(tokenizer)?;
        let mut factory = ParserFactory::new_simple(&environment).map_err(refuse)?;
        factory.quiet();
        let grammar = match source {
            GrammarSource::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            GrammarSource::JsonSchema(text) => {
                let schema =
                    serde_json::from_str(text).map_err(|error| refuse(format!("JSON schema: {error}")))?;
                TopLevelGrammar::from_json_schema(schema)
            }
        };
        let start = Matcher::new(factory.create_parser(grammar));
        match start.get_error() {
            Some(error) => Err(refuse(error)),
            None => Ok(Grammar { start, size: tokenizer.size() }),
        }
    }

    /// The beginning of a text.
    pub fn start(&self) -> GrammarState {
        GrammarState { matcher: self.start.deep_clone(), size: self.size }
    }
}

impl GrammarState {
    /// The tokens that may come next; only the end token where the text is complete and nothing may follow.
    pub fn allowed(&mut self) -> Result<Allowed, GenerateError> {
        self.matcher.compute_mask_or_eos().map(Allowed).map_err(refuse)
    }

    /// True where nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// Goes on by a token.
    pub fn accept(&mut self, token: u32) -> Result<(), GenerateError> {
        if token as usize >= self.size {
            return Err(GenerateError::Token { token, size: self.size });
        }
        self.matcher.consume_token(token).map_err(refuse)
    }
}

impl Clone for GrammarState {
    fn clone(&self) -> GrammarState {
        GrammarState { matcher: self.matcher.deep_clone(), size: self.size }
    }
}

impl std::fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrammarState")
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Grammar({} tokens)", self.size)
    }
}

/// The tokens by their bytes.
fn environment(tokenizer: &Tokenizer) -> Result<TokEnv, GenerateError> {
    let marks = tokenizer.marks();
    let end = marks
        .end
        .or(marks.stops.first().copied())
        .ok_or_else(|| refuse("the model has no token that ends a text, so no grammar can end"))?;
    let size = u32::try_from(tokenizer.size()).map_err(refuse)?;
    let words: Vec<Vec<u8>> = (0..size)
        .map(|token| {
            let piece = tokenizer.piece(token).unwrap_or_default();
            match tokenizer.kind(token) {
                Some(TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte) => piece.to_vec(),
                // Marks are no text; the leading byte, which no text has, keeps them apart from it.
                _ => [&[TokTrie::SPECIAL_TOKEN_MARKER], piece].concat(),
            }
        })
        .collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}
