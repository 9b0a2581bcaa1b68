//! Transposed convolutions.
//!
//! The outputs at one offset within the stride, a phase, are an ordinary convolution of the input with every so-manieth tap.
//! Filters known at compile time are packed, and each phase is a kernel with a register tile of positions by output channels.
//! All else gathers, one output after the other.

use tcc_ir::dim::Dim;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_ir::words::{Layout, PadKind};

use super::contract::{LanesAt, Nest, Tile, multiply_add, schedule};
use super::convolve::{Geometry, split_image};
use super::{Argument, LowerError, Lowering, PackedLayout, Packing};
use crate::ir::{Access, Expr, LoopKind, Space, Stmt, Var};

/// Phases beyond which a kernel for each takes more code than it is worth.
const MOST_PHASES: i64 = 16;

/// Lowers a transposed convolution.
pub fn convolve_transpose(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let geometry = Geometry::of(lowering, operator)?;
    match Phases::of(lowering, &geometry) {
        Some(phases) => phases.lower(lowering),
        None => gather(lowering, &geometry),
    }
}

/// A transposed convolution cut into phases.
///
/// Output position `p` with `p + low = q * stride + phase` sums tap `phase + stride * j` times input `q - j` over `j`.
struct Phases<'g> {
    geometry: &'g Geometry,
    taps: Vec<i64>,
    /// Largest number of taps of a phase on each axis.
    most: Vec<i64>,
    /// True where the phases of the last axis are the lanes: a single channel whose windows do not overlap.
    merged: bool,
}

impl<'g> Phases<'g> {
    fn of(lowering: &Lowering, geometry: &'g Geometry) -> Option<Phases<'g>> {
        let filter = &lowering.operands[1];
        let shape = filter.static_shape()?;
        let fits = geometry.layout == Layout::ChannelsLast
            && geometry.groups == 1
            && geometry.dilations.iter().all(|dilation| *dilation == 1)
            && geometry.low.iter().all(|low| *low >= 0)
            && geometry.strides.iter().product::<i64>() <= MOST_PHASES
            && lowering.constant[1]
            && !filter.dtype().is_packed()
            && shape.iter().all(|extent| *extent > 0)
            && lowering.tuning.lanes(geometry.accumulator) > 1;
        if !fits {
            return None;
        }
        let last = geometry.spatial - 1;
        let taps: Vec<i64> = shape[..geometry.spatial].iter().map(|extent| *extent as i64).collect();
        let most =
            taps.iter().zip(&geometry.strides).map(|(taps, stride)| (taps + stride - 1) / stride).collect();
        let mut phases = Phases { geometry, taps, most, merged: false };
        phases.merged = shape[geometry.spatial] == 1
            && phases.taps[last] == geometry.strides[last]
            && phases.is_exact(lowering, last);
        Some(phases)
    }

    /// True where every input gives `stride` outputs of an axis and no output is beside them.
    fn is_exact(&self, lowering: &Lowering, axis: usize) -> bool {
        let stride = Dim::Const(self.geometry.strides[axis]);
        let input = self.geometry.extents(&lowering.operands[0])[axis].clone();
        let output = self.geometry.extents(&lowering.results[0])[axis].clone();
        self.most[axis] == 1 && self.geometry.low[axis] == 0 && output == input * stride
    }

    /// The input with the zeros around it that the phases read, and how many precede it on each axis.
    fn padded(&self, lowering: &mut Lowering) -> Result<(Argument, Vec<i64>), LowerError> {
        let geometry = self.geometry;
        let exact: Vec<bool> = (0..geometry.spatial).map(|axis| self.is_exact(lowering, axis)).collect();
        let before: Vec<i64> = self.most.iter().map(|most| most - 1).collect();
        if exact.iter().all(|exact| *exact) {
            return Ok((Argument::Operand(0), before));
        }
        let input = lowering.operands[0].clone();
        let outputs = geometry.extents(&lowering.results[0]);
        let mut shape = input.shape.clone();
        let mut low = vec![Dim::Const(0); input.rank()];
        for axis in (0..geometry.spatial).filter(|axis| !exact[*axis]) {
            let reached = outputs[axis].clone() + Dim::Const(geometry.low[axis] + geometry.strides[axis] - 1);
            let positions = reached.floor_div(&Dim::Const(geometry.strides[axis]));
            shape[axis + 1] = positions + Dim::Const(before[axis]);
            low[axis + 1] = Dim::Const(before[axis]);
        }
        let padded = lowering.temporary(TensorType::new(input.dtype(), shape));
        let zero = Expr::constant(input.dtype(), 0.0);
        super::movement::pad_into(lowering, Argument::Operand(0), padded, PadKind::Constant, zero, &low)?;
        Ok((padded, before))
    }

    fn lower(&self, lowering: &mut Lowering) -> Result<(), LowerError> {
        let geometry = self.geometry;
        let spatial = geometry.spatial;
        let (source, before) = self.padded(lowering)?;
        let filter = lowering.operands[1].clone();
        let native = i64::from(lowering.tuning.lanes(geometry.accumulator));
        let columns = match self.merged {
            true => Some(geometry.strides[spatial - 1]),
            false => filter.shape[spatial].as_const(),
        };
        let tile = Tile::choose(None, columns, native, lowering.tuning);
        // Filters are [taps.., out, in]; the axis of the lanes goes first, in tiles.
        let lane_axis = if self.merged { spatial - 1 } else { spatial };
        let mut order = vec![lane_axis];
        order.extend((0..spatial + 2).filter(|axis| *axis != lane_axis));
        let layout = PackedLayout { order, lane_axis, width: tile.lanes as usize, group: None };
        let packed = TensorType::new(filter.dtype(), layout.shape(&filter.shape));
        let packing = Packing {
            operand: 1,
            source: filter.shape.clone(),
            winograd: None,
            layout: layout.clone(),
            packed,
        };
        let weights = (lowering.packed(packing), layout);
        let ranges: Vec<i64> = (0..spatial)
            .map(|axis| if self.merged && axis + 1 == spatial { 1 } else { geometry.strides[axis] })
            .collect();
        for number in 0..ranges.iter().product::<i64>() {
            let mut rest = number;
            let mut phase = vec![0; spatial];
            for axis in (0..spatial).rev() {
                phase[axis] = rest % ranges[axis];
                rest /= ranges[axis];
            }
            self.phase(lowering, &phase, (source, &before), &weights, tile)?;
        }
        Ok(())
    }

    fn phase(
        &self,
        lowering: &mut Lowering,
        phase: &[i64],
        (source, before): (Argument, &[i64]),
        (weights, layout): &(Argument, PackedLayout),
        tile: Tile,
    ) -> Result<(), LowerError> {
        let geometry = self.geometry;
        let (spatial, last) = (geometry.spatial, geometry.spatial - 1);
        let (input, filter, result) =
            (lowering.operands[0].clone(), lowering.operands[1].clone(), lowering.results[0].clone());
        let counter = |lowering: &mut Lowering, name: &str| lowering.kernel.counter(name);
        let batch = counter(lowering, "n");
        let positions: Vec<Var> = (0..spatial).map(|axis| counter(lowering, &format!("q{axis}"))).collect();
        let lane = counter(lowering, "lane");
        let taps: Vec<Var> = (0..spatial).map(|axis| counter(lowering, &format!("j{axis}"))).collect();
        let channel = counter(lowering, "c");
        let (inputs, outputs) = (geometry.extents(&input), geometry.extents(&result));
        let (mut extents, mut reads, mut filter_at, mut writes) = (vec![], vec![], vec![], vec![]);
        for axis in 0..spatial {
            let (stride, low, phase) = (geometry.strides[axis], geometry.low[axis], phase[axis]);
            // The first position whose output is not before the start, and how many there are.
            let first = (low - phase + stride - 1).max(0) / stride;
            extents.push(match self.is_exact(lowering, axis) {
                true => inputs[axis].clone(),
                false => {
                    let reached = outputs[axis].clone() + Dim::Const(low - phase + stride - 1);
                    reached.floor_div(&Dim::Const(stride)) + Dim::Const(-first)
                }
            });
            let position = Expr::Var(positions[axis]).plus(Expr::index(first));
            let tap = Expr::Var(taps[axis]);
            reads.push(position.clone().plus(Expr::index(before[axis])).minus(tap.clone()));
            filter_at.push(tap.times(Expr::index(stride)).plus(Expr::index(phase)));
            writes.push(position.times(Expr::index(stride)).plus(Expr::index(phase - low)));
        }
        let mut out_channel = Expr::Var(lane);
        if self.merged {
            out_channel = Expr::index(0);
            filter_at[last] = Expr::Var(lane);
            writes[last] = writes[last].clone().plus(Expr::Var(lane));
        }
        let accumulator = geometry.accumulator;
        let zero = Expr::index(0);
        let sum =
            lowering.kernel.buffer("sum", accumulator, Space::Register, Expr::index(1), Access::ReadWrite);
        let a = lowering.load(source, &geometry.image(Expr::Var(batch), Expr::Var(channel), reads));
        let filter_at = geometry.filter(Expr::Var(channel), out_channel.clone(), filter_at);
        let b = lowering.load(*weights, &layout.coordinates(&filter_at));
        let (a, b) = (a.cast(input.dtype(), accumulator), b.cast(filter.dtype(), accumulator));
        let update = multiply_add(accumulator, a, b, Expr::load(sum, zero.clone()));
        let mut reduction =
            vec![Stmt::Store { buffer: sum, index: zero.clone(), value: update, valid: None }];
        let serial = |var, extent, body| vec![Stmt::For { var, extent, kind: LoopKind::Serial, body }];
        let in_extent = lowering.dim(&filter.shape[spatial + 1]);
        reduction = serial(channel, in_extent, reduction);
        for axis in (0..spatial).rev() {
            let (stride, phase) = (geometry.strides[axis], phase[axis]);
            let count = match self.merged && axis == last {
                true => 1,
                false => ((self.taps[axis] - phase + stride - 1) / stride).max(0),
            };
            reduction = serial(taps[axis], Expr::index(count), reduction);
        }
        let at = geometry.image(Expr::Var(batch), out_channel, writes);
        let start = Expr::constant(accumulator, 0.0);
        let mut body = vec![Stmt::Store { buffer: sum, index: zero.clone(), value: start, valid: None }];
        body.extend(reduction);
        body.extend(super::convolve::finish(lowering, &geometry.epilogue, Expr::load(sum, zero), &at));
        let lane_extent = match self.merged {
            true => Expr::index(geometry.strides[last]),
            false => lowering.dim(&filter.shape[spatial]),
        };
        let mut nest = serial(lane, lane_extent, body);
        for axis in (0..spatial).rev() {
            let extent = lowering.dim(&extents[axis]).at_least(Expr::index(0));
            nest = serial(positions[axis], extent, nest);
        }
        let batches = lowering.dim(&input.shape[0]);
        lowering.kernel.body = serial(batch, batches, nest);
        let mut outer = vec![batch];
        outer.extend(&positions[..last]);
        let rows = extents[last].as_const();
        let lanes_at = LanesAt::OutsideRows;
        schedule(
            lowering,
            Nest { outer, row: Some(positions[last]), lane, accumulator: sum, rows, lanes_at, joined: None },
            tile,
        )?;
        let body = std::mem::take(&mut lowering.kernel.body);
        lowering.launch(body, false);
        Ok(())
    }
}

/// Each output element sums the taps whose input position is a whole number.
fn gather(lowering: &mut Lowering, geometry: &Geometry) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let (input, filter) = (lowering.operands[0].clone(), lowering.operands[1].clone());
    let groups = Dim::from(geometry.groups);
    let in_per_group = geometry.channels(&input).floor_div(&groups);
    let out_per_group = geometry.channels(&result).floor_div(&groups);
    let taps = geometry.filter_extents(&filter);
    let input_extents = geometry.extents(&input);
    let vectors = geometry.layout == Layout::ChannelsLast && geometry.groups == 1;
    let lanes = if vectors { lowering.tuning.lanes(geometry.accumulator) } else { 1 };
    let stmts = lowering.parallel_nest(&result.shape, lanes, &mut |this, at| {
        let (batch, out_channel, positions) = split_image(geometry, at);
        let (in_count, out_count) = (this.dim(&in_per_group), this.dim(&out_per_group));
        let (group, within) = match geometry.groups {
            1 => (Expr::index(0), out_channel.clone()),
            _ => (out_channel.clone().over(out_count.clone()), out_channel.clone().remainder(out_count)),
        };
        let (sum, first) = this.assign("sum", Expr::constant(geometry.accumulator, 0.0));
        let counters: Vec<Var> =
            (0..geometry.spatial).map(|axis| this.kernel.counter(&format!("k{axis}"))).collect();
        let taps_at: Vec<Expr> = counters.iter().map(|var| Expr::Var(*var)).collect();
        let (mut reads, mut conditions) = (Vec::new(), Vec::new());
        for axis in 0..geometry.spatial {
            let stride = Expr::index(geometry.strides[axis]);
            let extent = this.dim(&input_extents[axis]);
            // position = input * stride - low + tap * dilation
            let reached = positions[axis].clone().plus(Expr::index(geometry.low[axis]));
            let offset = reached.minus(taps_at[axis].clone().times(Expr::index(geometry.dilations[axis])));
            let source = offset.clone().over(stride.clone());
            conditions.push(Expr::index(0).less_equal(offset.clone()));
            if geometry.strides[axis] > 1 {
                let whole = Expr::call(
                    tcc_ir::scalar::Function::Equal,
                    vec![offset.remainder(stride), Expr::index(0)],
                );
                conditions.push(whole);
            }
            conditions.push(source.clone().less(extent));
            reads.push(source);
        }
        let inner = this.for_loop("c", in_count.clone(), LoopKind::Serial, |this, channel| {
            let in_channel = group.clone().times(in_count.clone()).plus(channel);
            let x = this.load(
                Argument::Operand(0),
                &geometry.image(batch.clone(), in_channel.clone(), reads.clone()),
            );
            let w = this
                .load(Argument::Operand(1), &geometry.filter(in_channel, within.clone(), taps_at.clone()));
            let x = x.cast(input.dtype(), geometry.accumulator);
            let w = w.cast(filter.dtype(), geometry.accumulator);
            vec![Stmt::Assign { var: sum, value: multiply_add(geometry.accumulator, x, w, Expr::Var(sum)) }]
        });
        let condition = conditions.into_iter().reduce(Expr::both);
        let mut body = match condition {
            Some(condition) => vec![Stmt::If { condition, then: vec![inner], otherwise: vec![] }],
            None => vec![inner],
        };
        for axis in (0..geometry.spatial).rev() {
            let extent = this.dim(&taps[axis]);
            body = vec![Stmt::For { var: counters[axis], extent, kind: LoopKind::Serial, body }];
        }
        let mut stmts = vec![first];
        stmts.extend(body);
        stmts.extend(super::convolve::finish(this, &geometry.epilogue, Expr::Var(sum), at));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}
