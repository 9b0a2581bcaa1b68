use super::*;
use crate::ir::{Access, Ty};

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn scale() -> Kernel {
    let mut kernel = Kernel::new("scale");
    kernel.dims.push("n".into());
    let x = kernel.argument("x", DType::F32, Expr::Dim(0), Access::Read);
    let y = kernel.argument("y", DType::F32, Expr::Dim(0), Access::Write);
    let i = kernel.counter("i");
    let value = Expr::call(
        tcc_ir::scalar::Function::Mul,
        vec![Expr::load(x, i.into()), Expr::constant(DType::F32, 2.0)],
    );
    kernel.body = vec![Stmt::For {
        var: i,
        extent: Expr::Dim(0),
        kind: LoopKind::Parallel,
        body: vec![Stmt::Store { buffer: y, index: i.into(), value, valid: None }],
    }];
    kernel
}

#[test]
fn a_slice_of_the_parallel_domain_runs() {
    let (mut x, mut y) = (floats(&[1.0, 2.0, 3.0]), floats(&[0.0; 3]));
    evaluate(&scale(), &mut [&mut x, &mut y], &[3], 1, 9).unwrap();
    assert_eq!(y, floats(&[0.0, 4.0, 6.0]));
}

#[test]
fn small_arguments_are_refused() {
    let (mut x, mut y) = (floats(&[1.0, 2.0]), floats(&[0.0; 3]));
    let result = evaluate(&scale(), &mut [&mut x, &mut y], &[3], 0, 3);
    assert_eq!(result, Err(EvaluateError::Argument("x".into())));
}

#[test]
fn reads_of_unwritten_scratch_are_found() {
    let mut kernel = Kernel::new("leak");
    let y = kernel.argument("y", DType::I32, Expr::index(1), Access::Write);
    let t = kernel.buffer("t", DType::I32, Space::Scratch, Expr::index(4), Access::ReadWrite);
    let value = Expr::load(t, Expr::index(2));
    kernel.body = vec![Stmt::Store { buffer: y, index: Expr::index(0), value, valid: None }];
    let result = evaluate(&kernel, &mut [&mut [0; 4]], &[], 0, 1);
    assert_eq!(result, Err(EvaluateError::Uninitialized { buffer: "t".into(), index: 2 }));
}

#[test]
fn packed_elements_share_bytes() {
    let mut kernel = Kernel::new("nibbles");
    let y = kernel.argument("y", DType::I4, Expr::index(3), Access::Write);
    let store = |index, value| Stmt::Store {
        buffer: y,
        index: Expr::index(index),
        value: Expr::constant(DType::I4, value),
        valid: None,
    };
    kernel.body = vec![store(0, 7.0), store(1, -8.0), store(2, -1.0)];
    let mut bytes = [0u8; 2];
    evaluate(&kernel, &mut [&mut bytes], &[], 0, 1).unwrap();
    assert_eq!(bytes, [0x87, 0x0f]);
}

#[test]
fn lanes_reduce_in_a_tree() {
    let mut kernel = Kernel::new("sum");
    let y = kernel.argument("y", DType::I64, Expr::index(1), Access::Write);
    let v = kernel.variable("v", Ty::vector(DType::I64, 8));
    let ramp = Expr::Ramp { base: Box::new(Expr::index(1)), stride: 1, lanes: 8 };
    let sum = Expr::ReduceLanes(tcc_ir::words::ReduceKind::Sum, Box::new(v.into()));
    kernel.body = vec![
        Stmt::Assign { var: v, value: ramp },
        Stmt::Store { buffer: y, index: Expr::index(0), value: sum, valid: None },
    ];
    let mut bytes = [0u8; 8];
    evaluate(&kernel, &mut [&mut bytes], &[], 0, 1).unwrap();
    assert_eq!(i64::from_le_bytes(bytes), 36);
}
