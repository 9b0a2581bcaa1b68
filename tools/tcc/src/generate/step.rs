//! One run of a language model over a batch of tokens, whoever executes it.

use std::time::Duration;

use tcc_runtime::{Batch, PageCopy};

use super::GenerateError;

/// What a model can take and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Logits of a token.
    pub vocabulary: usize,
    /// Most tokens of a run.
    pub tokens: usize,
    /// Most tokens of a run that is as exact as the model can be; larger ones may round more.
    pub few_tokens: usize,
    /// Most sequences of a run.
    pub sequences: usize,
    /// Cache slots in all.
    pub slots: usize,
    /// Slots of a page.
    pub page: usize,
    /// Most tokens of a sequence.
    pub context: usize,
}

/// Short prompts have at most so many runs of few tokens. Reading the weights so often takes no longer than one large
/// run takes to compute.
const SHORT: usize = 4;

impl StepLimits {
    /// Most tokens of the next run where `open` tokens wait to be run: short prompts go in exact runs.
    pub fn run_tokens(&self, open: usize) -> usize {
        if open <= SHORT * self.few_tokens { self.few_tokens } else { self.tokens }
    }
}

/// How long a kernel took in all runs since measuring began.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// The entry that it belongs to.
    pub entry: String,
    /// Its symbol.
    pub kernel: String,
    /// How often it ran.
    pub calls: u64,
    /// In all.
    pub total: Duration,
}

/// A language model that can be run, with its cache.
pub trait Step {
    /// What it can take.
    fn limits(&self) -> StepLimits;

    /// Runs a batch; `logits` becomes `[outputs, vocabulary]`.
    fn run(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<(), GenerateError>;

    /// Copies a page of the cache.
    fn copy_page(&mut self, copy: PageCopy) -> Result<(), GenerateError>;

    /// Bytes of its cache; 0 where it is not memory of its own.
    fn cache_bytes(&self) -> u64 {
        0
    }

    /// Measures kernels anew, or stops; nothing happens where there are none.
    fn measure_kernels(&mut self, _on: bool) {}

    /// What was measured, the longest first.
    fn kernel_times(&self) -> Vec<KernelTime> {
        Vec::new()
    }
}
