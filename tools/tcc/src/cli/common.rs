//! Arguments that several commands share, and what they stand for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use tcc::compile::Progress;
use tcc::inputs::{self, Inputs};
use tcc::ir::attribute::{Attribute, AttributeValue};
use tcc::ir::cache::CacheFormat;
use tcc::ir::dim::Range;
use tcc::model::Dims;
use tcc::passes::quantize::Activations;
use tcc::runtime::manifest::Manifest;
use tcc::runtime::program::Executable;
use tcc::runtime::{Bundle, LoadOptions};
use tcc::{CompileOptions, Compiled, Device, Error, Model, Target, compile, sizes};

use super::Failure;
use super::design::DesignArguments;

/// How a model is compiled.
#[derive(Args, Clone)]
pub struct CompileArguments {
    /// Target: cpu, cpu:x86-64-v3, cpu:x86-64-v4, cpu:aarch64, cpu:riscv64, cpu:wasm32, cranelift, ptx:sm_80 and the like.
    #[arg(long, default_value = "cpu")]
    pub target: String,
    /// A symbolic dimension: NAME=N fixes it, NAME=LO..HI bounds it.
    #[arg(long = "dim", value_name = "NAME=N|NAME=LO..HI")]
    pub dims: Vec<String>,
    /// Threads, for code generation and for the run.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where it runs: cpu; for ptx targets cuda (a GPU) or sim (the simulator); for hls targets csim (C simulation).
    #[arg(long)]
    pub device: Option<Device>,
    /// 0: no rewrites; 1 to 3: all rewrites, more effort in code generation.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub opt_level: u8,
    /// How products with block-quantized weights take their activations: as they are, or as integers of two bytes or of one.
    /// By default language models take two, and one for longer parts of a prompt.
    #[arg(long, value_name = "f32|int16|int8")]
    pub activations: Option<String>,
    /// What numbers in key-value caches are rounded to: f16 by default where text is generated, as the model says
    /// elsewhere.
    #[arg(long, value_name = "f32|f16|i8|i4")]
    pub kv: Option<String>,
    #[command(flatten)]
    pub design: DesignArguments,
}

/// Input values.
#[derive(Args, Clone)]
pub struct InputArguments {
    /// One input from a file.
    #[arg(long = "input", value_name = "NAME=FILE.npy")]
    pub input: Vec<String>,
    /// Inputs from an archive, by name.
    #[arg(long, value_name = "FILE.npz")]
    pub inputs: Option<PathBuf>,
    /// Random values for inputs that no file gives, in small sizes that suit the model where --dim gives none.
    #[arg(long, value_name = "SEED")]
    pub random: Option<u64>,
}

impl CompileArguments {
    /// Ranges by name.
    pub fn dims(&self) -> Result<Dims, Failure> {
        let mut dims = Dims::new();
        for text in &self.dims {
            let bad =
                || Failure::Usage(format!("--dim {text}: expected NAME=N or NAME=LO..HI with 0 <= LO <= HI"));
            let (name, value) = text.split_once('=').ok_or_else(bad)?;
            let number =
                |text: &str| text.trim().parse::<i64>().ok().filter(|value| *value >= 0).ok_or_else(bad);
            let (low, high) = match value.split_once("..") {
                Some((low, high)) => (number(low)?, number(high.trim_start_matches('='))?),
                None => (number(value)?, number(value)?),
            };
            if low > high {
                return Err(bad());
            }
            dims.insert(name.to_string(), Range { low, high });
        }
        Ok(dims)
    }

    /// Options of the compiler.
    pub fn options(&self) -> Result<CompileOptions, Failure> {
        let mut options = CompileOptions::new(Target::named(&self.target)?);
        options.dims = self.dims()?;
        options.level = self.opt_level;
        if let Some(device) = self.device {
            device.check(&options.target)?;
            options.device = device;
        }
        options.activations = match self.activations.as_deref() {
            None => None,
            Some("f32") => Some(Activations::Float),
            Some("int8") => Some(Activations::Int8),
            Some("int16") => Some(Activations::Int16),
            Some(other) => {
                return Err(Failure::Usage(format!("--activations {other}: expected f32, int16 or int8")));
            }
        };
        if let Some(kv) = &self.kv {
            let format = CacheFormat::from_value(&AttributeValue::Text(kv.clone()));
            options.caches.format =
                Some(format.map_err(|_| Failure::Usage(format!("--kv {kv}: expected f32, f16, i8 or i4")))?);
        }
        if let Some(threads) = self.threads {
            if threads == 0 {
                return Err(Failure::Usage("--threads: at least 1".into()));
            }
            options.threads = threads;
        }
        Ok(options)
    }

    /// Threads of a run.
    pub fn run_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get()))
    }

    /// Compiles a model; on a terminal a line says what is being done.
    pub fn compile(&self, path: &Path) -> Result<Compiled, Failure> {
        let mut options = self.options()?;
        let model = Model::open(path)?;
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(100));
        let (line, name) = (spinner.clone(), path.display().to_string());
        options.progress = Progress::new(move |stage| line.set_message(format!("{name}: {stage}")));
        let compiled = compile(&model, &options);
        spinner.finish_and_clear();
        Ok(compiled?)
    }
}

/// Prints a value as JSON on one line.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Error::Codegen(error.to_string()))?;
    println!("{text}");
    Ok(())
}

/// A program ready to run, and how long it took to get there.
pub struct Loaded {
    /// The program.
    pub executable: Arc<Executable>,
    /// Its manifest.
    pub manifest: Manifest,
    /// Milliseconds of compilation; none for an artifact.
    pub compile_ms: Option<f64>,
    /// Milliseconds of loading.
    pub load_ms: f64,
}

/// Loads an artifact, or compiles a model and loads the result.
pub fn load(path: &Path, arguments: &CompileArguments) -> Result<Loaded, Failure> {
    let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    if path.extension().is_some_and(|extension| extension == "tcc") {
        let start = Instant::now();
        let bundle = Bundle::open(path).map_err(Error::from)?;
        let manifest = bundle.manifest().clone();
        let executable = Arc::new(bundle.load(&LoadOptions::default()).map_err(Error::from)?);
        return Ok(Loaded { executable, manifest, compile_ms: None, load_ms: milliseconds(start) });
    }
    let options = arguments.options()?;
    if options.device == Device::Cpu && !options.target.is_native() {
        return Err(Failure::Usage(format!("code for {} does not run on this machine", options.target.name)));
    }
    let start = Instant::now();
    let compiled = arguments.compile(path)?;
    let compile_ms = Some(milliseconds(start));
    let start = Instant::now();
    let executable = compiled.executable()?;
    Ok(Loaded { executable, manifest: compiled.manifest, compile_ms, load_ms: milliseconds(start) })
}

impl InputArguments {
    /// The values for a program.
    pub fn values(&self, manifest: &Manifest, dims: &Dims) -> Result<Inputs, Failure> {
        let mut values = Inputs::new();
        if let Some(path) = &self.inputs {
            values.extend(inputs::read_archive(path)?);
        }
        for text in &self.input {
            let (name, data) = inputs::read_array(text)?;
            values.insert(name, data);
        }
        if let Some(seed) = self.random {
            let sizes = sizes::choose(manifest, dims, &values)?;
            let chosen: Vec<String> =
                sizes.chosen.iter().map(|(name, size)| format!("{name}={size}")).collect();
            if !chosen.is_empty() {
                // On the error stream, so that pipes stay clean.
                eprintln!("sizes: {} (--dim NAME=N chooses)", chosen.join(" "));
            }
            let missing = inputs::random(manifest, &sizes.values, &values, seed)?;
            values.extend(missing);
        }
        Ok(values)
    }
}
