//! One ill-formed kernel for each rule of the checklist.

use super::*;

struct Setting {
    kernel: Kernel,
    x: BufferId,
    y: BufferId,
    i: Var,
    t: Var,
}

fn c(value: i64) -> Expr {
    Expr::index(value)
}

fn setting() -> Setting {
    let mut kernel = Kernel::new("test");
    kernel.dims.push("n".into());
    let x = kernel.argument("x", DType::F32, Expr::Dim(0), Access::Read);
    let y = kernel.argument("y", DType::F32, Expr::Dim(0), Access::Write);
    let i = kernel.counter("i");
    let t = kernel.variable("t", Ty::scalar(DType::F32));
    Setting { kernel, x, y, i, t }
}

fn nest(var: Var, extent: Expr, kind: LoopKind, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var, extent, kind, body }
}

fn store(buffer: BufferId, index: Expr, value: Expr) -> Stmt {
    Stmt::Store { buffer, index, value, valid: None }
}

fn found(mut kernel: Kernel, body: Vec<Stmt>) -> VerifyError {
    kernel.body = body;
    verify(&kernel).expect_err("the kernel is not well formed")
}

#[test]
fn a_copy_is_well_formed_before_and_after() {
    let Setting { mut kernel, x, y, i, .. } = setting();
    kernel.body =
        vec![nest(i, Expr::Dim(0), LoopKind::Parallel, vec![store(y, i.into(), Expr::load(x, i.into()))])];
    assert_eq!(verify(&kernel), Ok(()));
    assert_eq!(verify_final(&kernel, &Machine::BASELINE), Ok(()));
}

#[test]
fn variables_are_assigned_before_they_are_read() {
    let Setting { kernel, y, i, t, .. } = setting();
    let read = || store(y, c(0), t.into());
    assert_eq!(found(kernel.clone(), vec![read()]), VerifyError::Unassigned("t".into()));
    // An assignment inside a loop is gone after it.
    let assign = Stmt::Assign { var: t, value: Expr::constant(DType::F32, 1.0) };
    let body = vec![nest(i, Expr::Dim(0), LoopKind::Serial, vec![assign]), read()];
    assert_eq!(found(kernel.clone(), body), VerifyError::Unassigned("t".into()));
    // So is a counter.
    let body = vec![store(y, i.into(), Expr::constant(DType::F32, 1.0))];
    assert_eq!(found(kernel, body), VerifyError::Unassigned("i".into()));
}

#[test]
fn counters_stay_what_they_are() {
    let Setting { kernel, i, .. } = setting();
    let body = vec![nest(i, c(2), LoopKind::Serial, vec![Stmt::Assign { var: i, value: c(0) }])];
    assert_eq!(found(kernel.clone(), body), VerifyError::Counter("i".into()));
    let inner = nest(i, c(2), LoopKind::Serial, Vec::new());
    let body = vec![nest(i, c(2), LoopKind::Serial, vec![inner])];
    assert_eq!(found(kernel, body), VerifyError::Counter("i".into()));
}

#[test]
fn types_agree() {
    let Setting { kernel, x, y, t, .. } = setting();
    let wrong = Stmt::Assign { var: t, value: c(1) };
    assert!(matches!(found(kernel.clone(), vec![wrong]), VerifyError::Type { .. }));
    let mixed = Expr::call(Function::Add, vec![Expr::load(x, c(0)), c(1)]);
    assert!(matches!(found(kernel.clone(), vec![store(y, c(0), mixed)]), VerifyError::Arguments { .. }));
    let wide = Expr::Splat(Box::new(Expr::load(x, c(0))), 4);
    let sum = Expr::call(Function::Add, vec![wide, Expr::load(x, c(0))]);
    assert!(matches!(found(kernel.clone(), vec![store(y, c(0), sum)]), VerifyError::Arguments { .. }));
    let float_index = store(y, Expr::load(x, c(0)), Expr::load(x, c(0)));
    assert!(matches!(found(kernel, vec![float_index]), VerifyError::Type { place: "index", .. }));
}

#[test]
fn unrolled_and_vector_extents_are_constant() {
    let Setting { kernel, i, .. } = setting();
    for kind in [LoopKind::Vector, LoopKind::Unroll] {
        let body = vec![nest(i, Expr::Dim(0), kind, Vec::new())];
        let expected = VerifyError::NotConstant { what: "loop", name: "i".into() };
        assert_eq!(found(kernel.clone(), body), expected);
    }
    let mut kernel = kernel;
    kernel.buffer("r", DType::F32, Space::Register, Expr::Dim(0), Access::ReadWrite);
    assert_eq!(found(kernel, Vec::new()), VerifyError::NotConstant { what: "buffer", name: "r".into() });
}

#[test]
fn a_parallel_loop_stands_alone() {
    let Setting { mut kernel, i, .. } = setting();
    let j = kernel.counter("j");
    let parallel = |var| nest(var, c(2), LoopKind::Parallel, Vec::new());
    assert_eq!(found(kernel.clone(), vec![parallel(i), parallel(j)]), VerifyError::Parallel("i".into()));
    let body = vec![nest(i, c(2), LoopKind::Serial, vec![parallel(j)])];
    assert_eq!(found(kernel, body), VerifyError::Parallel("j".into()));
}

#[test]
fn vector_loops_do_not_nest_or_reduce() {
    let Setting { mut kernel, x, i, t, .. } = setting();
    let j = kernel.counter("j");
    let inner = nest(j, c(4), LoopKind::Vector, Vec::new());
    let body = vec![nest(i, c(4), LoopKind::Vector, vec![inner])];
    assert_eq!(found(kernel.clone(), body), VerifyError::NestedVector("j".into()));
    let add = Expr::call(Function::Add, vec![t.into(), Expr::load(x, i.into())]);
    let body = vec![
        Stmt::Assign { var: t, value: Expr::constant(DType::F32, 0.0) },
        nest(i, c(4), LoopKind::Vector, vec![Stmt::Assign { var: t, value: add }]),
    ];
    assert!(matches!(found(kernel, body), VerifyError::Carried { .. }));
}

#[test]
fn buffers_are_used_as_declared() {
    let Setting { kernel, x, y, .. } = setting();
    let write = store(x, c(0), Expr::constant(DType::F32, 0.0));
    assert_eq!(found(kernel.clone(), vec![write]), VerifyError::Access("x".into()));
    let read = store(y, c(0), Expr::load(y, c(0)));
    assert_eq!(found(kernel.clone(), vec![read]), VerifyError::Access("y".into()));
    let nowhere = store(BufferId(9), c(0), c(0));
    assert_eq!(found(kernel, vec![nowhere]), VerifyError::Undeclared { what: "buffer", number: 9 });
}

#[test]
fn backends_get_native_vectors_of_core_types() {
    let Setting { mut kernel, x, y, i, .. } = setting();
    let copy = |lanes| store(y, c(0), Expr::Load { buffer: x, index: Box::new(c(0)), lanes, valid: None });
    let check = |kernel: &Kernel| verify_final(kernel, &Machine::BASELINE);
    kernel.body = vec![copy(4)];
    assert_eq!(check(&kernel), Ok(()));
    kernel.body = vec![copy(8)];
    assert!(matches!(check(&kernel), Err(VerifyError::NotFinal { .. })));
    kernel.body = vec![nest(i, c(4), LoopKind::Vector, vec![copy(1)])];
    assert!(matches!(check(&kernel), Err(VerifyError::NotFinal { .. })));
    kernel.body = vec![store(y, c(0), Expr::call(Function::Exp, vec![Expr::load(x, c(0))]))];
    assert!(matches!(check(&kernel), Err(VerifyError::NotFinal { .. })));
    let short = kernel.argument("short", DType::BF16, c(1), Access::Read);
    kernel.body = vec![store(y, c(0), Expr::load(short, c(0)).cast(DType::BF16, DType::F32))];
    assert!(matches!(check(&kernel), Err(VerifyError::NotFinal { .. })));
}
