//! Sequences of a language model: create, extend, sample, fork, truncate, remove.
//!
//! A generator owns a model that is ready to run ([`Step`]) and knows which pages of its cache belong to which sequence.
//! A sequence remembers its tokens and the logits behind its last one. Forks share the pages that both have filled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pages::Pages;
use super::sampler::Sampler;
use super::step::{Batch, Step, StepLimits};
use super::template::{ChatTemplate, Message};
use super::{GenerateError, Tokenizer};

/// Names a sequence of one generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// Which logits of some tokens are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    None,
    /// Those behind the last token.
    Last,
    /// Those behind every token.
    All,
}

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

/// One sequence.
#[derive(Debug, Default)]
struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<u32>,
    /// Behind the last token; empty where they were not wanted or the sequence was changed since.
    logits: Vec<f32>,
}

/// A language model with its tokenizer and sequences.
pub struct Generator {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    step: Box<dyn Step + Send>,
    limits: StepLimits,
    pages: Pages,
    sequences: BTreeMap<SequenceId, Sequence>,
    created: u64,
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
            pages: Pages::new(limits.slots / limits.page.max(1)),
            step,
            sequences: BTreeMap::new(),
            created: 0,
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
        self.pages.free() * self.limits.page
    }

    /// An empty sequence.
    pub fn create(&mut self) -> SequenceId {
        let id = SequenceId(self.created);
        self.created += 1;
        self.sequences.insert(id, Sequence::default());
        id
    }

    /// The tokens of a sequence.
    pub fn tokens(&self, sequence: SequenceId) -> Result<&[u32], GenerateError> {
        Ok(&self.get(sequence)?.tokens)
    }

    /// The logits behind the last token of a sequence.
    pub fn logits(&self, sequence: SequenceId) -> Result<&[f32], GenerateError> {
        let logits = &self.get(sequence)?.logits;
        if logits.is_empty() { Err(GenerateError::NoLogits) } else { Ok(logits) }
    }

    /// Runs tokens behind those that a sequence has, in chunks as large as the model takes.
    pub fn extend(&mut self, sequence: SequenceId, tokens: &[u32]) -> Result<(), GenerateError> {
        let length = self.get(sequence)?.tokens.len();
        let context = self.limits.context;
        if length + tokens.len() > context {
            return Err(GenerateError::PromptTooLong { prompt: length + tokens.len(), context });
        }
        let chunks = tokens.chunks(self.limits.tokens);
        let last = chunks.len().saturating_sub(1);
        for (index, chunk) in chunks.enumerate() {
            let wanted = if index == last { Wanted::Last } else { Wanted::None };
            self.advance(&[Work { sequence, tokens: chunk, wanted }])?;
        }
        Ok(())
    }

    /// Chooses the next token of a sequence; [`Generator::extend`] appends it.
    pub fn sample(&self, sequence: SequenceId, sampler: &mut Sampler) -> Result<u32, GenerateError> {
        let known = self.get(sequence)?;
        sampler.sample(self.logits(sequence)?, &known.tokens, None)
    }

    /// A sequence of the same tokens that goes its own way. Full pages are shared; the tokens of the last page are run
    /// again.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId, GenerateError> {
        let original = self.get(sequence)?;
        let tokens = original.tokens.clone();
        let logits = original.logits.clone();
        let whole = tokens.len() / self.limits.page * self.limits.page;
        let copy = self.fork_prefix(sequence, whole)?;
        if let Err(error) = self.extend(copy, &tokens[whole..]) {
            self.remove(copy)?;
            return Err(error);
        }
        self.get_mut(copy)?.logits = logits;
        Ok(copy)
    }

    /// A sequence of the first `length` tokens of another one, whose pages they share; a multiple of the page size.
    pub fn fork_prefix(&mut self, sequence: SequenceId, length: usize) -> Result<SequenceId, GenerateError> {
        let page = self.limits.page;
        let original = self.get(sequence)?;
        if !length.is_multiple_of(page) || length > original.tokens.len() {
            let reason = format!("{length} tokens are no whole pages of {page} of the sequence");
            return Err(GenerateError::Step(reason));
        }
        let (tokens, pages) = (original.tokens[..length].to_vec(), original.pages[..length / page].to_vec());
        self.pages.share(&pages);
        let copy = self.create();
        self.sequences.insert(copy, Sequence { tokens, pages, logits: Vec::new() });
        Ok(copy)
    }

    /// Keeps only the first `length` tokens of a sequence.
    ///
    /// Where they end inside of a page that another sequence shares, the tokens of that page are forgotten as well and run
    /// again.
    pub fn truncate(&mut self, sequence: SequenceId, length: usize) -> Result<(), GenerateError> {
        let page = self.limits.page;
        let known = self.get_mut(sequence)?;
        if length >= known.tokens.len() {
            return Ok(());
        }
        known.logits.clear();
        let kept = length.div_ceil(page);
        let shared = !length.is_multiple_of(page);
        let removed = known.pages.split_off(kept);
        let tail = known.tokens[length / page * page..length].to_vec();
        known.tokens.truncate(length);
        let last = known.pages.last().copied();
        self.pages.release(&removed);
        if let Some(last) = last.filter(|last| shared && self.pages.is_shared(*last)) {
            let known = self.get_mut(sequence)?;
            known.pages.pop();
            known.tokens.truncate(length / page * page);
            self.pages.release(&[last]);
            self.extend(sequence, &tail)?;
        }
        Ok(())
    }

    /// Forgets a sequence.
    pub fn remove(&mut self, sequence: SequenceId) -> Result<(), GenerateError> {
        let known = self.sequences.remove(&sequence).ok_or(GenerateError::NoSequence(sequence.0))?;
        self.pages.release(&known.pages);
        Ok(())
    }

    /// Runs the model once, on tokens of several sequences; at most [`StepLimits::tokens`] of them in all. Returns the
    /// wanted logits, a row for each token in the order of the work.
    pub fn advance(&mut self, work: &[Work]) -> Result<&[f32], GenerateError> {
        self.make_batch(work)?;
        let taken = work.iter().map(|work| self.take_pages(work)).collect::<Result<Vec<()>, _>>();
        if let Err(error) = taken {
            self.give_back_unused(work)?;
            return Err(error);
        }
        self.fill_places(work)?;
        let mut logits = std::mem::take(&mut self.logits);
        let start = Instant::now();
        let ran = self.step.run(&self.batch, &mut logits);
        self.model_time += start.elapsed();
        self.logits = logits;
        if let Err(error) = ran {
            self.give_back_unused(work)?;
            return Err(error);
        }
        let width = self.limits.vocabulary;
        if self.logits.len() != self.batch.outputs.len() * width {
            let (found, rows) = (self.logits.len(), self.batch.outputs.len());
            return Err(GenerateError::Step(format!("{found} logits for {rows} tokens of {width}")));
        }
        let mut row = 0;
        for Work { sequence, tokens, wanted } in work {
            let rows = match wanted {
                Wanted::None => 0,
                Wanted::Last => 1,
                Wanted::All => tokens.len(),
            };
            let known = self.sequences.get_mut(sequence).ok_or(GenerateError::NoSequence(sequence.0))?;
            known.tokens.extend_from_slice(tokens);
            known.logits.clear();
            row += rows;
            if rows > 0 {
                known.logits.extend_from_slice(&self.logits[(row - 1) * width..row * width]);
            }
        }
        Ok(&self.logits)
    }

    /// Checks the work and writes what of the batch does not depend on pages.
    fn make_batch(&mut self, work: &[Work]) -> Result<(), GenerateError> {
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
        let batch = &mut self.batch;
        for list in [&mut batch.tokens, &mut batch.positions, &mut batch.rows, &mut batch.outputs] {
            list.clear();
        }
        for (row, Work { sequence, tokens, wanted }) in (0i64..).zip(work) {
            let known = self.sequences.get(sequence).ok_or(GenerateError::NoSequence(sequence.0))?;
            let twice = work.iter().filter(|other| other.sequence == *sequence).count() > 1;
            if tokens.is_empty() || twice {
                return Err(GenerateError::Step("a sequence stands twice or without tokens in a run".into()));
            }
            let start = known.tokens.len();
            if start + tokens.len() > limits.context {
                return Err(GenerateError::ContextFull { context: limits.context });
            }
            if let Some(token) = tokens.iter().find(|token| **token as usize >= limits.vocabulary) {
                return Err(GenerateError::Token { token: *token, size: limits.vocabulary });
            }
            let before = batch.tokens.len() as i64;
            batch.tokens.extend(tokens.iter().map(|token| i64::from(*token)));
            batch.positions.extend((start..start + tokens.len()).map(|position| position as i64));
            batch.rows.extend(tokens.iter().map(|_| row));
            let after = before + tokens.len() as i64;
            match wanted {
                Wanted::None => {}
                Wanted::Last => batch.outputs.push(after - 1),
                Wanted::All => batch.outputs.extend(before..after),
            }
        }
        Ok(())
    }

    /// Gives a sequence the pages that its new tokens need.
    fn take_pages(&mut self, work: &Work) -> Result<(), GenerateError> {
        let known =
            self.sequences.get_mut(&work.sequence).ok_or(GenerateError::NoSequence(work.sequence.0))?;
        let needed = (known.tokens.len() + work.tokens.len()).div_ceil(self.limits.page);
        while known.pages.len() < needed {
            let page = self.pages.take().ok_or(GenerateError::CacheFull { slots: self.limits.slots })?;
            known.pages.push(page);
        }
        Ok(())
    }

    /// Takes back pages that hold no token.
    fn give_back_unused(&mut self, work: &[Work]) -> Result<(), GenerateError> {
        let page = self.limits.page;
        for Work { sequence, .. } in work {
            let known = self.get_mut(*sequence)?;
            let unused = known.pages.split_off(known.tokens.len().div_ceil(page).min(known.pages.len()));
            self.pages.release(&unused);
        }
        Ok(())
    }

    /// Writes slots and block table.
    fn fill_places(&mut self, work: &[Work]) -> Result<(), GenerateError> {
        let page = self.limits.page;
        let mut widest = 1;
        for Work { sequence, .. } in work {
            widest = widest.max(self.get(*sequence)?.pages.len());
        }
        // A table that grows by doubling changes shape seldom, and a new shape costs a session new memory.
        let columns = widest.next_power_of_two().min(self.limits.context.div_ceil(page).max(widest));
        let batch = &mut self.batch;
        batch.slots.clear();
        batch.block_table.clear();
        (batch.sequences, batch.pages) = (work.len(), columns);
        for Work { sequence, tokens, .. } in work {
            let known = self.sequences.get(sequence).ok_or(GenerateError::NoSequence(sequence.0))?;
            batch.block_table.extend(known.pages.iter().map(|page| i64::from(*page)));
            // Columns beyond a sequence's pages are not read; zero is a page in any case.
            batch.block_table.resize(batch.block_table.len().next_multiple_of(columns), 0);
            let start = known.tokens.len();
            batch.slots.extend(
                (start..start + tokens.len())
                    .map(|position| (known.pages[position / page] as usize * page + position % page) as i64),
            );
        }
        Ok(())
    }

    fn get(&self, sequence: SequenceId) -> Result<&Sequence, GenerateError> {
        self.sequences.get(&sequence).ok_or(GenerateError::NoSequence(sequence.0))
    }

    fn get_mut(&mut self, sequence: SequenceId) -> Result<&mut Sequence, GenerateError> {
        self.sequences.get_mut(&sequence).ok_or(GenerateError::NoSequence(sequence.0))
    }
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generator({:?}, {:?}, {} sequences)", self.tokenizer, self.limits, self.sequences.len())
    }
}

#[cfg(test)]
mod tests;
