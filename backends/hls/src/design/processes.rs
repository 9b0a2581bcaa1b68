//! The steps of a program as processes with FIFOs between them.

use std::collections::{HashMap, VecDeque};

use tcc_ir::dtype::DType;
use tcc_kernel::fixed::Fixed;
use tcc_runtime::manifest::{KernelStep, Step, Storage, TensorId};

use super::{Builder, elements, info, ir_type};
use crate::error::Error;
use crate::flow::{Action, Argument, Fifo, Flow, Process};
use crate::reference::owner;
use crate::stream::Port;

/// Something that one process writes and others read.
struct Value {
    name: String,
    dtype: DType,
    format: Option<Fixed>,
    elements: u64,
    readers: usize,
}

/// A process whose FIFOs are not there yet: values in place of them.
struct Draft {
    action: Action,
    reads: Vec<(usize, Option<u32>)>,
    writes: Vec<(usize, Option<u32>)>,
    cycles: u64,
    iterations: u64,
    ports: Option<(Vec<Port>, Vec<Port>)>,
}

/// Cycles that a process which hands elements on takes on top of one for each.
const START: u64 = 4;

impl Draft {
    fn simple(action: Action, reads: Vec<usize>, writes: Vec<usize>, elements: u64) -> Draft {
        let slots = |values: Vec<usize>| values.into_iter().map(|value| (value, None)).collect();
        let (reads, writes) = (slots(reads), slots(writes));
        Draft { action, reads, writes, cycles: elements + START, iterations: elements, ports: None }
    }
}

/// The values of a program while its steps are followed.
#[derive(Default)]
struct Values {
    all: Vec<Value>,
    /// The newest value of each tensor that owns memory.
    current: HashMap<TensorId, usize>,
}

impl Builder<'_> {
    /// The processes of the program.
    pub(super) fn flow(&mut self) -> Result<Flow, Error> {
        let manifest = &self.program.manifest;
        let (mut values, mut drafts) = (Values::default(), Vec::new());
        for (position, port) in manifest.inputs.iter().enumerate() {
            let value = self.write_value(&mut values, port.tensor)?;
            let elements = values.all[value].elements;
            drafts.push(Draft::simple(Action::Load(position), Vec::new(), vec![value], elements));
        }
        for (number, step) in manifest.steps.iter().enumerate() {
            match step {
                Step::Kernel(step) => drafts.push(self.draft(&mut values, number, step)?),
                Step::Copy { from, to } => {
                    let from = self.read_value(&mut values, *from)?;
                    let to = self.write_value(&mut values, *to)?;
                    let elements = values.all[to].elements;
                    drafts.push(Draft::simple(Action::Forward, vec![from], vec![to], elements));
                }
                _ => return Err(Error::Program(format!("step {number} is no kernel"))),
            }
        }
        for (position, port) in manifest.outputs.iter().enumerate() {
            let value = self.read_value(&mut values, port.tensor)?;
            let elements = values.all[value].elements;
            drafts.push(Draft::simple(Action::Store(position), vec![value], Vec::new(), elements));
        }
        let mut flow = self.connected(values.all, drafts)?;
        flow.settle()?;
        Ok(flow)
    }

    fn refused<T>(&self, id: TensorId, what: &str) -> Result<T, Error> {
        Err(Error::Unsupported {
            kernel: self.program.manifest.tensor_name(id).to_string(),
            what: format!("stream of {what}"),
            advice: "choose the sequential architecture",
        })
    }

    /// The owner of a tensor, which is the same tensor in another shape at most.
    fn whole(&self, id: TensorId) -> Result<TensorId, Error> {
        let manifest = &self.program.manifest;
        let (owner, first) = owner(self.program, id)?;
        let same = first == 0
            && elements(manifest, id)? == elements(manifest, owner)?
            && info(manifest, id)?.dtype == info(manifest, owner)?.dtype;
        if same { Ok(owner) } else { self.refused(id, "a part of a tensor") }
    }

    fn read_value(&mut self, values: &mut Values, id: TensorId) -> Result<usize, Error> {
        let owner = self.whole(id)?;
        let Some(value) = values.current.get(&owner).copied() else {
            return self.refused(id, "something that no step writes");
        };
        values.all[value].readers += 1;
        Ok(value)
    }

    fn write_value(&mut self, values: &mut Values, id: TensorId) -> Result<usize, Error> {
        let owner = self.whole(id)?;
        let manifest = &self.program.manifest;
        let tensor = info(manifest, id)?;
        let elements = elements(manifest, id)?;
        if elements == 0 {
            return self.refused(id, "no elements");
        }
        let name =
            if tensor.name.is_empty() { "stream".to_string() } else { format!("{}_stream", tensor.name) };
        let value = Value {
            name: self.name(&name),
            dtype: ir_type(tensor.dtype)?,
            format: self.formats.tensor(id),
            elements,
            readers: 0,
        };
        values.all.push(value);
        values.current.insert(owner, values.all.len() - 1);
        Ok(values.all.len() - 1)
    }

    fn draft(&mut self, values: &mut Values, number: usize, step: &KernelStep) -> Result<Draft, Error> {
        let manifest = &self.program.manifest;
        let mut positions = Vec::new();
        for (position, tensor) in step.buffers.iter().enumerate() {
            let (owner, _) = owner(self.program, *tensor)?;
            if !matches!(info(manifest, owner)?.storage, Storage::Weight { .. }) {
                positions.push(position as u32);
            }
        }
        let (function, layer) = self.function(number, step, Some(&positions))?;
        let mut draft = Draft {
            action: Action::Forward,
            reads: Vec::new(),
            writes: Vec::new(),
            cycles: self.functions[function].scheduled.estimate.cycles,
            iterations: 1,
            ports: None,
        };
        let mut arguments = Vec::new();
        let (mut read_ports, mut write_ports) = (Vec::new(), Vec::new());
        let ports = match &self.functions[function].streamed {
            Some(streamed) => {
                draft.iterations = streamed.iterations;
                streamed.ports.clone()
            }
            None => Vec::new(),
        };
        // Reads first: a kernel that works in place reads the value that it replaces.
        let mut writes = Vec::new();
        for (position, tensor) in step.buffers.iter().enumerate() {
            let Some(port) = ports.iter().find(|port| port.argument as usize == position) else {
                let place = self.constant_place(function, position, *tensor)?;
                arguments.push(Argument::Array(place));
                continue;
            };
            arguments.push(Argument::Fifo(usize::MAX));
            if port.reads {
                draft.reads.push((self.read_value(values, *tensor)?, Some(position as u32)));
                read_ports.push(port.clone());
            }
            if !port.reads {
                writes.push((position, *tensor, port.clone()));
            }
        }
        for (position, tensor, port) in writes {
            draft.writes.push((self.write_value(values, tensor)?, Some(position as u32)));
            write_ports.push(port);
        }
        draft.ports = Some((read_ports, write_ports));
        draft.action = Action::Call { function, arguments, layer };
        Ok(draft)
    }

    /// Gives every reader of a value a FIFO of its own.
    fn connected(&mut self, values: Vec<Value>, drafts: Vec<Draft>) -> Result<Flow, Error> {
        let mut flow = Flow::default();
        let mut waiting: Vec<VecDeque<usize>> = values.iter().map(|_| VecDeque::new()).collect();
        for draft in drafts {
            let inputs: Vec<usize> =
                draft.reads.iter().filter_map(|(value, _)| waiting[*value].pop_front()).collect();
            let mut outputs = Vec::new();
            let mut copies = Vec::new();
            for (value, _) in &draft.writes {
                let Value { name, dtype, format, elements, readers } = &values[*value];
                let fifo = |flow: &mut Flow, name: String| {
                    flow.fifos.push(Fifo {
                        name,
                        dtype: *dtype,
                        format: *format,
                        elements: *elements,
                        depth: 2,
                    });
                    flow.fifos.len() - 1
                };
                if *readers == 0 {
                    return Err(Error::Unsupported {
                        kernel: name.clone(),
                        what: "stream that nothing reads".into(),
                        advice: "choose the sequential architecture",
                    });
                }
                let mut rest = fifo(&mut flow, name.clone());
                outputs.push(rest);
                for copy in 1..*readers {
                    let first = fifo(&mut flow, format!("{name}_{copy}a"));
                    let second = fifo(&mut flow, format!("{name}_{copy}b"));
                    waiting[*value].push_back(first);
                    copies.push(Process {
                        action: Action::Duplicate,
                        inputs: vec![rest],
                        outputs: vec![first, second],
                        cycles: elements + START,
                        iterations: *elements,
                        ports: None,
                    });
                    rest = second;
                }
                waiting[*value].push_back(rest);
            }
            let mut action = draft.action;
            if let Action::Call { arguments, .. } = &mut action {
                let reads = draft.reads.iter().zip(&inputs);
                for ((_, position), fifo) in reads.chain(draft.writes.iter().zip(&outputs)) {
                    if let Some(position) = position {
                        arguments[*position as usize] = Argument::Fifo(*fifo);
                    }
                }
            }
            flow.processes.push(Process {
                action,
                inputs,
                outputs,
                cycles: draft.cycles,
                iterations: draft.iterations,
                ports: draft.ports,
            });
            flow.processes.append(&mut copies);
        }
        Ok(flow)
    }
}
