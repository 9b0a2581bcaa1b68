//! What the passes make of typical loops, as text.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

use crate::ir::{Access, Expr, Kernel, LoopKind, Space, Stmt, Ty, Var};
use crate::machine::Machine;
use crate::passes::{Error, finalize};

const WIDE: Machine =
    Machine { vector_bits: 512, fma: true, f16_convert: true, masked: true, ..Machine::BASELINE };

fn c(value: i64) -> Expr {
    Expr::index(value)
}

fn nest(var: Var, extent: Expr, kind: LoopKind, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var, extent, kind, body }
}

fn store(buffer: crate::ir::BufferId, index: Expr, value: Expr) -> Stmt {
    Stmt::Store { buffer, index, value, valid: None }
}

/// `c[i, j] = sum over k of a[i, k] * b[k, j]` for a tile of 2 rows and 24 columns kept in registers.
fn product_tile() -> Kernel {
    let mut kernel = Kernel::new("tile");
    kernel.dims.push("k".into());
    let depth = Expr::Dim(0);
    let a = kernel.argument("a", DType::F32, depth.clone().times(c(2)), Access::Read);
    let b = kernel.argument("b", DType::F32, depth.clone().times(c(24)), Access::Read);
    let out = kernel.argument("c", DType::F32, c(48), Access::Write);
    let acc = kernel.buffer("acc", DType::F32, Space::Register, c(48), Access::ReadWrite);
    let tile = |kernel: &mut Kernel, body: &dyn Fn(Expr, Expr) -> Stmt| {
        let (i, j) = (kernel.counter("i"), kernel.counter("j"));
        let inner = nest(j, c(24), LoopKind::Vector, vec![body(i.into(), j.into())]);
        nest(i, c(2), LoopKind::Unroll, vec![inner])
    };
    let at = |i: Expr, j: Expr| i.times(c(24)).plus(j);
    let zero = tile(&mut kernel, &|i, j| store(acc, at(i, j), Expr::constant(DType::F32, 0.0)));
    let k = kernel.counter("k");
    let update = tile(&mut kernel, &|i, j| {
        let x = Expr::load(a, i.clone().times(Expr::Dim(0)).plus(k.into()));
        let y = Expr::load(b, Expr::from(k).times(c(24)).plus(j.clone()));
        let index = at(i, j);
        store(acc, index.clone(), Expr::Fma(Box::new(x), Box::new(y), Box::new(Expr::load(acc, index))))
    });
    let write = tile(&mut kernel, &|i, j| store(out, at(i.clone(), j.clone()), Expr::load(acc, at(i, j))));
    kernel.body = vec![zero, nest(k, depth, LoopKind::Serial, vec![update]), write];
    kernel
}

#[test]
fn a_register_tile_becomes_variables() {
    let mut kernel = product_tile();
    finalize(&mut kernel, &WIDE).unwrap();
    insta::assert_snapshot!(kernel);
}

#[test]
fn a_predicated_tail_gives_the_number_of_lanes() {
    let mut kernel = Kernel::new("tail");
    kernel.dims.push("n".into());
    let n = Expr::Dim(0);
    let x = kernel.argument("x", DType::I8, n.clone(), Access::Read);
    let y = kernel.argument("y", DType::F32, n.clone(), Access::Write);
    let (i, v) = (kernel.counter("i"), kernel.counter("v"));
    let at = Expr::from(i).times(c(16)).plus(v.into());
    let value = Expr::load(x, at.clone()).cast(DType::I8, DType::F32);
    let inside = Stmt::If {
        condition: at.clone().less(n.clone()),
        then: vec![store(y, at, value)],
        otherwise: Vec::new(),
    };
    let lanes = nest(v, c(16), LoopKind::Vector, vec![inside]);
    kernel.body = vec![nest(i, n.over_up(c(16)), LoopKind::Parallel, vec![lanes])];
    finalize(&mut kernel, &WIDE).unwrap();
    insta::assert_snapshot!(kernel);
}

#[test]
fn strides_gather_and_columns_reduce_in_lanes() {
    let mut kernel = Kernel::new("columns");
    kernel.dims.push("n".into());
    let n = Expr::Dim(0);
    let x = kernel.argument("x", DType::F32, n.clone().times(c(32)), Access::Read);
    let y = kernel.argument("y", DType::F32, c(16), Access::Write);
    let (v, k) = (kernel.counter("v"), kernel.counter("k"));
    let sum = kernel.variable("sum", Ty::scalar(DType::F32));
    let term = Expr::load(x, Expr::from(k).times(c(32)).plus(Expr::from(v).times(c(2))));
    let next = Expr::call(Function::Add, vec![sum.into(), term]);
    let body = vec![
        Stmt::Assign { var: sum, value: Expr::constant(DType::F32, 0.0) },
        nest(k, n, LoopKind::Serial, vec![Stmt::Assign { var: sum, value: next }]),
        store(y, v.into(), sum.into()),
    ];
    kernel.body = vec![nest(v, c(16), LoopKind::Vector, body)];
    finalize(&mut kernel, &WIDE).unwrap();
    insta::assert_snapshot!(kernel);
}

#[test]
fn a_race_between_lanes_is_refused() {
    let mut kernel = Kernel::new("race");
    let x = kernel.argument("x", DType::F32, c(16), Access::Read);
    let y = kernel.argument("y", DType::F32, c(16), Access::Write);
    let v = kernel.counter("v");
    let body = vec![store(y, c(0), Expr::load(x, v.into()))];
    kernel.body = vec![nest(v, c(16), LoopKind::Vector, body)];
    assert!(matches!(finalize(&mut kernel, &WIDE), Err(Error::Race { .. })));
}

#[test]
fn a_sum_across_lanes_is_refused() {
    let mut kernel = Kernel::new("carried");
    let x = kernel.argument("x", DType::F32, c(16), Access::Read);
    let y = kernel.argument("y", DType::F32, c(1), Access::Write);
    let v = kernel.counter("v");
    let sum = kernel.variable("sum", Ty::scalar(DType::F32));
    let next = Expr::call(Function::Add, vec![sum.into(), Expr::load(x, v.into())]);
    kernel.body = vec![
        Stmt::Assign { var: sum, value: Expr::constant(DType::F32, 0.0) },
        nest(v, c(16), LoopKind::Vector, vec![Stmt::Assign { var: sum, value: next }]),
        store(y, c(0), sum.into()),
    ];
    assert!(matches!(finalize(&mut kernel, &WIDE), Err(Error::Verify { .. })));
}
