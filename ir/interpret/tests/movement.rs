//! Views, padding, gathering and scattering.

mod common;

use common::*;
use tcc_interpret::{Error, Tensor};
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::words::{PadKind, ScatterKind};

fn dims(values: &[i64]) -> Vec<Dim> {
    values.iter().map(|value| Dim::Const(*value)).collect()
}

#[test]
fn coordinates_and_dimensions() {
    let iota = Operator::Iota { dtype: DType::I32, shape: dims(&[2, 3]), axis: 0 };
    assert_eq!(eval(&iota, &[]).integers().unwrap(), [0, 0, 0, 1, 1, 1]);
    let operator = Operator::Dims { dims: vec![Dim::named("n") * 2.into(), 7.into()] };
    let values = tcc_interpret::evaluate(&operator, &[], &|_| Some(21)).unwrap();
    assert_eq!(values[0].to_integers().unwrap(), [42, 7]);
    assert!(matches!(eval_all(&operator, &[]), Err(Error::Dim(_))));
}

#[test]
fn transposition_and_reshape() {
    let x = counting(&[2, 3]);
    let y = eval(&Operator::Transpose { perm: vec![1, 0] }, &[&x]);
    assert_eq!((y.shape(), numbers(&y)), (&[3, 2][..], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    assert_eq!(eval(&Operator::Reshape { shape: dims(&[3, 2]) }, &[&x]).shape(), [3, 2]);
    assert!(eval_all(&Operator::Reshape { shape: dims(&[4]) }, &[&x]).is_err());
    let empty = eval(&Operator::Transpose { perm: vec![1, 2, 0] }, &[&counting(&[2, 0, 3])]);
    assert_eq!(empty.shape(), [0, 3, 2]);
    let y = eval(&Operator::Broadcast { shape: dims(&[2, 2]) }, &[&f(&[2, 1], &[1.0, 2.0])]);
    assert_eq!(numbers(&y), [1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn slices_step_both_ways() {
    let slice = |starts: &[i64], sizes: &[i64], steps: &[i64]| Operator::Slice {
        starts: dims(starts),
        sizes: dims(sizes),
        steps: steps.to_vec(),
    };
    let x = counting(&[2, 5]);
    assert_eq!(numbers(&eval(&slice(&[1, 4], &[1, 3], &[1, -2]), &[&x])), [9.0, 7.0, 5.0]);
    assert_eq!(numbers(&eval(&slice(&[0, 1], &[2, 2], &[1, 3]), &[&x])), [1.0, 4.0, 6.0, 9.0]);
    assert_eq!(eval(&slice(&[0, 99], &[2, 0], &[1, 1]), &[&x]).shape(), [2, 0]);
    assert!(matches!(eval_all(&slice(&[0, 3], &[2, 3], &[1, 1]), &[&x]), Err(Error::Index { .. })));
    assert!(eval_all(&slice(&[0, 0], &[2, -1], &[1, 1]), &[&x]).is_err());
    assert!(eval_all(&slice(&[0, 0], &[2, 2], &[1, i64::MAX]), &[&x]).is_err());
}

#[test]
fn concatenation_keeps_rows() {
    let concat = Operator::Concat { axis: 1 };
    let y = eval(&concat, &[&counting(&[2, 2]), &f(&[2, 1], &[8.0, 9.0]), &f(&[2, 0], &[])]);
    assert_eq!(numbers(&y), [0.0, 1.0, 8.0, 2.0, 3.0, 9.0]);
    let text = |texts: &[&str]| Tensor::from(Data::from_texts(&[texts.len()], texts).unwrap());
    let y = eval(&Operator::Concat { axis: 0 }, &[&text(&["a"]), &text(&["b", ""])]);
    assert_eq!(y.texts().unwrap(), ["a", "b", ""]);
    assert!(eval_all(&concat, &[&counting(&[2, 2]), &counting(&[3, 1])]).is_err());
}

#[test]
fn padding_continues_an_axis() {
    let pad = |kind, low: i64, high: i64| Operator::Pad { kind, low: dims(&[low]), high: dims(&[high]) };
    let x = f(&[3], &[1.0, 2.0, 3.0]);
    let value = f(&[], &[9.0]);
    let run = |kind, low, high| numbers(&eval(&pad(kind, low, high), &[&x, &value]));
    assert_eq!(run(PadKind::Constant, 1, 2), [9.0, 1.0, 2.0, 3.0, 9.0, 9.0]);
    assert_eq!(run(PadKind::Edge, 2, 1), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
    assert_eq!(run(PadKind::Reflect, 2, 3), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0]);
    assert_eq!(run(PadKind::Wrap, 2, 1), [2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    assert_eq!(run(PadKind::Constant, -1, 1), [2.0, 3.0, 9.0]);
    let empty = f(&[0], &[]);
    assert_eq!(numbers(&eval(&pad(PadKind::Constant, 1, 1), &[&empty, &value])), [9.0, 9.0]);
    assert!(eval_all(&pad(PadKind::Edge, 1, 1), &[&empty, &value]).is_err());
    assert!(eval_all(&pad(PadKind::Edge, -2, -2), &[&x, &value]).is_err());
}

#[test]
fn gathering_along_an_axis() {
    let x = counting(&[2, 3]);
    let y = eval(&Operator::Gather { axis: 1 }, &[&x, &i(&[2, 2], &[0, -1, 2, 1])]);
    assert_eq!(y.shape(), [2, 2, 2]);
    assert_eq!(numbers(&y), [0.0, 2.0, 2.0, 1.0, 3.0, 5.0, 5.0, 4.0]);
    assert_eq!(eval(&Operator::Gather { axis: 0 }, &[&x, &i(&[], &[1])]).shape(), [3]);
    for index in [3, -4, i64::MIN, i64::MAX] {
        let found = eval_all(&Operator::Gather { axis: 1 }, &[&x, &i(&[1], &[index])]);
        assert_eq!(found, Err(Error::Index { index, extent: 3 }));
    }
    let y = eval(&Operator::GatherElements { axis: 0 }, &[&x, &i(&[1, 3], &[1, 0, -1])]);
    assert_eq!(numbers(&y), [3.0, 1.0, 5.0]);
}

#[test]
fn gathering_by_tuples() {
    // Examples 1, 2 and 4 of the ONNX GatherND page, with and without batch axes.
    let x = counting(&[2, 2]);
    let run = |x: &Tensor, at: &Tensor, batch_dims| eval(&Operator::GatherNd { batch_dims }, &[x, at]);
    assert_eq!(numbers(&run(&x, &i(&[2, 2], &[0, 0, 1, 1]), 0)), [0.0, 3.0]);
    assert_eq!(numbers(&run(&x, &i(&[2, 1], &[1, 0]), 0)), [2.0, 3.0, 0.0, 1.0]);
    let x = counting(&[2, 2, 2]);
    let y = run(&x, &i(&[2, 1], &[1, 0]), 1);
    assert_eq!((y.shape(), numbers(&y)), (&[2, 2][..], vec![2.0, 3.0, 4.0, 5.0]));
    assert!(eval_all(&Operator::GatherNd { batch_dims: 1 }, &[&x, &i(&[3, 1], &[1, 0, 0])]).is_err());
}

#[test]
fn scattering_combines_in_order() {
    let x = f(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let (at, updates) = (i(&[3], &[1, -1, 1]), f(&[3], &[10.0, 20.0, 30.0]));
    let run = |kind| numbers(&eval(&Operator::ScatterElements { axis: 0, kind }, &[&x, &at, &updates]));
    assert_eq!(run(ScatterKind::Replace), [1.0, 30.0, 3.0, 20.0]);
    assert_eq!(run(ScatterKind::Add), [1.0, 42.0, 3.0, 24.0]);
    assert_eq!(run(ScatterKind::Mul), [1.0, 600.0, 3.0, 80.0]);
    assert_eq!(run(ScatterKind::Max), [1.0, 30.0, 3.0, 20.0]);
    assert_eq!(run(ScatterKind::Min), [1.0, 2.0, 3.0, 4.0]);
    let y = eval(
        &Operator::ScatterNd { kind: ScatterKind::Add },
        &[&counting(&[2, 2]), &i(&[2, 1], &[1, 1]), &f(&[2, 2], &[10.0, 20.0, 30.0, 40.0])],
    );
    assert_eq!(numbers(&y), [0.0, 1.0, 42.0, 63.0]);
    let scatter = Operator::ScatterElements { axis: 0, kind: ScatterKind::Add };
    assert!(eval_all(&scatter, &[&x, &at, &f(&[2], &[1.0, 2.0])]).is_err());
    assert!(eval_all(&scatter, &[&x, &i(&[1], &[4]), &f(&[1], &[1.0])]).is_err());
}

#[test]
fn huge_shapes_are_refused() {
    let iota = Operator::Iota { dtype: DType::I64, shape: dims(&[1 << 40, 1 << 20]), axis: 0 };
    assert!(matches!(eval_all(&iota, &[]), Err(Error::TooLarge { .. })));
    let zero = Operator::Iota { dtype: DType::I64, shape: dims(&[0, i64::MAX, i64::MAX]), axis: 1 };
    assert!(matches!(eval_all(&zero, &[]), Err(Error::TooLarge { .. })));
}
