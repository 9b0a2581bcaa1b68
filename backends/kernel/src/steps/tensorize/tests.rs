use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

use crate::ir::{Access, BufferId, Expr, Kernel, LoopKind, Space, Stmt, Var};
use crate::steps::StepError;

/// `y[lane] = sum over k of a[k * stride] * w[k / 4, lane, k % 4]` for 8 lanes.
fn sum_of_products(a: DType, extent: Expr, stride: i64) -> (Kernel, Var, Var, BufferId) {
    let c = Expr::index;
    let mut kernel = Kernel::new("sum");
    kernel.dims.push("n".into());
    let groups = extent.clone().over_up(c(4));
    let x = kernel.argument("x", a, extent.clone().times(c(stride)), Access::Read);
    let w = kernel.argument("w", DType::I8, groups.times(c(32)), Access::Read);
    let y = kernel.argument("y", DType::I32, c(8), Access::Write);
    let s = kernel.buffer("s", DType::I32, Space::Register, c(1), Access::ReadWrite);
    let (lane, k) = (kernel.counter("lane"), kernel.counter("k"));
    let place = Expr::Var(k).over(c(4)).times(c(32)).plus(Expr::Var(lane).times(c(4)));
    let wide = |buffer, index, dtype| Expr::load(buffer, index).cast(dtype, DType::I32);
    let (left, right) = (
        wide(x, Expr::Var(k).times(c(stride)), a),
        wide(w, place.plus(Expr::Var(k).remainder(c(4))), DType::I8),
    );
    let store = |buffer, index, value| Stmt::Store { buffer, index, value, valid: None };
    let product = Expr::call(Function::Mul, vec![left, right]);
    let update = Expr::call(Function::Add, vec![Expr::load(s, c(0)), product]);
    let body = vec![
        store(s, c(0), Expr::constant(DType::I32, 0.0)),
        Stmt::For { var: k, extent, kind: LoopKind::Serial, body: vec![store(s, c(0), update)] },
        store(y, Expr::Var(lane), Expr::load(s, c(0))),
    ];
    kernel.body = vec![Stmt::For { var: lane, extent: c(8), kind: LoopKind::Serial, body }];
    (kernel, lane, k, w)
}

#[test]
fn four_bytes_become_a_dot_product() {
    let (mut kernel, lane, k, w) = sum_of_products(DType::U8, Expr::index(11), 1);
    let before = kernel.to_string();
    kernel.tensorize_dot(k, w).unwrap();
    let after = kernel.to_string();
    kernel.vectorize(lane).unwrap();
    crate::verify::verify(&kernel).unwrap();
    insta::assert_snapshot!(format!("{before}\n->\n\n{after}"));
}

#[test]
fn only_what_fits_in_one_group_has_no_loop() {
    for (extent, loops) in [(0, 1), (3, 1), (4, 2), (5, 2)] {
        let (mut kernel, _, k, w) = sum_of_products(DType::I8, Expr::index(extent), 1);
        kernel.tensorize_dot(k, w).unwrap();
        let text = kernel.to_string();
        assert_eq!(text.matches("for ").count(), loops, "{text}");
        assert_eq!(text.contains("valid"), extent % 4 != 0, "{text}");
    }
}

#[test]
fn other_sums_are_refused() {
    let reason = |a, extent, stride, swap: bool| {
        let (mut kernel, _, k, w) = sum_of_products(a, extent, stride);
        let padded = if swap { BufferId(2) } else { w };
        let error = kernel.tensorize_dot(k, padded).unwrap_err();
        match error {
            StepError::Form { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    assert!(reason(DType::I16, Expr::index(8), 1, false).contains("product of bytes"));
    assert!(reason(DType::U8, Expr::Dim(0), 1, false).contains("not a constant"));
    assert!(reason(DType::U8, Expr::index(8), 2, false).contains("neighbours"));
    assert!(reason(DType::U8, Expr::index(8), 1, true).contains("padded buffer"));
}
