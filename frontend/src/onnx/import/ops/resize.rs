//! Resampling: Resize, Upsample, GridSample, AffineGrid.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::sizes::{self, SIZE};
use super::super::table::{Entry, between, since};
use super::scalar::Body;
use tcc_ir::attribute::Real;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::{CoordinateKind, NearestKind, PadKind, ResizeKind};

pub(super) static TABLE: &[Entry] = &[
    between(7, 9, "Upsample", upsample),
    between(10, 10, "Upsample", upsample),
    between(10, 10, "Resize", upsample),
    since(11, "Resize", resize),
    since(16, "GridSample", grid_sample),
    since(20, "AffineGrid", affine_grid),
];

fn kind(name: &str) -> Result<ResizeKind, Refusal> {
    Ok(match name {
        "nearest" => ResizeKind::Nearest,
        "linear" | "bilinear" => ResizeKind::Linear,
        "cubic" | "bicubic" => ResizeKind::Cubic,
        other => return Err(attribute("mode", format!("'{other}'"))),
    })
}

/// Attributes of a resize with the defaults of the operator before version 11.
struct Resampling {
    kind: ResizeKind,
    coordinates: CoordinateKind,
    nearest: NearestKind,
    cubic: f64,
    exclude_outside: bool,
    outside: f64,
    region: Vec<f64>,
    antialias: bool,
}

impl Resampling {
    fn apply(self, context: &mut Context<'_>, x: Value, shape: Vec<Dim>, scales: Vec<f64>) -> Lowered {
        let reals = |list: Vec<f64>| list.into_iter().map(Real::from).collect();
        let operator = Operator::Resize {
            kind: self.kind,
            coordinates: self.coordinates,
            nearest: self.nearest,
            shape,
            scales: reals(scales),
            cubic: Real::from(self.cubic),
            exclude_outside: self.exclude_outside,
            outside: Real::from(self.outside),
            region: reals(self.region),
            antialias: self.antialias,
        };
        one(context.builder.op1(operator, &[x])?)
    }
}

/// Upsample, and Resize as it was in version 10: coordinates divided by the scale, rounded down.
fn upsample(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let scales = match node.floats("scales")? {
        Some(scales) => scales.iter().map(|&scale| scale.into()).collect(),
        None => context.numbers(node, 1, "scales")?.ok_or_else(|| operands("the scales are missing"))?,
    };
    let shape = scaled_shape(context, x, &scales)?;
    let resampling = Resampling {
        kind: kind(node.string("mode")?.unwrap_or("nearest"))?,
        coordinates: CoordinateKind::Asymmetric,
        nearest: NearestKind::Floor,
        cubic: -0.75,
        exclude_outside: false,
        outside: 0.0,
        region: Vec::new(),
        antialias: false,
    };
    resampling.apply(context, x, shape, scales)
}

/// `floor(extent * scale)` for each axis.
fn scaled_shape(context: &mut Context<'_>, x: Value, scales: &[f64]) -> Result<Vec<Dim>, Refusal> {
    let shape = context.shape(x)?;
    if scales.len() != shape.len() || scales.iter().any(|scale| !scale.is_finite() || *scale <= 0.0) {
        return Err(operands(format!("scales {scales:?} for rank {}", shape.len())));
    }
    shape.iter().zip(scales).map(|(extent, &scale)| scaled(context, extent, scale)).collect()
}

fn scaled(context: &mut Context<'_>, extent: &Dim, scale: f64) -> Result<Dim, Refusal> {
    if let Some(extent) = extent.as_const() {
        // The product is taken in f32, as exporters do that computed the declared shapes.
        return Ok(Dim::Const((extent as f32 * scale as f32).floor() as i64));
    }
    // A scale that is a ratio of small integers gives a symbolic size.
    for denominator in 1..=64i64 {
        let numerator = scale * denominator as f64;
        if (numerator - numerator.round()).abs() < 1e-9 * numerator && numerator.round() >= 1.0 {
            let product = extent.clone() * Dim::Const(numerator.round() as i64);
            return Ok(product.floor_div(&Dim::Const(denominator)));
        }
    }
    let number = context.size_scalar(extent.clone())?;
    let mut body = Body::new(1, DType::I64);
    let number_of = body.operand(0);
    let real = body.cast(number_of, DType::F64);
    let factor = tcc_ir::scalar::Arg::Const(tcc_ir::scalar::Scalar::float(DType::F64, scale));
    let product = body.call(Function::Mul, &[real, factor]);
    let whole = body.call(Function::Floor, &[product]);
    let whole = body.cast(whole, DType::I64);
    let size = context.builder.map(body.finish_as_is(whole), &[number])?;
    Ok(context.bind(size, 2, "resize", SIZE)?.remove(0))
}

fn resize(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let source = context.shape(x)?;
    let rank = source.len();
    let axes = match node.ints("axes")? {
        Some(axes) => sizes::axes(axes, rank)?,
        None => (0..rank).collect(),
    };
    let coordinates = match node.string("coordinate_transformation_mode")?.unwrap_or("half_pixel") {
        "half_pixel" => CoordinateKind::HalfPixel,
        "half_pixel_symmetric" => CoordinateKind::HalfPixelSymmetric,
        "pytorch_half_pixel" => CoordinateKind::PytorchHalfPixel,
        "align_corners" => CoordinateKind::AlignCorners,
        "asymmetric" => CoordinateKind::Asymmetric,
        "tf_crop_and_resize" => CoordinateKind::TfCropAndResize,
        other => return Err(attribute("coordinate_transformation_mode", format!("'{other}'"))),
    };
    let nearest = match node.string("nearest_mode")?.unwrap_or("round_prefer_floor") {
        "round_prefer_floor" => NearestKind::RoundPreferFloor,
        "round_prefer_ceil" => NearestKind::RoundPreferCeil,
        "floor" => NearestKind::Floor,
        "ceil" => NearestKind::Ceil,
        other => return Err(attribute("nearest_mode", format!("'{other}'"))),
    };
    let region = if coordinates == CoordinateKind::TfCropAndResize {
        region(context, node, &axes, rank)?
    } else {
        Vec::new()
    };
    let (shape, scales) = target(context, node, x, &axes)?;
    let resampling = Resampling {
        kind: kind(node.string("mode")?.unwrap_or("nearest"))?,
        coordinates,
        nearest,
        cubic: node.float("cubic_coeff_a")?.map_or(-0.75, f64::from),
        exclude_outside: node.flag("exclude_outside", false)?,
        outside: node.float("extrapolation_value")?.map_or(0.0, f64::from),
        region,
        antialias: node.flag("antialias", false)?,
    };
    resampling.apply(context, x, shape, scales)
}

/// Region of interest over all axes, starts then ends; axes that are not resized are taken whole.
fn region(context: &Context<'_>, node: &Node, axes: &[usize], rank: usize) -> Result<Vec<f64>, Refusal> {
    let given = context.numbers(node, 1, "roi")?.unwrap_or_default();
    if given.len() != 2 * axes.len() {
        return Err(operands(format!("roi has {} numbers for {} axes", given.len(), axes.len())));
    }
    let mut region = [vec![0.0; rank], vec![1.0; rank]].concat();
    for (index, &axis) in axes.iter().enumerate() {
        (region[axis], region[rank + axis]) = (given[index], given[axes.len() + index]);
    }
    Ok(region)
}

/// The target shape, and the scales where they and not the sizes are given.
fn target(
    context: &mut Context<'_>,
    node: &Node,
    x: Value,
    axes: &[usize],
) -> Result<(Vec<Dim>, Vec<f64>), Refusal> {
    let source = context.shape(x)?;
    let given_scales = match node.input(2).and_then(|name| context.shape_of(name)) {
        // An empty tensor stands for an operand left out.
        Some(shape) if !shape.iter().any(|dim| dim.is(0)) => context.numbers(node, 2, "scales")?,
        _ => None,
    };
    if let Some(given) = given_scales {
        if given.len() != axes.len() {
            return Err(operands(format!("{} scales for {} axes", given.len(), axes.len())));
        }
        let mut scales = vec![1.0; source.len()];
        axes.iter().zip(given).for_each(|(&axis, scale)| scales[axis] = scale);
        return Ok((scaled_shape(context, x, &scales)?, scales));
    }
    let wanted = context.sizes(node, 3, "sizes", SIZE)?;
    if wanted.len() != axes.len() {
        return Err(operands(format!("{} sizes for {} axes", wanted.len(), axes.len())));
    }
    let mut shape = source.clone();
    let larger = match node.string("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
        "stretch" => {
            axes.iter().zip(wanted).for_each(|(&axis, size)| shape[axis] = size);
            return Ok((shape, Vec::new()));
        }
        "not_larger" => false,
        "not_smaller" => true,
        other => return Err(attribute("keep_aspect_ratio_policy", format!("'{other}'"))),
    };
    let mut ratios = Vec::new();
    for (&axis, size) in axes.iter().zip(&wanted) {
        match (size.as_const(), source[axis].as_const()) {
            (Some(size), Some(extent)) if extent > 0 => ratios.push(size as f64 / extent as f64),
            (None, Some(_)) => return Err(Refusal::RunTime { operand: 3, name: "sizes" }),
            _ => return Err(unsupported("an aspect ratio kept between symbolic extents")),
        }
    }
    let scale = ratios
        .into_iter()
        .fold(if larger { 0.0 } else { f64::INFINITY }, if larger { f64::max } else { f64::min });
    let mut scales = vec![1.0; source.len()];
    for &axis in axes {
        let extent = source[axis].as_const().unwrap_or(0) as f64;
        shape[axis] = Dim::Const((extent * scale + 0.5).floor() as i64);
        scales[axis] = scale;
    }
    Ok((shape, scales))
}

fn grid_sample(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, grid) = (context.operand(node, 0, "X")?, context.operand(node, 1, "grid")?);
    let outside = match node.string("padding_mode")?.unwrap_or("zeros") {
        "zeros" => PadKind::Constant,
        "border" => PadKind::Edge,
        "reflection" => PadKind::Reflect,
        other => return Err(attribute("padding_mode", format!("'{other}'"))),
    };
    let kind = kind(node.string("mode")?.unwrap_or("bilinear"))?;
    let dtype = context.dtype(x)?;
    let grid = context.builder.cast(grid, dtype)?;
    let align_corners = node.flag("align_corners", false)?;
    one(context.builder.op1(Operator::GridSample { kind, outside, align_corners }, &[x, grid])?)
}

/// Sampling positions `theta * (x, y[, z], 1)` over the normalized coordinates of an output of the given size.
fn affine_grid(context: &mut Context<'_>, node: &Node) -> Lowered {
    let theta = context.operand(node, 0, "theta")?;
    let size = context.sizes(node, 1, "size", SIZE)?;
    let [batch, _, spatial @ ..] = &size[..] else { return Err(operands("the size has no spatial extents")) };
    let align_corners = node.flag("align_corners", false)?;
    let (rank, dtype) = (spatial.len(), context.dtype(theta)?);
    let expected = [batch.clone(), Dim::from(rank), Dim::from(rank + 1)];
    for (have, want) in context.shape(theta)?.into_iter().zip(expected) {
        context.require_equal(have, want, "sizes")?;
    }
    // Column j of theta, shaped to broadcast against [batch, spatial..., coordinate].
    let column = |context: &mut Context<'_>, index: usize| -> Result<Value, Refusal> {
        let part = context.slice_axis(theta, 2, Dim::from(index), Dim::Const(1))?;
        let mut shape = vec![Dim::Const(1); rank + 2];
        (shape[0], shape[rank + 1]) = (batch.clone(), Dim::from(rank));
        Ok(context.builder.reshape(part, shape)?)
    };
    let mut total = column(context, rank)?;
    // The first coordinate belongs to the last axis.
    for coordinate in 0..rank {
        let axis = rank - coordinate;
        let mut shape = vec![Dim::Const(1); rank + 2];
        shape[axis] = spatial[axis - 1].clone();
        let place = context.builder.op1(Operator::Iota { dtype: DType::I64, shape, axis }, &[])?;
        let place = context.builder.cast(place, dtype)?;
        let extent = context.size_scalar(spatial[axis - 1].clone())?;
        let extent = context.builder.cast(extent, dtype)?;
        let factor = column(context, coordinate)?;
        let mut body = Body::new(4, dtype);
        let args = [body.operand(0), body.operand(1), body.operand(2), body.operand(3)];
        let doubled = body.with(Function::Mul, args[0], 2.0);
        let position = if align_corners {
            let steps = body.with(Function::Sub, args[1], 1.0);
            body.call(Function::Div, &[doubled, steps])
        } else {
            let centre = body.with(Function::Add, doubled, 1.0);
            body.call(Function::Div, &[centre, args[1]])
        };
        let position = body.with(Function::Sub, position, 1.0);
        let term = body.call(Function::Mul, &[position, args[2]]);
        let sum = body.call(Function::Add, &[args[3], term]);
        total = context.builder.map(body.finish(sum), &[place, extent, factor, total])?;
    }
    one(total)
}
