//! `tcc bench`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tcc::Error;
use tcc::inputs::ordered;
use tcc::measure::{Ceiling, Ceilings, Lap};
use tcc::runtime::{Session, TensorMut};

use super::bench_language::{self, WorkloadArguments};
use super::common::{CompileArguments, InputArguments, load, print_json};
use super::language::{LanguageArguments, is_language_model};
use super::{Failure, Outcome, design};

#[derive(Args)]
pub struct Arguments {
    /// The model or artifact.
    model: PathBuf,
    /// Measured runs, after a tenth as many to warm up; 50 by default, 3 for a language model.
    #[arg(long)]
    runs: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Measure what the machine can do in between the runs, in this many rounds, and print both (JSON).
    #[arg(long, value_name = "ROUNDS")]
    ceilings: Option<usize>,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    workload: WorkloadArguments,
    /// Most tokens of a text, for a language model.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    #[command(flatten)]
    compile: CompileArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: String,
    target: String,
    threads: usize,
    runs: usize,
    median_ms: f64,
    p10_ms: f64,
    p90_ms: f64,
    compile_ms: Option<f64>,
    load_ms: f64,
    arena_bytes: u64,
    weights_bytes: u64,
    peak_rss_bytes: u64,
    kernels: usize,
}

pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.runs == Some(0) {
        return Err(Failure::Usage("--runs: at least 1".into()));
    }
    if let Some(part) = design::part(&arguments.compile.target) {
        let runs = (arguments.runs.unwrap_or(50), arguments.json);
        return design::bench(&arguments.model, part, &arguments.compile, &arguments.inputs, runs);
    }
    if is_language_model(&arguments.model)? {
        let (model, context) = (arguments.model.clone(), arguments.context);
        let language = LanguageArguments { model, context, compile: arguments.compile.clone() };
        let runs = arguments.runs.unwrap_or(3);
        return bench_language::run(&language, &arguments.workload, runs, arguments.json);
    }
    let runs = arguments.runs.unwrap_or(50);
    let loaded = load(&arguments.model, &arguments.compile)?;
    let mut inputs = arguments.inputs.clone();
    inputs.random = inputs.random.or(Some(0));
    let values = inputs.values(&loaded.manifest, &arguments.compile.dims()?)?;
    let ordered = ordered(&loaded.manifest, &values)?;
    let inputs = ordered.tensors()?;
    let threads = arguments.compile.run_threads();
    let mut session = Session::new(&loaded.executable, threads).map_err(Error::from)?;
    let mut results = session.run(&inputs).map_err(Error::from)?;
    let mut texts = vec![Vec::new(); results.len()];
    let mut outputs: Vec<TensorMut> = results
        .iter_mut()
        .zip(&mut texts)
        .map(|(tensor, texts)| match tensor.strings() {
            Some(_) => TensorMut::from_strings(texts),
            None => TensorMut::new(tensor.dtype(), tensor.bytes_mut()),
        })
        .collect();
    if let Some(rounds) = arguments.ceilings {
        let mut run = || session.run_into(&inputs, &mut outputs).map_err(Error::from);
        return beside_ceilings(rounds, threads, &loaded.manifest, &mut run);
    }
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs + runs / 10 + 1 {
        let start = Instant::now();
        session.run_into(&inputs, &mut outputs).map_err(Error::from)?;
        if run > runs / 10 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let report = Report {
        model: loaded.manifest.name.clone(),
        target: arguments.compile.target.clone(),
        threads,
        runs: times.len(),
        median_ms: quantile(0.5),
        p10_ms: quantile(0.1),
        p90_ms: quantile(0.9),
        compile_ms: loaded.compile_ms,
        load_ms: loaded.load_ms,
        arena_bytes: session.memory_use().arena,
        weights_bytes: loaded.manifest.weights.iter().map(|blob| blob.bytes).sum(),
        peak_rss_bytes: peak_resident_bytes(),
        kernels: loaded.manifest.kernels.len(),
    };
    if arguments.json {
        return print_json(&report);
    }
    println!(
        "{}: median {:.3} ms, p10 {:.3}, p90 {:.3} over {} runs on {} threads; arena {:.1} KiB, weights {:.1} KiB",
        report.model,
        report.median_ms,
        report.p10_ms,
        report.p90_ms,
        report.runs,
        report.threads,
        report.arena_bytes as f64 / 1024.0,
        report.weights_bytes as f64 / 1024.0
    );
    Ok(())
}

/// One round of `--ceilings`.
#[derive(Serialize)]
struct Round {
    /// The best of the runs of this round.
    milliseconds: f64,
    #[serde(flatten)]
    ceiling: Ceiling,
}

/// What `--ceilings` prints.
#[derive(Serialize)]
struct Beside {
    rounds: Vec<Round>,
}

/// Seconds of the runs of one round, of which there are some in any case.
const ROUND_SECONDS: f64 = 2e-3;
const ROUND_RUNS: usize = 3;

/// Rounds of some runs each, and what the machine can do before and after them. Bytes of inputs, weights and outputs
/// decide on the memory level that is measured.
fn beside_ceilings(
    rounds: usize,
    threads: usize,
    manifest: &tcc::runtime::Manifest,
    run: &mut dyn FnMut() -> Result<(), Error>,
) -> Outcome {
    let ports = manifest.inputs.iter().chain(&manifest.outputs).map(|port| {
        let info = &manifest.tensors[port.tensor as usize];
        let count: i64 = info.shape.iter().map(|extent| extent.as_const().unwrap_or(1)).product();
        info.dtype.bytes_for(count.max(0) as u64).unwrap_or(0)
    });
    let weights = manifest.weights.iter().map(|blob| blob.bytes);
    let mut ceilings = Ceilings::new(threads, ports.chain(weights).sum())?;
    let mut found = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let before = ceilings.sample()?;
        let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
        while runs < ROUND_RUNS || begin.elapsed().as_secs_f64() < ROUND_SECONDS {
            let lap = Lap::start();
            run()?;
            best = best.min(lap.seconds(threads == 1));
            runs += 1;
        }
        let ceiling = before.better(ceilings.sample()?);
        found.push(Round { milliseconds: best * 1e3, ceiling });
    }
    print_json(&Beside { rounds: found })
}

/// Peak resident memory of this process; 0 where the system does not tell.
pub fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
