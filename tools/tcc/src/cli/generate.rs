//! `tcc generate`.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tcc::Error;
use tcc::generate::model::{LoadedLanguageModel, Room};
use tcc::generate::serve::{Completion, Request, complete};
use tcc::generate::{Generator, Message, Tokenizer};

use super::language::{LanguageArguments, SamplingArguments, emit, read_text};
use super::{Failure, Outcome};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    language: LanguageArguments,
    /// A text to go on from; several make a batch. Without one the standard input is the prompt.
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file with a text to go on from; `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    prompt_file: Vec<PathBuf>,
    /// Prompts are messages to the assistant: put the model's chat template around them.
    #[arg(long)]
    chat: bool,
    /// Another chat template, for --chat.
    #[arg(long, value_name = "FILE", requires = "chat")]
    template: Option<PathBuf>,
    /// Most tokens of a continuation.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Show the log-probability of every token, and the N most likely ones.
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// Go on after tokens that end a text.
    #[arg(long)]
    ignore_end: bool,
    /// Print one JSON object for each prompt, on a line of its own.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let sampling = arguments.sampling.sampling()?;
    let prompts = prompts(arguments)?;
    let loaded = arguments.language.load()?;
    let mut model = loaded.model;
    if let Some(path) = &arguments.template {
        model.set_template(&read_text(path)?).map_err(Error::from)?;
    }
    let grammar = arguments.sampling.grammar(model.tokenizer())?;
    let mut requests = Vec::with_capacity(prompts.len());
    for (index, prompt) in (0u64..).zip(&prompts) {
        let tokens = match arguments.chat {
            true => model.encode_chat(&[Message::new("user", prompt)]),
            false => model.tokenizer().encode(prompt),
        };
        requests.push(Request {
            prompt: tokens.map_err(Error::from)?,
            sampling: sampling.for_text(index),
            max_tokens: arguments.max_tokens,
            stops: arguments.sampling.stop.clone(),
            grammar: grammar.clone(),
            log_probabilities: arguments.logprobs,
            ignore_end: arguments.ignore_end,
            sequence: None,
        });
    }
    let room = room(&model, &requests, arguments.language.context);
    let cache_bytes = model.cache_bytes_per_token()?;
    let mut generator = model.generator(room, arguments.language.threads())?;
    let start = Instant::now();
    let completions = write_all(&mut generator, &requests, arguments.json)?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(completions) = completions {
        show(arguments, generator.tokenizer(), &requests, &completions)?;
        let made: usize = completions.iter().map(|completion| completion.tokens.len()).sum();
        let read: usize = requests.iter().map(|request| request.prompt.len()).sum();
        eprintln!(
            "{read} tokens read and {made} written in {seconds:.2} s ({:.1} tokens/s), loaded in {:.0} ms, KV cache {cache_bytes} \
             bytes per token",
            (read + made) as f64 / seconds,
            loaded.load_ms
        );
    }
    Ok(())
}

/// The prompts, each with at least one character.
fn prompts(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let mut prompts = arguments.prompt.clone();
    for path in &arguments.prompt_file {
        prompts.push(read_text(path)?);
    }
    if arguments.prompt.is_empty() && arguments.prompt_file.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(Failure::Usage(
                "give a --prompt, a --prompt-file, or a prompt on the standard input".into(),
            ));
        }
        prompts.push(read_text(Path::new("-"))?);
    }
    Ok(prompts)
}

/// Room for as many texts at once as there are, each as long as it may become.
fn room(model: &LoadedLanguageModel, requests: &[Request], context: Option<usize>) -> Room {
    let longest =
        requests.iter().map(|request| request.prompt.len().saturating_add(request.max_tokens.max(1))).max();
    let needed = longest.unwrap_or(1).clamp(1, model.facts.context);
    Room { context: context.or(Some(needed)), sequences: requests.len() }
}

/// Generates, and streams where there is one text only. `None` where nobody reads it any more.
fn write_all(
    generator: &mut Generator,
    requests: &[Request],
    quiet: bool,
) -> Result<Option<Vec<Completion>>, Failure> {
    let streams = requests.len() == 1 && !quiet;
    let mut failure = None;
    let completions = complete(generator, requests, &mut |_, text| {
        if !streams {
            return ControlFlow::Continue(());
        }
        match emit(text) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })
    .map_err(Error::from)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if streams && !emit("\n")? {
        return Ok(None);
    }
    Ok(Some(completions))
}

/// Prints what was not streamed.
fn show(
    arguments: &Arguments,
    tokenizer: &Tokenizer,
    requests: &[Request],
    completions: &[Completion],
) -> Outcome {
    for (index, (request, completion)) in requests.iter().zip(completions).enumerate() {
        let text = if arguments.json {
            format!("{}\n", as_json(tokenizer, request, completion))
        } else if requests.len() > 1 {
            format!("--- {}\n{}\n", index + 1, completion.text)
        } else {
            String::new()
        };
        if !emit(&text)? {
            return Ok(());
        }
        if !arguments.json {
            for line in &completion.log_probabilities {
                let piece = |token| format!("{:?}", piece(tokenizer, token));
                let top: Vec<String> =
                    line.top.iter().map(|(token, value)| format!("{} {value:.4}", piece(*token))).collect();
                eprintln!("{:9.4} {}  [{}]", line.log_probability, piece(line.token), top.join(", "));
            }
        }
    }
    Ok(())
}

fn piece(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(tokenizer.piece(token).unwrap_or_default()).into_owned()
}

fn as_json(tokenizer: &Tokenizer, request: &Request, completion: &Completion) -> serde_json::Value {
    let mut object = json!({
        "text": completion.text,
        "tokens": completion.tokens,
        "finish": completion.finish.name(),
        "prompt_tokens": request.prompt.len(),
        "generated_tokens": completion.tokens.len(),
    });
    if request.log_probabilities.is_some() {
        let one = |token: u32, value: f32| json!({"token": token, "text": piece(tokenizer, token), "logprob": value});
        let lines: Vec<serde_json::Value> = completion
            .log_probabilities
            .iter()
            .map(|line| {
                let mut entry = one(line.token, line.log_probability);
                entry["top"] = line.top.iter().map(|(token, value)| one(*token, *value)).collect();
                entry
            })
            .collect();
        object["logprobs"] = lines.into();
    }
    object
}
