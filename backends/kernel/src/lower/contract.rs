//! Contractions: register-tiled matrix multiplication over any Einstein summation of two operands.
//!
//! The lane axis is the last axis of the result; the operand that has it is read in vectors, the other one is broadcast.
//! A tile of rows times lanes stays in registers while the summed axes run. An operand known at compile time is packed
//! so that its vectors are consecutive; at run time an operand whose lane axis is not innermost is rearranged first.

mod blocked;
mod pack;

use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_ir::types::TensorType;

use super::{Argument, LowerError, Lowering, PackedLayout, Packing, Tuning};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Var};
use crate::steps::{DOT_GROUP, Tail};
use blocked::Blocking;

/// Rows that a number unknown at compile time counts as: extents are often multiples of powers of two.
const UNKNOWN_ROWS: i64 = 64;

/// A register tile: rows by vectors of lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Rows.
    pub rows: i64,
    /// Lanes, a multiple of 1, 2, 4, ... or of the native vector.
    pub lanes: i64,
}

impl Tile {
    /// The tile with the least modelled time for `rows` x `columns` results with vectors of `native` lanes.
    pub fn choose(rows: Option<i64>, columns: Option<i64>, native: i64, tuning: &Tuning) -> Tile {
        Tile::modelled(rows, columns, native, tuning).0
    }

    /// The tile with the least modelled time, and that time: cycles for a step of the summed axis over all results, or over
    /// one row where the number of rows is not known and counts as [`UNKNOWN_ROWS`].
    ///
    /// The model counts multiply-adds at two a cycle, loads at two a cycle (one for each vector of lanes and for each
    /// broadcast row), and four cycles that a dependent multiply-add takes.
    pub fn modelled(rows: Option<i64>, columns: Option<i64>, native: i64, tuning: &Tuning) -> (Tile, f64) {
        let registers = i64::from(tuning.vector_registers);
        let vectors = columns.map_or(2, |columns| (columns + native - 1) / native).max(1);
        let mut best = (Tile { rows: 1, lanes: native }, f64::INFINITY);
        for across in 1..=vectors.min(4) {
            let room = ((registers - 2 - across) / across).max(1);
            for down in 1..=rows.unwrap_or(room).clamp(1, room) {
                let work = (down * across) as f64 / 2.0;
                let step = work.max((down + across) as f64 / 2.0).max(4.0) + 0.5;
                let tiles = |rows: i64| ((rows + down - 1) / down) as f64;
                let tiles_down = rows.map_or_else(|| tiles(UNKNOWN_ROWS) / UNKNOWN_ROWS as f64, tiles);
                let tiles_across = ((vectors + across - 1) / across) as f64;
                let time = step * tiles_down * tiles_across;
                if time < best.1 {
                    best = (Tile { rows: down, lanes: across * native }, time);
                }
            }
        }
        // Few columns: no wider than the power of two that holds them.
        if let Some(columns) = columns
            && columns < native
        {
            best.0.lanes = (columns.max(1) as u64).next_power_of_two() as i64;
        }
        best
    }
}

/// True where a sum of `depth` products of these types is best made by dot products of bytes, whose vectors the machine
/// takes from 128 bits on. Below three products most of each dot product would be padding.
pub fn multiplies_bytes(
    tuning: &Tuning,
    factors: [DType; 2],
    accumulator: DType,
    depth: Option<i64>,
    tile: Tile,
) -> bool {
    let bytes = factors.iter().all(|dtype| matches!(dtype, DType::I8 | DType::U8));
    tuning.dot
        && bytes
        && accumulator == DType::I32
        && tile.lanes * 32 >= 128
        && depth.is_some_and(|depth| depth >= DOT_GROUP - 1)
}

/// Sum of products in the accumulator's type.
pub fn multiply_add(accumulator: DType, a: Expr, b: Expr, sum: Expr) -> Expr {
    if matches!(accumulator, DType::F32 | DType::F64) {
        Expr::Fma(Box::new(a), Box::new(b), Box::new(sum))
    } else {
        Expr::call(Function::Add, vec![sum, Expr::call(Function::Mul, vec![a, b])])
    }
}

/// The nest of a tiled summation, as its builder hands it to [`schedule`].
pub struct Nest {
    /// Counters of the loops outside the tile, outermost first.
    pub outer: Vec<Var>,
    /// Counter of the row loop, just inside, if there is one.
    pub row: Option<Var>,
    /// Counter of the lane loop, innermost of the result's loops.
    pub lane: Var,
    /// The accumulator.
    pub accumulator: BufferId,
    /// Extent of the row loop where known.
    pub rows: Option<i64>,
    /// Where the loop over tiles of lanes goes.
    pub lanes_at: LanesAt,
    /// How many of the outer loops share the tasks, with the loop over tiles of lanes if that is outermost; all loops where
    /// nothing is said.
    pub joined: Option<usize>,
}

impl Nest {
    /// True where the tiles do not overlap.
    fn writes_once(&self, tile: Tile) -> bool {
        self.row.is_none() || self.rows.is_some_and(|rows| rows % tile.rows == 0)
    }
}

/// Position of the loop over tiles of lanes: the further out, the fewer times the vector operand is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LanesAt {
    /// Inside the tiles of rows: the rows are read once.
    InsideRows,
    /// Just outside the tiles of rows.
    OutsideRows,
    /// Outside all but the first loop.
    Outermost,
}

/// The schedule of a [`Nest`].
pub struct Scheduled {
    /// Counter of the parallel loop.
    pub task: Var,
    /// True where every result element is written once.
    pub writes_once: bool,
}

/// Tiles, vectorizes and parallelizes the nest that is the kernel's body.
pub fn schedule(lowering: &mut Lowering, nest: Nest, tile: Tile) -> Result<Scheduled, LowerError> {
    let writes_once = nest.writes_once(tile);
    let kernel = &mut lowering.kernel;
    let (lane_tile, lane) = kernel.split(nest.lane, tile.lanes, Tail::Predicate)?;
    kernel.vectorize(lane)?;
    let mut loops = nest.outer.clone();
    let outermost = nest.row.is_some() && nest.lanes_at == LanesAt::Outermost;
    match nest.row {
        Some(row) => {
            kernel.interchange(row)?;
            let (row_tile, full_rows) = match nest.rows {
                Some(rows) if rows >= tile.rows => kernel.split(row, tile.rows, Tail::Shift)?,
                _ => kernel.split_or_rest(row, tile.rows)?,
            };
            kernel.unroll(full_rows)?;
            kernel.stage(lane, nest.accumulator)?;
            kernel.stage(full_rows, nest.accumulator)?;
            match nest.lanes_at {
                LanesAt::InsideRows => {
                    kernel.interchange(lane_tile)?;
                    loops.extend([row_tile, lane_tile]);
                }
                LanesAt::OutsideRows => loops.extend([lane_tile, row_tile]),
                LanesAt::Outermost => {
                    for outer in nest.outer[1..].iter().rev() {
                        kernel.interchange(*outer)?;
                    }
                    loops.insert(1.min(loops.len()), lane_tile);
                    loops.push(row_tile);
                }
            }
        }
        None => {
            kernel.stage(lane, nest.accumulator)?;
            loops.push(lane_tile);
        }
    }
    let mut task = loops[0];
    for _ in 1..nest.joined.map_or(loops.len(), |joined| joined + usize::from(outermost)) {
        task = kernel.fuse(task)?;
    }
    kernel.parallel(task)?;
    Ok(Scheduled { task, writes_once })
}

/// Lowers a contraction; see the module documentation.
pub fn contract(
    lowering: &mut Lowering,
    spec: &ContractionSpec,
    accumulator: DType,
    epilogue: &ScalarExpr,
) -> Result<(), LowerError> {
    let lane_label = spec.out.last().copied();
    let right_has_lanes = match lane_label {
        Some(label) => {
            spec.rhs.contains(&label) && (!spec.lhs.contains(&label) || spec.role(label) == Role::Batch)
        }
        None => true,
    };
    let (vector_operand, vector_labels) = if right_has_lanes { (1, &spec.rhs) } else { (0, &spec.lhs) };
    let (other_operand, other_labels) = if right_has_lanes { (0, &spec.lhs) } else { (1, &spec.rhs) };
    let extent_of = |lowering: &Lowering, label: u8| -> Dim {
        let find = |labels: &[u8], operand: usize| {
            labels
                .iter()
                .position(|known| *known == label)
                .map(|axis| lowering.operands[operand].shape[axis].clone())
        };
        let (a, b) = (find(&spec.lhs, 0), find(&spec.rhs, 1));
        match (a, b) {
            (Some(a), Some(b)) => {
                if a.as_const().is_some() {
                    a
                } else {
                    b
                }
            }
            (a, b) => a.or(b).unwrap_or(Dim::Const(1)),
        }
    };

    // A scalar result has one lane.
    let lanes_known = lane_label.map_or(Some(1), |label| extent_of(lowering, label).as_const());
    // The row axis: of the result axes that the vector operand does not have, the innermost of the other operand, whose rows
    // then are neighbours in memory.
    let row_label = other_labels.iter().rev().copied().find(|label| {
        spec.out[..spec.out.len().saturating_sub(1)].contains(label)
            && !vector_labels.contains(label)
            && !extent_of(lowering, *label).is(1)
    });
    let rows_known = row_label.map_or(Some(1), |label| extent_of(lowering, label).as_const());
    let native = i64::from(lowering.tuning.lanes(accumulator));
    let tile = Tile::choose(rows_known, lanes_known, native, lowering.tuning);

    // Where the vector operand's lanes are not consecutive, or far apart from one step to the next, it is packed: at compile
    // time if it is known then.
    let mut vector_source = Argument::Operand(vector_operand);
    let mut layout = None;
    let mut vector_labels = vector_labels.clone();
    let lane_axis = lane_label.and_then(|label| vector_labels.iter().position(|known| *known == label));
    let source = lowering.operands[vector_operand].clone();
    if let Some(lane_axis) = lane_axis.filter(|_| !source.dtype().is_packed()) {
        let mut order: Vec<usize> = label_axes(&spec.out[..spec.out.len() - 1], &vector_labels);
        order.push(lane_axis);
        order.extend(label_axes(&summed_labels(spec), &vector_labels));
        // The innermost summed axis in fours, if the other operand has its elements side by side.
        let depth = summed_labels(spec).last().copied().filter(|last| other_labels.last() == Some(last));
        let depth = depth.and_then(|label| vector_labels.iter().position(|known| *known == label));
        let factors = [lowering.operands[other_operand].dtype(), source.dtype()];
        let group = depth.filter(|axis| {
            let extent = source.shape[*axis].as_const();
            multiplies_bytes(lowering.tuning, factors, accumulator, extent, tile)
        });
        let group = group.map(|axis| (axis, DOT_GROUP as usize));
        let packed = PackedLayout { order, lane_axis, width: tile.lanes as usize, group };
        if lowering.constant[vector_operand] && source.static_shape().is_some() {
            let ty = TensorType::new(source.dtype(), packed.shape(&source.shape));
            vector_source = lowering.packed(Packing {
                operand: vector_operand,
                source: source.shape.clone(),
                winograd: None,
                layout: packed.clone(),
                packed: ty,
            });
            layout = Some(packed);
        } else if lowering.tuning.gpu.is_some() && lane_axis + 1 != source.rank() {
            // A GPU's kernels read lanes that are neighbours in the operand's own order.
            let mut perm: Vec<usize> = (0..source.rank()).filter(|axis| *axis != lane_axis).collect();
            perm.push(lane_axis);
            let shape: Vec<Dim> = perm.iter().map(|axis| source.shape[*axis].clone()).collect();
            vector_source = lowering.temporary(TensorType::new(source.dtype(), shape));
            let from = Argument::Operand(vector_operand);
            super::transposition::transpose_into(lowering, from, vector_source, &perm)?;
            vector_labels = perm.iter().map(|axis| vector_labels[*axis]).collect();
        } else if lowering.tuning.gpu.is_none()
            && packed.order.last() != Some(&lane_axis)
            && pays_to_pack(lowering, &source, lane_axis, rows_known, group.is_some())
        {
            vector_source = pack::pack(lowering, vector_source, &packed)?;
            layout = Some(packed);
        }
    }
    let plan = Plan {
        vector_source,
        vector_labels,
        other_operand,
        other_labels: other_labels.clone(),
        layout,
        row_label,
        rows_known,
        tile,
    };
    build(lowering, spec, accumulator, epilogue, plan)
}

/// Fewer rows than these read a packed operand too seldom to pay for the packing.
const LEAST_PACKED_ROWS: i64 = 32;

/// True where reading an operand as it is would cost more than packing it first: its lanes are not consecutive, bytes are
/// to be multiplied four at a time, or the first-level cache does not hold it for the rows that read it.
fn pays_to_pack(
    lowering: &Lowering,
    source: &TensorType,
    lane_axis: usize,
    rows: Option<i64>,
    grouped: bool,
) -> bool {
    if source.shape[lane_axis + 1..].iter().any(|extent| !extent.is(1)) {
        return true;
    }
    let many = |least: i64| rows.is_none_or(|rows| rows >= least);
    let each = Dim::product(&source.shape[source.rank().saturating_sub(2)..]).as_const();
    let bytes = each.map(|count| count.max(0) as u64 * source.dtype().size() as u64);
    (grouped && many(LEAST_PACKED_ROWS / 8))
        || (many(LEAST_PACKED_ROWS) && bytes.is_some_and(|bytes| bytes > lowering.tuning.l1_bytes))
}

struct Plan {
    vector_source: Argument,
    vector_labels: Vec<u8>,
    other_operand: usize,
    other_labels: Vec<u8>,
    layout: Option<PackedLayout>,
    row_label: Option<u8>,
    rows_known: Option<i64>,
    tile: Tile,
}

impl Plan {
    /// The operand that is read in vectors.
    fn vector_operand(&self) -> usize {
        1 - self.other_operand
    }
}

fn summed_labels(spec: &ContractionSpec) -> Vec<u8> {
    spec.labels().into_iter().filter(|label| spec.role(*label) == Role::Summed).collect()
}

/// Axes of `labels` within an operand, in the order of `labels`.
fn label_axes(labels: &[u8], operand: &[u8]) -> Vec<usize> {
    labels.iter().filter_map(|label| operand.iter().position(|known| known == label)).collect()
}

/// Blocks for a product in `f32` over one summed axis, where the caches ask for them; and that axis.
fn blocking_of(
    lowering: &Lowering,
    spec: &ContractionSpec,
    accumulator: DType,
    plan: &Plan,
) -> Option<(Blocking, (u8, i64))> {
    let floats = |operand: usize| lowering.operands[operand].dtype() == DType::F32;
    let [label] = summed_labels(spec)[..] else { return None };
    plan.row_label.filter(|_| accumulator == DType::F32 && floats(0) && floats(1))?;
    let axis = plan.other_labels.iter().position(|known| *known == label)?;
    plan.vector_labels.contains(&label).then_some(())?;
    let depth = lowering.operands[plan.other_operand].shape[axis].as_const()?;
    let columns = lowering.results[0].shape.last()?.as_const()?;
    let packed = plan.layout.is_some();
    let blocking = Blocking::choose(plan.rows_known, columns, depth, packed, plan.tile, lowering.tuning)?;
    Some((blocking, (label, depth)))
}

fn build(
    lowering: &mut Lowering,
    spec: &ContractionSpec,
    accumulator: DType,
    epilogue: &ScalarExpr,
    plan: Plan,
) -> Result<(), LowerError> {
    if let Some((blocking, summed)) = blocking_of(lowering, spec, accumulator, &plan) {
        return blocked::blocked(lowering, &plan, blocking, summed, &spec.out, epilogue);
    }
    // Loop order: the result's labels, with the row label moved next to the lane label.
    let mut order: Vec<u8> = spec.out.clone();
    let lane_label = order.pop();
    if let Some(row) = plan.row_label {
        order.retain(|label| *label != row);
    }
    let counter_of =
        |lowering: &mut Lowering, label: u8| lowering.kernel.counter(&(label as char).to_string());
    let outer: Vec<(u8, Var)> = order.iter().map(|label| (*label, counter_of(lowering, *label))).collect();
    let row = plan.row_label.map(|label| (label, counter_of(lowering, label)));
    let lane = (lane_label.unwrap_or(b'?'), lowering.kernel.counter("lane"));
    let summed: Vec<(u8, Var)> =
        summed_labels(spec).into_iter().map(|label| (label, counter_of(lowering, label))).collect();
    let position = |label: u8| -> Expr {
        outer
            .iter()
            .chain(row.iter())
            .chain([&lane])
            .chain(&summed)
            .find(|(known, _)| *known == label)
            .map_or(Expr::index(0), |(_, var)| Expr::Var(*var))
    };
    let extent = |lowering: &mut Lowering, label: u8| -> Expr {
        let find = |labels: &[u8], operand: usize| {
            labels
                .iter()
                .position(|known| *known == label)
                .map(|axis| lowering.operands[operand].shape[axis].clone())
        };
        let dim = match (find(&spec.lhs, 0), find(&spec.rhs, 1)) {
            (Some(a), Some(b)) => {
                if a.as_const().is_some() {
                    a
                } else {
                    b
                }
            }
            (a, b) => a.or(b).unwrap_or(Dim::Const(1)),
        };
        lowering.dim(&dim)
    };

    let zero = Expr::index(0);
    let sum = lowering.kernel.buffer("sum", accumulator, Space::Register, Expr::index(1), Access::ReadWrite);
    let coordinates = |labels: &[u8]| labels.iter().map(|label| position(*label)).collect::<Vec<_>>();
    let element = |lowering: &mut Lowering, argument: Argument, at: &[Expr]| {
        let dtype = lowering.type_of(argument).dtype();
        lowering.load(argument, at).cast(dtype, accumulator)
    };
    let a = element(lowering, Argument::Operand(plan.other_operand), &coordinates(&plan.other_labels));
    let at = coordinates(&plan.vector_labels);
    let known = lowering.operands[plan.vector_operand()].static_shape().is_some();
    let b = match &plan.layout {
        // Read in the operand's own order here; the packing step changes it.
        Some(_) if known => lowering.load_as(plan.vector_source, plan.vector_operand(), &at),
        Some(layout) => lowering.load(plan.vector_source, &layout.coordinates(&at)),
        None => lowering.load(plan.vector_source, &at),
    };
    let b = b.cast(lowering.operands[plan.vector_operand()].dtype(), accumulator);
    let update = multiply_add(accumulator, a, b, Expr::load(sum, zero.clone()));
    let mut reduction = vec![Stmt::Store { buffer: sum, index: zero.clone(), value: update, valid: None }];
    for (label, var) in summed.iter().rev() {
        let extent = extent(lowering, *label);
        reduction = vec![Stmt::For { var: *var, extent, kind: LoopKind::Serial, body: reduction }];
    }
    let out = coordinates(&spec.out);
    let mut inputs = vec![Expr::load(sum, zero.clone())];
    for operand in 2..lowering.operands.len() {
        inputs.push(lowering.load_broadcast(Argument::Operand(operand), &out));
    }
    let start = Expr::constant(accumulator, 0.0);
    let mut body = vec![Stmt::Store { buffer: sum, index: zero, value: start, valid: None }];
    body.extend(reduction);
    let (stmts, value) = lowering.scalar(epilogue, &inputs);
    body.extend(stmts);
    body.push(lowering.store(Argument::Result(0), &out, value));
    let lane_extent = lane_label.map_or(Expr::index(1), |label| extent(lowering, label));
    let mut nest = vec![Stmt::For { var: lane.1, extent: lane_extent, kind: LoopKind::Serial, body }];
    for (label, var) in outer.iter().chain(row.iter()).rev() {
        let extent = extent(lowering, *label);
        nest = vec![Stmt::For { var: *var, extent, kind: LoopKind::Serial, body: nest }];
    }
    lowering.kernel.body = nest;
    if let Some(layout) = plan.layout.as_ref().filter(|_| known) {
        lowering.pack(plan.vector_source, plan.vector_operand(), layout)?;
    }
    if let (Some(PackedLayout { group: Some(_), .. }), Some((_, depth))) = (&plan.layout, summed.last()) {
        let packed = lowering.buffer(plan.vector_source);
        lowering.kernel.tensorize_dot(*depth, packed)?;
    }

    // A vector operand that overflows half the second-level cache is read once for all rows, the rows again and again.
    let vector_type = lowering.type_of(plan.vector_source);
    let vector_bytes = vector_type
        .static_shape()
        .map(|shape| shape.iter().product::<usize>() as u64 * vector_type.dtype().size() as u64);
    let schedule_nest = Nest {
        outer: outer.iter().map(|(_, var)| *var).collect(),
        row: row.map(|(_, var)| var),
        lane: lane.1,
        accumulator: sum,
        rows: plan.rows_known,
        lanes_at: match vector_bytes {
            Some(bytes) if bytes <= lowering.tuning.l2_bytes / 2 => LanesAt::InsideRows,
            _ => LanesAt::OutsideRows,
        },
        joined: None,
    };
    let scheduled = schedule(lowering, schedule_nest, plan.tile)?;
    let body = std::mem::take(&mut lowering.kernel.body);
    lowering.launch_epilogue(body, scheduled.writes_once);
    Ok(())
}
