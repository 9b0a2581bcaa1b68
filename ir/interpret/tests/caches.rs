//! Key-value caches: appends, pages, windows and state between runs.

mod common;

use common::*;
use tcc_interpret::{Interpreter, State, Tensor, Value};
use tcc_ir::attribute::Real;
use tcc_ir::cache::{CacheFormat, CacheStorage};
use tcc_ir::dim::Symbol;
use tcc_ir::operator::Operator;

fn append(format: CacheFormat) -> Operator {
    Operator::KvAppend { storage: CacheStorage::plain(format) }
}

fn attend(window: usize, sinks: usize, page: usize) -> Operator {
    Operator::KvAttend {
        scale: Real::from(1.0),
        softcap: Real::from(0.0),
        window,
        sinks,
        page,
        split: 0,
        k_storage: CacheStorage::plain(CacheFormat::F32),
        v_storage: CacheStorage::plain(CacheFormat::F32),
    }
}

#[test]
fn appends_write_slots_and_leave_the_rest() {
    let cache = f(&[3, 1, 2], &[9.0; 6]);
    let x = f(&[3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let operator = append(CacheFormat::F32);
    let y = evaluated(&operator, &[&cache, &x, &i(&[3], &[2, -1, 0])]);
    assert_eq!(numbers(&y), [5.0, 6.0, 9.0, 9.0, 1.0, 2.0]);
    assert!(state_error(&operator, &[&cache, &x, &i(&[3], &[0, 1, 3])]).contains("extent 3"));
}

/// Appends have effects, so they run inside a function with a state.
fn run(operator: &Operator, operands: &[&Tensor]) -> Result<Tensor, tcc_interpret::Error> {
    let (cache, x) = (operands[0], operands[1]);
    let Operator::KvAppend { storage } = operator else { panic!("not an append") };
    let extent = |axis: usize| cache.shape()[axis];
    let (slots, heads, depth, n) = (extent(0), extent(1), extent(2), x.shape()[0]);
    // Reads the cache back with one query that sees one position: the value itself.
    let text = format!(
        "module {{ \"tir.func\"() ({{ ^bb0(%0: tensor<{slots}x{heads}x{depth}xf32>, %1: tensor<{slots}xi64>, \
         %2: tensor<{n}x{heads}x{depth}xf32>, %3: tensor<{n}xi64>, %4: tensor<{slots}x1xi64>, %5: tensor<{slots}xi64>):\n\
         %6 = \"tir.kv_state\"() {{name = \"c\", shape = [{slots}, {heads}, {depth}], storage = \"{storage}\"}} : () -> tensor<{slots}x{heads}x{depth}xf32>\n\
         %7 = \"tir.kv_append\"(%6, %0, %1) {{storage = \"{storage}\"}} : (tensor<{slots}x{heads}x{depth}xf32>, tensor<{slots}x{heads}x{depth}xf32>, tensor<{slots}xi64>) -> tensor<{slots}x{heads}x{depth}xf32>\n\
         %8 = \"tir.kv_append\"(%7, %2, %3) {{storage = \"{storage}\"}} : (tensor<{slots}x{heads}x{depth}xf32>, tensor<{n}x{heads}x{depth}xf32>, tensor<{n}xi64>) -> tensor<{slots}x{heads}x{depth}xf32>\n\
         %9 = \"tir.kv_attend\"(%0, %8, %8, %4, %1, %5) {{scale = 1.0, softcap = 0.0, window = 0, sinks = 0, page = 1, split = 0, \
         k_storage = \"{storage}\", v_storage = \"{storage}\"}} : (tensor<{slots}x{heads}x{depth}xf32>, tensor<{slots}x{heads}x{depth}xf32>, \
         tensor<{slots}x{heads}x{depth}xf32>, tensor<{slots}x1xi64>, tensor<{slots}xi64>, tensor<{slots}xi64>) -> tensor<{slots}x{heads}x{depth}xf32>\n\
         \"tir.return\"(%9) : (tensor<{slots}x{heads}x{depth}xf32>) -> () }}) {{sym_name = \"main\", \
         input_names = [\"old\", \"all\", \"x\", \"slots\", \"table\", \"zeros\"], output_names = [\"y\"]}} : () -> () }}"
    );
    let module = tcc_ir::parse::module(&text).unwrap_or_else(|error| panic!("{error}"));
    tcc_ir::verify::verify(&module).unwrap_or_else(|error| panic!("{error}"));
    let all: Vec<i64> = (0..slots as i64).collect();
    let inputs = [
        cache.clone(),
        i(&[slots], &all),
        x.clone(),
        operands[2].clone(),
        i(&[slots, 1], &all),
        i(&[slots], &vec![0; slots]),
    ];
    let mut results = Interpreter::new(&module).run(inputs.into_iter().map(Value::Tensor).collect())?;
    Ok(results.swap_remove(0).as_tensor()?.clone())
}

#[track_caller]
fn evaluated(operator: &Operator, operands: &[&Tensor]) -> Tensor {
    run(operator, operands).unwrap_or_else(|error| panic!("{error}"))
}

fn state_error(operator: &Operator, operands: &[&Tensor]) -> String {
    run(operator, operands).expect_err("the run should fail").to_string()
}

#[test]
fn formats_round() {
    let mut row = vec![0.0; 32];
    (row[0], row[1], row[2]) = (12.7, -6.36, 0.04);
    let cache = f(&[1, 1, 32], &[0.0; 32]);
    let values = |format| {
        let x = f(&[1, 1, 32], &row);
        numbers(&evaluated(&append(format), &[&cache, &x, &i(&[1], &[0])]))
    };
    assert_eq!(values(CacheFormat::F32)[..3], [12.7f32, -6.36, 0.04].map(f64::from));
    assert_eq!(values(CacheFormat::F16)[0], f64::from(half::f16::from_f32(12.7).to_f32()));
    let scale = f64::from(half::f16::from_f32(0.1).to_f32());
    assert_close(&values(CacheFormat::I8)[..3], &[127.0 * scale, -64.0 * scale, 0.0], 1e-5);
    let scale = f64::from(half::f16::from_f32(12.7 / 7.0).to_f32());
    assert_close(&values(CacheFormat::I4)[..3], &[7.0 * scale, -4.0 * scale, 0.0], 1e-5);
    let zeros = f(&[1, 1, 32], &[0.0; 32]);
    assert_eq!(numbers(&evaluated(&append(CacheFormat::I8), &[&cache, &zeros, &i(&[1], &[0])])), [0.0; 32]);
}

#[test]
fn tokens_see_their_pages_up_to_their_position() {
    // Slot s holds the value s; keys are 0, so every position that is seen counts the same.
    let v = counting(&[8, 1, 1]);
    let k = f(&[8, 1, 1], &[0.0; 8]);
    let q = f(&[4, 2, 1], &[0.0; 8]);
    let table = i(&[2, 2], &[3, 0, 1, 2]);
    let (rows, positions) = (i(&[4], &[0, 0, 1, 1]), i(&[4], &[0, 2, 3, -1]));
    let run =
        |window, sinks| numbers(&eval(&attend(window, sinks, 2), &[&q, &k, &v, &table, &rows, &positions]));
    // Row 0 has slots 6 7 0 1, row 1 has 2 3 4 5.
    assert_close(&run(0, 0), &[6.0, 6.0, 13.0 / 3.0, 13.0 / 3.0, 3.5, 3.5, 0.0, 0.0], 1e-6);
    assert_close(&run(1, 0), &[6.0, 6.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0], 1e-6);
    assert_close(&run(1, 1), &[6.0, 6.0, 3.0, 3.0, 3.5, 3.5, 0.0, 0.0], 1e-6);
    let outside = i(&[4], &[0, 0, 1, 4]);
    assert!(eval_all(&attend(0, 0, 2), &[&q, &k, &v, &table, &rows, &outside]).is_err());
}

#[test]
fn query_heads_share_cache_heads() {
    let k = f(&[1, 2, 1], &[0.0; 2]);
    let v = f(&[1, 2, 1], &[1.0, 2.0]);
    let zero = i(&[1], &[0]);
    let operands = [&f(&[1, 4, 1], &[0.0; 4]), &k, &v, &i(&[1, 1], &[0]), &zero, &zero];
    assert_eq!(numbers(&eval(&attend(0, 0, 1), &operands)), [1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn state_stays_from_run_to_run() {
    let text = "module { \"tir.func\"() ({ ^bb0(%0: tensor<1x1x1xf32>, %1: tensor<1xi64>, %2: tensor<1x4xi64>, %3: tensor<1xi64>):\n\
        %4 = \"tir.kv_state\"() {name = \"v\", shape = [\"kv_slots\", 1, 1], storage = \"f32 rows 1\"} : () -> tensor<?x1x1xf32, \"kv_slots; 1; 1\">\n\
        %5 = \"tir.kv_append\"(%4, %0, %1) {storage = \"f32 rows 1\"} : (tensor<?x1x1xf32, \"kv_slots; 1; 1\">, tensor<1x1x1xf32>, tensor<1xi64>) -> tensor<?x1x1xf32, \"kv_slots; 1; 1\">\n\
        %6 = \"tir.kv_attend\"(%0, %5, %5, %2, %3, %1) {scale = 0.0, softcap = 0.0, window = 0, sinks = 0, page = 1, split = 0, \
        k_storage = \"f32 rows 1\", v_storage = \"f32 rows 1\"} : (tensor<1x1x1xf32>, tensor<?x1x1xf32, \"kv_slots; 1; 1\">, \
        tensor<?x1x1xf32, \"kv_slots; 1; 1\">, tensor<1x4xi64>, tensor<1xi64>, tensor<1xi64>) -> tensor<1x1x1xf32>\n\
        \"tir.return\"(%6) : (tensor<1x1x1xf32>) -> () }) {sym_name = \"main\", input_names = [\"x\", \"slots\", \"table\", \"rows\"], \
        output_names = [\"y\"], symbols = [[\"kv_slots\", 1, 64]]} : () -> () }";
    let module = tcc_ir::parse::module(text).unwrap_or_else(|error| panic!("{error}"));
    tcc_ir::verify::verify(&module).unwrap();
    let state = State::new([(Symbol::new("kv_slots"), 4)]);
    let run = |value: f64, slot: i64| {
        let inputs = [f(&[1, 1, 1], &[value]), i(&[1], &[slot]), i(&[1, 4], &[0, 1, 2, 3]), i(&[1], &[0])];
        let interpreter = Interpreter::new(&module).with_state(&state);
        let results = interpreter.run(inputs.into_iter().map(Value::Tensor).collect());
        results.map(|results| numbers(results[0].as_tensor().unwrap())[0])
    };
    assert_eq!(run(4.0, 0), Ok(4.0));
    assert_eq!(run(8.0, 1), Ok(6.0));
    assert!(run(8.0, 4).is_err());
    assert_eq!(run(0.0, 2), Ok(4.0));
    let without = Interpreter::new(&module).run(Vec::new());
    assert!(without.is_err());
}
