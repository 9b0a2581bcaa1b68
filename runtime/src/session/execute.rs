//! Runs the steps.

use super::Session;
use super::prepare::Domain;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::host::HostCall;
use crate::manifest::{HostStep, KernelFn, KernelStep, LoopStep, Scan, Step, Storage, TensorId};
use crate::program::Executable;
use crate::tensor::Shape;
use std::sync::Arc;
use std::time::Instant;

/// A value about to be copied into another tensor, with its shape before symbols change.
pub(super) struct Pending {
    shape: Shape,
    pointer: *const u8,
    bytes: usize,
    strings: *const [String],
}

/// A kernel and its arguments, shared by the threads during one step.
struct Call {
    function: KernelFn,
    buffers: *const *mut u8,
    dims: *const i64,
    scratch: *mut u8,
    scratch_stride: usize,
}

// SAFETY: the tables are not changed while the kernel runs, each thread has its own part of the scratch memory, and
// that slices of the domain may run at the same time is part of the contract of kernels.
unsafe impl Sync for Call {}

impl Call {
    /// # Safety
    ///
    /// `worker` is below the number of threads of the pool and no other call uses it now; `begin..end` is part of the
    /// domain of the step.
    unsafe fn slice(&self, worker: usize, begin: i64, end: i64) {
        // SAFETY: `Executable::from_program` states the contract of the function; the session made the arguments
        // from the manifest and checked that each buffer lies in the memory of its tensor.
        unsafe {
            let scratch = self.scratch.add(worker * self.scratch_stride);
            (self.function)(self.buffers, self.dims, scratch, begin, end);
        }
    }
}

impl Session {
    /// Runs all steps; inputs and outputs have been lent.
    pub(super) fn execute(&mut self) -> Result<()> {
        self.memory.symbols.copy_from_slice(&self.candidate);
        self.prepared.patch(&self.memory);
        self.pending.clear();
        let executable = Arc::clone(&self.executable);
        self.start_device()?;
        self.steps(&executable, &executable.manifest.steps, 0)?;
        self.finish_device()
    }

    fn steps(&mut self, executable: &Executable, steps: &[Step], first: u32) -> Result<()> {
        let mut number = first;
        for step in steps {
            let start = (!self.profile.is_empty()).then(Instant::now);
            match step {
                Step::Kernel(step) => self.kernel(executable, step, number)?,
                Step::Copy { from, to } => self.copy(*from, *to)?,
                Step::Host(step) => self.host(executable, step, number)?,
                Step::Bind { symbol, tensor, element } => {
                    let element = self.memory.dim(element, || format!("element in step number {number}"))?;
                    let element = usize::try_from(element).unwrap_or(usize::MAX);
                    self.fetch(*tensor)?;
                    let value = self.memory.integer(*tensor, element)?;
                    self.memory.bind(*symbol, value)?;
                }
                Step::Require(constraint) => {
                    super::bind::check(&executable.manifest, constraint, &self.memory.symbols)?;
                }
                Step::If(step) => {
                    let taken = self.truth(step.condition)?;
                    let then_count: u32 = step.then.steps.iter().map(Step::count).sum();
                    let (branch, first) = match taken {
                        true => (&step.then, number + 1),
                        false => (&step.otherwise, number + 1 + then_count),
                    };
                    self.steps(executable, &branch.steps, first)?;
                    self.transfer(branch.results.iter().map(|result| (result.from, result.to)), &step.binds)?;
                }
                Step::Loop(step) => self.repeat(executable, step, number)?,
            }
            if let Some(start) = start {
                let time = &mut self.profile[number as usize];
                let elapsed = start.elapsed();
                time.least = if time.calls == 0 { elapsed } else { time.least.min(elapsed) };
                time.calls += 1;
                time.total += elapsed;
            }
            number += executable.analysis.spans[number as usize];
        }
        Ok(())
    }

    fn kernel(&mut self, executable: &Executable, step: &KernelStep, number: u32) -> Result<()> {
        let Some(slots) = executable.analysis.kernels[number as usize] else {
            return Err(Error::program(format!("step number {number}"), "is not a kernel"));
        };
        // Where preparation met an error, here it is again.
        if slots.dynamic || self.prepared.domains[slots.order] == Domain::REFUSED {
            let scratch = self.arguments(executable, step, slots, number)?;
            if scratch as usize > self.prepared.scratch_stride {
                self.grow_scratch(scratch)?;
            }
        }
        let domain = self.prepared.domains[slots.order];
        if self.mirror.is_some() {
            let dims = self.prepared.dims[slots.dims..][..step.dims.len()].to_vec();
            if domain.tasks > 0 {
                self.launch(executable, step, &dims)?;
            }
            return Ok(());
        }
        let call = Call {
            function: executable.kernels[step.kernel as usize],
            buffers: self.prepared.buffers[slots.buffers..].as_ptr(),
            dims: self.prepared.dims[slots.dims..].as_ptr(),
            scratch: self.prepared.scratch.as_mut_ptr(),
            scratch_stride: self.prepared.scratch_stride,
        };
        // SAFETY: the pool hands out slices of the domain and numbers of its threads.
        self.pool
            .run(domain.tasks, domain.grain, &|worker, begin, end| unsafe { call.slice(worker, begin, end) });
        Ok(())
    }

    fn host(&mut self, executable: &Executable, step: &HostStep, number: u32) -> Result<()> {
        let Some(function) = executable.host[number as usize].as_deref() else {
            return Err(Error::program(format!("step number {number}"), "has no host function"));
        };
        for id in step.inputs.iter().flatten() {
            self.fetch(*id)?;
        }
        self.memory.unbind(&step.binds);
        let mut call = HostCall {
            memory: &mut self.memory,
            step,
            number,
            scratch: &mut self.scratch,
            pool: &self.pool,
            random_epoch: self.random_epoch,
            taken: 0,
        };
        function.call(&mut call)?;
        let all = u64::MAX.checked_shr(64 - step.outputs.len() as u32).unwrap_or(0);
        if call.taken != all {
            return Err(call.fail("did not write all its outputs"));
        }
        step.outputs.iter().try_for_each(|id| self.store(*id))
    }

    /// The value of a `bool` tensor of one element.
    fn truth(&mut self, id: TensorId) -> Result<bool> {
        self.fetch(id)?;
        Ok(self.memory.integer(id, 0)? != 0)
    }

    /// Copies values into tensors whose shapes take the shapes of the values. All shapes are read before any symbol
    /// changes.
    fn transfer(
        &mut self,
        pairs: impl Iterator<Item = (TensorId, TensorId)> + Clone,
        binds: &[u32],
    ) -> Result<()> {
        let base = self.pending.len();
        for (from, _) in pairs.clone() {
            self.fetch(from)?;
            let shape = self.memory.shape(from)?;
            let mut pending = Pending { shape, pointer: std::ptr::null(), bytes: 0, strings: &[] };
            match self.executable.manifest.tensors[from as usize].dtype {
                // SAFETY: validation made sure that no other value of this transfer shares memory with a target.
                DType::String => pending.strings = unsafe { self.memory.read_strings(from)? },
                _ => (pending.pointer, pending.bytes) = self.address_for_read(from)?,
            }
            self.pending.push(pending);
        }
        self.memory.unbind(binds);
        for (index, (from, to)) in pairs.enumerate() {
            let Pending { shape, pointer, bytes, strings } = self.pending[base + index];
            self.memory.bind_shape(to, &shape, binds)?;
            if from == to {
                continue;
            }
            if self.executable.manifest.tensors[to as usize].dtype == DType::String {
                // SAFETY: as above.
                unsafe { super::copy_strings(&*strings, self.memory.write_strings(to)) };
                continue;
            }
            let (target, target_bytes) = self.memory.address_for_write(to)?;
            if target_bytes != bytes {
                let field = format!("tensor {}", self.executable.manifest.tensor_name(to));
                return Err(Error::program(field, format!("{bytes} bytes do not fit {target_bytes}")));
            }
            if bytes > 0 {
                // SAFETY: both ranges were checked to lie in the memory of their tensors, and growing the target did
                // not move the source, which has other memory.
                unsafe { std::ptr::copy(pointer, target, bytes) };
            }
            self.store(to)?;
        }
        self.pending.truncate(base);
        Ok(())
    }

    fn address_for_read(&self, id: TensorId) -> Result<(*const u8, usize)> {
        self.memory.address(id).map(|(pointer, bytes)| (pointer.cast_const(), bytes))
    }

    fn repeat(&mut self, executable: &Executable, step: &LoopStep, number: u32) -> Result<()> {
        let limit = match step.trip_count {
            Some(id) => {
                self.fetch(id)?;
                self.memory.integer(id, 0)?
            }
            None => -1,
        };
        let limit = if limit < 0 { i64::MAX } else { limit };
        let mut proceed = match step.condition {
            Some(id) => self.truth(id)?,
            None => true,
        };
        let carried = step.carried.iter();
        self.transfer(carried.clone().map(|carried| (carried.initial, carried.state)), &step.binds)?;
        let mut count = 0;
        while count < limit && proceed {
            if let Some(symbol) = step.iteration_symbol {
                self.memory.bind(symbol, count)?;
            }
            if let Some(id) = step.iteration {
                // SAFETY: nothing else uses the tensor while the number is written.
                unsafe { self.memory.write(id)? }.copy_from_slice(&count.to_le_bytes());
                self.store(id)?;
            }
            self.steps(executable, &step.body, number + 1)?;
            if let Some(id) = step.condition_next {
                proceed = self.truth(id)?;
            }
            for scan in &step.scans {
                self.fetch(scan.element)?;
                self.append(executable, scan, count)?;
            }
            self.transfer(carried.clone().map(|carried| (carried.next, carried.state)), &step.binds)?;
            count += 1;
        }
        if let Some(symbol) = step.iterations {
            self.memory.bind(symbol, count)?;
        }
        for scan in &step.scans {
            self.check_scan(executable, scan, count)?;
            // While the loop runs, what it has collected is on the host.
            self.store(scan.result)?;
        }
        Ok(())
    }

    /// Puts the element of an iteration behind those of the iterations before.
    fn append(&mut self, executable: &Executable, scan: &Scan, iteration: i64) -> Result<()> {
        let tensor = &executable.manifest.tensors[scan.result as usize];
        let iteration = iteration as usize;
        if tensor.dtype == DType::String {
            // SAFETY: validation made sure that element and result are different tensors.
            let (source, target) =
                unsafe { (self.memory.read_strings(scan.element)?, self.memory.write_strings(scan.result)) };
            target.truncate(iteration * source.len());
            target.extend_from_slice(source);
            return Ok(());
        }
        let fail = |reason: String| {
            Error::program(format!("tensor {}", executable.manifest.tensor_name(scan.result)), reason)
        };
        let shape = self.memory.shape(scan.element)?;
        let bits = shape.elements().unwrap_or(0).wrapping_mul(tensor.dtype.bits().into());
        if bits % 8 != 0 {
            return Err(fail(format!("elements of {bits} bits cannot be collected")));
        }
        let (source, bytes) = self.address_for_read(scan.element)?;
        let end = (iteration + 1).checked_mul(bytes).ok_or_else(|| fail("is too large".into()))?;
        if tensor.storage == Storage::Host {
            let memory = &mut self.memory.owned[scan.result as usize].bytes;
            if end > memory.capacity() {
                // Doubling makes the cost of all growth together linear.
                memory.resize(end.max(memory.capacity().saturating_mul(2)), "a collected result")?;
            }
            memory.resize(end, "a collected result")?;
        }
        let (target, available) = self.memory.locate(scan.result)?;
        if end > available {
            return Err(fail(format!("{} iterations do not fit its {available} bytes", iteration + 1)));
        }
        if bytes > 0 {
            // SAFETY: the source was checked by `address`, the target just now, and they share no memory.
            unsafe { std::ptr::copy_nonoverlapping(source, target.add(end - bytes), bytes) };
        }
        Ok(())
    }

    /// Checks that what was collected is what the shape of the result says.
    fn check_scan(&mut self, executable: &Executable, scan: &Scan, count: i64) -> Result<()> {
        let manifest = &executable.manifest;
        let tensor = &manifest.tensors[scan.result as usize];
        if count == 0 {
            // No iteration has bound the dimensions of the element.
            for dim in &tensor.shape {
                if let crate::dim::DimExpr::Symbol(symbol) = dim
                    && self.memory.symbols[*symbol as usize].is_none()
                {
                    self.memory.bind(*symbol, 0)?;
                }
            }
            if tensor.dtype == DType::String {
                self.memory.owned[scan.result as usize].strings.clear();
            }
        }
        let shape = self.memory.shape(scan.result)?;
        let same = count == 0 || self.memory.shape(scan.element)?[..] == shape[1..];
        if shape.first().map(|&dim| dim as i64) != Some(count) || !same {
            let field = format!("tensor {}", manifest.tensor_name(scan.result));
            return Err(Error::program(field, format!("shape {shape:?} after {count} iterations")));
        }
        Ok(())
    }
}
