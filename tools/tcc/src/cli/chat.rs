//! `tcc chat`.

use std::io::{BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use tcc::Error;
use tcc::generate::model::Room;
use tcc::generate::serve::{Finish, Request, complete};
use tcc::generate::{GenerateError, Message};

use super::language::{LanguageArguments, SamplingArguments, emit, read_text};
use super::{Failure, Outcome};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    language: LanguageArguments,
    /// What the assistant is told first.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Another chat template than the model's.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 1024)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArguments,
}

const COMMANDS: &str = "/reset begins anew, /system TEXT begins anew with another instruction, /quit ends";

pub fn run(arguments: &Arguments) -> Outcome {
    let sampling = arguments.sampling.sampling()?;
    let mut model = arguments.language.load()?.model;
    if let Some(path) = &arguments.template {
        model.set_template(&read_text(path)?).map_err(Error::from)?;
    }
    // A model that cannot chat says so before anyone types.
    model.encode_chat(&[Message::new("user", "Hello")]).map_err(Error::from)?;
    let grammar = arguments.sampling.grammar(model.tokenizer())?;
    let room = Room { context: arguments.language.context, sequences: 1 };
    let mut generator = model.generator(room, arguments.language.threads())?;
    let sequence = generator.create();
    let mut system = arguments.system.clone();
    let begin = |system: &Option<String>| -> Vec<Message> {
        system.iter().map(|text| Message::new("system", text)).collect()
    };
    let mut messages = begin(&system);
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("{COMMANDS}");
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if terminal && !emit("> ")? {
            return Ok(());
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|source| Error::Io { path: "standard input".into(), source })?;
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("", _) => continue,
            ("/quit", _) => return Ok(()),
            ("/reset", _) => {
                messages = begin(&system);
                continue;
            }
            ("/system", text) => {
                system = Some(text.trim().to_string()).filter(|text| !text.is_empty());
                messages = begin(&system);
                continue;
            }
            (command, _) if command.starts_with('/') => {
                eprintln!("unknown command {command}; {COMMANDS}");
                continue;
            }
            _ => messages.push(Message::new("user", line)),
        }
        let request = Request {
            prompt: generator.encode_chat(&messages).map_err(Error::from)?,
            sampling: sampling.clone(),
            max_tokens: arguments.max_tokens,
            stops: arguments.sampling.stop.clone(),
            grammar: grammar.clone(),
            sequence: Some(sequence),
            ..Request::default()
        };
        let mut failure: Option<Failure> = None;
        let answered = complete(&mut generator, &[request], &mut |_, text| match emit(text) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match answered {
            Ok(completions) => {
                let Some(completion) = completions.into_iter().next() else { continue };
                if completion.finish == Finish::Cancelled || !emit("\n")? {
                    return Ok(());
                }
                messages.push(Message::new("assistant", completion.text));
                if completion.finish == Finish::Context {
                    eprintln!("the context is full; /reset begins anew");
                }
            }
            Err(error @ GenerateError::PromptTooLong { .. }) if terminal => {
                eprintln!("{error}; /reset begins anew");
                messages.pop();
            }
            Err(error) => return Err(Error::from(error).into()),
        }
    }
}
