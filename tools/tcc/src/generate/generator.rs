//! Sequences of a language model: create, extend, sample, fork, truncate, remove.
//!
//! A generator owns a model that is ready to run ([`Step`]) and the [`Sequences`] over its cache, which know what of the
//! cache belongs to which sequence. It keeps the logits behind the last token of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tcc_runtime::{Batch, Part, Sequences};
pub use tcc_runtime::{SequenceId, Wanted};

use super::sampler::Sampler;
use super::step::{Step, StepLimits};
use super::template::{ChatTemplate, Message};
use super::{GenerateError, Tokenizer};

/// Tokens by which a run extends a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Work<'t> {
    /// The sequence; each stands once in a run.
    pub sequence: SequenceId,
    /// The tokens, at least one.
    pub tokens: &'t [u32],
    /// Which logits are wanted.
    pub wanted: Wanted,
}

/// A language model with its tokenizer and sequences.
pub struct Generator {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    step: Box<dyn Step + Send>,
    limits: StepLimits,
    sequences: Sequences,
    /// The logits behind the last token, of sequences where they were wanted and that have not changed since.
    behind: BTreeMap<SequenceId, Vec<f32>>,
    batch: Batch,
    logits: Vec<f32>,
    model_time: Duration,
}

impl Generator {
    /// A generator over a model. The tokenizer may have fewer tokens than the model has logits, as some models pad their
    /// vocabulary, but not more.
    pub fn new(
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        step: Box<dyn Step + Send>,
    ) -> Result<Generator, GenerateError> {
        let limits = step.limits();
        if tokenizer.size() > limits.vocabulary {
            return Err(GenerateError::VocabularySize {
                tokens: tokenizer.size(),
                logits: limits.vocabulary,
            });
        }
        Ok(Generator {
            tokenizer,
            template,
            limits,
            sequences: Sequences::new(limits.slots, limits.page, limits.context),
            step,
            behind: BTreeMap::new(),
            batch: Batch::default(),
            logits: Vec::new(),
            model_time: Duration::ZERO,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a conversation, ready for the assistant's answer.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, GenerateError> {
        let template = self.template.as_ref().ok_or(GenerateError::NoTemplate)?;
        self.tokenizer.encode_chat(&template.render(messages, true)?)
    }

    /// What the model can take.
    pub fn limits(&self) -> StepLimits {
        self.limits
    }

    /// The model.
    pub fn step(&self) -> &dyn Step {
        self.step.as_ref()
    }

    /// The model, to measure its kernels.
    pub fn step_mut(&mut self) -> &mut dyn Step {
        self.step.as_mut()
    }

    /// Time that all runs of the model took so far.
    pub fn model_time(&self) -> Duration {
        self.model_time
    }

    /// Cache slots of the pages that no sequence uses.
    pub fn free_slots(&self) -> usize {
        self.sequences.free_pages() * self.limits.page
    }

    /// An empty sequence.
    pub fn create(&mut self) -> SequenceId {
        self.sequences.create()
    }

    /// A sequence that begins with these tokens as far as the cache still holds full pages of them, from sequences that
    /// go on or have ended; returns how many it has. The last token is always left to be run, for its logits.
    pub fn create_with(&mut self, tokens: &[u32]) -> (SequenceId, usize) {
        self.sequences.create_with(tokens)
    }

    /// The tokens of a sequence.
    pub fn tokens(&self, sequence: SequenceId) -> Result<&[u32], GenerateError> {
        Ok(self.sequences.tokens(sequence)?)
    }

    /// The logits behind the last token of a sequence.
    pub fn logits(&self, sequence: SequenceId) -> Result<&[f32], GenerateError> {
        self.tokens(sequence)?;
        self.behind.get(&sequence).map(Vec::as_slice).ok_or(GenerateError::NoLogits)
    }

    /// Runs tokens behind those that a sequence has, in chunks as large as the model takes.
    pub fn extend(&mut self, sequence: SequenceId, tokens: &[u32]) -> Result<(), GenerateError> {
        let length = self.tokens(sequence)?.len();
        let context = self.limits.context;
        if length + tokens.len() > context {
            return Err(GenerateError::PromptTooLong { prompt: length + tokens.len(), context });
        }
        let chunks = tokens.chunks(self.limits.run_tokens(tokens.len()));
        let last = chunks.len().saturating_sub(1);
        for (index, chunk) in chunks.enumerate() {
            let wanted = if index == last { Wanted::Last } else { Wanted::None };
            self.advance(&[Work { sequence, tokens: chunk, wanted }])?;
        }
        Ok(())
    }

    /// Chooses the next token of a sequence; [`Generator::extend`] appends it.
    pub fn sample(&self, sequence: SequenceId, sampler: &mut Sampler) -> Result<u32, GenerateError> {
        sampler.sample(self.logits(sequence)?, self.tokens(sequence)?, None)
    }

    /// A sequence of the same tokens that goes its own way. Both share their part of the cache; whoever is extended first
    /// gets a copy of the page that they share in part.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId, GenerateError> {
        let copy = self.sequences.fork(sequence)?;
        if let Some(logits) = self.behind.get(&sequence) {
            self.behind.insert(copy, logits.clone());
        }
        Ok(copy)
    }

    /// Keeps only the first `length` tokens of a sequence.
    pub fn truncate(&mut self, sequence: SequenceId, length: usize) -> Result<(), GenerateError> {
        if length < self.tokens(sequence)?.len() {
            self.sequences.truncate(sequence, length)?;
            self.behind.remove(&sequence);
        }
        Ok(())
    }

    /// Forgets a sequence.
    pub fn remove(&mut self, sequence: SequenceId) -> Result<(), GenerateError> {
        self.sequences.remove(sequence)?;
        self.behind.remove(&sequence);
        Ok(())
    }

    /// Runs the model once, on tokens of several sequences; at most [`StepLimits::tokens`] of them in all. Returns the
    /// wanted logits, a row for each token in the order of the work. Where it fails, the sequences are as they were.
    pub fn advance(&mut self, work: &[Work]) -> Result<&[f32], GenerateError> {
        self.check(work)?;
        let mut parts = Vec::with_capacity(work.len());
        let ran = self.append(work, &mut parts).and_then(|()| self.run(&parts));
        for Part { sequence, start, .. } in &parts {
            match &ran {
                Ok(()) => self.sequences.commit(*sequence, self.sequences.tokens(*sequence)?.len())?,
                Err(_) => self.sequences.truncate(*sequence, *start)?,
            }
        }
        ran?;
        let width = self.limits.vocabulary;
        let mut row = 0;
        for Work { sequence, tokens, wanted } in work {
            row += match wanted {
                Wanted::None => {
                    self.behind.remove(sequence);
                    continue;
                }
                Wanted::Last => 1,
                Wanted::All => tokens.len(),
            };
            let last = self.behind.entry(*sequence).or_default();
            last.clear();
            last.extend_from_slice(&self.logits[(row - 1) * width..row * width]);
        }
        Ok(&self.logits)
    }

    /// Refuses work that the model does not take.
    fn check(&self, work: &[Work]) -> Result<(), GenerateError> {
        let limits = self.limits;
        let total: usize = work.iter().map(|work| work.tokens.len()).sum();
        if total > limits.tokens || work.len() > limits.sequences {
            let reason = format!(
                "{total} tokens of {} sequences; the model takes {} of {}",
                work.len(),
                limits.tokens,
                limits.sequences
            );
            return Err(GenerateError::Step(reason));
        }
        for Work { sequence, tokens, .. } in work {
            let twice = work.iter().filter(|other| other.sequence == *sequence).count() > 1;
            if tokens.is_empty() || twice {
                return Err(GenerateError::Step("a sequence stands twice or without tokens in a run".into()));
            }
            if let Some(token) = tokens.iter().find(|token| **token as usize >= limits.vocabulary) {
                return Err(GenerateError::Token { token: *token, size: limits.vocabulary });
            }
        }
        Ok(())
    }

    /// Gives the tokens places in the cache; `parts` gets every sequence that was extended.
    fn append(&mut self, work: &[Work], parts: &mut Vec<Part>) -> Result<(), GenerateError> {
        for Work { sequence, tokens, wanted } in work {
            let start = self.sequences.tokens(*sequence)?.len();
            let copy = self.sequences.extend(*sequence, tokens)?;
            parts.push(Part { sequence: *sequence, start, wanted: *wanted });
            if let Some(copy) = copy {
                self.step.copy_page(copy)?;
            }
        }
        Ok(())
    }

    /// Runs the model; the logits are those of the outputs of the batch.
    fn run(&mut self, parts: &[Part]) -> Result<(), GenerateError> {
        self.sequences.fill_batch(parts, &mut self.batch)?;
        let start = Instant::now();
        self.step.run(&self.batch, &mut self.logits)?;
        self.model_time += start.elapsed();
        let (found, rows, width) = (self.logits.len(), self.batch.outputs.len(), self.limits.vocabulary);
        if found != rows * width {
            return Err(GenerateError::Step(format!("{found} logits for {rows} tokens of {width}")));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generator({:?}, {:?}, {:?})", self.tokenizer, self.limits, self.sequences)
    }
}

#[cfg(test)]
mod tests;
