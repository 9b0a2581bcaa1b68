//! Fixed point, bit by bit against integers and against the interpreter.

use tcc_hls::formats::error;
use tcc_hls::reference::run;
use tcc_hls::{Error, Fixed, Numbers, Options, Part, ProgramFormats, Vector, project};
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};
use tcc_passes::program::Program;

use crate::models::{bias, convolution, dense, floats, max_pool, model, numbers, ty};
use crate::simulate::{project_of, simulate, simulate_everywhere};

/// The nearest fixed-point number, halves to even, saturating, as an integer.
fn quantized(value: f32, format: Fixed) -> i128 {
    let scaled = (f64::from(value) * 2f64.powi(format.fraction() as i32)).round_ties_even() as i128;
    saturated(scaled, format)
}

fn saturated(value: i128, format: Fixed) -> i128 {
    let limit = 1i128 << (format.width - 1);
    value.clamp(-limit, limit - 1)
}

/// `value / 2^shift`, halves to even.
fn rounded(value: i128, shift: u32) -> i128 {
    let half = if shift == 0 { 0 } else { 1i128 << (shift - 1) };
    let (floor, rest) = (value >> shift, value & ((1i128 << shift) - 1));
    if rest > half || (rest == half && shift > 0 && floor & 1 == 1) { floor + 1 } else { floor }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_dense_layer_is_the_integer_model() {
    let (inputs, outputs) = (19, 7);
    for (width, integer, scale) in [(16, 6, 1.0), (8, 3, 1.0), (12, 2, 4.0)] {
        let format = Fixed { width, integer };
        let scaled = |values: Vec<f32>| values.into_iter().map(|value| value * scale).collect::<Vec<f32>>();
        let (weights, biases) = (scaled(numbers(inputs * outputs, 21)), scaled(numbers(outputs, 22)));
        let program = model(ty(DType::F32, &[1, inputs as i64]), |builder, x| {
            dense(builder, "dense", x, (inputs, outputs), (&weights, &biases), true)
        });
        let unit = 2f64.powi(-(format.fraction() as i32));
        let mut saturations = 0;
        let mut vectors = Vec::new();
        for seed in 0..5 {
            let case = scaled(numbers(inputs, 30 + seed));
            let mut expected = Vec::new();
            for output in 0..outputs {
                let products = case.iter().enumerate().map(|(input, value)| {
                    quantized(*value, format) * quantized(weights[input * outputs + output], format)
                });
                let bias = quantized(biases[output], format) << format.fraction();
                let sum = (products.sum::<i128>() + bias).max(0);
                let result = saturated(rounded(sum, format.fraction()), format);
                saturations += usize::from(result == (1 << (width - 1)) - 1);
                expected.push(Scalar::float(DType::F32, result as f64 * unit));
            }
            vectors.push(Vector { inputs: vec![bytes_of(&case)], outputs: vec![expected] });
        }
        assert!(integer > 2 || saturations > 0, "the narrow format saturates");
        let numbers = Numbers::Fixed(format);
        let formats = ProgramFormats::choose(&program, &numbers, &[]).unwrap();
        for vector in &vectors {
            assert_eq!(run(&program, &formats, &vector.inputs).unwrap(), vector.outputs, "{format}");
        }
        let options = Options { numbers, vectors: Some(vectors), ..Options::default() };
        simulate("dense_fixed", &project_of(&program, &options));
    }
}

/// Simulates in given and in ranged formats, bit by bit against the interpreter.
fn exact(test: &str, program: &Program) {
    for text in ["fixed<16,6>", "fixed<14>"] {
        let options = Options { numbers: text.parse().unwrap(), ..Options::default() };
        simulate_everywhere(test, &project_of(program, &options));
    }
}

#[test]
fn every_function_is_that_of_the_interpreter() {
    use Function::*;
    let mut body = ScalarExpr::with_inputs(1);
    let constant = |value: f64| Arg::Const(Scalar::float(DType::F32, value));
    let x = body.apply(Mul, &[Arg::Input(0), constant(9.0)]);
    let positive = body.apply(Abs, &[x]);
    let mut sum = x;
    for function in [Exp, Sigmoid, Tanh, Erf, Sin, Cos, Floor, Ceil, Round, Trunc, Abs, Sign, Neg] {
        let part = body.apply(function, &[Arg::Input(0)]);
        let wide = body.apply(if function == Exp { Tanh } else { function }, &[x]);
        let both = body.apply(Sub, &[part, wide]);
        sum = body.apply(Add, &[sum, both]);
    }
    for function in [Sqrt, Log, Reciprocal] {
        let part = body.apply(function, &[positive]);
        let bounded = body.apply(Min, &[part, constant(3.0)]);
        sum = body.apply(Add, &[sum, bounded]);
    }
    let quotient = body.apply(Div, &[Arg::Input(0), x]);
    let less = body.apply(Less, &[quotient, constant(0.1111)]);
    let chosen = body.apply(Select, &[less, quotient, sum]);
    let scaled = body.apply(Mul, &[chosen, constant(0.37)]);
    body.result = body.apply(Max, &[scaled, sum]);
    let program = model(ty(DType::F32, &[5, 23]), |builder, x| builder.map(body, &[x]).unwrap());
    exact("functions_fixed", &program);
}

#[test]
fn layers_are_those_of_the_interpreter() {
    for groups in [1, 4] {
        let program = model(ty(DType::F32, &[1, 7, 5, 4]), |builder, x| {
            let w = floats(builder, &[3, 3, 4 / groups, 4], &numbers(36 * 4 / groups, 3));
            let b = floats(builder, &[4], &numbers(4, 4));
            let y = builder.op1(convolution(DType::F32, 1, 1, groups, bias(true)), &[x, w, b]).unwrap();
            builder.op1(max_pool(2, 2, 0), &[y]).unwrap()
        });
        exact("convolution_fixed", &program);
    }
    let program = model(ty(DType::F32, &[1, 2, 5, 4]), |builder, x| {
        let attention =
            Operator::Attention { scale: 0.5.into(), softcap: 0.0.into(), causal: true, window: 0 };
        let mixed = builder.op1(attention, &[x, x, x]).unwrap();
        let normal = builder.normalize(mixed, vec![3], 1e-5, true).unwrap();
        let turned = builder.transpose(normal, vec![0, 2, 1, 3]).unwrap();
        builder.op1(Operator::Softmax { axis: 3, log: true }, &[turned]).unwrap()
    });
    exact("attention_fixed", &program);
}

fn regression() -> Program {
    let (weights, biases) = (numbers(16 * 8, 7), numbers(8, 8));
    let scaled: Vec<f32> = weights.iter().map(|value| value * 40.0).collect();
    model(ty(DType::F32, &[1, 16]), |builder, x| {
        let hidden = dense(builder, "hidden", x, (16, 8), (&scaled, &biases), true);
        dense(builder, "out", hidden, (8, 4), (&weights[..32], &biases[..4]), false)
    })
}

#[test]
fn searched_widths_are_accurate() {
    let program = regression();
    let calibration: Vec<Vec<Vec<u8>>> = (0..4).map(|seed| vec![bytes_of(&numbers(16, seed + 1))]).collect();
    let formats = ProgramFormats::choose(&program, &Numbers::Searched, &calibration).unwrap();
    assert!(error(&program, &formats, &calibration).unwrap() <= 0.01);
    assert!(formats.width().unwrap() < 20, "{:?}", formats.width());
    let options = Options { numbers: Numbers::Searched, calibration, ..Options::default() };
    simulate("searched", &project_of(&program, &options));
}

#[test]
fn values_beyond_a_given_format_are_refused_with_their_layer() {
    let calibration = vec![vec![bytes_of(&numbers(16, 5))]];
    let options = Options { numbers: "fixed<16,4>".parse().unwrap(), calibration, ..Options::default() };
    let error = project(&regression(), &Part::named("u280").unwrap(), &options).unwrap_err();
    let Error::Overflow { observed, integer, .. } = &error else { panic!("{error}") };
    assert!(*observed > 8.0 && *integer > 4, "{error}");
}
