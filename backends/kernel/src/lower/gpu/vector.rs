//! Products of few rows, which read the other operand once: a warp for each column.
//!
//! Lanes take pieces of 16 bytes of the depth in turn, multiply them with the same pieces of every row, and add up what they have by
//! exchanging it.

use tcc_ir::dtype::DType;
use tcc_ir::words::ReduceKind;

use super::matrix::CHUNK;
use super::product::{Extents, Places, Side, assigned};
use super::rows::WARP;
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt};
use crate::lower::contract::multiply_add;
use crate::lower::{LowerError, Lowering};

/// Rows up to which the tiles of a block are mostly empty.
pub const FEW_ROWS: i64 = 4;

/// An operand's line of the depth: where it starts.
struct Line {
    buffer: BufferId,
    first: Expr,
    dtype: DType,
}

impl Line {
    fn of(
        lowering: &mut Lowering,
        stmts: &mut Vec<Stmt>,
        side: Side,
        (batch, outer): (&Expr, Expr),
        places: &dyn Places,
    ) -> Option<Line> {
        let part = places.outer(lowering, side, batch, outer);
        stmts.extend(part.stmts);
        let depth = places.depth(lowering, side, Expr::index(0));
        stmts.extend(depth.stmts);
        match places.element(lowering, side, &part.at, &depth.at) {
            (Expr::Load { buffer, index, .. }, None) => {
                let dtype = lowering.kernel.buffer_of(buffer).dtype;
                Some(Line { buffer, first: *index, dtype })
            }
            _ => None,
        }
    }

    fn element(&self, position: Expr, accumulator: DType) -> Expr {
        Expr::load(self.buffer, self.first.clone().plus(position)).cast(self.dtype, accumulator)
    }
}

/// Writes a product of so many rows whose depth comes in whole pieces of neighbours in both operands; false where it does not.
pub fn vector_product(
    lowering: &mut Lowering,
    extents: &Extents,
    (rows, accumulator): (i64, DType),
    places: &dyn Places,
) -> Result<bool, LowerError> {
    let sides = [Side::Rows, Side::Columns];
    let lie = sides.iter().all(|side| places.pitch(lowering, *side).is_some());
    if !lie {
        return Ok(false);
    }
    let size = sides.map(|side| places.dtype(lowering, side).size() as i64);
    let lanes = CHUNK / size[0].max(size[1]);
    let tasks = extents.batch.clone().times(extents.columns.clone());
    let mut whole = true;
    let grid = lowering.warps("task", tasks, &mut |this, task, lane| {
        let mut stmts = Vec::new();
        let batch = task.clone().over(extents.columns.clone());
        let batch = assigned(this, &mut stmts, "batch", batch);
        let column = assigned(this, &mut stmts, "column", task.remainder(extents.columns.clone()));
        let right = Line::of(this, &mut stmts, Side::Columns, (&batch, column.clone()), places);
        let left: Option<Vec<Line>> = (0..rows)
            .map(|row| Line::of(this, &mut stmts, Side::Rows, (&batch, Expr::index(row)), places))
            .collect();
        let (Some(right), Some(left)) = (right, left) else {
            whole = false;
            return stmts;
        };
        let count = Expr::index(rows * lanes);
        let sums = this.kernel.buffer("sums", accumulator, Space::Register, count, Access::ReadWrite);
        let zero = Expr::constant(accumulator, 0.0);
        let zero = if lanes == 1 { zero } else { Expr::Splat(Box::new(zero), lanes as u16) };
        stmts.extend((0..rows).map(|row| Stmt::Store {
            buffer: sums,
            index: Expr::index(row * lanes),
            value: zero.clone(),
            valid: None,
        }));
        let pieces = extents.depth.clone().over(Expr::index(lanes));
        let own = pieces.plus(Expr::index(WARP - 1)).minus(lane.clone()).over(Expr::index(WARP));
        stmts.push(this.for_loop("turn", own, LoopKind::Serial, |this, turn| {
            let mut stmts = Vec::new();
            let piece = assigned(this, &mut stmts, "piece", turn.times(Expr::index(WARP)).plus(lane.clone()));
            stmts.push(this.for_loop("element", Expr::index(lanes), LoopKind::Vector, |this, element| {
                let position = piece.times(Expr::index(lanes)).plus(element.clone());
                let (factor, stmt) = this.assign("factor", right.element(position.clone(), accumulator));
                let mut stmts = vec![stmt];
                for (row, line) in (0..rows).zip(&left) {
                    let index = Expr::index(row * lanes).plus(element.clone());
                    let value = line.element(position.clone(), accumulator);
                    let value =
                        multiply_add(accumulator, value, factor.into(), Expr::load(sums, index.clone()));
                    stmts.push(Stmt::Store { buffer: sums, index, value, valid: None });
                }
                stmts
            }));
            stmts
        }));
        let mut then = Vec::new();
        for row in 0..rows {
            let index = Box::new(Expr::index(row * lanes));
            let all = Expr::Load { buffer: sums, index, lanes: lanes as u16, valid: None };
            let all = if lanes == 1 { all } else { Expr::ReduceLanes(ReduceKind::Sum, Box::new(all)) };
            let (total, stmt) = this.assign("total", all);
            stmts.push(stmt);
            stmts.extend(this.combine_lanes(ReduceKind::Sum, accumulator, total));
            then.extend(places.finish(this, &batch, &Expr::index(row), &column, total.into()));
        }
        let condition = lane.less(Expr::index(1));
        stmts.push(Stmt::If { condition, then, otherwise: Vec::new() });
        stmts
    });
    if whole {
        lowering.launch(vec![grid], false);
    }
    Ok(whole)
}
