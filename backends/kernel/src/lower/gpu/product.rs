//! Tiled matrix products: the threads of a block fill tiles of both operands in shared memory and multiply them from there.
//!
//! ```text
//! grid g in tiles { thread t in 256 {
//!   fill tiles[0] from depth 0
//!   for step { fill registers from depth step + 1; sums += tiles[step % 2]; tiles[(step + 1) % 2] = registers; barrier }
//!   y[row, column] = epilogue(sums)
//! } }
//! ```
//!
//! A thread has groups of 4 x 4 results, so both operands come in accesses of four elements. Tiles lie depth by depth, their
//! rows rotated where threads fill them along the depth, so that neither filling nor reading meets a bank twice. Elements
//! outside an operand are zero; results outside are not written.

use tcc_ir::dtype::DType;

use super::Gpu;
use super::origin::Origin;
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Ty, Var};
use crate::lower::contract::multiply_add;
use crate::lower::{LowerError, Lowering};
use crate::steps::predicate_accesses;

/// Steps of the depth in a tile: their 32 bytes of an f32 row are a sector.
const DEPTH: i64 = 8;

/// Results along each side of a thread's group.
const GROUP: i64 = 4;

/// Sizes of a product.
pub struct Extents {
    /// Independent products.
    pub batch: Expr,
    /// Rows of a result.
    pub rows: Expr,
    /// Columns of a result.
    pub columns: Expr,
    /// Products in a sum.
    pub depth: Expr,
}

/// Coordinates along one side of an operand.
pub struct Part {
    /// What computes them.
    pub stmts: Vec<Stmt>,
    /// They themselves.
    pub at: Vec<Expr>,
}

/// The left operand, by rows and depth, or the right one, by columns and depth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The left operand.
    Rows,
    /// The right operand.
    Columns,
}

/// Where the operands and the result of a product are.
pub trait Places {
    /// Element type of an operand.
    fn dtype(&self, lowering: &Lowering, side: Side) -> DType;

    /// True where elements along the depth are neighbours in memory.
    fn depth_inner(&self, side: Side) -> bool;

    /// Coordinates of a row or column of a product of the batch.
    fn outer(&self, lowering: &mut Lowering, side: Side, batch: &Expr, position: Expr) -> Part;

    /// Coordinates along the depth.
    fn depth(&self, lowering: &mut Lowering, side: Side, position: Expr) -> Part;

    /// The element at both, and a condition under which it is there at all.
    fn element(
        &self,
        lowering: &mut Lowering,
        side: Side,
        outer: &[Expr],
        depth: &[Expr],
    ) -> (Expr, Option<Expr>);

    /// Elements between neighbouring rows or columns, where they are the same distance apart all over, the operand's elements along
    /// the depth are neighbours, and none is missing.
    fn pitch(&self, lowering: &mut Lowering, side: Side) -> Option<Expr>;

    /// Epilogue and store of a sum.
    fn finish(
        &self,
        lowering: &mut Lowering,
        batch: &Expr,
        row: &Expr,
        column: &Expr,
        sum: Expr,
    ) -> Vec<Stmt>;
}

/// How a block covers its tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tile {
    /// Threads along the rows and columns.
    threads: [i64; 2],
    /// Groups of a thread along the rows and columns.
    groups: [i64; 2],
}

const fn tile(rows: i64, columns: i64, down: i64, across: i64) -> Tile {
    Tile { threads: [rows, columns], groups: [down, across] }
}

/// Tiles from large to small; the first that wastes least is taken.
const TILES: [Tile; 8] = [
    tile(16, 16, 2, 2),
    tile(16, 16, 2, 1),
    tile(16, 16, 1, 2),
    tile(16, 16, 1, 1),
    tile(32, 4, 1, 1),
    tile(4, 32, 1, 1),
    tile(64, 2, 1, 1),
    tile(8, 8, 1, 1),
];

impl Tile {
    fn size(&self, side: Side) -> i64 {
        self.threads[side as usize] * self.groups[side as usize] * GROUP
    }

    fn block(&self) -> i64 {
        self.threads[0] * self.threads[1]
    }

    /// The tile with the least modelled time. In a step of the depth a thread multiplies `16 * down * across` times and
    /// reads `down + across` times; blocks run in waves over the multiprocessors. Unknown extents count as large.
    fn choose(rows: Option<i64>, columns: Option<i64>, accumulator: DType, gpu: &Gpu) -> Tile {
        let time = |tile: &Tile| {
            let tiles = |extent: Option<i64>, size: i64| (extent.unwrap_or(1024).max(1) + size - 1) / size;
            let blocks = tiles(rows, tile.size(Side::Rows)) * tiles(columns, tile.size(Side::Columns));
            let [down, across] = tile.groups;
            let work = (16 * down * across + 4 * (down + across) + 2) * tile.block();
            // Blocks of a wave that is not full run in less than their share of the time, but not in none.
            let waves = blocks.max(gpu.multiprocessors.into());
            waves * work
        };
        let bytes = |tile: &Tile| {
            let rows = tile.size(Side::Rows) + tile.size(Side::Columns);
            2 * rows * DEPTH * accumulator.size() as i64
        };
        let fitting = TILES.iter().filter(|tile| bytes(tile) as u64 <= gpu.shared_bytes);
        fitting.copied().min_by_key(time).unwrap_or(TILES[TILES.len() - 1])
    }
}

/// One tile in shared memory, twice, and how a thread fills it.
struct Stage {
    side: Side,
    buffer: BufferId,
    size: i64,
    /// Coordinates of what a thread loads, by element: which of the outer and depth positions.
    elements: Vec<(usize, usize)>,
    /// Position within the tile, by number.
    outer: Vec<Expr>,
    depth: Vec<Expr>,
    /// Coordinates of the outer positions.
    parts: Vec<Vec<Expr>>,
    /// Whether an outer position is inside the operand.
    inside: Vec<Var>,
    /// The loaded elements.
    loaded: Vec<Var>,
    rotated: bool,
}

impl Stage {
    /// Place of an element; `depth` and `outer` lie within the tile.
    fn index(&self, half: Expr, depth: Expr, outer: Expr) -> Expr {
        let column = if self.rotated {
            let turn = depth.clone().times(Expr::index(GROUP)).remainder(Expr::index(self.size));
            if turn.is_index(0) {
                outer
            } else {
                Expr::call(tcc_ir::scalar::Function::BitXor, vec![outer, turn])
            }
        } else {
            outer
        };
        half.times(Expr::index(self.size * DEPTH)).plus(depth.times(Expr::index(self.size))).plus(column)
    }
}

pub fn assigned(lowering: &mut Lowering, stmts: &mut Vec<Stmt>, name: &str, value: Expr) -> Expr {
    if value.as_index().is_some() {
        return value;
    }
    let (var, stmt) = lowering.assign(name, value);
    stmts.push(stmt);
    Expr::Var(var)
}

/// Writes a product as one kernel.
pub fn product(
    lowering: &mut Lowering,
    gpu: &Gpu,
    extents: &Extents,
    accumulator: DType,
    places: &dyn Places,
) -> Result<(), LowerError> {
    let tile = Tile::choose(extents.rows.as_index(), extents.columns.as_index(), accumulator, gpu);
    let (block, thread) = (lowering.kernel.counter("block"), lowering.kernel.counter("thread"));
    let mut body = Vec::new();
    let size = [Side::Rows, Side::Columns].map(|side| tile.size(side));
    let origin = Origin::of(lowering, &mut body, block, size, extents);
    let across = Expr::index(tile.threads[1]);
    let down = assigned(lowering, &mut body, "down", Expr::Var(thread).over(across.clone()));
    let along = assigned(lowering, &mut body, "across", Expr::Var(thread).remainder(across));

    let mut stages = Vec::new();
    for (side, extent) in [(Side::Rows, &extents.rows), (Side::Columns, &extents.columns)] {
        let stage = stage(lowering, &mut body, (side, tile), accumulator, thread, places);
        stages.push(position(lowering, &mut body, stage, (&origin, extent), places));
    }
    let groups = tile.groups[0] * GROUP * tile.groups[1];
    let count = Expr::index(groups * GROUP);
    let sums = lowering.kernel.buffer("sums", accumulator, Space::Register, count, Access::ReadWrite);
    let zero = Expr::Splat(Box::new(Expr::constant(accumulator, 0.0)), GROUP as u16);
    body.extend((0..groups).map(|group| Stmt::Store {
        buffer: sums,
        index: Expr::index(group * GROUP),
        value: zero.clone(),
        valid: None,
    }));

    // The first tile, then one ahead of the sums.
    for stage in &stages {
        body.extend(load(lowering, stage, Expr::index(0), &extents.depth, places));
        body.extend(store(stage, Expr::index(0)));
    }
    body.push(Stmt::Barrier);
    let steps = extents.depth.clone().over_up(Expr::index(DEPTH));
    let step = lowering.kernel.counter("step");
    let mut inner = Vec::new();
    let half = assigned(lowering, &mut inner, "half", Expr::Var(step).remainder(Expr::index(2)));
    for stage in &stages {
        let next = Expr::Var(step).plus(Expr::index(1)).times(Expr::index(DEPTH));
        inner.extend(load(lowering, stage, next, &extents.depth, places));
    }
    inner.extend(multiply(lowering, &stages, tile, &half, [&down, &along], sums, accumulator));
    let other = Expr::index(1).minus(half);
    for stage in &stages {
        inner.extend(store(stage, other.clone()));
    }
    inner.push(Stmt::Barrier);
    body.push(Stmt::For { var: step, extent: steps, kind: LoopKind::Serial, body: inner });
    body.extend(results(lowering, extents, tile, &origin, [&down, &along], sums, places));

    let extent = Expr::index(tile.block());
    let threads = Stmt::For { var: thread, extent, kind: LoopKind::Thread(0), body };
    let grid = Stmt::For { var: block, extent: origin.blocks, kind: LoopKind::Grid(0), body: vec![threads] };
    lowering.launch(vec![grid], false);
    Ok(())
}

/// Declares the tile of an operand and says which of its elements a thread fills: neighbours in memory by neighbours.
fn stage(
    lowering: &mut Lowering,
    body: &mut Vec<Stmt>,
    (side, tile): (Side, Tile),
    accumulator: DType,
    thread: Var,
    places: &dyn Places,
) -> Stage {
    let (size, threads) = (tile.size(side), tile.block());
    let name = if side == Side::Rows { "row_tile" } else { "column_tile" };
    let count = Expr::index(2 * size * DEPTH);
    let buffer = lowering.kernel.buffer(name, accumulator, Space::Shared, count, Access::ReadWrite);
    let count = size * DEPTH / threads;
    let rotated = places.depth_inner(side);
    let thread = Expr::Var(thread);
    let mut at = |lowering: &mut Lowering, value: Expr| assigned(lowering, body, "fill", value);
    let (mut outer, mut depth, mut elements) = (Vec::new(), Vec::new(), Vec::new());
    if rotated {
        depth.push(at(lowering, thread.clone().remainder(Expr::index(DEPTH))));
        let first = at(lowering, thread.over(Expr::index(DEPTH)));
        for number in 0..count {
            outer.push(first.clone().plus(Expr::index(number * (threads / DEPTH))));
            elements.push((number as usize, 0));
        }
    } else if size <= threads {
        outer.push(at(lowering, thread.clone().remainder(Expr::index(size))));
        let first = at(lowering, thread.over(Expr::index(size)));
        for number in 0..count {
            depth.push(first.clone().plus(Expr::index(number * (threads / size))));
            elements.push((0, number as usize));
        }
    } else {
        let parts = size / threads;
        outer.extend((0..parts).map(|part| thread.clone().plus(Expr::index(part * threads))));
        depth.extend((0..DEPTH).map(Expr::index));
        elements.extend((0..count).map(|number| ((number % parts) as usize, (number / parts) as usize)));
    }
    let loaded = (0..count).map(|_| lowering.kernel.variable("loaded", Ty::scalar(accumulator))).collect();
    Stage {
        side,
        buffer,
        size,
        elements,
        outer,
        depth,
        parts: Vec::new(),
        inside: Vec::new(),
        loaded,
        rotated,
    }
}

/// Computes the coordinates of the rows or columns that a thread fills, once.
fn position(
    lowering: &mut Lowering,
    body: &mut Vec<Stmt>,
    mut stage: Stage,
    (origin, extent): (&Origin, &Expr),
    places: &dyn Places,
) -> Stage {
    for outer in &stage.outer {
        let position = origin.first(stage.side).clone().plus(outer.clone());
        let position = assigned(lowering, body, "position", position);
        let (inside, stmt) = lowering.assign("inside", position.clone().less(extent.clone()));
        body.push(stmt);
        stage.inside.push(inside);
        let part = places.outer(lowering, stage.side, &origin.batch, position);
        body.extend(part.stmts);
        stage.parts.push(part.at);
    }
    stage
}

/// Loads a thread's elements of the tile at a depth.
fn load(
    lowering: &mut Lowering,
    stage: &Stage,
    first: Expr,
    extent: &Expr,
    places: &dyn Places,
) -> Vec<Stmt> {
    let mut stmts = Vec::new();
    let mut parts = Vec::new();
    for depth in &stage.depth {
        let position = assigned(lowering, &mut stmts, "depth", first.clone().plus(depth.clone()));
        let inside = position.clone().less(extent.clone());
        let part = places.depth(lowering, stage.side, position);
        stmts.extend(part.stmts);
        parts.push((part.at, inside));
    }
    let dtype = places.dtype(lowering, stage.side);
    for (number, (outer, depth)) in stage.elements.iter().enumerate() {
        let (at, inside) = &parts[*depth];
        let mut inside = Expr::Var(stage.inside[*outer]).both(inside.clone());
        let (value, condition) = places.element(lowering, stage.side, &stage.parts[*outer], at);
        if let Some(condition) = condition {
            inside = inside.both(condition);
        }
        let accumulator = lowering.kernel.variables[stage.loaded[number].0 as usize].ty.dtype;
        let value = match value {
            Expr::Load { buffer, index, lanes, .. } => {
                let valid = Some(Box::new(inside.choose(Expr::index(1), Expr::index(0))));
                Expr::Load { buffer, index, lanes, valid }
            }
            other => inside.choose(other, Expr::constant(dtype, 0.0)),
        };
        stmts.push(Stmt::Assign { var: stage.loaded[number], value: value.cast(dtype, accumulator) });
    }
    stmts
}

/// Stores a thread's elements to one half of the tile.
fn store(stage: &Stage, half: Expr) -> Vec<Stmt> {
    let element = |(loaded, (outer, depth)): (&Var, &(usize, usize))| Stmt::Store {
        buffer: stage.buffer,
        index: stage.index(half.clone(), stage.depth[*depth].clone(), stage.outer[*outer].clone()),
        value: Expr::Var(*loaded),
        valid: None,
    };
    stage.loaded.iter().zip(&stage.elements).map(element).collect()
}

/// Adds the products of a tile to the sums.
fn multiply(
    lowering: &mut Lowering,
    stages: &[Stage],
    tile: Tile,
    half: &Expr,
    thread: [&Expr; 2],
    sums: BufferId,
    accumulator: DType,
) -> Vec<Stmt> {
    let lanes = GROUP as u16;
    let mut stmts = Vec::new();
    for depth in 0..DEPTH {
        let mut groups: [Vec<Var>; 2] = [Vec::new(), Vec::new()];
        for (side, stage) in stages.iter().enumerate() {
            for group in 0..tile.groups[side] {
                let first = thread[side].clone().times(Expr::index(GROUP));
                let outer = first.plus(Expr::index(group * tile.threads[side] * GROUP));
                let index = Box::new(stage.index(half.clone(), Expr::index(depth), outer));
                let value = Expr::Load { buffer: stage.buffer, index, lanes, valid: None };
                let var = lowering.kernel.variable("group", Ty::vector(accumulator, lanes));
                stmts.push(Stmt::Assign { var, value });
                groups[side].push(var);
            }
        }
        for row in 0..tile.groups[0] * GROUP {
            let from = Expr::Var(groups[0][(row / GROUP) as usize]);
            let a = Expr::Shuffle(Box::new(from.clone()), Box::new(from), vec![(row % GROUP) as u16]);
            for (column, b) in groups[1].iter().enumerate() {
                let index = Expr::index((row * tile.groups[1] + column as i64) * GROUP);
                let sum = Expr::Load { buffer: sums, index: Box::new(index.clone()), lanes, valid: None };
                let a = Expr::Splat(Box::new(a.clone()), lanes);
                let value = multiply_add(accumulator, a, Expr::Var(*b), sum);
                stmts.push(Stmt::Store { buffer: sums, index, value, valid: None });
            }
        }
    }
    stmts
}

/// Writes what of a thread's results is inside.
fn results(
    lowering: &mut Lowering,
    extents: &Extents,
    tile: Tile,
    origin: &Origin,
    [down, along]: [&Expr; 2],
    sums: BufferId,
    places: &dyn Places,
) -> Vec<Stmt> {
    let mut stmts = Vec::new();
    let full = extents.columns.as_index().is_some_and(|columns| columns % GROUP == 0);
    for row in 0..tile.groups[0] * GROUP {
        let offset = row / GROUP * tile.threads[0] * GROUP + row % GROUP;
        let at =
            origin.first[0].clone().plus(down.clone().times(Expr::index(GROUP))).plus(Expr::index(offset));
        let at = assigned(lowering, &mut stmts, "row", at);
        let mut then = Vec::new();
        for group in 0..tile.groups[1] {
            let lane = lowering.kernel.counter("lane");
            let offset = Expr::index(group * tile.threads[1] * GROUP);
            let first = origin.first[1].clone().plus(along.clone().times(Expr::index(GROUP))).plus(offset);
            let index = Expr::index((row * tile.groups[1] + group) * GROUP).plus(Expr::Var(lane));
            let column = first.clone().plus(Expr::Var(lane));
            let mut body = places.finish(lowering, &origin.batch, &at, &column, Expr::load(sums, index));
            if !full {
                let rest = extents.columns.clone().minus(first.clone());
                predicate_accesses(&lowering.kernel, &mut body, lane, &rest);
            }
            let extent = Expr::index(GROUP);
            let lanes = Stmt::For { var: lane, extent, kind: LoopKind::Vector, body };
            let condition = first.less(extents.columns.clone());
            then.push(Stmt::If { condition, then: vec![lanes], otherwise: Vec::new() });
        }
        let condition = at.less(extents.rows.clone());
        stmts.push(Stmt::If { condition, then, otherwise: Vec::new() });
    }
    stmts
}
