use super::*;
use crate::parse;

/// A function `main` with parameter `%0`, this body and no results.
fn function(body: &str) -> String {
    format!(
        "\"tir.func\"() ({{\n^bb0(%0: tensor<?x3xf32, \"n; 3\">, %1: tensor<i1>, %2: tensor<i64>):\n{body}\n\
         \"tir.return\"() : () -> () }}) {{sym_name = \"main\", input_names = [\"x\", \"c\", \"i\"], \
         symbols = [[\"n\", 0, 8]]}} : () -> ()"
    )
}

fn check(functions: &str) -> Result<(), String> {
    let module =
        parse::module(&format!("module {{ {functions} }}")).unwrap_or_else(|error| panic!("{error}"));
    verify(&module).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(body: &str, expected: &str) {
    let error = check(&function(body)).expect_err("the module should be refused");
    assert!(error.contains(expected), "{error}");
}

#[test]
fn result_types_follow_from_inference() {
    let map = |ty: &str| {
        format!(
            "%9 = \"tir.map\"(%0) {{body = \"(1) t0 = exp(a0); t0\"}} : (tensor<?x3xf32, \"n; 3\">) -> {ty}"
        )
    };
    check(&function(&map("tensor<?x3xf32, \"n; 3\">"))).unwrap();
    refused(&map("tensor<?x4xf32, \"n; 4\">"), "expected tensor<?x3xf32");
    refused(&map("tensor<?x3xf64, \"n; 3\">"), "expected tensor<?x3xf32");
    refused(&map("tensor<3xf32>"), "expected tensor<?x3xf32");
    refused(&map("tensor<?x3xf32, \"m; 3\">"), "'m' is not declared");
}

#[test]
fn attributes_use_declared_symbols() {
    refused("%9 = \"tir.dims\"() {dims = [\"k\"]} : () -> tensor<1xi64>", "'k' is not declared");
    refused("%9 = \"tir.iota\"() {dtype = \"i64\", shape = [3], axis = 1} : () -> tensor<3xi64>", "axis 1");
}

#[test]
fn branches_yield_the_result_types() {
    let branch = |ty: &str| {
        format!(
            "%9 = \"tir.if\"(%1) ({{ \"tir.yield\"(%0) : (tensor<?x3xf32, \"n; 3\">) -> () }}, \
             {{ \"tir.yield\"(%0) : (tensor<?x3xf32, \"n; 3\">) -> () }}) : (tensor<i1>) -> {ty}"
        )
    };
    check(&function(&branch("tensor<?x3xf32, \"n; 3\">"))).unwrap();
    refused(&branch("tensor<?xf32, \"n\">"), "yielded values");
    refused(
        &branch("tensor<?x3xf32, \"n; 3\">").replace("(%1)", "(%2)").replace("(tensor<i1>)", "(tensor<i64>)"),
        "condition",
    );
    refused("\"tir.if\"(%1) : (tensor<i1>) -> ()", "takes 2 regions, found 0");
}

#[test]
fn loops_carry_what_they_start_with() {
    let text = |params: &str, scans: usize| {
        format!(
            "%9 = \"tir.loop\"(%2, %1, %0) ({{ ^bb0({params}): \"tir.yield\"(%5, %6) : (tensor<i1>, tensor<?x3xf32, \"n; 3\">) -> () }}) \
             {{scans = {scans}}} : (tensor<i64>, tensor<i1>, tensor<?x3xf32, \"n; 3\">) -> tensor<?x3xf32, \"n; 3\">"
        )
    };
    let good = "%4: tensor<i64>, %5: tensor<i1>, %6: tensor<?x3xf32, \"n; 3\">";
    check(&function(&text(good, 0))).unwrap();
    refused(&text(good, 1), "yields 2 values");
    refused(&text("%5: tensor<i1>, %4: tensor<i64>, %6: tensor<?x3xf32, \"n; 3\">", 0), "iteration number");
}

#[test]
fn calls_reach_a_function_and_do_not_recurse() {
    let call = "\"tir.call\"(%0, %1, %2) {callee = \"main\"} : (tensor<?x3xf32, \"n; 3\">, tensor<i1>, tensor<i64>) -> ()";
    refused(call, "calls itself");
    refused(&call.replace("\"main\"", "\"other\""), "no function 'other'");
    refused("\"tir.call\"(%0) {callee = \"main\"} : (tensor<?x3xf32, \"n; 3\">) -> ()", "arguments");
}

#[test]
fn values_are_defined_once_and_before_use() {
    let mut module = parse::module(&format!("module {{ {} }}", function(""))).unwrap();
    let entry = module.entry_mut().unwrap();
    entry.body.params.push(Value(0));
    entry.input_names.push("again".into());
    assert!(verify(&module).unwrap_err().to_string().contains("defined twice"));
    let entry = module.entry_mut().unwrap();
    entry.body.params.pop();
    entry.input_names.pop();
    entry.body.results = vec![Value(77)];
    entry.output_names = vec!["y".into()];
    assert!(verify(&module).unwrap_err().to_string().contains("not defined"));
    module.entry_mut().unwrap().output_names.push("z".into());
    assert!(verify(&module).unwrap_err().to_string().contains("output names"));
}
