//! `tcc bench` on a language model.

use clap::Args;
use serde::Serialize;
use tcc::Error;
use tcc::generate::measure::{Workload, measure};
use tcc::generate::model::Room;

use super::bench::peak_resident_bytes;
use super::language::{LanguageArguments, emit};
use super::{Failure, Outcome};

/// How much a language model reads and writes.
#[derive(Args, Clone)]
pub struct WorkloadArguments {
    /// Tokens of the prompt, for a language model.
    #[arg(long, default_value_t = 256)]
    prompt_tokens: usize,
    /// Tokens that are generated behind it, for a language model.
    #[arg(long, default_value_t = 64)]
    generate_tokens: usize,
    /// Show the time of each kernel, for a language model.
    #[arg(long)]
    kernels: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: String,
    target: String,
    threads: usize,
    runs: usize,
    prompt_tokens: usize,
    generated_tokens: usize,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    first_token_ms: f64,
    /// Share of the time of decoding outside of the model.
    around_model: f64,
    kv_bytes_per_token: u64,
    kv_bytes: u64,
    weights_bytes: u64,
    compile_ms: Option<f64>,
    load_ms: f64,
    peak_rss_bytes: u64,
}

/// Measures a language model; `runs` times, after one to warm up.
pub fn run(language: &LanguageArguments, workload: &WorkloadArguments, runs: usize, json: bool) -> Outcome {
    let (prompt, generate) = (workload.prompt_tokens, workload.generate_tokens);
    if prompt == 0 || generate < 2 {
        let reason =
            "--prompt-tokens: at least 1; --generate-tokens: at least 2, as the first comes from the prompt";
        return Err(Failure::Usage(reason.into()));
    }
    let loaded = language.load()?;
    let model = loaded.model;
    let name = model.facts.name.clone();
    let (weights_bytes, kv_bytes_per_token) = (model.weights_bytes(), model.cache_bytes_per_token()?);
    let room = Room { context: Some(language.context.unwrap_or(prompt + generate)), sequences: 1 };
    let mut generator = model.generator(room, language.threads())?;
    let work = Workload { prompt, generate, runs };
    let speed = measure(&mut generator, work).map_err(Error::from)?;
    let decode_seconds = speed.decode.as_secs_f64();
    let report = Report {
        model: name,
        target: language.compile.target.clone(),
        threads: language.threads(),
        runs,
        prompt_tokens: prompt,
        generated_tokens: generate,
        prefill_tokens_per_s: prompt as f64 / speed.prefill.as_secs_f64(),
        decode_tokens_per_s: (generate - 1) as f64 / decode_seconds,
        first_token_ms: speed.first_token.as_secs_f64() * 1e3,
        around_model: speed.around.as_secs_f64() / decode_seconds,
        kv_bytes_per_token,
        kv_bytes: generator.step().cache_bytes(),
        weights_bytes,
        compile_ms: loaded.compile_ms,
        load_ms: loaded.load_ms,
        peak_rss_bytes: peak_resident_bytes(),
    };
    let text = if json {
        serde_json::to_string(&report).map_err(|error| Error::Codegen(error.to_string()))?
    } else {
        format!(
            "{}: prefill {:.1} tokens/s over {prompt}, decode {:.1} tokens/s over {generate}, first token after {:.1} ms on {} \
             threads; weights {:.1} MiB, KV cache {} bytes per token, {:.1} % of decoding outside the model",
            report.model,
            report.prefill_tokens_per_s,
            report.decode_tokens_per_s,
            report.first_token_ms,
            report.threads,
            report.weights_bytes as f64 / (1 << 20) as f64,
            report.kv_bytes_per_token,
            report.around_model * 100.0
        )
    };
    emit(&format!("{text}\n"))?;
    if workload.kernels {
        generator.step_mut().measure_kernels(true);
        measure(&mut generator, Workload { runs: 1, ..work }).map_err(Error::from)?;
        for time in generator.step().kernel_times() {
            let milliseconds = time.total.as_secs_f64() * 1e3;
            eprintln!("{:8} {milliseconds:10.3} ms {:7} calls  {}", time.entry, time.calls, time.kernel);
        }
    }
    Ok(())
}
