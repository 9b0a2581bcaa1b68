//! Softmax and its logarithm, along any axis.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

use super::rows::Line;
use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, Stmt};

/// Three passes over a line: maximum, sum of exponentials, result. The exponentials wait in the result.
pub fn softmax(lowering: &mut Lowering, axis: usize, log: bool) -> Result<(), LowerError> {
    let shape = lowering.operands[0].shape.clone();
    let dtype = lowering.operands[0].dtype();
    let compute = if dtype.bits() < 32 { DType::F32 } else { dtype };
    let (before, after) = (Dim::product(&shape[..axis]), Dim::product(&shape[axis + 1..]));
    let contiguous = after.is(1);
    let lanes = if contiguous { lowering.tuning.lanes(compute) } else { 1 };
    let extent = lowering.dim(&shape[axis]);
    let seen = [before.clone(), shape[axis].clone(), after.clone()];
    // Exponentials that are not stored at full precision would round twice.
    let keeps = dtype == compute && !log;
    let result = lowering.read_write(Argument::Result(0));
    let mut row = |this: &mut Lowering, at: &[Expr], warp: Option<Expr>| {
        let line = Line::shared(extent.clone(), lanes, warp);
        let source = this.buffer(Argument::Operand(0));
        let index = |this: &mut Lowering, position: Expr| {
            this.linear(&seen, &[at[0].clone(), position, at[1].clone()])
        };
        let (mut stmts, largest) = line.reduce(this, ReduceKind::Max, compute, &mut |this, position| {
            let index = index(this, position);
            (vec![], Expr::load(source, index).cast(dtype, compute))
        });
        let shifted =
            |value: Expr| Expr::call(Function::Sub, vec![value.cast(dtype, compute), Expr::Var(largest)]);
        let (more, sum) = line.reduce(this, ReduceKind::Sum, compute, &mut |this, position| {
            let index = index(this, position);
            let value = Expr::call(Function::Exp, vec![shifted(Expr::load(source, index.clone()))]);
            if !keeps {
                return (vec![], value);
            }
            let var = this.kernel.variable("exponential", crate::ir::Ty::scalar(compute));
            let store = Stmt::Store { buffer: result, index, value: Expr::Var(var), valid: None };
            (vec![Stmt::Assign { var, value }, store], Expr::Var(var))
        });
        stmts.extend(more);
        let scale = match log {
            true => Expr::call(Function::Log, vec![Expr::Var(sum)]),
            false => Expr::call(Function::Div, vec![Expr::constant(compute, 1.0), Expr::Var(sum)]),
        };
        let (scale, assign) = this.assign("scale", scale);
        stmts.push(assign);
        stmts.extend(line.for_each(this, &mut |this, position| {
            let index = index(this, position);
            let value = match (log, keeps) {
                (true, _) => Expr::call(
                    Function::Sub,
                    vec![shifted(Expr::load(source, index.clone())), Expr::Var(scale)],
                ),
                (false, true) => {
                    Expr::call(Function::Mul, vec![Expr::load(result, index.clone()), Expr::Var(scale)])
                }
                (false, false) => {
                    let value = Expr::call(Function::Exp, vec![shifted(Expr::load(source, index.clone()))]);
                    Expr::call(Function::Mul, vec![value, Expr::Var(scale)])
                }
            };
            vec![Stmt::Store { buffer: result, index, value: value.cast(compute, dtype), valid: None }]
        }));
        stmts
    };
    let domain = [before, after];
    let stmts = match contiguous {
        true => lowering.rows(&domain, (&shape[axis], compute), &mut row),
        false => lowering.parallel_rows(&domain, &mut |this, at| row(this, at, None)),
    };
    lowering.launch(stmts, false);
    Ok(())
}
