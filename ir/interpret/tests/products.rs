//! Contractions and convolutions on types that ONNX Runtime does not run.

mod common;

use common::*;
use tcc_interpret::Tensor;
use tcc_ir::attribute::Real;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::words::{Layout, WindowKind};

fn contract(spec: &str, accumulator: DType, epilogue: &str) -> Operator {
    Operator::Contract { spec: spec.parse().unwrap(), accumulator, epilogue: expr(epilogue) }
}

#[test]
fn integers_accumulate_in_their_type() {
    let a = t(DType::U8, &[1, 3], &[255.0, 255.0, 1.0]);
    let b = t(DType::I8, &[3, 1], &[127.0, -128.0, 3.0]);
    let sum = eval(&contract("mk,kn->mn", DType::I32, "(1) a0"), &[&a, &b]);
    assert_eq!((sum.dtype(), sum.integers().unwrap()), (DType::I32, &[-252][..]));
    let narrow = eval(&contract("mk,kn->mn", DType::I8, "(1) a0"), &[&a, &b]);
    assert_eq!(narrow.integers().unwrap(), [4]);
    let mixed = contract("mk,kn->mn", DType::F32, "(1) a0");
    assert!(eval_all(&mixed, &[&a, &b]).is_err());
}

#[test]
fn narrow_floats_accumulate_in_the_accumulator() {
    let ones = t(DType::F16, &[1, 4096], &[1.0; 4096]);
    let column = t(DType::F16, &[4096, 1], &[1.0; 4096]);
    let wide = eval(&contract("mk,kn->mn", DType::F32, "(1) t0 = cast<f16>(a0); t0"), &[&ones, &column]);
    assert_eq!((wide.dtype(), numbers(&wide)), (DType::F16, vec![4096.0]));
    let third = t(DType::F16, &[1, 1], &[1.0 / 3.0]);
    let scaled = eval(
        &contract("mk,kn->mn", DType::F16, "(2) t0 = mul(a0, a1); t0"),
        &[&third, &t(DType::F16, &[1, 1], &[3.0]), &t(DType::F16, &[1], &[2.0])],
    );
    assert_close(&numbers(&scaled), &[2.0], 0.001);
}

#[test]
fn empty_sums_are_zero() {
    let y = eval(&contract("mk,kn->mn", DType::F32, "(1) a0"), &[&f(&[2, 0], &[]), &f(&[0, 3], &[])]);
    assert_eq!((y.shape(), numbers(&y)), (&[2, 3][..], vec![0.0; 6]));
    let y = eval(&contract("mk,kn->mn", DType::F32, "(1) a0"), &[&f(&[0, 2], &[]), &f(&[2, 3], &[0.0; 6])]);
    assert_eq!(y.shape(), [0, 3]);
}

fn convolution(strides: &[usize], pads: &[i64], accumulator: DType, epilogue: &str) -> Operator {
    Operator::Convolve {
        layout: Layout::ChannelsFirst,
        groups: 1,
        strides: strides.to_vec(),
        dilations: vec![1; strides.len()],
        pads: pads.to_vec(),
        accumulator,
        epilogue: expr(epilogue),
    }
}

#[test]
fn integer_convolution_with_an_epilogue() {
    let x = t(DType::I16, &[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let w = t(DType::I8, &[2, 1, 2], &[1.0, -1.0, 10.0, 1.0]);
    let bias = t(DType::I32, &[2, 1], &[100.0, 0.0]);
    let y = eval(&convolution(&[2], &[1, 0], DType::I32, "(2) t0 = add(a0, a1); t0"), &[&x, &w, &bias]);
    assert_eq!((y.shape(), numbers(&y)), (&[1, 2, 2][..], vec![99.0, 99.0, 1.0, 23.0]));
}

#[test]
fn negative_padding_crops() {
    let y = eval(
        &convolution(&[1], &[-1, -1], DType::F32, "(1) a0"),
        &[&counting(&[1, 1, 5]), &f(&[1, 1, 1], &[2.0])],
    );
    assert_eq!(numbers(&y), [2.0, 4.0, 6.0]);
}

#[test]
fn convolutions_without_elements() {
    let operator = convolution(&[1], &[0, 0], DType::F32, "(1) a0");
    assert_eq!(eval(&operator, &[&counting(&[0, 2, 5]), &counting(&[3, 2, 2])]).shape(), [0, 3, 4]);
    let y = eval(&operator, &[&counting(&[1, 0, 5]), &counting(&[1, 0, 2])]);
    assert_eq!(numbers(&y), [0.0; 4]);
    assert!(eval_all(&operator, &[&counting(&[1, 1, 2]), &counting(&[1, 1, 5])]).is_err());
}

#[test]
fn distances_beyond_all_reason_are_errors() {
    let far = Operator::Convolve {
        layout: Layout::ChannelsFirst,
        groups: 1,
        strides: vec![usize::MAX >> 1],
        dilations: vec![usize::MAX >> 1],
        pads: vec![i64::MAX, i64::MAX],
        accumulator: DType::F32,
        epilogue: expr("(1) a0"),
    };
    assert!(eval_all(&far, &[&counting(&[1, 1, 5]), &counting(&[1, 1, 2])]).is_err());
    let window = Operator::Window {
        kind: WindowKind::Max,
        layout: Layout::ChannelsFirst,
        size: vec![1 << 40],
        strides: vec![1],
        dilations: vec![1],
        pads: vec![1 << 40, 0],
        ceil: false,
    };
    assert!(eval_all(&window, &[&counting(&[1, 1, 5])]).is_err());
}

#[test]
fn windows_of_integers() {
    let window = |kind| Operator::Window {
        kind,
        layout: Layout::ChannelsFirst,
        size: vec![2],
        strides: vec![1],
        dilations: vec![1],
        pads: vec![1, 0],
        ceil: false,
    };
    let x = t(DType::I8, &[1, 1, 3], &[-100.0, -100.0, 50.0]);
    assert_eq!(numbers(&eval(&window(WindowKind::Max), &[&x])), [-100.0, -100.0, 50.0]);
    assert_eq!(numbers(&eval(&window(WindowKind::Sum), &[&x])), [-100.0, 56.0, -50.0]);
    assert_eq!(numbers(&eval(&window(WindowKind::MeanPadded), &[&x])), [-50.0, -100.0, -25.0]);
}

#[test]
fn a_query_without_keys_gives_zero() {
    let attention = |causal, window| Operator::Attention {
        scale: Real::from(1.0),
        softcap: Real::from(0.0),
        causal,
        window,
    };
    let (q, k) = (f(&[1, 1, 3, 1], &[1.0; 3]), f(&[1, 1, 2, 1], &[1.0; 2]));
    let v = f(&[1, 1, 2, 1], &[4.0, 8.0]);
    assert_eq!(numbers(&eval(&attention(true, 0), &[&q, &k, &v])), [0.0, 4.0, 6.0]);
    assert_eq!(numbers(&eval(&attention(true, 1), &[&q, &k, &v])), [0.0, 4.0, 8.0]);
    let none = f(&[1, 1, 0, 1], &[]);
    assert_eq!(numbers(&eval(&attention(false, 0), &[&q, &none, &none])), [0.0; 3]);
}

#[test]
fn narrow_types_quantize_and_saturate() {
    let quantize = |dtype, saturate| Operator::Quantize { dtype, axis: 0, block: 0, saturate };
    let x = f(&[4], &[-100.0, 1.0, 2.5, 100.0]);
    let run = |operator: &Operator, zero: &Tensor| numbers(&eval(operator, &[&x, &f(&[], &[1.0]), zero]));
    assert_eq!(run(&quantize(DType::I4, true), &t(DType::I4, &[], &[1.0])), [-8.0, 2.0, 3.0, 7.0]);
    assert_eq!(run(&quantize(DType::U2, true), &t(DType::U2, &[], &[0.0])), [0.0, 1.0, 2.0, 3.0]);
    let fp8 = t(DType::F8E5M2, &[], &[0.0]);
    assert_eq!(run(&quantize(DType::F8E5M2, true), &fp8), [-96.0, 1.0, 2.5, 96.0]);
    let back = Operator::Dequantize { dtype: DType::F16, axis: 0, block: 0 };
    let y = eval(
        &back,
        &[&t(DType::I4, &[2], &[-8.0, 7.0]), &t(DType::F16, &[], &[0.5]), &t(DType::I4, &[], &[-1.0])],
    );
    assert_eq!((y.dtype(), numbers(&y)), (DType::F16, vec![-3.5, 4.0]));
}

#[test]
fn equal_elements_keep_their_order() {
    let x = t(DType::U64, &[4], &[5.0, 7.0, 5.0, 7.0]);
    let operator = Operator::TopK { axis: 0, k: 4.into(), largest: true };
    assert_eq!(eval_all(&operator, &[&x]).unwrap()[1].integers().unwrap(), [1, 3, 0, 2]);
    let operator = Operator::TopK { axis: 0, k: 4.into(), largest: false };
    assert_eq!(eval_all(&operator, &[&x]).unwrap()[1].integers().unwrap(), [0, 2, 1, 3]);
    let operator = Operator::TopK { axis: 0, k: 5.into(), largest: true };
    assert!(eval_all(&operator, &[&x]).is_err());
}
