//! What can go wrong between a prompt and its continuation.

/// An error of generation.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Vocabulary or `tokenizer.json` that make no tokenizer.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A pre-tokenizer that tcc does not know.
    #[error("tokenizer: unknown pre-tokenizer '{name}'; known are {known}")]
    PreTokenizer {
        /// As the model names it.
        name: String,
        /// All names, in order.
        known: String,
    },
    /// The tokenizer belongs to another model.
    #[error(
        "the tokenizer has {tokens} tokens and the model {logits} logits; a model has a logit for every token, so the \
         tokenizer belongs to another model"
    )]
    VocabularySize {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Logits of the model.
        logits: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token} is outside of the vocabulary of {size} tokens")]
    Token {
        /// The token.
        token: u32,
        /// Number of tokens.
        size: usize,
    },
    /// There is nothing to continue.
    #[error(
        "the prompt is empty, and the model has no token that begins a text; give at least one character"
    )]
    EmptyPrompt,
    /// The prompt and its continuation do not fit.
    #[error(
        "a prompt of {prompt} tokens leaves no room in a context of {context}; shorten it or give a larger --context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A context that the model was not made for.
    #[error("--context {asked}: the model was trained on at most {limit} tokens")]
    ContextTooLong {
        /// As asked for.
        asked: usize,
        /// What the model's description says.
        limit: usize,
    },
    /// A sequence that was dropped, more tokens than the context takes, or a full cache.
    #[error(transparent)]
    Sequence(#[from] tcc_runtime::SequenceError),
    /// Sampling before the model has seen anything.
    #[error("the sequence has no logits yet: extend it with at least one token first")]
    NoLogits,
    /// Nothing could be drawn from these logits.
    #[error("the logits are no numbers: {0}")]
    Logits(String),
    /// A sampling option out of its range.
    #[error("{option} {value}: {expected}")]
    Option {
        /// Name of the option on the command line.
        option: &'static str,
        /// As given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The model has no chat template.
    #[error(
        "the model has no chat template; give one with --template FILE, or use `tcc generate` on plain text"
    )]
    NoTemplate,
    /// A chat template that does not parse or fails.
    #[error("chat template{}: {reason}", line.map_or(String::new(), |line| format!(", line {line}")))]
    Template {
        /// Where, counted from 1.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A grammar or schema that does not compile, or that allows no further token.
    #[error("grammar: {0}")]
    Grammar(String),
    /// The file is no language model.
    #[error("{0}")]
    Model(String),
    /// The interpreter or the compiled program.
    #[error("step: {0}")]
    Step(String),
}
