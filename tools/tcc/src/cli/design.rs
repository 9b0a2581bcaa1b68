//! FPGA designs on the command line: their options, and running, verifying and measuring them in C simulation.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tcc::hardware::{DesignOptions, Hardware, design};
use tcc::inputs::{Inputs, read_archive};
use tcc::ir::data::Data;
use tcc::verify::{compare, reference};
use tcc::{Device, Error, Model};

use super::common::{CompileArguments, InputArguments, print_json};
use super::{Failure, Outcome};

/// How a design is made.
#[derive(Args, Clone)]
pub struct DesignArguments {
    /// Number format of a design: float, fixed<W,I> (I bits before the point), fixed<W> (those by range), or fixed (the least
    /// width within 1 % of floating point).
    #[arg(long, value_name = "RECIPE", default_value = "float")]
    pub quant: String,
    /// Inputs of typical runs, one after the other along the first axis: they give the ranges of a design's numbers.
    #[arg(long, value_name = "FILE.npz")]
    pub calibrate: Option<PathBuf>,
    /// What the search for a design makes small, under the budget of the part: latency, throughput (cycles between two runs)
    /// or area.
    #[arg(long, default_value_t)]
    pub objective: tcc_hls::Objective,
}

/// The part that a target such as `hls:zcu104` names.
pub fn part(target: &str) -> Option<&str> {
    target.strip_prefix("hls:")
}

/// The design of a model.
pub fn make(model: &Path, part: &str, arguments: &CompileArguments) -> Result<Hardware, Failure> {
    let calibration = match &arguments.design.calibrate {
        Some(path) => read_archive(path)?,
        None => Inputs::new(),
    };
    let options = DesignOptions {
        part: part.to_string(),
        numbers: arguments.design.quant.parse().map_err(Error::from)?,
        calibration,
        objective: arguments.design.objective,
        dims: arguments.dims()?,
    };
    Ok(design(&Model::open(model)?, &options)?)
}

/// A design that is built for simulation.
struct Simulated {
    hardware: Hardware,
    simulation: tcc_hls::Simulation,
    inputs: Inputs,
    /// Milliseconds from the model to the project.
    compile_ms: f64,
    /// The project is in here.
    _folder: tempfile::TempDir,
}

fn simulate(
    model: &Path,
    part: &str,
    arguments: &CompileArguments,
    inputs: &InputArguments,
) -> Result<Simulated, Failure> {
    if arguments.device != Some(Device::Csim) {
        let target = &arguments.target;
        return Err(Failure::Usage(format!("target {target} runs in C simulation only: --device csim")));
    }
    let start = Instant::now();
    let hardware = make(model, part, arguments)?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    let inputs = inputs.values(&hardware.program.manifest, &arguments.dims()?)?;
    let folder =
        tempfile::tempdir().map_err(|source| Error::Io { path: "the temporary folder".into(), source })?;
    let simulation = hardware.simulation(&folder.path().join("project"))?;
    Ok(Simulated { hardware, simulation, inputs, compile_ms, _folder: folder })
}

/// Runs a model in C simulation; the outputs by name.
pub fn run(
    model: &Path,
    part: &str,
    arguments: &CompileArguments,
    inputs: &InputArguments,
) -> Result<Vec<(String, Data)>, Failure> {
    let simulated = simulate(model, part, arguments, inputs)?;
    let vector = simulated.hardware.vector(&simulated.inputs)?;
    let outcome = simulated.simulation.run(&[vector]).map_err(Error::from)?;
    Ok(simulated.hardware.outputs(&outcome.outputs[0])?)
}

/// Compares the C simulation with the interpreter: bit by bit in fixed point and integers, and with the reference in floating
/// point.
pub fn verify(model: &Path, part: &str, arguments: &CompileArguments, inputs: &InputArguments) -> Outcome {
    let mut inputs = inputs.clone();
    inputs.random = inputs.random.or(Some(0));
    let Simulated { hardware, simulation, inputs, .. } = &simulate(model, part, arguments, &inputs)?;
    simulation.check().map_err(Error::from)?;
    let vector = hardware.vector(inputs)?;
    let outcome = simulation.run(std::slice::from_ref(&vector)).map_err(Error::from)?;
    let simulated = &outcome.outputs[0];
    let expected = reference(&hardware.module, inputs)?;
    let interpreted = hardware.interpret(&vector)?;
    let fixed = hardware.project.formats.width().is_some();
    let named = hardware.outputs(simulated)?;
    for (index, ((name, data), expected)) in named.iter().zip(&expected).enumerate() {
        if !fixed {
            let difference = compare(name, data, expected)?;
            println!("{name}: {:.3} of the tolerance", difference.worst);
            if difference.worst > 1.0 {
                return Err(Error::Mismatch(format!(
                    "output '{name}': element {} is {} in simulation and {} in the reference",
                    difference.index, difference.compiled, difference.reference
                ))
                .into());
            }
            continue;
        }
        let differs = simulated[index].iter().zip(&interpreted[index]).position(|(a, b)| a != b);
        if let Some(element) = differs {
            let (a, b) = (simulated[index][element].as_f64(), interpreted[index][element].as_f64());
            let reason =
                format!("output '{name}': element {element} is {a} in simulation and {b} in the interpreter");
            return Err(Error::Mismatch(reason).into());
        }
        println!("{name}: bit by bit the interpreter's; {}", distance(data, expected));
    }
    Ok(())
}

/// How far a tensor is from the floating-point one.
fn distance(data: &Data, expected: &Data) -> String {
    let number =
        |data: &Data, index| tcc::ir::convert::element(data, index).map_or(f64::NAN, |value| value.as_f64());
    let largest = (0..expected.count()).map(|index| number(expected, index).abs()).fold(0.0, f64::max);
    let differences =
        (0..expected.count()).map(|index| (number(data, index) - number(expected, index)).abs());
    let worst = differences.fold(0.0, f64::max);
    format!(
        "at most {:.3} % of the largest value from floating point",
        100.0 * worst / largest.max(f64::MIN_POSITIVE)
    )
}

/// Prints the design of a model, by layer, and the designs that the search looked at; `html` takes a page with their plot.
pub fn inspect(
    model: &Path,
    part: &str,
    arguments: &CompileArguments,
    html: Option<&Path>,
    json: bool,
) -> Outcome {
    let report = make(model, part, arguments)?.project.report;
    if let Some(path) = html {
        tcc::output::write(path, tcc::report::design(&report)?.as_bytes())?;
    }
    if json {
        return print_json(&report);
    }
    println!("{report}");
    println!("{:>12} {:>4} {:>6} {:>8} {:>8} {:>7}  layer", "cycles", "II", "dsp", "lut", "ff", "bram18");
    for layer in &report.layers {
        let (figures, used) = (&layer.figures, layer.figures.resources);
        println!(
            "{:>12} {:>4} {:>6} {:>8} {:>8} {:>7}  {}",
            figures.latency_cycles,
            layer.loop_interval,
            used.dsp,
            used.lut,
            used.ff,
            used.bram18,
            layer.layer
        );
    }
    println!("Pareto front of {} designs:", report.points.len());
    for point in report.points.iter().filter(|point| point.on_front) {
        println!(
            "{:>12} cycles, a run every {:>10}, {:>5.1} % of the part, {}",
            point.latency_cycles,
            point.initiation_interval,
            100.0 * point.utilization,
            point.architecture
        );
    }
    Ok(())
}

/// What `tcc bench --json` prints of a design.
#[derive(Serialize)]
struct Report {
    model: String,
    target: String,
    device: &'static str,
    numbers: String,
    runs: usize,
    compile_ms: f64,
    csim_build_ms: f64,
    /// Of one run in simulation.
    csim_ms: f64,
    latency_cycles: u64,
    initiation_interval: u64,
    /// Of one run on the part.
    latency_ms: f64,
}

/// Measures the C simulation; figures of the hardware are those of the report.
pub fn bench(
    model: &Path,
    part: &str,
    arguments: &CompileArguments,
    inputs: &InputArguments,
    (runs, json): (usize, bool),
) -> Outcome {
    let mut inputs = inputs.clone();
    inputs.random = inputs.random.or(Some(0));
    let simulated = simulate(model, part, arguments, &inputs)?;
    let vector = simulated.hardware.vector(&simulated.inputs)?;
    let outcome = simulated.simulation.run(&vec![vector; runs]).map_err(Error::from)?;
    let design = &simulated.hardware.project.report;
    let report = Report {
        model: design.name.clone(),
        target: arguments.target.clone(),
        device: "csim",
        numbers: design.numbers.clone(),
        runs,
        compile_ms: simulated.compile_ms,
        csim_build_ms: simulated.simulation.build_seconds * 1e3,
        csim_ms: outcome.seconds * 1e3 / runs as f64,
        latency_cycles: design.total.latency_cycles,
        initiation_interval: design.total.initiation_interval,
        latency_ms: design.latency_ms,
    };
    if json {
        return print_json(&report);
    }
    println!(
        "{}: {:.3} ms a run in C simulation (built in {:.1} s); on {part} {} cycles, {:.3} ms ({})",
        report.model,
        report.csim_ms,
        report.csim_build_ms / 1e3,
        report.latency_cycles,
        report.latency_ms,
        design.total.source
    );
    Ok(())
}
