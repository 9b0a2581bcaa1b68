//! The figures of a design, in total and by layer.

use serde::Serialize;

use crate::design::{Call, Design};
use crate::numbers::Numbers;
use crate::part::{Part, Resources};

/// How a figure came about.
const ESTIMATED: &str = "estimated";

/// Cycles for the start and end of a burst from or to external memory.
const BURST_CYCLES: u64 = 70;

/// What an interface to external memory takes.
const INTERFACE: Resources = Resources { dsp: 0, lut: 800, ff: 1200, bram18: 2, uram: 0 };

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

impl Report {
    /// The report of a design on a part.
    pub fn new(design: &Design, part: &Part, numbers: &Numbers) -> Report {
        let mut seen = vec![false; design.functions.len()];
        let mut layers = Vec::new();
        let (mut cycles, mut resources) = (0u64, Resources::default());
        for call in &design.calls {
            let layer = match call {
                Call::Function { function, layer, .. } => {
                    let estimate = &design.functions[*function].scheduled.estimate;
                    let first = !std::mem::replace(&mut seen[*function], true);
                    Layer {
                        layer: layer.clone(),
                        function: design.functions[*function].emitted.name.clone(),
                        loop_interval: estimate.interval,
                        figures: figures(
                            estimate.cycles,
                            if first { estimate.resources } else { Resources::default() },
                        ),
                    }
                }
                Call::Copy { elements, .. } => Layer {
                    layer: "copy".into(),
                    function: design.name.clone(),
                    loop_interval: 1,
                    figures: figures(elements.saturating_add(4), Resources::default()),
                },
            };
            cycles = cycles.saturating_add(layer.figures.latency_cycles).saturating_add(1);
            resources = resources.plus(layer.figures.resources);
            layers.push(layer);
        }
        let ports = design.inputs.iter().chain(&design.outputs);
        let mut memories = Resources::default();
        for port in ports {
            cycles = cycles.saturating_add(port.elements).saturating_add(BURST_CYCLES);
            memories = memories.plus(INTERFACE);
        }
        for array in &design.arrays {
            memories = memories.plus(array.memory.resources());
        }
        resources = resources.plus(memories);
        Report {
            name: design.name.clone(),
            part: part.name.clone(),
            device: part.device.clone(),
            numbers: numbers.to_string(),
            clock_mhz: part.clock_mhz,
            latency_ms: cycles as f64 / (f64::from(part.clock_mhz.max(1)) * 1e3),
            total: figures(cycles, resources),
            budget: part.budget,
            memories,
            layers,
        }
    }
}
