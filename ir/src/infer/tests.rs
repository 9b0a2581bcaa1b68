use super::*;
use crate::operator::Operator as O;
use crate::words::{Layout, WindowKind};

fn dim(text: &str) -> Dim {
    crate::parse::dim(text).unwrap()
}

fn ty(text: &str) -> Type {
    crate::parse::ty(text).unwrap()
}

fn run(operator: &Operator, operands: &[&str]) -> Result<Inferred> {
    let types: Vec<Type> = operands.iter().map(|text| ty(text)).collect();
    infer(operator, &types.iter().collect::<Vec<_>>())
}

#[track_caller]
fn gives(operator: &Operator, operands: &[&str], results: &[&str], equalities: &[(&str, &str)]) {
    let inferred = run(operator, operands).unwrap();
    assert_eq!(inferred.results, results.iter().map(|text| ty(text)).collect::<Vec<_>>());
    let expected: Vec<(Dim, Dim)> = equalities.iter().map(|(a, b)| (dim(a), dim(b))).collect();
    assert_eq!(inferred.equalities, expected);
}

fn map(body: &str) -> Operator {
    O::Map { body: body.parse().unwrap() }
}

#[test]
fn broadcasting_takes_the_known_extent_and_reports_the_pair() {
    let add = map("(2) t0 = add(a0, a1); t0");
    gives(&add, &["tensor<?x1xf32, \"n; 1\">", "tensor<3xf32>"], &["tensor<?x3xf32, \"n; 3\">"], &[]);
    gives(&add, &["tensor<?xf32, \"n\">", "tensor<3xf32>"], &["tensor<3xf32>"], &[("n", "3")]);
    gives(
        &add,
        &["tensor<?xf32, \"2*n\">", "tensor<?xf32, \"m\">"],
        &["tensor<?xf32, \"m\">"],
        &[("2*n", "m")],
    );
    assert!(run(&add, &["tensor<2xf32>", "tensor<3xf32>"]).is_err());
    assert!(run(&add, &["tensor<2xf32>", "tensor<2xf64>"]).is_err());
    assert!(run(&add, &["tensor<2xf32>", "!tir.sequence<tensor<2xf32>>"]).is_err());
}

fn convolution(strides: &[usize], pads: &[i64], groups: usize) -> Operator {
    O::Convolve {
        layout: Layout::ChannelsFirst,
        groups,
        strides: strides.to_vec(),
        dilations: vec![1; strides.len()],
        pads: pads.to_vec(),
        accumulator: DType::F32,
        epilogue: ScalarExpr::identity(),
    }
}

#[test]
fn convolutions_compute_extents() {
    let x = "tensor<?x4x?x9xf32, \"n; 4; h; 9\">";
    let result = "tensor<?x6x?x4xf32, \"n; 6; floordiv(h-1, 2)+1; 4\">";
    gives(&convolution(&[2, 2], &[1, 0, 1, 0], 2), &[x, "tensor<6x2x3x3xf32>"], &[result], &[]);
    gives(
        &convolution(&[1], &[0, 0], 1),
        &["tensor<1x?x5xf32, \"1; c; 5\">", "tensor<2x3x2xf32>"],
        &["tensor<1x2x4xf32>"],
        &[("c", "3")],
    );
    assert!(run(&convolution(&[1], &[0, 0], 3), &["tensor<1x4x5xf32>", "tensor<6x2x2xf32>"]).is_err());
    assert!(run(&convolution(&[1], &[0, 0], 1), &["tensor<1x4x2xf32>", "tensor<6x4x5xf32>"]).is_err());
    assert!(run(&convolution(&[0], &[0, 0], 1), &["tensor<1x4x5xf32>", "tensor<6x4x2xf32>"]).is_err());
}

#[test]
fn a_window_that_would_start_in_the_high_padding_does_not_count() {
    let window = |ceil| O::Window {
        kind: WindowKind::Max,
        layout: Layout::ChannelsFirst,
        size: vec![2],
        strides: vec![3],
        dilations: vec![1],
        pads: vec![0, 1],
        ceil,
    };
    gives(&window(true), &["tensor<1x1x6xf32>"], &["tensor<1x1x2xf32>"], &[]);
    gives(&window(true), &["tensor<1x1x7xf32>"], &["tensor<1x1x3xf32>"], &[]);
    gives(&window(false), &["tensor<1x1x7xf32>"], &["tensor<1x1x3xf32>"], &[]);
}

#[test]
fn contractions_join_labels() {
    let matmul = O::Contract {
        spec: crate::contraction::ContractionSpec::matmul(1),
        accumulator: DType::I32,
        epilogue: ScalarExpr::cast(DType::F32),
    };
    let lhs = "tensor<?x3x?xui8, \"b; 3; k\">";
    gives(
        &matmul,
        &[lhs, "tensor<?x8x5xi8, \"c; 8; 5\">"],
        &["tensor<?x3x5xf32, \"b; 3; 5\">"],
        &[("b", "c"), ("k", "8")],
    );
    assert!(run(&matmul, &["tensor<1x3x4xui8>", "tensor<1x5x5xi8>"]).is_err());
    assert!(run(&matmul, &["tensor<3x4xui8>", "tensor<1x5x5xi8>"]).is_err());
}

#[test]
fn reshape_compares_element_counts() {
    let reshape = O::Reshape { shape: vec![dim("n"), dim("6")] };
    gives(&reshape, &["tensor<?x2x3xf32, \"n; 2; 3\">"], &["tensor<?x6xf32, \"n; 6\">"], &[]);
    gives(&reshape, &["tensor<?xf32, \"m\">"], &["tensor<?x6xf32, \"n; 6\">"], &[("m", "6*n")]);
    assert!(run(&O::Reshape { shape: vec![dim("4")] }, &["tensor<5xf32>"]).is_err());
}

#[test]
fn movement_keeps_track_of_extents() {
    gives(
        &O::Concat { axis: 0 },
        &["tensor<?x3xf32, \"n; 3\">", "tensor<2x?xf32, \"2; m\">"],
        &["tensor<?x3xf32, \"n+2; 3\">"],
        &[("3", "m")],
    );
    let pad = O::Pad { kind: crate::words::PadKind::Constant, low: vec![dim("1")], high: vec![dim("n")] };
    gives(&pad, &["tensor<?xf32, \"n\">", "tensor<f32>"], &["tensor<?xf32, \"2*n+1\">"], &[]);
    gives(
        &O::Gather { axis: 1 },
        &["tensor<2x9xf16>", "tensor<?x4xi64, \"n; 4\">"],
        &["tensor<2x?x4xf16, \"2; n; 4\">"],
        &[],
    );
    let gather = O::GatherNd { batch_dims: 1 };
    gives(&gather, &["tensor<5x6x7x8xf32>", "tensor<5x3x2xi64>"], &["tensor<5x3x8xf32>"], &[]);
    assert!(run(&O::Gather { axis: 1 }, &["tensor<2x9xf16>", "tensor<4xf32>"]).is_err());
    assert!(run(&O::Transpose { perm: vec![0, 0] }, &["tensor<2x9xf16>"]).is_err());
}

#[test]
fn prologue_and_epilogue_share_the_further_operands() {
    let reduce = O::Reduce {
        kind: ReduceKind::Sum,
        axes: vec![1],
        keep: false,
        prologue: "(2) t0 = mul(a0, a1); t0".parse().unwrap(),
        epilogue: "(2) t0 = add(a0, a1); t1 = cast<f16>(t0); t1".parse().unwrap(),
    };
    gives(&reduce, &["tensor<2x3xf32>", "tensor<3xf32>", "tensor<2xf32>"], &["tensor<2xf16>"], &[]);
    assert!(run(&reduce, &["tensor<2x3xf32>", "tensor<3xf32>"]).is_err());
    assert!(run(&reduce, &["tensor<2x3xf32>", "tensor<3xf32>", "tensor<3xf32>"]).is_err());
}

#[test]
fn recurrent_operands_agree() {
    let recurrent = |cell| O::Recurrent {
        cell,
        direction: crate::words::Direction::Forward,
        activations: vec![],
        alphas: vec![],
        betas: vec![],
        clip: 0.0f64.into(),
        linear_before_reset: false,
        input_forget: false,
    };
    let operands = [
        "tensor<?x2x4xf32, \"t; 2; 4\">",
        "tensor<1x15x4xf32>",
        "tensor<1x15x5xf32>",
        "tensor<1x30xf32>",
        "tensor<2xi32>",
        "tensor<1x2x5xf32>",
    ];
    let results = ["tensor<?x1x2x5xf32, \"t; 1; 2; 5\">", "tensor<1x2x5xf32>"];
    gives(&recurrent(CellKind::Gru), &operands, &results, &[]);
    assert!(run(&recurrent(CellKind::Lstm), &operands).is_err());
    assert!(run(&recurrent(CellKind::Rnn), &operands).is_err());
    let mut short = operands;
    short[3] = "tensor<1x15xf32>";
    assert!(run(&recurrent(CellKind::Gru), &short).is_err());
}
