//! Tiled matrix products on tensor cores.
//!
//! ```text
//! grid g in tiles { thread t in 32 * warps {
//!   copy tiles 0 and 1
//!   for step { wait for tile step; barrier; start the copy of tile step + 2; sums += tile step }
//!   y[row, column] = epilogue(sums)
//! } }
//! ```
//!
//! Three tiles of each operand lie in shared memory: one is multiplied while copies fill the others, past the registers. A row of
//! a tile has 64 bytes along the depth, in four chunks of 16. Chunk `c` of row `r` lies at place `c ^ (r / 2 % 4)`, so that neither the
//! copies nor the loads of eight rows meet a bank twice. Chunks outside an operand are zeros.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

use super::Gpu;
use super::product::{Extents, Places, Side, assigned};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Ty, Var};
use crate::lower::{LowerError, Lowering};
use crate::steps::predicate_accesses;
use crate::warp::{Fragment, WarpOp};

/// Bytes of a copy.
pub const CHUNK: i64 = 16;

/// Chunks of a row of a tile.
const CHUNKS: i64 = 4;

/// Bytes of a row of a tile.
const ROW: i64 = CHUNK * CHUNKS;

/// Tiles of an operand in shared memory.
const STAGES: i64 = 3;

/// Lanes of a warp.
const WARP: i64 = 32;

/// The matrix instruction for operands of these types; none where their products need another kind of sum.
pub fn fragment(lhs: DType, rhs: DType, accumulator: DType) -> Option<Fragment> {
    let byte = |dtype: DType| matches!(dtype, DType::I8 | DType::U8);
    match (lhs, rhs, accumulator) {
        (DType::F16, DType::F16, DType::F32) => Some(Fragment::F16),
        (DType::BF16, DType::BF16, DType::F32) => Some(Fragment::BF16),
        (lhs, rhs, DType::I32) if byte(lhs) && byte(rhs) => {
            Some(Fragment::Bytes(lhs == DType::I8, rhs == DType::I8))
        }
        _ => None,
    }
}

/// How a block covers its tile: warps, and results of 16 x 8 of a warp, along rows and columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tile {
    warps: [i64; 2],
    results: [i64; 2],
}

const fn tile(down: i64, across: i64, rows: i64, columns: i64) -> Tile {
    Tile { warps: [down, across], results: [rows, columns] }
}

/// Tiles from large to small; the first that wastes least is taken. Results along the columns come in pairs, and the chunks of
/// both sides are multiples of the threads.
const TILES: [Tile; 5] =
    [tile(2, 4, 4, 4), tile(2, 2, 2, 4), tile(1, 4, 2, 4), tile(4, 1, 2, 4), tile(1, 2, 1, 2)];

/// Multiprocessors of the GPUs in view: fewer blocks than that leave some idle.
const MULTIPROCESSORS: i64 = 100;

impl Tile {
    fn size(&self, side: Side) -> i64 {
        let each = if side == Side::Rows { 16 } else { 8 };
        self.warps[side as usize] * self.results[side as usize] * each
    }

    fn block(&self) -> i64 {
        self.warps[0] * self.warps[1] * WARP
    }

    fn bytes(&self) -> i64 {
        STAGES * ROW * (self.size(Side::Rows) + self.size(Side::Columns))
    }

    /// The tile with the least modelled time: multiplications, loads of fragments and a share for the copies, in waves over
    /// the multiprocessors. Unknown extents count as large.
    fn choose(rows: Option<i64>, columns: Option<i64>, gpu: &Gpu) -> Option<Tile> {
        let time = |tile: &Tile| {
            let tiles = |extent: Option<i64>, size: i64| (extent.unwrap_or(1024).max(1) + size - 1) / size;
            let blocks = tiles(rows, tile.size(Side::Rows)) * tiles(columns, tile.size(Side::Columns));
            let [down, across] = tile.results;
            let work = (2 * down * across + 2 * down + across + 4) * tile.warps[0] * tile.warps[1];
            blocks.max(MULTIPROCESSORS) * work
        };
        let fitting = TILES.iter().filter(|tile| tile.bytes() as u64 <= gpu.shared_bytes);
        fitting.copied().min_by_key(time)
    }
}

/// The tiles of an operand and the chunks that a thread copies.
struct Stage {
    side: Side,
    buffer: BufferId,
    size: i64,
    /// The thread's chunk of a row.
    chunk: Expr,
    /// Place of the thread's first chunk in a tile.
    first: Expr,
    /// Rows of the tile, as bytes from the thread's first, their coordinates and whether they are inside.
    rows: Vec<(i64, Vec<Expr>, Expr)>,
    /// Place of the lane's first row of matrices in a tile, by half of the tile's row.
    matrices: Vec<Expr>,
}

/// First byte of a chunk of a row of a tile. Eight rows on, it is `8 * ROW` bytes on.
fn place(row: Expr, chunk: Expr) -> Expr {
    let turn = row.clone().over(Expr::index(2)).remainder(Expr::index(CHUNKS));
    let turned = Expr::call(Function::BitXor, vec![chunk, turn]);
    row.times(Expr::index(ROW)).plus(turned.times(Expr::index(CHUNK)))
}

/// Writes a product as one kernel; false where no tile fits.
pub fn matrix_product(
    lowering: &mut Lowering,
    gpu: &Gpu,
    extents: &Extents,
    (fragment, accumulator): (Fragment, DType),
    places: &dyn Places,
) -> Result<bool, LowerError> {
    let Some(tile) = Tile::choose(extents.rows.as_index(), extents.columns.as_index(), gpu) else {
        return Ok(false);
    };
    let (block, thread) = (lowering.kernel.counter("block"), lowering.kernel.counter("thread"));
    let (row_size, column_size) = (Expr::index(tile.size(Side::Rows)), Expr::index(tile.size(Side::Columns)));
    let row_tiles = extents.rows.clone().over_up(row_size.clone());
    let column_tiles = extents.columns.clone().over_up(column_size.clone());
    let mut body = Vec::new();
    let rest = Expr::Var(block).over(column_tiles.clone());
    let column = Expr::Var(block).remainder(column_tiles.clone()).times(column_size);
    let first_column = assigned(lowering, &mut body, "first_column", column);
    let first_row = rest.clone().remainder(row_tiles.clone()).times(row_size);
    let first_row = assigned(lowering, &mut body, "first_row", first_row);
    let batch = if extents.batch.is_index(1) {
        Expr::index(0)
    } else {
        assigned(lowering, &mut body, "batch", rest.over(row_tiles.clone()))
    };
    let warps = Expr::index(tile.warps[1]);
    let warp = Expr::Var(thread).over(Expr::index(WARP));
    let lane = assigned(lowering, &mut body, "lane", Expr::Var(thread).remainder(Expr::index(WARP)));
    let down = assigned(lowering, &mut body, "down", warp.clone().over(warps.clone()));
    let across = assigned(lowering, &mut body, "across", warp.remainder(warps));

    let sides = [(Side::Rows, &first_row, &extents.rows), (Side::Columns, &first_column, &extents.columns)];
    let mut stages = Vec::new();
    for (side, first, extent) in sides {
        let warp = [&down, &across][side as usize];
        let lanes = (thread, &lane, warp);
        stages.push(stage(lowering, &mut body, (side, tile), lanes, (&batch, first, extent), places));
    }
    let [result_rows, result_columns] = tile.results;
    let mut sums = Vec::new();
    for _ in 0..result_rows * result_columns {
        let sum = lowering.kernel.variable("sum", Ty::vector(accumulator, 4));
        let value = Expr::Splat(Box::new(Expr::constant(accumulator, 0.0)), 4);
        body.push(Stmt::Assign { var: sum, value });
        sums.push(sum);
    }

    for number in 0..STAGES - 1 {
        for stage in &stages {
            body.extend(copy(
                lowering,
                stage,
                Expr::index(number),
                Expr::index(number),
                &extents.depth,
                places,
            ));
        }
        body.push(Stmt::Warp(WarpOp::CopyCommit));
    }
    let elements = ROW / places.dtype(lowering, Side::Rows).size() as i64;
    let steps = extents.depth.clone().over_up(Expr::index(elements));
    let step = lowering.kernel.counter("step");
    let mut inner = vec![Stmt::Warp(WarpOp::CopyWait(STAGES as u32 - 2)), Stmt::Barrier];
    let ahead = Expr::Var(step).plus(Expr::index(STAGES - 1));
    let target = assigned(lowering, &mut inner, "target", ahead.clone().remainder(Expr::index(STAGES)));
    for stage in &stages {
        inner.extend(copy(lowering, stage, ahead.clone(), target.clone(), &extents.depth, places));
    }
    inner.push(Stmt::Warp(WarpOp::CopyCommit));
    let current = assigned(lowering, &mut inner, "current", Expr::Var(step).remainder(Expr::index(STAGES)));
    let warp = [&down, &across];
    inner.extend(multiply(lowering, &stages, tile, &current, &sums, fragment));
    body.push(Stmt::For { var: step, extent: steps, kind: LoopKind::Serial, body: inner });
    let first = [&batch, &first_row, &first_column];
    body.extend(results(lowering, extents, tile, first, &lane, warp, &sums, accumulator, places));

    let extent = Expr::index(tile.block());
    let threads = Stmt::For { var: thread, extent, kind: LoopKind::Thread(0), body };
    let blocks = extents.batch.clone().times(row_tiles).times(column_tiles);
    let grid = Stmt::For { var: block, extent: blocks, kind: LoopKind::Grid(0), body: vec![threads] };
    lowering.launch(vec![grid], false);
    Ok(true)
}

fn stage(
    lowering: &mut Lowering,
    body: &mut Vec<Stmt>,
    (side, tile): (Side, Tile),
    (thread, lane, warp): (Var, &Expr, &Expr),
    (batch, first, extent): (&Expr, &Expr, &Expr),
    places: &dyn Places,
) -> Stage {
    let (size, threads) = (tile.size(side), tile.block());
    let name = if side == Side::Rows { "row_tiles" } else { "column_tiles" };
    let count = Expr::index(STAGES * size * ROW);
    let buffer = lowering.kernel.buffer(name, DType::U8, Space::Shared, count, Access::ReadWrite);
    let chunk = Expr::Var(thread).remainder(Expr::index(CHUNKS));
    let chunk = assigned(lowering, body, "chunk", chunk);
    let own = assigned(lowering, body, "own", Expr::Var(thread).over(Expr::index(CHUNKS)));
    let step = threads / CHUNKS;
    let mut rows = Vec::new();
    for number in 0..size / step {
        let row = own.clone().plus(Expr::index(number * step));
        let position = assigned(lowering, body, "position", first.clone().plus(row.clone()));
        let inside = position.clone().less(extent.clone());
        let inside = assigned(lowering, body, "inside", inside);
        let part = places.outer(lowering, side, batch, position);
        body.extend(part.stmts);
        rows.push((number * step * ROW, part.at, inside));
    }
    let first = assigned(lowering, body, "first", place(own, chunk.clone()));
    // Matrices of the left operand: rows, rows + 8, then the same a chunk on. Of the right one: a chunk and the next, then those
    // of columns + 8.
    let (row, half) = if side == Side::Rows {
        (lane.clone().remainder(Expr::index(16)), lane.clone().over(Expr::index(16)))
    } else {
        let upper = lane.clone().over(Expr::index(16)).times(Expr::index(8));
        let half = lane.clone().over(Expr::index(8)).remainder(Expr::index(2));
        (upper.plus(lane.clone().remainder(Expr::index(8))), half)
    };
    let row = warp.clone().times(Expr::index(size / tile.warps[side as usize])).plus(row);
    let matrices = (0..CHUNKS / 2)
        .map(|number| {
            let chunk = half.clone().plus(Expr::index(2 * number));
            assigned(lowering, body, "matrices", place(row.clone(), chunk))
        })
        .collect();
    Stage { side, buffer, size, chunk, first, rows, matrices }
}

/// Starts the copies of a thread's chunks of the tile at a step.
fn copy(
    lowering: &mut Lowering,
    stage: &Stage,
    step: Expr,
    target: Expr,
    extent: &Expr,
    places: &dyn Places,
) -> Vec<Stmt> {
    let elements = CHUNK / places.dtype(lowering, stage.side).size() as i64;
    let mut stmts = Vec::new();
    let first = step.times(Expr::index(CHUNKS)).plus(stage.chunk.clone()).times(Expr::index(elements));
    let depth = assigned(lowering, &mut stmts, "depth", first);
    let within = depth.clone().less(extent.clone());
    let part = places.depth(lowering, stage.side, depth);
    stmts.extend(part.stmts);
    let tile = target.times(Expr::index(stage.size * ROW)).plus(stage.first.clone());
    let tile = assigned(lowering, &mut stmts, "tile", tile);
    for (offset, at, inside) in &stage.rows {
        let (value, condition) = places.element(lowering, stage.side, at, &part.at);
        // Places of products are loads; what is none has no address to copy from.
        let Expr::Load { buffer: from, index, .. } = value else { continue };
        let mut valid = inside.clone().both(within.clone());
        if let Some(condition) = condition {
            valid = valid.both(condition);
        }
        let to_index = tile.clone().plus(Expr::index(*offset));
        let copy = WarpOp::CopyAsync { to: stage.buffer, to_index, from, from_index: *index, valid };
        stmts.push(Stmt::Warp(copy));
    }
    stmts
}

/// Adds the products of a tile to the sums.
fn multiply(
    lowering: &mut Lowering,
    stages: &[Stage],
    tile: Tile,
    current: &Expr,
    sums: &[Var],
    fragment: Fragment,
) -> Vec<Stmt> {
    let mut stmts = Vec::new();
    let words = Ty::vector(DType::U32, 4);
    let [result_rows, result_columns] = tile.results;
    for half in 0..CHUNKS / 2 {
        let mut loaded: [Vec<Var>; 2] = [Vec::new(), Vec::new()];
        for (side, stage) in stages.iter().enumerate() {
            let base = current.clone().times(Expr::index(stage.size * ROW));
            let base = base.plus(stage.matrices[half as usize].clone());
            let base = assigned(lowering, &mut stmts, "base", base);
            for part in 0..stage.size / tile.warps[side] / 16 {
                let index = base.clone().plus(Expr::index(part * 16 * ROW));
                let into = lowering.kernel.variable("fragment", words);
                stmts.push(Stmt::Warp(WarpOp::LoadMatrices { into, buffer: stage.buffer, index }));
                loaded[side].push(into);
            }
        }
        for row in 0..result_rows {
            for column in 0..result_columns {
                let pair = Expr::Var(loaded[1][(column / 2) as usize]);
                let first = (column % 2 * 2) as u16;
                let b = Expr::Shuffle(Box::new(pair.clone()), Box::new(pair), vec![first, first + 1]);
                let a = Expr::Var(loaded[0][row as usize]);
                let sum = sums[(row * result_columns + column) as usize];
                stmts.push(Stmt::Warp(WarpOp::Multiply { sum, fragment, a, b }));
            }
        }
    }
    stmts
}

/// Writes what of a lane's results is inside: of each 16 x 8 two neighbours in two rows.
#[allow(clippy::too_many_arguments, reason = "where the tile is, and what of it is the lane's")]
fn results(
    lowering: &mut Lowering,
    extents: &Extents,
    tile: Tile,
    [batch, first_row, first_column]: [&Expr; 3],
    lane: &Expr,
    [down, across]: [&Expr; 2],
    sums: &[Var],
    accumulator: DType,
    places: &dyn Places,
) -> Vec<Stmt> {
    let [result_rows, result_columns] = tile.results;
    let count = Expr::index(result_rows * result_columns * 4);
    let pairs = lowering.kernel.buffer("pairs", accumulator, Space::Register, count, Access::ReadWrite);
    let full = extents.columns.as_index().is_some_and(|columns| columns % 2 == 0);
    let mut stmts = Vec::new();
    let group = lane.clone().over(Expr::index(4));
    let pair = lane.clone().remainder(Expr::index(4)).times(Expr::index(2));
    for part in 0..2 * result_rows {
        let (row, upper) = (part / 2, part % 2);
        let offset =
            down.clone().times(Expr::index(result_rows * 16)).plus(Expr::index(row * 16 + upper * 8));
        let at = first_row.clone().plus(offset).plus(group.clone());
        let at = assigned(lowering, &mut stmts, "row", at);
        let mut then = Vec::new();
        for column in 0..result_columns {
            let sum = Expr::Var(sums[(row * result_columns + column) as usize]);
            let picks = vec![2 * upper as u16, 2 * upper as u16 + 1];
            let value = Expr::Shuffle(Box::new(sum.clone()), Box::new(sum), picks);
            let slot = Expr::index((part * result_columns + column) * 2);
            then.push(Stmt::Store { buffer: pairs, index: slot.clone(), value, valid: None });
            let offset = across.clone().times(Expr::index(result_columns * 8)).plus(Expr::index(column * 8));
            let first = first_column.clone().plus(offset).plus(pair.clone());
            let first = assigned(lowering, &mut then, "column", first);
            let counter = lowering.kernel.counter("neighbour");
            let sum = Expr::load(pairs, slot.plus(Expr::Var(counter)));
            let mut body = places.finish(lowering, batch, &at, &first.clone().plus(Expr::Var(counter)), sum);
            if !full {
                let rest = extents.columns.clone().minus(first.clone());
                predicate_accesses(&lowering.kernel, &mut body, counter, &rest);
            }
            let extent = Expr::index(2);
            let lanes = Stmt::For { var: counter, extent, kind: LoopKind::Vector, body };
            let condition = first.less(extents.columns.clone());
            then.push(Stmt::If { condition, then: vec![lanes], otherwise: Vec::new() });
        }
        let condition = at.less(extents.rows.clone());
        stmts.push(Stmt::If { condition, then, otherwise: Vec::new() });
    }
    stmts
}
