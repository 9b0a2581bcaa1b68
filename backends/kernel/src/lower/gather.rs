//! Reading at computed positions.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;

use super::{Argument, LowerError, Lowering};
use crate::ir::Expr;

/// An index operand as an in-range position: negative ones count from the end. What is still outside is clamped, so that a
/// wrong index never leaves the buffer; the interpreter reports it.
pub fn position(this: &mut Lowering, indices: Argument, at: &[Expr], extent: Expr) -> Expr {
    let dtype = this.type_of(indices).dtype();
    let raw = this.load(indices, at).cast(dtype, DType::I64);
    let wrapped = raw.clone().less(Expr::index(0)).choose(raw.clone().plus(extent.clone()), raw);
    wrapped.at_most(extent.minus(Expr::index(1))).at_least(Expr::index(0))
}

/// Whole slices along an axis.
pub fn gather(lowering: &mut Lowering, axis: usize) -> Result<(), LowerError> {
    let (source, indices) = (lowering.operands[0].clone(), lowering.operands[1].clone());
    // Seen as [before, indices, after] out of [before, extent, after].
    let before = Dim::product(&source.shape[..axis]);
    let after = Dim::product(&source.shape[axis + 1..]);
    let picks = indices.count();
    let from_shape = [before.clone(), source.shape[axis].clone(), after.clone()];
    let to_shape = [before, picks, after.clone()];
    let extent = lowering.dim(&source.shape[axis]);
    let lanes = if after.is(1) { 1 } else { lowering.tuning.lanes(source.dtype()) };
    let stmts = lowering.parallel_nest(&to_shape, lanes, &mut |this, at| {
        let dtype = this.type_of(Argument::Operand(1)).dtype();
        let index_buffer = this.buffer(Argument::Operand(1));
        let raw = Expr::load(index_buffer, at[1].clone()).cast(dtype, DType::I64);
        let wrapped = raw.clone().less(Expr::index(0)).choose(raw.clone().plus(extent.clone()), raw);
        let pick = wrapped.at_most(extent.clone().minus(Expr::index(1))).at_least(Expr::index(0));
        let (from, to) = (this.buffer(Argument::Operand(0)), this.buffer(Argument::Result(0)));
        let read = this.linear(&from_shape, &[at[0].clone(), pick, at[2].clone()]);
        let write = this.linear(&to_shape, at);
        vec![crate::ir::Stmt::Store { buffer: to, index: write, value: Expr::load(from, read), valid: None }]
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Single elements along an axis.
pub fn gather_elements(lowering: &mut Lowering, axis: usize) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let extent = lowering.operands[0].shape[axis].clone();
    let extent = lowering.dim(&extent);
    let stmts = lowering.parallel_nest(&result.shape, 1, &mut |this, at| {
        let mut read_at = at.to_vec();
        read_at[axis] = position(this, Argument::Operand(1), at, extent.clone());
        let value = this.load(Argument::Operand(0), &read_at);
        vec![this.store(Argument::Result(0), at, value)]
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Slices addressed by index tuples.
pub fn gather_nd(lowering: &mut Lowering, batch_dims: usize) -> Result<(), LowerError> {
    let (source, indices) = (lowering.operands[0].clone(), lowering.operands[1].clone());
    let result = lowering.results[0].clone();
    let tuples = indices.rank() - 1;
    let Some(depth) = indices.shape[tuples].as_const() else {
        return Err(lowering.malformed("the index depth is not known"));
    };
    let depth = depth as usize;
    let stmts = lowering.parallel_nest(&result.shape, 1, &mut |this, at| {
        let at = if result.rank() == 0 { &[][..] } else { at };
        let mut read_at: Vec<Expr> = at[..batch_dims].to_vec();
        for component in 0..depth {
            let mut tuple = at[..tuples].to_vec();
            tuple.push(Expr::index(component as i64));
            let extent = this.dim(&source.shape[batch_dims + component]);
            read_at.push(position(this, Argument::Operand(1), &tuple, extent));
        }
        read_at.extend_from_slice(&at[tuples..]);
        let value = this.load(Argument::Operand(0), &read_at);
        vec![this.store(Argument::Result(0), at, value)]
    });
    lowering.launch(stmts, false);
    Ok(())
}
