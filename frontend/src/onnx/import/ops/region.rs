//! RoiAlign: bilinear samples on a regular grid in each region of interest, pooled by bin.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::table::{Entry, since};
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::types::Type;
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] = &[since(10, "RoiAlign", roi_align)];

/// Samples along one axis of all regions, each `[regions, samples]`: the two elements around and their weights, which are
/// 0 for samples outside of the image.
struct Samples {
    places: [Value; 2],
    weights: [Value; 2],
}

/// What is the same for both axes.
struct Grid {
    regions: Value,
    scale: f64,
    half_pixel: bool,
    /// Samples along an axis of one bin.
    ratio: i64,
    /// The type that positions are computed in.
    compute: DType,
}

fn roi_align(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, regions) = (context.operand(node, 0, "X")?, context.operand(node, 1, "rois")?);
    let batch = context.operand(node, 2, "batch_indices")?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let [images, channels, height, width] = &shape[..] else {
        return Err(operands("X has another rank than 4"));
    };
    let count = context.shape(regions)?.first().cloned().ok_or_else(|| operands("rois is a scalar"))?;
    let size = |name: &str| -> Result<i64, Refusal> {
        let size = node.int(name)?.unwrap_or(1);
        if (1..=1 << 16).contains(&size) { Ok(size) } else { Err(attribute(name, format!("{size}"))) }
    };
    let (rows, columns) = (size("output_height")?, size("output_width")?);
    let default = if node.id.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match node.string("coordinate_transformation_mode")?.unwrap_or(default) {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(attribute("coordinate_transformation_mode", format!("'{other}'"))),
    };
    let maximum = match node.string("mode")?.unwrap_or("avg") {
        "avg" => false,
        "max" => true,
        other => return Err(attribute("mode", format!("'{other}', expected avg or max"))),
    };
    let ratio = node.int("sampling_ratio")?.unwrap_or(0);
    if ratio == 0 {
        // The number of samples follows from each region's size.
        let result = vec![count, channels.clone(), Dim::Const(rows), Dim::Const(columns)];
        return context.host_with_default(node, default, Type::tensor(dtype, result));
    }
    if !(1..=1 << 10).contains(&ratio) {
        return Err(attribute("sampling_ratio", format!("{ratio}")));
    }
    let scale = node.float("spatial_scale")?.map_or(1.0, f64::from);
    let compute = super::scalar::compute_type(dtype);
    let grid = Grid { regions, scale, half_pixel, ratio, compute };
    let y = samples(context, &grid, 1, rows, height)?;
    let x_samples = samples(context, &grid, 0, columns, width)?;
    // Pixels as rows of channels, addressed by one index.
    let pixels = context.builder.transpose(x, vec![0, 2, 3, 1])?;
    let flat = images.clone() * height.clone() * width.clone();
    let pixels = context.builder.reshape(pixels, vec![flat, channels.clone()])?;
    let unit = Dim::Const(1);
    let batch = context.builder.cast(batch, DType::I64)?;
    let batch = context.builder.reshape(batch, vec![count.clone(), unit.clone(), unit.clone()])?;
    let (height, width) = (context.size_scalar(height.clone())?, context.size_scalar(width.clone())?);
    let (vertical, horizontal) = (Dim::Const(rows * ratio), Dim::Const(columns * ratio));
    let mut total = None;
    for (row, row_weight) in y.places.into_iter().zip(y.weights) {
        for (column, column_weight) in x_samples.places.into_iter().zip(x_samples.weights) {
            let down = [row, row_weight].map(|value| {
                context.builder.reshape(value, vec![count.clone(), vertical.clone(), unit.clone()])
            });
            let [row, row_weight] = down;
            let across = [column, column_weight].map(|value| {
                context.builder.reshape(value, vec![count.clone(), unit.clone(), horizontal.clone()])
            });
            let [column, column_weight] = across;
            let mut body = Body::new(5, DType::I64);
            let args: Vec<_> = (0..5).map(|index| body.operand(index)).collect();
            let place = body.call(Function::Mul, &[args[0], args[1]]);
            let place = body.call(Function::Add, &[place, args[2]]);
            let place = body.call(Function::Mul, &[place, args[3]]);
            let place = body.call(Function::Add, &[place, args[4]]);
            let place = context.builder.map(body.finish(place), &[batch, height, row?, width, column?])?;
            let values = context.builder.op1(Operator::Gather { axis: 0 }, &[pixels, place])?;
            let weight = context.call(Function::Mul, &[row_weight?, column_weight?])?;
            let weight = context.builder.cast(weight, dtype)?;
            let mut extents = context.shape(weight)?;
            extents.push(unit.clone());
            let weight = context.builder.reshape(weight, extents)?;
            let part = context.call(Function::Mul, &[values, weight])?;
            total = Some(match total {
                None => part,
                Some(total) => {
                    context.call(if maximum { Function::Max } else { Function::Add }, &[total, part])?
                }
            });
        }
    }
    let total = total.ok_or_else(|| operands("no samples"))?;
    let bins = [Dim::Const(rows), Dim::Const(ratio), Dim::Const(columns), Dim::Const(ratio)];
    let shape = std::iter::once(count).chain(bins).chain([channels.clone()]).collect();
    let total = context.builder.reshape(total, shape)?;
    let pooled = if maximum {
        context.reduce_wide(ReduceKind::Max, total, vec![2, 4], false)?
    } else {
        context.mean(total, vec![2, 4], false)?
    };
    one(context.builder.transpose(pooled, vec![0, 3, 1, 2])?)
}

/// Samples of all regions along the axis whose bounds are entries `entry` and `entry + 2` of a region.
fn samples(
    context: &mut Context<'_>,
    grid: &Grid,
    entry: usize,
    bins: i64,
    extent: &Dim,
) -> Result<Samples, Refusal> {
    let bound = |context: &mut Context<'_>, entry: usize| -> Result<Value, Refusal> {
        let value = context.slice_axis(grid.regions, 1, Dim::from(entry), Dim::Const(1))?;
        Ok(context.builder.cast(value, grid.compute)?)
    };
    let (low, high) = (bound(context, entry)?, bound(context, entry + 2)?);
    let place = Operator::Iota {
        dtype: DType::I64,
        shape: vec![Dim::Const(1), Dim::Const(bins * grid.ratio)],
        axis: 1,
    };
    let place = context.builder.op1(place, &[])?;
    let place = context.builder.cast(place, grid.compute)?;
    let size = context.size_scalar(extent.clone())?;
    let size = context.builder.cast(size, grid.compute)?;
    let mut body = Body::new(3, grid.compute);
    let args = [body.operand(0), body.operand(1), body.operand(2)];
    let shift = if grid.half_pixel { 0.5 } else { 0.0 };
    let start = body.with(Function::Mul, args[0], grid.scale);
    let start = body.with(Function::Sub, start, shift);
    let end = body.with(Function::Mul, args[1], grid.scale);
    let end = body.with(Function::Sub, end, shift);
    let length = body.call(Function::Sub, &[end, start]);
    // Without the half pixel a region is one pixel wide at least.
    let length = if grid.half_pixel { length } else { body.with(Function::Max, length, 1.0) };
    let step = body.with(Function::Div, length, (bins * grid.ratio) as f64);
    let middle = body.with(Function::Add, args[2], 0.5);
    let offset = body.call(Function::Mul, &[middle, step]);
    let position = body.call(Function::Add, &[start, offset]);
    let position = context.builder.map(body.finish(position), &[low, high, place])?;
    // One function of position and extent for each of the four results.
    let mut results = Vec::new();
    for upper in [false, true] {
        for weight in [false, true] {
            let mut body = Body::new(2, grid.compute);
            let (at, extent) = (body.operand(0), body.operand(1));
            let last = body.with(Function::Sub, extent, 1.0);
            let inside = body.with(Function::Max, at, 0.0);
            let inside = body.call(Function::Min, &[inside, last]);
            let below = body.call(Function::Floor, &[inside]);
            let result = if weight {
                let share = body.call(Function::Sub, &[inside, below]);
                let one_of = body.constant(1.0);
                let share = if upper { share } else { body.call(Function::Sub, &[one_of, share]) };
                // Samples up to one pixel outside take the edge; farther ones are nothing.
                let (edge, nothing) = (body.constant(-1.0), body.constant(0.0));
                let far = body.call(Function::Less, &[at, edge]);
                let beyond = body.call(Function::Less, &[extent, at]);
                let outside = body.call(Function::Or, &[far, beyond]);
                body.select(outside, nothing, share)
            } else {
                let above = body.with(Function::Add, below, 1.0);
                let above = body.call(Function::Min, &[above, last]);
                body.cast(if upper { above } else { below }, DType::I64)
            };
            results.push(context.builder.map(body.finish_as_is(result), &[position, size])?);
        }
    }
    Ok(Samples { places: [results[0], results[2]], weights: [results[1], results[3]] })
}
