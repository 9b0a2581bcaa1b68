//! Choosing the next token.
//!
//! The order of the steps, each of which is left out where its option is off:
//!
//! 1. a grammar removes the tokens that it does not allow;
//! 2. the repetition penalty divides positive logits of recent tokens and multiplies negative ones;
//! 3. temperature 0 takes the largest logit, of equal ones the token of the smallest number;
//! 4. top-k keeps the k largest logits, of equal ones the smallest numbers;
//! 5. top-p keeps the fewest most likely tokens whose probabilities sum to at least p;
//! 6. min-p keeps the tokens at least min-p times as likely as the most likely one;
//! 7. the logits are divided by the temperature, and one token is drawn: a uniform number picks from the cumulated
//!    probabilities in the order of token numbers.
//!
//! Probabilities in 5 and 6 are those of the tokens still there, before the temperature. Sums run in `f64` in a fixed
//! order, and the uniform numbers come from SplitMix64, so that a seed gives the same text on every machine that gives
//! the same logits.

use super::GenerateError;
use super::grammar::Allowed;
use crate::split_mix::SplitMix;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token every time; larger values flatten the distribution.
    pub temperature: f32,
    /// Keep this many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens of this probability together; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens of at least this share of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Weakens tokens that were there recently; 1 leaves them.
    pub repeat_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last: usize,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses values out of range.
    pub fn check(&self) -> Result<(), GenerateError> {
        let refuse = |option, value: f32, expected| {
            Err(GenerateError::Option { option, value: value.to_string(), expected })
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("--temperature", self.temperature, "expected a number of at least 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("--top-p", self.top_p, "expected a number above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("--min-p", self.min_p, "expected a number from 0 to 1");
        }
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite()) {
            return refuse("--repeat-penalty", self.repeat_penalty, "expected a number above 0");
        }
        Ok(())
    }

    /// The same with another stream of random numbers for each of several texts; the first keeps its own.
    pub fn for_text(&self, index: u64) -> Sampling {
        let seed = if index == 0 { self.seed } else { self.seed ^ SplitMix(index).next() };
        Sampling { seed, ..self.clone() }
    }
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    logit: f32,
    token: u32,
}

/// More likely first, of equal ones the smaller number.
fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Chooses the tokens of one text.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: Sampling,
    random: SplitMix,
    /// Kept between tokens, as a vocabulary is large.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    pub fn new(options: &Sampling) -> Result<Sampler, GenerateError> {
        options.check()?;
        Ok(Sampler { options: options.clone(), random: SplitMix(options.seed), candidates: Vec::new() })
    }

    /// How tokens are chosen.
    pub fn options(&self) -> &Sampling {
        &self.options
    }

    /// The next token. `history` holds the tokens so far, the newest last.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[u32],
        allowed: Option<&Allowed>,
    ) -> Result<u32, GenerateError> {
        if self.options.temperature == 0.0 && self.options.repeat_penalty == 1.0 && allowed.is_none() {
            return largest(logits);
        }
        self.collect(logits, allowed)?;
        self.penalize(history);
        let best = self.candidates.iter().copied().min_by(order).ok_or_else(nothing_left)?;
        if self.options.temperature == 0.0 {
            return Ok(best.token);
        }
        self.keep_top_k();
        self.keep_top_p(best.logit);
        self.keep_min_p(best.logit);
        Ok(self.draw(best))
    }

    /// All tokens with a finite logit that the grammar allows, by number.
    fn collect(&mut self, logits: &[f32], allowed: Option<&Allowed>) -> Result<(), GenerateError> {
        self.candidates.clear();
        let all = logits.iter().zip(0u32..).map(|(logit, token)| Candidate { logit: *logit, token });
        let usable = |candidate: &Candidate| candidate.logit > f32::NEG_INFINITY;
        match allowed {
            None => self.candidates.extend(all.filter(usable)),
            Some(allowed) => {
                self.candidates
                    .extend(all.filter(|candidate| allowed.contains(candidate.token)).filter(usable));
            }
        }
        match self.candidates.iter().find(|candidate| candidate.logit == f32::INFINITY) {
            Some(candidate) => {
                Err(GenerateError::Logits(format!("token {} has an infinite one", candidate.token)))
            }
            None if self.candidates.is_empty() => Err(nothing_left()),
            None => Ok(()),
        }
    }

    fn penalize(&mut self, history: &[u32]) {
        let penalty = self.options.repeat_penalty;
        if penalty == 1.0 {
            return;
        }
        let mut recent = history[history.len().saturating_sub(self.options.repeat_last)..].to_vec();
        recent.sort_unstable();
        recent.dedup();
        for token in recent {
            // Candidates are still ordered by number.
            if let Ok(at) = self.candidates.binary_search_by_key(&token, |candidate| candidate.token) {
                let logit = &mut self.candidates[at].logit;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    fn keep_top_k(&mut self) {
        let count = self.options.top_k;
        if count > 0 && count < self.candidates.len() {
            self.candidates.select_nth_unstable_by(count - 1, order);
            self.candidates.truncate(count);
            self.candidates.sort_unstable_by_key(|candidate| candidate.token);
        }
    }

    fn keep_top_p(&mut self, best: f32) {
        let share = f64::from(self.options.top_p);
        if share >= 1.0 {
            return;
        }
        let weight = |candidate: &Candidate| f64::from(candidate.logit - best).exp();
        let wanted = share * self.candidates.iter().map(weight).sum::<f64>();
        // Few tokens make up most of the probability: order a growing front instead of the whole vocabulary.
        let mut front = 64;
        loop {
            let total = self.candidates.len();
            if front < total {
                self.candidates.select_nth_unstable_by(front - 1, order);
            }
            let ordered = &mut self.candidates[..front.min(total)];
            ordered.sort_unstable_by(order);
            let mut sum = 0.0;
            let reached = ordered.iter().position(|candidate| {
                sum += weight(candidate);
                sum >= wanted
            });
            if let Some(last) = reached {
                self.candidates.truncate(last + 1);
                break;
            }
            if front >= total {
                break;
            }
            front *= 8;
        }
        self.candidates.sort_unstable_by_key(|candidate| candidate.token);
    }

    fn keep_min_p(&mut self, best: f32) {
        if self.options.min_p > 0.0 {
            let least = best + self.options.min_p.ln();
            self.candidates.retain(|candidate| candidate.logit >= least);
        }
    }

    /// Draws from the candidates, which are ordered by number.
    fn draw(&mut self, best: Candidate) -> u32 {
        let scale = 1.0 / f64::from(self.options.temperature);
        let weight =
            |candidate: &Candidate| ((f64::from(candidate.logit) - f64::from(best.logit)) * scale).exp();
        let target = self.random.unit() * self.candidates.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        for candidate in &self.candidates {
            sum += weight(candidate);
            if sum > target {
                return candidate.token;
            }
        }
        // Rounding may leave the sum a little short of the target.
        best.token
    }
}

fn nothing_left() -> GenerateError {
    GenerateError::Logits("no token has a finite one".into())
}

/// The token of the largest logit, of equal ones the first.
pub fn largest(logits: &[f32]) -> Result<u32, GenerateError> {
    const LANES: usize = 16;
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, greater);
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *logit);
        }
    }
    let most = lanes.into_iter().fold(rest, greater);
    if most == f32::NEG_INFINITY {
        return Err(nothing_left());
    }
    if most == f32::INFINITY {
        return Err(GenerateError::Logits("one is infinite".into()));
    }
    let first = logits.iter().position(|logit| *logit == most).ok_or_else(nothing_left)?;
    u32::try_from(first).map_err(|_| nothing_left())
}

/// How likely the model found a token, before any sampling option.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbability {
    /// The token that was chosen.
    pub token: u32,
    /// Its natural logarithm of the probability.
    pub log_probability: f32,
    /// The most likely tokens, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// The log-probability of a token and the `top` most likely ones.
pub fn log_probability(logits: &[f32], token: u32, top: usize) -> Result<LogProbability, GenerateError> {
    let best = logits[largest(logits)? as usize];
    let sum: f64 =
        logits.iter().filter(|logit| !logit.is_nan()).map(|logit| f64::from(logit - best).exp()).sum();
    let normalizer = f64::from(best) + sum.ln();
    let of = |logit: f32| (f64::from(logit) - normalizer) as f32;
    let chosen = *logits.get(token as usize).ok_or(GenerateError::Token { token, size: logits.len() })?;
    let mut candidates: Vec<Candidate> =
        logits.iter().zip(0u32..).map(|(logit, token)| Candidate { logit: *logit, token }).collect();
    candidates.retain(|candidate| !candidate.logit.is_nan());
    if top < candidates.len() {
        if top > 0 {
            candidates.select_nth_unstable_by(top - 1, order);
        }
        candidates.truncate(top);
    }
    candidates.sort_unstable_by(order);
    let top = candidates.iter().map(|candidate| (candidate.token, of(candidate.logit))).collect();
    Ok(LogProbability { token, log_probability: of(chosen), top })
}

#[cfg(test)]
mod tests;
