//! Normalization by mean and variance, or by the root mean square, over any axes.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_ir::words::ReduceKind;

use super::rows::Line;
use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt, Var};

/// Mean, then mean square of the distance to it, then the result: two passes for the moments, as one pass loses digits
/// where the mean is large.
pub fn normalize(
    lowering: &mut Lowering,
    axes: &[usize],
    epsilon: f64,
    centered: bool,
    epilogue: &ScalarExpr,
) -> Result<(), LowerError> {
    let source = lowering.operands[0].clone();
    let dtype = source.dtype();
    let compute = if dtype.bits() < 32 { DType::F32 } else { dtype };
    let rank = source.rank();
    let mut reduced: Vec<usize> = axes.to_vec();
    reduced.sort_unstable();
    let kept: Vec<usize> = (0..rank).filter(|axis| !reduced.contains(axis)).collect();
    let domain: Vec<Dim> = kept.iter().map(|axis| source.shape[*axis].clone()).collect();
    let Some((last, outer_axes)) = reduced.split_last() else {
        return Err(lowering.unsupported("it normalizes over no axis"));
    };
    let contiguous = source.shape[last + 1..].iter().all(|dim| dim.is(1));
    let lanes = if contiguous { lowering.tuning.lanes(compute) } else { 1 };
    let count = Dim::product(reduced.iter().map(|axis| &source.shape[*axis]));
    let count = lowering.dim(&count).cast(DType::I64, compute);
    let extent = lowering.dim(&source.shape[*last]);
    let mut row = |this: &mut Lowering, at: &[Expr], warp: Option<Expr>| {
        let fixed: Vec<(usize, Expr)> = kept.iter().copied().zip(at.iter().cloned()).collect();
        let line = Line::shared(extent.clone(), lanes, warp);
        let coordinates = |outer: &[Expr], position: Expr| -> Vec<Expr> {
            let mut all = vec![Expr::index(0); rank];
            fixed.iter().for_each(|(axis, at)| all[*axis] = at.clone());
            outer_axes.iter().zip(outer).for_each(|(axis, at)| all[*axis] = at.clone());
            all[*last] = position;
            all
        };
        let element = |this: &mut Lowering, outer: &[Expr], position: Expr| {
            this.load(Argument::Operand(0), &coordinates(outer, position)).cast(dtype, compute)
        };
        let mut stmts = Vec::new();
        let mean = if centered {
            let (more, sum) =
                total(this, &source.shape, outer_axes, &line, compute, &mut |this, outer, position| {
                    element(this, outer, position)
                });
            stmts.extend(more);
            let (mean, assign) =
                this.assign("mean", Expr::call(Function::Div, vec![Expr::Var(sum), count.clone()]));
            stmts.push(assign);
            Some(mean)
        } else {
            None
        };
        let distance = |value: Expr| match mean {
            Some(mean) => Expr::call(Function::Sub, vec![value, Expr::Var(mean)]),
            None => value,
        };
        let (more, sum) =
            total(this, &source.shape, outer_axes, &line, compute, &mut |this, outer, position| {
                let value = distance(element(this, outer, position));
                Expr::call(Function::Mul, vec![value.clone(), value])
            });
        stmts.extend(more);
        let mean_square = Expr::call(Function::Div, vec![Expr::Var(sum), count.clone()]);
        let root = Expr::call(Function::Add, vec![mean_square, Expr::constant(compute, epsilon)]);
        let root = Expr::call(Function::Sqrt, vec![root]);
        let inverse = Expr::call(Function::Div, vec![Expr::constant(compute, 1.0), root]);
        let (inverse, assign) = this.assign("inverse", inverse);
        stmts.push(assign);
        stmts.extend(nested(this, &source.shape, outer_axes, &mut Vec::new(), &mut |this, outer| {
            line.for_each(this, &mut |this, position| {
                let value = distance(element(this, outer, position.clone()));
                let value = Expr::call(Function::Mul, vec![value, Expr::Var(inverse)]).cast(compute, dtype);
                let all = coordinates(outer, position);
                let mut inputs = vec![value];
                for operand in 1..this.operands.len() {
                    inputs.push(this.load_broadcast(Argument::Operand(operand), &all));
                }
                let (mut stmts, value) = this.scalar(epilogue, &inputs);
                stmts.push(this.store(Argument::Result(0), &all, value));
                stmts
            })
        }));
        stmts
    };
    let stmts = match contiguous {
        true => lowering.rows(&domain, (&source.shape[*last], compute), &mut row),
        false => lowering.parallel_rows(&domain, &mut |this, at| row(this, at, None)),
    };
    lowering.launch(stmts, false);
    Ok(())
}

/// Serial loops over `axes` around a body that takes their positions.
fn nested(
    this: &mut Lowering,
    shape: &[Dim],
    axes: &[usize],
    at: &mut Vec<Expr>,
    body: &mut dyn FnMut(&mut Lowering, &[Expr]) -> Vec<Stmt>,
) -> Vec<Stmt> {
    let Some((axis, rest)) = axes.split_first() else { return body(this, at) };
    let extent = this.dim(&shape[*axis]);
    vec![this.for_loop(&format!("r{axis}"), extent, LoopKind::Serial, |this, position| {
        at.push(position);
        let stmts = nested(this, shape, rest, at, body);
        at.pop();
        stmts
    })]
}

/// The sum of the values that `element` gives over all positions of `axes` and of the line.
fn total(
    this: &mut Lowering,
    shape: &[Dim],
    axes: &[usize],
    line: &Line,
    compute: DType,
    element: &mut dyn FnMut(&mut Lowering, &[Expr], Expr) -> Expr,
) -> (Vec<Stmt>, Var) {
    let (sum, start) = this.assign("sum", Expr::constant(compute, 0.0));
    let mut stmts = vec![start];
    stmts.extend(nested(this, shape, axes, &mut Vec::new(), &mut |this, outer| {
        let (mut stmts, part) = line.reduce(this, ReduceKind::Sum, compute, &mut |this, position| {
            (vec![], element(this, outer, position))
        });
        let value = Expr::call(Function::Add, vec![Expr::Var(sum), Expr::Var(part)]);
        stmts.push(Stmt::Assign { var: sum, value });
        stmts
    }));
    (stmts, sum)
}
