//! Language models ready to generate: from model files by way of the compiler, or from bundles.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tcc_frontend::language_model::{ImportOptions, LanguageModel};
use tcc_ir::dim::Range;
use tcc_ir::module::Module;
use tcc_passes::quantize::Activations;
use tcc_runtime::program::Executable;
use tcc_runtime::{Bundle, LoadOptions};

use super::compiled::CompiledStep;
use super::interpreted::InterpretedStep;
use super::step::StepLimits;
use super::template::TemplateMarks;
use super::tokenizer::{Tokenizer, TokenizerSource};
use super::{ChatTemplate, GenerateError, Generator, Message};
use crate::compile::{CompileOptions, Compiled, compile_module, share_weights, write_entries};
use crate::error::Error;
use crate::model::Model;

/// An entry of a model.
struct Entry {
    name: &'static str,
    /// Most tokens of a run.
    tokens: usize,
    /// How it takes the activations of products with block-quantized weights, where nothing else is asked for.
    activations: Activations,
}

/// The entries of a model. Where few tokens meet the weights memory is the limit, and integers of two bytes, which choose
/// the tokens that floats choose, take no longer than those of one; where many do arithmetic is.
const ENTRIES: [Entry; 2] = [
    Entry { name: "decode", tokens: 16, activations: Activations::Int16 },
    Entry { name: "prefill", tokens: 256, activations: Activations::Int8 },
];

/// Most sequences that are worked on at a time.
const SEQUENCES: usize = 8;

/// What a model is called and what it takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The file name of the model without extension.
    pub name: String,
    /// Logits of a token.
    pub vocabulary: usize,
    /// Most tokens of a sequence.
    pub context: usize,
    /// Slots of a page of the caches.
    pub page: usize,
}

/// What artifacts of a language model hold beside the entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LanguageData {
    /// Name and limits.
    pub facts: ModelFacts,
    /// What the tokenizer is made from.
    pub tokenizer: TokenizerSource,
    /// The Jinja template of conversations.
    pub chat_template: Option<String>,
}

impl LanguageData {
    fn new(
        name: String,
        model: &LanguageModel,
        context: Option<usize>,
    ) -> Result<LanguageData, GenerateError> {
        let limit = model.decoder.context;
        if let Some(asked) = context.filter(|asked| *asked > limit) {
            return Err(GenerateError::ContextTooLong { asked, limit });
        }
        let facts = ModelFacts {
            name,
            vocabulary: model.decoder.vocabulary,
            context: context.unwrap_or(limit),
            page: ImportOptions::default().page,
        };
        Ok(LanguageData {
            facts,
            tokenizer: TokenizerSource::of_model(model)?,
            chat_template: model.tokens.chat_template.clone(),
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer, GenerateError> {
        Tokenizer::new(&self.tokenizer)
    }

    /// The chat template; `None` where the model has none.
    pub fn template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, GenerateError> {
        self.chat_template.as_ref().map(|source| template(source, tokenizer)).transpose()
    }
}

impl ModelFacts {
    fn limits(&self, room: Room, tokens: usize) -> Result<StepLimits, GenerateError> {
        let context = room.context.unwrap_or(self.context);
        if context > self.context {
            return Err(GenerateError::ContextTooLong { asked: context, limit: self.context });
        }
        // More sequences wait for their turn.
        let sequences = room.sequences.clamp(1, SEQUENCES);
        let pages = context.div_ceil(self.page).saturating_mul(sequences);
        Ok(StepLimits {
            vocabulary: self.vocabulary,
            tokens,
            few_tokens: tokens,
            sequences,
            slots: pages.saturating_mul(self.page),
            page: self.page,
            context,
        })
    }
}

/// A chat template with the marks of a tokenizer.
pub fn template(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, GenerateError> {
    let text = |token: Option<u32>| {
        let piece = token.and_then(|token| tokenizer.piece(token)).unwrap_or_default();
        String::from_utf8_lossy(piece).into_owned()
    };
    let marks = tokenizer.marks();
    ChatTemplate::new(source, TemplateMarks { bos_token: text(marks.begin), eos_token: text(marks.end) })
}

/// How much a generator has to hold.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Most tokens of a sequence; as many as the model takes where it is not given.
    pub context: Option<usize>,
    /// Sequences of that length.
    pub sequences: usize,
}

/// A model function for a range of tokens.
fn import(model: &LanguageModel, name: &str, tokens: usize, context: usize) -> Result<Module, Error> {
    let options = ImportOptions {
        function: name.to_string(),
        context,
        tokens: Range { low: 1, high: tokens as i64 },
        ..ImportOptions::default()
    };
    Ok(model.import(&options)?)
}

/// The language model in a model file, refused by name where it is none.
fn language_model<'m>(model: &'m Model, path: &Path) -> Result<&'m LanguageModel, Error> {
    model.language_model().ok_or_else(|| Error::Format {
        path: path.to_owned(),
        reason:
            "no language model; expected a .gguf file, a folder with config.json, or a bundle made from one"
                .into(),
    })
}

/// A compiled language model: an entry for few tokens and one for many, over the same weights.
#[derive(Debug)]
pub struct CompiledLanguageModel {
    /// Tokenizer, template and limits.
    pub data: LanguageData,
    /// The entries.
    pub entries: Vec<Compiled>,
}

impl CompiledLanguageModel {
    /// Compiles a model for up to `context` tokens, or as many as it was trained for.
    pub fn new(path: &Path, options: &CompileOptions, context: Option<usize>) -> Result<Self, Error> {
        let model = Model::open(path)?;
        let language = language_model(&model, path)?;
        let data = LanguageData::new(model.name(), language, context)?;
        let mut entries: Vec<Compiled> = Vec::new();
        for Entry { name, tokens, activations } in ENTRIES {
            let start = Instant::now();
            let module = import(language, name, tokens, data.facts.context)?;
            let activations = Some(options.activations.unwrap_or(activations));
            let options = CompileOptions { activations, ..options.clone() };
            let mut compiled = compile_module(module, &data.facts.name, &options)?;
            compiled.manifest.entry = name.to_string();
            log::info!("entry {name}: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
            entries.push(compiled);
        }
        share_weights(&mut entries);
        Ok(CompiledLanguageModel { data, entries })
    }

    /// Writes a bundle, all at once or not at all.
    pub fn write_bundle(&self, path: &Path) -> Result<(), Error> {
        let fail = |error: serde_json::Error| Error::Codegen(error.to_string());
        let metadata = serde_json::to_vec(&self.data).map_err(fail)?;
        write_entries(&self.entries, Some(metadata), path)
    }

    /// The entries, loaded into this process.
    pub fn load(&self) -> Result<LoadedLanguageModel, Error> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for (compiled, entry) in self.entries.iter().zip(ENTRIES) {
            entries.push((compiled.executable()?, entry.tokens));
        }
        LoadedLanguageModel::new(&self.data, Program::Entries(entries))
    }
}

/// What executes a loaded model.
enum Program {
    /// Compiled entries, each with the most tokens of a run.
    Entries(Vec<(Arc<Executable>, usize)>),
    /// The reference interpreter.
    Interpreter(Module),
}

/// A language model that is ready to run.
pub struct LoadedLanguageModel {
    /// Name and limits.
    pub facts: ModelFacts,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    program: Program,
}

impl LoadedLanguageModel {
    fn new(data: &LanguageData, program: Program) -> Result<LoadedLanguageModel, Error> {
        let tokenizer = data.tokenizer()?;
        let template = data.template(&tokenizer)?;
        Ok(LoadedLanguageModel { facts: data.facts.clone(), tokenizer, template, program })
    }

    /// Loads a bundle.
    pub fn open_bundle(path: &Path) -> Result<LoadedLanguageModel, Error> {
        let bundle = Bundle::open(path)?;
        let Some(metadata) = bundle.metadata()? else {
            let reason =
                "a bundle of no language model; make one with: tcc compile MODEL.gguf -o OUT.tcc".into();
            return Err(Error::Format { path: path.to_owned(), reason });
        };
        let data: LanguageData = serde_json::from_slice(metadata).map_err(|error| Error::Format {
            path: path.to_owned(),
            reason: format!("its description of a language model does not parse: {error}"),
        })?;
        // The tokenizer takes as long to build as the code to load.
        let (tokenizer, entries) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| data.tokenizer());
            let entries: Result<Vec<_>, Error> = ENTRIES
                .iter()
                .map(|entry| {
                    let executable = bundle.load_entry(entry.name, &LoadOptions::default())?;
                    Ok((Arc::new(executable), entry.tokens))
                })
                .collect();
            let tokenizer = match tokenizer.join() {
                Ok(tokenizer) => tokenizer,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (tokenizer, entries)
        });
        let tokenizer = tokenizer?;
        let template = data.template(&tokenizer)?;
        Ok(LoadedLanguageModel {
            facts: data.facts,
            tokenizer,
            template,
            program: Program::Entries(entries?),
        })
    }

    /// The model under the reference interpreter: slow, exact, and what compiled models are compared with.
    pub fn interpreted(path: &Path, context: Option<usize>) -> Result<LoadedLanguageModel, Error> {
        let model = Model::open(path)?;
        let language = language_model(&model, path)?;
        let data = LanguageData::new(model.name(), language, context)?;
        let module = import(language, "main", ENTRIES[1].tokens, data.facts.context)?;
        LoadedLanguageModel::new(&data, Program::Interpreter(module))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a conversation, ready for the assistant's answer.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, GenerateError> {
        let template = self.template.as_ref().ok_or(GenerateError::NoTemplate)?;
        self.tokenizer.encode_chat(&template.render(messages, true)?)
    }

    /// Puts another chat template in the place of the model's.
    pub fn set_template(&mut self, source: &str) -> Result<(), GenerateError> {
        self.template = Some(template(source, &self.tokenizer)?);
        Ok(())
    }

    /// Bytes of all weights; those that entries share count once.
    pub fn weights_bytes(&self) -> u64 {
        match &self.program {
            Program::Entries(entries) => entries.first().map_or(0, |(executable, _)| {
                executable.manifest().weights.iter().map(|blob| blob.bytes).sum()
            }),
            Program::Interpreter(_) => 0,
        }
    }

    /// Bytes of the caches for each token of context.
    pub fn cache_bytes_per_token(&self) -> Result<u64, Error> {
        match &self.program {
            Program::Entries(entries) => {
                let manifests: Vec<_> = entries.iter().map(|(executable, _)| executable.manifest()).collect();
                let page = self.facts.page as i64;
                Ok(tcc_runtime::State::bytes_needed(&manifests, &[("kv_slots", page)])? / page as u64)
            }
            Program::Interpreter(_) => Ok(0),
        }
    }

    /// Makes the caches and everything that runs need.
    pub fn generator(self, room: Room, threads: usize) -> Result<Generator, Error> {
        let limits = self.facts.limits(room, ENTRIES[1].tokens)?;
        let step: Box<dyn super::step::Step + Send> = match self.program {
            Program::Entries(entries) => Box::new(CompiledStep::new(&entries, limits, threads)?),
            Program::Interpreter(module) => Box::new(InterpretedStep::new(module, limits)?),
        };
        Ok(Generator::new(self.tokenizer, self.template, step)?)
    }
}

impl std::fmt::Debug for LoadedLanguageModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadedLanguageModel({}, {:?})", self.facts.name, self.tokenizer)
    }
}
