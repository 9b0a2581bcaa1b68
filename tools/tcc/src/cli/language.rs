//! Arguments that the commands for language models share, and what they stand for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use tcc::generate::grammar::{Grammar, GrammarSource};
use tcc::generate::model::{CompiledLanguageModel, LoadedLanguageModel};
use tcc::generate::{Sampling, Tokenizer};
use tcc::ir::cache::CacheFormat;
use tcc::runtime::Bundle;
use tcc::{CompileOptions, Error};

use super::Failure;
use super::common::CompileArguments;

/// Name of the target that is no compiled code.
const INTERPRETER: &str = "interpreter";

/// Which model, and how much of it.
#[derive(Args, Clone)]
pub struct LanguageArguments {
    /// A .gguf file, a folder with config.json and safetensors, or a bundle made from one.
    pub model: PathBuf,
    /// Most tokens of a text and its continuation; what the model was trained for, or what is needed, by default.
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    #[command(flatten)]
    pub compile: CompileArguments,
}

/// How tokens are chosen.
#[derive(Args, Clone)]
pub struct SamplingArguments {
    /// 0 takes the most likely token every time.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep this many most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Keep the most likely tokens of this probability together.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep tokens of at least this share of the largest probability.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Weaken tokens that were there recently.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// How many tokens are recent.
    #[arg(long, default_value_t = 64)]
    repeat_last: usize,
    /// Where the random numbers start; the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// What the answer must look like: a file with a grammar in the Lark-like notation of llguidance.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// What the answer must look like: a file with a JSON schema.
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    json_schema: Option<PathBuf>,
}

impl SamplingArguments {
    /// The options, refused where they are out of range.
    pub fn sampling(&self) -> Result<Sampling, Failure> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last: self.repeat_last,
            seed: self.seed,
        };
        sampling.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(sampling)
    }

    /// The grammar, if there is one.
    pub fn grammar(&self, tokenizer: &Tokenizer) -> Result<Option<Arc<Grammar>>, Failure> {
        let source = match (&self.grammar, &self.json_schema) {
            (Some(path), _) => GrammarSource::Lark(read_text(path)?),
            (None, Some(path)) => GrammarSource::JsonSchema(read_text(path)?),
            (None, None) => return Ok(None),
        };
        Ok(Some(Arc::new(Grammar::new(&source, tokenizer).map_err(Error::from)?)))
    }
}

/// A model that was compiled or loaded, and how long that took.
pub struct Loaded {
    /// The model.
    pub model: LoadedLanguageModel,
    /// Milliseconds of compilation; none for a bundle.
    pub compile_ms: Option<f64>,
    /// Milliseconds of loading.
    pub load_ms: f64,
}

impl LanguageArguments {
    /// Threads of a run.
    pub fn threads(&self) -> usize {
        self.compile.run_threads()
    }

    /// Loads a bundle, or compiles a model and loads the result.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        if is_bundle(&self.model) {
            let model = LoadedLanguageModel::open_bundle(&self.model)?;
            // No compiler is needed from here on, and most of a tokenizer's memory only while it is made.
            tcc::runtime::memory::resident::give_back();
            return Ok(Loaded { model, compile_ms: None, load_ms: milliseconds(start) });
        }
        if self.compile.target == INTERPRETER {
            let model = LoadedLanguageModel::interpreted(&self.model, self.context)?;
            return Ok(Loaded { model, compile_ms: None, load_ms: milliseconds(start) });
        }
        let options = options(&self.compile)?;
        if !options.target.is_native() {
            let name = &options.target.name;
            return Err(Failure::Usage(format!("code for {name} does not run on this machine")));
        }
        let compiled = compile(&self.model, &self.compile, self.context)?;
        let compile_ms = Some(milliseconds(start));
        let start = Instant::now();
        let model = compiled.load()?;
        Ok(Loaded { model, compile_ms, load_ms: milliseconds(start) })
    }
}

/// Options of the compiler; unless asked otherwise, caches hold 16-bit floats, as in other programs that run such models.
fn options(arguments: &CompileArguments) -> Result<CompileOptions, Failure> {
    let mut options = arguments.options()?;
    options.caches.format = options.caches.format.or(Some(CacheFormat::F16));
    Ok(options)
}

/// Compiles a language model with a spinner on a terminal.
pub fn compile(
    path: &Path,
    arguments: &CompileArguments,
    context: Option<usize>,
) -> Result<CompiledLanguageModel, Failure> {
    let options = options(arguments)?;
    let spinner = ProgressBar::new_spinner().with_message(format!("compiling {}", path.display()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let compiled = CompiledLanguageModel::new(path, &options, context);
    spinner.finish_and_clear();
    Ok(compiled?)
}

/// True for a path that names a bundle.
pub fn is_bundle(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tcc")
}

/// True for the files of a language model: GGUF, a folder, or a bundle made from one.
pub fn is_language_model(path: &Path) -> Result<bool, Failure> {
    if is_bundle(path) {
        let bundle = Bundle::open(path).map_err(Error::from)?;
        return Ok(bundle.metadata().map_err(Error::from)?.is_some());
    }
    Ok(path.is_dir() || path.extension().is_some_and(|extension| extension == "gguf"))
}

/// The text of a file; `-` is the standard input.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let fail = |source| Error::Io { path: path.to_owned(), source };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(fail)?;
        return Ok(text);
    }
    Ok(std::fs::read_to_string(path).map_err(fail)?)
}

/// Writes text to the standard output at once; false where nobody reads it any more.
pub fn emit(text: &str) -> Result<bool, Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(Error::Io { path: "standard output".into(), source }.into()),
    }
}
