//! What a session computes when the values of the input symbols change.

use super::memory::{Lent, SessionMemory};
use super::{MemoryUse, Session};
use crate::dim::{DimError, Interval};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{ALIGNMENT, KernelStep, Manifest, Step, Storage, SymbolSource, TensorId};
use crate::memory::aligned::AlignedBytes;
use crate::memory::plan::{Plan, PlanError, Request, check_no_overlap, plan};
use crate::program::{Executable, KernelSlots};
use crate::tensor::shape::{Shape, checked_bytes};
use std::sync::Arc;

/// Arguments of one kernel step that are not in the flat tables.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Domain {
    pub tasks: i64,
    pub grain: i64,
}

impl Domain {
    /// Of a step whose arguments have no values for these inputs.
    pub const REFUSED: Domain = Domain { tasks: -1, grain: 0 };
}

/// An entry of the table of addresses that lies in an input or output, and so changes with every run.
struct Patch {
    slot: usize,
    output: bool,
    index: usize,
    offset: usize,
}

/// Everything computed by a preparation.
pub(super) struct Prepared {
    /// Values of the input symbols that this is for; `None` before the first time and after a failure.
    pub symbols: Option<Vec<Option<i64>>>,
    pub dims: Vec<i64>,
    pub buffers: Vec<*mut u8>,
    /// By order of kernel steps.
    pub domains: Vec<Domain>,
    patches: Vec<Patch>,
    pub scratch: AlignedBytes,
    /// Bytes of scratch memory for each thread.
    pub scratch_stride: usize,
    /// Bytes that each output may take in the caller's memory; 0 where it is copied at the end.
    pub lent_bytes: Vec<usize>,
    /// The most bytes of each output; 0 where there is no bound.
    pub output_bytes: Vec<usize>,
    pub memory_use: MemoryUse,
    /// Whether the arena has places for every tensor.
    planned: bool,
}

impl Prepared {
    pub fn new(executable: &Executable, memory: &SessionMemory) -> Self {
        let state = memory.state.iter().map(|(_, bytes)| *bytes as u64).sum();
        Prepared {
            symbols: None,
            dims: vec![0; executable.analysis.dims],
            buffers: vec![std::ptr::null_mut(); executable.analysis.buffers],
            domains: vec![Domain::default(); executable.analysis.kernel_steps],
            patches: Vec::new(),
            scratch: AlignedBytes::new(),
            scratch_stride: 0,
            lent_bytes: vec![0; executable.manifest.outputs.len()],
            output_bytes: vec![0; executable.manifest.outputs.len()],
            memory_use: MemoryUse { arena: 0, scratch: 0, state },
            planned: false,
        }
    }

    /// Puts the addresses of this run's inputs and outputs into the table.
    pub fn patch(&mut self, memory: &SessionMemory) {
        for patch in &self.patches {
            let lent = if patch.output { &memory.outputs } else { &memory.inputs };
            self.buffers[patch.slot] = lent[patch.index].pointer.wrapping_add(patch.offset);
        }
    }
}

/// What each symbol can be: its value, or for those that steps bind the range of values; unknown without a bound.
fn intervals(manifest: &Manifest, values: &[Option<i64>]) -> Result<Vec<Option<Interval>>> {
    let mut intervals: Vec<_> = values.iter().map(|value| value.map(Interval::of)).collect();
    for (index, symbol) in manifest.symbols.iter().enumerate() {
        let SymbolSource::Step { bound } = &symbol.source else { continue };
        let limit = (symbol.hi != i64::MAX).then_some(symbol.hi);
        let bound = match bound {
            None => None,
            Some(bound) => match bound.interval(&intervals) {
                Ok(bound) => Some(bound.high),
                Err(DimError::Unbound(_)) => None,
                Err(source) => {
                    let field = format!("bound of symbol `{}`", symbol.name);
                    return Err(Error::Dim { field, expression: manifest.describe_dim(bound), source });
                }
            },
        };
        let high = limit.into_iter().chain(bound).min();
        intervals[index] = high.map(|high| Interval { low: symbol.lo.min(high), high });
    }
    Ok(intervals)
}

/// The most bytes that a tensor can take; none where an extent is negative, because what would write it is not run.
fn most_bytes(manifest: &Manifest, id: TensorId, intervals: &[Option<Interval>]) -> Result<u64> {
    let tensor = &manifest.tensors[id as usize];
    let mut shape = Shape::SCALAR;
    for dim in &tensor.shape {
        let interval = dim.interval(intervals).map_err(|source| Error::Dim {
            field: format!("shape of tensor {}", manifest.tensor_name(id)),
            expression: manifest.describe_dim(dim),
            source,
        })?;
        shape.push(usize::try_from(interval.high).unwrap_or(0));
    }
    match tensor.dtype {
        DType::String => Ok(0),
        dtype => Ok(checked_bytes(dtype, &shape)? as u64),
    }
}

fn out_of_memory(what: &str) -> Error {
    Error::OutOfMemory { what: what.into(), bytes: u64::MAX }
}

impl Session {
    /// Prepares for the candidate values, unless they are those of the last time.
    pub(super) fn prepare_candidate(&mut self) -> Result<()> {
        if self.prepared.symbols.as_deref() == Some(&self.candidate) {
            return Ok(());
        }
        // Until all is done, nothing of the old preparation may be used.
        let mut symbols = self.prepared.symbols.take().unwrap_or_default();
        let executable = Arc::clone(&self.executable);
        self.memory.symbols.clone_from(&self.candidate);
        let bounds = intervals(&executable.manifest, &self.candidate)?;
        self.place_arena(&executable.manifest, &bounds)?;
        self.size_outputs(&executable.manifest, &bounds)?;

        // Stand-ins of the right size at address zero, so that addresses in them are offsets.
        for (index, port) in executable.manifest.inputs.iter().enumerate() {
            let shape = self.memory.shape(port.tensor)?;
            let bytes = self.memory.bytes_of(port.tensor, &shape)?;
            self.memory.inputs[index] = Lent { bytes, ..Lent::NONE };
        }
        for (index, &bytes) in self.prepared.lent_bytes.iter().enumerate() {
            self.memory.outputs[index] = Lent { bytes, ..Lent::NONE };
        }
        self.prepared.patches.clear();
        let mut scratch = 0;
        self.prepare_steps(&executable, &executable.manifest.steps, 0, &bounds, &mut scratch)?;
        self.grow_scratch(scratch)?;
        symbols.clone_from(&self.candidate);
        self.prepared.symbols = Some(symbols);
        self.finish();
        Ok(())
    }

    fn place_arena(&mut self, manifest: &Manifest, bounds: &[Option<Interval>]) -> Result<()> {
        let mut ids = Vec::new();
        let mut requests = Vec::new();
        let mut fixed = Vec::new();
        for (id, tensor) in manifest.tensors.iter().enumerate() {
            let Storage::Arena { offset, first_step, last_step } = tensor.storage else { continue };
            let bytes = most_bytes(manifest, id as TensorId, bounds)?;
            ids.push(id);
            requests.push(Request { bytes, first_step, last_step });
            fixed.extend(offset);
        }
        let fail = |error: PlanError| Error::program("arena", error.to_string());
        let (offsets, arena) = match manifest.arena_bytes {
            Some(arena) => {
                check_no_overlap(&requests, &fixed).map_err(fail)?;
                for ((&id, request), offset) in ids.iter().zip(&requests).zip(&fixed) {
                    if offset + request.bytes > arena {
                        let field = format!("tensor {}", manifest.tensor_name(id as TensorId));
                        return Err(Error::program(field, "does not fit the arena"));
                    }
                }
                (fixed, arena)
            }
            None => {
                let places = ids.iter().map(|&id| self.memory.places[id].1);
                if self.prepared.planned
                    && requests.iter().zip(places).all(|(request, room)| request.bytes <= room)
                {
                    return self.check_limit(self.prepared.memory_use);
                }
                let plan = self.plan_arena(&mut requests).map_err(fail)?;
                (plan.offsets, plan.bytes)
            }
        };
        // Until the new places are complete, none may be used.
        self.prepared.planned = false;
        let needed = MemoryUse { arena, ..self.prepared.memory_use };
        self.check_limit(needed)?;
        let bytes = usize::try_from(arena).map_err(|_| out_of_memory("the arena"))?;
        self.memory.arena.resize(bytes, "the arena")?;
        for ((id, request), offset) in ids.into_iter().zip(requests).zip(offsets) {
            self.memory.places[id] = (offset, request.bytes);
        }
        self.prepared.memory_use = needed;
        self.prepared.planned = true;
        Ok(())
    }

    /// Plans the arena; the first time as small as possible. A session whose shapes grow again and again, as the context
    /// of a language model does, then plans with an eighth more than asked for, if it may have it, so that the
    /// number of plans grows with the logarithm of the size. The requests become what was planned.
    fn plan_arena(&self, requests: &mut Vec<Request>) -> Result<Plan, PlanError> {
        if self.prepared.planned {
            let roomy: Vec<_> = requests
                .iter()
                .map(|request| Request { bytes: request.bytes.saturating_add(request.bytes / 8), ..*request })
                .collect();
            if let Ok(plan) = plan(&roomy)
                && self.check_limit(MemoryUse { arena: plan.bytes, ..self.prepared.memory_use }).is_ok()
            {
                *requests = roomy;
                return Ok(plan);
            }
        }
        plan(requests)
    }

    fn size_outputs(&mut self, manifest: &Manifest, bounds: &[Option<Interval>]) -> Result<()> {
        for (index, port) in manifest.outputs.iter().enumerate() {
            let tensor = &manifest.tensors[port.tensor as usize];
            let bytes = match most_bytes(manifest, port.tensor, bounds) {
                Ok(bytes) => usize::try_from(bytes).map_err(|_| out_of_memory("an output"))?,
                Err(Error::Dim { source: DimError::Unbound(_), .. }) => 0,
                Err(error) => return Err(error),
            };
            let direct = tensor.storage == Storage::Output(index as u32) && tensor.dtype != DType::String;
            self.prepared.lent_bytes[index] = if direct { bytes } else { 0 };
            self.prepared.output_bytes[index] = bytes;
        }
        Ok(())
    }

    fn prepare_steps(
        &mut self,
        executable: &Executable,
        steps: &[Step],
        first: u32,
        bounds: &[Option<Interval>],
        scratch: &mut i64,
    ) -> Result<()> {
        let nested = first > 0;
        let mut number = first;
        for step in steps {
            if let (Step::Kernel(kernel), Some(slots)) = (step, executable.analysis.kernels[number as usize])
            {
                // A step whose size depends on data takes what it needs at most, if that is known.
                if let Ok(bytes) = kernel.scratch_bytes.interval(bounds) {
                    *scratch = if bytes.high < i64::MAX { bytes.high.max(*scratch) } else { *scratch };
                }
                if !slots.dynamic {
                    match self.arguments(executable, kernel, slots, number) {
                        Ok(_) => self.record_patches(executable, kernel, slots),
                        // It may be on a path that is not taken: the error comes up when the step runs.
                        Err(_) if nested => self.prepared.domains[slots.order] = Domain::REFUSED,
                        Err(error) => return Err(error),
                    }
                }
            }
            let mut child = number + 1;
            for children in step.children() {
                self.prepare_steps(executable, children, child, bounds, scratch)?;
                child += children.iter().map(Step::count).sum::<u32>();
            }
            number += executable.analysis.spans[number as usize];
        }
        Ok(())
    }

    /// Evaluates all arguments of a kernel step and stores them in the tables. Returns the scratch size.
    pub(super) fn arguments(
        &mut self,
        executable: &Executable,
        step: &KernelStep,
        slots: KernelSlots,
        number: u32,
    ) -> Result<i64> {
        let kernel = &executable.manifest.kernels[step.kernel as usize];
        let field = |what: &str| format!("{what} of kernel `{}` in step number {number}", kernel.symbol);
        for (slot, dim) in self.prepared.dims[slots.dims..].iter_mut().zip(&step.dims) {
            *slot = self.memory.dim(dim, || field("a dim"))?;
        }
        let tasks = self.memory.dim(&step.tasks, || field("the domain"))?;
        let grain = self.memory.dim(&step.grain, || field("the grain"))?;
        if tasks < 0 || grain < 1 {
            let reason = format!("a domain of {tasks} in slices of {grain}");
            return Err(Error::program(field("the domain"), reason));
        }
        self.prepared.domains[slots.order] = Domain { tasks, grain };
        // All memory that grows must have grown before any address is taken.
        if slots.dynamic {
            for (&id, access) in step.buffers.iter().zip(&kernel.buffers) {
                if *access != crate::manifest::Access::Read {
                    self.memory.address_for_write(id)?;
                }
            }
        }
        for (slot, &id) in self.prepared.buffers[slots.buffers..].iter_mut().zip(&step.buffers) {
            *slot = self.memory.address(id)?.0;
        }
        let scratch = self.memory.dim(&step.scratch_bytes, || field("the scratch size"))?;
        if scratch < 0 {
            return Err(Error::program(field("the scratch size"), format!("is {scratch}")));
        }
        Ok(scratch)
    }

    fn record_patches(&mut self, executable: &Executable, step: &KernelStep, slots: KernelSlots) {
        for (position, &id) in step.buffers.iter().enumerate() {
            let root = executable.analysis.roots[id as usize];
            let (output, index) = match executable.manifest.tensors[root as usize].storage {
                Storage::Input(index) => (false, index as usize),
                Storage::Output(index) => (true, index as usize),
                _ => continue,
            };
            let slot = slots.buffers + position;
            let offset = self.prepared.buffers[slot] as usize;
            self.prepared.patches.push(Patch { slot, output, index, offset });
        }
    }

    /// Makes sure that every thread has this much scratch memory.
    pub(super) fn grow_scratch(&mut self, bytes: i64) -> Result<()> {
        if self.mirror.is_some() {
            // A device has its own.
            return Ok(());
        }
        let threads = self.pool.threads() as u64;
        // One line more than needed keeps the threads off each other's cache lines.
        let stride = u64::try_from(bytes).unwrap_or(0).checked_next_multiple_of(ALIGNMENT);
        let stride = stride.and_then(|bytes| if bytes == 0 { Some(0) } else { bytes.checked_add(ALIGNMENT) });
        let total = stride.and_then(|stride| stride.checked_mul(threads));
        let (Some(stride), Some(total)) = (stride, total) else {
            return Err(out_of_memory("scratch memory"));
        };
        let needed =
            MemoryUse { scratch: total.max(self.prepared.memory_use.scratch), ..self.prepared.memory_use };
        self.check_limit(needed)?;
        if stride as usize > self.prepared.scratch_stride {
            self.prepared.scratch.resize(total as usize, "scratch memory")?;
            self.prepared.scratch_stride = stride as usize;
        }
        self.prepared.memory_use = needed;
        Ok(())
    }
}
