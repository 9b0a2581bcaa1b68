//! One operand of a matrix product: its copies to shared memory, and the loads of fragments from there.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar};

use super::super::origin::Origin;
use super::super::product::{Extents, Places, Side, assigned};
use super::{CHUNK, CHUNK_WORDS, Pipeline, Tile, WARP};
use crate::ir::{BufferId, Expr, Stmt, Ty, Var};
use crate::lower::Lowering;
use crate::warp::WarpOp;

/// Where the rows that a thread copies come from.
enum Source {
    /// Places that are affine: the first row's next element, and the distance of each row from there.
    Affine { buffer: BufferId, next: Var, distances: Vec<Expr> },
    /// Coordinates of each row.
    Rows(Vec<Vec<Expr>>),
}

/// An operand as a thread sees it. Places are words of four bytes.
pub struct Operand {
    side: Side,
    /// First word in a stage.
    start: i64,
    /// Words of a row.
    row: i64,
    /// Rows from one copy of the thread to the next.
    stride: i64,
    /// Place of the thread's first chunk, from the start.
    first: Expr,
    source: Source,
    /// Chunks that a thread copies of a tile.
    copies: i64,
    /// Place of the lane's first row of matrices, by step of the instruction.
    matrices: Vec<Expr>,
    /// Fragments of the present and the next step, 16 rows or columns each.
    fragments: [Vec<Var>; 2],
}

/// The condition that always holds.
pub fn truth() -> Expr {
    Expr::Const(Scalar::integer(DType::Bool, 1))
}

/// First word of a chunk of a row of `chunks`. Chunks change places by row, so that neither the copies nor the loads of eight rows
/// meet a bank twice; eight rows on, all is as before.
pub fn place(row: Expr, chunk: Expr, chunks: i64) -> Expr {
    // Rows that fill the 32 banks together keep one order; orders differ in the bits that stay among the chunks.
    let rows = Expr::index((8 / chunks).max(1));
    let orders = Expr::index(1 << chunks.trailing_zeros().min(3));
    let turn = row.clone().over(rows).remainder(orders);
    let turned = Expr::call(Function::BitXor, vec![chunk, turn]);
    row.times(Expr::index(chunks * CHUNK_WORDS)).plus(turned.times(Expr::index(CHUNK_WORDS)))
}

impl Operand {
    /// The operand of a side; statements that compute what stays the same go to `body`.
    pub fn new(
        lowering: &mut Lowering,
        body: &mut Vec<Stmt>,
        (side, tile): (Side, Tile),
        (thread, lane, warp): (Var, &Expr, &Expr),
        (origin, extents, depth): (&Origin, &Extents, &Expr),
        places: &dyn Places,
    ) -> Operand {
        let (size, chunks) = (tile.size(side), tile.chunks);
        let chunk = assigned(lowering, body, "chunk", Expr::Var(thread).remainder(Expr::index(chunks)));
        let own = assigned(lowering, body, "own", Expr::Var(thread).over(Expr::index(chunks)));
        let stride = tile.block() / chunks;
        let count = size / stride;
        let extent = [&extents.rows, &extents.columns][side as usize];
        let whole = extent.as_index().is_some_and(|extent| extent % size == 0);
        // Beyond the last row is that one again: results there are not written.
        let position = |number: i64| {
            let row = origin.first(side).clone().plus(own.clone()).plus(Expr::index(number * stride));
            if whole { row } else { row.at_most(extent.clone().minus(Expr::index(1))) }
        };
        let affine = match places.pitch(lowering, side) {
            Some(pitch) => {
                let part = places.outer(lowering, side, &origin.batch, position(0));
                body.extend(part.stmts);
                let along = places.depth(lowering, side, depth.clone());
                body.extend(along.stmts);
                match places.element(lowering, side, &part.at, &along.at) {
                    (Expr::Load { buffer, index, .. }, None) => {
                        let (next, stmt) = lowering.assign("next", *index);
                        body.push(stmt);
                        let distances = (0..count).map(|number| match whole {
                            true => pitch.clone().times(Expr::index(number * stride)),
                            false => {
                                let rows = position(number).minus(position(0));
                                assigned(lowering, body, "distance", rows.times(pitch.clone()))
                            }
                        });
                        let distances = distances.collect();
                        Some(Source::Affine { buffer, next, distances })
                    }
                    _ => None,
                }
            }
            None => None,
        };
        let source = affine.unwrap_or_else(|| {
            let mut rows = Vec::new();
            for number in 0..count {
                let position = assigned(lowering, body, "position", position(number));
                let part = places.outer(lowering, side, &origin.batch, position);
                body.extend(part.stmts);
                rows.push(part.at);
            }
            Source::Rows(rows)
        });
        let first = assigned(lowering, body, "first", place(own, chunk, chunks));
        // Matrices of the left operand: rows, rows + 8, then the same a chunk on. Of the right one: a chunk and the next, then
        // those of columns + 8.
        let (row, half) = if side == Side::Rows {
            (lane.clone().remainder(Expr::index(16)), lane.clone().over(Expr::index(16)))
        } else {
            let upper = lane.clone().over(Expr::index(16)).times(Expr::index(8));
            let half = lane.clone().over(Expr::index(8)).remainder(Expr::index(2));
            (upper.plus(lane.clone().remainder(Expr::index(8))), half)
        };
        let row = warp.clone().times(Expr::index(size / tile.warps[side as usize])).plus(row);
        let matrices = (0..tile.steps())
            .map(|step| {
                let chunk = half.clone().plus(Expr::index(2 * step));
                assigned(lowering, body, "matrices", place(row.clone(), chunk, chunks))
            })
            .collect();
        let parts = size / tile.warps[side as usize] / 16;
        let mut fragments =
            || (0..parts).map(|_| lowering.kernel.variable("fragment", Ty::vector(DType::U32, 4))).collect();
        let fragments = [fragments(), fragments()];
        let start = if side == Side::Rows { 0 } else { tile.size(Side::Rows) * chunks * CHUNK_WORDS };
        let row = chunks * CHUNK_WORDS;
        Operand { side, start, row, stride, first, source, copies: count, matrices, fragments }
    }

    /// Starts copies of the thread's chunks to the stage that begins at `stage`; `within` tells whether the thread's place
    /// along the depth is inside.
    pub fn copy(
        &self,
        lowering: &mut Lowering,
        (pipeline, stage): (&Pipeline, &Expr),
        (depth, within): (&Expr, &Expr),
        places: &dyn Places,
    ) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let at = match &self.source {
            Source::Rows(_) => {
                let part = places.depth(lowering, self.side, depth.clone());
                stmts.extend(part.stmts);
                part.at
            }
            Source::Affine { .. } => Vec::new(),
        };
        for number in 0..self.copies {
            let (from, from_index, condition) = match &self.source {
                Source::Affine { buffer, next, distances } => {
                    (*buffer, Expr::Var(*next).plus(distances[number as usize].clone()), None)
                }
                Source::Rows(rows) => {
                    match places.element(lowering, self.side, &rows[number as usize], &at) {
                        (Expr::Load { buffer, index, .. }, condition) => (buffer, *index, condition),
                        // Places of products are loads; what is none has no address to copy from.
                        _ => continue,
                    }
                }
            };
            let valid = match condition {
                Some(condition) if *within == truth() => condition,
                Some(condition) => condition.both(within.clone()),
                None => within.clone(),
            };
            let offset = Expr::index(self.start + number * self.stride * self.row);
            let to_index = stage.clone().plus(self.first.clone()).plus(offset);
            let copy = WarpOp::CopyAsync { to: pipeline.buffer, to_index, from, from_index, valid };
            stmts.push(Stmt::Warp(copy));
        }
        stmts
    }

    /// Goes on to the next tile along the depth, so many elements from the last.
    pub fn advance(&self, elements: i64) -> Option<Stmt> {
        match &self.source {
            Source::Affine { next, .. } => {
                Some(Stmt::Assign { var: *next, value: Expr::Var(*next).plus(Expr::index(elements)) })
            }
            Source::Rows(_) => None,
        }
    }

    /// Loads the fragments of a step of the instruction from a stage.
    pub fn load(&self, pipeline: &Pipeline, stage: &Expr, step: i64, parity: i64) -> Vec<Stmt> {
        let base = stage.clone().plus(self.matrices[step as usize].clone());
        let loads = self.fragments[parity as usize].iter().enumerate().map(|(part, into)| {
            let offset = Expr::index(self.start + part as i64 * 16 * self.row);
            let index = base.clone().plus(offset);
            Stmt::Warp(WarpOp::LoadMatrices {
                into: *into,
                buffer: pipeline.buffer,
                index,
                transposed: false,
            })
        });
        loads.collect()
    }

    /// The fragment of 16 rows, or of eight columns.
    pub fn fragment(&self, number: i64, parity: i64) -> Expr {
        let fragments = &self.fragments[parity as usize];
        if self.side == Side::Rows {
            return Expr::Var(fragments[number as usize]);
        }
        let pair = Expr::Var(fragments[(number / 2) as usize]);
        let first = (number % 2 * 2) as u16;
        Expr::Shuffle(Box::new(pair.clone()), Box::new(pair), vec![first, first + 1])
    }
}

/// Elements of a chunk.
pub fn chunk_elements(lowering: &Lowering, places: &dyn Places) -> i64 {
    CHUNK / places.dtype(lowering, Side::Rows).size() as i64
}

/// Number of a thread's warp and its lane.
pub fn warp_and_lane(lowering: &mut Lowering, body: &mut Vec<Stmt>, thread: Var) -> [Expr; 2] {
    let warp = Expr::Var(thread).over(Expr::index(WARP));
    let lane = Expr::Var(thread).remainder(Expr::index(WARP));
    [assigned(lowering, body, "warp", warp), assigned(lowering, body, "lane", lane)]
}
