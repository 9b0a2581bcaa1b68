//! Whole small networks through the pipeline.

use tcc_ir::builder::Builder;
use tcc_ir::dtype::DType;
use tcc_ir::module::{Module, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function as Scalar, ScalarExpr};
use tcc_ir::words::{Layout, ReduceKind};

use super::testing::*;

pub(super) fn convolve(b: &mut Builder, x: Value, w: Value, stride: usize, pad: i64, groups: usize) -> Value {
    let operator = Operator::Convolve {
        layout: Layout::ChannelsFirst,
        groups,
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads: vec![pad; 4],
        accumulator: DType::F32,
        epilogue: ScalarExpr::identity(),
    };
    b.op1(operator, &[x, w]).unwrap()
}

fn batch_norm(b: &mut Builder, x: Value, seed: u64, channels: usize) -> Value {
    let (scale, shift) = (weights(b, seed, &[channels, 1, 1]), weights(b, seed + 1, &[channels, 1, 1]));
    let scaled = b.call(Scalar::Mul, &[x, scale]).unwrap();
    b.call(Scalar::Add, &[scaled, shift]).unwrap()
}

fn relu6(b: &mut Builder, x: Value) -> Value {
    let low = b.call_with(Scalar::Max, x, 0.0).unwrap();
    b.call_with(Scalar::Min, low, 6.0).unwrap()
}

/// An inverted residual block with batch norms, as MobileNetV2 has it, between two plain convolutions.
fn inverted_residual() -> tcc_ir::module::Function {
    function(|b| {
        let x = input(b, "x", &[1, 3, 17, 13]);
        let stem = weights(b, 1, &[8, 3, 3, 3]);
        let x = convolve(b, x, stem, 2, 1, 1);
        let x = batch_norm(b, x, 2, 8);
        let x = relu6(b, x);
        let expand = weights(b, 4, &[24, 8, 1, 1]);
        let y = convolve(b, x, expand, 1, 0, 1);
        let y = batch_norm(b, y, 5, 24);
        let y = relu6(b, y);
        let depthwise = weights(b, 7, &[24, 1, 3, 3]);
        let y = convolve(b, y, depthwise, 1, 1, 24);
        let y = batch_norm(b, y, 8, 24);
        let y = relu6(b, y);
        let project = weights(b, 10, &[8, 24, 1, 1]);
        let y = convolve(b, y, project, 1, 0, 1);
        let y = batch_norm(b, y, 11, 8);
        let sum = b.call(Scalar::Add, &[x, y]).unwrap();
        let pooled = b.reduce(ReduceKind::Sum, sum, vec![2, 3], true).unwrap();
        let pooled = b.call_with(Scalar::Div, pooled, 63.0).unwrap();
        vec![b.reshape(pooled, vec![1.into(), 8.into()]).unwrap()]
    })
}

#[test]
fn an_inverted_residual_becomes_four_convolutions() {
    let before = inverted_residual();
    let mut module = Module::with(before.clone());
    crate::optimize(&mut module, &context()).unwrap();
    let after = module.entry().unwrap();
    eprintln!("{}", tcc_ir::print::display(&module));
    tcc_ir::verify::verify(&module).unwrap();
    assert_equivalent(&before, after);
    let names = operators(after);
    assert_eq!(names.iter().filter(|name| **name == "convolve").count(), 4);
    assert!(names.iter().filter(|name| **name == "transpose").count() <= 1, "{names:?}");
    assert!(!names.contains(&"map"), "{names:?}");
}

#[test]
fn the_pipeline_gives_the_same_text_every_time() {
    let text = || {
        let mut module = Module::with(inverted_residual());
        crate::optimize(&mut module, &context()).unwrap();
        tcc_ir::print::module(&module)
    };
    assert_eq!(text(), text());
}
