//! Fixed point, bit by bit against integers.

use tcc_hls::{Fixed, Numbers, Options, Vector};
use tcc_ir::dtype::DType;

use crate::models::{dense, model, numbers, ty};
use crate::simulate::{project_of, simulate};

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
        let cases: Vec<Vec<f32>> = (0..5).map(|seed| scaled(numbers(inputs, 30 + seed))).collect();
        let vector = |case: &Vec<f32>| Vector {
            inputs: vec![case.iter().flat_map(|value| value.to_le_bytes()).collect()],
            outputs: vec![vec![0; 4 * outputs]],
        };
        let options = Options {
            numbers: Numbers::fixed(format).unwrap(),
            vectors: Some(cases.iter().map(vector).collect()),
            // The integer model decides, not the expected values of the testbench.
            tolerance: f64::MAX,
        };
        let project = project_of(&program, &options);
        let Some(actual) = simulate("dense_fixed", &project, &["y"]) else { return };
        let unit = 2f64.powi(-(format.fraction() as i32));
        let mut saturations = 0;
        for (case, results) in cases.iter().zip(actual[0].chunks(outputs)) {
            for (output, result) in results.iter().enumerate() {
                let products = case.iter().enumerate().map(|(input, value)| {
                    quantized(*value, format) * quantized(weights[input * outputs + output], format)
                });
                let bias = quantized(biases[output], format) << format.fraction();
                let sum = (products.sum::<i128>() + bias).max(0);
                let expected = saturated(rounded(sum, format.fraction()), format);
                saturations += usize::from(expected == (1 << (width - 1)) - 1);
                assert_eq!(*result, expected as f64 * unit, "{format:?}, output {output}");
            }
        }
        assert!(integer > 2 || saturations > 0, "the narrow format saturates");
    }
}
