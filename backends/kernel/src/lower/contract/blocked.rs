//! Products whose operands overflow the caches: blocks of rows, columns and of the summed axis (Goto and van de Geijn,
//! "Anatomy of high-performance matrix multiplication", 2008).
//!
//! A task is a block of rows by a group of strips, where a strip is as wide as a register tile. It goes through the summed
//! axis in slices: for each of them a strip of the packed operand stays in the first-level cache while all tiles of rows
//! meet it, and a copy of the rows' slice stays in the second-level cache while all strips of the group meet it. The copy
//! has its rows close together: rows far apart by a power of two would fight for the same places of the cache. Partial sums
//! wait in scratch memory, so that each sum adds its products in the order of the summed axis, however it is cut.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;

use super::{Plan, Tile, multiply_add};
use crate::ir::{Access, Expr, LoopKind, Space, Stmt};
use crate::lower::{Argument, LowerError, Lowering, Tuning};

/// Extents of the blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocking {
    /// Elements of the summed axis in a slice.
    pub depth: i64,
    /// Tiles of rows in a task.
    pub tiles: i64,
    /// Strips in a task.
    pub strips: i64,
}

/// Fewer tiles of rows leave a strip where it lies and only bring the rows together.
const LEAST_TILES: i64 = 4;

/// Tasks that a product has at least, where it is large enough, so that threads share them evenly.
const TASKS: i64 = 8;

/// Lines of an operand that is not packed that are read side by side.
const LINES: i64 = 16;

impl Blocking {
    /// Blocks for a product of `depth` products a result in `f32`; none where the caches hold the operands as they are.
    ///
    /// `packed` says that the vector operand comes in strips; otherwise it has lines of all columns, which are then read a few
    /// at a time for their whole length, as memory likes to be read.
    pub fn choose(
        rows: Option<i64>,
        columns: i64,
        depth: i64,
        packed: bool,
        tile: Tile,
        tuning: &Tuning,
    ) -> Option<Blocking> {
        let line = i64::from(tuning.lanes(DType::F32));
        if tuning.gpu.is_some() || line == 1 || columns < 1 || depth < 1 {
            return None;
        }
        // Where it is not known how many rows there are, there may be one.
        let rows = rows?;
        let (l1, l2) = ((tuning.l1_bytes / 4) as i64, (tuning.l2_bytes / 4) as i64);
        let down = (rows + tile.rows - 1) / tile.rows;
        let across = (columns + tile.lanes - 1) / tile.lanes;
        let shared = |blocks: i64| (across * blocks + TASKS - 1) / TASKS;
        if !packed {
            if columns.saturating_mul(depth) <= l1 {
                return None;
            }
            let room = (l1 / 2 / (down * tile.rows) / tile.lanes).max(1);
            return Some(Blocking { depth: LINES, tiles: down, strips: even(across, room.min(shared(1))) });
        }
        // A strip of a slice takes the first level; what the rows push out comes back from the second in time.
        let most = (l1 / tile.lanes).max(1);
        let rows_fit = |room: i64| rows.saturating_mul(depth) <= room;
        let few = down < LEAST_TILES;
        if depth <= 2 * most || rows_fit(if few { l1 } else { l2 / 2 }) {
            return None;
        }
        if few {
            let depth = (depth + line - 1) / line * line;
            return (down > 1).then_some(Blocking { depth, tiles: down, strips: even(across, shared(1)) });
        }
        // Slices of equal length but for the last, in whole cache lines of the rows.
        let slices = (depth + most - 1) / most;
        let slice = (depth + slices * line - 1) / (slices * line) * line;
        // Rows take a quarter of the second level and sums half of it, a task's strips come through what is left.
        let most_tiles = (l2 / 4 / slice / tile.rows).max(1);
        let tiles = even(down, most_tiles);
        let room = (l2 / 2 / (tiles * tile.rows) / tile.lanes).max(1);
        let blocks = (down + tiles - 1) / tiles;
        Some(Blocking { depth: slice, tiles, strips: even(across, room.min(shared(blocks))) })
    }
}

/// At most `most`, so that `count` is cut into parts of about the same size.
fn even(count: i64, most: i64) -> i64 {
    let parts = (count + most.max(1) - 1) / most.max(1);
    (count + parts - 1) / parts.max(1)
}

/// Lowers a contraction over one summed axis whose vector operand is packed in strips.
pub fn blocked(
    lowering: &mut Lowering,
    plan: &Plan,
    blocking: Blocking,
    summed: (u8, i64),
    out: &[u8],
    epilogue: &ScalarExpr,
) -> Result<(), LowerError> {
    let Plan { tile, .. } = *plan;
    let result = lowering.results[0].clone();
    let (Some(row_label), Some((lane_label, outer))) = (plan.row_label, out.split_last()) else {
        return Err(lowering.malformed("a blocked product has no rows or no columns"));
    };
    let batch: Vec<u8> = outer.iter().copied().filter(|label| *label != row_label).collect();
    let extent = |label: u8| {
        out.iter().position(|known| *known == label).map_or(Dim::Const(1), |axis| result.shape[axis].clone())
    };
    let (rows, columns) = (extent(row_label), extent(*lane_label));
    let block_rows = blocking.tiles * tile.rows;
    let groups = columns.ceil_div(&Dim::Const(tile.lanes * blocking.strips));
    let mut domain: Vec<Dim> = batch.iter().map(|label| extent(*label)).collect();
    // Blocks of rows vary first: they share the strips, which are the larger part where they come from memory.
    domain.extend([groups, rows.ceil_div(&Dim::Const(block_rows))]);
    let tasks = lowering.dim(&Dim::product(&domain));
    let all_strips = lowering.dim(&columns.ceil_div(&Dim::Const(tile.lanes)));
    let (rows, columns) = (lowering.dim(&rows), lowering.dim(&columns));
    let strip_sums = block_rows * tile.lanes;
    let index = Expr::index;
    let mut floats = |name: &str, space: Space, count: i64| {
        lowering.kernel.buffer(name, DType::F32, space, index(count), Access::ReadWrite)
    };
    // A cache line more than the slice, so that rows lie at different places of the cache.
    let stride = blocking.depth + i64::from(lowering.tuning.lanes(DType::F32));
    let slice_rows = floats("rows", Space::Scratch, block_rows * stride);
    let sums = floats("sums", Space::Scratch, blocking.strips * strip_sums);
    let sum = floats("sum", Space::Register, 1);
    let (row, lane) = (lowering.kernel.counter("row"), lowering.kernel.counter("lane"));
    let native = lowering.tuning.lanes(DType::F32);

    let body = lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let mut at = this.decode(task, &domain);
        let first_row = at.pop().unwrap_or(index(0)).times(index(block_rows));
        let first_strip = at.pop().unwrap_or(index(0)).times(index(blocking.strips));
        let strips = all_strips.clone().minus(first_strip.clone()).at_most(index(blocking.strips));
        let tiles =
            rows.clone().minus(first_row.clone()).over_up(index(tile.rows)).at_most(index(blocking.tiles));
        // Position of each label, with the row, lane and summed ones given.
        let coordinates = |labels: &[u8], row: &Expr, lane: &Expr, inner: &Expr| -> Vec<Expr> {
            labels
                .iter()
                .map(|label| match batch.iter().position(|known| known == label) {
                    Some(axis) => at[axis].clone(),
                    None if *label == row_label => row.clone(),
                    None if label == lane_label => lane.clone(),
                    None if *label == summed.0 => inner.clone(),
                    None => index(0),
                })
                .collect()
        };
        let sum_at = |strip: &Expr, line: &Expr, lane: &Expr| {
            let line = line.clone().times(index(tile.lanes));
            strip.clone().times(index(strip_sums)).plus(line).plus(lane.clone())
        };
        // The last tile is shifted back.
        let last_tile = rows.clone().minus(index(tile.rows));
        let source_row = |number: &Expr, row: &Expr| {
            let base = first_row.clone().plus(number.clone().times(index(tile.rows)));
            base.at_most(last_tile.clone()).plus(row.clone())
        };
        let clear = this.vector_line(
            index(0),
            strips.clone().times(index(strip_sums)),
            native,
            &mut |_, position| {
                let value = Expr::constant(DType::F32, 0.0);
                vec![Stmt::Store { buffer: sums, index: position, value, valid: None }]
            },
        );
        let count = index(summed.1).over_up(index(blocking.depth));
        let slices = this.for_loop("slice", count, LoopKind::Serial, |this, slice| {
            let start = slice.times(index(blocking.depth));
            let depth = index(summed.1).minus(start.clone()).at_most(index(blocking.depth));
            let gather = this.for_loop("tile", tiles.clone(), LoopKind::Serial, |this, number| {
                vec![this.for_loop("row", index(tile.rows), LoopKind::Serial, |this, row| {
                    let from = source_row(&number, &row);
                    let to = number.clone().times(index(tile.rows)).plus(row).times(index(stride));
                    this.vector_line(index(0), depth.clone(), native, &mut |this, k| {
                        let at =
                            coordinates(&plan.other_labels, &from, &index(0), &start.clone().plus(k.clone()));
                        let value = this.load(Argument::Operand(plan.other_operand), &at);
                        vec![Stmt::Store {
                            buffer: slice_rows,
                            index: to.clone().plus(k),
                            value,
                            valid: None,
                        }]
                    })
                })]
            });
            let multiply = this.for_loop("strip", strips.clone(), LoopKind::Serial, |this, strip| {
                vec![this.for_loop("tile", tiles.clone(), LoopKind::Serial, |this, number| {
                    let line = number.clone().times(index(tile.rows)).plus(Expr::Var(row));
                    let place = sum_at(&strip, &line, &Expr::Var(lane));
                    let column = first_strip
                        .clone()
                        .plus(strip.clone())
                        .times(index(tile.lanes))
                        .plus(Expr::Var(lane));
                    let set = |value| Stmt::Store { buffer: sum, index: index(0), value, valid: None };
                    let reduction = this.for_loop("k", depth.clone(), LoopKind::Serial, |this, k| {
                        let a = Expr::load(slice_rows, line.times(index(stride)).plus(k.clone()));
                        let at = coordinates(&plan.vector_labels, &index(0), &column, &start.clone().plus(k));
                        let at = plan.layout.as_ref().map_or(at.clone(), |layout| layout.coordinates(&at));
                        let b = this.load(plan.vector_source, &at);
                        vec![set(multiply_add(DType::F32, a, b, Expr::load(sum, index(0))))]
                    });
                    let before = set(Expr::load(sums, place.clone()));
                    let value = Expr::load(sum, index(0));
                    let after = Stmt::Store { buffer: sums, index: place, value, valid: None };
                    let kind = LoopKind::Serial;
                    let body = vec![before, reduction, after];
                    let lanes = Stmt::For { var: lane, extent: index(tile.lanes), kind, body };
                    vec![Stmt::For { var: row, extent: index(tile.rows), kind, body: vec![lanes] }]
                })]
            });
            vec![gather, multiply]
        });
        let finish = this.for_loop("strip", strips.clone(), LoopKind::Serial, |this, strip| {
            let first = first_strip.clone().plus(strip.clone()).times(index(tile.lanes));
            let width = columns.clone().minus(first.clone()).at_most(index(tile.lanes));
            let whole = columns.as_index().is_some_and(|columns| columns % tile.lanes == 0);
            let width = if whole { index(tile.lanes) } else { width };
            vec![this.for_loop("tile", tiles.clone(), LoopKind::Serial, |this, number| {
                vec![this.for_loop("row", index(tile.rows), LoopKind::Serial, |this, row| {
                    let at_row = source_row(&number, &row);
                    let line = number.times(index(tile.rows)).plus(row);
                    this.vector_line(index(0), width.clone(), native, &mut |this, lane| {
                        let column = first.clone().plus(lane.clone());
                        let position = coordinates(out, &at_row, &column, &index(0));
                        let mut inputs = vec![Expr::load(sums, sum_at(&strip, &line, &lane))];
                        for operand in 2..this.operands.len() {
                            inputs.push(this.load_broadcast(Argument::Operand(operand), &position));
                        }
                        let (mut stmts, value) = this.scalar(epilogue, &inputs);
                        stmts.push(this.store(Argument::Result(0), &position, value));
                        stmts
                    })
                })]
            })]
        });
        [clear, vec![slices, finish]].concat()
    });
    let kernel = &mut lowering.kernel;
    kernel.body = vec![body];
    kernel.vectorize(lane)?;
    kernel.unroll(row)?;
    kernel.stage(lane, sum)?;
    kernel.stage(row, sum)?;
    let body = std::mem::take(&mut lowering.kernel.body);
    lowering.launch(body, false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuning() -> Tuning {
        Tuning {
            vector_bits: 512,
            vector_registers: 32,
            l1_bytes: 48 << 10,
            l2_bytes: 1 << 20,
            dot: true,
            gpu: None,
        }
    }

    fn choose(rows: i64, columns: i64, depth: i64, packed: bool) -> Option<Blocking> {
        Blocking::choose(Some(rows), columns, depth, packed, Tile { rows: 12, lanes: 32 }, &tuning())
    }

    #[test]
    fn blocks_fit_the_caches() {
        for (rows, columns, depth) in [(4096, 4096, 4096), (2048, 1000, 1031), (197, 64, 100_000)] {
            let found = choose(rows, columns, depth, true).unwrap();
            assert!(found.depth * 32 * 4 <= 48 << 10 && found.depth % 16 == 0, "{found:?}");
            assert!(found.depth * found.tiles * 12 * 4 <= 256 << 10, "{found:?}");
            assert!(found.tiles * 12 * found.strips * 32 * 4 <= 512 << 10, "{found:?}");
        }
    }

    #[test]
    fn what_fits_the_caches_is_not_blocked() {
        assert_eq!(choose(4096, 4096, 256, true), None);
        assert_eq!(choose(49, 320, 960, true), None);
        assert_eq!(choose(12, 4096, 4096, true), None);
        assert_eq!(choose(64, 64, 64, false), None);
        let scalar = Tuning { vector_bits: 32, ..tuning() };
        assert_eq!(Blocking::choose(Some(4096), 4096, 4096, true, Tile { rows: 4, lanes: 1 }, &scalar), None);
        assert_eq!(Blocking::choose(None, 4096, 4096, true, Tile { rows: 12, lanes: 32 }, &tuning()), None);
    }

    #[test]
    fn few_rows_leave_tasks_for_every_thread() {
        for packed in [true, false] {
            let found = choose(16, 4096, 4096, packed).unwrap();
            assert!((4096 / 32 + found.strips - 1) / found.strips >= TASKS, "{found:?}");
        }
    }
}
