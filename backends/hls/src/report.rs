//! The figures of a design, in total and by layer.

use std::fmt;

use serde::Serialize;

use crate::design::{Call, Design};
use crate::estimate::memory;
use crate::explore::Point;
use crate::flow::Action;
use crate::numbers::{Numbers, element_bits};
use crate::part::{Part, Resources};

/// How a figure came about.
const ESTIMATED: &str = "estimated";

/// Cycles for the start and end of a burst from or to external memory.
const BURST_CYCLES: u64 = 70;

/// What an interface to external memory takes.
const INTERFACE: Resources = Resources { dsp: 0, lut: 800, ff: 1200, bram18: 2, uram: 0 };

/// What a process that hands elements on takes.
const COPY: Resources = Resources { dsp: 0, lut: 80, ff: 60, bram18: 0, uram: 0 };

/// Deepest FIFO in shift registers.
const SHIFT_REGISTER: u64 = 32;

/// Figures of the whole design or of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Cycles from start to end.
    pub latency_cycles: u64,
    /// Cycles between two starts.
    pub initiation_interval: u64,
    /// Resources.
    #[serde(flatten)]
    pub resources: Resources,
    /// Where the figures come from.
    pub source: &'static str,
}

/// Figures of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// The layer of the model.
    pub layer: String,
    /// The function that computes it.
    pub function: String,
    /// Largest initiation interval of its pipelined loops.
    pub loop_interval: u32,
    /// Its figures; a function that several layers share counts in the first one.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The report of a design.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the design.
    pub name: String,
    /// Name of the part.
    pub part: String,
    /// The vendor's device name.
    pub device: String,
    /// Number format.
    pub numbers: String,
    /// How the layers follow each other.
    pub architecture: String,
    /// Clock.
    pub clock_mhz: u32,
    /// Milliseconds of a run.
    pub latency_ms: f64,
    /// The whole design.
    pub total: Figures,
    /// What the part has.
    pub budget: Resources,
    /// Arrays between the layers, constants, and interfaces.
    pub memories: Resources,
    /// Each step.
    pub layers: Vec<Layer>,
    /// Designs that a search looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Point>,
}

fn figures(cycles: u64, resources: Resources) -> Figures {
    // A function starts again when it is done.
    Figures {
        latency_cycles: cycles,
        initiation_interval: cycles.saturating_add(1),
        resources,
        source: ESTIMATED,
    }
}

/// What a FIFO takes: shift registers in look-up tables while it is short.
fn queue(depth: u64, bits: u32) -> Resources {
    let width = u64::from(bits);
    if depth <= SHIFT_REGISTER {
        return Resources { lut: width + 10, ff: 10, ..Resources::default() };
    }
    let control = Resources { lut: 60, ff: 40, ..Resources::default() };
    memory(depth, bits, 1, false).resources().plus(control)
}

/// Figures of each step, the cycles of a run, and the resources of all functions.
fn steps(design: &Design) -> (Vec<Layer>, u64, Resources) {
    let mut seen = vec![false; design.functions.len()];
    let mut layers = Vec::new();
    let (mut cycles, mut resources) = (0u64, Resources::default());
    let mut layer_of = |function: usize, layer: &str| {
        let estimate = &design.functions[function].scheduled.estimate;
        // Processes that run side by side are copies of a function.
        let shares = design.flow.is_none() && std::mem::replace(&mut seen[function], true);
        Layer {
            layer: layer.to_string(),
            function: design.functions[function].emitted.name.clone(),
            loop_interval: estimate.interval,
            figures: figures(estimate.cycles, if shares { Resources::default() } else { estimate.resources }),
        }
    };
    if let Some(flow) = &design.flow {
        for process in &flow.processes {
            match &process.action {
                Action::Call { function, layer, .. } => layers.push(layer_of(*function, layer)),
                _ => resources = resources.plus(COPY),
            }
        }
        cycles = flow.latency;
    }
    for call in &design.calls {
        let layer = match call {
            Call::Function { function, layer, .. } => layer_of(*function, layer),
            Call::Copy { elements, .. } => Layer {
                layer: "copy".into(),
                function: design.name.clone(),
                loop_interval: 1,
                figures: figures(elements.saturating_add(4), Resources::default()),
            },
        };
        cycles = cycles.saturating_add(layer.figures.latency_cycles).saturating_add(1);
        layers.push(layer);
    }
    layers.iter().for_each(|layer| resources = resources.plus(layer.figures.resources));
    (layers, cycles, resources)
}

impl Report {
    /// The report of a design on a part, whose user asked for these numbers; without any, floating point.
    pub fn new(design: &Design, part: &Part, numbers: Option<Numbers>) -> Report {
        let (layers, mut cycles, mut resources) = steps(design);
        let ports = design.inputs.iter().chain(&design.outputs);
        let mut memories = Resources::default();
        for port in ports {
            cycles = cycles.saturating_add(BURST_CYCLES);
            if design.flow.is_none() {
                cycles = cycles.saturating_add(port.elements);
            }
            memories = memories.plus(INTERFACE);
        }
        let mut interval = cycles.saturating_add(1);
        if let Some(flow) = &design.flow {
            interval = flow.interval;
            for fifo in &flow.fifos {
                let bits = element_bits(fifo.dtype, fifo.format);
                memories = memories.plus(queue(fifo.depth, bits));
            }
        }
        for array in &design.arrays {
            memories = memories.plus(array.memory.resources());
        }
        resources = resources.plus(memories);
        Report {
            name: design.name.clone(),
            part: part.name.clone(),
            device: part.device.clone(),
            numbers: numbers.unwrap_or_default().to_string(),
            clock_mhz: part.clock_mhz,
            latency_ms: cycles as f64 / (f64::from(part.clock_mhz.max(1)) * 1e3),
            total: Figures { initiation_interval: interval, ..figures(cycles, resources) },
            architecture: design.plan.architecture.to_string(),
            budget: part.budget,
            memories,
            layers,
            points: Vec::new(),
        }
    }
}

/// One line: cycles and what the design takes of the part.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { latency_cycles, initiation_interval, resources, source } = &self.total;
        write!(
            f,
            "{} on {}, {}: {latency_cycles} cycles ({:.3} ms at {} MHz), a run every {initiation_interval}; ",
            self.name, self.part, self.architecture, self.latency_ms, self.clock_mhz
        )?;
        for ((name, used), (_, available)) in resources.entries().into_iter().zip(self.budget.entries()) {
            write!(f, "{used} of {available} {name}, ")?;
        }
        write!(f, "{source}")
    }
}
