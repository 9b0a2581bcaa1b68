//! Perplexity: how well a model foresees a text.
//!
//! The text is read in windows of `window` tokens that advance by `stride`; a token counts in the first window that has
//! it, so that from the second window on each counted token has at least `window - stride` tokens before it. The very first
//! token of the text has nothing before it and does not count. Where the model expects a mark at the beginning of a text,
//! every window begins with it. Perplexity is `exp` of the mean of `-ln p(token)`, summed in `f64`.

use super::generator::{Generator, Wanted, Work};
use super::{GenerateError, Tokenizer};

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window.
    pub window: usize,
    /// By how many tokens windows advance.
    pub stride: usize,
}

/// How well a model foresees a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// `exp` of the mean.
    pub perplexity: f64,
    /// Mean of `-ln p(token)`.
    pub mean: f64,
    /// Standard deviation of the mean, as if tokens were independent.
    pub deviation: f64,
    /// Tokens that counted.
    pub tokens: usize,
}

/// Sums of what tokens cost.
#[derive(Default)]
struct Costs {
    sum: f64,
    squares: f64,
    count: usize,
}

impl Costs {
    fn add(&mut self, logits: &[f32], token: u32) -> Result<(), GenerateError> {
        let cost = -f64::from(super::sampler::log_probability(logits, token, 0)?.log_probability);
        self.sum += cost;
        self.squares += cost * cost;
        self.count += 1;
        Ok(())
    }

    fn result(&self) -> Perplexity {
        let count = self.count as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        Perplexity { perplexity: mean.exp(), mean, deviation: (variance / count).sqrt(), tokens: self.count }
    }
}

/// Most bytes of the logits of one run.
const LOGIT_BYTES: usize = 64 << 20;

/// Reads a text. `progress` hears after every window how many tokens have counted, and the perplexity so far.
pub fn perplexity(
    generator: &mut Generator,
    text: &str,
    windows: Windows,
    progress: &mut dyn FnMut(Perplexity),
) -> Result<Perplexity, GenerateError> {
    let Windows { window, stride } = windows;
    let refuse = |option, value: usize, expected| {
        Err(GenerateError::Option { option, value: value.to_string(), expected })
    };
    let limits = generator.limits();
    if window < 2 || window > limits.context {
        return refuse("--window", window, "expected at least 2 tokens and at most the context");
    }
    if stride == 0 || stride >= window {
        return refuse("--stride", stride, "expected at least 1 token and fewer than a window");
    }
    let tokenizer: &Tokenizer = generator.tokenizer();
    let tokens = tokenizer.encode_bare(text)?;
    let marks = tokenizer.marks();
    let begin = marks.begin.filter(|_| marks.add_begin);
    if tokens.len() < 2 {
        return Err(GenerateError::EmptyPrompt);
    }
    let body = window - usize::from(begin.is_some());
    let chunk = (LOGIT_BYTES / 4 / limits.vocabulary.max(1)).clamp(1, limits.tokens);
    let mut costs = Costs::default();
    let mut start = 0;
    // The token behind the mark is foreseen from the mark.
    let mut counted = usize::from(begin.is_none());
    while counted < tokens.len() {
        let end = (start + body).min(tokens.len());
        let inputs: Vec<u32> = begin.into_iter().chain(tokens[start..end].iter().copied()).collect();
        let before = inputs.len() - (end - start);
        let sequence = generator.create();
        for (index, part) in inputs.chunks(chunk).enumerate() {
            let work = Work { sequence, tokens: part, wanted: Wanted::All };
            let logits = generator.advance(&[work])?;
            for (row, logits) in logits.chunks_exact(limits.vocabulary).enumerate() {
                // Row `i` of the inputs foresees the token at `i + 1`, which is token `target` of the text.
                let target = start + index * chunk + row + 1 - before;
                if target >= counted && target < end {
                    costs.add(logits, tokens[target])?;
                }
            }
        }
        generator.remove(sequence)?;
        counted = end;
        start += stride.min(body.saturating_sub(1).max(1));
        progress(costs.result());
    }
    Ok(costs.result())
}

#[cfg(test)]
mod tests;
