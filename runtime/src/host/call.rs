//! What a host function sees while the program runs.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::HostStep;
use crate::pool::ThreadPool;
use crate::session::SessionMemory;
use crate::tensor::{DataRef, Element, Shape, TensorRef};

/// Memory that host functions use again in every call, so that a run allocates nothing once it has grown.
#[derive(Default)]
pub struct HostScratch {
    /// For permutations and positions.
    pub indices: Vec<usize>,
    /// For a second list of positions.
    pub selected: Vec<usize>,
    /// For marks.
    pub flags: Vec<bool>,
    /// For numbers.
    pub floats: Vec<f64>,
}

/// One call of a host function.
pub struct HostCall<'a> {
    pub(crate) memory: &'a mut SessionMemory,
    pub(crate) step: &'a HostStep,
    pub(crate) number: u32,
    pub(crate) scratch: &'a mut HostScratch,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) random_epoch: u32,
    /// Which outputs have been handed out, one bit each.
    pub(crate) taken: u64,
}

impl<'a> HostCall<'a> {
    /// An input, `None` when it is absent.
    pub fn optional_input(&self, index: usize) -> Result<Option<TensorRef<'a>>> {
        let Some(id) = self.step.inputs.get(index).copied().flatten() else { return Ok(None) };
        let shape = self.memory.shape(id)?;
        let dtype = self.memory.executable.manifest.tensors[id as usize].dtype;
        // SAFETY: validation made sure that no output of this step shares memory with an input, so nothing writes
        // the input's memory during the call.
        let tensor = unsafe {
            match dtype {
                DType::String => TensorRef::from_strings(&shape, self.memory.read_strings(id)?)?,
                _ => TensorRef::new(dtype, &shape, self.memory.read(id)?)?,
            }
        };
        Ok(Some(tensor))
    }

    /// An input that must be there.
    pub fn input(&self, index: usize) -> Result<TensorRef<'a>> {
        self.optional_input(index)?.ok_or_else(|| self.fail(format!("input {index} is missing")))
    }

    /// The bytes of an input that is not of strings.
    pub fn bytes(&self, tensor: &TensorRef<'a>) -> Result<&'a [u8]> {
        match tensor.data() {
            DataRef::Bytes(bytes) => Ok(bytes),
            DataRef::Strings(_) => Err(self.fail("strings cannot be used here")),
        }
    }

    /// The elements of an input of this type; `u8` also for `bool`.
    pub fn elements<T: Element>(&self, tensor: &TensorRef<'a>) -> Result<&'a [T]> {
        let bytes = self.bytes(tensor)?;
        if tensor.dtype() != T::DTYPE && !(tensor.dtype() == DType::Bool && T::DTYPE == DType::U8) {
            return Err(self.fail(format!("expected {}, found {}", T::DTYPE, tensor.dtype())));
        }
        if bytes.is_empty() {
            return Ok(&[]);
        }
        bytemuck::try_cast_slice(bytes)
            .map_err(|error| self.fail(format!("the data cannot be used: {error}")))
    }

    /// An element of an integer tensor.
    pub fn integer_element(&self, tensor: &TensorRef<'_>, index: usize) -> Result<i64> {
        let DataRef::Bytes(bytes) = tensor.data() else { return Err(self.fail("strings are no integers")) };
        crate::tensor::integer(tensor.dtype(), bytes, index).map_err(|reason| self.fail(reason))
    }

    /// The only element of an integer input, `default` when the input is absent.
    pub fn integer_input(&self, index: usize, default: i64) -> Result<i64> {
        match self.step.inputs.get(index).copied().flatten() {
            Some(id) => self.memory.integer(id, 0),
            None => Ok(default),
        }
    }

    /// The only element of an `f32` input, `default` when the input is absent.
    pub fn float_input(&self, index: usize, default: f32) -> Result<f32> {
        match self.optional_input(index)? {
            Some(tensor) => {
                let first = self.elements::<f32>(&tensor)?.first().copied();
                first.ok_or_else(|| self.fail(format!("input {index} is empty")))
            }
            None => Ok(default),
        }
    }

    /// Whether there is an output at this position.
    pub fn has_output(&self, index: usize) -> bool {
        index < self.step.outputs.len()
    }

    /// The shape that the program declares for an output whose symbols all have values.
    pub fn declared_shape(&self, index: usize) -> Result<Shape> {
        self.memory.shape(self.output_id(index)?)
    }

    /// Gives an output its shape, which binds the symbols of the step, and returns its bytes. Once for each output.
    pub fn output_bytes(&mut self, index: usize, shape: &[usize]) -> Result<&'a mut [u8]> {
        let id = self.take(index, shape)?;
        // SAFETY: `take` hands each output out once, and validation made sure that outputs share memory neither with
        // inputs nor with each other.
        unsafe { self.memory.write(id) }
    }

    /// As `output_bytes` with elements of this type; `u8` also for `bool`.
    pub fn output<T: Element>(&mut self, index: usize, shape: &[usize]) -> Result<&'a mut [T]> {
        let dtype = self.memory.executable.manifest.tensors[self.output_id(index)? as usize].dtype;
        if dtype != T::DTYPE && !(dtype == DType::Bool && T::DTYPE == DType::U8) {
            return Err(self.fail(format!("output {index} is {dtype}, the function computes {}", T::DTYPE)));
        }
        let bytes = self.output_bytes(index, shape)?;
        if bytes.is_empty() {
            return Ok(&mut []);
        }
        bytemuck::try_cast_slice_mut(bytes)
            .map_err(|error| self.fail(format!("output {index} cannot be used: {error}")))
    }

    /// As `output_bytes` for strings. The function must leave as many strings as the shape says.
    pub fn output_strings(&mut self, index: usize, shape: &[usize]) -> Result<&'a mut Vec<String>> {
        let id = self.take(index, shape)?;
        if self.memory.executable.manifest.tensors[id as usize].dtype != DType::String {
            return Err(self.fail(format!("output {index} is not of strings")));
        }
        // SAFETY: as in `output_bytes`.
        Ok(unsafe { self.memory.write_strings(id) })
    }

    /// Memory to work in.
    pub fn scratch(&mut self) -> &mut HostScratch {
        self.scratch
    }

    /// The threads of the session.
    pub fn pool(&self) -> &'a ThreadPool {
        self.pool
    }

    /// Number of the step, which differs between steps and stays the same from run to run.
    pub fn step_number(&self) -> u32 {
        self.number
    }

    /// What the caller of the session set to get other random numbers.
    pub fn random_epoch(&self) -> u32 {
        self.random_epoch
    }

    /// An error of this call.
    #[cold]
    pub fn fail(&self, reason: impl Into<String>) -> Error {
        Error::Host {
            field: format!("step number {}", self.number),
            function: self.step.function.clone(),
            reason: reason.into(),
        }
    }

    fn output_id(&self, index: usize) -> Result<u32> {
        let id = self.step.outputs.get(index).copied();
        id.ok_or_else(|| self.fail(format!("output {index} is missing")))
    }

    fn take(&mut self, index: usize, shape: &[usize]) -> Result<u32> {
        let id = self.output_id(index)?;
        let bit = 1u64 << index;
        if self.taken & bit != 0 {
            return Err(self.fail(format!("output {index} is written twice")));
        }
        self.taken |= bit;
        self.memory.bind_shape(id, shape, &self.step.binds)?;
        Ok(id)
    }
}
