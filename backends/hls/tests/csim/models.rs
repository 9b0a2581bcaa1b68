//! Small programs.

use bytes::Bytes;
use tcc_ir::builder::Builder;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::module::{Location, Module, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};
use tcc_ir::types::Type;
use tcc_ir::words::{Layout, WindowKind};
use tcc_passes::program::{Program, ProgramOptions, build};
use tcc_runtime::manifest::Target;

/// A tensor type.
pub fn ty(dtype: DType, shape: &[i64]) -> Type {
    Type::tensor(dtype, shape.iter().map(|dim| tcc_ir::dim::Dim::Const(*dim)).collect())
}

/// A model with an input `x` and an output `y`.
pub fn model(input: Type, body: impl FnOnce(&mut Builder, Value) -> Value) -> Program {
    let mut builder = Builder::new("main");
    let x = builder.input("x", input);
    let y = body(&mut builder, x);
    let function = builder.finish(&[("y", y)]);
    let mut module = Module::default();
    module.functions.insert("main".into(), function);
    let options =
        ProgramOptions { tuning: tcc_hls::tuning(), name: "model".into(), target: Target::host_baseline() };
    build(&module, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers within -1 to 1 that look random.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A constant of f32.
pub fn floats(builder: &mut Builder, shape: &[usize], values: &[f32]) -> Value {
    builder.constant(Data::from_f32(shape, values).unwrap()).unwrap()
}

/// A constant of i8 with values of the whole range.
pub fn bytes(builder: &mut Builder, shape: &[usize], seed: u64) -> Value {
    let count = shape.iter().product();
    let values: Vec<u8> = numbers(count, seed).iter().map(|value| (value * 128.0) as i8 as u8).collect();
    builder.constant(Data::new(DType::I8, shape, Bytes::from(values)).unwrap()).unwrap()
}

/// Sum plus bias; with `relu` the larger of that and 0.
pub fn bias(relu: bool) -> ScalarExpr {
    let mut epilogue = ScalarExpr::with_inputs(2);
    epilogue.result = epilogue.apply(Function::Add, &[Arg::Input(0), Arg::Input(1)]);
    if relu {
        let zero = Arg::Const(Scalar::float(DType::F32, 0.0));
        epilogue.result = epilogue.apply(Function::Max, &[epilogue.result, zero]);
    }
    epilogue
}

/// A dense layer.
pub fn dense(
    builder: &mut Builder,
    name: &str,
    x: Value,
    (inputs, outputs): (usize, usize),
    (weights, biases): (&[f32], &[f32]),
    relu: bool,
) -> Value {
    builder.set_location(Location::named(name));
    let w = floats(builder, &[inputs, outputs], weights);
    let b = floats(builder, &[outputs], biases);
    let operator = Operator::Contract {
        spec: ContractionSpec::matmul(0),
        accumulator: DType::F32,
        epilogue: bias(relu),
    };
    builder.op1(operator, &[x, w, b]).unwrap()
}

/// A convolution of channels-last images with stride and equal padding.
pub fn convolution(
    accumulator: DType,
    stride: usize,
    pad: i64,
    groups: usize,
    epilogue: ScalarExpr,
) -> Operator {
    Operator::Convolve {
        layout: Layout::ChannelsLast,
        groups,
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads: vec![pad; 4],
        accumulator,
        epilogue,
    }
}

/// A maximum over windows of channels-last images.
pub fn max_pool(size: usize, stride: usize, pad: i64) -> Operator {
    Operator::Window {
        kind: WindowKind::Max,
        layout: Layout::ChannelsLast,
        size: vec![size; 2],
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads: vec![pad; 4],
        ceil: false,
    }
}
