//! Language models: sequences, sampling, whole completions.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tcc::generate::grammar::{Grammar, GrammarSource};
use tcc::generate::model::Room;
use tcc::generate::serve::{self, Request};
use tcc::generate::{
    CompiledLanguageModel, Generator, LoadedLanguageModel, Message, Sampler, Sampling, SequenceId,
};
use tcc::ir::attribute::{Attribute, AttributeValue};
use tcc::ir::cache::CacheFormat;
use tcc::passes::quantize::Activations;
use tcc::{CompileOptions, Target};

use crate::failed;
use crate::program::{all_threads, locked};

/// A language model from a .gguf file, a folder with config.json and safetensors, or a bundle, with its tokenizer and
/// room for some sequences.
#[pyclass(frozen, module = "tcc")]
pub struct LanguageModel {
    generator: Arc<Mutex<Generator>>,
}

/// How tokens are chosen, from the keywords of Python; those that are something else are left.
fn sampling(options: Option<&Bound<'_, PyDict>>) -> PyResult<Sampling> {
    let mut sampling = Sampling::default();
    for (key, value) in options.into_iter().flatten() {
        let key: String = key.extract()?;
        match key.as_str() {
            "temperature" => sampling.temperature = value.extract()?,
            "top_k" => sampling.top_k = value.extract()?,
            "top_p" => sampling.top_p = value.extract()?,
            "min_p" => sampling.min_p = value.extract()?,
            "repeat_penalty" => sampling.repeat_penalty = value.extract()?,
            "repeat_last" => sampling.repeat_last = value.extract()?,
            "seed" => sampling.seed = value.extract()?,
            _ => return Err(pyo3::exceptions::PyTypeError::new_err(format!("no option is called '{key}'"))),
        }
    }
    sampling.check().map_err(failed)?;
    Ok(sampling)
}

#[pymethods]
impl LanguageModel {
    #[new]
    #[pyo3(signature = (path, *, target="cpu", context=None, sequences=1, threads=None, kv="f16", activations=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        target: &str,
        context: Option<usize>,
        sequences: usize,
        threads: Option<usize>,
        kv: &str,
        activations: Option<&str>,
    ) -> PyResult<LanguageModel> {
        let mut options = CompileOptions::new(Target::named(target).map_err(failed)?);
        options.activations = match activations {
            None => None,
            Some("f32") => Some(Activations::Float),
            Some("int16") => Some(Activations::Int16),
            Some("int8") => Some(Activations::Int8),
            Some(other) => return Err(failed(format!("activations '{other}': expected f32, int16 or int8"))),
        };
        let format = CacheFormat::from_value(&AttributeValue::Text(kv.to_owned()))
            .map_err(|_| failed(format!("kv '{kv}': expected f32, f16, i8 or i4")))?;
        options.caches.format = Some(format);
        if !options.target.is_native() {
            return Err(failed(format!("code for {target} does not run on this machine")));
        }
        let room = Room { context, sequences };
        let threads = threads.unwrap_or_else(all_threads);
        let generator = py.detach(|| {
            let loaded = match path.extension().is_some_and(|extension| extension == "tcc") {
                true => LoadedLanguageModel::open_bundle(&path)?,
                false => CompiledLanguageModel::new(&path, &options, context)?.load()?,
            };
            loaded.generator(room, threads)
        });
        Ok(LanguageModel { generator: Arc::new(Mutex::new(generator.map_err(failed)?)) })
    }

    /// Most tokens of a sequence.
    #[getter]
    fn context(&self, py: Python<'_>) -> usize {
        py.detach(|| locked(&self.generator).limits().context)
    }

    /// Tokens of a text.
    fn encode(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        py.detach(|| locked(&self.generator).tokenizer().encode(text)).map_err(failed)
    }

    /// Tokens of a conversation, `[{"role": "user", "content": "..."}]`, ready for the assistant's answer.
    fn encode_chat(&self, py: Python<'_>, messages: Vec<Bound<'_, PyDict>>) -> PyResult<Vec<u32>> {
        let mut conversation = Vec::with_capacity(messages.len());
        for message in &messages {
            let field = |name: &str| -> PyResult<String> {
                let value = message.get_item(name)?;
                value.ok_or_else(|| failed(format!("a message has no '{name}'")))?.extract()
            };
            conversation.push(Message::new(&field("role")?, field("content")?));
        }
        py.detach(|| locked(&self.generator).encode_chat(&conversation)).map_err(failed)
    }

    /// Text of tokens.
    fn decode(&self, py: Python<'_>, tokens: Vec<u32>) -> String {
        py.detach(|| locked(&self.generator).tokenizer().decode(&tokens))
    }

    /// True for a token that ends an answer.
    fn is_stop(&self, py: Python<'_>, token: u32) -> bool {
        py.detach(|| locked(&self.generator).tokenizer().is_stop(token))
    }

    /// An empty sequence.
    fn sequence(&self, py: Python<'_>) -> Sequence {
        let id = py.detach(|| locked(&self.generator).create());
        Sequence { generator: Arc::clone(&self.generator), id }
    }

    /// Goes on from prompts, each a text or tokens, all at once in one batch.
    ///
    /// `stop` are texts that end a continuation; `grammar` (Lark notation) or `json_schema` say what it must look like;
    /// `logprobs` keeps the log-probability of each token. Called with `on_text`, each new piece of text is handed to
    /// `on_text(index, text)` at once; a result of False ends that continuation. Other keywords choose tokens: temperature,
    /// top_k, top_p, min_p, repeat_penalty, repeat_last, seed.
    #[pyo3(signature = (prompts, *, max_tokens=128, stop=Vec::new(), grammar=None, json_schema=None, logprobs=false,
                        ignore_end=false, on_text=None, **options))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn complete(
        &self,
        py: Python<'_>,
        prompts: Vec<Prompt>,
        max_tokens: usize,
        stop: Vec<String>,
        grammar: Option<String>,
        json_schema: Option<String>,
        logprobs: bool,
        ignore_end: bool,
        on_text: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Completion>> {
        let sampling = sampling(options)?;
        let source = match (grammar, json_schema) {
            (Some(_), Some(_)) => return Err(failed("give a grammar or a json_schema, not both")),
            (Some(text), None) => Some(GrammarSource::Lark(text)),
            (None, Some(text)) => Some(GrammarSource::JsonSchema(text)),
            (None, None) => None,
        };
        let mut raised = None;
        let completions = py.detach(|| {
            let mut generator = locked(&self.generator);
            let grammar = source.map(|source| Grammar::new(&source, generator.tokenizer())).transpose()?;
            let grammar = grammar.map(Arc::new);
            let mut requests = Vec::with_capacity(prompts.len());
            for (index, prompt) in (0u64..).zip(prompts) {
                requests.push(Request {
                    prompt: match prompt {
                        Prompt::Text(text) => generator.tokenizer().encode(&text)?,
                        Prompt::Tokens(tokens) => tokens,
                    },
                    sampling: sampling.for_text(index),
                    max_tokens,
                    stops: stop.clone(),
                    grammar: grammar.clone(),
                    log_probabilities: logprobs.then_some(0),
                    ignore_end,
                    sequence: None,
                });
            }
            serve::complete(&mut generator, &requests, &mut |index, text| {
                let Some(on_text) = &on_text else { return ControlFlow::Continue(()) };
                match Python::attach(|py| heard(on_text.bind(py), index, text)) {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) => ControlFlow::Break(()),
                    Err(error) => {
                        raised.get_or_insert(error);
                        ControlFlow::Break(())
                    }
                }
            })
        });
        if let Some(error) = raised {
            return Err(error);
        }
        Ok(completions.map_err(failed)?.into_iter().map(Completion::from).collect())
    }
}

/// Hands a piece of text to Python; anything but False wants more.
fn heard(on_text: &Bound<'_, PyAny>, index: usize, text: &str) -> PyResult<bool> {
    on_text.py().check_signals()?;
    let answer = on_text.call1((index, text))?;
    Ok(answer.is_none() || answer.is_truthy()?)
}

/// A text, or its tokens.
#[derive(FromPyObject)]
pub enum Prompt {
    /// Text for the tokenizer.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
}

/// What became of a prompt.
#[pyclass(frozen, module = "tcc", get_all)]
pub struct Completion {
    /// The new text, up to a stop string.
    text: String,
    /// Its tokens, without one that ended the answer.
    tokens: Vec<u32>,
    /// Why it ended: end, stop, length, context or cancelled.
    finish: &'static str,
    /// Natural logarithm of the probability of each token, where asked for.
    logprobs: Vec<f32>,
}

impl From<serve::Completion> for Completion {
    fn from(completion: serve::Completion) -> Completion {
        let logprobs = completion.log_probabilities.iter().map(|line| line.log_probability).collect();
        Completion {
            text: completion.text,
            tokens: completion.tokens,
            finish: completion.finish.name(),
            logprobs,
        }
    }
}

#[pymethods]
impl Completion {
    fn __repr__(&self) -> String {
        format!("Completion(text={:?}, finish={:?})", self.text, self.finish)
    }
}

/// Tokens whose keys and values a model holds. Its memory is free again once nothing refers to it.
#[pyclass(frozen, module = "tcc")]
pub struct Sequence {
    generator: Arc<Mutex<Generator>>,
    id: SequenceId,
}

#[pymethods]
impl Sequence {
    /// The tokens.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        py.detach(|| locked(&self.generator).tokens(self.id).map(<[u32]>::to_vec)).map_err(failed)
    }

    /// Runs tokens behind those that are there.
    fn extend(&self, py: Python<'_>, tokens: Vec<u32>) -> PyResult<()> {
        py.detach(|| locked(&self.generator).extend(self.id, &tokens)).map_err(failed)
    }

    /// Logits behind the last token, as a float32 array over the vocabulary.
    fn logits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, numpy::PyArray1<f32>>> {
        let logits = py.detach(|| locked(&self.generator).logits(self.id).map(<[f32]>::to_vec));
        Ok(numpy::PyArray1::from_vec(py, logits.map_err(failed)?))
    }

    /// Chooses the next token, greedily unless keywords say otherwise (temperature, top_k, top_p, min_p, repeat_penalty,
    /// repeat_last, seed); `extend` appends it. The random number is that of the position, so that a seed repeats a text.
    #[pyo3(signature = (**options))]
    fn sample(&self, py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<u32> {
        let sampling = sampling(options)?;
        py.detach(|| {
            let generator = locked(&self.generator);
            let position = generator.tokens(self.id)?.len() as u64;
            generator.sample(self.id, &mut Sampler::new(&sampling.for_text(position))?)
        })
        .map_err(failed)
    }

    /// A sequence of the same tokens that goes its own way and shares memory with this one.
    fn fork(&self, py: Python<'_>) -> PyResult<Sequence> {
        let id = py.detach(|| locked(&self.generator).fork(self.id)).map_err(failed)?;
        Ok(Sequence { generator: Arc::clone(&self.generator), id })
    }

    /// Forgets all tokens but the first `length`.
    fn truncate(&self, py: Python<'_>, length: usize) -> PyResult<()> {
        py.detach(|| locked(&self.generator).truncate(self.id, length)).map_err(failed)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| locked(&self.generator).tokens(self.id).map(<[u32]>::len)).map_err(failed)
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        // It exists for as long as this object, which nobody else removes it by.
        let _ = locked(&self.generator).remove(self.id);
    }
}
