//! Reductions and index-of-extreme.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_ir::words::ReduceKind;

use super::pointwise::{expression_types, lanes_for};
use super::rows::{CHAINS, gather_chains};
use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt, Var};

/// The neutral element of a reduction.
pub fn neutral(kind: ReduceKind, dtype: DType) -> Expr {
    let range = dtype.integer_range();
    match (kind, range) {
        (ReduceKind::Sum, _) => Expr::constant(dtype, 0.0),
        (ReduceKind::Prod, _) => Expr::constant(dtype, 1.0),
        (ReduceKind::Max, None) => Expr::constant(dtype, f64::NEG_INFINITY),
        (ReduceKind::Min, None) => Expr::constant(dtype, f64::INFINITY),
        (ReduceKind::Max, Some((low, _))) => Expr::Const(tcc_ir::scalar::Scalar { dtype, bits: low as u64 }),
        (ReduceKind::Min, Some((_, high))) => {
            Expr::Const(tcc_ir::scalar::Scalar { dtype, bits: high as u64 })
        }
    }
}

/// The function that combines two partial results.
pub fn combine(kind: ReduceKind) -> Function {
    match kind {
        ReduceKind::Sum => Function::Add,
        ReduceKind::Prod => Function::Mul,
        ReduceKind::Max => Function::Max,
        ReduceKind::Min => Function::Min,
    }
}

/// Type in which partial results are kept.
fn partial_type(dtype: DType) -> DType {
    if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { dtype }
}

/// Vectors of results that a task computes side by side, so that no sum waits for the one before.
const VECTORS: u16 = 8;

/// Reduces axes, with a map before and after.
pub fn reduce(
    lowering: &mut Lowering,
    kind: ReduceKind,
    axes: &[usize],
    prologue: &ScalarExpr,
    epilogue: &ScalarExpr,
) -> Result<(), LowerError> {
    let source = lowering.operands[0].clone();
    let rank = source.rank();
    let before = (prologue.inputs as usize).clamp(1, lowering.operands.len());
    let input_types: Vec<DType> = lowering.operands[..before].iter().map(|operand| operand.dtype()).collect();
    let (_, element) = prologue.infer(&input_types).map_err(|error| lowering.malformed(error.to_string()))?;
    let partial = partial_type(element);
    let mut types = expression_types(prologue, &input_types);
    types.push(partial);
    let kept: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
    let innermost_kept = kept.last().is_some_and(|last| source.shape[last + 1..].iter().all(|dim| dim.is(1)));
    let lanes = lanes_for(lowering, &types);
    let domain: Vec<Dim> = kept.iter().map(|axis| source.shape[*axis].clone()).collect();
    let mut reduced: Vec<usize> = axes.to_vec();
    reduced.sort_unstable();
    let merged =
        if before == 1 { merge_neighbours(&source.shape, &mut reduced) } else { source.shape.clone() };
    // Kept innermost: a vector of results. Reduced innermost: lanes hold partial results of one result.
    let result_lanes = if innermost_kept { lanes } else { 1 };
    let across = !innermost_kept && !reduced.is_empty() && lanes > 1;
    let result_rank = lowering.results[0].rank();
    let mut row = |this: &mut Lowering, at: &[Expr]| {
        let outer: Vec<(usize, Expr)> = kept.iter().copied().zip(at.iter().cloned()).collect();
        let context = Reduction {
            kind,
            partial,
            prologue,
            before,
            rank,
            extents: &merged,
            reduced: &reduced,
            outer: &outer,
        };
        let (mut stmts, value) =
            if across { context.across_lanes(this, lanes) } else { context.serial(this) };
        let value = value.cast(partial, element);
        // Coordinates of the result, with extents of 1 where axes were kept.
        let result_at: Vec<Expr> = if result_rank == kept.len() {
            outer.iter().map(|(_, position)| position.clone()).collect()
        } else {
            (0..rank)
                .map(|axis| {
                    outer
                        .iter()
                        .find(|(known, _)| *known == axis)
                        .map_or(Expr::index(0), |(_, at)| at.clone())
                })
                .collect()
        };
        let mut inputs = vec![value];
        for operand in before..this.operands.len() {
            inputs.push(this.load_broadcast(Argument::Operand(operand), &result_at));
        }
        let (more, value) = this.scalar(epilogue, &inputs);
        stmts.extend(more);
        stmts.push(this.store(Argument::Result(0), &result_at, value));
        stmts
    };
    let stmts = match result_lanes {
        1 => lowering.parallel_rows(&domain, &mut row),
        _ => lowering.parallel_vectors(&domain, result_lanes, VECTORS, &mut row),
    };
    lowering.launch(stmts, false);
    Ok(())
}

/// Leaves of each run of neighbouring reduced axes only the last one, which takes over their elements: in memory they
/// follow each other. Returns the extents.
fn merge_neighbours(shape: &[Dim], reduced: &mut Vec<usize>) -> Vec<Dim> {
    let mut extents = shape.to_vec();
    let all = reduced.clone();
    reduced.retain(|axis| {
        let runs_on = all.contains(&(axis + 1));
        if runs_on {
            extents[axis + 1] = extents[*axis].clone() * extents[axis + 1].clone();
        }
        !runs_on
    });
    extents
}

/// A body of loops, given the position on each axis.
type AtPositions<'b> = dyn FnMut(&mut Lowering, &[(usize, Expr)]) -> Vec<Stmt> + 'b;

struct Reduction<'r> {
    kind: ReduceKind,
    partial: DType,
    prologue: &'r ScalarExpr,
    before: usize,
    rank: usize,
    /// Of the source, with those of reduced neighbours in the last of them.
    extents: &'r [Dim],
    reduced: &'r [usize],
    outer: &'r [(usize, Expr)],
}

impl Reduction<'_> {
    fn coordinates(&self, inner: &[(usize, Expr)]) -> Vec<Expr> {
        let find = |axis: usize| self.outer.iter().chain(inner).find(|(known, _)| *known == axis);
        (0..self.rank).map(|axis| find(axis).map_or(Expr::index(0), |(_, at)| at.clone())).collect()
    }

    fn element(&self, this: &mut Lowering, at: &[Expr]) -> (Vec<Stmt>, Expr) {
        let mut inputs = vec![this.load(Argument::Operand(0), at)];
        for operand in 1..self.before {
            inputs.push(this.load_broadcast(Argument::Operand(operand), at));
        }
        let (stmts, value) = this.scalar(self.prologue, &inputs);
        let dtype = this.kernel.type_of(&value).dtype;
        (stmts, value.cast(dtype, self.partial))
    }

    fn extent(&self, this: &mut Lowering, axis: usize) -> Expr {
        this.dim(&self.extents[axis])
    }

    /// Loops over `axes` around a body that takes the coordinates.
    fn loops(
        &self,
        this: &mut Lowering,
        axes: &[usize],
        inner: &mut Vec<(usize, Expr)>,
        body: &mut AtPositions,
    ) -> Vec<Stmt> {
        let Some((axis, rest)) = axes.split_first() else { return body(this, inner) };
        let extent = self.extent(this, *axis);
        let name = format!("r{axis}");
        vec![this.for_loop(&name, extent, LoopKind::Serial, |this, at| {
            inner.push((*axis, at));
            let stmts = self.loops(this, rest, inner, body);
            inner.pop();
            stmts
        })]
    }

    fn update(&self, this: &mut Lowering, sum: Var, at: &[Expr]) -> Vec<Stmt> {
        let (mut stmts, value) = self.element(this, at);
        let value = Expr::call(combine(self.kind), vec![Expr::Var(sum), value]);
        stmts.push(Stmt::Assign { var: sum, value });
        stmts
    }

    /// One partial result in row-major order.
    fn serial(&self, this: &mut Lowering) -> (Vec<Stmt>, Expr) {
        let (sum, first) = this.assign("sum", neutral(self.kind, self.partial));
        let mut stmts = vec![first];
        stmts.extend(self.loops(this, self.reduced, &mut Vec::new(), &mut |this, inner| {
            let at = self.coordinates(inner);
            self.update(this, sum, &at)
        }));
        (stmts, Expr::Var(sum))
    }

    /// Partial results in the lanes of a vector, over the innermost axis; then the lanes, then what did not fill a vector.
    fn across_lanes(&self, this: &mut Lowering, lanes: u16) -> (Vec<Stmt>, Expr) {
        let Some((last, outer_axes)) = self.reduced.split_last() else { return self.serial(this) };
        let width = Expr::index(i64::from(lanes));
        let extent = self.extent(this, *last);
        let chains = if this.tuning.gpu.is_some() { 1 } else { CHAINS };
        let all = Expr::index(i64::from(lanes) * chains);
        let buffer = this.kernel.buffer(
            "partial",
            self.partial,
            crate::ir::Space::Register,
            all.clone(),
            crate::ir::Access::ReadWrite,
        );
        let (tail, tail_first) = this.assign("tail", neutral(self.kind, self.partial));
        let start = this.for_loop("lane", all.clone(), LoopKind::Vector, |_, lane| {
            vec![Stmt::Store { buffer, index: lane, value: neutral(self.kind, self.partial), valid: None }]
        });
        let mut stmts = vec![tail_first, start];
        stmts.extend(self.loops(this, outer_axes, &mut Vec::new(), &mut |this, inner| {
            let inner = inner.to_vec();
            // Vectors in groups, so that no vector waits for the one before, then single ones.
            let mut stmts = Vec::new();
            let mut done = Expr::index(0);
            for step in if chains > 1 { vec![all.clone(), width.clone()] } else { vec![width.clone()] } {
                let first = done.clone();
                let vectors = extent.clone().minus(first.clone()).over(step.clone());
                if vectors.as_index() == Some(0) {
                    continue;
                }
                stmts.push(this.for_loop("v", vectors.clone(), LoopKind::Serial, |this, vector| {
                    vec![this.for_loop("lane", step.clone(), LoopKind::Vector, |this, lane| {
                        let mut inner = inner.clone();
                        let position = first.plus(vector.times(step.clone())).plus(lane.clone());
                        inner.push((*last, position));
                        let at = self.coordinates(&inner);
                        let (mut stmts, value) = self.element(this, &at);
                        let value =
                            Expr::call(combine(self.kind), vec![Expr::load(buffer, lane.clone()), value]);
                        stmts.push(Stmt::Store { buffer, index: lane, value, valid: None });
                        stmts
                    })]
                }));
                done = done.plus(vectors.times(step));
            }
            let rest = extent.clone().minus(done.clone());
            let single = this.for_loop("s", rest, LoopKind::Serial, |this, offset| {
                let mut inner = inner.clone();
                inner.push((*last, done.plus(offset)));
                let at = self.coordinates(&inner);
                self.update(this, tail, &at)
            });
            stmts.push(single);
            stmts
        }));
        stmts.push(gather_chains(this, self.kind, buffer, lanes, chains));
        let all = Expr::Load { buffer, index: Box::new(Expr::index(0)), lanes, valid: None };
        let lanes_result = Expr::ReduceLanes(self.kind, Box::new(all));
        let (total, stmt) =
            this.assign("total", Expr::call(combine(self.kind), vec![lanes_result, Expr::Var(tail)]));
        stmts.push(stmt);
        (stmts, Expr::Var(total))
    }
}

/// Index of the extreme element along an axis.
pub fn arg_reduce(
    lowering: &mut Lowering,
    kind: ReduceKind,
    axis: usize,
    last: bool,
) -> Result<(), LowerError> {
    let source = lowering.operands[0].clone();
    let result = lowering.results[0].clone();
    let dtype = source.dtype();
    let keep = result.rank() == source.rank();
    let stmts = lowering.parallel_rows(&result.shape, &mut |this, at| {
        let at = if result.rank() == 0 { &[][..] } else { at };
        let source_at = |position: Expr| -> Vec<Expr> {
            let mut coordinates = at.to_vec();
            if keep {
                coordinates[axis] = position;
            } else {
                coordinates.insert(axis, position);
            }
            coordinates
        };
        let extent = this.dim(&source.shape[axis]);
        let (best_at, first_at) = this.assign("best_at", Expr::index(0));
        let first_value = this.load(Argument::Operand(0), &source_at(Expr::index(0)));
        let (best, first) = this.assign("best", first_value);
        let rest = extent.minus(Expr::index(1));
        let search = this.for_loop("r", rest, LoopKind::Serial, |this, offset| {
            let position = offset.plus(Expr::index(1));
            let loaded = this.load(Argument::Operand(0), &source_at(position.clone()));
            let (value, load) = this.assign("value", loaded);
            let (value, best_value) = (Expr::Var(value), Expr::Var(best));
            let better = match (kind, last) {
                (ReduceKind::Min, false) => value.clone().less(best_value.clone()),
                (ReduceKind::Min, true) => value.clone().less_equal(best_value.clone()),
                (_, false) => best_value.clone().less(value.clone()),
                (_, true) => best_value.clone().less_equal(value.clone()),
            };
            let better = if dtype.is_float() {
                // NaN is extreme: it wins over numbers, and over NaN where the last one counts.
                let is_nan = |value: Expr| {
                    Expr::call(Function::Not, vec![Expr::call(Function::Equal, vec![value.clone(), value])])
                };
                let wins = if last {
                    is_nan(value.clone())
                } else {
                    is_nan(value.clone()).both(Expr::call(Function::Not, vec![is_nan(best_value)]))
                };
                Expr::call(Function::Or, vec![better, wins])
            } else {
                better
            };
            let (wins, decide) = this.assign("wins", better);
            vec![
                load,
                decide,
                Stmt::Assign { var: best, value: Expr::Var(wins).choose(value, Expr::Var(best)) },
                Stmt::Assign { var: best_at, value: Expr::Var(wins).choose(position, Expr::Var(best_at)) },
            ]
        });
        vec![first_at, first, search, this.store(Argument::Result(0), at, Expr::Var(best_at))]
    });
    lowering.launch(stmts, false);
    Ok(())
}
