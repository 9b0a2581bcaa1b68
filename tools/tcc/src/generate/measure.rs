//! How fast a model reads prompts and writes text.

use std::time::{Duration, Instant};

use super::generator::Generator;
use super::sampler::largest;
use super::tokenizer::vocabulary::TokenKind;
use super::{GenerateError, Tokenizer};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Tokens of the prompt, at least 1.
    pub prompt: usize,
    /// Tokens that are written behind it.
    pub generate: usize,
    /// How often; the medians count.
    pub runs: usize,
}

/// The medians over the runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speed {
    /// Time until the prompt was read.
    pub prefill: Duration,
    /// Time until the first token was chosen.
    pub first_token: Duration,
    /// Time of all tokens together; the first one comes from the prompt's logits, so it is not counted.
    pub decode: Duration,
    /// The part of `decode` outside of the model: choosing tokens, batches, copies of logits.
    pub around: Duration,
}

/// Pieces of text without a meaning, the same every time.
fn prompt(tokenizer: &Tokenizer, count: usize) -> Vec<u32> {
    let size = tokenizer.size() as u64;
    let mut state = 1u64;
    let mut tokens = Vec::with_capacity(count);
    // A vocabulary without plain tokens gives whatever comes.
    let mut attempts = 0;
    while tokens.len() < count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = ((state >> 33) % size) as u32;
        attempts += 1;
        if tokenizer.kind(token) == Some(TokenKind::Normal) || attempts > 100 * count {
            tokens.push(token);
        }
    }
    tokens
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs a workload, once to warm up and then `runs` times.
pub fn measure(generator: &mut Generator, workload: Workload) -> Result<Speed, GenerateError> {
    let tokens = prompt(generator.tokenizer(), workload.prompt.max(1));
    let (mut prefill, mut first, mut decode, mut around) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..=workload.runs {
        let sequence = generator.create();
        let start = Instant::now();
        generator.extend(sequence, &tokens)?;
        let read = start.elapsed();
        let mut token = largest(generator.logits(sequence)?)?;
        let chosen = start.elapsed();
        let before = generator.model_time();
        let start = Instant::now();
        for _ in 1..workload.generate {
            generator.extend(sequence, &[token])?;
            token = largest(generator.logits(sequence)?)?;
        }
        let written = start.elapsed();
        let inside = generator.model_time() - before;
        generator.remove(sequence)?;
        if run > 0 || workload.runs == 0 {
            prefill.push(read);
            first.push(chosen);
            decode.push(written);
            around.push(written.saturating_sub(inside));
        }
    }
    Ok(Speed {
        prefill: median(prefill),
        first_token: median(first),
        decode: median(decode),
        around: median(around),
    })
}
