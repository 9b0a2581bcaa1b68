//! Kernels with a defect are caught, and what a target lacks is refused by name.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Space, Stmt};
use tcc_kernel::warp::WarpOp;
use tcc_ptx::sim::{Fault, SimError, parse};
use tcc_ptx::{Error, Target, module};

use crate::cases::matrices;
use crate::execute::simulate;
use crate::tiled::{Defect, matmul, product};

fn fault(defect: Defect, seed: u64) -> (String, Fault) {
    // 17 rows and two steps along k: tiles are filled twice, and the last row of threads is partly outside.
    match product(defect, [17, 20, 16], seed).unwrap_err() {
        SimError::Fault { text, fault, .. } => (text, fault),
        other => panic!("{other}"),
    }
}

#[test]
fn missing_barriers_are_races_whatever_the_interleaving() {
    for seed in 0..10 {
        let (text, found) = fault(Defect::FirstBarrier, seed);
        assert!(matches!(found, Fault::Race { .. } | Fault::Uninitialized { .. }), "{found}");
        assert!(text.contains(".shared."), "{text}");
        let (text, found) = fault(Defect::SecondBarrier, seed);
        assert!(matches!(found, Fault::Race { .. }), "{found}");
        assert!(text.contains(".shared."), "{text}");
    }
}

#[test]
fn a_row_too_many_is_out_of_bounds() {
    let (text, found) = fault(Defect::OffByOne, 0);
    assert!(matches!(found, Fault::OutOfBounds { .. }), "{found}");
    assert!(text.starts_with("st.global.f32"), "{text}");
}

/// Rewrites the statements of a kernel that `change` has another one for; none drops the statement.
fn changed(stmts: &mut Vec<Stmt>, change: &dyn Fn(&Stmt) -> Option<Vec<Stmt>>) {
    for stmt in std::mem::take(stmts) {
        match (change(&stmt), stmt) {
            (Some(others), _) => stmts.extend(others),
            (None, Stmt::For { var, extent, kind, mut body }) => {
                changed(&mut body, change);
                stmts.push(Stmt::For { var, extent, kind, body });
            }
            (None, stmt) => stmts.push(stmt),
        }
    }
}

/// The fault of a product on tensor cores whose statements are changed.
fn matrix_fault(change: &dyn Fn(&Stmt) -> Option<Vec<Stmt>>, seed: u64) -> Fault {
    let target = target("sm_80");
    let case = &matrices()[0];
    let mut kernel = case.lowered(&target).launches[0].kernel.clone();
    changed(&mut kernel.body, change);
    let ptx = module(&[kernel], &target).unwrap();
    let parsed = parse(&ptx.text).unwrap();
    // 40 rows of 72 elements of f16 by 50 columns.
    let mut buffers = vec![vec![0; 40 * 72 * 2], vec![0; 50 * 72 * 2], vec![0; 40 * 50 * 4]];
    let dim = |name: &str| Some(if name == "n" { 40 } else { 50 });
    match simulate(&parsed, &ptx.launch[0], &mut buffers, &dim, seed).unwrap_err() {
        SimError::Fault { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn copies_that_nobody_waits_for_are_caught() {
    for seed in 0..5 {
        let late = |stmt: &Stmt| match stmt {
            Stmt::Warp(WarpOp::CopyWait(count)) => Some(vec![Stmt::Warp(WarpOp::CopyWait(count + 1))]),
            _ => None,
        };
        let found = matrix_fault(&late, seed);
        assert!(matches!(found, Fault::InFlight { .. }), "{found}");
    }
}

#[test]
fn tiles_that_are_read_without_a_barrier_are_races() {
    for seed in 0..5 {
        let none = |stmt: &Stmt| (*stmt == Stmt::Barrier).then(Vec::new);
        let found = matrix_fault(&none, seed);
        let caught =
            matches!(found, Fault::Race { .. } | Fault::InFlight { .. } | Fault::Uninitialized { .. });
        assert!(caught, "{found}");
    }
}

#[test]
fn matrix_instructions_are_refused_where_the_target_lacks_them() {
    let kernel = matrices()[0].lowered(&target("sm_80")).launches[0].kernel.clone();
    let error = module(&[kernel], &target("sm_75")).unwrap_err().to_string();
    assert!(error.contains("sm_75 does not support matrix instructions"), "{error}");
}

fn target(name: &str) -> Target {
    Target::named(name).unwrap()
}

#[test]
fn too_much_shared_memory_is_refused() {
    let mut kernel = matmul(Defect::None);
    kernel.buffer("huge", DType::F64, Space::Shared, Expr::index(30_000), Access::ReadWrite);
    let error = module(&[kernel], &target("sm_80")).unwrap_err();
    assert!(matches!(error, Error::Limit { resource: "bytes of shared memory a block", .. }), "{error}");
}

#[test]
fn too_many_threads_are_refused() {
    let mut kernel = Kernel::new("wide");
    let y = kernel.argument("y", DType::F32, Expr::index(2048), Access::Write);
    let i = kernel.counter("i");
    let value = Expr::constant(DType::F32, 1.0);
    let body = vec![Stmt::Store { buffer: y, index: i.into(), value, valid: None }];
    kernel.body = vec![Stmt::For { var: i, extent: Expr::index(2048), kind: LoopKind::Thread(0), body }];
    let error = module(&[kernel], &target("sm_80")).unwrap_err();
    assert_eq!(error.to_string(), "kernel wide needs 2048 threads a block, sm_80 has 1024");
}

#[test]
fn bfloat16_is_refused_where_it_has_no_instructions() {
    let mut kernel = Kernel::new("half");
    let y = kernel.argument("y", DType::BF16, Expr::index(1), Access::Write);
    let value = Expr::constant(DType::BF16, 1.0);
    kernel.body = vec![Stmt::Store { buffer: y, index: Expr::index(0), value, valid: None }];
    assert!(module(std::slice::from_ref(&kernel), &target("sm_80")).is_ok());
    let error = module(&[kernel], &target("sm_75")).unwrap_err();
    assert_eq!(error.to_string(), "kernel half: sm_75 does not support bf16");
}

#[test]
fn a_barrier_under_a_bounds_guard_is_refused() {
    let mut kernel = Kernel::new("guarded");
    kernel.dims.push("n".into());
    let i = kernel.counter("i");
    let extent = Expr::Dim(0).at_most(Expr::index(64));
    kernel.body = vec![Stmt::For { var: i, extent, kind: LoopKind::Thread(0), body: vec![Stmt::Barrier] }];
    let error = module(&[kernel], &target("sm_80")).unwrap_err();
    assert!(error.to_string().contains("a barrier that not every thread"), "{error}");
}

#[test]
fn names_that_clash_are_refused() {
    let kernel = matmul(Defect::None);
    let error = module(&[kernel.clone(), kernel], &target("sm_80")).unwrap_err();
    assert!(error.to_string().contains("a second kernel of that name"), "{error}");
    let mut kernel = matmul(Defect::None);
    kernel.name = "a b".into();
    assert!(module(&[kernel], &target("sm_80")).is_err());
}

#[test]
fn a_grid_loop_inside_a_thread_loop_is_refused() {
    let mut kernel = Kernel::new("inside_out");
    let (block, thread) = (kernel.counter("block"), kernel.counter("thread"));
    let nest = |var, kind, body| vec![Stmt::For { var, extent: Expr::index(4), kind, body }];
    let y = kernel.argument("y", DType::F32, Expr::index(4), Access::Write);
    let value = Expr::constant(DType::F32, 1.0);
    let store = vec![Stmt::Store { buffer: y, index: block.into(), value, valid: None }];
    kernel.body = nest(thread, LoopKind::Thread(0), nest(block, LoopKind::Grid(0), store));
    let error = module(&[kernel], &target("sm_80")).unwrap_err();
    assert!(error.to_string().contains("a grid loop inside another statement"), "{error}");
}

#[test]
fn malformed_kernels_are_refused() {
    let mut kernel = matmul(Defect::None);
    kernel.variables.truncate(2);
    let error = module(&[kernel], &target("sm_80")).unwrap_err();
    assert!(matches!(error, Error::Passes(_)), "{error}");
}
