//! Short ways to write operands and evaluate one operation.

#![allow(dead_code, reason = "each test file uses some of it")]

use tcc_interpret::{Error, Tensor, evaluate};
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;

/// A tensor of numbers of any type.
pub fn t(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_numbers(dtype, shape, values).unwrap()
}

/// An `f32` tensor.
pub fn f(shape: &[usize], values: &[f64]) -> Tensor {
    t(DType::F32, shape, values)
}

/// An `i64` tensor.
pub fn i(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_integers(DType::I64, shape, values).unwrap()
}

/// An `f32` tensor of 0, 1, 2, ...
pub fn counting(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    f(shape, &(0..count).map(|index| index as f64).collect::<Vec<_>>())
}

/// All results.
pub fn eval_all(operator: &Operator, operands: &[&Tensor]) -> Result<Vec<Tensor>, Error> {
    let data: Vec<_> = operands.iter().map(|operand| operand.to_data().unwrap()).collect();
    let results = evaluate(operator, &data, &|_| None)?;
    Ok(results.iter().map(Tensor::from).collect())
}

/// The first result.
#[track_caller]
pub fn eval(operator: &Operator, operands: &[&Tensor]) -> Tensor {
    eval_all(operator, operands).unwrap_or_else(|error| panic!("{error}")).swap_remove(0)
}

/// The elements as numbers.
pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_numbers().unwrap()
}

/// A scalar expression from its text.
pub fn expr(text: &str) -> ScalarExpr {
    text.parse().unwrap()
}

/// True where two lists of numbers agree to `tolerance`, NaN with NaN.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    let close = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= tolerance || a.is_nan() && b.is_nan();
    let equal = found.len() == expected.len() && found.iter().zip(expected).all(close);
    assert!(equal, "found {found:?}, expected {expected:?}");
}

/// The text of a module whose function applies one operation to its inputs.
pub fn case_text(operator: &str, attributes: &str, operands: &[String], results: &[String]) -> String {
    let names = |prefix: &str, count: usize| {
        (0..count).map(|index| format!("%{prefix}{index}")).collect::<Vec<_>>().join(", ")
    };
    let quoted = |count: usize| (0..count).map(|index| format!("\"{index}\"")).collect::<Vec<_>>().join(", ");
    let params: Vec<String> =
        operands.iter().enumerate().map(|(index, ty)| format!("%x{index}: {ty}")).collect();
    format!(
        "module {{ \"tir.func\"() ({{ ^bb0({}): {} = \"tir.{operator}\"({}) {{{attributes}}} : ({}) -> ({})\n\
         \"tir.return\"({}) : ({}) -> () }}) \
         {{sym_name = \"main\", input_names = [{}], output_names = [{}]}} : () -> () }}",
        params.join(", "),
        names("y", results.len()),
        names("x", operands.len()),
        operands.join(", "),
        results.join(", "),
        names("y", results.len()),
        results.join(", "),
        quoted(operands.len()),
        quoted(results.len()),
    )
}
