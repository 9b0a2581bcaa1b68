//! Random kernels compute the same before and after the passes.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

use crate::evaluate::evaluate;
use crate::ir::{Access, BufferId, Expr, Kernel, LoopKind, Space, Stmt, Ty, Var};
use crate::machine::Machine;
use crate::passes::finalize;

/// A small generator of numbers (xorshift), so that a failure names the seed that shows it again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const SIZE: i64 = 4096;
const TYPES: [DType; 12] = [
    DType::F32,
    DType::I8,
    DType::I32,
    DType::U8,
    DType::I64,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::F8E4M3FN,
    DType::F8E5M2FNUZ,
    DType::I4,
    DType::U2,
];

struct Generator {
    random: Random,
    kernel: Kernel,
    inputs: Vec<BufferId>,
    /// Open counters, with the vector counter first.
    counters: Vec<Var>,
    lanes: i64,
    /// Scalars assigned in the vector loop.
    locals: Vec<(Var, DType)>,
}

fn c(value: i64) -> Expr {
    Expr::index(value)
}

impl Generator {
    /// An index below `SIZE`, mostly affine in the counters.
    fn index(&mut self) -> Expr {
        let mut sum = c(self.random.below(50) as i64);
        for counter in self.counters.clone() {
            let factor = self.random.pick(&[0, 1, 1, 1, 2, 3, 16]);
            sum = sum.plus(Expr::from(counter).times(c(factor)));
        }
        if self.random.chance(4) {
            let by = self.random.pick(&[2, 3, 8, 16]);
            sum = if self.random.chance(2) { sum.over(c(by)) } else { sum.remainder(c(by)) };
        }
        // Every counter stays below 64, so that no sum reaches the size.
        sum
    }

    fn value(&mut self, dtype: DType, depth: u32) -> Expr {
        let known: Vec<Var> =
            self.locals.iter().filter(|(_, known)| *known == dtype).map(|(var, _)| *var).collect();
        match self.random.below(if depth == 0 { 3 } else { 8 }) {
            0 if !known.is_empty() => Expr::from(self.random.pick(&known)),
            0 | 1 => {
                let from = self.random.below(self.inputs.len() as u64) as usize;
                let index = self.index();
                let mut load = Expr::load(self.inputs[from], index);
                if self.random.chance(6)
                    && let Expr::Load { valid, .. } = &mut load
                {
                    let left = self.random.below(40) as i64;
                    *valid = Some(Box::new(c(left).minus(self.counters[0].into())));
                }
                load.cast(TYPES[from], dtype)
            }
            2 => Expr::constant(dtype, self.random.below(9) as f64 - 4.0),
            3 => {
                let from = self.random.pick(&TYPES);
                self.value(from, depth - 1).cast(from, dtype)
            }
            4 => {
                let compared = self.random.pick(&TYPES);
                let condition = Expr::call(
                    self.random.pick(&[Function::Less, Function::LessEqual, Function::Equal]),
                    vec![self.value(compared, depth - 1), self.value(compared, depth - 1)],
                );
                condition.choose(self.value(dtype, depth - 1), self.value(dtype, depth - 1))
            }
            5 if dtype == DType::I64 => self.index(),
            _ => {
                let function = self.random.pick(&[
                    Function::Add,
                    Function::Sub,
                    Function::Mul,
                    Function::Max,
                    Function::Min,
                    Function::Div,
                ]);
                Expr::call(function, vec![self.value(dtype, depth - 1), self.value(dtype, depth - 1)])
            }
        }
    }

    fn local(&mut self, out: &mut Vec<Stmt>) {
        let dtype = self.random.pick(&TYPES);
        let var = self.kernel.variable("t", Ty::scalar(dtype));
        out.push(Stmt::Assign { var, value: self.value(dtype, 2) });
        self.locals.push((var, dtype));
        if self.random.chance(2) {
            let k = self.kernel.counter("k");
            let extent = c(self.random.below(4) as i64);
            self.counters.push(k);
            let value = Expr::call(Function::Add, vec![var.into(), self.value(dtype, 1)]);
            self.counters.pop();
            let kind = self.random.pick(&[LoopKind::Serial, LoopKind::Unroll]);
            out.push(Stmt::For { var: k, extent, kind, body: vec![Stmt::Assign { var, value }] });
        }
    }

    /// One vector loop that writes its own part of the output.
    fn vector_loop(&mut self, output: BufferId, dtype: DType, base: Expr, registers: bool) -> Stmt {
        let v = self.kernel.counter("v");
        self.counters.insert(0, v);
        let mut body = Vec::new();
        for _ in 0..self.random.below(3) {
            self.local(&mut body);
        }
        let at = base.plus(v.into());
        let value = self.value(dtype, 3);
        let mut stores = Vec::new();
        if registers {
            let count = c(self.lanes);
            let acc = self.kernel.buffer("acc", dtype, Space::Register, count, Access::ReadWrite);
            stores.push(Stmt::Store { buffer: acc, index: v.into(), value, valid: None });
            stores.push(Stmt::Store {
                buffer: output,
                index: at.clone(),
                value: Expr::load(acc, v.into()),
                valid: None,
            });
        } else {
            stores.push(Stmt::Store { buffer: output, index: at.clone(), value, valid: None });
        }
        match self.random.below(5) {
            0 => {
                let left = Expr::Dim(0).minus(c(self.random.below(20) as i64));
                body.push(Stmt::If {
                    condition: Expr::from(v).less(left),
                    then: stores,
                    otherwise: Vec::new(),
                });
            }
            1 => {
                let condition = Expr::from(v).remainder(c(3)).less(c(2));
                body.push(Stmt::If { condition, then: stores, otherwise: Vec::new() });
            }
            _ => body.append(&mut stores),
        }
        self.locals.clear();
        self.counters.remove(0);
        Stmt::For { var: v, extent: c(self.lanes), kind: LoopKind::Vector, body }
    }
}

fn random_kernel(seed: u64) -> (Kernel, DType) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    random.below(2);
    let mut kernel = Kernel::new("random");
    kernel.dims.push("n".into());
    let inputs = TYPES.iter().map(|dtype| kernel.argument("x", *dtype, c(SIZE), Access::Read)).collect();
    let dtype = random.pick(&TYPES);
    let output = kernel.argument("y", dtype, c(SIZE), Access::ReadWrite);
    let i = kernel.counter("i");
    let lanes = 1 + random.below(40) as i64;
    let mut generator = Generator { random, kernel, inputs, counters: vec![i], lanes, locals: Vec::new() };
    let mut body = Vec::new();
    for part in 0..1 + generator.random.below(2) as i64 {
        let base = Expr::from(i).times(c(lanes)).plus(c(part * 2048));
        let registers = generator.random.chance(3);
        body.push(generator.vector_loop(output, dtype, base, registers));
    }
    let mut kernel = generator.kernel;
    kernel.body = vec![Stmt::For { var: i, extent: Expr::Dim(0), kind: LoopKind::Parallel, body }];
    (kernel, dtype)
}

fn inputs() -> Vec<Vec<u8>> {
    let mut random = Random(7);
    TYPES
        .iter()
        .map(|dtype| {
            let mut kernel = Kernel::new("fill");
            let buffer = kernel.argument("x", *dtype, c(SIZE), Access::Write);
            kernel.body = (0..SIZE)
                .map(|index| {
                    let value = (random.below(17) as f64 - 8.0) * 0.75;
                    let value = Expr::constant(DType::F64, value).cast(DType::F64, *dtype);
                    Stmt::Store { buffer, index: c(index), value, valid: None }
                })
                .collect();
            let mut bytes = vec![0; dtype.bytes_for(SIZE as usize).unwrap_or(0)];
            evaluate(&kernel, &mut [&mut bytes], &[], 0, 1).unwrap();
            bytes
        })
        .collect()
}

/// Bytes with every NaN made the same one.
fn comparable(dtype: DType, bytes: &[u8]) -> Vec<u64> {
    if dtype.is_packed() {
        return bytes.iter().map(|byte| u64::from(*byte)).collect();
    }
    let element = |chunk: &[u8]| {
        let mut wide = [0; 8];
        wide[..chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_le_bytes(wide);
        let value = crate::fold::from_bits(dtype, bits);
        if dtype.is_float() && value.as_f64().is_nan() { u64::MAX } else { bits }
    };
    bytes.chunks(dtype.size()).map(element).collect()
}

fn run(kernel: &Kernel, dtype: DType, n: i64, inputs: &[Vec<u8>]) -> Vec<u64> {
    let mut buffers = inputs.to_vec();
    buffers.push(vec![0; dtype.bytes_for(SIZE as usize).unwrap_or(0)]);
    let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|bytes| &mut bytes[..]).collect();
    evaluate(kernel, &mut slices, &[n], 0, n).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
    comparable(dtype, &buffers[TYPES.len()])
}

#[test]
fn passes_keep_what_random_kernels_compute() {
    let inputs = inputs();
    for seed in 0..150 {
        let (kernel, dtype) = random_kernel(seed);
        let n = (seed % 4) as i64 * 7 % 24;
        let expected = run(&kernel, dtype, n, &inputs);
        for (vector_bits, f16_convert) in [(128, false), (512, true), (64, false)] {
            let machine = Machine { vector_bits, f16_convert, ..Machine::BASELINE };
            let mut done = kernel.clone();
            finalize(&mut done, &machine)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{kernel}\n{done}"));
            let found = run(&done, dtype, n, &inputs);
            assert!(expected == found, "seed {seed}, {vector_bits} bits\n{kernel}\n{done}");
        }
    }
}
