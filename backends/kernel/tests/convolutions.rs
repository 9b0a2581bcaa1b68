//! Float convolutions with constant filters, ordinary (by Winograd's algorithms where they pay), depthwise and transposed, give
//! the sums of plain loops in f64 up to rounding, for extents known and unknown at compile time.

use std::collections::HashMap;

use bytes::Bytes;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_ir::words::Layout;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::lower::{Argument, Tuning, lower};
use tcc_kernel::machine::Machine;
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

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(2001) as f32 / 1000.0 - 1.0).collect()
    }
}

/// A convolution with a bias and a residual.
#[derive(Debug)]
struct Case {
    transposed: bool,
    depthwise: bool,
    input: [usize; 4],
    /// Taps, then output channels.
    filter: [usize; 3],
    strides: [usize; 2],
    pads: [i64; 4],
    output_padding: [usize; 2],
    symbolic: bool,
}

impl Case {
    fn output(&self) -> [usize; 4] {
        let extent = |axis: usize| -> usize {
            let (input, taps) = (self.input[axis + 1] as i64, self.filter[axis] as i64);
            let (pads, stride) = (self.pads[axis] + self.pads[axis + 2], self.strides[axis] as i64);
            let extent = match self.transposed {
                true => (input - 1) * stride + taps - pads + self.output_padding[axis] as i64,
                false => (input + pads - taps).div_euclid(stride) + 1,
            };
            extent.max(0) as usize
        };
        [self.input[0], extent(0), extent(1), self.filter[2]]
    }

    fn filter_shape(&self) -> Vec<usize> {
        let [height, width, outputs] = self.filter;
        match (self.transposed, self.depthwise) {
            (_, true) => vec![height, width, 1, outputs],
            (true, _) => vec![height, width, outputs, self.input[3]],
            (false, _) => vec![height, width, self.input[3], outputs],
        }
    }

    fn operator(&self) -> Operator {
        let (layout, groups) = (Layout::ChannelsLast, if self.depthwise { self.input[3] } else { 1 });
        let (strides, dilations, pads) = (self.strides.to_vec(), vec![1; 2], self.pads.to_vec());
        let accumulator = DType::F32;
        let epilogue = "(3) t0 = add(a0, a1); t1 = add(t0, a2); t1".parse().unwrap();
        if self.transposed {
            let output_pads = self.output_padding.to_vec();
            Operator::ConvolveTranspose {
                layout,
                groups,
                strides,
                dilations,
                pads,
                accumulator,
                epilogue,
                output_pads,
            }
        } else {
            Operator::Convolve { layout, groups, strides, dilations, pads, accumulator, epilogue }
        }
    }

    /// Each output with the sum of the magnitudes that it adds.
    fn expected(&self, x: &[f32], w: &[f32]) -> Vec<(f64, f64)> {
        let ([batch, height, width, channels], [_, rows, columns, outputs]) = (self.input, self.output());
        let [taps_y, taps_x, _] = self.filter;
        let mut sums = vec![(0.0, 0.0); batch * rows * columns * outputs];
        let mut add =
            |n: usize, (y, x_at): (usize, usize), (oy, ox): (i64, i64), (ky, kx): (usize, usize)| {
                if oy < 0 || ox < 0 || oy >= rows as i64 || ox >= columns as i64 {
                    return;
                }
                for output in 0..outputs {
                    let place = ((n * rows + oy as usize) * columns + ox as usize) * outputs + output;
                    for channel in if self.depthwise { output..output + 1 } else { 0..channels } {
                        let read = ((n * height + y) * width + x_at) * channels + channel;
                        let tap = ky * taps_x + kx;
                        let weight = match (self.transposed, self.depthwise) {
                            (_, true) => tap * outputs + output,
                            (true, _) => (tap * outputs + output) * channels + channel,
                            (false, _) => (tap * channels + channel) * outputs + output,
                        };
                        let term = f64::from(x[read]) * f64::from(w[weight]);
                        sums[place].0 += term;
                        sums[place].1 += term.abs();
                    }
                }
            };
        for n in 0..batch {
            for (y, x_at) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                for (ky, kx) in (0..taps_y).flat_map(|y| (0..taps_x).map(move |x| (y, x))) {
                    let place = |at: usize, tap: usize, axis: usize| {
                        let (at, tap, stride) = (at as i64, tap as i64, self.strides[axis] as i64);
                        match self.transposed {
                            true => Some(at * stride + tap - self.pads[axis]),
                            false => {
                                let reached = at + self.pads[axis] - tap;
                                (reached.rem_euclid(stride) == 0).then(|| reached.div_euclid(stride))
                            }
                        }
                    };
                    if let (Some(oy), Some(ox)) = (place(y, ky, 0), place(x_at, kx, 1)) {
                        add(n, (y, x_at), (oy, ox), (ky, kx));
                    }
                }
            }
        }
        sums
    }
}

fn machines() -> [Machine; 3] {
    [
        Machine { vector_bits: 128, fma: true, ..Machine::BASELINE },
        Machine { vector_bits: 256, fma: true, f16_convert: true, ..Machine::BASELINE },
        Machine { vector_bits: 512, fma: true, f16_convert: true, masked: true, ..Machine::BASELINE },
    ]
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Runs the kernels; true if they use one of Winograd's algorithms.
fn check(case: &Case, machine: &Machine, seed: u64, random: &mut Random) -> bool {
    let output = case.output();
    let sizes: HashMap<&str, i64> =
        [("n", case.input[0]), ("h", case.input[1]), ("w", case.input[2])].map(|(s, v)| (s, v as i64)).into();
    let value = |dim: &Dim| dim.evaluate(&|symbol| sizes.get(symbol.name()).copied()).unwrap();
    let image = |shape: [usize; 4], transform: &dyn Fn(usize, Dim) -> Dim| {
        let names = ["n", "h", "w"];
        let dims = (0..4).map(|axis| match names.get(axis) {
            Some(name) if case.symbolic => transform(axis, Dim::named(name)),
            _ => Dim::from(shape[axis]),
        });
        TensorType::new(DType::F32, dims.collect())
    };
    let out_dim = |axis: usize, dim: Dim| -> Dim {
        if axis == 0 {
            return dim;
        }
        let axis = axis - 1;
        let (taps, stride) = (case.filter[axis] as i64, case.strides[axis] as i64);
        let pads = case.pads[axis] + case.pads[axis + 2];
        match case.transposed {
            true => {
                let rest = taps - stride - pads + case.output_padding[axis] as i64;
                dim * Dim::Const(stride) + Dim::Const(rest)
            }
            false => (dim + Dim::Const(pads - taps)).floor_div(&Dim::Const(stride)) + Dim::Const(1),
        }
    };
    let result = image(output, &out_dim);
    let filter_shape = case.filter_shape();
    let filter = TensorType::new(DType::F32, filter_shape.iter().map(|extent| Dim::from(*extent)).collect());
    let bias = TensorType::new(DType::F32, vec![Dim::from(output[3])]);
    let types = [image(case.input, &|_, dim| dim), filter, bias, result.clone()];
    let tuning = Tuning {
        vector_bits: machine.vector_bits,
        vector_registers: 32,
        l1_bytes: 32 << 10,
        l2_bytes: 512 << 10,
        dot: false,
        gpu: None,
    };
    let constant = [false, true, true, false];
    let lowered = lower(&case.operator(), &types, &[result], &constant, "convolution", &tuning).unwrap();
    let operands: Vec<Vec<f32>> =
        types.iter().map(|ty| random.floats(ty.shape.iter().map(&value).product::<i64>() as usize)).collect();
    let packed: Vec<Vec<u8>> = lowered
        .packings
        .iter()
        .map(|packing| {
            let bytes = Bytes::from(to_bytes(&operands[packing.operand]));
            let data = Data::new(DType::F32, &filter_shape, bytes).unwrap();
            packing.apply(&data).unwrap().bytes().to_vec()
        })
        .collect();
    let count = |ty: &TensorType| ty.shape.iter().map(&value).product::<i64>().max(0) as usize;
    let mut temporaries: Vec<Vec<u8>> =
        lowered.temporaries.iter().map(|ty| vec![0u8; count(ty) * 4]).collect();
    // What no kernel writes stays NaN.
    let mut found = to_bytes(&vec![f32::NAN; output.iter().product()]);
    for launch in &lowered.launches {
        let mut kernel = launch.kernel.clone();
        finalize(&mut kernel, machine)
            .unwrap_or_else(|error| panic!("seed {seed} {case:?}: {error}\n{kernel}"));
        let mut arguments: Vec<Vec<u8>> = launch
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Operand(index) => to_bytes(&operands[*index]),
                Argument::Result(_) => found.clone(),
                Argument::Temporary(index) => temporaries[*index].clone(),
                Argument::Packed(index) => packed[*index].clone(),
                Argument::Block(_) | Argument::View(..) => {
                    unreachable!("convolutions have neither block weights nor caches")
                }
            })
            .collect();
        let dims: Vec<i64> = kernel.dims.iter().map(|dim| value(&tcc_ir::parse::dim(dim).unwrap())).collect();
        let mut slices: Vec<&mut [u8]> = arguments.iter_mut().map(|bytes| &mut bytes[..]).collect();
        evaluate(&kernel, &mut slices, &dims, 0, i64::MAX)
            .unwrap_or_else(|error| panic!("seed {seed} {machine:?} {case:?}: {error}\n{kernel}"));
        for (argument, bytes) in launch.arguments.iter().zip(arguments) {
            match argument {
                Argument::Result(_) => found = bytes,
                Argument::Temporary(index) => temporaries[*index] = bytes,
                _ => {}
            }
        }
    }
    let winograd = lowered.packings.iter().any(|packing| packing.winograd.is_some());
    // A sum of k products is off by at most k / 2 units in the last place of their magnitudes; the sums here have some
    // hundred terms. Winograd's differences are taken of sums a few times as large.
    let tolerance = if winograd { 2e-5 } else { 5e-6 };
    let channels = output[3];
    for (index, (bytes, (sum, magnitude))) in
        found.chunks(4).zip(case.expected(&operands[0], &operands[1])).enumerate()
    {
        let got = f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        let rest = f64::from(operands[2][index % channels]) + f64::from(operands[3][index]);
        let error = (got - sum - rest).abs();
        assert!(error <= tolerance * (magnitude + 2.0), "seed {seed} {machine:?} {case:?} {index}: {got}");
    }
    winograd
}

/// Checks random cases on every machine and counts those by Winograd's algorithms.
fn sweep(count: u64, case: impl Fn(&mut Random) -> Case) -> usize {
    let mut found = 0;
    for seed in 1..=count {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let case = case(&mut random);
        for machine in machines() {
            found += usize::from(check(&case, &machine, seed, &mut random));
        }
    }
    found
}

#[test]
fn dense_convolutions_by_winograd() {
    let found = sweep(18, |random| {
        let pads = random.pick(&[[0; 4], [1; 4], [1, 0, 2, 1]]);
        let channels = random.pick(&[4, 5, 16, 19, 33]);
        Case {
            transposed: false,
            depthwise: false,
            input: [1 + random.below(2), 3 + random.below(9), 3 + random.below(9), channels],
            filter: [3, 3, random.pick(&[4, 7, 16, 35])],
            strides: [1; 2],
            pads,
            output_padding: [0; 2],
            symbolic: random.below(2) == 0,
        }
    });
    assert!(found > 12, "{found}");
}

#[test]
fn depthwise_convolutions() {
    sweep(24, |random| {
        let taps = [random.pick(&[1, 3, 5]), random.pick(&[1, 3, 5])];
        let pads = random.pick(&[[0; 4], [1; 4], [2; 4], [2, 0, 0, 1]]);
        let channels = random.pick(&[2, 7, 16, 37, 70]);
        Case {
            transposed: false,
            depthwise: true,
            input: [1, 5 + random.below(4), 5 + random.below(22), channels],
            filter: [taps[0], taps[1], channels],
            strides: random.pick(&[[1; 2], [2; 2], [2, 1]]),
            pads,
            output_padding: [0; 2],
            symbolic: random.below(2) == 0,
        }
    });
}

#[test]
fn transposed_convolutions() {
    sweep(40, |random| {
        let strides = random.pick(&[[1; 2], [2; 2], [3, 2], [2, 1]]);
        let taps = [random.pick(&[1, 2, 3, 4]), random.pick(&[1, 2, 3, 4])];
        let pad = random.pick(&[[0; 4], [1, 1, 0, 0], [0, 0, 1, 1], [1; 4]]);
        // The result keeps at least one element an axis.
        let pads = if taps.iter().any(|taps| *taps < 2) { [0; 4] } else { pad };
        let output_padding = strides.map(|stride| random.below(stride));
        Case {
            transposed: true,
            depthwise: false,
            input: [1 + random.below(2), 2 + random.below(4), 2 + random.below(18), random.pick(&[1, 3, 8])],
            filter: [taps[0], taps[1], random.pick(&[1, 2, 17])],
            strides,
            pads,
            output_padding,
            symbolic: random.below(2) == 0,
        }
    });
}
