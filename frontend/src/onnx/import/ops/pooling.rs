//! Pooling over sliding windows.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::table::{Entry, since};
use super::convolution::{Padding, WindowAttributes};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Scalar;
use tcc_ir::words::{Layout, ScatterKind, WindowKind};

pub(super) static TABLE: &[Entry] = &[
    since(1, "MaxPool", max_pool),
    since(1, "AveragePool", average_pool),
    since(2, "LpPool", lp_pool),
    since(9, "MaxUnpool", max_unpool),
];

/// The window attributes of a pooling node.
fn window_of(node: &Node, rank: usize) -> Result<WindowAttributes, Refusal> {
    let kernel = node.ints("kernel_shape")?.ok_or_else(|| attribute("kernel_shape", "missing"))?;
    let sizes: Option<Vec<usize>> =
        kernel.iter().map(|&size| usize::try_from(size).ok().filter(|&size| size > 0)).collect();
    let sizes = sizes.filter(|sizes| sizes.len() + 2 == rank);
    WindowAttributes::of(
        node,
        sizes.ok_or_else(|| attribute("kernel_shape", format!("{kernel:?} for rank {rank}")))?,
    )
}

fn pool(context: &mut Context<'_>, node: &Node, x: Value, kind: WindowKind) -> Result<Value, Refusal> {
    let shape = context.shape(x)?;
    let window = window_of(node, shape.len())?;
    let padding = window.padding(node, shape.get(2..).unwrap_or_default())?;
    let (kind, fill) = match (kind, &padding) {
        (WindowKind::Max, _) => (kind, lowest(context.dtype(x)?)),
        (WindowKind::MeanValid, Padding::Symbolic(..)) => {
            return Err(unsupported("an average that leaves out padding of symbolic width"));
        }
        _ => (kind, 0.0),
    };
    let (x, pads) = context.padded(x, padding, fill)?;
    let ceil = node.flag("ceil_mode", false)?;
    let WindowAttributes { kernel, strides, dilations } = window;
    let layout = Layout::ChannelsFirst;
    let operator = Operator::Window { kind, layout, size: kernel, strides, dilations, pads, ceil };
    Ok(context.builder.op1(operator, &[x])?)
}

/// A value that no maximum picks.
fn lowest(dtype: DType) -> f64 {
    dtype.integer_range().map_or(f64::NEG_INFINITY, |(low, _)| low as f64)
}

fn max_pool(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    if node.output(1).is_none() {
        return one(pool(context, node, x, WindowKind::Max)?);
    }
    let shape = context.shape(x)?;
    let window = window_of(node, shape.len())?;
    let Padding::Fixed(pads) = window.padding(node, shape.get(2..).unwrap_or_default())? else {
        return Err(unsupported("positions of maxima under padding of symbolic width"));
    };
    let WindowAttributes { kernel: size, strides, dilations } = window;
    let (ceil, row_major) = (node.flag("ceil_mode", false)?, !node.flag("storage_order", false)?);
    let operator = Operator::WindowArgMax { size, strides, dilations, pads, ceil, row_major };
    let results = context.builder.op(operator, &[x])?;
    Ok(results.into_iter().map(Binding::Value).collect())
}

fn average_pool(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let kind =
        if node.flag("count_include_pad", false)? { WindowKind::MeanPadded } else { WindowKind::MeanValid };
    one(pool(context, node, x, kind)?)
}

fn lp_pool(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let p = node.int("p")?.unwrap_or(2);
    one(context.power_norm(x, p, |context, powers| pool(context, node, powers, WindowKind::Sum))?)
}

/// Puts each value where the flat index says, in a tensor of zeros.
fn max_unpool(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = (context.operand(node, 0, "X")?, context.operand(node, 1, "I")?);
    let shape = context.shape(x)?;
    let window = window_of(node, shape.len())?;
    let target = if node.input(2).is_some() {
        context.sizes(node, 2, "output_shape", super::super::sizes::SIZE)?
    } else {
        let Padding::Fixed(pads) = window.padding(node, &shape[2..])? else {
            return Err(unsupported("padding of symbolic width"));
        };
        let rank = window.kernel.len();
        let mut target = shape[..2].to_vec();
        for axis in 0..rank {
            let reach = (shape[2 + axis].clone() - Dim::Const(1)) * Dim::from(window.strides[axis]);
            target.push(reach + Dim::Const(window.span(axis) - pads[axis] - pads[rank + axis]));
        }
        target
    };
    if target.len() != shape.len() {
        return Err(operands(format!("output_shape has {} entries for rank {}", target.len(), shape.len())));
    }
    // Indices count within the tensor that was pooled, whose shape without `output_shape` is the target's.
    let dtype = context.dtype(x)?;
    let zero = context.builder.scalar(Scalar::of(dtype, 0.0))?;
    let pooled = if node.input(2).is_some() { unpadded(&shape, &window) } else { target.clone() };
    let blank = context.builder.broadcast(zero, vec![Dim::product(&pooled)])?;
    let count = Dim::product(&shape);
    let (values, at) =
        (context.builder.reshape(x, vec![count.clone()])?, context.builder.reshape(at, vec![count])?);
    let scatter = Operator::ScatterElements { axis: 0, kind: ScatterKind::Replace };
    let flat = context.builder.op1(scatter, &[blank, at, values])?;
    let y = context.builder.reshape(flat, pooled.clone())?;
    if pooled == target {
        return one(y);
    }
    let high: Vec<Dim> = target.iter().zip(&pooled).map(|(want, have)| want.clone() - have.clone()).collect();
    let low = vec![Dim::Const(0); high.len()];
    one(context
        .builder
        .op1(Operator::Pad { kind: tcc_ir::words::PadKind::Constant, low, high }, &[y, zero])?)
}

/// The shape that unpooling gives when nothing else is asked for.
fn unpadded(shape: &[Dim], window: &WindowAttributes) -> Vec<Dim> {
    let mut target = shape[..2].to_vec();
    for axis in 0..window.kernel.len() {
        let reach = (shape[2 + axis].clone() - Dim::Const(1)) * Dim::from(window.strides[axis]);
        target.push(reach + Dim::Const(window.span(axis)));
    }
    target
}
