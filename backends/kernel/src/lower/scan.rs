//! Running reductions along an axis.

use tcc_ir::dtype::DType;
use tcc_ir::words::ReduceKind;

use super::reduce::{combine, neutral};
use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt};

/// One line after the other; lines are independent.
pub fn scan(
    lowering: &mut Lowering,
    kind: ReduceKind,
    axis: usize,
    exclusive: bool,
    reverse: bool,
) -> Result<(), LowerError> {
    let shape = lowering.operands[0].shape.clone();
    let dtype = lowering.operands[0].dtype();
    let partial = if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { dtype };
    let mut domain = shape.clone();
    let extent = domain.remove(axis);
    let extent = lowering.dim(&extent);
    let stmts = lowering.parallel_rows(&domain, &mut |this, at| {
        let (sum, start) = this.assign("sum", neutral(kind, partial));
        let body = this.for_loop("r", extent.clone(), LoopKind::Serial, |this, step| {
            let position = if reverse { extent.clone().minus(Expr::index(1)).minus(step) } else { step };
            let mut full = at.to_vec();
            full.insert(axis, position);
            let value = this.load(Argument::Operand(0), &full).cast(dtype, partial);
            let update =
                Stmt::Assign { var: sum, value: Expr::call(combine(kind), vec![Expr::Var(sum), value]) };
            let store = this.store(Argument::Result(0), &full, Expr::Var(sum).cast(partial, dtype));
            if exclusive { vec![store, update] } else { vec![update, store] }
        });
        vec![start, body]
    });
    lowering.launch(stmts, false);
    Ok(())
}
