//! Signal processing: discrete Fourier transforms as contractions with the transform's matrix, and folded columns.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::sizes::{self, SIZE};
use super::super::table::{Entry, since};
use super::convolution::{Padding, WindowAttributes};
use super::layout::constant_size;
use super::scalar::{Body, compute_type};
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_ir::words::Layout;

pub(super) static TABLE: &[Entry] = &[
    since(17, "DFT", transform),
    since(17, "STFT", short_time_transform),
    since(18, "Col2Im", columns_to_image),
];

/// How a transform is taken.
struct Transform {
    /// Number of points.
    length: Dim,
    inverse: bool,
    /// Only the first half of the spectrum, which determines the other half for real signals.
    onesided: bool,
}

fn transform(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let shape = context.shape(x)?;
    let axis = if node.id.opset < 20 {
        node.int("axis")?.unwrap_or(1)
    } else {
        match context.integers(node, 2, "axis")?.as_deref() {
            Some([axis]) => *axis,
            Some(_) => return Err(operands("the axis is no scalar")),
            None => -2,
        }
    };
    let axis = sizes::axis(axis, shape.len())?;
    if axis + 1 >= shape.len() {
        return Err(operands("the axis of real and imaginary parts cannot be transformed"));
    }
    let length = match node.input(1) {
        Some(_) => match &context.sizes(node, 1, "dft_length", SIZE)?[..] {
            [length] => length.clone(),
            _ => return Err(operands("dft_length is no scalar")),
        },
        None => shape[axis].clone(),
    };
    let (inverse, onesided) = (node.flag("inverse", false)?, node.flag("onesided", false)?);
    if inverse && onesided {
        return Err(unsupported("the inverse transform of half a spectrum"));
    }
    one(context.fourier(x, axis, Transform { length, inverse, onesided })?)
}

impl Context<'_> {
    /// The transform along `axis` of a tensor whose last axis holds real and, if there are two, imaginary parts.
    fn fourier(&mut self, x: Value, axis: usize, transform: Transform) -> Result<Value, Refusal> {
        let (shape, dtype) = (self.shape(x)?, self.dtype(x)?);
        let rank = shape.len() - 1;
        let parts = constant_size(&shape[rank], "the number of parts")?;
        if parts == 0 || parts > 2 || rank > 20 {
            return Err(operands("the last axis holds a real part and at most an imaginary one"));
        }
        // Longer signals are cut; shorter ones count as padded with zeros, which add nothing to the sums.
        let used = self.smaller(&shape[axis], &transform.length);
        let x = self.slice_axis(x, axis, Dim::Const(0), used.clone())?;
        let bins = if transform.onesided {
            transform.length.floor_div(&Dim::Const(2)) + Dim::Const(1)
        } else {
            transform.length.clone()
        };
        let mut matrices = Vec::new();
        for function in [Function::Cos, Function::Sin] {
            matrices.push(self.fourier_matrix(&used, &bins, &transform, function, dtype)?);
        }
        let labels: Vec<u8> = (b'A'..b'A' + rank as u8).collect();
        let mut out = labels.clone();
        out[axis] = b'z';
        let spec = ContractionSpec { rhs: vec![labels[axis], b'z'], lhs: labels, out };
        // Products of each part with cosine and sine.
        let mut products = Vec::new();
        for part in 0..parts {
            let plane = self.slice_axis(x, rank, Dim::from(part), Dim::Const(1))?;
            let plane_shape = self.shape(plane)?[..rank].to_vec();
            let plane = self.builder.reshape(plane, plane_shape)?;
            for &matrix in &matrices {
                products.push(self.builder.contract(spec.clone(), plane, matrix)?);
            }
        }
        // Forward: (a + ib)(cos - i sin); inverse: (a + ib)(cos + i sin).
        let (plus, minus) =
            if transform.inverse { (Function::Sub, Function::Add) } else { (Function::Add, Function::Sub) };
        let (real, imaginary) = match products[..] {
            [real_cos, real_sin] if transform.inverse => (real_cos, real_sin),
            [real_cos, real_sin] => (real_cos, self.call(Function::Neg, &[real_sin])?),
            [real_cos, real_sin, imaginary_cos, imaginary_sin] => {
                let real = self.call(plus, &[real_cos, imaginary_sin])?;
                (real, self.call(minus, &[imaginary_cos, real_sin])?)
            }
            _ => return Err(operands("the last axis holds a real part and at most an imaginary one")),
        };
        let mut planes = Vec::new();
        for plane in [real, imaginary] {
            let mut shape = self.shape(plane)?;
            shape.push(Dim::Const(1));
            planes.push(self.builder.reshape(plane, shape)?);
        }
        let spectrum = self.builder.op1(Operator::Concat { axis: rank }, &planes)?;
        if !transform.inverse {
            return Ok(spectrum);
        }
        let count = self.size_scalar(transform.length)?;
        let count = self.builder.cast(count, dtype)?;
        self.call(Function::Div, &[spectrum, count])
    }

    /// `function(2 pi n k / N)` for samples n and bins k. The product is reduced modulo N as an integer, so that large
    /// arguments lose nothing.
    fn fourier_matrix(
        &mut self,
        samples: &Dim,
        bins: &Dim,
        transform: &Transform,
        function: Function,
        dtype: DType,
    ) -> Result<Value, Refusal> {
        let rows = Operator::Iota { dtype: DType::I64, shape: vec![samples.clone(), Dim::Const(1)], axis: 0 };
        let columns = Operator::Iota { dtype: DType::I64, shape: vec![Dim::Const(1), bins.clone()], axis: 1 };
        let (rows, columns) = (self.builder.op1(rows, &[])?, self.builder.op1(columns, &[])?);
        let length = self.size_scalar(transform.length.clone())?;
        let mut body = Body::new(3, DType::I64);
        let args = [body.operand(0), body.operand(1), body.operand(2)];
        let turn = body.call(Function::Mul, &[args[0], args[1]]);
        let turn = body.call(Function::Mod, &[turn, args[2]]);
        let (turn, full) = (body.cast(turn, DType::F64), body.cast(args[2], DType::F64));
        let turn = body.call(Function::Div, &[turn, full]);
        let circle = tcc_ir::scalar::Scalar::float(DType::F64, 2.0 * std::f64::consts::PI);
        let angle = body.call(Function::Mul, &[turn, tcc_ir::scalar::Arg::Const(circle)]);
        let value = body.call(function, &[angle]);
        let value = body.cast(value, dtype);
        Ok(self.builder.map(body.finish_as_is(value), &[rows, columns, length])?)
    }
}

/// Transforms of overlapping frames `[batch, frames, bins, 2]`.
fn short_time_transform(context: &mut Context<'_>, node: &Node) -> Lowered {
    let signal = context.operand(node, 0, "signal")?;
    let mut shape = context.shape(signal)?;
    if shape.len() == 2 {
        shape.push(Dim::Const(1));
    }
    let [batch, samples, parts] = &shape[..] else {
        return Err(operands("the signal is [batch, samples, parts]"));
    };
    let signal = context.builder.reshape(signal, shape.clone())?;
    let scalar = |context: &mut Context<'_>, index, name| -> Result<Dim, Refusal> {
        match &context.sizes(node, index, name, SIZE)?[..] {
            [value] => Ok(value.clone()),
            _ => Err(operands(format!("{name} is no scalar"))),
        }
    };
    let step = scalar(context, 1, "frame_step")?;
    let window = context.optional(node, 2)?;
    let length = match (node.input(3), window) {
        (Some(_), _) => scalar(context, 3, "frame_length")?,
        (None, Some(window)) => Dim::product(&context.shape(window)?),
        (None, None) => return Err(operands("neither a window nor a frame length is given")),
    };
    let frames = (samples.clone() - length.clone()).floor_div(&step) + Dim::Const(1);
    let rows = Operator::Iota { dtype: DType::I64, shape: vec![frames.clone(), Dim::Const(1)], axis: 0 };
    let columns = Operator::Iota { dtype: DType::I64, shape: vec![Dim::Const(1), length.clone()], axis: 1 };
    let (rows, columns) = (context.builder.op1(rows, &[])?, context.builder.op1(columns, &[])?);
    let step = context.size_scalar(step)?;
    let starts = context.call(Function::Mul, &[rows, step])?;
    let places = context.call(Function::Add, &[starts, columns])?;
    let mut cut = context.builder.op1(Operator::Gather { axis: 1 }, &[signal, places])?;
    let rows = context.shape(cut)?[0].clone();
    context.require_equal(rows, batch.clone(), "batches")?;
    if let Some(window) = window {
        let window = context.builder.reshape(window, vec![length.clone(), Dim::Const(1)])?;
        cut = context.call(Function::Mul, &[cut, window])?;
    }
    // The spectrum of a complex signal has no symmetry to leave a half out by.
    let onesided = node.flag("onesided", true)? && parts.is(1);
    one(context.fourier(cut, 2, Transform { length, inverse: false, onesided })?)
}

/// Adds up overlapping blocks: a transposed convolution whose filter puts each column entry at its place.
fn columns_to_image(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let image =
        context.integers(node, 1, "image_shape")?.ok_or_else(|| operands("image_shape is missing"))?;
    let block =
        context.integers(node, 2, "block_shape")?.ok_or_else(|| operands("block_shape is missing"))?;
    let counts: Option<Vec<usize>> =
        block.iter().map(|&size| usize::try_from(size).ok().filter(|&n| n > 0)).collect();
    let block = counts.filter(|block| block.len() == image.len() && !block.is_empty());
    let block = block.ok_or_else(|| operands("block_shape and image_shape do not fit"))?;
    let entries = block.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let entries = entries.filter(|&entries| entries <= 1 << 12);
    let entries = entries.ok_or_else(|| operands(format!("a block of shape {block:?} is too large")))?;
    let window = WindowAttributes::of(node, block.clone())?;
    let rank = block.len();
    let Padding::Fixed(pads) = window.padding(node, &[])? else {
        return Err(attribute("auto_pad", "set, but the operator does not have it"));
    };
    let (mut places, mut output_pads) = (Vec::new(), Vec::new());
    for axis in 0..rank {
        let stride = window.strides[axis] as i64;
        let around = pads[axis] + pads[rank + axis] - window.span(axis);
        let room = image[axis].saturating_add(around);
        if room < 0 {
            return Err(operands("a block is larger than the image"));
        }
        places.push(Dim::Const(room / stride + 1));
        output_pads.push((room % stride) as usize);
    }
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let [batch, rows, _] = &shape[..] else { return Err(operands("the input is [batch, rows, columns]")) };
    let channels = rows
        .exact_quotient(&Dim::from(entries))
        .ok_or_else(|| operands(format!("{rows} rows are no multiple of the block's {entries} entries")))?;
    let mut folded = vec![batch.clone() * channels.clone(), Dim::from(entries)];
    folded.extend(places);
    let x = context.builder.reshape(x, folded)?;
    let identity =
        (0..entries * entries).map(|index| f32::from(u8::from(index / entries == index % entries)));
    let mut filter_shape = vec![entries, 1];
    filter_shape.extend(&block);
    let filter = context.builder.constant(Data::from_f32(&filter_shape, &identity.collect::<Vec<f32>>())?)?;
    let filter = context.builder.cast(filter, dtype)?;
    let accumulator = compute_type(dtype);
    let epilogue = if accumulator == dtype { ScalarExpr::identity() } else { ScalarExpr::cast(dtype) };
    let operator = Operator::ConvolveTranspose {
        layout: Layout::ChannelsFirst,
        groups: 1,
        strides: window.strides,
        dilations: window.dilations,
        pads,
        output_pads,
        accumulator,
        epilogue,
    };
    let y = context.builder.op1(operator, &[x, filter])?;
    let mut target = vec![batch.clone(), channels];
    target.extend(image.iter().map(|&size| Dim::Const(size)));
    one(context.builder.reshape(y, target)?)
}
