//! Products with weights in blocks, which become numbers in the registers of a warp, against dequantized weights in f64.

use tcc_ir::block_format::{BlockFormat, RowForm, WeightForm};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_kernel::Kernel;
use tcc_kernel::lower::{Argument, Lowered, lower};
use tcc_ptx::schedule::tuning;
use tcc_ptx::{Target, module, sim};

use crate::cases::tensor;
use crate::execute::{Random, simulate};

/// Rows of weights: the last tile of four is not full.
const OUTPUTS: usize = 13;

/// Blocks of a row: more units than a warp has lanes.
fn depth(format: BlockFormat) -> usize {
    1056usize.next_multiple_of(format.elements())
}

/// Random blocks whose 2-byte scales are at most 1/16.
fn weights(format: BlockFormat, random: &mut Random) -> Data {
    use BlockFormat as B;
    let halves: &[usize] = match format {
        B::Q4_1 | B::Q5_1 | B::Q4K | B::Q5K => &[0, 2],
        B::Q2K => &[80, 82],
        B::Q3K => &[108],
        B::Q6K => &[208],
        B::Tq1_0 => &[52],
        B::Tq2_0 => &[64],
        _ => &[0],
    };
    let row = format.row_bytes(depth(format)).unwrap();
    let mut bytes: Vec<u8> = (0..OUTPUTS * row).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for at in halves {
            block[at + 1] = 0x28 | block[at + 1] & 0x83;
        }
        if format == B::Q8K {
            block[..4].copy_from_slice(&0.0625f32.to_le_bytes());
        }
    }
    Data::new(DType::U8, &[OUTPUTS, row], bytes.into()).unwrap()
}

fn lowered(format: BlockFormat, target: &Target) -> Lowered {
    let depth = depth(format);
    let operator = Operator::BlockContract {
        weights: WeightForm::Blocks(format),
        rows: RowForm::Float,
        experts: false,
        epilogue: "(1) a0".parse().unwrap(),
    };
    let row = format.row_bytes(depth).unwrap().to_string();
    let outputs = OUTPUTS.to_string();
    let operands = [tensor(DType::F32, &["n", &depth.to_string()]), tensor(DType::U8, &[&outputs, &row])];
    let results = [tensor(DType::F32, &["n", &outputs])];
    lower(&operator, &operands, &results, &[false, true], "weights", &tuning(target))
        .unwrap_or_else(|error| panic!("{}: {error}", format.text()))
}

/// One kernel of each format.
pub fn kernels(target: &Target) -> Vec<Kernel> {
    let formats = BlockFormat::ALL.iter();
    formats.flat_map(|format| lowered(*format, target).launches).map(|launch| launch.kernel).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A kernel multiplies codes by a scale and adds an offset, each at most three times the largest number of the row, because random
/// codes reach far to both sides; every term meets at most `depth + 8` roundings of f32.
fn compare(format: BlockFormat, x: &[f32], w: &[f32], y: &[f32]) {
    let depth = depth(format);
    for (row, factors) in x.chunks_exact(depth).enumerate() {
        let magnitude: f64 = factors.iter().map(|factor| f64::from(factor.abs())).sum();
        for (output, weights) in w.chunks_exact(depth).enumerate() {
            let exact: f64 = factors.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let terms = 6.0 * magnitude * f64::from(largest);
            let bound = (depth as f64 + 8.0) * f64::from(f32::EPSILON) * terms;
            let value = f64::from(y[row * OUTPUTS + output]);
            let name = format.text();
            assert!((value - exact).abs() <= bound, "{name} row {row} output {output}: {value}, not {exact}");
        }
    }
}

#[test]
fn every_format_becomes_numbers_in_registers() {
    let target = Target::named("sm_80").unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for format in BlockFormat::ALL {
        let depth = depth(*format);
        let lowered = lowered(*format, &target);
        let data = weights(*format, &mut random);
        let decode = Operator::DecodeBlocks { format: *format, dtype: DType::F32 };
        let decoded = tcc_interpret::evaluate(&decode, std::slice::from_ref(&data), &|_| None).unwrap();
        let [launch] = &lowered.launches[..] else { panic!("a product is one kernel") };
        let ptx = module(std::slice::from_ref(&launch.kernel), &target).unwrap();
        assert!(!ptx.text.contains(".local"), "{}: {}", format.text(), ptx.text);
        let parsed = sim::parse(&ptx.text).unwrap();
        for rows in [0, 1, 3] {
            let x: Vec<f32> =
                (0..rows * depth).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
            let place = |argument: &Argument| match argument {
                Argument::Operand(_) => bytes(&x),
                Argument::Result(_) => vec![0xa5; 4 * rows * OUTPUTS],
                Argument::Block(index) => {
                    lowered.blocks[*index].apply(std::slice::from_ref(&data)).unwrap().bytes().to_vec()
                }
                other => panic!("{other:?}"),
            };
            let mut buffers: Vec<Vec<u8>> = launch.arguments.iter().map(place).collect();
            simulate(&parsed, &ptx.launch[0], &mut buffers, &|_| Some(rows as i64), rows as u64)
                .unwrap_or_else(|error| panic!("{}: {error}", format.text()));
            let result = launch.arguments.iter().position(|argument| matches!(argument, Argument::Result(_)));
            let words = buffers[result.unwrap()].chunks(4);
            let y: Vec<f32> = words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
            compare(*format, &x, &decoded[0].to_f32().unwrap(), &y);
        }
    }
}
