//! Integers, bit by bit.

use tcc_hls::Options;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr, ScalarOp};

use crate::models::{bytes, convolution, max_pool, model, ty};
use crate::simulate::{project_of, simulate};

/// A shift to the right and a saturating conversion to i8.
fn requantized() -> ScalarExpr {
    let mut epilogue = ScalarExpr::with_inputs(1);
    let by = Arg::Const(Scalar::integer(DType::I32, 7));
    let shifted = epilogue.apply(Function::ShiftRight, &[Arg::Input(0), by]);
    epilogue.result = epilogue.push(ScalarOp::CastAlternate(DType::I8), &[shifted]);
    epilogue
}

#[test]
fn dense_and_convolution_of_bytes() {
    let program = model(ty(DType::I8, &[1, 5, 5, 3]), |builder, x| {
        let w = bytes(builder, &[3, 3, 3, 6], 11);
        let convolved = builder.op1(convolution(DType::I32, 1, 1, 1, requantized()), &[x, w]).unwrap();
        let pooled = builder.op1(max_pool(2, 2, 0), &[convolved]).unwrap();
        let flat = builder.reshape(pooled, vec![1.into(), 24.into()]).unwrap();
        let w = bytes(builder, &[24, 5], 12);
        let operator = Operator::Contract {
            spec: ContractionSpec::matmul(0),
            accumulator: DType::I32,
            epilogue: ScalarExpr::identity(),
        };
        builder.op1(operator, &[flat, w]).unwrap()
    });
    let project = project_of(&program, &Options::default());
    simulate("bytes", &project);
}

#[test]
fn integer_functions_wrap_and_divide_as_the_interpreter() {
    for dtype in [DType::I8, DType::U8, DType::I16, DType::U32, DType::I64, DType::U64] {
        let mut body = ScalarExpr::with_inputs(1);
        let constant = |value: i64| Arg::Const(Scalar::integer(dtype, value));
        let x = Arg::Input(0);
        let mut sum = x;
        for (function, operand) in [
            (Function::Mul, constant(77)),
            (Function::Add, constant(100)),
            (Function::Div, constant(3)),
            (Function::BitXor, constant(0x55)),
            (Function::Sub, x),
            (Function::ShiftRight, constant(1)),
            (Function::ShiftLeft, constant(2)),
            (Function::Max, constant(5)),
            (Function::Rem, constant(50)),
            (Function::Add, x),
            (Function::Mod, constant(0)),
            (Function::Add, x),
            (Function::Mod, constant(7)),
        ] {
            sum = body.apply(function, &[sum, operand]);
        }
        let negative = body.apply(Function::Less, &[x, constant(3)]);
        let complement = body.apply(Function::BitNot, &[x]);
        let chosen = body.apply(Function::Select, &[negative, complement, sum]);
        body.result = body.apply(Function::Neg, &[chosen]);
        let program = model(ty(dtype, &[97]), |builder, x| builder.map(body, &[x]).unwrap());
        simulate(&format!("integers_{dtype}"), &project_of(&program, &Options::default()));
    }
}

#[test]
fn conversions_saturate_and_wrap() {
    let mut body = ScalarExpr::with_inputs(1);
    let scale = Arg::Const(Scalar::float(DType::F32, 300.0));
    let scaled = body.apply(Function::Mul, &[Arg::Input(0), scale]);
    let rounded = body.apply(Function::Round, &[scaled]);
    let byte = body.push(ScalarOp::Cast(DType::U8), &[rounded]);
    let wide = body.push(ScalarOp::Cast(DType::I32), &[rounded]);
    let narrow = body.push(ScalarOp::Cast(DType::I4), &[wide]);
    let a = body.push(ScalarOp::Cast(DType::I32), &[byte]);
    let b = body.push(ScalarOp::Cast(DType::I32), &[narrow]);
    let sixteen = Arg::Const(Scalar::integer(DType::I32, 16));
    let high = body.apply(Function::Mul, &[a, sixteen]);
    body.result = body.apply(Function::Add, &[high, b]);
    let program = model(ty(DType::F32, &[64]), |builder, x| builder.map(body, &[x]).unwrap());
    simulate("conversions", &project_of(&program, &Options::default()));
}
