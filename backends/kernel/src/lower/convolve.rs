//! Convolutions: register-tiled over output channels and positions of the last spatial axis (channels last), by Winograd's
//! algorithms where they pay, depthwise, and a plain nest for channels first.

mod depthwise;

use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;
use tcc_ir::words::{Layout, PadKind};

use super::contract::{LanesAt, Nest, Tile, multiplies_bytes, multiply_add, schedule};
use super::gpu;
use super::halo::Window;
use super::winograd::{Plan, winograd};
use super::{Argument, LowerError, Lowering, PackedLayout, Packing};
use crate::ir::{Access, Expr, LoopKind, Space, Stmt, Var};
use crate::steps::DOT_GROUP;

/// Attributes of a convolution with its operands' roles.
pub struct Geometry {
    /// Order of the axes.
    pub layout: Layout,
    /// Groups of channels.
    pub groups: usize,
    /// Step of each spatial axis.
    pub strides: Vec<i64>,
    /// Distance of taps on each spatial axis.
    pub dilations: Vec<i64>,
    /// Low padding of each spatial axis.
    pub low: Vec<i64>,
    /// High padding of each spatial axis.
    pub high: Vec<i64>,
    /// Type of the sums.
    pub accumulator: DType,
    /// What is done to each sum.
    pub epilogue: ScalarExpr,
    /// Number of spatial axes.
    pub spatial: usize,
}

impl Geometry {
    /// The attributes of an operator.
    pub fn of(lowering: &Lowering, operator: &Operator) -> Result<Geometry, LowerError> {
        let (Operator::Convolve { layout, groups, strides, dilations, pads, accumulator, epilogue }
        | Operator::ConvolveTranspose {
            layout,
            groups,
            strides,
            dilations,
            pads,
            accumulator,
            epilogue,
            ..
        }) = operator
        else {
            return Err(lowering.malformed("not a convolution"));
        };
        let spatial = strides.len();
        Ok(Geometry {
            layout: *layout,
            groups: *groups,
            strides: strides.iter().map(|value| *value as i64).collect(),
            dilations: dilations.iter().map(|value| *value as i64).collect(),
            low: pads[..spatial].to_vec(),
            high: pads[spatial..].to_vec(),
            accumulator: *accumulator,
            epilogue: epilogue.clone(),
            spatial,
        })
    }

    /// Coordinates of an image-like tensor.
    pub fn image(&self, batch: Expr, channel: Expr, spatial: Vec<Expr>) -> Vec<Expr> {
        match self.layout {
            Layout::ChannelsFirst => [vec![batch, channel], spatial].concat(),
            Layout::ChannelsLast => [vec![batch], spatial, vec![channel]].concat(),
        }
    }

    /// Coordinates of a filter: `outer` is the axis that stands first in channels-first order.
    pub fn filter(&self, outer: Expr, inner: Expr, spatial: Vec<Expr>) -> Vec<Expr> {
        match self.layout {
            Layout::ChannelsFirst => [vec![outer, inner], spatial].concat(),
            Layout::ChannelsLast => [spatial, vec![inner, outer]].concat(),
        }
    }

    /// Number of channels of an image-like tensor.
    pub fn channels(&self, ty: &TensorType) -> Dim {
        match self.layout {
            Layout::ChannelsFirst => ty.shape[1].clone(),
            Layout::ChannelsLast => ty.shape[ty.rank() - 1].clone(),
        }
    }

    /// Spatial extents of an image-like tensor.
    pub fn extents(&self, ty: &TensorType) -> Vec<Dim> {
        match self.layout {
            Layout::ChannelsFirst => ty.shape[2..].to_vec(),
            Layout::ChannelsLast => ty.shape[1..ty.rank() - 1].to_vec(),
        }
    }

    /// Taps of a filter along each spatial axis.
    pub fn filter_extents(&self, ty: &TensorType) -> Vec<Dim> {
        match self.layout {
            Layout::ChannelsFirst => ty.shape[2..].to_vec(),
            Layout::ChannelsLast => ty.shape[..ty.rank() - 2].to_vec(),
        }
    }

    fn is_depthwise(&self, lowering: &Lowering) -> bool {
        self.groups > 1
            && self.channels(&lowering.operands[0]).is(self.groups as i64)
            && self.channels(&lowering.results[0]).is(self.groups as i64)
    }
}

/// Lowers a convolution.
pub fn convolve(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let geometry = Geometry::of(lowering, operator)?;
    if let Some((operands, result)) = as_matrices(lowering, &geometry) {
        // A pointwise convolution is a matrix multiplication over all positions at once.
        let contraction = Operator::Contract {
            spec: ContractionSpec::matmul(0),
            accumulator: geometry.accumulator,
            epilogue: geometry.epilogue.clone(),
        };
        return lowering.delegate(&contraction, &operands, &[result]);
    }
    if let Some(device) = &lowering.tuning.gpu
        && geometry.layout == Layout::ChannelsLast
        && geometry.groups == 1
    {
        let convolution = gpu::Convolution {
            strides: &geometry.strides,
            dilations: &geometry.dilations,
            low: &geometry.low,
            epilogue: &geometry.epilogue,
            packed: None,
        };
        if gpu::convolve(lowering, device, geometry.accumulator, convolution)? {
            return Ok(());
        }
    }
    if let Some(plan) = Plan::choose(lowering, &geometry) {
        return winograd(lowering, &geometry, &plan);
    }
    match geometry.layout {
        Layout::ChannelsLast if geometry.is_depthwise(lowering) => depthwise::depthwise(lowering, &geometry),
        Layout::ChannelsLast => tiled(lowering, &geometry),
        Layout::ChannelsFirst => plain(lowering, &geometry),
    }
}

/// Operand and result types of a pointwise channels-last convolution seen as a matrix multiplication; `None` where it is
/// not one or an epilogue operand does not follow.
fn as_matrices(lowering: &Lowering, geometry: &Geometry) -> Option<(Vec<TensorType>, TensorType)> {
    let pointwise = geometry.layout == Layout::ChannelsLast
        && geometry.groups == 1
        && geometry.strides.iter().all(|stride| *stride == 1)
        && geometry.low.iter().chain(&geometry.high).all(|pad| *pad == 0)
        && geometry.filter_extents(&lowering.operands[1]).iter().all(|tap| tap.is(1));
    if !pointwise {
        return None;
    }
    let matrix = |ty: &TensorType, leading: usize| {
        let rows = Dim::product(&ty.shape[..leading]);
        TensorType::new(ty.dtype(), [vec![rows], ty.shape[leading..].to_vec()].concat())
    };
    let result = &lowering.results[0];
    let positions = result.rank() - 1;
    let filter = &lowering.operands[1];
    let filter = TensorType::new(filter.dtype(), filter.shape[geometry.spatial..].to_vec());
    let mut operands = vec![matrix(&lowering.operands[0], positions), filter];
    for rest in &lowering.operands[2..] {
        if rest.shape == result.shape {
            operands.push(matrix(rest, positions));
        } else if rest.shape.iter().rev().skip(1).all(|dim| dim.is(1)) {
            let last = rest.shape.last().cloned().into_iter().collect();
            operands.push(TensorType::new(rest.dtype(), last));
        } else {
            return None;
        }
    }
    Some((operands, matrix(result, positions)))
}

/// The range of filter positions that read inside the input, for an output position: first position and count.
fn inside(position: Expr, stride: i64, dilation: i64, low: i64, input: Expr, taps: Expr) -> (Expr, Expr) {
    // The window starts at position * stride - low.
    let start = position.times(Expr::index(stride)).minus(Expr::index(low));
    let step = Expr::index(dilation);
    let first = Expr::index(0).minus(start.clone()).at_least(Expr::index(0)).over_up(step.clone());
    let end = input.minus(start).at_least(Expr::index(0)).over_up(step).at_most(taps);
    (first.clone(), end.minus(first).at_least(Expr::index(0)))
}

/// Channels-last convolution with a register tile of output positions by output channels.
fn tiled(lowering: &mut Lowering, geometry: &Geometry) -> Result<(), LowerError> {
    let spatial = geometry.spatial;
    let (input, filter, result) =
        (lowering.operands[0].clone(), lowering.operands[1].clone(), lowering.results[0].clone());
    // Padding is written out, so that the inner loops have no conditions: each task's lines into scratch memory, or once for
    // all where a task is less than a line.
    let pads = geometry.low.iter().chain(&geometry.high).any(|pad| *pad != 0);
    let window = (pads && Window::fits(lowering, geometry)).then(|| Window::new(lowering, geometry));
    let source = if pads && window.is_none() {
        let mut shape = input.shape.clone();
        let mut low = vec![Dim::Const(0); input.rank()];
        for axis in 0..spatial {
            shape[axis + 1] = shape[axis + 1].clone() + Dim::Const(geometry.low[axis] + geometry.high[axis]);
            low[axis + 1] = Dim::Const(geometry.low[axis]);
        }
        let padded = lowering.temporary(TensorType::new(input.dtype(), shape));
        let zero = Expr::constant(input.dtype(), 0.0);
        super::movement::pad_into(lowering, Argument::Operand(0), padded, PadKind::Constant, zero, &low)?;
        padded
    } else {
        Argument::Operand(0)
    };

    let groups = geometry.groups as i64;
    let lane_rank = spatial + 1;
    let out_channels = filter.shape[lane_rank].floor_div(&Dim::Const(groups));
    let in_channels = filter.shape[spatial].clone();
    let out_extents = geometry.extents(&result);
    // Rows of the tile run along the last spatial axis that has any extent: a 1-D convolution often comes as 2-D.
    let row_axis = (0..spatial).rev().find(|axis| !out_extents[*axis].is(1)).unwrap_or(spatial - 1);
    let rows_known = out_extents[row_axis].as_const();
    let native = i64::from(lowering.tuning.lanes(geometry.accumulator));
    let tile = Tile::choose(rows_known, out_channels.as_const(), native, lowering.tuning);

    // Packed: [group?, channel tile, taps..., in, lanes]; without groups the group axis is absent.
    let packs = lowering.constant[1]
        && filter.static_shape().is_some()
        && !filter.dtype().is_packed()
        && (groups == 1 || out_channels.as_const().is_some_and(|lanes| lanes % tile.lanes == 0));
    let (weights, layout) = if packs {
        let mut order = vec![lane_rank];
        order.extend(0..lane_rank);
        let factors = [input.dtype(), filter.dtype()];
        let bytes =
            multiplies_bytes(lowering.tuning, factors, geometry.accumulator, in_channels.as_const(), tile);
        let group = bytes.then_some((spatial, DOT_GROUP as usize));
        let layout = PackedLayout { order, lane_axis: lane_rank, width: tile.lanes as usize, group };
        let packed = TensorType::new(filter.dtype(), layout.shape(&filter.shape));
        (
            lowering.packed(Packing {
                operand: 1,
                source: filter.shape.clone(),
                winograd: None,
                layout: layout.clone(),
                packed,
            }),
            Some(layout),
        )
    } else {
        (Argument::Operand(1), None)
    };

    let counter = |lowering: &mut Lowering, name: &str| lowering.kernel.counter(name);
    let batch = counter(lowering, "n");
    let positions: Vec<Var> = (0..spatial).map(|axis| counter(lowering, &format!("o{axis}"))).collect();
    let group = counter(lowering, "g");
    let lane = counter(lowering, "lane");
    let taps: Vec<Var> = (0..spatial).map(|axis| counter(lowering, &format!("k{axis}"))).collect();
    let channel = counter(lowering, "c");

    let read_at: Vec<Expr> = (0..spatial)
        .map(|axis| {
            let moved = Expr::Var(positions[axis]).times(Expr::index(geometry.strides[axis]));
            moved.plus(Expr::Var(taps[axis]).times(Expr::index(geometry.dilations[axis])))
        })
        .collect();
    let (group_extent, out_extent) = (Expr::index(groups), lowering.dim(&out_channels));
    let in_extent = lowering.dim(&in_channels);
    let in_channel = if groups == 1 {
        Expr::Var(channel)
    } else {
        Expr::Var(group).times(in_extent.clone()).plus(Expr::Var(channel))
    };
    let out_channel = if groups == 1 {
        Expr::Var(lane)
    } else {
        Expr::Var(group).times(out_extent.clone()).plus(Expr::Var(lane))
    };
    let zero = Expr::index(0);
    let accumulator = geometry.accumulator;
    let sum = lowering.kernel.buffer("sum", accumulator, Space::Register, Expr::index(1), Access::ReadWrite);
    let a = match &window {
        Some(window) => window.load(lowering, &taps, read_at[spatial - 1].clone(), in_channel),
        None => lowering.load(source, &geometry.image(Expr::Var(batch), in_channel, read_at)),
    };
    let filter_at = geometry.filter(
        out_channel.clone(),
        Expr::Var(channel),
        taps.iter().map(|var| Expr::Var(*var)).collect(),
    );
    // In the filter's own order here; the packing step changes it.
    let b = lowering.load_as(weights, 1, &filter_at);
    let (a, b) = (a.cast(input.dtype(), accumulator), b.cast(filter.dtype(), accumulator));
    let update = multiply_add(accumulator, a, b, Expr::load(sum, zero.clone()));
    let mut reduction = vec![Stmt::Store { buffer: sum, index: zero.clone(), value: update, valid: None }];
    reduction = vec![Stmt::For { var: channel, extent: in_extent, kind: LoopKind::Serial, body: reduction }];
    for (tap, extent) in taps.iter().zip(&filter.shape[..spatial]).rev() {
        let extent = lowering.dim(extent);
        reduction = vec![Stmt::For { var: *tap, extent, kind: LoopKind::Serial, body: reduction }];
    }
    let at =
        geometry.image(Expr::Var(batch), out_channel, positions.iter().map(|var| Expr::Var(*var)).collect());
    let start = Expr::constant(accumulator, 0.0);
    let mut body = vec![Stmt::Store { buffer: sum, index: zero.clone(), value: start, valid: None }];
    body.extend(reduction);
    body.extend(finish(lowering, &geometry.epilogue, Expr::load(sum, zero), &at));
    let mut nest = vec![Stmt::For { var: lane, extent: out_extent, kind: LoopKind::Serial, body }];
    let row = positions[row_axis];
    let row_extent = lowering.dim(&out_extents[row_axis]);
    nest = vec![Stmt::For { var: row, extent: row_extent, kind: LoopKind::Serial, body: nest }];
    let mut outer = vec![];
    if groups > 1 {
        nest = vec![Stmt::For { var: group, extent: group_extent, kind: LoopKind::Serial, body: nest }];
        outer.insert(0, group);
    }
    for axis in (0..spatial).rev().filter(|axis| *axis != row_axis) {
        let extent = lowering.dim(&out_extents[axis]);
        nest = vec![Stmt::For { var: positions[axis], extent, kind: LoopKind::Serial, body: nest }];
        outer.insert(0, positions[axis]);
    }
    let batch_extent = lowering.dim(&input.shape[0]);
    lowering.kernel.body =
        vec![Stmt::For { var: batch, extent: batch_extent, kind: LoopKind::Serial, body: nest }];
    outer.insert(0, batch);
    if let Some(layout) = &layout {
        lowering.pack(weights, 1, layout)?;
    }
    if layout.is_some_and(|layout| layout.group.is_some()) {
        let packed = lowering.buffer(weights);
        lowering.kernel.tensorize_dot(channel, packed)?;
    }
    let bytes = filter
        .static_shape()
        .map(|shape| shape.iter().product::<usize>() as u64 * filter.dtype().size() as u64);
    let large = bytes.is_some_and(|bytes| bytes > lowering.tuning.l2_bytes / 2);
    // Tasks that fill a window are lines of the result, or parts of lines where those are few.
    let mut lines = vec![input.shape[0].clone()];
    lines.extend_from_slice(&out_extents[..spatial - 1]);
    let few = window.is_some() && Dim::product(&lines).as_const().is_some_and(|lines| lines < FEW_LINES);
    let lanes_at = if large || few { LanesAt::Outermost } else { LanesAt::OutsideRows };
    let joined = window.is_some().then_some(lines.len());
    let plan = Nest { outer, row: Some(row), lane, accumulator: sum, rows: rows_known, lanes_at, joined };
    let scheduled = schedule(lowering, plan, tile)?;
    if let Some(window) = window {
        if lanes_at == LanesAt::Outermost {
            lines.insert(1, out_channels.ceil_div(&Dim::Const(tile.lanes)));
        }
        let mut at = lowering.decode(Expr::Var(scheduled.task), &lines);
        if lanes_at == LanesAt::Outermost {
            at.remove(1);
        }
        let fill = window.fill(lowering, geometry, &at);
        if let [Stmt::For { body, .. }] = &mut lowering.kernel.body[..] {
            body.splice(0..0, fill);
        }
    }
    let body = std::mem::take(&mut lowering.kernel.body);
    lowering.launch_epilogue(body, scheduled.writes_once);
    Ok(())
}

/// Lines of a result below which tasks that are lines would leave threads without work.
const FEW_LINES: i64 = 16;

/// Epilogue and store of a convolution result at output coordinates.
pub fn finish(lowering: &mut Lowering, epilogue: &ScalarExpr, sum: Expr, at: &[Expr]) -> Vec<Stmt> {
    let mut inputs = vec![sum];
    for operand in 2..lowering.operands.len() {
        inputs.push(lowering.load_broadcast(Argument::Operand(operand), at));
    }
    let (mut stmts, value) = lowering.scalar(epilogue, &inputs);
    stmts.push(lowering.store(Argument::Result(0), at, value));
    stmts
}

/// One output element at a time, in any layout: the taps inside the input, then the channels of the group.
fn plain(lowering: &mut Lowering, geometry: &Geometry) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let (input, filter) = (lowering.operands[0].clone(), lowering.operands[1].clone());
    let in_channels = match geometry.layout {
        Layout::ChannelsFirst => filter.shape[1].clone(),
        Layout::ChannelsLast => filter.shape[geometry.spatial].clone(),
    };
    let per_group = geometry.channels(&result).floor_div(&Dim::from(geometry.groups));
    let taps = geometry.filter_extents(&filter);
    let input_extents = geometry.extents(&input);
    let stmts = lowering.parallel_rows(&result.shape, &mut |this, at| {
        let (batch, out_channel, positions) = split_image(geometry, at);
        let in_count = this.dim(&in_channels);
        let per_group = this.dim(&per_group);
        let group = out_channel.clone().over(per_group);
        let (sum, first) = this.assign("sum", Expr::constant(geometry.accumulator, 0.0));
        let counters: Vec<Var> =
            (0..geometry.spatial).map(|axis| this.kernel.counter(&format!("k{axis}"))).collect();
        let (mut reads, mut extents, mut filter_at) = (Vec::new(), Vec::new(), Vec::new());
        for axis in 0..geometry.spatial {
            let (stride, dilation, low) =
                (geometry.strides[axis], geometry.dilations[axis], geometry.low[axis]);
            let (count, extent) = (this.dim(&taps[axis]), this.dim(&input_extents[axis]));
            let (from, inside) = inside(positions[axis].clone(), stride, dilation, low, extent, count);
            let tap = from.plus(Expr::Var(counters[axis]));
            let start = positions[axis].clone().times(Expr::index(stride)).minus(Expr::index(low));
            reads.push(start.plus(tap.clone().times(Expr::index(dilation))));
            filter_at.push(tap);
            extents.push(inside);
        }
        let inner = this.for_loop("c", in_count.clone(), LoopKind::Serial, |this, channel| {
            let in_channel = group.clone().times(in_count.clone()).plus(channel.clone());
            let x =
                this.load(Argument::Operand(0), &geometry.image(batch.clone(), in_channel, reads.clone()));
            let w = this.load(
                Argument::Operand(1),
                &geometry.filter(out_channel.clone(), channel, filter_at.clone()),
            );
            let x = x.cast(input.dtype(), geometry.accumulator);
            let w = w.cast(filter.dtype(), geometry.accumulator);
            vec![Stmt::Assign { var: sum, value: multiply_add(geometry.accumulator, x, w, Expr::Var(sum)) }]
        });
        let mut body = vec![inner];
        for axis in (0..geometry.spatial).rev() {
            let extent = extents[axis].clone();
            body = vec![Stmt::For { var: counters[axis], extent, kind: LoopKind::Serial, body }];
        }
        let mut stmts = vec![first];
        stmts.extend(body);
        stmts.extend(finish(this, &geometry.epilogue, Expr::Var(sum), at));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Batch, channel and spatial coordinates of an image-like tensor.
pub fn split_image(geometry: &Geometry, at: &[Expr]) -> (Expr, Expr, Vec<Expr>) {
    match geometry.layout {
        Layout::ChannelsFirst => (at[0].clone(), at[1].clone(), at[2..].to_vec()),
        Layout::ChannelsLast => (at[0].clone(), at[at.len() - 1].clone(), at[1..at.len() - 1].to_vec()),
    }
}
