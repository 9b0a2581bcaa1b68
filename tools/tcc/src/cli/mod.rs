//! The command line: one file a command.
//!
//! Exit status: 0 done, 1 the model or input is at fault, 2 wrong usage, 3 a bug of ours.

mod bench;
mod bench_language;
mod chat;
mod check;
mod common;
mod compile;
mod design;
mod eval;
mod generate;
mod inspect;
mod language;
mod opt;
mod run;
mod targets;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tcc::Error;

#[derive(Parser)]
#[command(
    name = "tcc",
    version,
    about = "A tensor compiler: trained models in, kernels for named hardware out"
)]
struct Arguments {
    /// Log passes with their times; twice: more of each, three times: every rewrite.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a model to an artifact.
    Compile(compile::Arguments),
    /// Run a model or an artifact on inputs.
    Run(run::Arguments),
    /// Measure a model or an artifact.
    Bench(bench::Arguments),
    /// List every unsupported node of a model.
    Check(check::Arguments),
    /// Compare compiled results with the reference interpreter.
    Verify(verify::Arguments),
    /// Continue texts with a language model.
    Generate(Box<generate::Arguments>),
    /// Talk to a language model.
    Chat(Box<chat::Arguments>),
    /// Perplexity of a language model on a text.
    Eval(eval::Arguments),
    /// Show graph, fused kernels, memory plan and cost.
    Inspect(inspect::Arguments),
    /// List targets and their machine models.
    Targets(targets::Arguments),
    /// Run passes on a .tir file, for tests and contributors.
    Opt(opt::Arguments),
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target().starts_with("tcc")
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            eprintln!("{}", record.args());
        }
    }

    fn flush(&self) {}
}

static LOGGER: Logger = Logger;

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => log::LevelFilter::Off,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
    let result = match arguments.command {
        Command::Compile(arguments) => compile::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Chat(arguments) => chat::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Targets(arguments) => targets::run(&arguments),
        Command::Opt(arguments) => opt::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(2)
        }
        Err(Failure::Tcc(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_bug() { 3 } else { 1 })
        }
    }
}

/// Why a command ends without success.
enum Failure {
    /// The arguments do not go together.
    Usage(String),
    /// Anything else.
    Tcc(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Tcc(error.into())
    }
}

type Outcome = Result<(), Failure>;
