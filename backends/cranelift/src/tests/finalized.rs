//! Scheduled kernels: what the interpreter computes of them, and generated code after the passes.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_ir::words::ReduceKind;
use tcc_kernel::Kernel;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Ty, Var};
use tcc_kernel::passes::finalize;

use super::harness::{Memory, Random, oldest, run_on, serial, store};
use super::reference::same;
use crate::Target;

const TYPES: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
];

/// Elements of every buffer; indices are taken modulo a smaller number.
const SIZE: i64 = 512;

struct Generator {
    random: Random,
    inputs: Vec<BufferId>,
    counters: Vec<Var>,
}

impl Generator {
    fn chance(&mut self, one_in: usize) -> bool {
        self.random.below(one_in) == 0
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.below(choices.len())]
    }

    fn index(&mut self) -> Expr {
        let mut sum = Expr::index(self.random.below(40) as i64);
        for counter in self.counters.clone() {
            let factor = self.one_of(&[0, 1, 1, 2, 3]);
            sum = sum.plus(Expr::from(counter).times(Expr::index(factor)));
        }
        if self.chance(5) { sum.remainder(Expr::index(97)) } else { sum }
    }

    fn leaf(&mut self, dtype: DType) -> Expr {
        if self.chance(4) {
            let value = self.random.below(23) as f64 - 7.0;
            return Expr::constant(dtype, if dtype.is_float() { value * 0.375 } else { value.abs() });
        }
        let from = self.random.below(TYPES.len());
        let index = self.index();
        let valid = self.chance(6).then(|| {
            let limit = Expr::index(self.random.below(30) as i64);
            Box::new(limit.minus(self.counters[self.counters.len() - 1].into()))
        });
        let load = Expr::Load { buffer: self.inputs[from], index: Box::new(index), lanes: 1, valid };
        self.convert(load, TYPES[from], dtype)
    }

    fn convert(&mut self, value: Expr, from: DType, to: DType) -> Expr {
        if from != to && from.bits() == to.bits() && self.chance(3) && !from.is_float() {
            // Bits of integers as numbers; NaN bits are not compared.
            return if to.is_float() {
                value.cast(from, to)
            } else {
                Expr::Call(ScalarOp::Bitcast(to), vec![value])
            };
        }
        if self.chance(4) {
            let middle = self.one_of(TYPES);
            return value.cast(from, middle).cast(middle, to);
        }
        value.cast(from, to)
    }

    fn condition(&mut self, depth: usize) -> Expr {
        let dtype = self.one_of(TYPES);
        let function = self.one_of(&[Function::Equal, Function::Less, Function::LessEqual]);
        let simple = Expr::call(function, vec![self.value(dtype, depth), self.value(dtype, depth)]);
        match self.random.below(4) {
            0 => Expr::call(Function::Not, vec![simple]),
            1 if depth > 0 => {
                let function = self.one_of(&[Function::And, Function::Or, Function::Xor]);
                Expr::call(function, vec![simple, self.condition(depth - 1)])
            }
            _ => simple,
        }
    }

    fn value(&mut self, dtype: DType, depth: usize) -> Expr {
        if depth == 0 {
            return self.leaf(dtype);
        }
        match self.random.below(7) {
            0 => self.leaf(dtype),
            1 => self.condition(depth - 1).choose(self.value(dtype, depth - 1), self.value(dtype, depth - 1)),
            2 => {
                let from = self.one_of(TYPES);
                let value = self.value(from, depth - 1);
                self.convert(value, from, dtype)
            }
            3 if dtype.is_float() => {
                let function =
                    self.one_of(&[Function::Floor, Function::Ceil, Function::Round, Function::Trunc]);
                Expr::call(function, vec![self.value(dtype, depth - 1)])
            }
            3 => {
                let function = self.one_of(&[
                    Function::Div,
                    Function::Rem,
                    Function::BitAnd,
                    Function::BitXor,
                    Function::ShiftLeft,
                    Function::ShiftRight,
                ]);
                Expr::call(function, vec![self.value(dtype, depth - 1), self.value(dtype, depth - 1)])
            }
            _ => {
                // Without limits of floats: which zero wins a tie is not part of the interpreter.
                let choices = [Function::Add, Function::Sub, Function::Mul, Function::Max, Function::Min];
                let function = self.one_of(if dtype.is_float() { &choices[..3] } else { &choices });
                Expr::call(function, vec![self.value(dtype, depth - 1), self.value(dtype, depth - 1)])
            }
        }
    }
}

/// Parallel, serial and vector loops around random expressions, with locals, carried sums and branches.
fn random_kernel(seed: u64) -> (Kernel, DType) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..3 {
        random.next();
    }
    let mut kernel = Kernel::new("random");
    kernel.dims.push("n".to_owned());
    let inputs =
        TYPES.iter().map(|dtype| kernel.argument("x", *dtype, Expr::index(SIZE), Access::Read)).collect();
    let dtype = TYPES[random.below(TYPES.len())];
    let output = kernel.argument("y", dtype, Expr::index(SIZE), Access::ReadWrite);
    let (i, v, k) = (kernel.counter("i"), kernel.counter("v"), kernel.counter("k"));
    let lanes = [1, 3, 4, 8, 16, 19][random.below(6)];
    let local_type = TYPES[random.below(TYPES.len())];
    let local = kernel.variable("t", Ty::scalar(local_type));
    let mut g = Generator { random, inputs, counters: vec![i, v] };

    let mut body = vec![Stmt::Assign { var: local, value: g.value(local_type, 2) }];
    if g.chance(2) {
        g.counters.push(k);
        let more = Expr::call(Function::Add, vec![local.into(), g.value(local_type, 1)]);
        g.counters.pop();
        let extent = if g.chance(2) { Expr::index(3) } else { Expr::Dim(0).remainder(Expr::index(4)) };
        body.push(serial(k, extent, vec![Stmt::Assign { var: local, value: more }]));
    }
    let place = Expr::from(i).times(Expr::index(lanes)).plus(v.into());
    let value = g.value(dtype, 3);
    let value = if g.chance(2) {
        Expr::call(Function::Add, vec![value, Expr::from(local).cast(local_type, dtype)])
    } else {
        value
    };
    let stored = Stmt::Store { buffer: output, index: place, value, valid: None };
    body.push(if g.chance(3) {
        let limit = Expr::Dim(0).minus(Expr::index(g.random.below(9) as i64));
        Stmt::If { condition: Expr::from(v).less(limit), then: vec![stored], otherwise: vec![] }
    } else {
        stored
    });
    let vector = Stmt::For { var: v, extent: Expr::index(lanes), kind: LoopKind::Vector, body };
    kernel.body.push(Stmt::For {
        var: i,
        extent: Expr::Dim(0),
        kind: LoopKind::Parallel,
        body: vec![vector],
    });
    (kernel, dtype)
}

fn inputs() -> Vec<Memory> {
    let mut random = Random(41);
    TYPES
        .iter()
        .map(|dtype| {
            let elements: Vec<u64> = (0..SIZE)
                .map(|_| {
                    let small = random.below(19) as f64 - 6.0;
                    match dtype {
                        DType::F32 => u64::from((small as f32 * 0.75).to_bits()),
                        DType::F64 => (small * 0.75).to_bits(),
                        _ if random.below(3) == 0 => random.next() & (u64::MAX >> (64 - dtype.bits())),
                        _ => small as i64 as u64 & (u64::MAX >> (64 - dtype.bits())),
                    }
                })
                .collect();
            Memory::of(*dtype, &elements)
        })
        .collect()
}

/// What the interpreter makes of the kernel as it was scheduled.
fn interpreted(kernel: &Kernel, memory: &[Memory], dims: &[i64]) -> Vec<Vec<u8>> {
    let mut buffers: Vec<Vec<u8>> = memory.iter().map(|memory| memory.contents().to_vec()).collect();
    let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|bytes| &mut bytes[..]).collect();
    evaluate(kernel, &mut slices, dims, 0, i64::MAX).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
    buffers
}

/// Compares the last argument after interpretation and after passes, compilation and a run.
fn check(kernel: &Kernel, dtype: DType, memory: &[Memory], dims: &[i64], name: &str) {
    let expected =
        Memory::new(interpreted(kernel, memory, dims).last().expect("there is an output")).elements(dtype);
    for target in [Target::host(), oldest()] {
        let mut done = kernel.clone();
        finalize(&mut done, &target.machine().unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}\n{kernel}"));
        let mut memory = memory.to_vec();
        run_on(&target, &done, &mut memory, dims);
        let found = memory[memory.len() - 1].elements(dtype);
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                same(dtype, *found, *expected),
                "{name}, element {place}: got {found:x}, expected {expected:x}\n{kernel}\n{done}"
            );
        }
    }
}

#[test]
fn random_kernels_compute_what_the_interpreter_says() {
    let inputs = inputs();
    for seed in 0..300 {
        let (kernel, dtype) = random_kernel(seed);
        let n = (seed * 5 % 17) as i64;
        let mut memory = inputs.clone();
        memory.push(Memory::filled(dtype, SIZE as usize, 0));
        check(&kernel, dtype, &memory, &[n], &format!("seed {seed}"));
    }
}

/// A tile of a matrix product: register arrays, unrolled rows, vector columns, a serial sum.
#[test]
fn register_tiles() {
    let (rows, columns) = (3i64, 8i64);
    let mut kernel = Kernel::new("tile");
    kernel.dims.extend(["tiles", "depth"].map(str::to_owned));
    let tiles = Expr::Dim(0);
    let a = kernel.argument("a", DType::F32, Expr::Dim(1).times(Expr::index(rows)), Access::Read);
    let stride = tiles.clone().times(Expr::index(columns));
    let b = kernel.argument("b", DType::F32, Expr::Dim(1).times(stride.clone()), Access::Read);
    let y = kernel.argument("y", DType::F32, stride.clone().times(Expr::index(rows)), Access::Write);
    let size = Expr::index(rows * columns);
    let acc = kernel.buffer("acc", DType::F32, Space::Register, size, Access::ReadWrite);
    let tile = kernel.counter("tile");
    let depth = kernel.counter("depth");
    let nest = |kernel: &mut Kernel, body: &dyn Fn(Var, Var) -> Stmt| {
        let (row, column) = (kernel.counter("row"), kernel.counter("column"));
        let inner = Stmt::For {
            var: column,
            extent: Expr::index(columns),
            kind: LoopKind::Vector,
            body: vec![body(row, column)],
        };
        Stmt::For { var: row, extent: Expr::index(rows), kind: LoopKind::Unroll, body: vec![inner] }
    };
    let at = |row: Var, column: Var| Expr::from(row).times(Expr::index(columns)).plus(column.into());
    let clear =
        nest(&mut kernel, &|row, column| store(acc, at(row, column), Expr::constant(DType::F32, 0.0)));
    let multiply = nest(&mut kernel, &|row, column| {
        let left = Expr::load(a, Expr::from(depth).times(Expr::index(rows)).plus(row.into()));
        let place =
            Expr::from(depth).times(stride.clone()).plus(Expr::from(tile).times(Expr::index(columns)));
        let right = Expr::load(b, place.plus(column.into()));
        let sum = Expr::load(acc, at(row, column));
        store(acc, at(row, column), Expr::Fma(Box::new(left), Box::new(right), Box::new(sum)))
    });
    let write = nest(&mut kernel, &|row, column| {
        let place = Expr::from(row).times(stride.clone()).plus(Expr::from(tile).times(Expr::index(columns)));
        store(y, place.plus(column.into()), Expr::load(acc, at(row, column)))
    });
    let body = vec![clear, serial(depth, Expr::Dim(1), vec![multiply]), write];
    kernel.body.push(Stmt::For { var: tile, extent: tiles, kind: LoopKind::Parallel, body });
    for (tiles, depth) in [(0, 4), (1, 0), (1, 1), (3, 7), (2, 13)] {
        let data = |count: i64, seed: i64| -> Vec<u64> {
            (0..count).map(|x| u64::from((((x * 7 + seed) % 23) as f32 * 0.37 - 3.0).to_bits())).collect()
        };
        let memory = [
            Memory::of(DType::F32, &data(depth * rows, 1)),
            Memory::of(DType::F32, &data(depth * tiles * columns, 2)),
            Memory::filled(DType::F32, (tiles * columns * rows) as usize, 0),
        ];
        check(&kernel, DType::F32, &memory, &[tiles, depth], &format!("{tiles} tiles, depth {depth}"));
    }
}

/// Half-precision storage around single-precision arithmetic, with lanes reduced at the end.
#[test]
fn half_precision_storage() {
    let mut kernel = Kernel::new("halves");
    kernel.dims.push("n".to_owned());
    let x = kernel.argument("x", DType::F16, Expr::Dim(0).times(Expr::index(8)), Access::Read);
    let y = kernel.argument("y", DType::F16, Expr::Dim(0).times(Expr::index(9)), Access::Write);
    let (i, v) = (kernel.counter("i"), kernel.counter("v"));
    let place = Expr::from(i).times(Expr::index(8)).plus(v.into());
    let single = Expr::load(x, place).cast(DType::F16, DType::F32);
    let scaled =
        Expr::call(Function::Mul, vec![single, Expr::constant(DType::F32, 0.3)]).cast(DType::F32, DType::F16);
    let to = Expr::from(i).times(Expr::index(9)).plus(v.into());
    let scale = Stmt::For {
        var: v,
        extent: Expr::index(8),
        kind: LoopKind::Vector,
        body: vec![store(y, to, scaled)],
    };
    let eight =
        Expr::Load { buffer: x, index: Box::new(Expr::from(i).times(Expr::index(8))), lanes: 4, valid: None };
    let sum =
        Expr::ReduceLanes(ReduceKind::Sum, Box::new(Expr::Call(ScalarOp::Cast(DType::F32), vec![eight])));
    let last = Expr::from(i).times(Expr::index(9)).plus(Expr::index(8));
    let total = store(y, last, sum.cast(DType::F32, DType::F16));
    let body = vec![scale, total];
    kernel.body.push(Stmt::For { var: i, extent: Expr::Dim(0), kind: LoopKind::Parallel, body });
    let mut random = Random(3);
    for n in [0i64, 1, 7, 64] {
        let data: Vec<u64> = (0..8 * n).map(|_| random.next() & 0xffff).collect();
        let memory = [Memory::of(DType::F16, &data), Memory::filled(DType::F16, 9 * n as usize, 0)];
        check(&kernel, DType::F16, &memory, &[n], &format!("n = {n}"));
    }
}

/// Products of bytes summed in integers.
#[test]
fn dot_products() {
    let mut kernel = Kernel::new("dot");
    kernel.dims.push("n".to_owned());
    let groups = Expr::Dim(0);
    let a = kernel.argument("a", DType::U8, groups.clone().times(Expr::index(4)), Access::Read);
    let b = kernel.argument("b", DType::I8, groups.clone().times(Expr::index(16)), Access::Read);
    let y = kernel.argument("y", DType::I32, Expr::index(4), Access::Write);
    let acc = kernel.variable("acc", Ty::vector(DType::I32, 4));
    let k = kernel.counter("k");
    let four =
        Expr::Load { buffer: a, index: Box::new(Expr::from(k).times(Expr::index(4))), lanes: 4, valid: None };
    let repeated =
        Expr::Shuffle(Box::new(four.clone()), Box::new(four), (0..16).map(|lane| lane % 4).collect());
    let right = Expr::Load {
        buffer: b,
        index: Box::new(Expr::from(k).times(Expr::index(16))),
        lanes: 16,
        valid: None,
    };
    let zero = Expr::Const(Scalar::integer(DType::I32, 0));
    kernel.body = vec![
        Stmt::Assign { var: acc, value: Expr::Splat(Box::new(zero), 4) },
        serial(
            k,
            groups,
            vec![Stmt::Assign {
                var: acc,
                value: Expr::Dot { acc: Box::new(acc.into()), a: Box::new(repeated), b: Box::new(right) },
            }],
        ),
        store(y, Expr::index(0), acc.into()),
    ];
    let mut random = Random(8);
    for n in [0i64, 1, 5, 300] {
        let bytes =
            |count: i64, random: &mut Random| (0..count).map(|_| random.next() & 0xff).collect::<Vec<_>>();
        let memory = [
            Memory::of(DType::U8, &bytes(4 * n, &mut random)),
            Memory::of(DType::I8, &bytes(16 * n, &mut random)),
            Memory::filled(DType::I32, 4, 0),
        ];
        check(&kernel, DType::I32, &memory, &[n], &format!("n = {n}"));
    }
}
