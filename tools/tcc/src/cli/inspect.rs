//! `tcc inspect`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tcc::Error;
use tcc::inputs::ordered;
use tcc::runtime::manifest::{Manifest, Step, Storage};
use tcc::runtime::{Session, StepTime};

use super::Outcome;
use super::common::{CompileArguments, InputArguments, Loaded, load};

#[derive(Args)]
pub struct Arguments {
    /// The model or artifact.
    model: PathBuf,
    /// Measure each step over this many runs.
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    compile: CompileArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.model.extension().is_none_or(|extension| extension != "tcc")
        && let Some(language_model) = tcc::Model::open(&arguments.model)?.language_model()
    {
        println!("{language_model}");
    }
    let loaded = load(&arguments.model, &arguments.compile)?;
    let manifest = &loaded.manifest;
    for (title, ports) in [("inputs", &manifest.inputs), ("outputs", &manifest.outputs)] {
        println!("{title}:");
        for port in ports {
            let info = &manifest.tensors[port.tensor as usize];
            println!("  {}: {:?} {}", port.name, info.dtype, manifest.describe_shape(&info.shape));
        }
    }
    let times = match arguments.runs {
        Some(runs) => measure(arguments, &loaded, runs.max(1))?,
        None => Vec::new(),
    };
    println!("steps:");
    let mut listing = Listing { manifest, times: &times, number: 0 };
    listing.steps(&manifest.steps, 1);
    if !times.is_empty() {
        let total: Duration = times.iter().sum();
        println!("time: {:.3} ms", total.as_secs_f64() * 1e3);
    }
    match manifest.arena_bytes {
        Some(bytes) => println!("arena peak: {bytes} bytes"),
        None => println!("arena peak: follows from the input shapes"),
    }
    if let Some(caches) = manifest.metadata.get("caches") {
        println!("caches:");
        caches.lines().for_each(|line| println!("  {line}"));
    }
    let weights: u64 = manifest.weights.iter().map(|blob| blob.bytes).sum();
    println!("weights: {weights} bytes in {} blobs", manifest.weights.len());
    Ok(())
}

/// Time of each step, by number: its share of a run where it runs several times, else its shortest call, which a busy
/// neighbour does not touch.
fn measure(arguments: &Arguments, loaded: &Loaded, runs: u32) -> Result<Vec<Duration>, super::Failure> {
    let mut inputs = arguments.inputs.clone();
    inputs.random = inputs.random.or(Some(0));
    let values = inputs.values(&loaded.manifest, &arguments.compile.dims()?)?;
    let ordered = ordered(&loaded.manifest, &values)?;
    let inputs = ordered.tensors()?;
    let mut session =
        Session::new(&loaded.executable, arguments.compile.run_threads()).map_err(Error::from)?;
    session.run(&inputs).map_err(Error::from)?;
    session.measure_steps(true);
    for _ in 0..runs {
        session.run(&inputs).map_err(Error::from)?;
    }
    let time = |step: &StepTime| {
        if step.calls == u64::from(runs) { step.least } else { step.total / runs }
    };
    Ok(session.step_times().iter().map(time).collect())
}

/// Steps with their numbers, which count nested ones in preorder.
struct Listing<'l> {
    manifest: &'l Manifest,
    times: &'l [Duration],
    number: usize,
}

impl Listing<'_> {
    fn tensor(&self, id: u32) -> String {
        let info = &self.manifest.tensors[id as usize];
        let place = match &info.storage {
            Storage::Input(_) => "input".to_string(),
            Storage::Output(_) => "output".to_string(),
            Storage::Weight { .. } => "weight".to_string(),
            Storage::Arena { offset: Some(offset), .. } => format!("arena+{offset}"),
            Storage::Arena { .. } => "arena".to_string(),
            Storage::Alias { of, .. } => format!("view of {of}"),
            Storage::State => format!("state {}", info.name),
            Storage::Host => "host".to_string(),
        };
        format!("{id}:{}{place}", self.manifest.describe_shape(&info.shape))
    }

    fn describe(&self, step: &Step) -> String {
        match step {
            Step::Kernel(step) => {
                let buffers: Vec<String> = step.buffers.iter().map(|id| self.tensor(*id)).collect();
                let kernel = &self.manifest.kernels[step.kernel as usize];
                let tasks = self.manifest.describe_dim(&step.tasks);
                format!("{} tasks={tasks} {}", kernel.symbol, buffers.join(" "))
            }
            Step::Host(step) => format!("host {}", step.function),
            Step::Copy { from, to } => format!("copy {} -> {}", self.tensor(*from), self.tensor(*to)),
            Step::Bind { symbol, tensor, .. } => {
                format!("bind {} from {}", self.manifest.symbols[*symbol as usize].name, self.tensor(*tensor))
            }
            Step::Require(constraint) => format!("require {}", constraint.reason),
            Step::If(step) => format!("if {}", self.tensor(step.condition)),
            Step::Loop(_) => "loop".to_string(),
        }
    }

    fn steps(&mut self, steps: &[Step], depth: usize) {
        for step in steps {
            let time = match self.times.get(self.number) {
                Some(time) => format!("{:9.1} us ", time.as_secs_f64() * 1e6),
                None => String::new(),
            };
            println!("{time}{}{}", "  ".repeat(depth), self.describe(step));
            self.number += 1;
            for (index, nested) in step.children().enumerate() {
                if index > 0 {
                    println!("{}else", "  ".repeat(depth));
                }
                self.steps(nested, depth + 1);
            }
        }
    }
}
