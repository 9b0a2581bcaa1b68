//! Compiled entries as a model that can be run.
//!
//! A model has two entries over the same weights and caches: `decode` for few tokens, `prefill` for many. A run takes the
//! first that its tokens fit into.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tcc_runtime::manifest::Step as ManifestStep;
use tcc_runtime::program::Executable;
use tcc_runtime::{Batch, PageCopy, Session, SessionOptions, State, TensorMut, TensorRef, ThreadPool};

use super::GenerateError;
use super::step::{KernelTime, Step, StepLimits};

/// An entry and how many tokens a run of it takes.
struct Entry {
    session: Session,
    tokens: usize,
}

/// The entries of a model, loaded and with a cache.
pub struct CompiledStep {
    /// By number of tokens.
    entries: Vec<Entry>,
    state: Arc<State>,
    limits: StepLimits,
}

fn fail(error: impl std::fmt::Display) -> GenerateError {
    GenerateError::Step(error.to_string())
}

impl CompiledStep {
    /// Makes the caches and a session for each entry; `entries` names for each how many tokens it takes.
    pub fn new(
        entries: &[(Arc<Executable>, usize)],
        limits: StepLimits,
        threads: usize,
    ) -> Result<CompiledStep, GenerateError> {
        let slots = i64::try_from(limits.slots).map_err(fail)?;
        let manifests: Vec<_> = entries.iter().map(|(executable, _)| executable.manifest()).collect();
        let state = State::new(&manifests, &[("kv_slots", slots)], None).map_err(fail)?;
        let pool = Arc::new(ThreadPool::new(threads).map_err(fail)?);
        let mut sessions = Vec::with_capacity(entries.len());
        for (executable, tokens) in entries {
            let options = SessionOptions {
                pool: Some(Arc::clone(&pool)),
                state: Some(Arc::clone(&state)),
                ..SessionOptions::default()
            };
            let session = Session::with_options(executable, &options).map_err(fail)?;
            sessions.push(Entry { session, tokens: *tokens });
        }
        sessions.sort_by_key(|entry| entry.tokens);
        let tokens = sessions.last().map_or(0, |entry| entry.tokens);
        let few_tokens = sessions.first().map_or(0, |entry| entry.tokens);
        Ok(CompiledStep { entries: sessions, state, limits: StepLimits { tokens, few_tokens, ..limits } })
    }
}

impl Step for CompiledStep {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<(), GenerateError> {
        let count = batch.tokens.len();
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.tokens >= count)
            .ok_or_else(|| fail(format!("no entry takes {count} tokens")))?;
        let list = |values| TensorRef::from_slice(&[count], values);
        let inputs = [
            list(&batch.tokens),
            list(&batch.positions),
            list(&batch.slots),
            list(&batch.rows),
            TensorRef::from_slice(&batch.table_shape, &batch.block_table),
            TensorRef::from_slice(&[batch.outputs.len()], &batch.outputs),
        ];
        let inputs = inputs.into_iter().collect::<Result<Vec<_>, _>>().map_err(fail)?;
        // The logits are written where they are read; the memory stays from run to run.
        logits.resize(batch.outputs.len() * self.limits.vocabulary, 0.0);
        entry.session.run_into(&inputs, &mut [TensorMut::from_slice(logits)]).map_err(fail)
    }

    fn copy_page(&mut self, copy: PageCopy) -> Result<(), GenerateError> {
        self.state.copy_part(copy.from, copy.to, self.limits.slots / self.limits.page).map_err(fail)
    }

    fn cache_bytes(&self) -> u64 {
        self.state.bytes()
    }

    fn measure_kernels(&mut self, on: bool) {
        for entry in &mut self.entries {
            entry.session.measure_steps(on);
        }
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        let mut all: BTreeMap<(String, String), (u64, Duration)> = BTreeMap::new();
        for entry in &self.entries {
            let manifest = entry.session.executable().manifest();
            for (step, time) in manifest.steps.iter().zip(entry.session.step_times()) {
                let kernel = match step {
                    ManifestStep::Kernel(step) => manifest.kernels[step.kernel as usize].symbol.clone(),
                    _ => "other steps".to_string(),
                };
                let sum = all.entry((manifest.entry.clone(), kernel)).or_default();
                sum.0 += time.calls;
                sum.1 += time.total;
            }
        }
        let mut times: Vec<KernelTime> = all
            .into_iter()
            .filter(|(_, (calls, _))| *calls > 0)
            .map(|((entry, kernel), (calls, total))| KernelTime { entry, kernel, calls, total })
            .collect();
        times.sort_by_key(|time| std::cmp::Reverse(time.total));
        times
    }
}
