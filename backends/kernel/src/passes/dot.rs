//! Four-way 8-bit dot products on machines that lack a combination of signs.
//!
//! With unsigned by signed alone, a signed left operand is shifted by 128: `s . b = (s + 128) . b - 128 . b`, and an unsigned right
//! one by -128: `a . u = a . (u - 128) + a . 64 + a . 64`. Everything wraps, so that the sums are exact. Without any form, and for
//! vectors below 128 bits, the bytes are widened and multiplied.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use crate::ir::{Expr, Kernel, Stmt, Ty};
use crate::machine::Machine;

/// Replaces the dot products that the machine does not have.
pub fn expand(kernel: &mut Kernel, machine: &Machine) {
    let body = std::mem::take(&mut kernel.body);
    let mut out = Vec::new();
    block(kernel, machine, body, &mut out);
    kernel.body = out;
}

fn block(kernel: &mut Kernel, machine: &Machine, statements: Vec<Stmt>, out: &mut Vec<Stmt>) {
    for mut stmt in statements {
        match stmt {
            Stmt::For { var, extent, kind, body } => {
                let mut inner = Vec::new();
                block(kernel, machine, body, &mut inner);
                out.push(Stmt::For { var, extent, kind, body: inner });
            }
            Stmt::If { condition, then, otherwise } => {
                let (mut yes, mut no) = (Vec::new(), Vec::new());
                block(kernel, machine, then, &mut yes);
                block(kernel, machine, otherwise, &mut no);
                out.push(Stmt::If { condition, then: yes, otherwise: no });
            }
            Stmt::Assign { .. } | Stmt::Store { .. } | Stmt::Barrier | Stmt::Warp(_) => {
                stmt.map_exprs(&mut |expr| {
                    expr.rewrite(&mut |part| match part {
                        Expr::Dot { acc, a, b } => product(kernel, machine, out, *acc, *a, *b),
                        part => part,
                    })
                });
                out.push(stmt);
            }
        }
    }
}

fn named(kernel: &mut Kernel, out: &mut Vec<Stmt>, value: Expr) -> Expr {
    if matches!(value, Expr::Var(_)) {
        return value;
    }
    let var = kernel.variable("t", kernel.type_of(&value));
    out.push(Stmt::Assign { var, value });
    Expr::Var(var)
}

fn splat(dtype: DType, value: i64, lanes: u16) -> Expr {
    Expr::Splat(Box::new(Expr::Const(Scalar::integer(dtype, value))), lanes)
}

/// The bytes with their top bit changed, read with the other sign.
fn shifted(value: Expr, ty: Ty, to: DType) -> Expr {
    let bits = Expr::call(Function::BitXor, vec![value, splat(ty.dtype, 128, ty.lanes)]);
    Expr::Call(ScalarOp::Bitcast(to), vec![bits])
}

fn dot(acc: Expr, a: Expr, b: Expr) -> Expr {
    Expr::Dot { acc: Box::new(acc), a: Box::new(a), b: Box::new(b) }
}

fn product(kernel: &mut Kernel, machine: &Machine, out: &mut Vec<Stmt>, acc: Expr, a: Expr, b: Expr) -> Expr {
    let (ty, a_ty, b_ty) = (kernel.type_of(&acc), kernel.type_of(&a), kernel.type_of(&b));
    // The product commutes; machines take the unsigned operand first.
    if (a_ty.dtype, b_ty.dtype) == (DType::I8, DType::U8) {
        return product(kernel, machine, out, acc, b, a);
    }
    let forms = machine.dot;
    let native = match (a_ty.dtype, b_ty.dtype) {
        (DType::U8, DType::I8) => forms.unsigned_signed,
        (DType::I8, DType::I8) => forms.signed_signed,
        _ => forms.unsigned_unsigned,
    };
    let wide = usize::from(ty.lanes) * 32 >= 128;
    if native && wide {
        return dot(acc, a, b);
    }
    if forms.unsigned_signed && wide {
        if a_ty.dtype == DType::I8 {
            let b = named(kernel, out, b);
            let sum = dot(acc, shifted(a, a_ty, DType::U8), b.clone());
            let zero = splat(DType::I32, 0, ty.lanes);
            let excess = dot(zero, splat(DType::U8, 128, a_ty.lanes), b);
            return Expr::call(Function::Sub, vec![sum, excess]);
        }
        let a = named(kernel, out, a);
        let quarter = splat(DType::I8, 64, b_ty.lanes);
        let sum = dot(acc, a.clone(), shifted(b, b_ty, DType::I8));
        return dot(dot(sum, a.clone(), quarter.clone()), a, quarter);
    }
    let (a, b) = (named(kernel, out, a), named(kernel, out, b));
    (0..4).fold(acc, |sum, byte| {
        let picks: Vec<u16> = (0..ty.lanes).map(|lane| 4 * lane + byte).collect();
        let widened = |bytes: &Expr| {
            let column = Expr::Shuffle(Box::new(bytes.clone()), Box::new(bytes.clone()), picks.clone());
            Expr::Call(ScalarOp::Cast(DType::I32), vec![column])
        };
        let term = Expr::call(Function::Mul, vec![widened(&a), widened(&b)]);
        Expr::call(Function::Add, vec![sum, term])
    })
}
