//! Products with block-quantized weights on every executable target, against the reference interpreter: every format, with
//! activations in floats and as integers, for no row, one, and numbers that are no whole blocks of rows.

use tcc::compile::compile_module;
use tcc::inputs::{Inputs, ordered, to_data};
use tcc::passes::quantize::Activations;
use tcc::runtime::Session;
use tcc::{CompileOptions, Target};
use tcc_ir::block_format::{BlockFormat, COARSE_STEP, RowForm};
use tcc_ir::builder::Builder;
use tcc_ir::data::Data;
use tcc_ir::dim::{Dim, Range, Symbol};
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

/// Numbers that look arbitrary and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Random blocks; 2-byte scales are 1/16 at most, the 4-byte one is 1/16.
fn weights(format: BlockFormat, outputs: usize, depth: usize, numbers: &mut Numbers) -> Data {
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
    let row = format.row_bytes(depth).unwrap();
    let mut bytes: Vec<u8> = (0..outputs * row).map(|_| numbers.next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for at in halves {
            block[at + 1] = 0x28 | block[at + 1] & 0x83;
        }
        if format == B::Q8K {
            block[..4].copy_from_slice(&0.0625f32.to_le_bytes());
        }
    }
    Data::new(DType::U8, &[outputs, row], bytes.into()).unwrap()
}

const OUTPUTS: usize = 37;

/// `x W^T` for `x` `[n, depth]`, and the weights' numbers.
fn module(format: BlockFormat, depth: usize, numbers: &mut Numbers) -> (Module, Vec<f32>) {
    let bytes = weights(format, OUTPUTS, depth, numbers);
    let decode = Operator::DecodeBlocks { format, dtype: DType::F32 };
    let decoded = tcc_interpret::evaluate(&decode, std::slice::from_ref(&bytes), &|_| None).unwrap();
    let mut b = Builder::new("main");
    b.declare(&Symbol::new("n"), Range { low: 0, high: 100 });
    let x = b.input("x", Type::tensor(DType::F32, vec![Dim::named("n"), depth.into()]));
    let bytes = b.constant(bytes).unwrap();
    let w = b.op1(decode, &[bytes]).unwrap();
    let y = b.contract("nk,mk->nm".parse().unwrap(), x, w).unwrap();
    (Module::with(b.finish(&[("y", y)])), decoded[0].to_f32().unwrap())
}

/// What integer activations make of rows.
fn rounded(x: &Data, rows: RowForm) -> Vec<f32> {
    let operator = Operator::QuantizeRows { group: 32, sum: 32, rows };
    let parts = tcc_interpret::evaluate(&operator, std::slice::from_ref(x), &|_| None).unwrap();
    let mut codes = parts[0].to_integers().unwrap();
    if let Some(fine) = parts.get(3) {
        let fine = fine.to_integers().unwrap();
        codes.iter_mut().zip(fine).for_each(|(code, fine)| *code = *code * COARSE_STEP + fine);
    }
    let scales = parts[1].to_f32().unwrap();
    codes.iter().enumerate().map(|(index, code)| *code as f32 * scales[index / 32]).collect()
}

fn check(target: &str) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for format in BlockFormat::ALL {
        let depth = format.elements().max(96).next_multiple_of(format.elements());
        let (module, decoded) = module(*format, depth, &mut numbers);
        for activations in [Activations::Float, Activations::Int8, Activations::Int16] {
            let options = CompileOptions {
                threads: 1,
                activations: Some(activations),
                ..CompileOptions::new(Target::named(target).unwrap())
            };
            let compiled = compile_module(module.clone(), "blocks", &options).unwrap();
            let executable = compiled.executable().unwrap();
            for rows in [0, 1, 3, 17] {
                let x: Vec<f32> = (0..rows * depth).map(|_| numbers.float()).collect();
                let x = Data::from_f32(&[rows, depth], &x).unwrap();
                let inputs = Inputs::from([("x".to_string(), x.clone())]);
                let ordered = ordered(&compiled.manifest, &inputs).unwrap();
                let arguments = ordered.tensors().unwrap();
                let mut session = Session::new(&executable, 2).unwrap();
                let y = to_data(&session.run(&arguments).unwrap()[0]).unwrap();
                let factors = match activations {
                    Activations::Float => x.to_f32().unwrap(),
                    Activations::Int8 | Activations::Int16 => rounded(&x, activations.rows()),
                };
                compare(*format, &factors, &decoded, &y, depth);
            }
        }
    }
}

/// A kernel multiplies codes by a scale and adds an offset, each at most three times the largest number of the row, because
/// random codes reach far to both sides; every term meets at most `depth + 8` roundings of f32.
fn compare(format: BlockFormat, x: &[f32], w: &[f32], y: &Data, depth: usize) {
    let found = y.to_f32().unwrap();
    assert_eq!(found.len(), x.len() / depth * OUTPUTS);
    for (row, factors) in x.chunks_exact(depth).enumerate() {
        let magnitude: f64 = factors.iter().map(|factor| f64::from(factor.abs())).sum();
        for (output, weights) in w.chunks_exact(depth).enumerate() {
            let exact: f64 = factors.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let terms = 6.0 * magnitude * f64::from(largest);
            let bound = (depth as f64 + 8.0) * f64::from(f32::EPSILON) * terms;
            let value = f64::from(found[row * OUTPUTS + output]);
            assert!(
                (value - exact).abs() <= bound,
                "{} row {row} output {output}: {value}, expected {exact} within {bound}",
                format.text()
            );
        }
    }
}

#[cfg(feature = "llvm")]
#[test]
fn formats_multiply_on_llvm() {
    check("cpu");
}

#[test]
fn formats_multiply_on_cranelift() {
    check("cranelift");
}
