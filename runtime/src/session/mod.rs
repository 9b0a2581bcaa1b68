//! A session runs a program: it owns the arena and the memory for host tensors, and knows the state and the threads.
//!
//! When the values of the input symbols change, a session prepares: it plans the arena, sizes scratch memory and
//! evaluates all arguments that do not depend on data. Between such changes a run allocates nothing, except that
//! host tensors without a bound and the scratch memory of host functions grow until they have met their largest size.

mod bind;
mod execute;
mod memory;
mod mirror;
mod prepare;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::host::HostScratch;
use crate::manifest::Storage;
use crate::memory::aligned::AlignedBytes;
use crate::pool::ThreadPool;
use crate::program::Executable;
use crate::state::State;
use crate::tensor::shape::checked_bytes;
use crate::tensor::{DataMut, DataRef, Tensor, TensorMut, TensorRef};
use execute::Pending;
pub(crate) use memory::SessionMemory;
use memory::{Lent, copy_strings};
use mirror::Mirror;
use prepare::Prepared;
use std::sync::Arc;
use std::time::Duration;

/// How a session runs.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads of a pool of its own; 0 means one for each CPU. Ignored when there is a `pool`.
    pub threads: usize,
    /// A pool shared with other sessions.
    pub pool: Option<Arc<ThreadPool>>,
    /// The state that runs read and write, shared with other sessions; without it the session makes its own, which
    /// takes a program whose state has constant shapes.
    pub state: Option<Arc<State>>,
    /// The most memory that arena, scratch and state may take together; no limit when absent.
    pub memory_limit: Option<u64>,
}

/// What a prepared session takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of the arena.
    pub arena: u64,
    /// Bytes of scratch memory of all threads.
    pub scratch: u64,
    /// Bytes of state.
    pub state: u64,
}

impl MemoryUse {
    fn total(&self) -> u64 {
        self.arena.saturating_add(self.scratch).saturating_add(self.state)
    }
}

/// How often a step has run and how long it took in all, with the steps inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTime {
    /// Number of times.
    pub calls: u64,
    /// Time of all calls together.
    pub total: Duration,
    /// Time of the shortest call: what the step takes when nothing disturbs it.
    pub least: Duration,
}

/// A program with the memory to run it, for one thread at a time.
pub struct Session {
    executable: Arc<Executable>,
    pool: Arc<ThreadPool>,
    state: Arc<State>,
    memory: SessionMemory,
    prepared: Prepared,
    /// Symbol values of the run about to start.
    candidate: Vec<Option<i64>>,
    pending: Vec<Pending>,
    scratch: HostScratch,
    memory_limit: Option<u64>,
    random_epoch: u32,
    /// By step number; empty while nothing is measured.
    profile: Vec<StepTime>,
    /// The device side, where the program runs on a device.
    mirror: Option<Mirror>,
}

// SAFETY: the raw pointers inside lead to memory that the session owns, to the state, which it holds and locks to run, to
// weights that nobody writes, and, during a run, to tensors that its caller lends; none is tied to a thread.
unsafe impl Send for Session {}

impl Session {
    /// A session with threads of its own.
    pub fn new(executable: &Arc<Executable>, threads: usize) -> Result<Self> {
        Session::with_options(executable, &SessionOptions { threads, ..SessionOptions::default() })
    }

    /// A session.
    pub fn with_options(executable: &Arc<Executable>, options: &SessionOptions) -> Result<Self> {
        let pool = match &options.pool {
            Some(pool) => Arc::clone(pool),
            None => Arc::new(ThreadPool::new(options.threads)?),
        };
        let manifest = &executable.manifest;
        let state = match &options.state {
            // The device's copy of a tensor is the valid one, which other sessions would not see.
            Some(_) if executable.device.is_some() => {
                let reason = "cannot be shared by programs that run on a device".to_owned();
                return Err(Error::StateMismatch { tensor: String::new(), reason });
            }
            Some(state) => Arc::clone(state),
            None => State::new(&[manifest], &[], options.memory_limit)?,
        };
        let candidate = state.values_for(manifest)?;
        let memory = SessionMemory::new(Arc::clone(executable), &state)?;
        let prepared = Prepared::new(executable, &memory);
        let mirror = match &executable.device {
            Some(device) => Some(Mirror::new(Arc::clone(device).open()?)),
            None => None,
        };
        let session = Session {
            executable: Arc::clone(executable),
            pool,
            state,
            prepared,
            candidate,
            memory,
            pending: Vec::new(),
            scratch: HostScratch::default(),
            memory_limit: options.memory_limit,
            random_epoch: 0,
            profile: Vec::new(),
            mirror,
        };
        session.check_limit(session.prepared.memory_use)?;
        Ok(session)
    }

    /// The program.
    pub fn executable(&self) -> &Arc<Executable> {
        &self.executable
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// The state.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The memory taken since the last preparation.
    pub fn memory_use(&self) -> MemoryUse {
        self.prepared.memory_use
    }

    /// Makes random operators give other numbers. Runs with the same epoch give the same; it is 0 at first.
    pub fn set_random_epoch(&mut self, epoch: u32) {
        self.random_epoch = epoch;
    }

    /// Starts to measure every step anew, or stops.
    pub fn measure_steps(&mut self, on: bool) {
        self.profile.clear();
        if on {
            self.profile.resize(self.executable.analysis.spans.len(), StepTime::default());
        }
    }

    /// What was measured, by step number; empty when nothing is.
    pub fn step_times(&self) -> &[StepTime] {
        &self.profile
    }

    /// Sets all state tensors to zero, as they were at first.
    pub fn reset_state(&mut self) {
        self.state.reset();
    }

    /// Takes all memory that runs with inputs of these shapes need. A run does so itself where it was not done.
    pub fn prepare(&mut self, shapes: &[&[usize]]) -> Result<()> {
        let manifest = &self.executable.manifest;
        if shapes.len() != manifest.inputs.len() {
            let names: Vec<_> = manifest.inputs.iter().map(|port| port.name.as_str()).collect();
            return Err(Error::InputCount {
                expected: names.len(),
                names: names.join(", "),
                found: shapes.len(),
            });
        }
        for (port, shape) in manifest.inputs.iter().zip(shapes) {
            let expected = &manifest.tensors[port.tensor as usize].shape;
            if expected.len() != shape.len() {
                return Err(Error::InputShape {
                    input: port.name.clone(),
                    expected: manifest.describe_shape(expected),
                    found: shape.to_vec(),
                    reason: format!("the rank is {}, not {}", shape.len(), expected.len()),
                });
            }
        }
        bind::bind_shapes(manifest, |index| shapes[index], &mut self.candidate)?;
        self.prepare_candidate()
    }

    /// Runs the program and returns its outputs.
    pub fn run(&mut self, inputs: &[TensorRef<'_>]) -> Result<Vec<Tensor>> {
        let state = Arc::clone(&self.state);
        let _running = state.lock();
        self.start(inputs)?;
        let executable = Arc::clone(&self.executable);
        let mut direct: Vec<AlignedBytes> = Vec::with_capacity(self.memory.outputs.len());
        for (index, &bytes) in self.prepared.lent_bytes.iter().enumerate() {
            let mut buffer = AlignedBytes::zeroed(bytes, "an output")?;
            let pointer = buffer.as_mut_ptr();
            self.memory.outputs[index] = Lent { pointer, bytes, ..Lent::NONE };
            direct.push(buffer);
        }
        self.execute()?;
        let mut results = Vec::with_capacity(direct.len());
        for ((port, index), mut buffer) in executable.manifest.outputs.iter().zip(0..).zip(direct) {
            let shape = self.memory.shape(port.tensor)?;
            let tensor = &executable.manifest.tensors[port.tensor as usize];
            if tensor.dtype == DType::String {
                // SAFETY: nothing writes between here and the copy.
                let strings = unsafe { self.memory.read_strings(port.tensor)? }.to_vec();
                results.push(Tensor::from_string_vec(shape, strings));
                continue;
            }
            if tensor.storage == Storage::Output(index) {
                buffer.resize(checked_bytes(tensor.dtype, &shape)?, "an output")?;
            } else {
                // SAFETY: as above.
                buffer = AlignedBytes::copy_of(unsafe { self.memory.read(port.tensor)? }, "an output")?;
            }
            results.push(Tensor::from_bytes(tensor.dtype, shape, buffer));
        }
        self.finish();
        Ok(results)
    }

    /// Runs the program and writes its outputs into the caller's buffers, which learn their shapes.
    ///
    /// A buffer must be as large as the output can get; [`output_bytes`](Self::output_bytes) tells the size.
    pub fn run_into(&mut self, inputs: &[TensorRef<'_>], outputs: &mut [TensorMut<'_>]) -> Result<()> {
        let state = Arc::clone(&self.state);
        let _running = state.lock();
        self.start(inputs)?;
        let executable = Arc::clone(&self.executable);
        let manifest = &executable.manifest;
        if outputs.len() != manifest.outputs.len() {
            return Err(Error::OutputCount { expected: manifest.outputs.len(), found: outputs.len() });
        }
        for (index, (port, output)) in manifest.outputs.iter().zip(outputs.iter_mut()).enumerate() {
            let dtype = manifest.tensors[port.tensor as usize].dtype;
            if dtype != output.dtype() {
                return Err(Error::OutputType {
                    output: port.name.clone(),
                    expected: dtype,
                    found: output.dtype(),
                });
            }
            let DataMut::Bytes(buffer) = &mut output.data else { continue };
            let needed = self.prepared.lent_bytes[index];
            let fail = |reason| Error::OutputBuffer { output: port.name.clone(), reason };
            if buffer.len() < needed {
                return Err(fail(format!("it takes up to {needed} bytes, the buffer has {}", buffer.len())));
            }
            if needed > 0 && !(buffer.as_ptr() as usize).is_multiple_of(dtype.alignment()) {
                return Err(fail(format!("the buffer is not aligned to {} bytes", dtype.alignment())));
            }
            self.memory.outputs[index] = Lent { pointer: buffer.as_mut_ptr(), bytes: needed, ..Lent::NONE };
        }
        self.execute()?;
        for ((port, index), output) in manifest.outputs.iter().zip(0..).zip(outputs) {
            output.shape = self.memory.shape(port.tensor)?;
            // SAFETY: nothing writes the source during the copy, and an output that was written in place is left out.
            unsafe {
                match &mut output.data {
                    DataMut::Strings(target) => copy_strings(self.memory.read_strings(port.tensor)?, target),
                    DataMut::Bytes(_)
                        if manifest.tensors[port.tensor as usize].storage == Storage::Output(index) => {}
                    DataMut::Bytes(target) => {
                        let source = self.memory.read(port.tensor)?;
                        let Some(target) = target.get_mut(..source.len()) else {
                            let (found, needed) = (target.len(), source.len());
                            let reason = format!("it takes {needed} bytes, the buffer has {found}");
                            return Err(Error::OutputBuffer { output: port.name.clone(), reason });
                        };
                        target.copy_from_slice(source);
                    }
                }
            }
        }
        self.finish();
        Ok(())
    }

    /// The most bytes that each output can take with inputs of the shapes last prepared or run; 0 for strings and
    /// for outputs without a bound.
    pub fn output_bytes(&self) -> &[usize] {
        &self.prepared.output_bytes
    }

    /// Checks and takes the inputs.
    fn start(&mut self, inputs: &[TensorRef<'_>]) -> Result<()> {
        self.finish();
        bind::bind_inputs(&self.executable.manifest, inputs, &mut self.candidate)?;
        self.prepare_candidate()?;
        for (lent, input) in self.memory.inputs.iter_mut().zip(inputs) {
            *lent = match input.data() {
                // Nothing writes through this pointer: validation refuses steps that write inputs.
                DataRef::Bytes(bytes) => {
                    Lent { pointer: bytes.as_ptr().cast_mut(), bytes: bytes.len(), ..Lent::NONE }
                }
                DataRef::Strings(strings) => {
                    Lent { strings: strings.as_ptr(), string_count: strings.len(), ..Lent::NONE }
                }
            };
        }
        Ok(())
    }

    /// Forgets what the caller lent.
    fn finish(&mut self) {
        self.memory.inputs.fill(Lent::NONE);
        self.memory.outputs.fill(Lent::NONE);
    }

    fn check_limit(&self, needed: MemoryUse) -> Result<()> {
        match self.memory_limit {
            Some(limit) if needed.total() > limit => {
                Err(Error::MemoryLimit { needed: needed.total(), limit })
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?}, {:?}, {:?})", self.executable, self.pool, self.memory_use())
    }
}
