//! Affine quantization and its inverse, per tensor, per axis or per block.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};

use super::pointwise::lanes_for;
use super::{Argument, LowerError, Lowering};
use crate::ir::Expr;

/// Coordinates of the scale that an element uses.
fn parameter_at(this: &Lowering, at: &[Expr], axis: usize, block: usize) -> Vec<Expr> {
    let scale = &this.operands[1];
    let single = scale.shape.iter().all(|dim| dim.is(1));
    if single {
        return vec![Expr::index(0); scale.rank()];
    }
    if block == 0 {
        return vec![at[axis].clone()];
    }
    let mut own = at.to_vec();
    own[axis] = own[axis].clone().over(Expr::index(block as i64));
    own
}

/// Axes that can be visited as one because all their elements share a scale, or each has its own.
fn domain(this: &Lowering, axis: usize, block: usize) -> (Vec<Dim>, Option<usize>) {
    let shape = &this.operands[0].shape;
    let single = this.operands[1].shape.iter().all(|dim| dim.is(1));
    if single {
        (vec![Dim::product(shape)], None)
    } else if block == 0 {
        let (before, after) = (Dim::product(&shape[..axis]), Dim::product(&shape[axis + 1..]));
        (vec![before, shape[axis].clone(), after], Some(1))
    } else {
        (shape.clone(), Some(axis))
    }
}

/// `saturate(round(x / scale) + zero)`.
pub fn quantize(
    lowering: &mut Lowering,
    dtype: DType,
    axis: usize,
    block: usize,
    saturate: bool,
) -> Result<(), LowerError> {
    let (x, scale, zero) =
        (lowering.operands[0].dtype(), lowering.operands[1].dtype(), lowering.operands[2].dtype());
    let (shape, seen_axis) = domain(lowering, axis, block);
    let lanes = lanes_for(lowering, &[DType::F32]);
    let stmts = lowering.parallel_nest(&shape, lanes, &mut |this, at| {
        let parameter = parameter_at(this, at, seen_axis.unwrap_or(0), block);
        let source = this.buffer(Argument::Operand(0));
        let index = this.linear(&shape, at);
        let value = Expr::load(source, index.clone()).cast(x, DType::F32);
        let by = this.load(Argument::Operand(1), &parameter).cast(scale, DType::F32);
        let offset = this.load(Argument::Operand(2), &parameter).cast(zero, DType::F32);
        let ratio = Expr::call(Function::Div, vec![value, by]);
        let value = match dtype.integer_range() {
            Some((low, high)) => {
                let shifted =
                    Expr::call(Function::Add, vec![Expr::call(Function::Round, vec![ratio]), offset]);
                let low = Expr::constant(DType::F32, low as f64);
                let high = Expr::constant(DType::F32, high as f64);
                let bounded =
                    Expr::call(Function::Min, vec![Expr::call(Function::Max, vec![shifted, low]), high]);
                bounded.cast(DType::F32, dtype)
            }
            None => {
                let shifted = Expr::call(Function::Add, vec![ratio, offset]);
                let op = if saturate { ScalarOp::Cast(dtype) } else { ScalarOp::CastAlternate(dtype) };
                Expr::Call(op, vec![shifted])
            }
        };
        let result = this.buffer(Argument::Result(0));
        vec![crate::ir::Stmt::Store { buffer: result, index, value, valid: None }]
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// `(x - zero) * scale`.
pub fn dequantize(
    lowering: &mut Lowering,
    dtype: DType,
    axis: usize,
    block: usize,
) -> Result<(), LowerError> {
    let (x, scale, zero) =
        (lowering.operands[0].dtype(), lowering.operands[1].dtype(), lowering.operands[2].dtype());
    let (shape, seen_axis) = domain(lowering, axis, block);
    let lanes = lanes_for(lowering, &[DType::F32]);
    // Differences of stored integers are exact in i32; of narrow floats in f32.
    let middle = if x.is_float() { DType::F32 } else { DType::I32 };
    let stmts = lowering.parallel_nest(&shape, lanes, &mut |this, at| {
        let parameter = parameter_at(this, at, seen_axis.unwrap_or(0), block);
        let source = this.buffer(Argument::Operand(0));
        let index = this.linear(&shape, at);
        let value = Expr::load(source, index.clone()).cast(x, middle);
        let by = this.load(Argument::Operand(1), &parameter).cast(scale, DType::F32);
        let offset = this.load(Argument::Operand(2), &parameter).cast(zero, middle);
        let difference = Expr::call(Function::Sub, vec![value, offset]).cast(middle, DType::F32);
        let value = Expr::call(Function::Mul, vec![difference, by]).cast(DType::F32, dtype);
        let result = this.buffer(Argument::Result(0));
        vec![crate::ir::Stmt::Store { buffer: result, index, value, valid: None }]
    });
    lowering.launch(stmts, false);
    Ok(())
}
