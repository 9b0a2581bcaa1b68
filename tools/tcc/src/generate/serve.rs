//! Many prompts at once: continuous batching.
//!
//! Each round runs the model once. Texts that are being written give one token each; what is left of the run's tokens
//! goes to prompts that are being read, in chunks. A text that ends makes room at once for the next prompt, and a prompt
//! is let in only when its pages are sure to be there to its end, so that nothing is ever thrown out again. A prompt that
//! begins like one that was read before shares its pages.
//!
//! What a text becomes does not depend on its neighbours, apart from rounding where a kernel for several tokens sums in
//! another order than one for a single token.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::GenerateError;
use super::generator::{Generator, SequenceId, Wanted, Work};
use super::grammar::{Grammar, GrammarState};
use super::sampler::{LogProbability, Sampler, Sampling, log_probability};
use super::stream::TextStream;

/// A prompt and how to go on from it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of the continuation.
    pub max_tokens: usize,
    /// Texts that end the continuation; they are no part of it.
    pub stops: Vec<String>,
    /// What the continuation must look like.
    pub grammar: Option<Arc<Grammar>>,
    /// Keep the probability of every token, and of this many most likely ones.
    pub log_probabilities: Option<usize>,
    /// Go on after tokens that end an answer.
    pub ignore_end: bool,
    /// Work in this sequence and leave it be at the end: what it has in common with the prompt is not read again.
    /// Without it a request has a sequence of its own.
    pub sequence: Option<SequenceId>,
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its answer, or the grammar did.
    End,
    /// A stop string was found.
    Stop,
    /// The most tokens were made.
    Length,
    /// The context is full.
    Context,
    /// Whoever takes the text wants no more.
    Cancelled,
}

impl Finish {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Finish::End => "end",
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The tokens, without one that ended the answer.
    pub tokens: Vec<u32>,
    /// Their text, up to a stop string.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Of each token, where they were asked for.
    pub log_probabilities: Vec<LogProbability>,
}

/// Hears text of a request as soon as it is certain, and says whether to go on.
pub type OnText<'a> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'a;

/// A request that is being worked on.
struct Active<'r> {
    index: usize,
    request: &'r Request,
    sequence: SequenceId,
    /// Prompt and continuation; those from `fed` on have not been run.
    tokens: Vec<u32>,
    fed: usize,
    sampler: Sampler,
    stream: TextStream,
    grammar: Option<GrammarState>,
    completion: Completion,
    finished: bool,
}

impl Active<'_> {
    fn waits_for_token(&self) -> bool {
        self.fed == self.tokens.len()
    }
}

/// Works on all requests and returns what became of them, in order. All are checked before the first is begun.
pub fn complete(
    generator: &mut Generator,
    requests: &[Request],
    on_text: &mut OnText,
) -> Result<Vec<Completion>, GenerateError> {
    for request in requests {
        check(generator, request)?;
    }
    let mut waiting = requests.iter().enumerate().peekable();
    let mut active: Vec<Active> = Vec::new();
    let mut done: Vec<Option<Completion>> = requests.iter().map(|_| None).collect();
    let result = loop {
        while let Some((index, request)) = waiting.peek().copied() {
            match admit(generator, &active, index, request) {
                Ok(Some(begun)) => {
                    waiting.next();
                    active.push(begun);
                }
                Ok(None) => break,
                Err(error) => return finish_with(generator, active, error),
            }
        }
        if active.is_empty() {
            break waiting.peek().is_none();
        }
        if let Err(error) = round(generator, &mut active, on_text) {
            return finish_with(generator, active, error);
        }
        for index in (0..active.len()).rev() {
            if active[index].finished {
                let ended = active.swap_remove(index);
                if ended.request.sequence.is_none() {
                    generator.remove(ended.sequence)?;
                }
                done[ended.index] = Some(ended.completion);
            }
        }
        // The order of the batch is that of the requests, whatever ended before.
        active.sort_by_key(|active| active.index);
    };
    let all: Option<Vec<Completion>> = done.into_iter().collect();
    all.filter(|_| result).ok_or_else(|| GenerateError::Step("a request fits into no run".into()))
}

/// Frees what is under way and passes the error on.
fn finish_with<T>(
    generator: &mut Generator,
    active: Vec<Active>,
    error: GenerateError,
) -> Result<T, GenerateError> {
    for active in active.iter().filter(|active| active.request.sequence.is_none()) {
        generator.remove(active.sequence)?;
    }
    Err(error)
}

/// Tokens that a request may need in the cache; the last token of a continuation is not run.
fn reserve(generator: &Generator, request: &Request) -> usize {
    let longest = request.prompt.len().saturating_add(request.max_tokens.saturating_sub(1));
    longest.min(generator.limits().context)
}

fn check(generator: &Generator, request: &Request) -> Result<(), GenerateError> {
    let limits = generator.limits();
    request.sampling.check()?;
    if request.prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if request.prompt.len() >= limits.context {
        return Err(GenerateError::PromptTooLong { prompt: request.prompt.len(), context: limits.context });
    }
    match request.prompt.iter().find(|token| **token as usize >= limits.vocabulary) {
        Some(token) => Err(GenerateError::Token { token: *token, size: limits.vocabulary }),
        None => Ok(()),
    }
}

/// Begins a request if there is room; `None` where it has to wait.
fn admit<'r>(
    generator: &mut Generator,
    active: &[Active],
    index: usize,
    request: &'r Request,
) -> Result<Option<Active<'r>>, GenerateError> {
    let limits = generator.limits();
    let pages = |tokens: usize| tokens.div_ceil(limits.page);
    let promised: usize = active.iter().map(|active| pages(reserve(generator, active.request))).sum();
    let room = promised + pages(reserve(generator, request)) <= limits.slots / limits.page;
    if active.len() >= limits.sequences || !(room || active.is_empty()) {
        return Ok(None);
    }
    // The last token is run in any case: its logits are wanted.
    let before_last = &request.prompt[..request.prompt.len() - 1];
    let common = |tokens: &[u32]| tokens.iter().zip(before_last).take_while(|(a, b)| a == b).count();
    let (sequence, fed) = match request.sequence {
        Some(sequence) => {
            let fed = common(generator.tokens(sequence)?);
            generator.truncate(sequence, fed)?;
            (sequence, fed)
        }
        None => {
            // What is about to be read is waited for instead of being read twice.
            let about_to_be_read =
                |other: &Active| other.fed < common(&other.tokens) / limits.page * limits.page;
            if active.iter().any(about_to_be_read) {
                return Ok(None);
            }
            generator.create_with(&request.prompt)
        }
    };
    Ok(Some(Active {
        index,
        request,
        sequence,
        tokens: request.prompt.clone(),
        fed,
        sampler: Sampler::new(&request.sampling)?,
        stream: TextStream::new(&request.stops),
        grammar: request.grammar.as_ref().map(|grammar| grammar.start()),
        completion: Completion {
            tokens: Vec::new(),
            text: String::new(),
            finish: Finish::Length,
            log_probabilities: Vec::new(),
        },
        finished: request.max_tokens == 0,
    }))
}

/// Runs the model once and takes what came of it.
fn round(
    generator: &mut Generator,
    active: &mut [Active],
    on_text: &mut OnText,
) -> Result<(), GenerateError> {
    let open = active.iter().filter(|active| !active.finished);
    let open = open.map(|active| active.tokens.len() - active.fed).sum();
    let mut room = generator.limits().run_tokens(open);
    let writing = active.iter().filter(|active| active.tokens.len() - active.fed == 1).count();
    // Texts that are being written come first; every one of them gets its token.
    let mut for_prompts = room.saturating_sub(writing);
    let mut shares: Vec<usize> = Vec::with_capacity(active.len());
    for active in active.iter() {
        let open = active.tokens.len() - active.fed;
        let share = match active.finished {
            true => 0,
            false if open == 1 => room.min(1),
            false => open.min(for_prompts).min(room),
        };
        if open > 1 {
            for_prompts -= share;
        }
        room -= share;
        shares.push(share);
    }
    let work: Vec<Work> = active
        .iter()
        .zip(&shares)
        .filter(|(_, share)| **share > 0)
        .map(|(active, share)| Work {
            sequence: active.sequence,
            tokens: &active.tokens[active.fed..active.fed + share],
            wanted: match active.fed + share == active.tokens.len() {
                true => Wanted::Last,
                false => Wanted::None,
            },
        })
        .collect();
    if !work.is_empty() {
        generator.advance(&work)?;
    }
    for (active, share) in active.iter_mut().zip(shares) {
        active.fed += share;
        if share > 0 && active.waits_for_token() {
            next_token(generator, active, on_text)?;
        }
    }
    Ok(())
}

/// Chooses the next token of a text and decides whether it goes on.
fn next_token(generator: &Generator, active: &mut Active, on_text: &mut OnText) -> Result<(), GenerateError> {
    let tokenizer = generator.tokenizer();
    let logits = generator.logits(active.sequence)?;
    let allowed = active.grammar.as_mut().map(GrammarState::allowed).transpose()?;
    let token = active.sampler.sample(logits, &active.tokens, allowed.as_ref())?;
    let request = active.request;
    let completion = &mut active.completion;
    if tokenizer.is_stop(token) && !request.ignore_end {
        completion.finish = Finish::End;
        active.finished = true;
        return flush(active, on_text);
    }
    if let Some(top) = request.log_probabilities {
        completion.log_probabilities.push(log_probability(logits, token, top)?);
    }
    completion.tokens.push(token);
    active.tokens.push(token);
    if let Some(grammar) = &mut active.grammar {
        grammar.accept(token)?;
    }
    let streamed = active.stream.push(tokenizer.visible(token));
    completion.text.push_str(&streamed.text);
    let go_on = streamed.text.is_empty() || on_text(active.index, &streamed.text).is_continue();
    let ended = active.grammar.as_ref().is_some_and(GrammarState::is_complete);
    let finish = if !go_on {
        Some(Finish::Cancelled)
    } else if streamed.stopped {
        Some(Finish::Stop)
    } else if ended {
        Some(Finish::End)
    } else if completion.tokens.len() >= request.max_tokens {
        Some(Finish::Length)
    } else if active.tokens.len() > generator.limits().context {
        Some(Finish::Context)
    } else {
        None
    };
    if let Some(finish) = finish {
        completion.finish = finish;
        active.finished = true;
        if !streamed.stopped && go_on {
            return flush(active, on_text);
        }
    }
    Ok(())
}

/// Gives out what the stream held back.
fn flush(active: &mut Active, on_text: &mut OnText) -> Result<(), GenerateError> {
    let rest = active.stream.finish();
    active.completion.text.push_str(&rest);
    if !rest.is_empty() && on_text(active.index, &rest).is_break() {
        active.completion.finish = Finish::Cancelled;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
