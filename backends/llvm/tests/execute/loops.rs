//! Loops, branches, variables, scratch and stack buffers, reductions over lanes, shuffles.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Space, Stmt, Ty};

use super::{Numbers, address, argument, lanes, partial, run, run_tasks, serial, store, two};

#[test]
fn addition_with_broadcasting_and_a_run_time_width() {
    let mut kernel = Kernel::new("add_row");
    kernel.dims = vec!["rows".to_owned(), "columns".to_owned()];
    let (rows, columns) = (Expr::Dim(0), Expr::Dim(1));
    let count = rows.clone().times(columns.clone());
    let x = kernel.argument("x", DType::F32, count.clone(), Access::Read);
    let bias = kernel.argument("bias", DType::F32, columns.clone(), Access::Read);
    let y = kernel.argument("y", DType::F32, count, Access::Write);
    let [row, chunk] = [kernel.counter("row"), kernel.counter("chunk")];
    let column = Expr::from(chunk).times(Expr::index(8));
    let at = Expr::from(row).times(columns.clone()).plus(column.clone());
    let valid = columns.clone().minus(column.clone());
    let sum =
        two(Function::Add, partial(x, at.clone(), 8, valid.clone()), partial(bias, column, 8, valid.clone()));
    let body = vec![serial(
        chunk,
        columns.over_up(Expr::index(8)),
        vec![Stmt::Store { buffer: y, index: at, value: sum, valid: Some(valid) }],
    )];
    kernel.body = vec![Stmt::For { var: row, extent: rows, kind: LoopKind::Parallel, body }];
    for (rows, columns) in [(0usize, 5usize), (3, 0), (1, 1), (2, 7), (3, 8), (5, 13), (4, 31)] {
        let mut numbers = Numbers(3);
        let mut x = numbers.floats(rows * columns);
        let mut bias = numbers.floats(columns);
        // One more element than the kernel may touch.
        let mut y = vec![-9f32; rows * columns + 1];
        let buffers = [address(&mut x), address(&mut bias), address(&mut y)];
        run_tasks(&kernel, &buffers, &[rows as i64, columns as i64], rows as i64);
        for (i, value) in y[..rows * columns].iter().enumerate() {
            assert_eq!(*value, x[i] + bias[i % columns], "{rows} x {columns}, element {i}");
        }
        assert_eq!(y[rows * columns], -9.0);
    }
}

#[test]
fn a_kernel_without_a_parallel_loop_is_task_zero() {
    let mut kernel = Kernel::new("once");
    let counter = argument(&mut kernel, DType::I64, 1, Access::ReadWrite);
    let next = Expr::load(counter, Expr::index(0)).plus(Expr::index(1));
    kernel.body = vec![store(counter, Expr::index(0), next)];
    let object =
        tcc_llvm::compile(&[kernel], &tcc_llvm::Target::host().unwrap(), Default::default()).unwrap();
    let jit = tcc_llvm::Jit::load(&object).unwrap();
    let mut count = [0i64];
    for (begin, end) in [(0, 1), (1, 1), (0, 0), (1, 2)] {
        super::run_object(&jit, "once", &[address(&mut count)], &[], begin, end);
    }
    assert_eq!(count, [1]);
}

#[test]
fn branches_and_variables_carry_values_out_of_loops() {
    // The largest element and its index, counted only where it is positive.
    let mut kernel = Kernel::new("arg_max");
    let x = argument(&mut kernel, DType::F32, 100, Access::Read);
    let out = argument(&mut kernel, DType::I64, 1, Access::Write);
    let best = kernel.variable("best", Ty::scalar(DType::F32));
    let at = kernel.variable("at", Ty::INDEX);
    let i = kernel.counter("i");
    let element = || Expr::load(x, Expr::from(i));
    kernel.body = vec![
        Stmt::Assign { var: best, value: Expr::constant(DType::F32, 0.0) },
        Stmt::Assign { var: at, value: Expr::index(-1) },
        serial(
            i,
            Expr::index(100),
            vec![Stmt::If {
                condition: two(Function::Less, Expr::Var(best), element()),
                then: vec![
                    Stmt::Assign { var: best, value: element() },
                    Stmt::Assign { var: at, value: Expr::from(i) },
                ],
                otherwise: vec![],
            }],
        ),
        store(out, Expr::index(0), Expr::Var(at)),
    ];
    let mut values = Numbers(5).floats(100);
    let mut result = [0i64];
    run(&kernel, &[address(&mut values), address(&mut result)], &[]);
    let expected = (0..100).fold(0, |best, i| if values[i] > values[best] { i } else { best });
    assert_eq!(result[0], expected as i64);
}

#[test]
fn lanes_reduce_by_halves() {
    for (kind, fold) in [
        (ReduceKind::Sum, (|a, b| a + b) as fn(f32, f32) -> f32),
        (ReduceKind::Prod, |a, b| a * b),
        (ReduceKind::Max, f32::max),
        (ReduceKind::Min, f32::min),
    ] {
        for width in [1u16, 2, 4, 8, 16] {
            let mut kernel = Kernel::new("reduce");
            let x = argument(&mut kernel, DType::F32, i64::from(width), Access::Read);
            let y = argument(&mut kernel, DType::F32, 1, Access::Write);
            let value = Expr::ReduceLanes(kind, Box::new(lanes(x, Expr::index(0), width)));
            kernel.body = vec![store(y, Expr::index(0), value)];
            let mut values = Numbers(9).floats(usize::from(width));
            let mut result = [0f32];
            run(&kernel, &[address(&mut values), address(&mut result)], &[]);
            let mut tree = values.clone();
            while tree.len() > 1 {
                let half = tree.len() / 2;
                tree = (0..half).map(|i| fold(tree[i], tree[i + half])).collect();
            }
            assert_eq!(result[0].to_bits(), tree[0].to_bits(), "{kind:?} over {width} lanes");
        }
    }
}

#[test]
fn shuffles_pick_lanes_of_both_operands() {
    for (first, second, picks) in [
        (4u16, 4u16, vec![0u16, 4, 1, 5, 2, 6, 3, 7]),
        (4, 4, vec![3, 3]),
        (4, 4, vec![6]),
        (1, 1, vec![1, 0, 0, 1]),
        (4, 2, vec![5, 0, 4, 3]),
        (8, 1, vec![8, 7]),
        (2, 2, vec![0, 1, 0, 1, 0, 1, 0, 1]),
        (2, 2, vec![0, 1, 0, 1, 0, 1, 0]),
    ] {
        let mut kernel = Kernel::new("shuffle");
        let x = argument(&mut kernel, DType::I32, 16, Access::Read);
        let y = argument(&mut kernel, DType::I32, 16, Access::Write);
        let a = Box::new(lanes(x, Expr::index(0), first));
        let b = Box::new(lanes(x, Expr::index(i64::from(first)), second));
        kernel.body = vec![store(y, Expr::index(0), Expr::Shuffle(a, b, picks.clone()))];
        let mut values: Vec<i32> = (100..116).collect();
        let mut result = [0i32; 16];
        run(&kernel, &[address(&mut values), address(&mut result)], &[]);
        let expected: Vec<i32> = picks.iter().map(|pick| values[usize::from(*pick)]).collect();
        assert_eq!(result[..picks.len()], expected);
    }
}

#[test]
fn scratch_and_stack_buffers_do_not_overlap() {
    let mut kernel = Kernel::new("spaces");
    kernel.dims = vec!["n".to_owned()];
    let n = Expr::Dim(0);
    let out = kernel.argument("out", DType::I32, n.clone().times(Expr::index(3)), Access::Write);
    let first = kernel.buffer("first", DType::U8, Space::Scratch, n.clone(), Access::ReadWrite);
    let second = kernel.buffer("second", DType::I32, Space::Scratch, n.clone(), Access::ReadWrite);
    let third = kernel.buffer("third", DType::I32, Space::Stack, Expr::index(64), Access::ReadWrite);
    let fill = kernel.counter("fill");
    let read = kernel.counter("read");
    let narrow = Expr::from(fill).cast(DType::I64, DType::I32);
    let at = |block: i64| n.clone().times(Expr::index(block)).plus(Expr::from(read));
    kernel.body = vec![
        serial(
            fill,
            n.clone(),
            vec![
                store(first, Expr::from(fill), Expr::from(fill).cast(DType::I64, DType::U8)),
                store(
                    second,
                    Expr::from(fill),
                    two(Function::Mul, narrow.clone(), Expr::constant(DType::I32, 3.0)),
                ),
                store(third, Expr::from(fill), two(Function::Sub, Expr::constant(DType::I32, 7.0), narrow)),
            ],
        ),
        serial(
            read,
            n.clone(),
            vec![
                store(out, at(0), Expr::load(first, Expr::from(read)).cast(DType::U8, DType::I32)),
                store(out, at(1), Expr::load(second, Expr::from(read))),
                store(out, at(2), Expr::load(third, Expr::from(read))),
            ],
        ),
    ];
    let n = 61usize;
    let mut result = vec![0i32; 3 * n];
    run(&kernel, &[address(&mut result)], &[n as i64]);
    for i in 0..n {
        let i32 = i as i32;
        assert_eq!([result[i], result[n + i], result[2 * n + i]], [i32, 3 * i32, 7 - i32]);
    }
}
