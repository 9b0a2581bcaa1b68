//! How the blocks of a matrix product cover the result, chosen by modelled time.

use super::super::Gpu;
use super::super::product::{Extents, Side};
use super::{CHUNK, CHUNK_WORDS, WARP};

/// The tile of a block: warps, and results of 16 x 8 of a warp, along rows and columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    pub warps: [i64; 2],
    pub results: [i64; 2],
    /// Chunks of a row along the depth.
    pub chunks: i64,
    /// Tiles in shared memory.
    pub stages: i64,
}

const fn tile(warps: [i64; 2], results: [i64; 2], chunks: i64, stages: i64) -> Tile {
    Tile { warps, results, chunks, stages }
}

/// Tiles from large to small. Results along the columns are multiples of four, steps along the depth of two, and the chunks of
/// both sides of the threads.
const TILES: [Tile; 10] = [
    tile([2, 4], [4, 8], 4, 4),
    tile([4, 2], [4, 8], 4, 4),
    tile([2, 2], [4, 8], 4, 4),
    tile([2, 2], [4, 4], 4, 4),
    tile([2, 2], [2, 8], 4, 4),
    tile([2, 2], [2, 4], 8, 3),
    tile([1, 4], [2, 4], 4, 3),
    tile([4, 1], [2, 4], 4, 3),
    tile([1, 2], [2, 4], 4, 3),
    tile([2, 1], [1, 4], 4, 3),
];

/// Words between the rows of results that a warp lays out in shared memory, beyond those of a row.
pub const PADDING: i64 = 8;

impl Tile {
    /// Rows or columns of the tile.
    pub fn size(&self, side: Side) -> i64 {
        let each = if side == Side::Rows { 16 } else { 8 };
        self.warps[side as usize] * self.results[side as usize] * each
    }

    /// Rows and columns of the tile.
    pub fn sizes(&self) -> [i64; 2] {
        [self.size(Side::Rows), self.size(Side::Columns)]
    }

    /// Threads of the block.
    pub fn block(&self) -> i64 {
        self.warps[0] * self.warps[1] * WARP
    }

    /// Steps of the instruction in a tile: each takes two chunks.
    pub fn steps(&self) -> i64 {
        self.chunks / 2
    }

    /// Words of a tile of both operands.
    pub fn stage_words(&self) -> i64 {
        self.chunks * CHUNK_WORDS * (self.size(Side::Rows) + self.size(Side::Columns))
    }

    /// Words of shared memory: the stages, and in their place the results of 16 rows of each warp.
    pub fn words(&self) -> i64 {
        let results = self.warps[0] * self.warps[1] * 16 * self.pitch();
        (self.stages * self.stage_words()).max(results)
    }

    /// Words from one row of results to the next.
    pub fn pitch(&self) -> i64 {
        self.results[1] * 8 + PADDING
    }

    /// Cycles of a multiprocessor for a chunk pair of the depth: matrix instructions on its four tensor cores, fragments and copies
    /// through shared memory at 128 bytes a cycle, and operands from the second-level cache at 64.
    fn cycles(&self, gpu: &Gpu) -> f64 {
        let warps = (self.warps[0] * self.warps[1]) as f64;
        let [down, across] = self.results.map(|count| count as f64);
        let bytes = (2 * CHUNK * (self.size(Side::Rows) + self.size(Side::Columns))) as f64;
        let tensor = warps * down * across * gpu.matrix_cycles / 4.0;
        let shared = warps * (down + across / 2.0) * 4.0 + bytes / 128.0;
        tensor.max(shared).max(bytes / 64.0) + shared / 8.0
    }
}

/// A tile, and the pieces into which the depth is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    pub tile: Tile,
    pub splits: i64,
}

/// Blocks beyond the steps of the depth that a launch or a split costs.
const OVERHEAD_STEPS: f64 = 8.0;

impl Choice {
    /// The choice with the least modelled time; blocks run in waves over the multiprocessors. Unknown extents count as large.
    /// None where no tile fits the shared memory.
    pub fn of(extents: &Extents, lanes: i64, gpu: &Gpu) -> Option<Choice> {
        let known = |extent: &crate::ir::Expr| extent.as_index();
        let (rows, columns) = (known(&extents.rows), known(&extents.columns));
        let batch = known(&extents.batch).unwrap_or(1).max(1);
        let depth = known(&extents.depth);
        let tiles = |extent: Option<i64>, size: i64| (extent.unwrap_or(1024).max(1) + size - 1) / size;
        let time = |choice: &Choice| {
            let Choice { tile, splits } = choice;
            let [height, width] = tile.sizes();
            let blocks = batch * tiles(rows, height) * tiles(columns, width) * splits;
            let resident = (gpu.multiprocessor_shared as i64 / (tile.words() * 4 + 1024)).clamp(1, 2);
            let waves =
                (blocks as f64 / (i64::from(gpu.multiprocessors) * resident) as f64).ceil() * resident as f64;
            // A part of a wave takes its share of the time where several blocks have a multiprocessor.
            let waves = waves.min((blocks as f64 / f64::from(gpu.multiprocessors)).ceil());
            let per_tile = tile.chunks * lanes;
            let steps = tiles(depth, per_tile * splits) as f64 * tile.steps() as f64;
            let joined = if *splits > 1 {
                let results = (batch * rows.unwrap_or(1024) * columns.unwrap_or(1024) * (splits + 1)) as f64;
                // Partial sums are written and read through the second-level cache.
                2000.0 + results * 8.0 / (64.0 * f64::from(gpu.multiprocessors))
            } else {
                0.0
            };
            waves * (steps + OVERHEAD_STEPS) * tile.cycles(gpu) + joined
        };
        // Tiles of eight warps with all these results leave no registers for conditions.
        let whole = |extent: Option<i64>, size: i64| extent.is_some_and(|extent| extent % size == 0);
        let fits = |tile: &&Tile| {
            let [height, width] = tile.sizes();
            let few_registers = tile.block() * tile.results[0] * tile.results[1] > 128 * 32;
            let conditions = few_registers && !(whole(rows, height) && whole(columns, width));
            4 * tile.words() as u64 <= gpu.shared_bytes && !conditions
        };
        let fitting = TILES.iter().filter(fits);
        // The depth is cut only where tiles are known to be few and deep.
        let few = rows.is_some() && columns.is_some() && depth.is_some_and(|depth| depth >= 64 * lanes);
        let splits: &[i64] = if few { &[1, 2, 4, 8, 16] } else { &[1] };
        let choices =
            fitting.flat_map(|tile| splits.iter().map(|splits| Choice { tile: *tile, splits: *splits }));
        choices.min_by(|a, b| time(a).total_cmp(&time(b)))
    }
}
