//! Reductions, positions of extremes, running reductions.

mod common;

use common::*;
use tcc_interpret::Tensor;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::words::ReduceKind;

fn reduce(kind: ReduceKind, x: &Tensor, axes: &[usize], keep: bool) -> Tensor {
    let (prologue, epilogue) = (expr("(1) a0"), expr("(1) a0"));
    eval(&Operator::Reduce { kind, axes: axes.to_vec(), keep, prologue, epilogue }, &[x])
}

#[test]
fn axes_are_removed_or_kept() {
    let x = counting(&[2, 3]);
    let y = reduce(ReduceKind::Sum, &x, &[0], false);
    assert_eq!((y.shape(), numbers(&y)), (&[3][..], vec![3.0, 5.0, 7.0]));
    let y = reduce(ReduceKind::Max, &x, &[1], true);
    assert_eq!((y.shape(), numbers(&y)), (&[2, 1][..], vec![2.0, 5.0]));
    assert_eq!(numbers(&reduce(ReduceKind::Prod, &x, &[0, 1], false)), [0.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Min, &x, &[], false)), numbers(&x));
}

#[test]
fn sums_round_once() {
    let mut values = vec![1.0; 1000];
    values[0] = 16777216.0;
    assert_eq!(numbers(&reduce(ReduceKind::Sum, &f(&[1000], &values), &[0], false)), [16778216.0]);
    let many = t(DType::F16, &[4000], &[1.0; 4000]);
    assert_eq!(numbers(&reduce(ReduceKind::Sum, &many, &[0], false)), [4000.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Sum, &t(DType::I8, &[2], &[100.0, 100.0]), &[0], false)), [-56.0]);
}

#[test]
fn nothing_reduces_to_the_neutral_element() {
    let x = f(&[0, 2], &[]);
    assert_eq!(numbers(&reduce(ReduceKind::Sum, &x, &[0], false)), [0.0, 0.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Prod, &x, &[0], false)), [1.0, 1.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Max, &x, &[0], false)), [f64::NEG_INFINITY; 2]);
    assert_eq!(numbers(&reduce(ReduceKind::Min, &t(DType::I8, &[0], &[]), &[0], false)), [127.0]);
    assert_eq!(reduce(ReduceKind::Sum, &x, &[1], false).shape(), [0]);
}

#[test]
fn nan_wins_and_truth_values_reduce() {
    let x = f(&[3], &[1.0, f64::NAN, 2.0]);
    assert!(numbers(&reduce(ReduceKind::Max, &x, &[0], false))[0].is_nan());
    let flags = t(DType::Bool, &[2, 2], &[1.0, 0.0, 1.0, 1.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Min, &flags, &[1], false)), [0.0, 1.0]);
}

#[test]
fn prologue_and_epilogue_take_operands() {
    // sqrt(sum((x - a)^2)) * b
    let operator = Operator::Reduce {
        kind: ReduceKind::Sum,
        axes: vec![1],
        keep: false,
        prologue: expr("(2) t0 = sub(a0, a1); t1 = mul(t0, t0); t1"),
        epilogue: expr("(2) t0 = sqrt(a0); t1 = mul(t0, a1); t1"),
    };
    let x = f(&[2, 2], &[4.0, 5.0, 1.0, 1.0]);
    let y = eval(&operator, &[&x, &f(&[], &[1.0]), &f(&[2], &[2.0, 3.0])]);
    assert_eq!(numbers(&y), [10.0, 0.0]);
}

#[test]
fn positions_of_extremes() {
    let arg = |kind, last, x: &Tensor| {
        let operator = Operator::ArgReduce { kind, axis: 1, keep: false, last };
        eval(&operator, &[x]).integers().unwrap().to_vec()
    };
    let x = f(&[2, 4], &[1.0, 3.0, 3.0, 0.0, 5.0, f64::NAN, 9.0, f64::NAN]);
    assert_eq!(arg(ReduceKind::Max, false, &x), [1, 1]);
    assert_eq!(arg(ReduceKind::Max, true, &x), [2, 3]);
    assert_eq!(arg(ReduceKind::Min, false, &x), [3, 1]);
    assert_eq!(arg(ReduceKind::Min, true, &t(DType::U8, &[1, 3], &[0.0, 7.0, 0.0])), [2]);
    let arg = Operator::ArgReduce { kind: ReduceKind::Max, axis: 0, keep: true, last: false };
    assert!(eval_all(&arg, &[&f(&[0, 2], &[])]).is_err());
    assert_eq!(eval(&arg, &[&f(&[2, 0], &[])]).shape(), [1, 0]);
}

#[test]
fn running_reductions() {
    let scan = |kind, exclusive, reverse, x: &Tensor| {
        numbers(&eval(&Operator::Scan { kind, axis: 0, exclusive, reverse }, &[x]))
    };
    let x = f(&[4], &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(scan(ReduceKind::Sum, false, false, &x), [1.0, 3.0, 6.0, 10.0]);
    assert_eq!(scan(ReduceKind::Sum, true, false, &x), [0.0, 1.0, 3.0, 6.0]);
    assert_eq!(scan(ReduceKind::Sum, false, true, &x), [10.0, 9.0, 7.0, 4.0]);
    assert_eq!(scan(ReduceKind::Prod, true, true, &x), [24.0, 12.0, 4.0, 1.0]);
    let columns = counting(&[2, 2]);
    assert_eq!(scan(ReduceKind::Sum, false, false, &columns), [0.0, 1.0, 2.0, 4.0]);
}
