//! Shuffles, reductions over lanes and dot products of bytes.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr};

use super::harness::{Memory, Random, load, oldest, run_on, store};
use super::reference::{self, CORE, same, specials};
use crate::Target;

#[test]
fn shuffles() {
    let mut random = Random(31);
    for &dtype in CORE.iter().chain(&[DType::F16]) {
        for (lanes_a, lanes_b, count) in [
            (1u16, 1u16, 2usize),
            (4, 4, 4),
            (2, 5, 3),
            (16, 16, 16),
            (8, 8, 24),
            (20, 12, 9),
            (32, 1, 33),
            (3, 3, 1),
        ] {
            for _ in 0..3 {
                let total = usize::from(lanes_a + lanes_b);
                let picks: Vec<u16> = (0..count).map(|_| random.below(total) as u16).collect();
                let mut kernel = Kernel::new("shuffle");
                let a = kernel.argument("a", dtype, Expr::index(i64::from(lanes_a)), Access::Read);
                let b = kernel.argument("b", dtype, Expr::index(i64::from(lanes_b)), Access::Read);
                let y = kernel.argument("y", dtype, Expr::index(count as i64), Access::Write);
                let left = load(a, Expr::index(0), lanes_a);
                let right = load(b, Expr::index(0), lanes_b);
                let value = Expr::Shuffle(Box::new(left), Box::new(right), picks.clone());
                kernel.body.push(store(y, Expr::index(0), value));
                let mask = if dtype == DType::Bool { 1 } else { u64::MAX >> (64 - dtype.bits()) };
                let data: Vec<u64> = (0..total).map(|_| random.next() & mask).collect();
                let (left, right) = data.split_at(usize::from(lanes_a));
                let mut memory =
                    [Memory::of(dtype, left), Memory::of(dtype, right), Memory::filled(dtype, count, 0x77)];
                run_on(&Target::host(), &kernel, &mut memory, &[]);
                let expected: Vec<u64> = picks.iter().map(|pick| data[usize::from(*pick)]).collect();
                assert_eq!(
                    memory[2].elements(dtype),
                    expected,
                    "{dtype}, {lanes_a} and {lanes_b}: {picks:?}"
                );
            }
        }
    }
}

/// The tree is part of the contract: floats show which it was.
#[test]
fn reductions_follow_the_tree() {
    let kinds = [
        (ReduceKind::Sum, Function::Add),
        (ReduceKind::Prod, Function::Mul),
        (ReduceKind::Max, Function::Max),
        (ReduceKind::Min, Function::Min),
    ];
    for &dtype in CORE.iter().filter(|dtype| **dtype != DType::Bool) {
        for (kind, function) in kinds {
            for lanes in [1u16, 2, 4, 8, 16, 32, 64] {
                let mut kernel = Kernel::new("reduce");
                let x = kernel.argument("x", dtype, Expr::index(i64::from(lanes)), Access::Read);
                let y = kernel.argument("y", dtype, Expr::index(1), Access::Write);
                let value = Expr::ReduceLanes(kind, Box::new(load(x, Expr::index(0), lanes)));
                kernel.body.push(store(y, Expr::index(0), value));
                let values = specials(dtype);
                for start in 0..12 {
                    let mut data: Vec<u64> = (0..usize::from(lanes))
                        .map(|lane| values[(start * 5 + lane) % values.len()])
                        .collect();
                    let mut memory = [Memory::of(dtype, &data), Memory::filled(dtype, 1, 0x77)];
                    run_on(&Target::host(), &kernel, &mut memory, &[]);
                    while data.len() > 1 {
                        let (low, high) = data.split_at(data.len() / 2);
                        data = low
                            .iter()
                            .zip(high)
                            .map(|(x, y)| reference::function(function, dtype, &[*x, *y]))
                            .collect();
                    }
                    let result = memory[1].elements(dtype)[0];
                    assert!(
                        same(dtype, result, data[0]),
                        "{kind:?} of {dtype} x {lanes}: {result:x}, {:x}",
                        data[0]
                    );
                }
            }
        }
    }
}

#[test]
fn dot_products_of_bytes() {
    let mut random = Random(77);
    let mut features = oldest().features;
    features.extend(["avx", "avx2", "fma"].map(str::to_owned));
    let features: Vec<&str> = features.iter().map(String::as_str).collect();
    let without_vnni = Target::new(&Target::host().triple, &features);
    for target in [Target::host(), oldest(), without_vnni] {
        for dtype_a in [DType::U8, DType::I8] {
            for dtype_b in [DType::U8, DType::I8] {
                for lanes in [1u16, 2, 4, 8, 11] {
                    let n = i64::from(lanes);
                    let mut kernel = Kernel::new("dot");
                    let acc = kernel.argument("acc", DType::I32, Expr::index(n), Access::Read);
                    let a = kernel.argument("a", dtype_a, Expr::index(4 * n), Access::Read);
                    let b = kernel.argument("b", dtype_b, Expr::index(4 * n), Access::Read);
                    let y = kernel.argument("y", DType::I32, Expr::index(n), Access::Write);
                    let value = Expr::Dot {
                        acc: Box::new(load(acc, Expr::index(0), lanes)),
                        a: Box::new(load(a, Expr::index(0), 4 * lanes)),
                        b: Box::new(load(b, Expr::index(0), 4 * lanes)),
                    };
                    kernel.body.push(store(y, Expr::index(0), value));
                    for round in 0..6 {
                        let mut bytes = |_| match round {
                            0 => 0x80,
                            1 => 0xff,
                            2 => 0x7f,
                            3 => [0x80, 0x7f, 0xff][random.below(3)],
                            _ => random.next() & 0xff,
                        };
                        let left: Vec<u64> = (0..4 * n).map(&mut bytes).collect();
                        let right: Vec<u64> = (0..4 * n).map(&mut bytes).collect();
                        let before: Vec<u64> = (0..n)
                            .map(|lane| [0x7fff_ffff, 0x8000_0000, 12345][(lane as usize + round) % 3])
                            .collect();
                        let mut memory = [
                            Memory::of(DType::I32, &before),
                            Memory::of(dtype_a, &left),
                            Memory::of(dtype_b, &right),
                            Memory::filled(DType::I32, n as usize, 0x77),
                        ];
                        run_on(&target, &kernel, &mut memory, &[]);
                        let expected: Vec<u64> = (0..n as usize)
                            .map(|lane| {
                                let products: i128 = (4 * lane..4 * lane + 4)
                                    .map(|place| {
                                        reference::integer(dtype_a, left[place])
                                            * reference::integer(dtype_b, right[place])
                                    })
                                    .sum();
                                reference::wrap(
                                    DType::I32,
                                    reference::integer(DType::I32, before[lane]) + products,
                                )
                            })
                            .collect();
                        assert_eq!(
                            memory[3].elements(DType::I32),
                            expected,
                            "{dtype_a} by {dtype_b}, {lanes} lanes, round {round}"
                        );
                    }
                }
            }
        }
    }
}
