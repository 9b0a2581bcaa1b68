//! Operations become steps.

mod in_place;

use std::collections::HashMap;

use tcc_ir::cache::CacheStorage;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::{Function, Operation, Region, Value};
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_ir::words::RandomKind;
use tcc_kernel::Kernel;
use tcc_kernel::lower::{Argument, lower};
use tcc_kernel::scratch::ScratchLayout;
use tcc_kernel::side_by_side::side_by_side;
use tcc_runtime::DimExpr;
use tcc_runtime::manifest::{
    Branch, Carried, HostStep, IfStep, KernelStep, LoopStep, Manifest, Port, Scan, Step, StepWork, Storage,
    TensorId, TensorInfo, Transfer,
};

use super::dims::Symbols;
use super::kernels::Kernels;
use super::requirements::Requirements;
use super::tensors::{Tensors, tensor_of};
use super::uses::Uses;
use super::{Program, ProgramError, ProgramOptions, grain};
use crate::quantize::neighbours;

/// A kernel ready to become a step.
struct Prepared {
    kernel: Kernel,
    buffers: Vec<TensorId>,
    /// A rough count of scalar operations; none where each task is worth a thread.
    work: Option<Dim>,
    /// What the step computes, where that is known.
    note: Option<StepWork>,
}

/// What two operations in one step compute.
fn both(a: StepWork, b: StepWork) -> StepWork {
    let location = format!("{}, {}", a.location, b.location);
    StepWork { location, operations: a.operations.add(b.operations), bytes: a.bytes.add(b.bytes), ..a }
}

/// Builds the steps of one function.
pub struct ProgramBuilder<'a> {
    pub(super) function: &'a Function,
    options: &'a ProgramOptions,
    pub(super) symbols: Symbols,
    tensors: Tensors,
    kernels: Kernels,
    uses: Uses,
    of_value: HashMap<Value, TensorId>,
    /// Tensors that show the memory of others as another type.
    views: HashMap<(TensorId, DType), TensorId>,
    constants: HashMap<Value, Data>,
    outputs: Vec<Port>,
    inputs: Vec<Port>,
    pub(super) bound: Vec<bool>,
    next_step: u32,
    position: usize,
    pub(super) depth: usize,
    random_streams: u32,
    work: Vec<StepWork>,
    pub(super) requirements: Requirements,
}

impl<'a> ProgramBuilder<'a> {
    /// Starts a program.
    pub fn new(function: &'a Function, options: &'a ProgramOptions) -> Result<Self, ProgramError> {
        let symbols = Symbols::of(function);
        let bound = (0..symbols.table().len() as u32).map(|number| symbols.is_given(number)).collect();
        Ok(ProgramBuilder {
            function,
            options,
            symbols,
            tensors: Tensors::default(),
            kernels: Kernels::default(),
            uses: Uses::of(function),
            of_value: HashMap::new(),
            views: HashMap::new(),
            constants: HashMap::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            bound,
            next_step: 0,
            position: 0,
            depth: 0,
            random_streams: 0,
            work: Vec::new(),
            requirements: Requirements::of(function),
        })
    }

    /// Declares the function's inputs.
    pub fn declare_inputs(&mut self) -> Result<(), ProgramError> {
        for (index, (value, name)) in
            self.function.body.params.iter().zip(&self.function.input_names).enumerate()
        {
            let ty = tensor_of(self.function.type_of(*value), name)?;
            let tensor = self.tensors.add(&self.symbols, name, ty, Storage::Input(index as u32))?;
            self.inputs.push(Port { name: name.clone(), tensor });
            self.of_value.insert(*value, tensor);
        }
        Ok(())
    }

    /// Declares the function's outputs, once all their tensors exist.
    pub fn declare_outputs(&mut self) {
        let mut written: Vec<TensorId> = Vec::new();
        for (index, (value, name)) in
            self.function.body.results.iter().zip(&self.function.output_names).enumerate()
        {
            let Some(tensor) = self.of_value.get(value).copied() else { continue };
            // What kernels write straight away goes to the caller's memory; views and shared values are copied at the end.
            let info = &mut self.tensors.infos[tensor as usize];
            if matches!(info.storage, Storage::Arena { .. }) && !written.contains(&tensor) {
                info.storage = Storage::Output(index as u32);
                if info.name.is_empty() {
                    info.name = name.clone();
                }
            }
            written.push(tensor);
            self.tensors.touch(tensor, self.next_step.max(1) - 1);
            self.outputs.push(Port { name: name.clone(), tensor });
        }
    }

    /// The finished program.
    pub fn finish(self, steps: Vec<Step>) -> Program {
        let producer = concat!("tcc ", env!("CARGO_PKG_VERSION"));
        let mut manifest = Manifest::new(&self.options.name, producer);
        manifest.target = self.options.target.clone();
        manifest.constraints = self.requirements.before_the_run;
        manifest.symbols = self.symbols.table().to_vec();
        manifest.inputs = self.inputs;
        manifest.outputs = self.outputs;
        manifest.tensors = self.tensors.infos;
        manifest.kernels = self.kernels.table;
        manifest.steps = steps;
        manifest.work = self.work;
        manifest.weights = self.tensors.blobs;
        Program { manifest, kernels: self.kernels.bodies, weights: self.tensors.contents }
    }

    fn unsupported(&self, operation: &Operation, reason: impl Into<String>) -> ProgramError {
        ProgramError::Unsupported { location: operation.location.text().to_string(), reason: reason.into() }
    }

    fn ty(&self, value: Value, location: &str) -> Result<&'a TensorType, ProgramError> {
        tensor_of(self.function.type_of(value), location)
    }

    /// The tensor of a value; constants become weights when something reads them.
    fn tensor(&mut self, value: Value) -> Result<TensorId, ProgramError> {
        if let Some(known) = self.of_value.get(&value) {
            return Ok(*known);
        }
        let Some(data) = self.constants.get(&value) else {
            return Err(ProgramError::Unsupported {
                location: format!("{value:?}"),
                reason: "the value is used before it is defined".into(),
            });
        };
        let tensor = self.tensors.add_weight(&self.symbols, &format!("w{}", value.0), &data.clone())?;
        self.of_value.insert(value, tensor);
        Ok(tensor)
    }

    /// Steps of a region.
    pub fn region(&mut self, region: &Region) -> Result<Vec<Step>, ProgramError> {
        self.on_a_path(|builder| {
            let mut steps = Vec::new();
            builder.require_stated(false, &mut steps)?;
            let mut rest = &region.operations[..];
            while let Some(first) = rest.first() {
                let (group, later) = rest.split_at(neighbours::group(rest));
                rest = later;
                for operation in group {
                    builder.require_operands(operation, &mut steps)?;
                    builder.require_extents(operation, &mut steps)?;
                }
                match group {
                    [_] => {
                        builder.position += 1;
                        builder.operation(first, &mut steps)?;
                    }
                    _ => builder.kernels_together(group, &mut steps)?,
                }
                builder.require_stated(false, &mut steps)?;
            }
            if builder.depth == 1 {
                builder.require_stated(true, &mut steps)?;
            }
            for result in &region.results {
                builder.tensor(*result)?;
            }
            Ok(steps)
        })
    }

    fn operation(&mut self, operation: &Operation, steps: &mut Vec<Step>) -> Result<(), ProgramError> {
        match &operation.operator {
            Operator::Constant { data } if let Some(texts) = tcc_ir::convert::texts(data) => {
                // Weights are bytes; strings are made anew.
                let values = texts.into_iter().map(serde_json::Value::from).collect();
                self.host(operation, "string_constant", attributes([("values", values)]), steps)
            }
            Operator::Constant { data } => {
                self.constants.insert(operation.results[0], data.clone());
                Ok(())
            }
            Operator::Reshape { .. } => self.view(operation),
            Operator::Bind { symbols } => {
                let tensor = self.tensor(operation.operands[0])?;
                for (index, symbol) in symbols.iter().enumerate() {
                    let number = self
                        .symbols
                        .number(symbol)
                        .ok_or_else(|| ProgramError::Unbound(symbol.name().to_string()))?;
                    self.bound[number as usize] = true;
                    let step = self.take_step(&[tensor]);
                    steps.push(Step::Bind { symbol: number, tensor, element: DimExpr::Const(index as i64) });
                    debug_assert!(step < self.next_step);
                }
                Ok(())
            }
            Operator::Host { function, attributes, .. } => {
                let parsed = serde_json::from_str(attributes).map_err(|error| {
                    self.unsupported(operation, format!("attributes of {function}: {error}"))
                })?;
                self.host(operation, function, parsed, steps)
            }
            Operator::TopK { axis, k, largest } => {
                let _ = k;
                let attributes =
                    attributes([("axis", (*axis as i64).into()), ("largest", i64::from(*largest).into())]);
                self.host(operation, "top_k", attributes, steps)
            }
            Operator::Random { kind, a, b, seed, .. } => {
                let (function, first, second) = match kind {
                    RandomKind::Uniform => ("random_uniform", "low", "high"),
                    RandomKind::Normal => ("random_normal", "mean", "scale"),
                };
                let mut attributes =
                    attributes([(first, a.get().into()), (second, b.get().into()), ("seed", (*seed).into())]);
                if *seed == 0 {
                    // Draws of one run without a seed of their own take different streams.
                    attributes.insert("stream".into(), self.random_streams.into());
                    self.random_streams += 1;
                }
                self.host(operation, function, attributes, steps)
            }
            Operator::If {} => self.choice(operation, steps),
            Operator::Loop { scans } => self.iteration(operation, *scans, steps),
            Operator::KvState { name, shape, storage } => self.state(operation, name, shape, storage),
            Operator::Call { callee } => {
                Err(self.unsupported(operation, format!("the call of @{callee} should have been inlined")))
            }
            _ => self.kernel(operation, steps),
        }
    }

    /// A cache is a state tensor of the memory that its storage lays out.
    fn state(
        &mut self,
        operation: &Operation,
        name: &str,
        shape: &[Dim],
        storage: &CacheStorage,
    ) -> Result<(), ProgramError> {
        if let Some(symbol) = self.symbols.not_of_state(shape) {
            let reason =
                format!("the shape of cache '{name}' depends on '{symbol}', which changes from run to run");
            return Err(self.unsupported(operation, reason));
        }
        let [slots, heads, depth] = shape else {
            return Err(self.unsupported(operation, "a cache is [slots, heads, d]"));
        };
        let (dtype, shape) = storage.memory(slots, heads, depth);
        let tensor = self.tensors.add(&self.symbols, name, &TensorType::new(dtype, shape), Storage::State)?;
        self.of_value.insert(operation.results[0], tensor);
        Ok(())
    }

    /// The memory of a tensor as elements of another type.
    fn seen_as(&mut self, tensor: TensorId, dtype: DType) -> Result<TensorId, ProgramError> {
        if let Some(known) = self.views.get(&(tensor, dtype)) {
            return Ok(*known);
        }
        let info = &self.tensors.infos[tensor as usize];
        let bits = info.shape.iter().cloned().fold(DimExpr::Const(info.dtype.bits().into()), DimExpr::mul);
        let unsupported = || ProgramError::Unsupported {
            location: info.name.clone(),
            reason: format!("the runtime has no tensors of {dtype}"),
        };
        let element = super::element_type(dtype).ok_or_else(unsupported)?;
        let count = bits.floor_div(DimExpr::Const(dtype.bits() as i64));
        let storage = Storage::Alias { of: tensor, byte_offset: DimExpr::Const(0) };
        self.tensors.infos.push(TensorInfo {
            name: String::new(),
            dtype: element,
            shape: vec![count],
            storage,
        });
        let view = self.tensors.infos.len() as TensorId - 1;
        self.views.insert((tensor, dtype), view);
        Ok(view)
    }

    /// A reshape shows the same memory under another shape.
    fn view(&mut self, operation: &Operation) -> Result<(), ProgramError> {
        let of = self.tensor(operation.operands[0])?;
        let ty = self.ty(operation.results[0], operation.location.text())?;
        let storage = Storage::Alias { of, byte_offset: DimExpr::Const(0) };
        let tensor = self.tensors.add(&self.symbols, "", ty, storage)?;
        self.of_value.insert(operation.results[0], tensor);
        Ok(())
    }

    /// Numbers the next step, which uses these tensors.
    pub(super) fn take_step(&mut self, used: &[TensorId]) -> u32 {
        let step = self.next_step;
        self.next_step += 1;
        used.iter().for_each(|tensor| self.tensors.touch(*tensor, step));
        step
    }

    /// Declares the results of an operation and returns the symbols that it must bind.
    fn results(&mut self, operation: &Operation) -> Result<(Vec<TensorId>, Vec<u32>), ProgramError> {
        let (mut tensors, mut dims) = (Vec::new(), Vec::new());
        for result in &operation.results {
            let ty = self.ty(*result, operation.location.text())?;
            dims.extend(ty.shape.iter());
            tensors.push(self.tensors.add_result(
                &self.symbols,
                operation.location.text(),
                ty,
                self.next_step,
            )?);
        }
        let mut binds = self.symbols.step_symbols(dims);
        binds.retain(|number| !std::mem::replace(&mut self.bound[*number as usize], true));
        for (result, tensor) in operation.results.iter().zip(&tensors) {
            self.of_value.insert(*result, *tensor);
        }
        Ok((tensors, binds))
    }

    fn host(
        &mut self,
        operation: &Operation,
        function: &str,
        attributes: serde_json::Map<String, serde_json::Value>,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        let inputs =
            operation.operands.iter().map(|value| self.tensor(*value)).collect::<Result<Vec<_>, _>>()?;
        let (outputs, binds) = self.results(operation)?;
        self.take_step(&[&inputs[..], &outputs].concat());
        let inputs = inputs.into_iter().map(Some).collect();
        steps.push(Step::Host(HostStep {
            function: function.to_string(),
            attributes,
            inputs,
            outputs,
            binds,
        }));
        Ok(())
    }

    fn kernel(&mut self, operation: &Operation, steps: &mut Vec<Step>) -> Result<(), ProgramError> {
        for prepared in self.prepare(operation, true)? {
            self.launch(operation, prepared, steps)?;
        }
        Ok(())
    }

    /// Operations that do not read each other's results, as one step where they have a kernel each.
    fn kernels_together(
        &mut self,
        operations: &[Operation],
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        let mut together: Option<Prepared> = None;
        for operation in operations {
            self.position += 1;
            for next in self.prepare(operation, false)? {
                together = Some(match together.take() {
                    None => next,
                    Some(before) => match side_by_side(&before.kernel, &next.kernel) {
                        Some(kernel) => Prepared {
                            kernel,
                            buffers: [before.buffers, next.buffers].concat(),
                            work: before.work.zip(next.work).map(|(a, b)| a + b),
                            note: before.note.zip(next.note).map(|(a, b)| both(a, b)),
                        },
                        None => {
                            self.launch(operation, before, steps)?;
                            next
                        }
                    },
                });
            }
        }
        match (together, operations.last()) {
            (Some(last), Some(operation)) => self.launch(operation, last, steps),
            _ => Ok(()),
        }
    }

    /// The kernels of an operation with what they are called with.
    ///
    /// An operation that is `alone` in its step may work in place: another one might still read what it takes.
    fn prepare(&mut self, operation: &Operation, alone: bool) -> Result<Vec<Prepared>, ProgramError> {
        let location = operation.location.text();
        let types = |builder: &Self, values: &[Value]| -> Result<Vec<TensorType>, ProgramError> {
            values.iter().map(|value| builder.ty(*value, location).cloned()).collect()
        };
        let (operands, results) = (types(self, &operation.operands)?, types(self, &operation.results)?);
        let constant: Vec<bool> =
            operation.operands.iter().map(|value| self.constants.contains_key(value)).collect();
        let name = operation.operator.name();
        let lowered = lower(&operation.operator, &operands, &results, &constant, name, &self.options.tuning)
            .map_err(|source| ProgramError::Lower { location: location.to_string(), source })?;
        let uses =
            |argument: Argument| lowered.launches.iter().any(|launch| launch.arguments.contains(&argument));
        let reused = if alone { self.reusable(operation, &lowered)? } else { None };
        let appended = matches!(operation.operator, Operator::KvAppend { .. });
        let result_tensors = match reused {
            // An append writes into the cache.
            _ if appended => {
                let cache = self.tensor(operation.operands[0])?;
                self.of_value.insert(operation.results[0], cache);
                vec![cache]
            }
            Some(operand) => {
                let of = self.tensor(operand)?;
                self.uses.reuse(operation.results[0], operand);
                let storage = Storage::Alias { of, byte_offset: DimExpr::Const(0) };
                let tensor = self.tensors.add(&self.symbols, location, &results[0], storage)?;
                self.of_value.insert(operation.results[0], tensor);
                vec![tensor]
            }
            None => {
                let tensors = self.results(operation)?.0;
                // They live from the first kernel that writes them, not from one that prepares what it reads.
                for (index, tensor) in tensors.iter().enumerate() {
                    if uses(Argument::Result(index)) {
                        self.tensors.not_before_use(*tensor);
                    }
                }
                tensors
            }
        };
        let mut temporaries = Vec::new();
        for (index, ty) in lowered.temporaries.iter().enumerate() {
            let tensor = self.tensors.add_result(&self.symbols, "", ty, self.next_step)?;
            if uses(Argument::Temporary(index)) {
                self.tensors.not_before_use(tensor);
            }
            temporaries.push(tensor);
        }
        let mut packed = Vec::new();
        for packing in &lowered.packings {
            let value = operation.operands[packing.operand];
            let data = self.constants.get(&value).cloned();
            let data = data.ok_or_else(|| self.unsupported(operation, "a packed operand is not constant"))?;
            let shape: Option<Vec<usize>> =
                packing.source.iter().map(|dim| dim.as_const().map(|dim| dim.max(0) as usize)).collect();
            let arranged = shape
                .ok_or_else(|| "its shape is not known".to_string())
                .and_then(|shape| data.reshaped(&shape).map_err(|error| error.to_string()))
                .and_then(|data| packing.apply(&data).map_err(|error| error.to_string()))
                .map_err(|reason| self.unsupported(operation, format!("packing a constant: {reason}")))?;
            packed.push(self.tensors.add_weight(&self.symbols, &format!("w{}", value.0), &arranged)?);
        }
        let mut blocks = Vec::new();
        for packing in &lowered.blocks {
            let value = operation.operands[packing.operands[0]];
            let data: Option<Vec<Data>> = packing
                .operands
                .iter()
                .map(|place| self.constants.get(&operation.operands[*place]).cloned())
                .collect();
            let data = data.ok_or_else(|| self.unsupported(operation, "packed weights are not constant"))?;
            let packed = packing.apply(&data);
            let packed =
                packed.map_err(|reason| self.unsupported(operation, format!("packing weights: {reason}")))?;
            blocks.push(self.tensors.add_weight(&self.symbols, &format!("w{}", value.0), &packed)?);
        }
        let mut prepared = Vec::new();
        let last = lowered.launches.len().saturating_sub(1);
        for (index, launch) in lowered.launches.into_iter().enumerate() {
            // Those before it prepare what the last one works on.
            let note = match index == last {
                true => Some(self.note(operation, &operands, &results)?),
                false => None,
            };
            let combines = index == last && last > 0;
            let work = grain::work(&operation.operator, &operands, &results, combines);
            let mut buffers = Vec::new();
            for argument in &launch.arguments {
                buffers.push(match argument {
                    Argument::Operand(index) => self.tensor(operation.operands[*index])?,
                    Argument::Result(index) => result_tensors[*index],
                    Argument::Temporary(index) => temporaries[*index],
                    Argument::Packed(index) => packed[*index],
                    Argument::Block(index) => blocks[*index],
                    Argument::View(index, dtype) => {
                        let tensor = self.tensor(operation.operands[*index])?;
                        self.seen_as(tensor, *dtype)?
                    }
                });
            }
            prepared.push(Prepared { kernel: launch.kernel, buffers, work, note });
        }
        Ok(prepared)
    }

    /// What the step of an operation computes; its number follows when the step is made.
    fn note(
        &self,
        operation: &Operation,
        operands: &[TensorType],
        results: &[TensorType],
    ) -> Result<StepWork, ProgramError> {
        let (operations, kind) = super::work::operations(&operation.operator, operands, results);
        let bytes = super::work::bytes(&operation.operator, operands, results);
        Ok(StepWork {
            step: self.next_step,
            operator: operation.operator.name().to_string(),
            location: operation.location.text().to_string(),
            kind,
            operations: self.symbols.expression(&operations)?,
            bytes: self.symbols.expression(&bytes)?,
        })
    }

    fn launch(
        &mut self,
        operation: &Operation,
        prepared: Prepared,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        let Prepared { kernel, buffers, work, note } = prepared;
        let not_an_extent = || self.unsupported(operation, "a kernel extent is not a dimension expression");
        let tasks = self.symbols.extent(&kernel.tasks(), &kernel.dims).ok_or_else(not_an_extent)?;
        let scratch =
            self.symbols.extent(&ScratchLayout::of(&kernel).total, &kernel.dims).ok_or_else(not_an_extent)?;
        let dims =
            kernel.dims.iter().map(|dim| self.symbols.dimension(dim)).collect::<Result<Vec<_>, _>>()?;
        let grain = grain::grain(work, &tasks, &self.symbols);
        let step = self.take_step(&buffers);
        self.work.extend(note.map(|note| StepWork { step, ..note }));
        let kernel = self.kernels.add(kernel);
        steps.push(Step::Kernel(KernelStep { kernel, buffers, dims, tasks, grain, scratch_bytes: scratch }));
        Ok(())
    }

    fn choice(&mut self, operation: &Operation, steps: &mut Vec<Step>) -> Result<(), ProgramError> {
        let condition = self.tensor(operation.operands[0])?;
        self.take_step(&[condition]);
        let first = self.next_step;
        let mut branches = Vec::new();
        let bound_before = self.bound.clone();
        for region in &operation.regions {
            self.bound.clone_from(&bound_before);
            branches.push((self.region(region)?, region));
        }
        self.bound = bound_before;
        let (results, binds) = self.results(operation)?;
        let end = self.next_step.max(first) - 1;
        let mut done = Vec::new();
        for (steps, region) in branches {
            let mut transfers = Vec::new();
            for (value, to) in region.results.iter().zip(&results) {
                let from = self.tensor(*value)?;
                self.tensors.touch(from, end);
                self.tensors.touch(*to, first - 1);
                self.tensors.touch(*to, end);
                transfers.push(Transfer { from, to: *to });
            }
            done.push(Branch { steps, results: transfers });
        }
        let otherwise = done.pop().unwrap_or_default();
        let then = done.pop().unwrap_or_default();
        steps.push(Step::If(IfStep { condition, then, otherwise, binds }));
        Ok(())
    }

    fn iteration(
        &mut self,
        operation: &Operation,
        scans: usize,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        let region = &operation.regions[0];
        let unlimited = self
            .constants
            .get(&operation.operands[0])
            .and_then(Data::to_integers)
            .is_some_and(|limit| limit.first().is_some_and(|limit| *limit < 0));
        let trip_count = if unlimited { None } else { Some(self.tensor(operation.operands[0])?) };
        let condition = self.tensor(operation.operands[1])?;
        let initial =
            operation.operands[2..].iter().map(|value| self.tensor(*value)).collect::<Result<Vec<_>, _>>()?;
        let used: Vec<TensorId> =
            trip_count.into_iter().chain([condition]).chain(initial.iter().copied()).collect();
        let start = self.take_step(&used);
        // Parameters of the body: the iteration, the condition, the carried values.
        let (mut states, mut dims) = (Vec::new(), Vec::new());
        for param in &region.params {
            let ty = self.ty(*param, operation.location.text())?;
            dims.extend(ty.shape.iter());
            let tensor = self.tensors.add_result(&self.symbols, "", ty, start)?;
            self.of_value.insert(*param, tensor);
            states.push(tensor);
        }
        let mut binds = self.symbols.step_symbols(dims);
        binds.retain(|number| !std::mem::replace(&mut self.bound[*number as usize], true));
        let mut body = self.region(region)?;
        let mut next =
            region.results.iter().map(|value| self.tensor(*value)).collect::<Result<Vec<_>, _>>()?;
        self.keep_states_apart(&states[1..], &mut next, &mut body)?;
        let end = self.next_step.max(start + 1) - 1;
        states.iter().chain(&next).for_each(|tensor| self.tensors.touch(*tensor, end));
        self.tensors.extend_over_loop(start, end);
        states.iter().for_each(|tensor| {
            self.tensors.touch(*tensor, start);
        });
        let carried_count = initial.len();
        let mut carried = vec![Carried { initial: condition, state: states[1], next: next[0] }];
        for index in 0..carried_count {
            carried.push(Carried {
                initial: initial[index],
                state: states[index + 2],
                next: next[index + 1],
            });
        }
        let mut iterations = None;
        let mut collected = Vec::new();
        for (index, result) in operation.results.iter().enumerate() {
            let ty = self.ty(*result, operation.location.text())?.clone();
            if index < carried_count {
                // The final value stays in the state.
                let state_type = self.ty(region.params[index + 2], operation.location.text())?;
                if state_type.shape != ty.shape {
                    return Err(self.unsupported(operation, "a carried value changes its shape"));
                }
                self.of_value.insert(*result, states[index + 2]);
                continue;
            }
            let lead =
                ty.shape.first().and_then(Dim::as_symbol).and_then(|symbol| self.symbols.number(symbol));
            if let Some(number) = lead
                && !std::mem::replace(&mut self.bound[number as usize], true)
            {
                iterations = Some(number);
            }
            let tensor = self.tensors.add_result(&self.symbols, operation.location.text(), &ty, start)?;
            self.tensors.touch(tensor, end);
            self.of_value.insert(*result, tensor);
            collected.push(Scan { element: next[index + 1], result: tensor });
        }
        debug_assert_eq!(collected.len(), scans);
        steps.push(Step::Loop(LoopStep {
            trip_count,
            condition: Some(condition),
            condition_next: Some(next[0]),
            iteration: Some(states[0]),
            iteration_symbol: None,
            carried,
            body,
            scans: collected,
            iterations,
            binds,
        }));
        Ok(())
    }

    /// All next values of a loop are copied into the states at once, so that none may lie in the memory of a state, except
    /// that of its own as a whole. Steps at the end of the body copy those that do.
    fn keep_states_apart(
        &mut self,
        states: &[TensorId],
        next: &mut [TensorId],
        body: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        let bases: Vec<TensorId> = states.iter().map(|state| self.tensors.base(*state)).collect();
        for (state, next) in states.iter().zip(next) {
            let base = self.tensors.base(*next);
            if *next == *state || !bases.contains(&base) {
                continue;
            }
            let (have, want) = (&self.tensors.infos[*next as usize], &self.tensors.infos[*state as usize]);
            if base == *state && (have.dtype, &have.shape) == (want.dtype, &want.shape) {
                *next = *state;
                continue;
            }
            let mut copy = have.clone();
            copy.storage = match self.tensors.infos[base as usize].storage {
                Storage::Arena { .. } => {
                    Storage::Arena { offset: None, first_step: self.next_step, last_step: self.next_step }
                }
                _ => Storage::Host,
            };
            self.tensors.infos.push(copy);
            let to = self.tensors.infos.len() as TensorId - 1;
            self.take_step(&[*next, to]);
            body.push(Step::Copy { from: *next, to });
            *next = to;
        }
        Ok(())
    }
}

fn attributes<const N: usize>(
    pairs: [(&str, serde_json::Value); N],
) -> serde_json::Map<String, serde_json::Value> {
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
