//! Every family against a NumPy forward pass written from its definition, on the reference interpreter.

mod tiny;

use std::collections::HashSet;

use tcc_frontend::gguf::Gguf;
use tcc_frontend::language_model::{ImportOptions, LanguageModel, family};
use tcc_interpret::{Interpreter, State};
use tcc_ir::data::Data;
use tcc_ir::dim::Symbol;
use tcc_ir::module::Module;
use tiny::Case;

/// Slots of a page in these tests.
const PAGE: usize = 4;
/// Pages of a sequence, in an order that is not that of the caches.
const TABLE: [i64; 4] = [2, 0, 3, 1];

/// Runs tokens `first..` of a sequence; logits of all of them.
fn run(module: &Module, state: &State, tokens: &[i64], first: usize) -> Vec<Vec<f64>> {
    let list = |values: Vec<i64>| Data::from_i64(&[values.len()], &values).unwrap().into();
    let positions: Vec<i64> = (first..first + tokens.len()).map(|position| position as i64).collect();
    let slot = |position: &i64| TABLE[*position as usize / PAGE] * PAGE as i64 + position % PAGE as i64;
    let inputs = vec![
        list(tokens.to_vec()),
        list(positions.clone()),
        list(positions.iter().map(slot).collect()),
        list(vec![0; tokens.len()]),
        Data::from_i64(&[1, TABLE.len()], &TABLE).unwrap().into(),
        list((0..tokens.len() as i64).collect()),
    ];
    let results = Interpreter::new(module).with_state(state).run(inputs).unwrap();
    let logits = results[0].as_tensor().unwrap();
    let width = logits.shape()[1];
    logits.to_numbers().unwrap().chunks(width).map(<[f64]>::to_vec).collect()
}

fn state() -> State {
    State::new([(Symbol::new("kv_slots"), (TABLE.len() * PAGE) as i64)])
}

/// The interpreter computes each operator in `f64` and rounds its result to `f32`, a relative error of 2^-24. A layer has
/// some 24 roundings, each of which the rest of the network may amplify; for these weights (gain of a matrix about 1.2,
/// soft maxima of scores below 10) by less than 16. Six layers give 6 * 24 * 16 * 2^-24 of the largest logit.
fn tolerance(expected: &[Vec<f64>], layers: usize) -> f64 {
    let largest = expected.iter().flatten().fold(0.0f64, |largest, value| largest.max(value.abs()));
    (layers * 24 * 16) as f64 * 2f64.powi(-24) * largest
}

fn compare(what: &str, found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{what}: off by {worst:e}, tolerance {tolerance:e}");
}

fn import(model: &LanguageModel, context: usize) -> Module {
    let options = ImportOptions { context, page: PAGE, ..ImportOptions::default() };
    let module = model.import(&options).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    module
}

/// The prompt as one chunk, in two chunks, and token by token.
fn check(what: &str, case: &Case, model: &LanguageModel) {
    let module = import(model, case.context());
    let (tokens, expected) = (case.tokens(), case.logits());
    let tolerance = tolerance(&expected, model.decoder.layers.len());
    compare(&format!("{what}, one chunk"), &run(&module, &state(), &tokens, 0), &expected, tolerance);
    for size in [5, 1] {
        let caches = state();
        let chunks = tokens.chunks(size).enumerate();
        let found: Vec<Vec<f64>> =
            chunks.flat_map(|(index, chunk)| run(&module, &caches, chunk, index * size)).collect();
        compare(&format!("{what}, chunks of {size}"), &found, &expected, tolerance);
    }
}

fn open_folder(case: &Case) -> LanguageModel {
    let folder = tempfile::tempdir().unwrap();
    case.write_folder(folder.path());
    LanguageModel::open(folder.path()).unwrap()
}

#[test]
fn folders_give_the_logits_of_the_definition() {
    for name in Case::names() {
        let case = Case::read(&name);
        check(&name, &case, &open_folder(&case));
    }
}

#[test]
fn gguf_files_give_the_logits_of_the_definition() {
    for name in Case::names() {
        let case = Case::read(&name);
        let Some(bytes) = case.gguf() else { continue };
        let model = LanguageModel::from_gguf(&Gguf::parse(bytes.into()).unwrap()).unwrap();
        check(&format!("{name} as GGUF"), &case, &model);
    }
}

#[test]
fn every_family_has_a_case_of_each_kind() {
    let mut types: HashSet<String> = HashSet::new();
    let mut architectures: HashSet<String> = HashSet::new();
    for name in Case::names() {
        let case = Case::read(&name);
        types.insert(case.json["config"]["model_type"].as_str().unwrap().to_owned());
        if let Some(gguf) = case.json.get("gguf") {
            architectures.insert(gguf["architecture"].as_str().unwrap().to_owned());
        }
    }
    for family in family::FAMILIES {
        assert!(family.model_types.iter().any(|name| types.contains(*name)), "{}", family.name);
        let reached = family.architectures.iter().all(|name| architectures.contains(*name));
        assert!(reached, "{} as GGUF", family.name);
    }
}

#[test]
fn only_wanted_rows_go_through_the_head() {
    let case = Case::read("llama");
    let module = import(&open_folder(&case), 64);
    let tokens = case.tokens();
    let count = tokens.len() as i64;
    let list = |values: Vec<i64>| Data::from_i64(&[values.len()], &values).unwrap().into();
    let inputs = |outputs: Vec<i64>| {
        vec![
            list(tokens.clone()),
            list((0..count).collect()),
            list((0..count).collect()),
            list(vec![0; tokens.len()]),
            Data::from_i64(&[1, 4], &[0, 1, 2, 3]).unwrap().into(),
            list(outputs),
        ]
    };
    let expected = case.logits();
    let caches = state();
    let interpreter = Interpreter::new(&module).with_state(&caches);
    let results = interpreter.run(inputs(vec![count - 1, 2])).unwrap();
    let found = results[0].as_tensor().unwrap().to_numbers().unwrap();
    let wanted = [expected[tokens.len() - 1].clone(), expected[2].clone()];
    compare("two rows", &[found[..24].to_vec(), found[24..].to_vec()], &wanted, tolerance(&expected, 2));
    let results = interpreter.run(inputs(Vec::new())).unwrap();
    assert_eq!(results[0].as_tensor().unwrap().shape(), [0, 24]);
}

#[test]
fn sequences_share_a_run() {
    let case = Case::read("mistral");
    let module = import(&open_folder(&case), 64);
    let (tokens, expected) = (case.tokens(), case.logits());
    // Two sequences with the same tokens, one a token ahead of the other, pages interleaved.
    let table = [[0i64, 2, 4, 6], [1, 3, 5, 7]];
    let slot = |row: usize, position: i64| {
        table[row][position as usize / PAGE] * PAGE as i64 + position % PAGE as i64
    };
    let caches = State::new([(Symbol::new("kv_slots"), 32)]);
    let list = |values: Vec<i64>| Data::from_i64(&[values.len()], &values).unwrap().into();
    for step in 0..tokens.len() as i64 - 1 {
        let first = if step == 0 { vec![0, 1] } else { vec![step + 1] };
        let pairs: Vec<(usize, i64)> =
            first.iter().map(|position| (0, *position)).chain([(1, step)]).collect();
        let inputs = vec![
            list(pairs.iter().map(|(_, position)| tokens[*position as usize]).collect()),
            list(pairs.iter().map(|(_, position)| *position).collect()),
            list(pairs.iter().map(|(row, position)| slot(*row, *position)).collect()),
            list(pairs.iter().map(|(row, _)| *row as i64).collect()),
            Data::from_i64(&[2, 4], &table.concat()).unwrap().into(),
            list((0..pairs.len() as i64).collect()),
        ];
        let results = Interpreter::new(&module).with_state(&caches).run(inputs).unwrap();
        let found = results[0].as_tensor().unwrap().to_numbers().unwrap();
        let found: Vec<Vec<f64>> = found.chunks(24).map(<[f64]>::to_vec).collect();
        let wanted: Vec<Vec<f64>> =
            pairs.iter().map(|(_, position)| expected[*position as usize].clone()).collect();
        compare(&format!("step {step}"), &found, &wanted, tolerance(&expected, 2));
    }
}
