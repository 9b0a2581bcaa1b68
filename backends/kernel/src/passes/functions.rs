//! Replaces functions outside the core set by code over core functions ([`crate::math`]).
//!
//! ```text
//! y[i] = exp(x[i])   =>   t = x[i]; t1 = ...; y[i] = t9 * t10
//! ```
//!
//! Statements go in front of the one that needs them. Declarations and the extent of the parallel loop, which no statement can
//! precede, take only remainders of indices.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};

use crate::ir::{Expr, Kernel, LoopKind, Stmt};
use crate::machine::Machine;
use crate::math;
use crate::verify::is_core_function;

/// Expands the functions of a kernel whose floats are f32 and f64.
pub fn expand(kernel: &mut Kernel, machine: &Machine) {
    for number in 0..kernel.buffers.len() {
        kernel.buffers[number].count = pure(&kernel.buffers[number].count);
    }
    let body = std::mem::take(&mut kernel.body);
    let mut out = Vec::new();
    block(kernel, machine, body, &mut out);
    kernel.body = out;
}

/// Index arithmetic without functions outside the core set.
fn pure(expr: &Expr) -> Expr {
    expr.rewrite(&mut |part| match part {
        Expr::Call(ScalarOp::Call(Function::Mod), mut args) if args.len() == 2 => {
            let divisor = args.remove(1);
            math::pure_modulo(args.remove(0), divisor)
        }
        part => part,
    })
}

fn block(kernel: &mut Kernel, machine: &Machine, statements: Vec<Stmt>, out: &mut Vec<Stmt>) {
    for mut stmt in statements {
        match stmt {
            Stmt::For { var, extent, kind, body } => {
                let extent = match kind {
                    LoopKind::Parallel => pure(&extent),
                    _ => expanded(kernel, machine, &extent, out),
                };
                let mut inner = Vec::new();
                block(kernel, machine, body, &mut inner);
                out.push(Stmt::For { var, extent, kind, body: inner });
            }
            Stmt::If { condition, then, otherwise } => {
                let condition = expanded(kernel, machine, &condition, out);
                let (mut yes, mut no) = (Vec::new(), Vec::new());
                block(kernel, machine, then, &mut yes);
                block(kernel, machine, otherwise, &mut no);
                out.push(Stmt::If { condition, then: yes, otherwise: no });
            }
            Stmt::Assign { .. } | Stmt::Store { .. } | Stmt::Barrier | Stmt::Warp(_) => {
                stmt.map_exprs(&mut |expr| expanded(kernel, machine, expr, out));
                out.push(stmt);
            }
        }
    }
}

fn expanded(kernel: &mut Kernel, machine: &Machine, expr: &Expr, out: &mut Vec<Stmt>) -> Expr {
    if !needs_code(kernel, expr) {
        return expr.clone();
    }
    expr.rewrite(&mut |part| match &part {
        Expr::Call(ScalarOp::Call(function), args) => {
            let operand = args.last().map_or(DType::I64, |arg| kernel.type_of(arg).dtype);
            if is_core_function(*function, operand) {
                return part;
            }
            math::expand(kernel, out, machine.fma, *function, args).unwrap_or(part)
        }
        _ => part,
    })
}

fn needs_code(kernel: &Kernel, expr: &Expr) -> bool {
    let mut found = false;
    expr.visit(&mut |part| {
        if let Expr::Call(ScalarOp::Call(function), args) = part {
            let operand = args.last().map_or(DType::I64, |arg| kernel.type_of(arg).dtype);
            found |= !is_core_function(*function, operand);
        }
    });
    found
}
