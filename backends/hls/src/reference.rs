//! What a program computes, by the kernel interpreter: expected values of a testbench, and ranges of values.

use std::collections::HashMap;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;
use tcc_kernel::fixed::{Cell, Exact, Fixed, Observed, cell, evaluate, scalar};
use tcc_kernel::{fold, ir as kernel_ir};
use tcc_passes::program::Program;
use tcc_runtime::manifest::{Access, KernelStep, Step, Storage, TensorId};

use crate::design::{Design, elements, info, ir_type};
use crate::error::Error;
use crate::formats::ProgramFormats;
use crate::weights::bits;

/// Inputs and the outputs that are expected of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vector {
    /// One for each input: bytes as the model's type has them in memory.
    pub inputs: Vec<Vec<u8>>,
    /// One for each output: its elements; fixed-point numbers as `f64` of an f32 type.
    pub outputs: Vec<Vec<Scalar>>,
}

/// Pseudo-random inputs: floats within -1 to 1, integers over their range.
pub fn random_inputs(program: &Program, count: usize) -> Result<Vec<Vec<Vec<u8>>>, Error> {
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
        vectors.push(inputs);
    }
    Ok(vectors)
}

/// Runs a program whose extents are constant, with f32 in these formats; the elements of each output.
pub fn run(
    program: &Program,
    formats: &ProgramFormats,
    inputs: &[Vec<u8>],
) -> Result<Vec<Vec<Scalar>>, Error> {
    let mut machine = Machine::new(program, formats);
    machine.run(inputs)?;
    let outputs = program.manifest.outputs.iter();
    outputs.map(|port| machine.scalars(port.tensor)).collect()
}

/// Runs a design: its kernels as they were scheduled, with the formats that they have there.
pub fn run_design(
    program: &Program,
    formats: &ProgramFormats,
    design: &Design,
    inputs: &[Vec<u8>],
) -> Result<Vec<Vec<Scalar>>, Error> {
    let mut machine = Machine { design: Some(design), ..Machine::new(program, formats) };
    machine.run(inputs)?;
    let outputs = program.manifest.outputs.iter();
    outputs.map(|port| machine.scalars(port.tensor)).collect()
}

/// Largest magnitudes of the values of a program.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ranges {
    /// By the tensor that owns the memory.
    pub tensors: HashMap<TensorId, f64>,
    /// By step: what a kernel's local variables, and its own arrays by buffer, held.
    pub steps: Vec<Observed>,
}

/// Observes the values of a program in floating point on these inputs.
pub fn observe(program: &Program, vectors: &[Vec<Vec<u8>>]) -> Result<Ranges, Error> {
    let formats = ProgramFormats::floating(program);
    let mut ranges = Ranges::default();
    for inputs in vectors {
        let mut machine = Machine::new(program, &formats);
        machine.ranges = std::mem::take(&mut ranges);
        machine.run(inputs)?;
        ranges = machine.ranges;
    }
    Ok(ranges)
}

/// The tensor that owns the memory of a tensor, and the first byte in it.
pub fn owner(program: &Program, id: TensorId) -> Result<(TensorId, usize), Error> {
    let (mut id, mut first) = (id, 0usize);
    for _ in 0..=program.manifest.tensors.len() {
        match &info(&program.manifest, id)?.storage {
            Storage::Alias { of, byte_offset } => {
                let offset = byte_offset.as_const().and_then(|offset| usize::try_from(offset).ok());
                first += offset.ok_or_else(|| Error::Program(format!("tensor {id} has an open offset")))?;
                id = *of;
            }
            _ => return Ok((id, first)),
        }
    }
    Err(Error::Program(format!("tensor {id} is an alias of itself")))
}

/// The elements of a constant.
pub fn weight(program: &Program, id: TensorId) -> Result<Option<Vec<Scalar>>, Error> {
    let tensor = info(&program.manifest, id)?;
    let Storage::Weight { blob, offset, .. } = tensor.storage else { return Ok(None) };
    let outside = || Error::Program(format!("tensor {id} lies outside of its memory"));
    let dtype = ir_type(tensor.dtype)?;
    let count = usize::try_from(elements(&program.manifest, id)?).map_err(|_| outside())?;
    let first = usize::try_from(offset).map_err(|_| outside())?;
    let data = program.weights.get(blob as usize).and_then(|blob| blob.get(first..)).ok_or_else(outside)?;
    let element = |index| Some(fold::from_bits(dtype, bits(dtype, data, index)?));
    (0..count).map(element).collect::<Option<Vec<Scalar>>>().map(Some).ok_or_else(outside)
}

struct Machine<'p> {
    program: &'p Program,
    formats: &'p ProgramFormats,
    /// Whose kernels run, where they are not the program's.
    design: Option<&'p Design>,
    memory: HashMap<TensorId, Vec<Cell>>,
    ranges: Ranges,
}

/// The cell of a number of a tensor with this format.
fn stored(value: Scalar, format: Option<Fixed>) -> Cell {
    match format {
        Some(format) if value.dtype == DType::F32 => Exact::nearest(value.as_f64(), format).mantissa,
        _ => cell(value),
    }
}

fn loaded(dtype: DType, cell: Cell, format: Option<Fixed>) -> Scalar {
    match format {
        Some(format) if dtype == DType::F32 => {
            Scalar::float(dtype, Exact { mantissa: cell, fraction: format.fraction() }.to_f64())
        }
        _ => scalar(dtype, cell),
    }
}

impl<'p> Machine<'p> {
    fn new(program: &'p Program, formats: &'p ProgramFormats) -> Machine<'p> {
        Machine { program, formats, design: None, memory: HashMap::new(), ranges: Ranges::default() }
    }

    fn run(&mut self, inputs: &[Vec<u8>]) -> Result<(), Error> {
        for (port, bytes) in self.program.manifest.inputs.iter().zip(inputs) {
            let dtype = ir_type(info(&self.program.manifest, port.tensor)?.dtype)?;
            let count = elements(&self.program.manifest, port.tensor)? as usize;
            let format = self.formats.tensor(port.tensor);
            let element = |index| Some(stored(fold::from_bits(dtype, bits(dtype, bytes, index)?), format));
            let cells = (0..count).map(element).collect::<Option<Vec<Cell>>>();
            let short =
                || Error::Vector { number: 0, reason: format!("'{}' has too few elements", port.name) };
            self.memory.insert(port.tensor, cells.ok_or_else(short)?);
            self.note(port.tensor)?;
        }
        let manifest = &self.program.manifest;
        self.ranges.steps.resize(manifest.steps.len(), Observed::default());
        for (number, step) in manifest.steps.iter().enumerate() {
            match step {
                Step::Kernel(step) => self.kernel(number, step)?,
                Step::Copy { from, to } => {
                    let scalars = self.scalars(*from)?;
                    let format = self.formats.tensor(*to);
                    self.write(*to, scalars.into_iter().map(|value| stored(value, format)).collect())?;
                    self.note(*to)?;
                }
                _ => return Err(Error::Program("the reference runs kernels only".into())),
            }
        }
        Ok(())
    }

    /// Notes the range of a tensor.
    fn note(&mut self, id: TensorId) -> Result<(), Error> {
        let (owner, _) = owner(self.program, id)?;
        if ir_type(info(&self.program.manifest, id)?.dtype)? == DType::F32
            && self.formats.tensor(id).is_none()
        {
            let magnitudes = self.scalars(id)?.into_iter().map(|value| value.as_f64().abs());
            let largest = magnitudes.filter(|value| value.is_finite()).fold(0.0, f64::max);
            let entry = self.ranges.tensors.entry(owner).or_default();
            *entry = entry.max(largest);
        }
        Ok(())
    }

    fn scalars(&mut self, id: TensorId) -> Result<Vec<Scalar>, Error> {
        let dtype = ir_type(info(&self.program.manifest, id)?.dtype)?;
        let format = self.formats.tensor(id);
        Ok(self.read(id)?.into_iter().map(|cell| loaded(dtype, cell, format)).collect())
    }

    /// The cells of a tensor: its owner's, first and number.
    fn place(&mut self, id: TensorId) -> Result<(&mut Vec<Cell>, std::ops::Range<usize>), Error> {
        let (owner, first) = owner(self.program, id)?;
        let dtype = ir_type(info(&self.program.manifest, id)?.dtype)?;
        let first = first * 8 / dtype.bits();
        let count = elements(&self.program.manifest, id)? as usize;
        let total = elements(&self.program.manifest, owner)? as usize;
        if !self.memory.contains_key(&owner) {
            let format = self.formats.tensor(owner);
            let cells = match weight(self.program, owner)? {
                Some(scalars) => scalars.into_iter().map(|value| stored(value, format)).collect(),
                None => vec![0; total],
            };
            self.memory.insert(owner, cells);
        }
        let memory = self.memory.entry(owner).or_default();
        if first + count > memory.len() {
            return Err(Error::Program(format!("tensor {id} lies outside of its memory")));
        }
        Ok((memory, first..first + count))
    }

    fn read(&mut self, id: TensorId) -> Result<Vec<Cell>, Error> {
        let (memory, range) = self.place(id)?;
        Ok(memory[range].to_vec())
    }

    fn write(&mut self, id: TensorId, cells: Vec<Cell>) -> Result<(), Error> {
        let (memory, range) = self.place(id)?;
        memory[range].copy_from_slice(&cells);
        Ok(())
    }

    fn kernel(&mut self, number: usize, step: &KernelStep) -> Result<(), Error> {
        let missing = || Error::Program(format!("there is no kernel {}", step.kernel));
        let kernel = self.program.kernels.get(step.kernel as usize).ok_or_else(missing)?;
        let accesses = &self.program.manifest.kernels.get(step.kernel as usize).ok_or_else(missing)?.buffers;
        let mut arguments = Vec::new();
        for tensor in &step.buffers {
            arguments.push(self.read(*tensor)?);
        }
        let function =
            self.design.and_then(|design| design.functions.get(*design.steps.get(number)?.as_ref()?));
        let (kernel, types) = match function {
            Some(function) => (&function.scheduled.kernel, function.types.clone()),
            None => (kernel, self.formats.types(kernel, number, &step.buffers)),
        };
        let mut observed = std::mem::take(&mut self.ranges.steps[number]);
        evaluate(kernel, &mut arguments, types.0.as_ref(), &mut observed)
            .map_err(|error| Error::Kernel { kernel: kernel.name.clone(), reason: error.to_string() })?;
        for (buffer, magnitude) in kernel.buffers.iter().zip(&observed.buffers) {
            let kernel_ir::Space::Argument(position) = buffer.space else { continue };
            if let Some(tensor) = step.buffers.get(position as usize) {
                let entry = self.ranges.tensors.entry(owner(self.program, *tensor)?.0).or_default();
                *entry = entry.max(*magnitude);
            }
        }
        self.ranges.steps[number] = observed;
        for ((tensor, access), cells) in step.buffers.iter().zip(accesses).zip(arguments) {
            if *access != Access::Read {
                self.write(*tensor, cells)?;
            }
        }
        Ok(())
    }
}
