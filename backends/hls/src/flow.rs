//! A design as processes that run side by side and hand elements on through FIFOs.
//!
//! Every FIFO has one producer and one consumer; a tensor with several readers is duplicated. Before anything is printed the
//! processes are run on numbers of elements alone: each iteration waits for what it reads, and each process moves as many
//! elements as its FIFOs carry, or the design is refused. The run also gives the time at which each element is there, so the
//! latency, and how many elements wait in each FIFO. Where two ways lead from one process to another, as around a residual
//! connection, a FIFO is as deep as that; elsewhere two elements cannot block anything.

use std::collections::HashMap;

use tcc_ir::dtype::DType;
use tcc_kernel::fixed::Fixed;

use crate::error::Error;
use crate::stream::Port;

/// A FIFO.
#[derive(Clone, PartialEq, Debug)]
pub struct Fifo {
    /// Its name.
    pub name: String,
    /// Element type in the model.
    pub dtype: DType,
    /// Format of f32 elements.
    pub format: Option<Fixed>,
    /// Elements that pass in a run.
    pub elements: u64,
    /// Elements that it holds.
    pub depth: u64,
}

/// What a process does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Reads an input of the design.
    Load(usize),
    /// Writes an output of the design.
    Store(usize),
    /// Hands elements on.
    Forward,
    /// Hands elements on to two readers.
    Duplicate,
    /// Calls a function of the design.
    Call {
        /// Which.
        function: usize,
        /// What it is called with.
        arguments: Vec<Argument>,
        /// The layer of the model.
        layer: String,
    },
}

/// What a function is called with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// A FIFO.
    Fifo(usize),
    /// An array of constants.
    Array(usize),
}

/// A process.
#[derive(Clone, PartialEq, Debug)]
pub struct Process {
    /// What it does.
    pub action: Action,
    /// FIFOs that it reads.
    pub inputs: Vec<usize>,
    /// FIFOs that it writes.
    pub outputs: Vec<usize>,
    /// Cycles of a run without waiting.
    pub cycles: u64,
    /// Iterations of a run.
    pub iterations: u64,
    /// How far each input and output is after each iteration, in the order of `inputs` and `outputs`; none for processes that
    /// move one element an iteration.
    pub ports: Option<(Vec<Port>, Vec<Port>)>,
}

/// A dataflow design.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Flow {
    /// Processes, producers before consumers.
    pub processes: Vec<Process>,
    /// FIFOs.
    pub fifos: Vec<Fifo>,
    /// Cycles from the first input to the last output.
    pub latency: u64,
    /// Cycles between two runs: those of the slowest process.
    pub interval: u64,
}

/// How far a run of the processes is.
struct Run<'f> {
    flow: &'f Flow,
    producer: HashMap<usize, usize>,
    /// By process: iterations that are done, and the cycle of the last.
    done: Vec<(u64, u64)>,
    /// By FIFO: the cycle in which each element is there.
    ready: Vec<Vec<u64>>,
    read: Vec<u64>,
    most: Vec<u64>,
}

impl Flow {
    /// Runs the processes on numbers of elements and sets depths, latency and interval.
    ///
    /// # Errors
    ///
    /// A FIFO without exactly one producer and one consumer, or whose reads do not equal its writes.
    pub fn settle(&mut self) -> Result<(), Error> {
        let mut producer = HashMap::new();
        let mut consumer = HashMap::new();
        for (number, process) in self.processes.iter().enumerate() {
            for (fifos, side) in [(&process.outputs, &mut producer), (&process.inputs, &mut consumer)] {
                for fifo in fifos {
                    if side.insert(*fifo, number).is_some() {
                        return Err(self.broken(*fifo, "has two producers or two consumers"));
                    }
                }
            }
        }
        for fifo in 0..self.fifos.len() {
            if !producer.contains_key(&fifo) || !consumer.contains_key(&fifo) {
                return Err(self.broken(fifo, "has no producer or no consumer"));
            }
        }
        let count = self.fifos.len();
        let mut run = Run {
            flow: self,
            producer: producer.clone(),
            done: vec![(0, 0); self.processes.len()],
            ready: vec![Vec::new(); count],
            read: vec![0; count],
            most: vec![0; count],
        };
        // Consumers ask for what they need, so that elements wait no longer than they must.
        for number in (0..self.processes.len()).rev() {
            while run.done[number].0 < self.processes[number].iterations {
                run.advance(number)?;
            }
        }
        let latency = run.done.iter().map(|(_, time)| *time).max().unwrap_or(0);
        let (most, read, written) =
            (run.most, run.read, run.ready.iter().map(|ready| ready.len() as u64).collect::<Vec<_>>());
        for fifo in 0..count {
            if read[fifo] != written[fifo] || read[fifo] != self.fifos[fifo].elements {
                return Err(self.broken(fifo, "is read less or more often than it is written"));
            }
        }
        for fifo in 0..count {
            let bridge = !self.connected(producer[&fifo], consumer[&fifo], fifo, &producer, &consumer);
            self.fifos[fifo].depth = if bridge { 2 } else { most[fifo].max(2) };
        }
        self.latency = latency;
        self.interval = self.processes.iter().map(|process| process.cycles).max().unwrap_or(0).max(1);
        Ok(())
    }

    fn broken(&self, fifo: usize, what: &str) -> Error {
        Error::Program(format!("FIFO '{}' {what}", self.fifos[fifo].name))
    }

    /// True where two processes are connected without a FIFO, whatever the direction.
    fn connected(
        &self,
        from: usize,
        to: usize,
        without: usize,
        producer: &HashMap<usize, usize>,
        consumer: &HashMap<usize, usize>,
    ) -> bool {
        let mut reached = vec![false; self.processes.len()];
        let mut open = vec![from];
        while let Some(process) = open.pop() {
            if std::mem::replace(&mut reached[process], true) {
                continue;
            }
            let Process { inputs, outputs, .. } = &self.processes[process];
            open.extend(inputs.iter().filter(|fifo| **fifo != without).map(|fifo| producer[fifo]));
            open.extend(outputs.iter().filter(|fifo| **fifo != without).map(|fifo| consumer[fifo]));
        }
        reached[to]
    }
}

impl Run<'_> {
    /// Runs one iteration of a process, and of others what it waits for.
    fn advance(&mut self, number: usize) -> Result<(), Error> {
        let flow = self.flow;
        let process = &flow.processes[number];
        let (iteration, mut time) = self.done[number];
        let last = iteration + 1 == process.iterations;
        let moved = |ports: Option<&Vec<Port>>, position: usize| match ports {
            Some(ports) if last => ports[position].elements,
            Some(ports) => ports[position].moved(iteration),
            None => iteration + 1,
        };
        for (position, fifo) in process.inputs.iter().enumerate() {
            let needed = moved(process.ports.as_ref().map(|(inputs, _)| inputs), position);
            while (self.ready[*fifo].len() as u64) < needed {
                let producer = self.producer[fifo];
                if self.done[producer].0 >= flow.processes[producer].iterations {
                    return Err(flow.broken(*fifo, "is read more often than it is written"));
                }
                self.advance(producer)?;
            }
            if let Some(newest) = needed.checked_sub(1) {
                time = time.max(self.ready[*fifo][newest as usize]);
            }
            self.read[*fifo] = needed;
        }
        // Iterations share the cycles of a run evenly.
        let share = |iteration: u64| {
            u128::from(process.cycles) * u128::from(iteration) / u128::from(process.iterations.max(1))
        };
        time += (share(iteration + 1) - share(iteration)) as u64;
        for (position, fifo) in process.outputs.iter().enumerate() {
            let written = moved(process.ports.as_ref().map(|(_, outputs)| outputs), position);
            let ready = &mut self.ready[*fifo];
            ready.resize((written as usize).max(ready.len()), time);
            self.most[*fifo] = self.most[*fifo].max(ready.len() as u64 - self.read[*fifo]);
        }
        self.done[number] = (iteration + 1, time);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(action: Action, inputs: &[usize], outputs: &[usize], elements: u64) -> Process {
        let (inputs, outputs) = (inputs.to_vec(), outputs.to_vec());
        Process { action, inputs, outputs, cycles: elements, iterations: elements, ports: None }
    }

    fn fifo(name: &str, elements: u64) -> Fifo {
        Fifo { name: name.into(), dtype: DType::F32, format: None, elements, depth: 0 }
    }

    #[test]
    fn a_chain_needs_two_places_a_fifo() {
        let mut flow = Flow {
            processes: vec![
                process(Action::Load(0), &[], &[0], 8),
                process(Action::Forward, &[0], &[1], 8),
                process(Action::Store(0), &[1], &[], 8),
            ],
            fifos: vec![fifo("a", 8), fifo("b", 8)],
            ..Flow::default()
        };
        flow.settle().unwrap();
        assert_eq!(flow.fifos.iter().map(|fifo| fifo.depth).collect::<Vec<_>>(), [2, 2]);
        assert_eq!((flow.latency, flow.interval), (10, 8));
    }

    #[test]
    fn broken_fifos_are_refused_by_name() {
        let mut flow = Flow {
            processes: vec![process(Action::Load(0), &[], &[0], 8), process(Action::Store(0), &[0], &[], 9)],
            fifos: vec![fifo("a", 9)],
            ..Flow::default()
        };
        let error = flow.settle().unwrap_err().to_string();
        assert!(error.contains("FIFO 'a' is read"), "{error}");
        flow.processes.push(process(Action::Store(1), &[0], &[], 9));
        let error = flow.settle().unwrap_err().to_string();
        assert!(error.contains("two consumers"), "{error}");
    }
}
