//! Vocabularies as model files carry them: tokens with their kinds, and what tells how to put them together.

use serde::{Deserialize, Serialize};

use crate::generate::GenerateError;

/// How tokens are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Byte-pair encoding by score over characters, spaces as `▁`, unknown characters as byte tokens: SentencePiece.
    SentencePiece,
    /// Byte-pair encoding by a list of merges over bytes that are written as printable characters: GPT-2.
    ByteLevel,
}

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Whatever the vocabulary cannot say.
    Unknown,
    /// A mark for the model that is no text: begin of text, end of turn.
    Control,
    /// A piece of text that is always one token.
    UserDefined,
    /// A place in the table that nothing uses.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

/// The marks that generation needs, and what surrounds a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Begins a text.
    pub begin: Option<u32>,
    /// Ends a text.
    pub end: Option<u32>,
    /// Stands for what the vocabulary cannot say.
    pub unknown: Option<u32>,
    /// Every token that ends an answer, `end` included.
    pub stops: Vec<u32>,
    /// A text begins with `begin`.
    pub add_begin: bool,
    /// A text ends with `end`.
    pub add_end: bool,
}

/// A vocabulary with merges or scores.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vocabulary {
    /// How tokens are put together.
    pub algorithm: Algorithm,
    /// Name of the pre-tokenizer, for byte-level vocabularies.
    pub pre_tokenizer: String,
    /// Texts of the tokens by number.
    pub tokens: Vec<String>,
    /// Kinds of the tokens.
    pub kinds: Vec<TokenKind>,
    /// Scores of the tokens, for SentencePiece: the pair that makes the token of the highest score merges first.
    pub scores: Vec<f32>,
    /// Pairs of texts with a space between them, the first ones merge first; for byte-level vocabularies.
    pub merges: Vec<String>,
    /// A text begins as if a space stood before it.
    pub add_space: bool,
    /// Control tokens to which the white space after them belongs.
    pub strip_after: Vec<u32>,
    /// Begin, end and the like.
    pub marks: Marks,
}

/// Texts of tokens that end an answer in one family or another; a model can name only one of them as its end.
const STOPS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "</s>",
    "<|return|>",
    "<|call|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|user_end|>",
    "<｜end▁of▁sentence｜>",
    "[EOT]",
    "[EOS]",
    "<|end_of_role_end|>",
    "<turn|>",
];

impl Marks {
    /// Completes `stops`: the end itself and the tokens of the vocabulary that end an answer in some family, as far as
    /// they are no plain text.
    pub fn find_stops<'t>(&mut self, tokens: impl Iterator<Item = (u32, &'t str, TokenKind)>) {
        self.stops.extend(self.end);
        for (token, text, kind) in tokens {
            if matches!(kind, TokenKind::Control | TokenKind::UserDefined) && STOPS.contains(&text) {
                self.stops.push(token);
            }
        }
        self.stops.sort_unstable();
        self.stops.dedup();
    }
}

impl Vocabulary {
    /// Checks that the parts fit together: one kind a token, marks inside the vocabulary.
    pub fn check(&self) -> Result<(), GenerateError> {
        let fail = |reason: String| Err(GenerateError::Tokenizer(reason));
        let size = self.tokens.len();
        if size == 0 {
            return fail("the vocabulary is empty".into());
        }
        if u32::try_from(size).is_err() {
            return fail(format!("{size} tokens are more than 32 bits can number"));
        }
        if self.kinds.len() != size {
            return fail(format!("{} token types for {size} tokens", self.kinds.len()));
        }
        if self.algorithm == Algorithm::SentencePiece && self.scores.len() != size {
            return fail(format!("{} scores for {size} tokens", self.scores.len()));
        }
        let marks = &self.marks;
        let named = [marks.begin, marks.end, marks.unknown].into_iter().flatten();
        for token in named.chain(marks.stops.iter().copied()) {
            if token as usize >= size {
                return Err(GenerateError::Token { token, size });
            }
        }
        Ok(())
    }
}
