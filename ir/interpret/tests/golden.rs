//! Single operations against results of ONNX Runtime; `golden/generate.py` writes the cases.

mod common;

use common::{assert_close, case_text, numbers};
use proptest::prelude::*;
use serde_json::Value as Json;
use tcc_interpret::{Interpreter, Tensor, Value};
use tcc_ir::{parse, verify};

/// The cases.
fn cases() -> Vec<Json> {
    serde_json::from_str(include_str!("golden/cases.json")).unwrap()
}

/// A tensor as `cases.json` holds it, with its type.
fn tensor(json: &Json) -> (String, Tensor) {
    let text = json["type"].as_str().unwrap();
    let ty = parse::ty(text).unwrap();
    let ty = ty.as_tensor().unwrap();
    let values: Vec<f64> =
        json["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    (text.to_string(), Tensor::from_numbers(ty.dtype(), &ty.static_shape().unwrap(), &values).unwrap())
}

/// Operands or results of a case.
fn tensors(case: &Json, key: &str) -> Vec<(String, Tensor)> {
    case[key].as_array().unwrap().iter().map(tensor).collect()
}

/// The module of a case.
fn text(case: &Json) -> String {
    let types = |key: &str| tensors(case, key).into_iter().map(|(ty, _)| ty).collect::<Vec<_>>();
    let (operator, attributes) = (case["operator"].as_str().unwrap(), case["attributes"].as_str().unwrap());
    case_text(operator, attributes, &types("operands"), &types("results"))
}

#[test]
fn operators_agree_with_onnx_runtime() {
    for case in cases() {
        let (name, text) = (case["name"].as_str().unwrap(), text(&case));
        let module = parse::module(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        verify::verify(&module).unwrap_or_else(|error| panic!("{name}: {error}"));
        let inputs =
            tensors(&case, "operands").into_iter().map(|(_, tensor)| Value::Tensor(tensor)).collect();
        let found = Interpreter::new(&module).run(inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (found, (_, expected)) in found.iter().zip(tensors(&case, "results")) {
            println!("{name}");
            assert_close(&numbers(found.as_tensor().unwrap()), &numbers(&expected), 2e-5);
        }
    }
}

/// Zeros of the declared types; `None` where a type is too large to try.
fn zeros(module: &tcc_ir::module::Module) -> Option<Vec<Value>> {
    let entry = module.entry()?;
    let zero = |param: &tcc_ir::module::Value| {
        let ty = entry.type_of(*param).as_tensor()?;
        let shape = ty.static_shape()?;
        let count = shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))?;
        if count > 1 << 14 || ty.dtype() == tcc_ir::dtype::DType::String {
            return None;
        }
        Tensor::from_numbers(ty.dtype(), &shape, &vec![0.0; count]).ok().map(Value::Tensor)
    };
    entry.body.params.iter().map(zero).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Other numbers in attributes and types give a result or an error, never a panic.
    #[test]
    fn changed_numbers_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, 0u8..10), 1..4),
        verified in any::<bool>(),
    ) {
        let cases = cases();
        let mut text = text(which.get(&cases)).into_bytes();
        for (place, kind, digit) in edits {
            let digits: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_digit()).collect();
            let at = *place.get(&digits);
            let digit = b'0' + digit;
            match kind {
                0 | 1 => text[at] = digit,
                2 => text.insert(at, digit),
                3 => text.insert(at, b'-'),
                4 => {
                    text.splice(at..at, *b"9223372036854775807");
                }
                _ => {
                    text.remove(at);
                }
            }
        }
        let text = String::from_utf8(text).unwrap();
        let Ok(module) = parse::module(&text) else { return Ok(()) };
        if verified && verify::verify(&module).is_err() {
            return Ok(());
        }
        if let Some(inputs) = zeros(&module) {
            let _ = Interpreter::new(&module).with_limit(1 << 14).run(inputs);
        }
    }
}
