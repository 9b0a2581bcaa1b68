//! A layer of a transformer: attention and a feed-forward network with residual connections, in searched widths.

use tcc_hls::formats::error;
use tcc_hls::{Architecture, Choice, Numbers, Options, Plan, ProgramFormats};
use tcc_ir::builder::Builder;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};
use tcc_passes::program::Program;

use crate::models::{dense, model, numbers, ty};
use crate::simulate::{project_of, simulate_everywhere};

const TOKENS: usize = 5;
const WIDTH: usize = 8;
const HEADS: usize = 2;

fn scaled(count: usize, seed: u64, by: f32) -> Vec<f32> {
    numbers(count, seed).into_iter().map(|value| value * by).collect()
}

fn linear(
    builder: &mut Builder,
    name: &str,
    x: Value,
    (inputs, outputs): (usize, usize),
    seed: u64,
) -> Value {
    let weights = scaled(inputs * outputs, seed, 0.5);
    let biases = scaled(outputs, seed + 1, 0.1);
    dense(builder, name, x, (inputs, outputs), (&weights, &biases), false)
}

fn sum(builder: &mut Builder, a: Value, b: Value) -> Value {
    let mut body = ScalarExpr::with_inputs(2);
    body.result = body.apply(Function::Add, &[Arg::Input(0), Arg::Input(1)]);
    builder.map(body, &[a, b]).unwrap()
}

/// x / 2 * (1 + erf(x / sqrt(2))).
fn gelu(builder: &mut Builder, x: Value) -> Value {
    let constant = |value: f64| Arg::Const(Scalar::float(DType::F32, value));
    let mut body = ScalarExpr::with_inputs(1);
    let inner = body.apply(Function::Mul, &[Arg::Input(0), constant(std::f64::consts::FRAC_1_SQRT_2)]);
    let erf = body.apply(Function::Erf, &[inner]);
    let half = body.apply(Function::Mul, &[Arg::Input(0), constant(0.5)]);
    let one = body.apply(Function::Add, &[erf, constant(1.0)]);
    body.result = body.apply(Function::Mul, &[half, one]);
    builder.map(body, &[x]).unwrap()
}

fn transformer() -> Program {
    let (tokens, width) = (TOKENS as i64, WIDTH as i64);
    let (heads, depth) = (HEADS as i64, (WIDTH / HEADS) as i64);
    model(ty(DType::F32, &[tokens, width]), |builder, x| {
        let normal = builder.normalize(x, vec![1], 1e-5, false).unwrap();
        let mut parts = Vec::new();
        for (name, seed) in [("query", 10), ("key", 20), ("value", 30)] {
            let part = linear(builder, name, normal, (WIDTH, WIDTH), seed);
            let split = vec![1.into(), tokens.into(), heads.into(), depth.into()];
            let split = builder.reshape(part, split).unwrap();
            parts.push(builder.transpose(split, vec![0, 2, 1, 3]).unwrap());
        }
        let attention = Operator::Attention {
            scale: (1.0 / (depth as f64).sqrt()).into(),
            softcap: 0.0.into(),
            causal: false,
            window: 0,
        };
        let mixed = builder.op1(attention, &parts).unwrap();
        let turned = builder.transpose(mixed, vec![0, 2, 1, 3]).unwrap();
        let flat = builder.reshape(turned, vec![tokens.into(), width.into()]).unwrap();
        let projected = linear(builder, "projection", flat, (WIDTH, WIDTH), 40);
        let x = sum(builder, x, projected);
        let normal = builder.normalize(x, vec![1], 1e-5, false).unwrap();
        let hidden = linear(builder, "up", normal, (WIDTH, 2 * WIDTH), 50);
        let active = gelu(builder, hidden);
        let down = linear(builder, "down", active, (2 * WIDTH, WIDTH), 60);
        sum(builder, x, down)
    })
}

#[test]
fn a_layer_of_a_transformer_in_both_architectures() {
    let program = transformer();
    let bytes = |seed| numbers(TOKENS * WIDTH, seed).iter().flat_map(|value| value.to_le_bytes()).collect();
    let calibration: Vec<Vec<Vec<u8>>> = (1..4).map(|seed| vec![bytes(seed)]).collect();
    let formats = ProgramFormats::choose(&program, &Numbers::Searched, &calibration).unwrap();
    assert!(error(&program, &formats, &calibration).unwrap() <= 0.01);
    for architecture in [Architecture::Sequential, Architecture::Dataflow] {
        let choice = Choice::Plan(Plan { architecture, parallel: Vec::new() });
        let options = Options {
            numbers: Numbers::Searched,
            choice,
            calibration: calibration.clone(),
            ..Options::default()
        };
        simulate_everywhere("transformer", &project_of(&program, &options));
    }
}
