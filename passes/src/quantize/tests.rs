//! Where products take packed weights, where they do not, and that they compute the same.

use tcc_ir::block_format::BlockFormat;
use tcc_ir::builder::Builder;
use tcc_ir::data::Data;
use tcc_ir::dim::{Dim, Range, Symbol};
use tcc_ir::dtype::DType;
use tcc_ir::module::{Function, Module, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function as Scalar, Scalar as Number};
use tcc_ir::types::Type;
use tcc_ir::words::ReduceKind;
use tcc_kernel::lower::Tuning;
use tcc_runtime::manifest::Target;

use super::Activations;
use crate::program::{self, ProgramOptions};
use crate::rules::testing::*;

/// The function after the default pipeline.
fn optimized(function: &Function, activations: Activations) -> Function {
    let mut module = Module::with(function.clone());
    let mut context = context();
    context.activations = activations;
    crate::optimize(&mut module, &context).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    module.entry().unwrap().clone()
}

/// Blocks of zeros and ones, the scale the same in all.
fn blocks(format: BlockFormat, shape: &[usize]) -> Data {
    let count: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..count)
        .map(|index| match index % format.bytes() {
            0 => 0,
            1 => 0x2c,
            _ => (index * 37 % 251) as u8,
        })
        .collect();
    Data::new(DType::U8, shape, bytes.into()).unwrap()
}

fn rows(b: &mut Builder, depth: i64) -> Value {
    b.declare(&Symbol::new("n"), Range { low: 0, high: 100 });
    b.input("x", Type::tensor(DType::F32, vec![Dim::named("n"), depth.into()]))
}

fn linear(b: &mut Builder, x: Value, outputs: usize, depth: usize) -> Value {
    let format = BlockFormat::Q4_0;
    let bytes = b.constant(blocks(format, &[outputs, format.row_bytes(depth).unwrap()])).unwrap();
    let w = b.op1(Operator::DecodeBlocks { format, dtype: DType::F32 }, &[bytes]).unwrap();
    b.contract("nk,mk->nm".parse().unwrap(), x, w).unwrap()
}

/// Two projections of one value, one with a bias.
fn projections() -> Function {
    function(|b| {
        let x = rows(b, 64);
        let first = linear(b, x, 24, 64);
        let second = linear(b, x, 7, 64);
        let bias = weights(b, 3, &[7]);
        vec![first, b.call(Scalar::Add, &[second, bias]).unwrap()]
    })
}

#[test]
fn products_with_blocks_read_them_packed() {
    let before = projections();
    let after = optimized(&before, Activations::Float);
    assert_eq!(operators(&after), ["block_contract", "block_contract"]);
    assert_equivalent(&before, &after);
}

#[test]
fn products_of_one_value_share_its_bytes() {
    let before = projections();
    for (activations, codes) in [(Activations::Int8, 127.0), (Activations::Int16, 16256.0)] {
        let after = optimized(&before, activations);
        assert_eq!(operators(&after), ["quantize_rows", "block_contract", "block_contract"]);
        let inputs = random_inputs(&before, &mut Numbers::new(9));
        for (a, b) in run(&before, &inputs).iter().zip(run(&after, &inputs)) {
            let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
            // Each of 64 activations below 2 is off by half a step of 2 / codes at most, each weight below 8 * 2^-4.
            let bound = 64.0 * (1.0 / codes) * 0.5 + 1e-4;
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= bound), "{a:?} {b:?}");
        }
    }
}

#[test]
fn products_of_one_value_are_one_step() {
    let before = function(|b| {
        let x = rows(b, 64);
        let first = linear(b, x, 24, 64);
        let changed = b.call(Scalar::Tanh, &[first]).unwrap();
        let scan = Operator::Scan { kind: ReduceKind::Sum, axis: 1, exclusive: false, reverse: false };
        let changed = b.op1(scan, &[changed]).unwrap();
        let second = linear(b, x, 8, 64);
        vec![changed, second]
    });
    let after = optimized(&before, Activations::Int8);
    assert_eq!(operators(&after), ["quantize_rows", "block_contract", "block_contract", "scan"]);
    let tuning = Tuning {
        vector_bits: 256,
        vector_registers: 16,
        l1_bytes: 32 << 10,
        l2_bytes: 1 << 20,
        dot: true,
        gpu: None,
    };
    let options = ProgramOptions { tuning, name: "products".into(), target: Target::host_baseline() };
    let program = program::build(&Module::with(after), &options).unwrap();
    assert_eq!(program.manifest.steps.len(), 3);
}

#[test]
fn decoded_weights_with_other_readers_stay() {
    let before = function(|b| {
        let format = BlockFormat::Q4_0;
        let bytes = b.constant(blocks(format, &[4, 36])).unwrap();
        let w = b.op1(Operator::DecodeBlocks { format, dtype: DType::F32 }, &[bytes]).unwrap();
        let x = input(b, "x", &[4, 64]);
        vec![b.call(Scalar::Add, &[x, w]).unwrap()]
    });
    let after = optimized(&before, Activations::Int8);
    assert!(operators(&after).contains(&"decode_blocks"));
    assert_equivalent(&before, &after);
}

#[test]
fn products_along_the_rows_of_blocks_stay() {
    let before = function(|b| {
        let format = BlockFormat::Q4_0;
        let bytes = b.constant(blocks(format, &[32, 36])).unwrap();
        let w = b.op1(Operator::DecodeBlocks { format, dtype: DType::F32 }, &[bytes]).unwrap();
        let x = rows(b, 32);
        vec![b.contract("nk,km->nm".parse().unwrap(), x, w).unwrap()]
    });
    let after = optimized(&before, Activations::Float);
    assert!(!operators(&after).contains(&"block_contract"));
    assert_equivalent(&before, &after);
}

/// `x` times dequantized 4-bit codes, as `MatMulNBits` without zero points is imported.
fn affine(block: usize) -> Function {
    function(|b| {
        let x = rows(b, 64);
        let codes: Vec<u8> = (0..9 * 64 / 2).map(|index| (index * 41 % 251) as u8).collect();
        let codes = b.constant(Data::new(DType::U4, &[9, 64], codes.into()).unwrap()).unwrap();
        let scale = weights(b, 5, &[9, 64 / block]);
        let zero = b.scalar(Number::of(DType::U4, 8.0)).unwrap();
        let zero = b.broadcast(zero, vec![9.into(), (64 / block).into()]).unwrap();
        let dequantize = Operator::Dequantize { dtype: DType::F32, axis: 1, block };
        let w = b.op1(dequantize, &[codes, scale, zero]).unwrap();
        vec![b.contract("nk,mk->nm".parse().unwrap(), x, w).unwrap()]
    })
}

#[test]
fn products_with_blocks_of_codes_read_them_packed() {
    for block in [16, 32, 64] {
        let before = affine(block);
        let after = optimized(&before, Activations::Float);
        assert_eq!(operators(&after), ["block_contract"]);
        assert_equivalent(&before, &after);
    }
    assert!(!operators(&optimized(&affine(8), Activations::Float)).contains(&"block_contract"));
}

#[test]
fn chosen_experts_are_read_packed() {
    let before = function(|b| {
        let format = BlockFormat::Q4_0;
        let x = b.input("x", Type::tensor(DType::F32, vec![5.into(), 32.into()]));
        let scores = b.input("scores", Type::tensor(DType::F32, vec![5.into(), 3.into()]));
        let best = Operator::ArgReduce { kind: ReduceKind::Max, axis: 1, keep: false, last: false };
        let chosen = b.op1(best, &[scores]).unwrap();
        let bytes = b.constant(blocks(format, &[3, 6, 18])).unwrap();
        let own = b.op1(Operator::Gather { axis: 0 }, &[bytes, chosen]).unwrap();
        let w = b.op1(Operator::DecodeBlocks { format, dtype: DType::F32 }, &[own]).unwrap();
        vec![b.contract("rk,rmk->rm".parse().unwrap(), x, w).unwrap()]
    });
    let after = optimized(&before, Activations::Float);
    assert_eq!(operators(&after), ["arg_reduce", "block_contract"]);
    assert_equivalent(&before, &after);
}

#[test]
fn large_f16_weights_stay_f16() {
    for (width, narrow) in [(256, true), (4, false)] {
        let before = function(|b| {
            let x = rows(b, 128);
            let w = b.constant(Numbers::new(4).tensor(DType::F16, &[width, 128])).unwrap();
            let w = b.cast(w, DType::F32).unwrap();
            vec![b.contract("nk,mk->nm".parse().unwrap(), x, w).unwrap()]
        });
        let after = optimized(&before, Activations::Float);
        let kept = after.body.operations.iter().any(
            |operation| matches!(&operation.operator, Operator::Constant { data } if data.dtype() == DType::F16),
        );
        assert_eq!((operators(&after), kept), (vec!["contract"], narrow));
        assert_equivalent(&before, &after);
    }
}
