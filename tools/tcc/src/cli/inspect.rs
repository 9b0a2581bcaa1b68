//! `tcc inspect`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tcc::inputs::ordered;
use tcc::output::write;
use tcc::profile::{Profile, StepRow, describe};
use tcc::report;
use tcc::runtime::Session;
use tcc::runtime::manifest::Manifest;
use tcc::target::Backend;
use tcc::{Error, Target, gpu_limits};

use super::common::{CompileArguments, InputArguments, load, print_json};
use super::{Outcome, design};

/// Runs that are measured where a page is asked for and no number is given.
const PAGE_RUNS: u32 = 20;

#[derive(Args)]
pub struct Arguments {
    /// The model or artifact.
    model: PathBuf,
    /// Measure each step over this many runs.
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// Measure, and write a page with graph, kernels and memory plan.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    compile: CompileArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    model: &'r str,
    threads: usize,
    runs: u32,
    time_us: Option<f64>,
    floor_us: f64,
    machine_model: String,
    arena_bytes: Option<u64>,
    weights_bytes: u64,
    steps: &'r [StepRow],
}

pub fn run(arguments: &Arguments) -> Outcome {
    if let Some(part) = design::part(&arguments.compile.target) {
        let html = arguments.html.as_deref();
        return design::inspect(&arguments.model, part, &arguments.compile, html, arguments.json);
    }
    if !arguments.json
        && arguments.model.extension().is_none_or(|extension| extension != "tcc")
        && let Some(language_model) = tcc::Model::open(&arguments.model)?.language_model()
    {
        println!("{language_model}");
    }
    let target = Target::named(&arguments.compile.target)?;
    let (limits, origin) = target.limits();
    let runs = arguments.runs.or(arguments.html.is_some().then_some(PAGE_RUNS));
    let is_bundle = arguments.model.extension().is_some_and(|extension| extension == "tcc");
    // What is only described needs no device.
    if runs.is_none() && !is_bundle {
        let compiled = arguments.compile.compile(&arguments.model)?;
        let threads = arguments.compile.run_threads();
        let mut profile = describe(&compiled.manifest, &[], &limits, threads);
        if let (Some(ptx), Backend::Ptx(gpu)) = (&compiled.ptx, &target.backend) {
            profile = describe(&compiled.manifest, &[], &limits, limits.cores);
            gpu_limits::with_tensor_cores(&mut profile, gpu, ptx, &limits);
        }
        return show(arguments, &compiled.manifest, &profile, (threads, &origin));
    }
    let loaded = load(&arguments.model, &arguments.compile)?;
    let manifest = &loaded.manifest;
    let threads = arguments.compile.run_threads();
    let mut chosen = arguments.inputs.clone();
    chosen.random = chosen.random.or(Some(0));
    let mut profile;
    if let Some(runs) = runs {
        let values = chosen.values(manifest, &arguments.compile.dims()?)?;
        let ordered = ordered(manifest, &values)?;
        let inputs = ordered.tensors()?;
        profile = describe(manifest, &inputs, &limits, threads);
        let mut session = Session::new(&loaded.executable, threads).map_err(Error::from)?;
        profile.measure(&mut session, &inputs, runs.max(1))?;
    } else {
        profile = describe(manifest, &[], &limits, threads);
    }
    if let Some(path) = &arguments.html {
        let page = report::html(manifest, &profile, &limits, &origin)?;
        write(path, page.as_bytes())?;
    }
    show(arguments, manifest, &profile, (threads, &origin))
}

/// Prints what is known of the steps.
fn show(
    arguments: &Arguments,
    manifest: &Manifest,
    profile: &Profile,
    (threads, origin): (usize, &str),
) -> Outcome {
    let weights_bytes: u64 = manifest.weights.iter().map(|blob| blob.bytes).sum();
    let (time, floor_us) = profile.totals();
    if arguments.json {
        return print_json(&Report {
            model: &manifest.name,
            threads,
            runs: profile.runs,
            time_us: (profile.runs > 0).then_some(time),
            floor_us,
            machine_model: origin.to_string(),
            arena_bytes: profile.arena_bytes,
            weights_bytes,
            steps: &profile.rows,
        });
    }
    print_ports(manifest);
    print_steps(profile);
    if profile.runs > 0 {
        println!(
            "time: {:.3} ms; at the limits of the machine ({}): {:.3} ms, {:.0} %",
            time / 1e3,
            origin,
            floor_us / 1e3,
            100.0 * floor_us / time.max(f64::MIN_POSITIVE)
        );
    }
    if profile.runs == 0 && floor_us > 0.0 {
        println!("time at the limits of the machine ({origin}): {:.3} ms", floor_us / 1e3);
    }
    match profile.arena_bytes {
        Some(bytes) => println!("arena peak: {bytes} bytes"),
        None => println!("arena peak: follows from the input shapes"),
    }
    if let Some(caches) = manifest.metadata.get("caches") {
        println!("caches:");
        caches.lines().for_each(|line| println!("  {line}"));
    }
    println!("weights: {weights_bytes} bytes in {} blobs", manifest.weights.len());
    Ok(())
}

fn print_ports(manifest: &Manifest) {
    for (title, ports) in [("inputs", &manifest.inputs), ("outputs", &manifest.outputs)] {
        println!("{title}:");
        for port in ports {
            let info = &manifest.tensors[port.tensor as usize];
            println!("  {}: {} {}", port.name, info.dtype.name(), manifest.describe_shape(&info.shape));
        }
    }
}

/// Steps in order, or, where they were measured, those with the largest gap first.
fn print_steps(profile: &Profile) {
    let measured = profile.runs > 0;
    let rows: Vec<&StepRow> = if measured { profile.by_gap() } else { profile.rows.iter().collect() };
    println!(
        "{:>5} {:>10} {:>10} {:>7} {:>10} {:8} kernel",
        "step", "time us", "floor us", "share", "gap us", "bound by"
    );
    for row in rows {
        let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.1}"));
        let bound = match row.floor_us {
            None => "",
            Some(_) if row.memory_bound => "memory",
            Some(_) => "compute",
        };
        let indent = if measured { 0 } else { 2 * row.depth };
        println!(
            "{:5} {:>10} {:>10} {:>7} {:>10} {bound:8} {:indent$}{} {}",
            row.step,
            number(row.time_us),
            number(row.floor_us),
            row.share.map_or("-".to_string(), |share| format!("{:.0} %", 100.0 * share)),
            number(row.time_us.map(|_| row.gap_us())),
            "",
            row.name,
            row.location
        );
    }
}
