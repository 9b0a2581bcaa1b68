//! Single operations against results of ONNX Runtime; `golden/generate.py` writes the cases.

mod common;

use common::{assert_close, numbers};
use serde_json::Value as Json;
use tcc_interpret::{Interpreter, Tensor, Value};
use tcc_ir::{parse, verify};

/// A tensor as `cases.json` holds it, with its type.
fn tensor(json: &Json) -> (String, Tensor) {
    let text = json["type"].as_str().unwrap();
    let ty = parse::ty(text).unwrap();
    let ty = ty.as_tensor().unwrap();
    let values: Vec<f64> =
        json["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    (text.to_string(), Tensor::from_numbers(ty.dtype(), &ty.static_shape().unwrap(), &values).unwrap())
}

#[test]
fn operators_agree_with_onnx_runtime() {
    let cases: Json = serde_json::from_str(include_str!("golden/cases.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let list = |key: &str| -> Vec<(String, Tensor)> {
            case[key].as_array().unwrap().iter().map(tensor).collect()
        };
        let (operands, expected) = (list("operands"), list("results"));
        let types =
            |list: &[(String, Tensor)]| list.iter().map(|(ty, _)| ty.clone()).collect::<Vec<_>>().join(", ");
        let names = |prefix: &str, count: usize| {
            (0..count).map(|index| format!("%{prefix}{index}")).collect::<Vec<_>>().join(", ")
        };
        let params: Vec<String> =
            operands.iter().enumerate().map(|(index, (ty, _))| format!("%x{index}: {ty}")).collect();
        let quoted =
            |count: usize| (0..count).map(|index| format!("\"{index}\"")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "module {{ \"tir.func\"() ({{ ^bb0({}): {} = \"tir.{}\"({}) {{{}}} : ({}) -> ({})\n\
             \"tir.return\"({}) : ({}) -> () }}) \
             {{sym_name = \"main\", input_names = [{}], output_names = [{}]}} : () -> () }}",
            params.join(", "),
            names("y", expected.len()),
            case["operator"].as_str().unwrap(),
            names("x", operands.len()),
            case["attributes"].as_str().unwrap(),
            types(&operands),
            types(&expected),
            names("y", expected.len()),
            types(&expected),
            quoted(operands.len()),
            quoted(expected.len()),
        );
        let name = case["name"].as_str().unwrap();
        let module = parse::module(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        verify::verify(&module).unwrap_or_else(|error| panic!("{name}: {error}"));
        let inputs = operands.into_iter().map(|(_, tensor)| Value::Tensor(tensor)).collect();
        let found = Interpreter::new(&module).run(inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (found, (_, expected)) in found.iter().zip(&expected) {
            let found = found.as_tensor().unwrap();
            println!("{name}");
            assert_close(&numbers(found), &numbers(expected), 2e-5);
        }
    }
}
