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

#[test]
fn packed_lanes_come_in_whole_bytes() {
    let mut kernel = Kernel::new("unpack");
    kernel.dims.push("n".into());
    let n = Expr::Dim(0);
    let x = kernel.argument("x", DType::I4, n.clone().times(c(32)), Access::Read);
    let y = kernel.argument("y", DType::I8, n.clone().times(c(32)), Access::Write);
    let (i, v) = (kernel.counter("i"), kernel.counter("v"));
    let at = Expr::from(i).times(c(32)).plus(v.into());
    let value = Expr::load(x, at.clone()).cast(DType::I4, DType::I8);
    let lanes = nest(v, c(32), LoopKind::Vector, vec![store(y, at, value)]);
    kernel.body = vec![nest(i, n, LoopKind::Parallel, vec![lanes])];
    finalize(&mut kernel, &WIDE).unwrap();
    insta::assert_snapshot!(kernel);
}

/// `y[v] += sum over j < 4 of a[j] * b[4 v + j]`, the row of a product that byte dot products are made for.
fn byte_products(a: DType, b: DType) -> Kernel {
    let mut kernel = Kernel::new("bytes");
    let left = kernel.argument("a", a, c(4), Access::Read);
    let right = kernel.argument("b", b, c(64), Access::Read);
    let y = kernel.argument("y", DType::I32, c(16), Access::ReadWrite);
    let v = kernel.counter("v");
    let bytes = |buffer, index| Expr::Load { buffer, index: Box::new(index), lanes: 4, valid: None };
    let value = Expr::Dot {
        acc: Box::new(Expr::load(y, v.into())),
        a: Box::new(bytes(left, c(0))),
        b: Box::new(bytes(right, Expr::from(v).times(c(4)))),
    };
    kernel.body = vec![nest(v, c(16), LoopKind::Vector, vec![store(y, v.into(), value)])];
    kernel
}

#[test]
fn bytes_of_one_sign_use_the_mixed_product() {
    let mut kernel = byte_products(DType::I8, DType::I8);
    let dot = crate::machine::DotForms { unsigned_signed: true, ..Default::default() };
    finalize(&mut kernel, &Machine { dot, ..WIDE }).unwrap();
    insta::assert_snapshot!(kernel);
}

#[test]
fn dot_products_are_exact_in_every_form() {
    let forms = |unsigned_signed, signed_signed, unsigned_unsigned| crate::machine::DotForms {
        unsigned_signed,
        signed_signed,
        unsigned_unsigned,
    };
    for (a, b) in
        [(DType::U8, DType::I8), (DType::I8, DType::U8), (DType::I8, DType::I8), (DType::U8, DType::U8)]
    {
        let kernel = byte_products(a, b);
        let run = |kernel: &Kernel| {
            let mut left = [0x80u8, 0xff, 0x7f, 0x35];
            let mut right: [u8; 64] = std::array::from_fn(|index| (index * 77 + 128) as u8);
            let mut sums: Vec<u8> = (0..16i32).flat_map(|lane| (i32::MAX - lane).to_le_bytes()).collect();
            crate::evaluate::evaluate(kernel, &mut [&mut left, &mut right, &mut sums], &[], 0, 1).unwrap();
            sums
        };
        for dot in [forms(false, false, false), forms(true, false, false), forms(false, true, true)] {
            for vector_bits in [128, 512] {
                let mut done = kernel.clone();
                finalize(&mut done, &Machine { dot, vector_bits, ..WIDE }).unwrap();
                assert_eq!(run(&kernel), run(&done), "{a} {b} {dot:?} {vector_bits}\n{done}");
            }
        }
    }
}
