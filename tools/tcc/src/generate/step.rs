//! One run of a language model over a batch of tokens, whoever executes it.

use std::time::Duration;

use super::GenerateError;

/// The tokens of one run and where their keys and values are kept: the inputs of the model function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The tokens, `[n]`.
    pub tokens: Vec<i64>,
    /// Position of each token in its sequence, `[n]`.
    pub positions: Vec<i64>,
    /// Cache slot that each token is written to, `[n]`.
    pub slots: Vec<i64>,
    /// Row of the block table of each token's sequence, `[n]`.
    pub rows: Vec<i64>,
    /// Pages of each sequence, `[sequences, pages]`.
    pub block_table: Vec<i64>,
    /// Rows of the block table.
    pub sequences: usize,
    /// Columns of the block table.
    pub pages: usize,
    /// Which of the tokens' logits are wanted, `[o]`.
    pub outputs: Vec<i64>,
}

/// What a model can take and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Logits of a token.
    pub vocabulary: usize,
    /// Most tokens of a run.
    pub tokens: usize,
    /// Most sequences of a run.
    pub sequences: usize,
    /// Cache slots in all.
    pub slots: usize,
    /// Slots of a page.
    pub page: usize,
    /// Most tokens of a sequence.
    pub context: usize,
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
