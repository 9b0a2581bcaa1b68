//! Whole modules: symbols, control flow, calls, limits, errors.

mod common;

use common::*;
use tcc_interpret::{Error, Interpreter, Tensor, Value};
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::{parse, verify};

#[track_caller]
fn module(text: &str) -> Module {
    let module = parse::module(text).unwrap_or_else(|error| panic!("{error}"));
    verify::verify(&module).unwrap_or_else(|error| panic!("{error}"));
    module
}

/// A function over symbols `n` in 1..=8 and `m`.
fn function(name: &str, inputs: &str, body: &str, input_names: &str, output_names: &str) -> String {
    format!(
        "\"tir.func\"() ({{ ^bb0({inputs}):\n{body} }}) {{sym_name = \"{name}\", input_names = [{input_names}], \
         output_names = [{output_names}], symbols = [[\"n\", 1, 8], [\"m\", 0, 9223372036854775807], \
         [\"k\", 0, 4]], equalities = [[\"m\", \"2*n\"]]}} : () -> ()"
    )
}

fn run(module: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let inputs = inputs.iter().map(|tensor| Value::Tensor(tensor.clone())).collect();
    let results = Interpreter::new(module).with_limit(1 << 20).run(inputs)?;
    Ok(results.iter().map(|value| value.as_tensor().unwrap().clone()).collect())
}

fn add_module() -> Module {
    let inputs = "%0: tensor<?xf32, \"n\">, %1: tensor<?xf32, \"m\">, %2: tensor<?x2xf32, \"n+1; 2\">";
    let body = "%3 = \"tir.map\"(%0) {body = \"(1) t0 = neg(a0); t0\"} : (tensor<?xf32, \"n\">) -> tensor<?xf32, \"n\">\n\
                \"tir.return\"(%3) : (tensor<?xf32, \"n\">) -> ()";
    module(&format!("module {{ {} }}", function("main", inputs, body, "\"x\", \"y\", \"z\"", "\"out\"")))
}

#[test]
fn symbols_are_bound_by_the_first_input_and_checked_elsewhere() {
    let module = add_module();
    let input = |n: usize, m: usize, rows: usize| [counting(&[n]), counting(&[m]), counting(&[rows, 2])];
    assert_eq!(numbers(&run(&module, &input(3, 6, 4)).unwrap()[0]), [0.0, -1.0, -2.0]);
    let error = |inputs: &[Tensor]| run(&module, inputs).unwrap_err().to_string();
    assert_eq!(error(&input(9, 18, 10)), "input 'x': dimension 'n' is 9, outside 1..=8");
    assert_eq!(error(&input(0, 0, 1)), "input 'x': dimension 'n' is 0, outside 1..=8");
    assert_eq!(error(&input(3, 7, 4)), "input 'y': dimensions 'm' = 7 and '2*n' = 6 must be equal");
    assert_eq!(error(&input(3, 6, 3)), "input 'z': axis 0 has extent 3, but 'n+1' is 4");
    let wrong = [counting(&[3]), counting(&[6]), counting(&[4, 3])];
    assert_eq!(error(&wrong), "input 'z': axis 1 has extent 3, expected 2");
    let wrong = [t(DType::F64, &[3], &[0.0; 3]), counting(&[6]), counting(&[4, 2])];
    assert_eq!(error(&wrong), "input 'x': expected tensor<?xf32, \"n\">, got f64[3]");
    assert_eq!(error(&[]), "the function takes 3 inputs, got 0");
}

#[test]
fn an_extent_that_is_an_expression_determines_its_symbol() {
    let inputs = "%0: tensor<?xf32, \"3*n-1\">";
    let body = "%1 = \"tir.dims\"() {dims = [\"n\"]} : () -> tensor<1xi64>\n\"tir.return\"(%1) : (tensor<1xi64>) -> ()";
    let module = module(&format!("module {{ {} }}", function("main", inputs, body, "\"x\"", "\"n\"")));
    assert_eq!(run(&module, &[counting(&[11])]).unwrap()[0].integers().unwrap(), [4]);
    assert!(run(&module, &[counting(&[12])]).is_err());
}

#[test]
fn run_time_values_become_symbols() {
    let inputs = "%0: tensor<1xi64>";
    let body = "\"tir.bind\"(%0) {symbols = [\"k\"]} : (tensor<1xi64>) -> () loc(\"Shape_1\")\n\
                %1 = \"tir.iota\"() {dtype = \"i64\", shape = [\"k\"], axis = 0} : () -> tensor<?xi64, \"k\">\n\
                \"tir.return\"(%1) : (tensor<?xi64, \"k\">) -> ()";
    let module = module(&format!("module {{ {} }}", function("main", inputs, body, "\"k\"", "\"y\"")));
    assert_eq!(run(&module, &[i(&[1], &[3])]).unwrap()[0].integers().unwrap(), [0, 1, 2]);
    assert_eq!(run(&module, &[i(&[1], &[0])]).unwrap()[0].shape(), [0]);
    let error = run(&module, &[i(&[1], &[5])]).unwrap_err();
    assert_eq!(error.to_string(), "tir.bind at 'Shape_1': dimension 'k' is 5, outside 0..=4");
}

#[test]
fn a_condition_picks_a_region() {
    let inputs = "%0: tensor<i1>, %1: tensor<f32>";
    let region = |name: &str| {
        format!(
            "{{ %5 = \"tir.map\"(%1) {{body = \"(1) t0 = {name}(a0); t0\"}} : (tensor<f32>) -> tensor<f32>\n\
             \"tir.yield\"(%5) : (tensor<f32>) -> () }}"
        )
    };
    let body = format!(
        "%2 = \"tir.if\"(%0) ({}, {}) : (tensor<i1>) -> tensor<f32>\n\"tir.return\"(%2) : (tensor<f32>) -> ()",
        region("neg"),
        region("exp")
    );
    let module =
        module(&format!("module {{ {} }}", function("main", inputs, &body, "\"c\", \"x\"", "\"y\"")));
    let condition = |value: f64| [t(DType::Bool, &[], &[value]), f(&[], &[0.0])];
    assert_eq!(numbers(&run(&module, &condition(1.0)).unwrap()[0]), [0.0]);
    assert_eq!(numbers(&run(&module, &condition(0.0)).unwrap()[0]), [1.0]);
}

/// Doubles the carried value while it is below 100, scanning its values; its extent is a symbol of the body.
fn doubling() -> Module {
    let inputs = "%0: tensor<i64>, %1: tensor<i1>, %2: tensor<i64>";
    let body = "%3, %4 = \"tir.loop\"(%0, %1, %2) ({ ^bb0(%5: tensor<i64>, %6: tensor<i1>, %7: tensor<i64>):\n\
                %8 = \"tir.map\"(%7) {body = \"(1) t0 = add(a0, a0); t0\"} : (tensor<i64>) -> tensor<i64>\n\
                %9 = \"tir.map\"(%8) {body = \"(1) t0 = lt(a0, i64:100); t0\"} : (tensor<i64>) -> tensor<i1>\n\
                \"tir.yield\"(%9, %8, %5) : (tensor<i1>, tensor<i64>, tensor<i64>) -> () }) {scans = 1} : \
                (tensor<i64>, tensor<i1>, tensor<i64>) -> (tensor<i64>, tensor<?xi64, \"m\">)\n\
                \"tir.return\"(%3, %4) : (tensor<i64>, tensor<?xi64, \"m\">) -> ()";
    module(&format!("module {{ {} }}", function("main", inputs, body, "\"l\", \"c\", \"x\"", "\"y\", \"s\"")))
}

#[test]
fn loops_carry_and_scan() {
    let module = doubling();
    let start =
        |limit: i64, condition: f64| [i(&[], &[limit]), t(DType::Bool, &[], &[condition]), i(&[], &[3])];
    let results = run(&module, &start(-1, 1.0)).unwrap();
    assert_eq!(results[0].integers().unwrap(), [192]);
    assert_eq!(results[1].integers().unwrap(), [0, 1, 2, 3, 4, 5]);
    let results = run(&module, &start(2, 1.0)).unwrap();
    assert_eq!((results[0].integers().unwrap(), results[1].shape()), (&[12][..], &[2][..]));
    for (limit, condition) in [(0, 1.0), (5, 0.0)] {
        let results = run(&module, &start(limit, condition)).unwrap();
        assert_eq!((results[0].integers().unwrap(), results[1].shape()), (&[3][..], &[0][..]));
    }
}

#[test]
fn symbols_of_a_region_are_bound_anew_in_each_iteration() {
    // The carried vector grows by one element in each iteration.
    let inputs = "%0: tensor<i64>, %1: tensor<i1>, %2: tensor<1xf32>";
    let body = "%3 = \"tir.loop\"(%0, %1, %2) ({ ^bb0(%5: tensor<i64>, %6: tensor<i1>, %7: tensor<?xf32, \"n\">):\n\
                %8 = \"tir.concat\"(%7, %2) {axis = 0} : (tensor<?xf32, \"n\">, tensor<1xf32>) -> tensor<?xf32, \"n+1\">\n\
                \"tir.yield\"(%6, %8) : (tensor<i1>, tensor<?xf32, \"n+1\">) -> () }) {scans = 0} : \
                (tensor<i64>, tensor<i1>, tensor<1xf32>) -> tensor<?xf32, \"m\">\n\
                \"tir.return\"(%3) : (tensor<?xf32, \"m\">) -> ()";
    let module =
        module(&format!("module {{ {} }}", function("main", inputs, body, "\"l\", \"c\", \"x\"", "\"y\"")));
    let results = run(&module, &[i(&[], &[4]), t(DType::Bool, &[], &[1.0]), f(&[1], &[2.0])]).unwrap();
    assert_eq!(numbers(&results[0]), [2.0; 5]);
}

#[test]
fn calls_have_symbols_of_their_own() {
    let inner = "%0: tensor<?xf32, \"n\">";
    let inner_body = "%1 = \"tir.dims\"() {dims = [\"n\"]} : () -> tensor<1xi64>\n\"tir.return\"(%1) : (tensor<1xi64>) -> ()";
    let outer = "%0: tensor<?xf32, \"m\">";
    let outer_body = "%1 = \"tir.call\"(%0) {callee = \"size\"} : (tensor<?xf32, \"m\">) -> tensor<1xi64> loc(\"Call_7\")\n\
                      \"tir.return\"(%1) : (tensor<1xi64>) -> ()";
    let module = module(&format!(
        "module {{ {} {} }}",
        function("main", outer, outer_body, "\"x\"", "\"y\""),
        function("size", inner, inner_body, "\"x\"", "\"y\"")
    ));
    assert_eq!(run(&module, &[counting(&[8])]).unwrap()[0].integers().unwrap(), [8]);
    let error = run(&module, &[counting(&[9])]).unwrap_err().to_string();
    assert!(error.starts_with("tir.call at 'Call_7': input 'x'"), "{error}");
}

#[test]
fn observers_see_every_operation() {
    let module = doubling();
    let mut seen = Vec::new();
    let inputs = [i(&[], &[2]), t(DType::Bool, &[], &[1.0]), i(&[], &[3])].map(Value::Tensor).to_vec();
    Interpreter::new(&module)
        .run_observed(inputs, &mut |operation, values| seen.push((operation.operator.name(), values.len())))
        .unwrap();
    assert_eq!(seen, [("map", 1), ("map", 1), ("map", 1), ("map", 1), ("loop", 2)]);
}

#[test]
fn large_results_are_refused() {
    let inputs = "%0: tensor<1xi64>";
    let body = "\"tir.bind\"(%0) {symbols = [\"m\"]} : (tensor<1xi64>) -> ()\n\
                %1 = \"tir.iota\"() {dtype = \"i64\", shape = [\"m\", \"m\"], axis = 0} : () -> tensor<?x?xi64, \"m; m\">\n\
                \"tir.return\"(%1) : (tensor<?x?xi64, \"m; m\">) -> ()";
    let module = module(&format!("module {{ {} }}", function("main", inputs, body, "\"k\"", "\"y\"")));
    let error = run(&module, &[i(&[1], &[1 << 20])]).unwrap_err().to_string();
    assert!(error.contains("above the limit"), "{error}");
    let error = run(&module, &[i(&[1], &[i64::MAX])]).unwrap_err().to_string();
    assert!(error.contains("above the limit"), "{error}");
}

#[test]
fn malformed_modules_are_errors() {
    let text = format!(
        "module {{ {} }}",
        function("main", "%0: tensor<f32>", "\"tir.return\"(%0) : (tensor<f32>) -> ()", "\"x\"", "\"y\"")
    );
    let mut module = parse::module(&text).unwrap();
    module.entry_mut().unwrap().body.results = vec![tcc_ir::module::Value(9)];
    assert!(matches!(run(&module, &[f(&[], &[1.0])]), Err(Error::Malformed(_))));
    assert!(matches!(run(&Module::default(), &[]), Err(Error::Malformed(_))));
}

#[test]
fn random_numbers_follow_their_seed() {
    let body = |seed: i64, kind: &str| {
        format!(
            "%1 = \"tir.random\"() {{kind = \"{kind}\", dtype = \"f32\", shape = [1000], a = 2.0, b = 3.0, seed = {seed}}} \
             : () -> tensor<1000xf32>\n\"tir.return\"(%1) : (tensor<1000xf32>) -> ()"
        )
    };
    let draw = |seed, kind, run_seed| {
        let module = module(&format!(
            "module {{ {} }}",
            function("main", "%0: tensor<f32>", &body(seed, kind), "\"x\"", "\"y\"")
        ));
        let inputs = vec![Value::Tensor(f(&[], &[0.0]))];
        let results = Interpreter::new(&module).with_epoch(run_seed).run(inputs).unwrap();
        numbers(results[0].as_tensor().unwrap())
    };
    let uniform = draw(5, "uniform", 0);
    assert_eq!(uniform, draw(5, "uniform", 1));
    assert_ne!(draw(0, "uniform", 0), draw(0, "uniform", 1));
    assert!(uniform.iter().all(|value| (2.0..3.0).contains(value)));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!((mean(&uniform) - 2.5).abs() < 0.05);
    let normal = draw(5, "normal", 0);
    let deviation = mean(&normal.iter().map(|value| (value - 2.0).powi(2)).collect::<Vec<_>>()).sqrt();
    assert!((mean(&normal) - 2.0).abs() < 0.3 && (deviation - 3.0).abs() < 0.3);
}
