//! Which fixed-point format each tensor of a program has, and the local variables of each step.
//!
//! A tensor takes the format of the one that owns its memory. With given integer bits all are alike; otherwise each has as
//! many as the values need that it held on calibration data, and what the width leaves for the fraction. Local variables keep
//! the whole fraction of a product of two inputs and one integer bit more than their observed values need.

use std::collections::HashMap;

use tcc_ir::dtype::DType;
use tcc_kernel::fixed::{Fixed, Formats};
use tcc_kernel::ir::{Access, Kernel, Space};
use tcc_passes::program::Program;
use tcc_runtime::manifest::{Step, Storage, TensorId};

use crate::design::{info, ir_type};
use crate::error::Error;
use crate::numbers::{Numbers, Types, sum_of};
use crate::reference::{Ranges, observe, owner, run, weight};

/// Widths that a search tries, narrowest first.
const WIDTHS: [u32; 10] = [8, 10, 12, 14, 16, 18, 20, 24, 28, 32];

/// Largest accepted error of a searched width, relative to the largest output.
pub const SEARCH_TOLERANCE: f64 = 0.01;

/// Formats of a program's f32 tensors; none of them in floating point.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProgramFormats {
    tensors: Vec<Option<Fixed>>,
    steps: Vec<Option<StepFormats>>,
}

/// Formats inside of a step.
#[derive(Clone, PartialEq, Debug)]
struct StepFormats {
    local: Fixed,
    /// By buffer: the kernel's own arrays; unused for arguments.
    own: Vec<Fixed>,
}

/// Inputs of a program: for each vector the bytes of each input.
pub type Calibration = [Vec<Vec<u8>>];

impl ProgramFormats {
    /// Floating point everywhere.
    pub fn floating(program: &Program) -> ProgramFormats {
        let manifest = &program.manifest;
        ProgramFormats {
            tensors: vec![None; manifest.tensors.len()],
            steps: vec![None; manifest.steps.len()],
        }
    }

    /// The formats that `numbers` ask for. `calibration` decides where ranges do, and given formats must hold its values.
    pub fn choose(
        program: &Program,
        numbers: &Numbers,
        calibration: &Calibration,
    ) -> Result<ProgramFormats, Error> {
        match *numbers {
            Numbers::Float => Ok(ProgramFormats::floating(program)),
            Numbers::Fixed(value) => {
                if !calibration.is_empty() {
                    overflow(program, value, &observe(program, calibration)?)?;
                }
                Ok(ProgramFormats::uniform(program, value))
            }
            Numbers::Ranged(width) => ProgramFormats::ranged(program, width, &observe(program, calibration)?),
            Numbers::Searched => {
                let ranges = observe(program, calibration)?;
                let mut least = f64::INFINITY;
                for width in WIDTHS {
                    let formats = ProgramFormats::ranged(program, width, &ranges)?;
                    let error = error(program, &formats, calibration)?;
                    least = least.min(error);
                    if error <= SEARCH_TOLERANCE {
                        return Ok(formats);
                    }
                }
                Err(Error::NoWidth { widest: WIDTHS[WIDTHS.len() - 1], error: least })
            }
        }
    }

    fn uniform(program: &Program, value: Fixed) -> ProgramFormats {
        let manifest = &program.manifest;
        let step = |step: &Step| {
            let Step::Kernel(step) = step else { return None };
            let kernel = program.kernels.get(step.kernel as usize)?;
            Some(StepFormats { local: sum_of(value), own: vec![value; kernel.buffers.len()] })
        };
        ProgramFormats {
            tensors: vec![Some(value); manifest.tensors.len()],
            steps: manifest.steps.iter().map(step).collect(),
        }
    }

    fn ranged(program: &Program, width: u32, ranges: &Ranges) -> Result<ProgramFormats, Error> {
        let manifest = &program.manifest;
        let format = |magnitude: f64| {
            // Far below 1 the format is all fraction, and its leading bits are left out.
            let integer = Fixed::integer_bits(magnitude).clamp(-24, width as i32);
            Fixed { width, integer }
        };
        let mut owners: HashMap<TensorId, f64> = ranges.tensors.clone();
        for id in 0..manifest.tensors.len() as TensorId {
            let tensor = info(manifest, id)?;
            if matches!(tensor.storage, Storage::Weight { .. }) && ir_type(tensor.dtype)? == DType::F32 {
                let magnitudes =
                    weight(program, id)?.unwrap_or_default().into_iter().map(|value| value.as_f64().abs());
                owners.insert(id, magnitudes.filter(|value| value.is_finite()).fold(0.0, f64::max));
            }
        }
        let mut tensors = Vec::new();
        for id in 0..manifest.tensors.len() as TensorId {
            let (owner, _) = owner(program, id)?;
            tensors.push(Some(format(owners.get(&owner).copied().unwrap_or(0.0))));
        }
        let mut steps = Vec::new();
        for (number, step) in manifest.steps.iter().enumerate() {
            let kernel = match step {
                Step::Kernel(step) => program.kernels.get(step.kernel as usize).map(|kernel| (step, kernel)),
                _ => None,
            };
            let (Some((step, kernel)), Some(observed)) = (kernel, ranges.steps.get(number)) else {
                steps.push(None);
                continue;
            };
            let own: Vec<Fixed> = kernel
                .buffers
                .iter()
                .enumerate()
                .map(|(buffer, _)| format(observed.buffers.get(buffer).copied().unwrap_or(0.0)))
                .collect();
            let mut fractions: Vec<u32> = Vec::new();
            let mut integer = Fixed::integer_bits(observed.local).max(1) + 1;
            for buffer in &kernel.buffers {
                let Space::Argument(position) = buffer.space else { continue };
                let argument = step.buffers.get(position as usize).and_then(|id| tensors.get(*id as usize));
                let Some(Some(format)) = argument.filter(|_| buffer.dtype == DType::F32) else { continue };
                if buffer.access != Access::Write {
                    fractions.push(format.fraction());
                }
                integer = integer.max(format.integer + 1);
            }
            fractions.sort_unstable_by(|a, b| b.cmp(a));
            let fraction = match fractions[..] {
                [a, b, ..] => a + b,
                [a] => 2 * a,
                [] => width,
            };
            let local = Fixed { width: fraction + integer as u32, integer };
            steps.push(Some(StepFormats { local, own }));
        }
        Ok(ProgramFormats { tensors, steps })
    }

    /// The format of a tensor's elements, if they are f32.
    pub fn tensor(&self, id: TensorId) -> Option<Fixed> {
        self.tensors.get(id as usize).copied().flatten()
    }

    /// The widest format of any tensor.
    pub fn width(&self) -> Option<u32> {
        self.tensors.iter().flatten().map(|format| format.width).max()
    }

    /// The types of a kernel that step `number` calls with these tensors.
    pub fn types(&self, kernel: &Kernel, number: usize, arguments: &[TensorId]) -> Types {
        let Some(step) = self.steps.get(number).and_then(Option::as_ref) else { return Types::default() };
        let buffer = |(number, buffer): (usize, &tcc_kernel::ir::Buffer)| match buffer.space {
            Space::Argument(position) => {
                arguments.get(position as usize).and_then(|id| self.tensor(*id)).unwrap_or(step.local)
            }
            _ => step.own.get(number).copied().unwrap_or(step.local),
        };
        let buffers = kernel.buffers.iter().enumerate().map(buffer).collect();
        Types(Some(Formats { buffers, local: step.local }))
    }
}

/// Refuses a format that does not hold the observed values.
fn overflow(program: &Program, format: Fixed, ranges: &Ranges) -> Result<(), Error> {
    let manifest = &program.manifest;
    let (_, high) = format.range();
    let mut beyond: Vec<(TensorId, f64)> = Vec::new();
    for id in 0..manifest.tensors.len() as TensorId {
        let constant = weight(program, id)?.filter(|_| {
            info(manifest, id)
                .is_ok_and(|tensor| ir_type(tensor.dtype).is_ok_and(|dtype| dtype == DType::F32))
        });
        let magnitude = match constant {
            Some(values) => values
                .iter()
                .map(|value| value.as_f64().abs())
                .filter(|value| value.is_finite())
                .fold(0.0, f64::max),
            None => ranges.tensors.get(&id).copied().unwrap_or(0.0),
        };
        if magnitude > high {
            beyond.push((id, magnitude));
        }
    }
    let Some((id, observed)) = beyond.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return Ok(()) };
    Err(Error::Overflow {
        layer: manifest.tensor_name(id).to_string(),
        observed,
        format: format.to_string(),
        integer: Fixed::integer_bits(observed),
    })
}

/// The largest error of the outputs, relative to the largest value of each.
pub fn error(program: &Program, formats: &ProgramFormats, calibration: &Calibration) -> Result<f64, Error> {
    let floating = ProgramFormats::floating(program);
    let mut worst = 0.0f64;
    for inputs in calibration {
        let (exact, rounded) = (run(program, &floating, inputs)?, run(program, formats, inputs)?);
        for (exact, rounded) in exact.iter().zip(&rounded) {
            let finite = |value: &f64| value.is_finite();
            let largest = exact.iter().map(|value| value.as_f64().abs()).filter(finite).fold(0.0, f64::max);
            let differences = exact.iter().zip(rounded).map(|(a, b)| (a.as_f64() - b.as_f64()).abs());
            let difference = differences.filter(finite).fold(0.0, f64::max);
            if difference > 0.0 {
                worst = worst.max(if largest > 0.0 { difference / largest } else { f64::INFINITY });
            }
        }
    }
    Ok(worst)
}
