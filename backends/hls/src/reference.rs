//! What a program computes, by the kernel interpreter: expected values of a testbench.

use std::collections::HashMap;

use tcc_ir::dtype::DType;
use tcc_kernel::evaluate::evaluate;
use tcc_passes::program::Program;
use tcc_runtime::manifest::{Access, Step, Storage, TensorId};

use crate::design::{elements, info, ir_type};
use crate::error::Error;

/// Inputs and the outputs that are expected of them: bytes as the model's types have them in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vector {
    /// One for each input.
    pub inputs: Vec<Vec<u8>>,
    /// One for each output.
    pub outputs: Vec<Vec<u8>>,
}

/// Vectors with pseudo-random inputs: floats within -1 to 1, integers over their range.
pub fn random_vectors(program: &Program, count: usize) -> Result<Vec<Vector>, Error> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut vectors = Vec::new();
    for _ in 0..count {
        let mut inputs = Vec::new();
        for port in &program.manifest.inputs {
            let dtype = ir_type(info(&program.manifest, port.tensor)?.dtype)?;
            let count = elements(&program.manifest, port.tensor)?;
            let mut bytes = Vec::new();
            let mut unit = || (next() >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
            match dtype {
                DType::F32 => (0..count).for_each(|_| bytes.extend((unit() as f32).to_le_bytes())),
                DType::F64 => (0..count).for_each(|_| bytes.extend(unit().to_le_bytes())),
                DType::Bool => (0..count).for_each(|_| bytes.push((next() & 1) as u8)),
                dtype => {
                    let size = dtype.bytes_for(count as usize).unwrap_or(0);
                    (0..size).for_each(|_| bytes.push((next() >> 32) as u8));
                }
            }
            inputs.push(bytes);
        }
        let outputs = run(program, &inputs)?;
        vectors.push(Vector { inputs, outputs });
    }
    Ok(vectors)
}

/// Runs a program whose extents are constant.
pub fn run(program: &Program, inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
    let mut machine = Machine { program, memory: HashMap::new() };
    for (port, bytes) in program.manifest.inputs.iter().zip(inputs) {
        machine.memory.insert(port.tensor, bytes.clone());
    }
    for step in &program.manifest.steps {
        machine.step(step)?;
    }
    program.manifest.outputs.iter().map(|port| machine.read(port.tensor)).collect()
}

struct Machine<'p> {
    program: &'p Program,
    memory: HashMap<TensorId, Vec<u8>>,
}

impl Machine<'_> {
    fn size(&self, id: TensorId) -> Result<usize, Error> {
        let dtype = ir_type(info(&self.program.manifest, id)?.dtype)?;
        let count = elements(&self.program.manifest, id)?;
        let bytes = usize::try_from(count).ok().and_then(|count| dtype.bytes_for(count));
        bytes.ok_or_else(|| Error::Program(format!("tensor {id} is too large")))
    }

    /// The tensor that owns the memory of a tensor, and the first byte in it.
    fn owner(&self, id: TensorId) -> Result<(TensorId, usize), Error> {
        let (mut id, mut first) = (id, 0usize);
        for _ in 0..=self.program.manifest.tensors.len() {
            match &info(&self.program.manifest, id)?.storage {
                Storage::Alias { of, byte_offset } => {
                    let offset = byte_offset.as_const().and_then(|offset| usize::try_from(offset).ok());
                    first +=
                        offset.ok_or_else(|| Error::Program(format!("tensor {id} has an open offset")))?;
                    id = *of;
                }
                _ => return Ok((id, first)),
            }
        }
        Err(Error::Program(format!("tensor {id} is an alias of itself")))
    }

    fn read(&mut self, id: TensorId) -> Result<Vec<u8>, Error> {
        let size = self.size(id)?;
        let (owner, first) = self.owner(id)?;
        let outside = || Error::Program(format!("tensor {id} lies outside of its memory"));
        if let Storage::Weight { blob, offset, .. } = info(&self.program.manifest, owner)?.storage {
            let blob = self.program.weights.get(blob as usize).ok_or_else(outside)?;
            let first = first + usize::try_from(offset).map_err(|_| outside())?;
            return blob.get(first..first + size).map(<[u8]>::to_vec).ok_or_else(outside);
        }
        let total = self.size(owner)?;
        let memory = self.memory.entry(owner).or_insert_with(|| vec![0; total]);
        memory.get(first..first + size).map(<[u8]>::to_vec).ok_or_else(outside)
    }

    fn write(&mut self, id: TensorId, bytes: &[u8]) -> Result<(), Error> {
        let (owner, first) = self.owner(id)?;
        let total = self.size(owner)?;
        let memory = self.memory.entry(owner).or_insert_with(|| vec![0; total]);
        let target = memory.get_mut(first..first + bytes.len());
        target
            .ok_or_else(|| Error::Program(format!("tensor {id} lies outside of its memory")))?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let step = match step {
            Step::Kernel(step) => step,
            Step::Copy { from, to } => {
                let bytes = self.read(*from)?;
                return self.write(*to, &bytes);
            }
            _ => return Err(Error::Program("the reference runs kernels only".into())),
        };
        let missing = || Error::Program(format!("there is no kernel {}", step.kernel));
        let kernel = self.program.kernels.get(step.kernel as usize).ok_or_else(missing)?;
        let accesses = &self.program.manifest.kernels.get(step.kernel as usize).ok_or_else(missing)?.buffers;
        let mut buffers = Vec::new();
        for tensor in &step.buffers {
            buffers.push(self.read(*tensor)?);
        }
        let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
        let tasks = step.tasks.as_const().ok_or_else(|| Error::Program("a domain is open".into()))?;
        evaluate(kernel, &mut slices, &[], 0, tasks.max(1))
            .map_err(|error| Error::Kernel { kernel: kernel.name.clone(), reason: error.to_string() })?;
        for ((tensor, access), bytes) in step.buffers.iter().zip(accesses).zip(&buffers) {
            if *access != Access::Read {
                self.write(*tensor, bytes)?;
            }
        }
        Ok(())
    }
}
