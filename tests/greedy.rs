//! Real language models against what llama.cpp generates greedily (`references/greedy.json`), on the reference interpreter and
//! compiled.
//!
//! The tokens that llama.cpp generated are run behind the prompt, which gives the logits of every step: by the interpreter as
//! one chunk, compiled as one chunk and then again token by token behind the prompt. llama.cpp rounds activations to 8 bits in
//! front of each product: steps of 1/127 of the largest of 32, an error of a step over the square root of 12 in the mean. Four
//! such roundings a layer add up as the root of their number; where the compiled model rounds as well there are twice as many.
//! So nine steps of ten must choose the same token, and every other one a token that leads by no more than that part of the
//! spread of the logits.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value as Json;
use tcc::generate::generator::{Wanted, Work};
use tcc::generate::model::{CompiledLanguageModel, Room};
use tcc::ir::cache::CacheFormat;
use tcc::passes::quantize::Activations;
use tcc::{CompileOptions, Target};
use tcc_frontend::language_model::{ImportOptions, LanguageModel};
use tcc_interpret::{Interpreter, State};
use tcc_ir::data::Data;
use tcc_ir::dim::Symbol;
use tcc_tests::cache;

const PAGE: usize = 16;

/// What executes a model.
#[derive(Clone, Copy, Debug)]
enum Run {
    Interpreter,
    Compiled(Activations),
}

fn main() -> ExitCode {
    let path = cache::tests_folder().join("references/greedy.json");
    let text = std::fs::read_to_string(path).expect("tests/references/greedy.json is there");
    let json: Json = serde_json::from_str(&text).expect("tests/references/greedy.json is JSON");
    let cases = json["cases"].as_array().cloned().unwrap_or_default();
    let trials = cases.into_iter().map(|case| {
        let model = case["model"].as_str().unwrap_or_default().to_owned();
        let absent = cache::file(&model).is_err();
        let name = format!("{model} {}", case["text"]);
        let trial = |run: Run| {
            let case = case.clone();
            Trial::test(format!("{run:?} {name}"), move || greedy(&case, run).map_err(Failed::from))
                .with_ignored_flag(absent)
        };
        [
            Run::Interpreter,
            Run::Compiled(Activations::Float),
            Run::Compiled(Activations::Int16),
            Run::Compiled(Activations::Int8),
        ]
        .map(trial)
    });
    let trials = trials.flatten();
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn numbers(json: &Json) -> Vec<i64> {
    json.as_array().into_iter().flatten().filter_map(Json::as_i64).collect()
}

fn greedy(case: &Json, run: Run) -> Result<(), String> {
    let path = cache::file(case["model"].as_str().unwrap_or_default())?;
    let (prompt, generated) = (numbers(&case["prompt"]), numbers(&case["generated"]));
    let tokens = [&prompt[..], &generated[..generated.len() - 1]].concat();
    let model = LanguageModel::open(&path).map_err(|error| error.to_string())?;
    let blur = (4.0 * model.decoder.layers.len() as f64 / 12.0).sqrt() / 127.0;
    match run {
        Run::Interpreter => compare(&interpreted(&model, &tokens, prompt.len())?, &generated, blur),
        Run::Compiled(activations) => {
            let blur = if activations == Activations::Int8 { blur * 2f64.sqrt() } else { blur };
            for rows in compiled(&path, &tokens, prompt.len(), activations)? {
                compare(&rows, &generated, blur)?;
            }
            Ok(())
        }
    }
}

/// The logits behind the prompt and every later token, from one chunk on the interpreter.
fn interpreted(model: &LanguageModel, tokens: &[i64], prompt: usize) -> Result<Vec<Vec<f64>>, String> {
    let options = ImportOptions { context: tokens.len(), page: PAGE, ..ImportOptions::default() };
    let module = model.import(&options).map_err(|error| error.to_string())?;
    let count = tokens.len() as i64;
    let pages = tokens.len().div_ceil(PAGE);
    let list = |values: Vec<i64>| Data::from_i64(&[values.len()], &values);
    let table: Vec<i64> = (0..pages as i64).collect();
    let inputs = [
        list(tokens.to_vec()),
        list((0..count).collect()),
        list((0..count).collect()),
        list(vec![0; count as usize]),
        Data::from_i64(&[1, pages], &table),
        list((prompt as i64 - 1..count).collect()),
    ];
    let inputs =
        inputs.into_iter().map(|input| Ok(input?.into())).collect::<Result<_, tcc_ir::data::DataError>>();
    let state = State::new([(Symbol::new("kv_slots"), (pages * PAGE) as i64)]);
    let results = Interpreter::new(&module)
        .with_state(&state)
        .run(inputs.map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let logits = results[0].as_tensor().map_err(|error| error.to_string())?;
    let numbers = logits.to_numbers().map_err(|error| error.to_string())?;
    Ok(numbers.chunks(logits.shape()[1]).map(<[f64]>::to_vec).collect())
}

/// The same from compiled entries: once from one chunk, once token by token behind the prompt.
fn compiled(
    path: &Path,
    tokens: &[i64],
    prompt: usize,
    activations: Activations,
) -> Result<[Vec<Vec<f64>>; 2], String> {
    let tokens: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
    let mut options = CompileOptions::new(Target::named("cpu").map_err(|error| error.to_string())?);
    options.activations = Some(activations);
    options.caches.format = Some(CacheFormat::F16);
    let model = CompiledLanguageModel::new(path, &options, Some(tokens.len())).and_then(|model| model.load());
    let room = Room { context: Some(tokens.len()), sequences: 2 };
    let mut generator =
        model.and_then(|model| model.generator(room, 2)).map_err(|error| error.to_string())?;
    let width = generator.limits().vocabulary;
    let mut run = |steps: &[&[u32]]| -> Result<Vec<Vec<f64>>, String> {
        let sequence = generator.create();
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for tokens in steps {
            let work = Work { sequence, tokens, wanted: Wanted::All };
            let logits = generator.advance(&[work]).map_err(|error| error.to_string())?;
            rows.extend(logits.chunks(width).map(|row| row.iter().map(|logit| f64::from(*logit)).collect()));
        }
        Ok(rows.split_off(prompt - 1))
    };
    let steps: Vec<&[u32]> = std::iter::once(&tokens[..prompt]).chain(tokens[prompt..].chunks(1)).collect();
    Ok([run(&[&tokens])?, run(&steps)?])
}

fn compare(rows: &[Vec<f64>], generated: &[i64], blur: f64) -> Result<(), String> {
    if rows.len() != generated.len() {
        return Err(format!("{} rows of logits for {} tokens", rows.len(), generated.len()));
    }
    let mut other = Vec::new();
    for (step, (row, expected)) in rows.iter().zip(generated).enumerate() {
        let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let worst = row.iter().copied().fold(f64::INFINITY, f64::min);
        let lead = best - row[*expected as usize];
        let chosen = row.iter().position(|logit| *logit == best);
        if lead > (best - worst) * blur {
            return Err(format!("step {step}: token {chosen:?} leads the expected {expected} by {lead}"));
        }
        if lead > 0.0 {
            other.push(step);
        }
    }
    if other.len() * 10 > generated.len() {
        return Err(format!("other tokens than expected in the steps {other:?}"));
    }
    Ok(())
}
