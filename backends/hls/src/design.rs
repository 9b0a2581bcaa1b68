//! A program as a design: functions, the arrays that they share, and the calls in order.
//!
//! Every extent must be a constant and every step a kernel or a copy; anything else is refused by name. Arena tensors of one
//! element type whose live ranges do not meet share an array.

mod processes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use tcc_ir::dtype::DType;
use tcc_kernel::fixed::Fixed;
use tcc_kernel::{Kernel, ir as kernel_ir};
use tcc_passes::program::{Program, element_type};
use tcc_runtime::DimExpr;
use tcc_runtime::manifest::{Access, KernelStep, Manifest, Step, Storage, TensorId};

use crate::emit::{Emitted, emit};
use crate::error::Error;
use crate::estimate::{Memory, memory};
use crate::flow::Flow;
use crate::formats::ProgramFormats;
use crate::names::{distinct, identifier};
use crate::numbers::{Types, element_bits};
use crate::part::Part;
use crate::schedule::{Scheduled, schedule};
use crate::stream::{Streamed, stream};

/// A function of the design.
#[derive(Clone, Debug)]
pub struct Function {
    /// The scheduled kernel.
    pub scheduled: Scheduled,
    /// Its number formats.
    pub types: Types,
    /// How it takes its tensors, where they are streams.
    pub streamed: Option<Streamed>,
    /// Its text.
    pub emitted: Emitted,
}

/// What an array of the design is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Intermediate results, inputs and outputs.
    Local,
    /// The constant data of this tensor.
    Weight(TensorId),
}

/// An array on the chip.
#[derive(Clone, Debug)]
pub struct Array {
    /// Its name.
    pub name: String,
    /// Element type in the model.
    pub dtype: DType,
    /// Format of f32 elements; none for floating point.
    pub format: Option<Fixed>,
    /// What it is for.
    pub role: Role,
    /// Size, banks and kind.
    pub memory: Memory,
    last_step: u32,
}

/// Where a tensor is: an array and the first element in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which array.
    pub array: usize,
    /// First element.
    pub offset: u64,
}

/// One thing that the top function does.
#[derive(Clone, Debug)]
pub enum Call {
    /// Calls a function.
    Function {
        /// Which.
        function: usize,
        /// On what.
        arguments: Vec<Place>,
        /// The layer of the model.
        layer: String,
    },
    /// Copies elements.
    Copy {
        /// Source.
        from: Place,
        /// Destination.
        to: Place,
        /// How many.
        elements: u64,
    },
}

/// An input or output of the design.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name as an identifier.
    pub name: String,
    /// Element type in the model.
    pub dtype: DType,
    /// Format of f32 elements; none for floating point.
    pub format: Option<Fixed>,
    /// Number of elements.
    pub elements: u64,
    /// Where it is on the chip; none where it is a stream.
    pub place: Option<Place>,
}

/// How the layers of a design follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Architecture {
    /// One after the other, on arrays that they share.
    #[default]
    Sequential,
    /// Side by side, with FIFOs between them.
    Dataflow,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Architecture::Sequential => "sequential",
            Architecture::Dataflow => "dataflow",
        })
    }
}

/// What is to be decided about a design.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// How the layers follow each other.
    pub architecture: Architecture,
    /// By step: iterations of the innermost loops that run side by side; 1 where there is none.
    pub parallel: Vec<u32>,
}

/// A design.
#[derive(Clone, Debug)]
pub struct Design {
    /// Name of the top function.
    pub name: String,
    /// Functions, one a kernel of the program that a step calls.
    pub functions: Vec<Function>,
    /// Arrays.
    pub arrays: Vec<Array>,
    /// What happens, in order; nothing in a dataflow design.
    pub calls: Vec<Call>,
    /// The function of each step of the program; none for a copy.
    pub steps: Vec<Option<usize>>,
    /// The processes of a dataflow design.
    pub flow: Option<Flow>,
    /// How it was made.
    pub plan: Plan,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
}

/// The element type of a manifest tensor in the IR.
pub fn ir_type(dtype: tcc_runtime::DType) -> Result<DType, Error> {
    DType::ALL
        .iter()
        .copied()
        .find(|known| element_type(*known) == Some(dtype))
        .ok_or_else(|| Error::Program(format!("element type {} has no kernel", dtype.name())))
}

/// Number of elements of a tensor whose extents are all constant.
pub fn elements(manifest: &Manifest, id: TensorId) -> Result<u64, Error> {
    let tensor = info(manifest, id)?;
    let mut count = 1u64;
    for dim in &tensor.shape {
        let extent = constant(manifest, dim, || format!("tensor {}", manifest.tensor_name(id)))?;
        let overflow = || Error::Program(format!("tensor {} is too large", manifest.tensor_name(id)));
        count =
            u64::try_from(extent).ok().and_then(|extent| count.checked_mul(extent)).ok_or_else(overflow)?;
    }
    Ok(count)
}

/// Description of a tensor.
pub fn info(manifest: &Manifest, id: TensorId) -> Result<&tcc_runtime::manifest::TensorInfo, Error> {
    manifest.tensors.get(id as usize).ok_or_else(|| Error::Program(format!("there is no tensor {id}")))
}

fn constant(manifest: &Manifest, dim: &DimExpr, what: impl FnOnce() -> String) -> Result<i64, Error> {
    dim.as_const().ok_or_else(|| Error::OpenDimension { what: what(), dimension: manifest.describe_dim(dim) })
}

impl Design {
    /// The design of a program on a part. The program has been checked ([`check`]).
    pub fn new(
        program: &Program,
        part: &Part,
        formats: &ProgramFormats,
        plan: &Plan,
    ) -> Result<Design, Error> {
        let manifest = &program.manifest;
        let mut builder = Builder {
            program,
            formats,
            part,
            plan,
            arrays: Vec::new(),
            places: HashMap::new(),
            functions: Vec::new(),
            steps: vec![None; manifest.steps.len()],
            function_of: HashMap::new(),
            names: BTreeSet::new(),
            written: written(manifest),
        };
        let name = builder.name(&manifest.name);
        let mut calls = Vec::new();
        let mut flow = None;
        let streams = plan.architecture == Architecture::Dataflow;
        if streams {
            flow = Some(builder.flow()?);
        } else {
            builder.place_arena()?;
            for (number, step) in manifest.steps.iter().enumerate() {
                calls.push(builder.call(number, step)?);
            }
        }
        let inputs = builder.ports(&manifest.inputs, !streams)?;
        let outputs = builder.ports(&manifest.outputs, !streams)?;
        let Builder { arrays, functions, steps, .. } = builder;
        Ok(Design { name, functions, steps, arrays, calls, flow, plan: plan.clone(), inputs, outputs })
    }

    /// The fixed-point formats of the design.
    pub fn formats(&self) -> BTreeSet<Fixed> {
        let arrays = self.arrays.iter().map(|array| (array.dtype, array.format));
        let ports = self.inputs.iter().chain(&self.outputs).map(|port| (port.dtype, port.format));
        let fifos = self.flow.iter().flat_map(|flow| &flow.fifos).map(|fifo| (fifo.dtype, fifo.format));
        let stored = arrays.chain(ports).chain(fifos).filter(|(dtype, _)| *dtype == DType::F32);
        let inside = self.functions.iter().filter_map(|function| function.types.0.as_ref());
        let inside = inside.flat_map(|formats| formats.buffers.iter().copied().chain([formats.local]));
        stored.filter_map(|(_, format)| format).chain(inside).collect()
    }

    /// True where the design uses integer or fixed-point types of the vendor's headers.
    pub fn uses_ap_types(&self) -> bool {
        let arbitrary = |(dtype, format): (DType, Option<Fixed>)| {
            dtype.is_integer() || (dtype == DType::F32 && format.is_some())
        };
        let ports = self.inputs.iter().chain(&self.outputs).map(|port| (port.dtype, port.format));
        let arrays = self.arrays.iter().map(|array| (array.dtype, array.format));
        let texts = self.functions.iter().any(|function| {
            ["ap_", "to_integer", "clamped<", "shift_"]
                .iter()
                .any(|word| function.emitted.text.contains(word))
        });
        let fifos = self.flow.iter().flat_map(|flow| &flow.fifos).map(|fifo| (fifo.dtype, fifo.format));
        texts || ports.chain(arrays).chain(fifos).any(arbitrary)
    }
}

/// Refuses steps and extents that hardware cannot have.
pub fn check(manifest: &Manifest) -> Result<(), Error> {
    for (number, step) in manifest.steps.iter().enumerate() {
        let refuse = |what: String, advice: &'static str| Err(Error::Step { number, what, advice });
        match step {
            Step::Kernel(_) | Step::Copy { .. } => {}
            Step::Host(host) => {
                return refuse(
                    format!("the host function '{}'", host.function),
                    "run it before or after the design",
                );
            }
            Step::If(_) => {
                return refuse("a choice between branches".into(), "fold the condition to a constant");
            }
            Step::Loop(_) => return refuse("a loop of the model".into(), "unroll it in the model"),
            Step::Bind { .. } => {
                return refuse("a dimension read from data".into(), "give the dimension with --dim");
            }
            Step::Require(_) => {
                return refuse("a check of a dimension".into(), "give the dimension with --dim");
            }
        }
    }
    let ports = manifest.inputs.iter().chain(&manifest.outputs).map(|port| port.tensor);
    for id in ports.chain(0..manifest.tensors.len() as TensorId) {
        elements(manifest, id)?;
        match info(manifest, id)?.storage {
            Storage::State => {
                return Err(Error::Program(format!(
                    "tensor {} keeps state between runs",
                    manifest.tensor_name(id)
                )));
            }
            Storage::Host => {
                return Err(Error::Program(format!("tensor {} lives on the host", manifest.tensor_name(id))));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tensors that a kernel overwrites as a whole.
fn written(manifest: &Manifest) -> HashSet<TensorId> {
    let mut written = HashSet::new();
    for step in &manifest.steps {
        let Step::Kernel(step) = step else { continue };
        let Some(kernel) = manifest.kernels.get(step.kernel as usize) else { continue };
        for (tensor, access) in step.buffers.iter().zip(&kernel.buffers) {
            if *access == Access::Write {
                written.insert(*tensor);
            }
        }
    }
    written
}

/// What two calls of one function have in common: kernel, formats, how much runs side by side, arguments that are streams.
type FunctionKey = (u32, Types, u32, Vec<u32>);

struct Builder<'p> {
    program: &'p Program,
    formats: &'p ProgramFormats,
    part: &'p Part,
    plan: &'p Plan,
    arrays: Vec<Array>,
    places: HashMap<TensorId, Place>,
    functions: Vec<Function>,
    steps: Vec<Option<usize>>,
    function_of: HashMap<FunctionKey, usize>,
    names: BTreeSet<String>,
    written: HashSet<TensorId>,
}

impl Builder<'_> {
    fn name(&mut self, wanted: &str) -> String {
        let name = distinct(wanted, &|name| self.names.contains(name));
        self.names.insert(name.clone());
        name
    }

    /// A new array for a tensor.
    fn array(&mut self, name: &str, id: TensorId, role: Role, last_step: u32) -> Result<usize, Error> {
        let manifest = &self.program.manifest;
        let (elements, dtype) = (elements(manifest, id)?, ir_type(info(manifest, id)?.dtype)?);
        let (name, format) = (self.name(name), self.formats.tensor(id));
        let memory = memory(elements.max(1), element_bits(dtype, format), 1, false);
        self.arrays.push(Array { name, dtype, format, role, memory, last_step });
        Ok(self.arrays.len() - 1)
    }

    /// Places arena tensors in the order in which they are written.
    fn place_arena(&mut self) -> Result<(), Error> {
        let manifest = &self.program.manifest;
        let mut ranges: Vec<(u32, u32, TensorId)> = Vec::new();
        for (id, tensor) in manifest.tensors.iter().enumerate() {
            if let Storage::Arena { first_step, last_step, .. } = tensor.storage {
                ranges.push((first_step, last_step, id as TensorId));
            }
        }
        ranges.sort();
        for (first, last, id) in ranges {
            let (count, dtype) = (elements(manifest, id)?, ir_type(info(manifest, id)?.dtype)?);
            let free = self.arrays.iter().position(|array| {
                (array.dtype, array.format) == (dtype, self.formats.tensor(id))
                    && array.role == Role::Local
                    && array.last_step < first
            });
            let array = match free {
                Some(array) => array,
                None => self.array("buffer", id, Role::Local, last)?,
            };
            let shared = &mut self.arrays[array];
            shared.last_step = last;
            shared.memory.elements = shared.memory.elements.max(count);
            self.places.insert(id, Place { array, offset: 0 });
        }
        Ok(())
    }

    fn place(&mut self, id: TensorId) -> Result<Place, Error> {
        self.place_through(id, 0)
    }

    fn place_through(&mut self, id: TensorId, depth: usize) -> Result<Place, Error> {
        if let Some(place) = self.places.get(&id) {
            return Ok(*place);
        }
        let manifest = &self.program.manifest;
        if depth > manifest.tensors.len() {
            return Err(Error::Program(format!("tensor {} is an alias of itself", manifest.tensor_name(id))));
        }
        let tensor = info(manifest, id)?;
        let dtype = ir_type(tensor.dtype)?;
        let named =
            |default: &str| if tensor.name.is_empty() { default.to_string() } else { tensor.name.clone() };
        let place = match &tensor.storage {
            // A kernel that works in place gets two arrays, so that every array has one writer at a time.
            Storage::Alias { of, byte_offset } if !self.written.contains(&id) => {
                let bytes =
                    constant(manifest, byte_offset, || format!("tensor {}", manifest.tensor_name(id)))?;
                let bits = u64::try_from(bytes).ok().and_then(|bytes| bytes.checked_mul(8));
                let whole = bits.filter(|bits| bits % dtype.bits().max(1) as u64 == 0);
                let offset = whole.ok_or_else(|| {
                    Error::Program(format!("tensor {} starts within an element", manifest.tensor_name(id)))
                })?;
                let base = self.place_through(*of, depth + 1)?;
                if self.arrays[base.array].dtype != dtype {
                    return Err(Error::Program(format!(
                        "tensor {} reads another one's bits as {dtype}",
                        manifest.tensor_name(id)
                    )));
                }
                Place { offset: base.offset + offset / dtype.bits().max(1) as u64, ..base }
            }
            Storage::Weight { .. } => {
                let name = format!("weights_{}", identifier(&named(&format!("w{id}"))));
                Place { array: self.array(&name, id, Role::Weight(id), u32::MAX)?, offset: 0 }
            }
            _ => {
                let array = self.array(&format!("{}_local", named("buffer")), id, Role::Local, u32::MAX)?;
                Place { array, offset: 0 }
            }
        };
        self.places.insert(id, place);
        Ok(place)
    }

    fn ports(&mut self, ports: &[tcc_runtime::manifest::Port], placed: bool) -> Result<Vec<Port>, Error> {
        let manifest = &self.program.manifest;
        let mut result = Vec::new();
        for port in ports {
            result.push(Port {
                name: self.name(&port.name),
                dtype: ir_type(info(manifest, port.tensor)?.dtype)?,
                format: self.formats.tensor(port.tensor),
                elements: elements(manifest, port.tensor)?,
                place: if placed { Some(self.place(port.tensor)?) } else { None },
            });
        }
        Ok(result)
    }

    fn call(&mut self, number: usize, step: &Step) -> Result<Call, Error> {
        let manifest = &self.program.manifest;
        let step = match step {
            Step::Kernel(step) => step,
            Step::Copy { from, to } => {
                let elements = elements(manifest, *to)?;
                return Ok(Call::Copy { from: self.place(*from)?, to: self.place(*to)?, elements });
            }
            _ => return Err(Error::Program(format!("step {number} is no kernel"))),
        };
        let (function, layer) = self.function(number, step, None)?;
        let mut arguments = Vec::new();
        for (position, tensor) in step.buffers.iter().enumerate() {
            let place = self.place(*tensor)?;
            arguments.push(place);
            self.partition(function, position, place.array);
        }
        Ok(Call::Function { function, arguments, layer })
    }

    /// The function of a step, with the arguments at these positions as streams, and its layer.
    fn function(
        &mut self,
        number: usize,
        step: &KernelStep,
        streams: Option<&[u32]>,
    ) -> Result<(usize, String), Error> {
        let manifest = &self.program.manifest;
        let missing = || Error::Program(format!("step {number} calls an unknown kernel"));
        let kernel = self.program.kernels.get(step.kernel as usize).ok_or_else(missing)?;
        let written = kernel
            .arguments()
            .zip(&step.buffers)
            .filter(|(buffer, _)| buffer.access != kernel_ir::Access::Read);
        let mut names = written
            .filter_map(|(_, tensor)| manifest.tensors.get(*tensor as usize))
            .map(|tensor| &tensor.name);
        let named = |name: &&String| !name.is_empty() && *name != "?";
        let layer = names.find(named).map_or_else(|| base_name(kernel).to_string(), String::clone);
        let mut types = self.formats.types(kernel, number, &step.buffers);
        let parallel = self.plan.parallel.get(number).copied().unwrap_or(1).max(1);
        let key = (step.kernel, types.clone(), parallel, streams.unwrap_or_default().to_vec());
        if let Some(function) = self.function_of.get(&key) {
            self.steps[number] = Some(*function);
            return Ok((*function, layer));
        }
        let streamed = streams.map(|positions| stream(kernel, positions)).transpose()?;
        if let Some(streamed) = &streamed {
            types = types.with_windows(&streamed.windows);
        }
        let kernel_of = streamed.as_ref().map_or(kernel, |streamed| &streamed.kernel);
        let scheduled = schedule(kernel_of, &types, parallel)?;
        let name = self.name(&function_name(&layer, kernel));
        let of_streams = streamed.as_ref().map_or(&[][..], |streamed| &streamed.streams);
        let emitted = emit(&scheduled.kernel, &name, &types, &scheduled.partitions, of_streams)?;
        self.functions.push(Function { scheduled, types, streamed, emitted });
        self.function_of.insert(key, self.functions.len() - 1);
        self.steps[number] = Some(self.functions.len() - 1);
        Ok((self.functions.len() - 1, layer))
    }

    /// The array of a constant that a function takes, cut into banks as the function reads it. A dataflow design reads it in one
    /// place only.
    fn constant_place(&mut self, function: usize, position: usize, tensor: TensorId) -> Result<usize, Error> {
        let place = self.place(tensor)?;
        if place.offset != 0 {
            let name = self.program.manifest.tensor_name(tensor);
            return Err(Error::Program(format!("constant {name} starts within another one")));
        }
        self.partition(function, position, place.array);
        Ok(place.array)
    }

    /// Cuts an array into as many banks as the function wants of its argument.
    fn partition(&mut self, function: usize, position: usize, array: usize) {
        let scheduled = &self.functions[function].scheduled;
        let wanted = scheduled
            .kernel
            .buffers
            .iter()
            .zip(&scheduled.partitions)
            .find(|(buffer, _)| buffer.space == kernel_ir::Space::Argument(position as u32))
            .map_or(1, |(_, factor)| *factor);
        let array = &mut self.arrays[array];
        let local = array.role == Role::Local;
        let Memory { elements, width, banks, .. } = array.memory;
        array.memory = memory(elements, width, banks.max(wanted), local && self.part.budget.uram > 0);
    }
}

/// The operator part of a kernel's symbol, `tcc_3_contract` without its number.
fn base_name(kernel: &Kernel) -> &str {
    let rest = kernel.name.strip_prefix("tcc_").and_then(|rest| rest.split_once('_'));
    match rest {
        Some((number, base)) if number.chars().all(|digit| digit.is_ascii_digit()) => base,
        _ => &kernel.name,
    }
}

fn function_name(layer: &str, kernel: &Kernel) -> String {
    let (layer, base) = (identifier(layer), base_name(kernel));
    if layer == base || layer.ends_with(base) { layer } else { format!("{layer}_{base}") }
}
