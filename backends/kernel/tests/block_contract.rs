//! Kernels of `quantize_rows` and `block_contract` against dequantize-then-multiply in `f64`, in the kernel interpreter,
//! before and after the passes for machines of several kinds.

use bytes::Bytes;
use half::f16;
use tcc_ir::block_format::{BlockFormat, BlockOperands, RowForm, WeightForm};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::lower::{Argument, Lowered, Tuning, lower};
use tcc_kernel::machine::{DotForms, Machine};
use tcc_kernel::passes::finalize;

/// Numbers that look arbitrary and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 20) as usize % bound
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

fn machines() -> Vec<(Machine, u32)> {
    let dot = DotForms { unsigned_signed: true, ..DotForms::default() };
    let wide = Machine { vector_bits: 512, fma: true, f16_convert: true, masked: true, dot };
    let middle = Machine { vector_bits: 256, dot: DotForms::default(), ..wide };
    vec![(wide, 32), (middle, 16), (Machine::BASELINE, 16)]
}

fn tuning((machine, registers): &(Machine, u32)) -> Tuning {
    Tuning {
        vector_bits: machine.vector_bits,
        vector_registers: *registers,
        l1_bytes: 32 << 10,
        l2_bytes: 1 << 20,
        dot: machine.dot.unsigned_signed,
        gpu: None,
    }
}

/// Runs the kernels of one operation and gives its results.
fn run(
    operator: &Operator,
    operands: &[Data],
    constant: &[bool],
    results: &[TensorType],
    machine: &(Machine, u32),
) -> Vec<Data> {
    let types: Vec<TensorType> = operands
        .iter()
        .map(|data| TensorType::new(data.dtype(), data.shape().iter().map(|dim| (*dim).into()).collect()))
        .collect();
    let Lowered { launches, blocks, .. } =
        lower(operator, &types, results, constant, "case", &tuning(machine)).unwrap();
    let packed: Vec<Vec<u8>> = blocks
        .iter()
        .map(|packing| {
            let data: Vec<Data> = packing.operands.iter().map(|place| operands[*place].clone()).collect();
            packing.apply(&data).unwrap().bytes().to_vec()
        })
        .collect();
    let shape = |ty: &TensorType| ty.static_shape().unwrap();
    let mut done: Vec<Vec<u8>> =
        results.iter().map(|ty| vec![0u8; shape(ty).iter().product::<usize>() * ty.dtype().size()]).collect();
    for launch in &launches {
        let mut kernel = launch.kernel.clone();
        finalize(&mut kernel, &machine.0).unwrap_or_else(|error| panic!("{error}\n{}", launch.kernel));
        let mut arguments: Vec<Vec<u8>> = launch
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Operand(place) => operands[*place].bytes().to_vec(),
                Argument::Result(place) => done[*place].clone(),
                Argument::Block(place) => packed[*place].clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let mut slices: Vec<&mut [u8]> = arguments.iter_mut().map(|bytes| &mut bytes[..]).collect();
        evaluate(&kernel, &mut slices, &[], 0, i64::MAX).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
        for (argument, bytes) in launch.arguments.iter().zip(arguments) {
            if let Argument::Result(place) = argument {
                done[*place] = bytes;
            }
        }
    }
    results
        .iter()
        .zip(done)
        .map(|(ty, bytes)| Data::new(ty.dtype(), &shape(ty), Bytes::from(bytes)).unwrap())
        .collect()
}

fn reference(operator: &Operator, operands: &[Data]) -> Vec<Data> {
    tcc_interpret::evaluate(operator, operands, &|_| None).unwrap()
}

fn types(data: &[Data]) -> Vec<TensorType> {
    let ty =
        |data: &Data| TensorType::new(data.dtype(), data.shape().iter().map(|dim| (*dim).into()).collect());
    data.iter().map(ty).collect()
}

/// Random blocks whose scales are finite and small.
fn weights(format: BlockFormat, rows: &[usize], depth: usize, numbers: &mut Numbers) -> Data {
    let count: usize = rows.iter().product::<usize>() * depth / format.elements();
    let mut bytes = Vec::with_capacity(count * format.bytes());
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
    for _ in 0..count {
        let mut block: Vec<u8> = (0..format.bytes()).map(|_| numbers.next() as u8).collect();
        for at in halves {
            let scale = f16::from_f64(numbers.float() * 0.1).to_le_bytes();
            block[*at..at + 2].copy_from_slice(&scale);
        }
        if format == B::Q8K {
            block[..4].copy_from_slice(&(numbers.float() as f32).to_le_bytes());
        }
        bytes.extend(block);
    }
    let shape = [rows, &[depth / format.elements() * format.bytes()]].concat();
    Data::new(DType::U8, &shape, Bytes::from(bytes)).unwrap()
}

fn floats(shape: &[usize], numbers: &mut Numbers) -> Data {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| numbers.float() as f32).collect();
    Data::from_f32(shape, &values).unwrap()
}

/// The largest error of each sum. A kernel multiplies codes by a scale and adds an offset, in some order; both are at most
/// three times the largest number of the row, because random codes reach far to both sides of the offset. Each of the
/// `depth` terms, so bounded, meets at most `depth + 8` roundings of f32 on its way to the result, the conversions and
/// the epilogue included.
fn bounds(x: &[f32], weights: &[f32], depth: usize, outputs: usize, experts: &[i64]) -> Vec<f64> {
    let mut bounds = Vec::new();
    for (row, factors) in x.chunks_exact(depth.max(1)).enumerate() {
        let sum: f64 = factors.iter().map(|factor| f64::from(factor.abs())).sum();
        let matrix = experts.get(row).map_or(0, |expert| *expert as usize) * outputs * depth;
        for output in 0..outputs {
            let own = &weights[matrix + output * depth..][..depth];
            let largest = own.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
            let magnitude = 6.0 * f64::from(largest) * sum + 1.0;
            bounds.push((depth as f64 + 8.0) * f64::from(f32::EPSILON) * magnitude);
        }
    }
    bounds
}

struct Case {
    form: WeightForm,
    row_form: RowForm,
    experts: usize,
    rows: usize,
    outputs: usize,
    depth: usize,
}

fn check(case: &Case, seed: u64) {
    let mut numbers = Numbers(seed * 0x9e37_79b9 + 1);
    let Case { form, row_form, experts, rows, outputs, depth } = *case;
    let x = floats(&[rows, depth], &mut numbers);
    let group = match form {
        WeightForm::Blocks(B::Q2K | B::Q3K | B::Q6K) => 16,
        WeightForm::Affine { block } => block.min(32),
        _ => 32,
    };
    use BlockFormat as B;
    let quantize = Operator::QuantizeRows { group: 32, sum: group, rows: row_form };
    let mut operands = match row_form {
        RowForm::Float => vec![x.clone()],
        RowForm::Int8 | RowForm::Int16 => reference(&quantize, std::slice::from_ref(&x)),
    };
    let lead: Vec<usize> = if experts > 0 { vec![experts, outputs] } else { vec![outputs] };
    match form {
        WeightForm::Blocks(format) => operands.push(weights(format, &lead, depth, &mut numbers)),
        WeightForm::Affine { block } => {
            let count: usize = lead.iter().product();
            let codes: Vec<u8> = (0..count * depth / 2).map(|_| numbers.next() as u8).collect();
            let dtype = if numbers.below(2) == 0 { DType::U4 } else { DType::I4 };
            let shape = |last: usize| [&lead[..], &[last]].concat();
            operands.push(Data::new(dtype, &shape(depth), Bytes::from(codes)).unwrap());
            operands.push(floats(&shape(depth / block), &mut numbers));
            let zeros = vec![0x35u8; (count * (depth / block)).div_ceil(2)];
            operands.push(Data::new(dtype, &shape(depth / block), Bytes::from(zeros)).unwrap());
        }
    }
    let decode = match form {
        WeightForm::Blocks(format) => Operator::DecodeBlocks { format, dtype: DType::F32 },
        WeightForm::Affine { block } => Operator::Dequantize { dtype: DType::F32, axis: lead.len(), block },
    };
    let places = BlockOperands::of(form, row_form, experts > 0);
    let decoded = reference(&decode, &operands[places.weights.clone()])[0].to_f32().unwrap();
    let mut picks: Vec<i64> = (0..rows).map(|_| numbers.below(experts.max(1)) as i64).collect();
    // Rows of one expert behind each other, as models arrange them, and in any order.
    if seed % 2 == 1 {
        picks.sort_unstable();
    }
    if experts > 0 {
        operands.push(Data::from_i64(&[rows], &picks).unwrap());
    }
    operands.push(floats(&[outputs], &mut numbers));
    let epilogue = "(2) t0 = add(a0, a1); t0".parse().unwrap();
    let operator = Operator::BlockContract { weights: form, rows: row_form, experts: experts > 0, epilogue };
    let expected = reference(&operator, &operands);
    let constant: Vec<bool> = (0..operands.len()).map(|place| places.weights.contains(&place)).collect();
    let bounds = bounds(&x.to_f32().unwrap(), &decoded, depth, outputs, &picks);
    for machine in machines() {
        let found = run(&operator, &operands, &constant, &types(&expected), &machine);
        let (found, expected) = (found[0].to_f32().unwrap(), expected[0].to_f32().unwrap());
        for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
            let bound = bounds.get(index).copied().unwrap_or(0.0);
            assert!(
                f64::from((a - b).abs()) <= bound,
                "seed {seed} {form:?} {row_form:?} {rows} x {outputs} x {depth} on {machine:?}: \
                 element {index} is {a}, expected {b} within {bound}"
            );
        }
    }
}

#[test]
fn rows_quantize_to_the_interpreters_bits() {
    let mut numbers = Numbers(7);
    for (rows, depth, group, sum) in
        [(0, 32, 32, 32), (1, 64, 32, 16), (3, 96, 32, 32), (5, 256, 256, 32), (2, 12, 6, 3)]
    {
        let mut x = floats(&[rows, depth], &mut numbers).to_f32().unwrap();
        x.iter_mut().take(group).for_each(|value| *value = 0.0);
        let x = Data::from_f32(&[rows, depth], &x).unwrap();
        for form in [RowForm::Int8, RowForm::Int16] {
            let operator = Operator::QuantizeRows { group, sum, rows: form };
            let expected = reference(&operator, std::slice::from_ref(&x));
            for machine in machines() {
                let found = run(&operator, std::slice::from_ref(&x), &[false], &types(&expected), &machine);
                assert_eq!(found, expected, "{rows} x {depth} in runs of {group} and {sum} on {machine:?}");
            }
        }
    }
}

#[test]
fn every_format_multiplies() {
    for (number, format) in BlockFormat::ALL.iter().enumerate() {
        for row_form in RowForm::ALL.iter().copied() {
            let depth = format.elements() * 2;
            let case =
                Case { form: WeightForm::Blocks(*format), row_form, experts: 0, rows: 2, outputs: 17, depth };
            check(&case, number as u64 + 1);
        }
    }
}

#[test]
fn every_number_of_rows_and_outputs_multiplies() {
    for (seed, (rows, outputs, depth)) in
        [(0, 16, 32), (1, 1, 32), (5, 16, 96), (13, 33, 64), (17, 32, 32), (4, 7, 0)].into_iter().enumerate()
    {
        for row_form in RowForm::ALL.iter().copied() {
            let form = WeightForm::Blocks(BlockFormat::Q4_1);
            check(&Case { form, row_form, experts: 0, rows, outputs, depth }, seed as u64 + 100);
        }
    }
}

#[test]
fn affine_codes_multiply() {
    for (seed, block) in [16, 32, 64, 128].into_iter().enumerate() {
        for row_form in RowForm::ALL.iter().copied() {
            let form = WeightForm::Affine { block };
            check(&Case { form, row_form, experts: 0, rows: 3, outputs: 18, depth: 256 }, seed as u64 + 200);
        }
    }
}

#[test]
fn rows_meet_their_experts() {
    for row_form in RowForm::ALL.iter().copied() {
        for (form, rows, seed) in
            [(BlockFormat::Q4K, 5, 300), (BlockFormat::Q4_0, 43, 301), (BlockFormat::Q8_0, 26, 302)]
        {
            let form = WeightForm::Blocks(form);
            check(&Case { form, row_form, experts: 3, rows, outputs: 19, depth: 256 }, seed);
        }
    }
}
