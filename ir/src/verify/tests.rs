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

/// A cache `[8, 1, 2]` in `storage`, appended to with `x` `[3, 1, 2]`, attended to as `%13`.
fn caches(storage: &str, cache: &str) -> String {
    let ty = "tensor<8x1x2xf32>";
    format!(
        "%10 = \"tir.iota\"() {{dtype = \"f32\", shape = [3, 1, 2], axis = 0}} : () -> tensor<3x1x2xf32>\n\
         %11 = \"tir.iota\"() {{dtype = \"i64\", shape = [3], axis = 0}} : () -> tensor<3xi64>\n\
         %12 = \"tir.kv_state\"() {{name = \"k\", shape = [8, 1, 2], storage = \"f32 rows 1\"}} : () -> {ty}\n\
         %13 = \"tir.kv_append\"(%12, %10, %11) {{storage = \"{storage}\"}} : ({ty}, tensor<3x1x2xf32>, tensor<3xi64>) -> {ty}\n\
         %14 = \"tir.iota\"() {{dtype = \"i64\", shape = [1, 8], axis = 1}} : () -> tensor<1x8xi64>\n\
         %15 = \"tir.kv_attend\"(%10, {cache}, {cache}, %14, %11, %11) {{scale = 1.0, softcap = 0.0, window = 0, sinks = 0, \
         page = 1, split = 0, k_storage = \"f32 rows 1\", v_storage = \"f32 rows 1\"}} : (tensor<3x1x2xf32>, {ty}, {ty}, tensor<1x8xi64>, \
         tensor<3xi64>, tensor<3xi64>) -> tensor<3x1x2xf32>"
    )
}

#[test]
fn caches_are_consumed_in_order() {
    let good = caches("f32 rows 1", "%13");
    check(&function(&good)).unwrap();
    refused(&caches("f32 rows 1", "%12"), "has another use");
    refused(&caches("f16 rows 1", "%13"), "stored as 'f32 rows 1'");
    refused(&caches("i8 rows 1", "%13"), "multiple of 32");
    refused(&good.replace("(%10, %13, %13,", "(%10, %16, %13,").replace("%15 =", "%16 = \"tir.iota\"() {dtype = \"f32\", shape = [8, 1, 2], axis = 0} : () -> tensor<8x1x2xf32>\n%15 ="), "operand 1 is not a cache");
    let again = "%17 = \"tir.kv_state\"() {name = \"k\", shape = [8, 1, 2], storage = \"f32 rows 1\"} : () -> tensor<8x1x2xf32>";
    refused(&format!("{good}\n{again}"), "occurs twice");
    let read =
        "%17 = \"tir.map\"(%13) {body = \"(1) t0 = exp(a0); t0\"} : (tensor<8x1x2xf32>) -> tensor<8x1x2xf32>";
    refused(&format!("{good}\n{read}"), "takes a cache");
}
