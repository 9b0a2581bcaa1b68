//! Loops, slices of the parallel domain, branches and variables.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar};
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Stmt, Ty};

use super::harness::{Memory, call, load, run, serial, store};
use crate::Jit;

fn single(x: f32) -> u64 {
    u64::from(x.to_bits())
}

/// `c = a * b` for matrices of any size: rows in parallel, columns in vectors with a tail, one accumulator a vector.
fn matrix_product(lanes: u16) -> Kernel {
    let mut kernel = Kernel::new("matmul");
    kernel.dims.extend(["m", "n", "k"].map(str::to_owned));
    let (m, n, k) = (Expr::Dim(0), Expr::Dim(1), Expr::Dim(2));
    let a = kernel.argument("a", DType::F32, m.clone().times(k.clone()), Access::Read);
    let b = kernel.argument("b", DType::F32, k.clone().times(n.clone()), Access::Read);
    let c = kernel.argument("c", DType::F32, m.clone().times(n.clone()), Access::Write);
    let (row, block, depth) = (kernel.counter("row"), kernel.counter("block"), kernel.counter("depth"));
    let acc = kernel.variable("acc", Ty::vector(DType::F32, lanes));
    let width = Expr::index(i64::from(lanes));
    let column = Expr::from(block).times(width.clone());
    let valid = n.clone().minus(column.clone());
    let left = Expr::load(a, Expr::from(row).times(k.clone()).plus(depth.into()));
    let right = Expr::Load {
        buffer: b,
        index: Box::new(Expr::from(depth).times(n.clone()).plus(column.clone())),
        lanes,
        valid: Some(Box::new(valid.clone())),
    };
    let left = if lanes == 1 { left } else { Expr::Splat(Box::new(left), lanes) };
    let step = Expr::Fma(Box::new(left), Box::new(right), Box::new(acc.into()));
    let zero = Expr::constant(DType::F32, 0.0);
    let zero = if lanes == 1 { zero } else { Expr::Splat(Box::new(zero), lanes) };
    let body = vec![
        Stmt::Assign { var: acc, value: zero },
        serial(depth, k, vec![Stmt::Assign { var: acc, value: step }]),
        Stmt::Store {
            buffer: c,
            index: Expr::from(row).times(n.clone()).plus(column),
            value: acc.into(),
            valid: Some(valid),
        },
    ];
    let columns = serial(block, n.over_up(width), body);
    kernel.body.push(Stmt::For { var: row, extent: m, kind: LoopKind::Parallel, body: vec![columns] });
    kernel
}

#[test]
fn matrix_products_of_any_size() {
    for lanes in [1, 4, 8, 6] {
        let kernel = matrix_product(lanes);
        for (m, n, k) in [(0, 3, 2), (1, 1, 1), (3, 0, 4), (2, 5, 0), (7, 13, 5), (4, 16, 8), (5, 31, 17)] {
            let data = |count: usize, seed: usize| -> Vec<u64> {
                (0..count).map(|x| single(((x * 7 + seed) % 11) as f32 - 5.0)).collect()
            };
            let (a, b) = (data(m * k, 1), data(k * n, 2));
            let mut memory = [
                Memory::of(DType::F32, &a),
                Memory::of(DType::F32, &b),
                Memory::filled(DType::F32, m * n, 0x77),
            ];
            run(&kernel, &mut memory, &[m as i64, n as i64, k as i64]);
            let value = |bits: u64| f32::from_bits(bits as u32);
            let expected: Vec<u64> = (0..m * n)
                .map(|place| {
                    let (row, column) = (place / n, place % n);
                    single((0..k).map(|depth| value(a[row * k + depth]) * value(b[depth * n + column])).sum())
                })
                .collect();
            // Sums of small integers are exact; only the sign of an empty sum is open.
            let result: Vec<f32> = memory[2].elements(DType::F32).into_iter().map(value).collect();
            let expected: Vec<f32> = expected.into_iter().map(value).collect();
            assert_eq!(result, expected, "{m} x {n} x {k}, {lanes} lanes");
        }
    }
}

/// A kernel that counts how often each task runs.
fn counting(kind: LoopKind) -> Kernel {
    let mut kernel = Kernel::new("count");
    kernel.dims.push("n".to_owned());
    let y = kernel.argument("y", DType::I32, Expr::Dim(0), Access::ReadWrite);
    let i = kernel.counter("i");
    let one = Expr::Const(Scalar::integer(DType::I32, 1));
    let more = Expr::call(Function::Add, vec![Expr::load(y, i.into()), one]);
    kernel.body.push(Stmt::For { var: i, extent: Expr::Dim(0), kind, body: vec![store(y, i.into(), more)] });
    kernel
}

#[test]
fn slices_of_the_parallel_domain() {
    let jit = Jit::new(&[counting(LoopKind::Parallel)]).unwrap();
    let mut memory = [Memory::filled(DType::I32, 10, 0)];
    for (begin, end) in [(0, 3), (3, 3), (3, 4), (4, 10), (7, 5), (-5, 0)] {
        call(&jit, "count", &mut memory, &[10], 0, begin, end);
    }
    assert_eq!(memory[0].elements(DType::I32), [1; 10]);
    call(&jit, "count", &mut memory, &[10], 0, 8, 100);
    assert_eq!(memory[0].elements(DType::I32), [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
}

#[test]
fn a_kernel_without_tasks_runs_for_the_first() {
    let jit = Jit::new(&[counting(LoopKind::Serial)]).unwrap();
    let mut memory = [Memory::filled(DType::I32, 5, 0)];
    for (begin, end) in [(0, 0), (1, 2), (0, 1), (-1, 1)] {
        call(&jit, "count", &mut memory, &[5], 0, begin, end);
    }
    assert_eq!(memory[0].elements(DType::I32), [1; 5]);
}

#[test]
fn negative_extents_run_nothing() {
    let mut memory = [Memory::filled(DType::I32, 0, 0)];
    run(&counting(LoopKind::Serial), &mut memory, &[-7]);
    run(&counting(LoopKind::Parallel), &mut memory, &[i64::MIN]);
}

/// Truth values in variables change their mask width between assignments; branches and loops merge them.
#[test]
fn variables_of_truth_values() {
    for lanes in [1u16, 4, 9] {
        let mut kernel = Kernel::new("truth");
        kernel.dims.push("n".to_owned());
        let x = kernel.argument("x", DType::F64, Expr::Dim(0), Access::Read);
        let y = kernel.argument("y", DType::I8, Expr::Dim(0), Access::Read);
        let z = kernel.argument("z", DType::I32, Expr::Dim(0), Access::Write);
        let block = kernel.counter("block");
        let t = kernel.variable("t", Ty::vector(DType::Bool, lanes));
        let first = Expr::from(block).times(Expr::index(i64::from(lanes)));
        let splat = |e: Expr| if lanes == 1 { e } else { Expr::Splat(Box::new(e), lanes) };
        let zero_of = |dtype| splat(Expr::Const(Scalar::of(dtype, 0.0)));
        let by_double = zero_of(DType::F64).less(load(x, first.clone(), lanes));
        let by_byte = Expr::from(t).both(load(y, first.clone(), lanes).less(zero_of(DType::I8)));
        let even = Expr::from(block).remainder(Expr::index(2));
        let one = |value| splat(Expr::Const(Scalar::integer(DType::I32, value)));
        kernel.body.push(serial(
            block,
            Expr::Dim(0).over(Expr::index(i64::from(lanes))),
            vec![
                Stmt::Assign { var: t, value: by_double },
                Stmt::If {
                    condition: Expr::call(Function::Equal, vec![even, Expr::index(0)]),
                    then: vec![Stmt::Assign { var: t, value: by_byte }],
                    otherwise: vec![],
                },
                store(z, first, Expr::from(t).choose(one(10), one(20))),
            ],
        ));
        let n = 36;
        let doubles: Vec<u64> = (0..n).map(|i| (f64::from(i as i32 % 3) - 1.0).to_bits()).collect();
        let bytes: Vec<u64> = (0..n).map(|i| (i * 37 % 256) as u64).collect();
        let mut memory = [
            Memory::of(DType::F64, &doubles),
            Memory::of(DType::I8, &bytes),
            Memory::filled(DType::I32, n, 0),
        ];
        run(&kernel, &mut memory, &[n as i64]);
        let expected: Vec<u64> = (0..n)
            .map(|i| {
                let positive = f64::from_bits(doubles[i]) > 0.0;
                let even = (i / usize::from(lanes)).is_multiple_of(2);
                if positive && (!even || (bytes[i] as u8 as i8) < 0) { 10 } else { 20 }
            })
            .collect();
        assert_eq!(memory[2].elements(DType::I32), expected, "{lanes}");
    }
}

/// Index arithmetic on every sign, with dimensions, in one kernel.
#[test]
fn index_arithmetic() {
    let mut kernel = Kernel::new("index");
    kernel.dims.extend(["a", "b"].map(str::to_owned));
    let y = kernel.argument("y", DType::I64, Expr::index(4), Access::Write);
    let (a, b) = (Expr::Dim(0), Expr::Dim(1));
    let results = [
        a.clone().floor_over(b.clone()),
        Expr::call(Function::Mod, vec![a.clone(), b.clone()]),
        a.clone().over(b.clone()),
        a.remainder(b),
    ];
    for (place, result) in results.into_iter().enumerate() {
        kernel.body.push(store(y, Expr::index(place as i64), result));
    }
    for a in [-7i64, -6, 0, 5, 6, i64::MAX, i64::MIN] {
        for b in [-3i64, -1, 1, 2, 3, i64::MAX, i64::MIN] {
            let mut memory = [Memory::filled(DType::I64, 4, 0)];
            run(&kernel, &mut memory, &[a, b]);
            let rest = a.wrapping_rem(b);
            let modulus = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
            let expected = [a.wrapping_sub(modulus).wrapping_div(b), modulus, a.wrapping_div(b), rest];
            assert_eq!(memory[0].elements(DType::I64), expected.map(|x| x as u64), "{a}, {b}");
        }
    }
}
