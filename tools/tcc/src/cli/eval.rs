//! `tcc eval`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tcc::Error;
use tcc::generate::evaluate::{Windows, perplexity};
use tcc::generate::model::Room;

use super::Outcome;
use super::language::{LanguageArguments, emit, read_text};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    language: LanguageArguments,
    /// The text; `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window.
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// By how many tokens windows advance; half a window by default.
    #[arg(long)]
    stride: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let text = read_text(&arguments.text)?;
    let model = arguments.language.load()?.model;
    let name = model.facts.name.clone();
    let context = arguments.language.context.unwrap_or(arguments.window).min(model.facts.context);
    let room = Room { context: Some(context), sequences: 1 };
    let mut generator = model.generator(room, arguments.language.threads())?;
    let windows =
        Windows { window: arguments.window, stride: arguments.stride.unwrap_or(arguments.window / 2).max(1) };
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    let start = Instant::now();
    let result = perplexity(&mut generator, &text, windows, &mut |so_far| {
        spinner.set_message(format!("{} tokens, perplexity {:.4}", so_far.tokens, so_far.perplexity));
    });
    spinner.finish_and_clear();
    let result = result.map_err(Error::from)?;
    let seconds = start.elapsed().as_secs_f64();
    let line = if arguments.json {
        json!({
            "model": name, "perplexity": result.perplexity, "mean_nll": result.mean, "deviation": result.deviation,
            "tokens": result.tokens, "window": windows.window, "stride": windows.stride, "seconds": seconds,
        })
        .to_string()
    } else {
        // A deviation d of the mean is a factor of exp(d) on the perplexity.
        format!(
            "{name}: perplexity {:.4} +- {:.4} over {} tokens in windows of {} every {}, {seconds:.1} s",
            result.perplexity,
            result.perplexity * result.deviation,
            result.tokens,
            windows.window,
            windows.stride
        )
    };
    emit(&format!("{line}\n"))?;
    Ok(())
}
