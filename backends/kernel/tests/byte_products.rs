//! Contractions and convolutions of bytes with constant weights give the sums of plain loops, as lowered and as made ready
//! for machines with and without dot products of bytes.

use bytes::Bytes;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_ir::words::Layout;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::ir::Expr;
use tcc_kernel::lower::{Argument, Lowered, Tuning, lower};
use tcc_kernel::machine::{DotForms, Machine};
use tcc_kernel::passes::finalize;

/// A small generator of numbers (xorshift), so that a failure names the seed that shows it again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        // Half of them extreme, so that saturation anywhere would show.
        (0..count)
            .map(
                |_| {
                    if self.below(2) == 0 { self.below(256) as u8 } else { self.pick(&[0x80, 0x7f, 0xff, 0]) }
                },
            )
            .collect()
    }
}

/// An operation on bytes with its operands and the sums it must give.
struct Case {
    operator: Operator,
    types: [DType; 2],
    shapes: [Vec<usize>; 2],
    operands: [Vec<u8>; 2],
    result: Vec<usize>,
    expected: Vec<i32>,
    /// True where the rows of the left operand and of the result are known only to the run.
    symbolic: bool,
}

fn number(dtype: DType, byte: u8) -> i32 {
    if dtype == DType::I8 { i32::from(byte as i8) } else { i32::from(byte) }
}

fn machines() -> Vec<Machine> {
    let mixed = DotForms { unsigned_signed: true, ..DotForms::default() };
    let all = DotForms { unsigned_signed: true, signed_signed: true, unsigned_unsigned: true };
    vec![
        Machine { vector_bits: 128, dot: mixed, ..Machine::BASELINE },
        Machine { vector_bits: 256, fma: true, f16_convert: true, masked: false, dot: all },
        Machine { vector_bits: 512, fma: true, f16_convert: true, masked: true, dot: mixed },
        Machine { vector_bits: 256, ..Machine::BASELINE },
    ]
}

fn tuning(machine: &Machine) -> Tuning {
    Tuning {
        vector_bits: machine.vector_bits,
        vector_registers: 32,
        l1_bytes: 32 << 10,
        l2_bytes: 512 << 10,
        dot: machine.dot.unsigned_signed,
        gpu: None,
    }
}

fn lowered(case: &Case, machine: &Machine) -> Lowered {
    let ty = |dtype, shape: &[usize], rows: bool| {
        let mut dims: Vec<Dim> = shape.iter().map(|extent| Dim::from(*extent)).collect();
        if rows {
            dims[0] = Dim::named("rows");
        }
        TensorType::new(dtype, dims)
    };
    let [a, b] = &case.shapes;
    let operands = [ty(case.types[0], a, case.symbolic), ty(case.types[1], b, false)];
    let result = ty(DType::I32, &case.result, case.symbolic);
    lower(&case.operator, &operands, &[result], &[false, true], "bytes", &tuning(machine)).unwrap()
}

/// Runs the kernels; true if one of them multiplies in groups.
fn check(case: &Case, machine: &Machine, finalized: bool, seed: u64) -> bool {
    let lowered = lowered(case, machine);
    let empty = |ty: &TensorType| {
        let rows = case.shapes[0][0] as i64;
        let count: i64 = ty.shape.iter().map(|dim| dim.evaluate(&|_| Some(rows)).unwrap()).product();
        vec![0u8; count as usize * ty.dtype().size()]
    };
    let mut temporaries: Vec<Vec<u8>> = lowered.temporaries.iter().map(empty).collect();
    let packed: Vec<Vec<u8>> = lowered
        .packings
        .iter()
        .map(|packing| {
            let index = packing.operand;
            let shape: Vec<usize> =
                packing.source.iter().map(|dim| dim.as_const().unwrap() as usize).collect();
            let bytes = Bytes::from(case.operands[index].clone());
            packing.apply(&Data::new(case.types[index], &shape, bytes).unwrap()).unwrap().bytes().to_vec()
        })
        .collect();
    let mut result = vec![0u8; case.expected.len() * 4];
    let mut dot = false;
    for launch in &lowered.launches {
        let mut kernel = launch.kernel.clone();
        kernel.body.iter().for_each(|stmt| {
            stmt.visit_exprs(&mut |expr| expr.visit(&mut |part| dot |= matches!(part, Expr::Dot { .. })));
        });
        if finalized {
            finalize(&mut kernel, machine).unwrap_or_else(|error| {
                panic!("seed {seed} {machine:?}: {error}\n{}\n{kernel}", launch.kernel)
            });
        }
        let mut arguments: Vec<Vec<u8>> = launch
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Operand(index) => case.operands[*index].clone(),
                Argument::Result(_) => result.clone(),
                Argument::Temporary(index) => temporaries[*index].clone(),
                Argument::Packed(index) => packed[*index].clone(),
                Argument::Block(_) => panic!("no weights are in blocks"),
                Argument::View(..) => panic!("no operand is seen as another type"),
            })
            .collect();
        let mut slices: Vec<&mut [u8]> = arguments.iter_mut().map(|bytes| &mut bytes[..]).collect();
        let dims = vec![case.shapes[0][0] as i64; kernel.dims.len()];
        evaluate(&kernel, &mut slices, &dims, 0, i64::MAX)
            .unwrap_or_else(|error| panic!("seed {seed} {machine:?}: {error}\n{}\n{kernel}", launch.kernel));
        for (argument, bytes) in launch.arguments.iter().zip(arguments) {
            match argument {
                Argument::Result(_) => result = bytes,
                Argument::Temporary(index) => temporaries[*index] = bytes,
                _ => {}
            }
        }
    }
    let sums: Vec<i32> =
        result.chunks(4).map(|chunk| i32::from_le_bytes(chunk.try_into().unwrap())).collect();
    assert_eq!(sums, case.expected, "seed {seed} {machine:?} {:?} {:?}", case.operator, case.shapes);
    dot
}

fn contraction(random: &mut Random) -> Case {
    let (m, k) = (random.pick(&[1, 2, 5, 7, 13]), random.pick(&[0, 1, 3, 4, 5, 8, 11, 13]));
    let n = random.pick(&[1, 3, 4, 7, 16, 17, 33]);
    let types = [random.pick(&[DType::U8, DType::I8]), random.pick(&[DType::I8, DType::U8])];
    let (left, right) = (random.bytes(m * k), random.bytes(k * n));
    let mut spec = ContractionSpec::matmul(0);
    let transposed = random.below(2) == 0;
    let mut shapes = [vec![m, k], vec![k, n]];
    if transposed {
        spec.rhs = b"nk".to_vec();
        shapes[1] = vec![n, k];
    }
    let at = |k_at: usize, n_at: usize| if transposed { n_at * k + k_at } else { k_at * n + n_at };
    let sum = |row: usize, column: usize| {
        let term = |i: usize| number(types[0], left[row * k + i]) * number(types[1], right[at(i, column)]);
        (0..k).map(term).sum()
    };
    let expected = (0..m * n).map(|index| sum(index / n, index % n)).collect();
    Case {
        operator: Operator::Contract { spec, accumulator: DType::I32, epilogue: "(1) a0".parse().unwrap() },
        types,
        shapes,
        operands: [left, right],
        result: vec![m, n],
        expected,
        symbolic: random.below(2) == 0,
    }
}

fn convolution(random: &mut Random) -> Case {
    let groups = random.pick(&[1, 1, 2]);
    let (c, o) = (random.pick(&[1, 3, 4, 5, 7]), random.pick(&[3, 8, 16, 17]));
    let (kernel, stride, dilation) = (random.pick(&[1, 2, 3]), random.pick(&[1, 2]), random.pick(&[1, 2]));
    let pad = random.pick(&[0, 1]);
    let (height, width) = (5 + random.below(3), 5 + random.below(5));
    let out = |extent: usize| (extent + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
    let (rows, columns) = (out(height), out(width));
    let types = [random.pick(&[DType::U8, DType::I8]), random.pick(&[DType::I8, DType::U8])];
    let (channels, outputs) = (c * groups, o * groups);
    let shapes = [vec![1, height, width, channels], vec![kernel, kernel, c, outputs]];
    let operands = shapes.clone().map(|shape| random.bytes(shape.iter().product()));
    let mut expected = Vec::new();
    for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
        for output in 0..outputs {
            let mut sum = 0;
            for tap in 0..kernel * kernel * c {
                let (ky, kx, channel) = (tap / c / kernel, tap / c % kernel, tap % c);
                let place = |at: usize, k: usize, extent: usize| {
                    (at * stride + k * dilation).checked_sub(pad).filter(|place| *place < extent)
                };
                let (Some(iy), Some(ix)) = (place(y, ky, height), place(x, kx, width)) else { continue };
                let read = (iy * width + ix) * channels + output / o * c + channel;
                sum += number(types[0], operands[0][read])
                    * number(types[1], operands[1][tap * outputs + output]);
            }
            expected.push(sum);
        }
    }
    Case {
        operator: Operator::Convolve {
            layout: Layout::ChannelsLast,
            groups,
            strides: vec![stride; 2],
            dilations: vec![dilation; 2],
            pads: vec![pad as i64; 4],
            accumulator: DType::I32,
            epilogue: "(1) a0".parse().unwrap(),
        },
        types,
        shapes,
        operands,
        result: vec![1, rows, columns, outputs],
        expected,
        symbolic: false,
    }
}

/// Checks random cases and returns how many used dot products on the machine of a mixed form.
fn sweep(count: u64, case: impl Fn(&mut Random) -> Case) -> usize {
    let mut dots = 0;
    for seed in 1..=count {
        let case = case(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        for (index, machine) in machines().iter().enumerate() {
            let dot = check(&case, machine, false, seed);
            check(&case, machine, true, seed);
            assert!(!dot || machine.dot.unsigned_signed);
            dots += usize::from(dot && index == 0);
        }
    }
    dots
}

#[test]
fn contractions_of_bytes_are_exact() {
    assert!(sweep(120, contraction) > 40);
}

#[test]
fn convolutions_of_bytes_are_exact() {
    assert!(sweep(60, convolution) > 20);
}
