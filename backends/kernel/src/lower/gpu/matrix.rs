//! Tiled matrix products on tensor cores.
//!
//! ```text
//! grid g in tiles { thread t in 32 * warps {
//!   copy tiles 0 .. stages - 1; wait for tile 0; barrier; load its first fragments
//!   for round {
//!     for stage unrolled, for step unrolled {
//!       load the fragments of the next step, those of the next tile after a wait and a barrier
//!       at the first step, start the copies of the tile stages - 1 on
//!       sums += products of this step
//!     }
//!   }
//!   the last tiles, without fragments ahead
//!   y[row, column] = epilogue(sums), through shared memory
//! } }
//! ```
//!
//! Some stages of tiles of both operands lie in shared memory: one is multiplied while copies fill the others, past the
//! registers. Stages of a round are written out, so that places in shared memory are registers that never change plus constants. A
//! row of a tile has 64 or 128 bytes along the depth; where the rows of an operand lie a constant apart, a thread's copies share one
//! pointer. Chunks beyond the depth, or where an image ends, are zeros; rows beyond the last are that one again.

mod operand;
mod results;
mod split;
mod tile;

use tcc_ir::dtype::DType;

use super::Gpu;
use super::origin::Origin;
use super::product::{Extents, Places, Side, assigned};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Ty, Var};
use crate::lower::{LowerError, Lowering};
use crate::warp::{Fragment, WarpOp};
use operand::{Operand, chunk_elements, truth};
pub use operand::{place, warp_and_lane};
use results::results;
use split::Split;
use tile::{Choice, Tile};

/// Bytes of a copy.
pub const CHUNK: i64 = 16;

/// Words of a copy.
const CHUNK_WORDS: i64 = CHUNK / 4;

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

/// Shared memory of a block: stages of a tile of each operand.
struct Pipeline {
    buffer: BufferId,
    /// Words of a stage.
    stage: i64,
    /// Elements of a tile along the depth.
    depth: i64,
    /// The place along the depth of the thread's chunk of the next tile to copy.
    position: Var,
}

/// Writes a product as one kernel, or as two where the depth is split; false where no tile fits.
pub fn matrix_product(
    lowering: &mut Lowering,
    gpu: &Gpu,
    extents: &Extents,
    (fragment, accumulator): (Fragment, DType),
    places: &dyn Places,
) -> Result<bool, LowerError> {
    let lanes = chunk_elements(lowering, places);
    let Some(Choice { tile, splits }) = Choice::of(extents, lanes, gpu) else { return Ok(false) };
    let depth = tile.chunks * lanes;
    let (block, thread) = (lowering.kernel.counter("block"), lowering.kernel.counter("thread"));
    let mut body = Vec::new();
    let mut steps = extents.depth.clone().over_up(Expr::index(depth));
    let split = Split::new(lowering, extents, accumulator, splits);
    let whole = Extents {
        batch: extents.batch.clone().times(Expr::index(splits)),
        rows: extents.rows.clone(),
        columns: extents.columns.clone(),
        depth: extents.depth.clone(),
    };
    let mut origin = Origin::of(lowering, &mut body, block, tile.sizes(), &whole);
    let mut start = Expr::index(0);
    let piece = match &split {
        Some(_) => {
            let piece = origin.batch.clone().remainder(Expr::index(splits));
            let piece = assigned(lowering, &mut body, "piece", piece);
            origin.batch = assigned(lowering, &mut body, "batch", origin.batch.over(Expr::index(splits)));
            // Pieces are equally long, but for the last ones.
            let share = steps.clone().over_up(Expr::index(splits));
            let first = assigned(lowering, &mut body, "first_step", piece.clone().times(share.clone()));
            let own = share.at_most(steps.minus(first.clone())).at_least(Expr::index(0));
            steps = assigned(lowering, &mut body, "steps", own);
            start = first.times(Expr::index(depth));
            piece
        }
        None => Expr::index(0),
    };
    let [warp, lane] = warp_and_lane(lowering, &mut body, thread);
    let across = Expr::index(tile.warps[1]);
    let down = assigned(lowering, &mut body, "down", warp.clone().over(across.clone()));
    let across = assigned(lowering, &mut body, "across", warp.clone().remainder(across));
    let words = tile.words();
    let buffer =
        lowering.kernel.buffer("tiles", DType::U32, Space::Shared, Expr::index(words), Access::ReadWrite);
    let chunk = Expr::Var(thread).remainder(Expr::index(tile.chunks)).times(Expr::index(lanes));
    let (position, stmt) = lowering.assign("position", start.plus(chunk));
    body.push(stmt);
    let pipeline = Pipeline { buffer, stage: tile.stage_words(), depth, position };
    let mut operands = Vec::new();
    for side in [Side::Rows, Side::Columns] {
        let warp = [&down, &across][side as usize];
        let context = (&origin, extents, &Expr::Var(position));
        operands.push(Operand::new(
            lowering,
            &mut body,
            (side, tile),
            (thread, &lane, warp),
            context,
            places,
        ));
    }
    let zero = Expr::Splat(Box::new(Expr::constant(accumulator, 0.0)), 4);
    let mut sums = Vec::new();
    for _ in 0..tile.results[0] * tile.results[1] {
        let sum = lowering.kernel.variable("sum", Ty::vector(accumulator, 4));
        body.push(Stmt::Assign { var: sum, value: zero.clone() });
        sums.push(sum);
    }
    let mut main = Main { tile, pipeline, operands, sums, fragment, extents, places };
    main.run(lowering, &mut body, steps);
    let place = results::Place { warp: &warp, lane: &lane, down: &down, across: &across };
    let (tiles, sums) = (main.pipeline.buffer, std::mem::take(&mut main.sums));
    let mut finish = |lowering: &mut Lowering, row: &Expr, column: &Expr, sum: Expr| match &split {
        Some(split) => split.keep(lowering, extents, (&piece, &origin.batch), [row, column], sum),
        None => places.finish(lowering, &origin.batch, row, column, sum),
    };
    body.extend(results(lowering, extents, tile, &origin, place, (tiles, &sums, accumulator), &mut finish));

    let extent = Expr::index(tile.block());
    let threads = Stmt::For { var: thread, extent, kind: LoopKind::Thread(0), body };
    let grid = Stmt::For { var: block, extent: origin.blocks, kind: LoopKind::Grid(0), body: vec![threads] };
    lowering.launch(vec![grid], false);
    if let Some(split) = &split {
        split.join(lowering, extents, accumulator, places);
    }
    Ok(true)
}

/// The loop over the depth.
struct Main<'m> {
    tile: Tile,
    pipeline: Pipeline,
    operands: Vec<Operand>,
    sums: Vec<Var>,
    fragment: Fragment,
    extents: &'m Extents,
    places: &'m dyn Places,
}

impl Main<'_> {
    fn run(&mut self, lowering: &mut Lowering, body: &mut Vec<Stmt>, steps: Expr) {
        let stages = self.tile.stages;
        for stage in 0..stages - 1 {
            self.copy_tile(lowering, body, &Expr::index(stage * self.pipeline.stage));
        }
        // Rounds in which every copy is of a tile that is there.
        let ahead = Expr::index(stages - 1);
        let rounds = steps.clone().minus(ahead).at_least(Expr::index(0)).over(Expr::index(stages));
        let rounds = assigned(lowering, body, "rounds", rounds);
        if !rounds.is_index(0) {
            if self.ahead() {
                self.arrive(body);
                body.extend(self.load(&Expr::index(0), 0, 0));
            }
            let mut inner = Vec::new();
            for stage in 0..stages {
                self.round(lowering, &mut inner, stage);
            }
            let round = lowering.kernel.counter("round");
            body.push(Stmt::For { var: round, extent: rounds.clone(), kind: LoopKind::Serial, body: inner });
        }
        self.rest(lowering, body, steps.minus(rounds.times(Expr::index(stages))));
        // What is written next is where copies of zeros may be under way.
        body.push(Stmt::Warp(WarpOp::CopyWait(0)));
    }

    /// True where fragments are loaded a step ahead: not where rows beyond the last take the registers for that.
    fn ahead(&self) -> bool {
        let whole = |side: Side, extent: &Expr| {
            extent.as_index().is_some_and(|extent| extent % self.tile.size(side) == 0)
        };
        whole(Side::Rows, &self.extents.rows) && whole(Side::Columns, &self.extents.columns)
            || self.tile.results[0] * self.tile.results[1] < 32
    }

    /// Waits for the next tile, and for those who read the one before it.
    fn arrive(&self, body: &mut Vec<Stmt>) {
        body.extend([Stmt::Warp(WarpOp::CopyWait(self.tile.stages as u32 - 2)), Stmt::Barrier]);
    }

    /// One tile of a round: fragments a step ahead, copies `stages - 1` tiles ahead.
    fn round(&self, lowering: &mut Lowering, body: &mut Vec<Stmt>, stage: i64) {
        let (stages, steps) = (self.tile.stages, self.tile.steps());
        let start = |stage: i64| Expr::index(stage % stages * self.pipeline.stage);
        let exact = self.extents.depth.as_index().is_some_and(|depth| depth % self.pipeline.depth == 0);
        let within = self.within(lowering, body, exact);
        if !self.ahead() {
            self.arrive(body);
            self.copy(lowering, body, &start(stage + stages - 1), &within);
            self.committed(body);
            for step in 0..steps {
                body.extend(self.load(&start(stage), step, step % 2));
                body.extend(self.multiply(step % 2));
            }
            return;
        }
        for step in 0..steps {
            let last = step + 1 == steps;
            if last {
                self.arrive(body);
            }
            let from = if last { stage + 1 } else { stage };
            body.extend(self.load(&start(from), (step + 1) % steps, (step + 1) % 2));
            // What the tile replaces was read before the last barrier.
            if step == 0 {
                self.copy(lowering, body, &start(stage + stages - 1), &within);
                self.committed(body);
            }
            body.extend(self.multiply(step % 2));
        }
    }

    /// The last tiles, whose copies may be of nothing.
    fn rest(&self, lowering: &mut Lowering, body: &mut Vec<Stmt>, count: Expr) {
        let stages = self.tile.stages;
        let (read, stmt) = lowering.assign("read", Expr::index(0));
        body.push(stmt);
        let (write, stmt) = lowering.assign("write", Expr::index((stages - 1) * self.pipeline.stage));
        body.push(stmt);
        let mut inner = Vec::new();
        self.arrive(&mut inner);
        self.copy_tile(lowering, &mut inner, &write.into());
        for step in 0..self.tile.steps() {
            inner.extend(self.load(&read.into(), step, step % 2));
            inner.extend(self.multiply(step % 2));
        }
        inner.push(Stmt::Assign { var: write, value: read.into() });
        let next = Expr::Var(read).plus(Expr::index(self.pipeline.stage));
        let over = next.clone().less(Expr::index(stages * self.pipeline.stage));
        inner.push(Stmt::Assign { var: read, value: over.choose(next, Expr::index(0)) });
        let step = lowering.kernel.counter("step");
        body.push(Stmt::For { var: step, extent: count, kind: LoopKind::Serial, body: inner });
    }

    /// Whether the thread's place along the depth is inside.
    fn within(&self, lowering: &mut Lowering, body: &mut Vec<Stmt>, certain: bool) -> Expr {
        let position = Expr::Var(self.pipeline.position);
        let inside = position.less(self.extents.depth.clone());
        if certain {
            return truth();
        }
        assigned(lowering, body, "within", inside)
    }

    /// Starts the copies of the next tile to a stage.
    fn copy_tile(&self, lowering: &mut Lowering, body: &mut Vec<Stmt>, stage: &Expr) {
        let within = self.within(lowering, body, false);
        self.copy(lowering, body, stage, &within);
        self.committed(body);
    }

    /// Starts them, given whether the thread's place along the depth is inside.
    fn copy(&self, lowering: &mut Lowering, body: &mut Vec<Stmt>, stage: &Expr, within: &Expr) {
        let position = Expr::Var(self.pipeline.position);
        for operand in &self.operands {
            let to = (&self.pipeline, stage);
            body.extend(operand.copy(lowering, to, (&position, within), self.places));
        }
    }

    /// Ends the copies of a tile, and goes on to the next.
    fn committed(&self, body: &mut Vec<Stmt>) {
        body.push(Stmt::Warp(WarpOp::CopyCommit));
        body.extend(self.operands.iter().filter_map(|operand| operand.advance(self.pipeline.depth)));
        let position = self.pipeline.position;
        let value = Expr::Var(position).plus(Expr::index(self.pipeline.depth));
        body.push(Stmt::Assign { var: position, value });
    }

    fn load(&self, stage: &Expr, step: i64, parity: i64) -> Vec<Stmt> {
        let loads =
            self.operands.iter().flat_map(|operand| operand.load(&self.pipeline, stage, step, parity));
        loads.collect()
    }

    fn multiply(&self, parity: i64) -> Vec<Stmt> {
        let [rows, columns] = self.tile.results;
        let mut stmts = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                let a = self.operands[0].fragment(row, parity);
                let b = self.operands[1].fragment(column, parity);
                let sum = self.sums[(row * columns + column) as usize];
                stmts.push(Stmt::Warp(WarpOp::Multiply { sum, fragment: self.fragment, a, b }));
            }
        }
        stmts
    }
}
