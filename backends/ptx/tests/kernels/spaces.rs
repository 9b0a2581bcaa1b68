//! Memory of one thread: scratch, cut from global memory, and stack arrays in local memory.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Space, Stmt, Ty};
use tcc_ptx::schedule::prepare;
use tcc_ptx::{Target, module, sim};

use crate::execute::{assert_same, interpret, simulate};

/// Reverses each row of `n` numbers through scratch memory and adds entries of a small table.
fn reversed_rows() -> Kernel {
    let mut kernel = Kernel::new("reversed_rows");
    kernel.dims = vec!["rows".into(), "n".into()];
    let (rows, n) = (Expr::Dim(0), Expr::Dim(1));
    let x = kernel.argument("x", DType::I32, rows.clone().times(n.clone()), Access::Read);
    let y = kernel.argument("y", DType::I32, rows.clone().times(n.clone()), Access::Write);
    let other = kernel.buffer("other", DType::U8, Space::Scratch, Expr::index(3), Access::ReadWrite);
    let copy = kernel.buffer("copy", DType::I32, Space::Scratch, n.clone(), Access::ReadWrite);
    let table = kernel.buffer("table", DType::I32, Space::Stack, Expr::index(4), Access::ReadWrite);
    let [row, i, j, e] = ["row", "i", "j", "e"].map(|name| kernel.counter(name));
    let sum = kernel.variable("sum", Ty::scalar(DType::I32));
    let nest =
        |var, extent: &Expr, body| Stmt::For { var, extent: extent.clone(), kind: LoopKind::Serial, body };
    let store = |buffer, index, value| Stmt::Store { buffer, index, value, valid: None };
    let at = |column: Expr| Expr::Var(row).times(n.clone()).plus(column);
    let entry = Expr::Var(e).times(Expr::Var(row)).cast(DType::I64, DType::I32);
    let last = n.clone().minus(Expr::index(1)).minus(j.into());
    let add = |a, b| Expr::call(Function::Add, vec![a, b]);
    let body = vec![
        store(other, Expr::index(2), Expr::constant(DType::U8, 9.0)),
        nest(e, &Expr::index(4), vec![store(table, e.into(), entry)]),
        nest(i, &n, vec![store(copy, i.into(), Expr::load(x, at(i.into())))]),
        nest(
            j,
            &n,
            vec![
                Stmt::Assign { var: sum, value: Expr::load(copy, last) },
                Stmt::Assign {
                    var: sum,
                    value: add(sum.into(), Expr::load(table, Expr::Var(j).remainder(Expr::index(4)))),
                },
                Stmt::Assign {
                    var: sum,
                    value: add(sum.into(), Expr::load(other, Expr::index(2)).cast(DType::U8, DType::I32)),
                },
                store(y, at(j.into()), sum.into()),
            ],
        ),
    ];
    kernel.body = vec![Stmt::For { var: row, extent: rows, kind: LoopKind::Parallel, body }];
    kernel
}

#[test]
fn every_thread_has_scratch_and_stack_of_its_own() {
    let kernel = reversed_rows();
    let ptx = module(std::slice::from_ref(&kernel), &Target::named("sm_80").unwrap()).unwrap();
    let parsed = sim::parse(&ptx.text).unwrap();
    let mut done = kernel;
    prepare(&mut done).unwrap();
    for (seed, (rows, n)) in [(0, 5), (1, 1), (3, 0), (131, 7), (257, 2)].into_iter().enumerate() {
        let dim = |name: &str| Some(if name == "rows" { rows } else { n });
        let x = (0..rows * n).flat_map(|value| (value as i32 * 77).to_le_bytes()).collect::<Vec<u8>>();
        let mut expected = vec![x.clone(), vec![0xa5; x.len()]];
        let mut found = expected.clone();
        interpret(&done, &mut expected, &dim);
        simulate(&parsed, &ptx.launch[0], &mut found, &dim, seed as u64)
            .unwrap_or_else(|error| panic!("{error}\n{}", ptx.text));
        assert_same("rows", DType::I32, &expected[1], &found[1]);
    }
}
