//! Writing at computed positions: a copy, then the updates one after the other, so that equal positions combine in order.

use tcc_ir::scalar::Function;
use tcc_ir::words::ScatterKind;

use super::gather::position;
use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind};

fn combine(kind: ScatterKind, old: Expr, update: Expr) -> Expr {
    let function = match kind {
        ScatterKind::Replace => return update,
        ScatterKind::Add => Function::Add,
        ScatterKind::Mul => Function::Mul,
        ScatterKind::Max => Function::Max,
        ScatterKind::Min => Function::Min,
    };
    Expr::call(function, vec![old, update])
}

/// Single elements along an axis.
pub fn scatter_elements(lowering: &mut Lowering, axis: usize, kind: ScatterKind) -> Result<(), LowerError> {
    super::movement::copy(lowering)?;
    let shape = lowering.operands[0].shape.clone();
    let updates = lowering.operands[2].clone();
    lowering.read_write(Argument::Result(0));
    let count = lowering.dim(&updates.count());
    let extent = lowering.dim(&shape[axis]);
    let body = lowering.for_loop("u", count, LoopKind::Serial, |this, linear| {
        let at = this.decode(linear, &updates.shape);
        let mut target = at.clone();
        target[axis] = position(this, Argument::Operand(1), &at, extent);
        let update = this.load(Argument::Operand(2), &at);
        let old = this.load(Argument::Result(0), &target);
        let value = combine(kind, old, update);
        vec![this.store(Argument::Result(0), &target, value)]
    });
    lowering.launch(vec![body], false);
    Ok(())
}

/// Slices addressed by index tuples.
pub fn scatter_nd(lowering: &mut Lowering, kind: ScatterKind) -> Result<(), LowerError> {
    super::movement::copy(lowering)?;
    let shape = lowering.operands[0].shape.clone();
    let (indices, updates) = (lowering.operands[1].clone(), lowering.operands[2].clone());
    let tuples = indices.rank() - 1;
    let Some(depth) = indices.shape[tuples].as_const() else {
        return Err(lowering.malformed("the index depth is not known"));
    };
    lowering.read_write(Argument::Result(0));
    let count = lowering.dim(&updates.count());
    let body = lowering.for_loop("u", count, LoopKind::Serial, |this, linear| {
        let at = this.decode(linear, &updates.shape);
        let mut target = Vec::new();
        for (component, dim) in shape.iter().enumerate().take(depth as usize) {
            let mut tuple = at[..tuples].to_vec();
            tuple.push(Expr::index(component as i64));
            let extent = this.dim(dim);
            target.push(position(this, Argument::Operand(1), &tuple, extent));
        }
        target.extend_from_slice(&at[tuples..]);
        let update = this.load(Argument::Operand(2), &at);
        let old = this.load(Argument::Result(0), &target);
        let value = combine(kind, old, update);
        vec![this.store(Argument::Result(0), &target, value)]
    });
    lowering.launch(vec![body], false);
    Ok(())
}
