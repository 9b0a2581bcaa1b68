//! Accesses: partly valid ones, gathers, scatters, ramps, every element type.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, Stmt, Ty};

use super::harness::{Memory, Random, run, serial, store};
use super::reference::CORE;

fn types() -> Vec<DType> {
    CORE.iter().copied().chain([DType::F16]).collect()
}

fn values(dtype: DType, count: usize, seed: u64) -> Vec<u64> {
    let mut random = Random(seed);
    let mask = if dtype == DType::Bool { 1 } else { u64::MAX >> (64 - dtype.bits()) };
    (0..count).map(|_| random.next() & mask).collect()
}

/// `y[0..n] = x[0..n]` in blocks, the last one partly valid; the buffers end where the data ends.
fn copy(dtype: DType, lanes: u16) -> Kernel {
    let mut kernel = Kernel::new("copy");
    kernel.dims.push("n".to_owned());
    let x = kernel.argument("x", dtype, Expr::Dim(0), Access::Read);
    let y = kernel.argument("y", dtype, Expr::Dim(0), Access::Write);
    let block = kernel.counter("block");
    let lanes_index = Expr::index(i64::from(lanes));
    let first = Expr::from(block).times(lanes_index.clone());
    let valid = Expr::Dim(0).minus(first.clone());
    let value =
        Expr::Load { buffer: x, index: Box::new(first.clone()), lanes, valid: Some(Box::new(valid.clone())) };
    let copy = Stmt::Store { buffer: y, index: first, value, valid: Some(valid) };
    kernel.body.push(serial(block, Expr::Dim(0).over_up(lanes_index), vec![copy]));
    kernel
}

#[test]
fn tails_stay_inside() {
    for dtype in types() {
        for lanes in [1, 2, 3, 4, 8, 16, 21] {
            let kernel = copy(dtype, lanes);
            for n in [0, 1, 2, 3, 5, 7, 16, 17, 31, 64, 97] {
                let data = values(dtype, n, 3);
                let mut memory = [Memory::of(dtype, &data), Memory::filled(dtype, n, 0x77)];
                run(&kernel, &mut memory, &[n as i64]);
                assert_eq!(memory[1].elements(dtype), data, "{dtype} x {lanes}, {n}");
            }
        }
    }
}

/// Lanes that are not valid are zero, whatever `valid` is, and a constant `valid` does the same.
#[test]
fn lanes_that_are_not_valid_are_zero() {
    for dtype in types() {
        for lanes in [1u16, 3, 8, 20] {
            let limits = [i64::MIN, -1, 0, 1, 2, i64::from(lanes) - 1, i64::from(lanes), i64::MAX];
            for valid in limits {
                for constant in [false, true] {
                    let mut kernel = Kernel::new("zeros");
                    kernel.dims.push("valid".to_owned());
                    let count = Expr::index(i64::from(lanes));
                    let x = kernel.argument("x", dtype, count.clone(), Access::Read);
                    let y = kernel.argument("y", dtype, count, Access::Write);
                    let limit = if constant { Expr::index(valid) } else { Expr::Dim(0) };
                    let value = Expr::Load {
                        buffer: x,
                        index: Box::new(Expr::index(0)),
                        lanes,
                        valid: Some(Box::new(limit)),
                    };
                    kernel.body.push(store(y, Expr::index(0), value));
                    let data = values(dtype, usize::from(lanes), 11);
                    let mut memory = [Memory::of(dtype, &data), Memory::filled(dtype, data.len(), 0x77)];
                    run(&kernel, &mut memory, &[valid]);
                    let expected: Vec<u64> = data
                        .iter()
                        .enumerate()
                        .map(|(lane, x)| if (lane as i64) < valid { *x } else { 0 })
                        .collect();
                    assert_eq!(memory[1].elements(dtype), expected, "{dtype} x {lanes}, {valid} valid");
                }
            }
        }
    }
}

/// `z[index[i]] = x[index[i]]` for a permutation, partly valid.
#[test]
fn gathers_and_scatters() {
    for dtype in types() {
        for lanes in [1u16, 2, 4, 7, 16] {
            for valid in [None, Some(0), Some(2), Some(100)] {
                let n = usize::from(lanes);
                let mut kernel = Kernel::new("gather");
                kernel.dims.push("valid".to_owned());
                let size = Expr::index(3 * n as i64);
                let indices = kernel.argument("indices", DType::I64, Expr::index(n as i64), Access::Read);
                let x = kernel.argument("x", dtype, size.clone(), Access::Read);
                let y = kernel.argument("y", dtype, Expr::index(n as i64), Access::Write);
                let z = kernel.argument("z", dtype, size, Access::ReadWrite);
                let index =
                    Expr::Load { buffer: indices, index: Box::new(Expr::index(0)), lanes, valid: None };
                let limit = valid.map(|_| Expr::Dim(0));
                let gathered = Expr::Load {
                    buffer: x,
                    index: Box::new(index.clone()),
                    lanes,
                    valid: limit.clone().map(Box::new),
                };
                kernel.body.push(store(y, Expr::index(0), gathered.clone()));
                kernel.body.push(Stmt::Store { buffer: z, index, value: gathered, valid: limit });

                let mut random = Random(5);
                // Distinct, so that the order of the scatter is not observed.
                let places: Vec<u64> = (0..n).map(|lane| (3 * lane + random.below(3)) as u64).collect();
                let data = values(dtype, 3 * n, 13);
                let before = values(dtype, 3 * n, 17);
                let mut memory = [
                    Memory::of(DType::I64, &places),
                    Memory::of(dtype, &data),
                    Memory::filled(dtype, n, 0x77),
                    Memory::of(dtype, &before),
                ];
                run(&kernel, &mut memory, &[valid.unwrap_or(0)]);
                let used = valid.unwrap_or(i64::MAX);
                let mut scattered = before;
                let mut gathered = vec![0; n];
                for (lane, place) in places.iter().enumerate().filter(|(lane, _)| (*lane as i64) < used) {
                    gathered[lane] = data[*place as usize];
                    scattered[*place as usize] = data[*place as usize];
                }
                assert_eq!(memory[2].elements(dtype), gathered, "{dtype} x {lanes}, {valid:?}");
                assert_eq!(memory[3].elements(dtype), scattered, "{dtype} x {lanes}, {valid:?}");
            }
        }
    }
}

/// Where lanes of a scatter meet, the last one stays.
#[test]
fn a_scatter_writes_in_order() {
    let mut kernel = Kernel::new("meet");
    let y = kernel.argument("y", DType::I32, Expr::index(1), Access::Write);
    let zero = Expr::Splat(Box::new(Expr::index(0)), 6);
    let ramp = Expr::Ramp { base: Box::new(Expr::index(5)), stride: 3, lanes: 6 };
    kernel.body.push(store(y, zero, ramp.cast(DType::I64, DType::I32)));
    let mut memory = [Memory::filled(DType::I32, 1, 0)];
    run(&kernel, &mut memory, &[]);
    assert_eq!(memory[0].elements(DType::I32), [20]);
}

/// Strides of any sign and size: as an address and as a value.
#[test]
fn ramps() {
    for stride in [-3i64, -1, 0, 1, 2, 5] {
        for lanes in [1u16, 2, 5, 8] {
            for valid in [None, Some(3i64)] {
                let mut kernel = Kernel::new("ramp");
                kernel.dims.extend(["base".to_owned(), "valid".to_owned()]);
                let n = Expr::index(i64::from(lanes));
                let x = kernel.argument("x", DType::F32, Expr::index(100), Access::Read);
                let y = kernel.argument("y", DType::F32, n.clone(), Access::Write);
                let z = kernel.argument("z", DType::I64, n, Access::Write);
                let base = Box::new(Expr::Dim(0).plus(Expr::index(2)));
                let ramp = Expr::Ramp { base, stride, lanes };
                let limit = valid.map(|_| Box::new(Expr::Dim(1)));
                let value = Expr::Load { buffer: x, index: Box::new(ramp.clone()), lanes, valid: limit };
                kernel.body.push(store(y, Expr::index(0), value));
                kernel.body.push(store(z, Expr::index(0), ramp));
                let data: Vec<u64> = (0..100).map(|x| u64::from((x as f32).to_bits())).collect();
                let count = usize::from(lanes);
                let mut memory = [
                    Memory::of(DType::F32, &data),
                    Memory::filled(DType::F32, count, 0x77),
                    Memory::filled(DType::I64, count, 0x77),
                ];
                run(&kernel, &mut memory, &[48, valid.unwrap_or(0)]);
                for lane in 0..i64::from(lanes) {
                    let place = 50 + stride * lane;
                    let expected = if lane < valid.unwrap_or(i64::MAX) { place as f32 } else { 0.0 };
                    assert_eq!(memory[1].elements(DType::F32)[lane as usize], u64::from(expected.to_bits()));
                    assert_eq!(memory[2].elements(DType::I64)[lane as usize], place as u64);
                }
            }
        }
    }
}

/// Scratch buffers of sizes that depend on dimensions do not meet, and stack buffers keep their contents.
#[test]
fn buffers_of_the_kernel() {
    let mut kernel = Kernel::new("local");
    kernel.dims.push("n".to_owned());
    let x = kernel.argument("x", DType::I32, Expr::Dim(0), Access::Read);
    let y = kernel.argument("y", DType::I32, Expr::Dim(0), Access::Write);
    let local = |kernel: &mut Kernel, name: &str, dtype, space, count| {
        kernel.buffer(name, dtype, space, count, Access::ReadWrite)
    };
    use tcc_kernel::ir::Space;
    let a = local(&mut kernel, "a", DType::I32, Space::Scratch, Expr::Dim(0));
    let b = local(&mut kernel, "b", DType::U8, Space::Scratch, Expr::Dim(0).plus(Expr::index(1)));
    let c = local(&mut kernel, "c", DType::I64, Space::Scratch, Expr::Dim(0));
    let s = local(&mut kernel, "s", DType::I32, Space::Stack, Expr::index(37));
    let (i, j) = (kernel.counter("i"), kernel.counter("j"));
    let t = kernel.variable("t", Ty::scalar(DType::I32));
    let at = |var| Expr::from(var);
    let times = |x: Expr, k: i64| {
        let factor = Expr::Const(tcc_ir::scalar::Scalar::integer(DType::I32, k));
        Expr::call(tcc_ir::scalar::Function::Mul, vec![x, factor])
    };
    kernel.body.push(serial(
        i,
        Expr::Dim(0),
        vec![
            Stmt::Assign { var: t, value: Expr::load(x, at(i)) },
            store(a, at(i), times(t.into(), 3)),
            store(b, at(i), Expr::from(t).cast(DType::I32, DType::U8)),
            store(c, at(i), Expr::from(t).cast(DType::I32, DType::I64)),
            store(s, at(i).remainder(Expr::index(37)), t.into()),
        ],
    ));
    let sum = |x: Expr, y: Expr| Expr::call(tcc_ir::scalar::Function::Add, vec![x, y]);
    let total = [
        Expr::load(a, at(j)),
        Expr::load(b, at(j)).cast(DType::U8, DType::I32),
        Expr::load(c, at(j)).cast(DType::I64, DType::I32),
        Expr::load(s, at(j).remainder(Expr::index(37))),
    ]
    .into_iter()
    .reduce(sum)
    .unwrap();
    kernel.body.push(serial(j, Expr::Dim(0), vec![store(y, at(j), total)]));
    for n in [0, 1, 13, 37, 36] {
        let data = values(DType::I32, n, 23);
        let mut memory = [Memory::of(DType::I32, &data), Memory::filled(DType::I32, n, 0)];
        run(&kernel, &mut memory, &[n as i64]);
        let expected: Vec<u64> = data
            .iter()
            .map(|x| u64::from((*x as u32).wrapping_mul(5).wrapping_add(*x as u32 & 0xff)))
            .collect();
        assert_eq!(memory[1].elements(DType::I32), expected, "{n}");
    }
}
