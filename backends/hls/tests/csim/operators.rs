//! Single operators in floating point, within 1e-5 of the kernel interpreter: sums are not fused, and the exponential is
//! the C library's.

use tcc_hls::Options;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};

use crate::models::{convolution, dense, floats, max_pool, model, numbers, ty};
use crate::simulate::{project_of, simulate};
use tcc_passes::program::Program;

fn check(test: &str, program: &Program) {
    let options = Options { tolerance: 1e-5, ..Options::default() };
    simulate(test, &project_of(program, &options));
}

#[test]
fn products_of_matrices_of_awkward_sizes() {
    for (rows, depth, columns) in [(1, 1, 1), (5, 7, 6), (3, 13, 11)] {
        let program = model(ty(DType::F32, &[rows, depth]), |builder, x| {
            let (depth, columns) = (depth as usize, columns as usize);
            let (weights, biases) = (numbers(depth * columns, 1), numbers(columns, 2));
            dense(builder, "dense", x, (depth, columns), (&weights, &biases), false)
        });
        check("matmul", &program);
    }
}

#[test]
fn products_of_two_inputs_need_no_constant() {
    let program = model(ty(DType::F32, &[4, 4]), |builder, x| {
        builder.contract(ContractionSpec::matmul(0), x, x).unwrap()
    });
    check("square", &program);
}

#[test]
fn convolutions_with_borders_strides_and_groups() {
    for (stride, pad, groups) in [(1, 1, 1), (2, 0, 1), (1, 1, 4)] {
        let program = model(ty(DType::F32, &[1, 6, 5, 4]), |builder, x| {
            let (inner, outer) = (4 / groups, if groups == 1 { 3 } else { 4 });
            let w = floats(builder, &[3, 3, inner, outer], &numbers(9 * inner * outer, 3));
            let operator = convolution(DType::F32, stride, pad, groups, ScalarExpr::identity());
            builder.op1(operator, &[x, w]).unwrap()
        });
        check("convolution", &program);
    }
}

#[test]
fn elementwise_functions() {
    let mut body = ScalarExpr::with_inputs(1);
    let zero = Arg::Const(Scalar::float(DType::F32, 0.0));
    let relu = body.apply(Function::Max, &[Arg::Input(0), zero]);
    let parts =
        [Function::Exp, Function::Tanh, Function::Sigmoid, Function::Erf, Function::Floor, Function::Abs];
    body.result = parts.into_iter().fold(relu, |sum, function| {
        let part = body.apply(function, &[Arg::Input(0)]);
        body.apply(Function::Add, &[sum, part])
    });
    let program = model(ty(DType::F32, &[3, 11]), |builder, x| builder.map(body, &[x]).unwrap());
    check("elementwise", &program);
}

#[test]
fn max_pooling_and_softmax() {
    let pool =
        model(ty(DType::F32, &[1, 7, 5, 3]), |builder, x| builder.op1(max_pool(3, 2, 1), &[x]).unwrap());
    check("max_pool", &pool);
    for axis in [0, 1] {
        let softmax = model(ty(DType::F32, &[3, 10]), |builder, x| {
            builder.op1(Operator::Softmax { axis, log: false }, &[x]).unwrap()
        });
        check("softmax", &softmax);
    }
}
