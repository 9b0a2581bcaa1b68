//! From sums in fragments to the result: 16 rows of a warp at a time lie in shared memory, from where its lanes take neighbours, so
//! that a row is written in whole sectors. A lane takes four elements where all rows begin at multiples of four.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarOp;

use super::super::origin::Origin;
use super::super::product::{Extents, assigned};
use super::WARP;
use super::tile::Tile;
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Var};
use crate::lower::Lowering;

/// Where a thread is in its block.
pub struct Place<'p> {
    pub warp: &'p Expr,
    pub lane: &'p Expr,
    pub down: &'p Expr,
    pub across: &'p Expr,
}

/// Writes what of the tile's sums is inside; `finish` has what becomes of a sum.
pub fn results<'l>(
    lowering: &mut Lowering<'l>,
    extents: &Extents,
    tile: Tile,
    origin: &Origin,
    place: Place,
    (tiles, sums, accumulator): (BufferId, &[Var], DType),
    finish: &mut dyn FnMut(&mut Lowering<'l>, &Expr, &Expr, Expr) -> Vec<Stmt>,
) -> Vec<Stmt> {
    let [result_rows, result_columns] = tile.results;
    let columns = result_columns * 8;
    let full = extents.columns.as_index().is_some_and(|columns| columns % 4 == 0);
    let group = if full { 4 } else { 1 };
    // Lanes that share a row, rows at a time, and turns along a row.
    let across = (columns / group).min(WARP);
    let (together, along) = (WARP / across, columns / group / across);
    let pitch = Expr::index(tile.pitch());
    let mut stmts = Vec::new();
    let region = place.warp.clone().times(Expr::index(16 * tile.pitch()));
    let upper = assigned(lowering, &mut stmts, "upper", place.lane.clone().over(Expr::index(4)));
    let pair = assigned(lowering, &mut stmts, "pair", place.lane.clone().remainder(Expr::index(4)));
    // Multiples of two and of four by their form.
    let put = region.clone().plus(upper.times(pitch.clone())).plus(pair.times(Expr::index(2)));
    let line = assigned(lowering, &mut stmts, "line", place.lane.clone().over(Expr::index(across)));
    let own = assigned(lowering, &mut stmts, "own", place.lane.clone().remainder(Expr::index(across)));
    let own = own.times(Expr::index(group));
    let take = region.plus(line.clone().times(pitch)).plus(own.clone());
    let first_column =
        origin.first[1].clone().plus(place.across.clone().times(Expr::index(columns))).plus(own);
    let count = Expr::index(group);
    let values = lowering.kernel.buffer("values", accumulator, Space::Register, count, Access::ReadWrite);
    for part in 0..result_rows {
        stmts.push(Stmt::Barrier);
        for (column, upper) in (0..result_columns).flat_map(|column| [(column, 0), (column, 1)]) {
            let sum = Expr::Var(sums[(part * result_columns + column) as usize]);
            let picks = vec![2 * upper as u16, 2 * upper as u16 + 1];
            let value = Expr::Shuffle(Box::new(sum.clone()), Box::new(sum), picks);
            let value = Expr::Call(ScalarOp::Bitcast(DType::U32), vec![value]);
            let index = put.clone().plus(Expr::index(upper * 8 * tile.pitch() + column * 8));
            stmts.push(Stmt::Store { buffer: tiles, index, value, valid: None });
        }
        stmts.push(Stmt::Barrier);
        let down = place.down.clone().times(Expr::index(result_rows * 16));
        let first = origin.first[0].clone().plus(down).plus(line.clone()).plus(Expr::index(part * 16));
        stmts.push(lowering.for_loop("turn", Expr::index(16 / together), LoopKind::Serial, |this, turn| {
            let mut stmts = Vec::new();
            let take = take.clone().plus(turn.clone().times(Expr::index(together * tile.pitch())));
            let row = assigned(this, &mut stmts, "row", first.plus(turn.times(Expr::index(together))));
            for step in 0..along {
                let step = Expr::index(step * across * group);
                let index = Box::new(take.clone().plus(step.clone()));
                let words = Expr::Load { buffer: tiles, index, lanes: group as u16, valid: None };
                let value = Expr::Call(ScalarOp::Bitcast(accumulator), vec![words]);
                let first = first_column.clone().plus(step);
                let counter = this.kernel.counter("neighbour");
                let sum = Expr::load(values, Expr::Var(counter));
                let body = finish(this, &row, &first.clone().plus(Expr::Var(counter)), sum);
                let then = vec![
                    Stmt::Store { buffer: values, index: Expr::index(0), value, valid: None },
                    Stmt::For { var: counter, extent: Expr::index(group), kind: LoopKind::Vector, body },
                ];
                let inside = row.clone().less(extents.rows.clone()).both(first.less(extents.columns.clone()));
                stmts.push(Stmt::If { condition: inside, then, otherwise: Vec::new() });
            }
            stmts
        }));
    }
    stmts
}
