//! Rotary position embeddings: frequencies and their scalings.
//!
//! The frequency of pair `i` is `theta^(-2i/d)`; scalings change the frequencies, and some multiply cosine and sine by
//! an attention factor. Formulas: linear (Chen et al. 2023), dynamic NTK (bloc97 2023), YaRN (Peng et al. 2023), Llama 3
//! (Meta 2024), LongRoPE (Ding et al. 2024), with the conventions of the `transformers` library where they differ.

use std::f64::consts::PI;
use std::fmt;

/// A rotary embedding.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    /// Features of a head that are turned, an even number; the rest stays.
    pub size: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// True where neighbours are turned together, false where the pairs are `(i, i + size/2)`.
    pub interleaved: bool,
    /// What is done for contexts longer than trained.
    pub scaling: Scaling,
}

/// A change of the frequencies.
#[derive(Clone, PartialEq, Debug)]
pub enum Scaling {
    /// None.
    None,
    /// Every frequency divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// A larger base where the context exceeds the trained one.
    Dynamic {
        /// The factor.
        factor: f64,
        /// Trained positions.
        trained: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp between.
    Yarn {
        /// The factor.
        factor: f64,
        /// Trained positions.
        trained: f64,
        /// Turns over the trained positions from which on a frequency is kept.
        fast: f64,
        /// Turns below which a frequency is divided.
        slow: f64,
        /// True where the ends of the ramp are rounded to whole pairs.
        truncate: bool,
        /// Factor on cosine and sine.
        attention: f64,
    },
    /// Long waves divided, short ones kept, interpolation between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Waves longer than `trained / low` are divided.
        low: f64,
        /// Waves shorter than `trained / high` are kept.
        high: f64,
        /// Trained positions.
        trained: f64,
    },
    /// Each frequency divided by a factor of its own.
    Factors {
        /// The divisors, one a pair.
        divisors: Vec<f64>,
    },
    /// Each frequency divided by a factor of its own, of two sets.
    Long {
        /// Divisors within the trained context.
        short: Vec<f64>,
        /// Divisors for longer contexts.
        long: Vec<f64>,
        /// Trained positions.
        trained: f64,
        /// Factor on cosine and sine.
        attention: f64,
    },
}

impl Rope {
    /// Angle of one position step for each pair, for a context of so many positions.
    pub fn frequencies(&self, context: usize) -> Vec<f64> {
        let size = self.size as f64;
        let with = |theta: f64| -> Vec<f64> {
            (0..self.size / 2).map(|pair| theta.powf(-2.0 * pair as f64 / size)).collect()
        };
        let plain = with(self.theta);
        let divided = |divisors: &[f64]| plain.iter().zip(divisors).map(|(f, d)| f / d).collect();
        match &self.scaling {
            Scaling::None => plain,
            Scaling::Linear { factor } => plain.iter().map(|frequency| frequency / factor).collect(),
            Scaling::Dynamic { factor, trained } => {
                let length = (context as f64).max(*trained);
                let stretch = factor * length / trained - (factor - 1.0);
                with(self.theta * stretch.powf(size / (size - 2.0)))
            }
            Scaling::Yarn { factor, trained, fast, slow, truncate, .. } => {
                // The pair that makes so many turns over the trained positions.
                let pair = |turns: f64| size * (trained / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (mut low, mut high) = (pair(*fast), pair(*slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, high) = (low.max(0.0), high.min(size - 1.0));
                let width = if high == low { 0.001 } else { high - low };
                plain
                    .iter()
                    .enumerate()
                    .map(|(pair, frequency)| {
                        let ramp = ((pair as f64 - low) / width).clamp(0.0, 1.0);
                        frequency / factor * ramp + frequency * (1.0 - ramp)
                    })
                    .collect()
            }
            Scaling::Llama3 { factor, low, high, trained } => plain
                .iter()
                .map(|frequency| {
                    let wave = 2.0 * PI / frequency;
                    if wave < trained / high {
                        *frequency
                    } else if wave > trained / low {
                        frequency / factor
                    } else {
                        let kept = (trained / wave - low) / (high - low);
                        frequency / factor * (1.0 - kept) + frequency * kept
                    }
                })
                .collect(),
            Scaling::Factors { divisors } => divided(divisors),
            Scaling::Long { short, long, trained, .. } => {
                divided(if context as f64 > *trained { long } else { short })
            }
        }
    }

    /// Factor on cosine and sine.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention, .. } | Scaling::Long { attention, .. } => attention,
            _ => 1.0,
        }
    }
}

/// The attention factor of YaRN where none is given.
pub(super) fn yarn_attention(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
}

/// The attention factor of LongRoPE where none is given.
pub(super) fn long_attention(factor: f64, trained: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / trained.ln()).sqrt() }
}

impl fmt::Display for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = if self.interleaved { "neighbours" } else { "halves" };
        write!(f, "{} features in pairs of {pairs}, base {}", self.size, self.theta)?;
        match &self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => write!(f, ", linear scaling by {factor}"),
            Scaling::Dynamic { factor, .. } => write!(f, ", dynamic scaling by {factor}"),
            Scaling::Yarn { factor, .. } => write!(f, ", YaRN scaling by {factor}"),
            Scaling::Llama3 { factor, .. } => write!(f, ", Llama 3 scaling by {factor}"),
            Scaling::Factors { .. } => write!(f, ", a factor for each frequency"),
            Scaling::Long { .. } => write!(f, ", two factors for each frequency"),
        }
    }
}
