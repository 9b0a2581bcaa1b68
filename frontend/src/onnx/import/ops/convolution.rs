//! Convolutions and what they share with pooling: strides, dilations and padding.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::table::{Entry, since};
use super::layout::constant_size;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, ScalarExpr, ScalarOp};
use tcc_ir::words::{Layout, PadKind};

pub(super) static TABLE: &[Entry] = &[
    since(1, "Conv", convolve),
    since(1, "ConvTranspose", convolve_transpose),
    since(27, "CausalConvWithState", causal_convolution),
];

/// Largest window, stride, dilation and padding, so that their products and sums stay in 64 bits.
const LARGEST: usize = i32::MAX as usize;

/// The window attributes of a convolution or pooling node, one entry a spatial dimension.
pub(super) struct WindowAttributes {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
}

/// What lies around the input.
pub(super) enum Padding {
    /// Amounts for the low then the high sides.
    Fixed(Vec<i64>),
    /// Amounts that depend on symbolic extents, for the low then the high sides.
    Symbolic(Vec<Dim>, Vec<Dim>),
}

impl WindowAttributes {
    pub(super) fn of(node: &Node, kernel: Vec<usize>) -> Result<Self, Refusal> {
        let counts = |name: &str| -> Result<Vec<usize>, Refusal> {
            let Some(list) = node.ints(name)? else { return Ok(vec![1; kernel.len()]) };
            let positive =
                |&entry: &i64| usize::try_from(entry).ok().filter(|&entry| entry > 0 && entry <= LARGEST);
            let list: Option<Vec<usize>> = list.iter().map(positive).collect();
            list.filter(|list| list.len() == kernel.len())
                .ok_or_else(|| attribute(name, format!("not {} positive integers", kernel.len())))
        };
        if kernel.iter().any(|&size| size > LARGEST) {
            return Err(attribute("kernel_shape", format!("{kernel:?}, which is too large")));
        }
        let (strides, dilations) = (counts("strides")?, counts("dilations")?);
        Ok(WindowAttributes { kernel, strides, dilations })
    }

    /// Input positions that a window spans along a spatial dimension.
    pub(super) fn span(&self, axis: usize) -> i64 {
        (self.kernel[axis] as i64 - 1) * self.dilations[axis] as i64 + 1
    }

    /// The padding that the node asks for, around an input with these spatial extents.
    pub(super) fn padding(&self, node: &Node, extents: &[Dim]) -> Result<Padding, Refusal> {
        let rank = self.kernel.len();
        let upper = match node.string("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" => {
                let pads = node.ints("pads")?.map_or_else(|| vec![0; 2 * rank], <[i64]>::to_vec);
                return if pads.len() != 2 * rank {
                    Err(attribute("pads", format!("{} integers, expected {}", pads.len(), 2 * rank)))
                } else if pads.iter().any(|pad| pad.unsigned_abs() > LARGEST as u64) {
                    Err(attribute("pads", format!("{pads:?}, which is too large")))
                } else {
                    Ok(Padding::Fixed(pads))
                };
            }
            "VALID" => return Ok(Padding::Fixed(vec![0; 2 * rank])),
            "SAME_UPPER" => true,
            "SAME_LOWER" => false,
            other => return Err(attribute("auto_pad", format!("'{other}'"))),
        };
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for (axis, extent) in extents.iter().enumerate() {
            let stride = Dim::from(self.strides[axis]);
            let windows = extent.ceil_div(&stride);
            let needed = (windows - Dim::Const(1)) * stride + Dim::Const(self.span(axis)) - extent.clone();
            let total = needed.maximum(&Dim::Const(0));
            let half = total.floor_div(&Dim::Const(2));
            let rest = total - half.clone();
            let (before, after) = if upper { (half, rest) } else { (rest, half) };
            low.push(before);
            high.push(after);
        }
        match low.iter().chain(&high).map(Dim::as_const).collect::<Option<Vec<i64>>>() {
            Some(pads) => Ok(Padding::Fixed(pads)),
            None => Ok(Padding::Symbolic(low, high)),
        }
    }
}

impl Context<'_> {
    /// Applies symbolic padding as an operation of its own, filled with `value`, and returns what is left for the
    /// window operator to pad.
    pub(super) fn padded(
        &mut self,
        x: Value,
        padding: Padding,
        value: f64,
    ) -> Result<(Value, Vec<i64>), Refusal> {
        let (low, high) = match padding {
            Padding::Fixed(pads) => return Ok((x, pads)),
            Padding::Symbolic(low, high) => (low, high),
        };
        let rank = low.len();
        let fill = self.builder.scalar(tcc_ir::scalar::Scalar::of(self.dtype(x)?, value))?;
        let around = |amounts: Vec<Dim>| [Dim::Const(0), Dim::Const(0)].into_iter().chain(amounts).collect();
        let pad = Operator::Pad { kind: PadKind::Constant, low: around(low), high: around(high) };
        Ok((self.builder.op1(pad, &[x, fill])?, vec![0; 2 * rank]))
    }

    /// A per-channel vector `[c]` shaped to broadcast against `[n, c, spatial...]`.
    pub(super) fn per_channel(&mut self, vector: Value, rank: usize) -> Result<Value, Refusal> {
        let shape = self.shape(vector)?;
        let [channels] = &shape[..] else {
            return Err(operands("expected a vector with one entry a channel"));
        };
        let shape = std::iter::once(channels.clone())
            .chain(std::iter::repeat_n(Dim::Const(1), rank.saturating_sub(2)));
        Ok(self.builder.reshape(vector, shape.collect())?)
    }
}

/// The type that products of a type are summed in.
pub(super) fn accumulator(dtype: DType) -> DType {
    super::scalar::compute_type(dtype)
}

/// The epilogue that adds a bias, if there is one, and rounds to the result type.
pub(super) fn bias_epilogue(dtype: DType, bias: bool) -> ScalarExpr {
    let sum = accumulator(dtype);
    let mut epilogue = ScalarExpr::with_inputs(1 + usize::from(bias));
    let mut result = Arg::Input(0);
    if bias {
        let mut addend = Arg::Input(1);
        if sum != dtype {
            addend = epilogue.push(ScalarOp::Cast(sum), &[addend]);
        }
        result = epilogue.apply(Function::Add, &[result, addend]);
    }
    if sum != dtype {
        result = epilogue.push(ScalarOp::Cast(dtype), &[result]);
    }
    epilogue.result = result;
    epilogue
}

/// Spatial extents of a filter, checked against `kernel_shape`.
pub(super) fn kernel_of(context: &Context<'_>, node: &Node, w: Value) -> Result<Vec<usize>, Refusal> {
    let shape = context.shape(w)?;
    if shape.len() < 3 {
        return Err(operands(format!("the filter has rank {}, expected at least 3", shape.len())));
    }
    let kernel = shape[2..]
        .iter()
        .map(|dim| constant_size(dim, "the filter's extent"))
        .collect::<Result<Vec<_>, _>>()?;
    match node.ints("kernel_shape")? {
        Some(declared) if !declared.iter().map(|&size| size as usize).eq(kernel.iter().copied()) => {
            Err(attribute("kernel_shape", format!("{declared:?}, but the filter is {kernel:?}")))
        }
        _ => Ok(kernel),
    }
}

pub(super) fn groups(node: &Node) -> Result<usize, Refusal> {
    let group = node.int("group")?.unwrap_or(1);
    usize::try_from(group)
        .ok()
        .filter(|&group| group > 0)
        .ok_or_else(|| attribute("group", format!("{group}")))
}

pub(super) fn convolve(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, w) = (context.operand(node, 0, "X")?, context.operand(node, 1, "W")?);
    let kernel = kernel_of(context, node, w)?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    if shape.len() != kernel.len() + 2 {
        return Err(operands(format!("the input has rank {}, the filter {}", shape.len(), kernel.len() + 2)));
    }
    let window = WindowAttributes::of(node, kernel)?;
    let padding = window.padding(node, &shape[2..])?;
    let (x, pads) = context.padded(x, padding, 0.0)?;
    let mut values = vec![x, w];
    if let Some(bias) = context.optional(node, 2)? {
        values.push(context.per_channel(bias, shape.len())?);
    }
    let operator = Operator::Convolve {
        layout: Layout::ChannelsFirst,
        groups: groups(node)?,
        strides: window.strides,
        dilations: window.dilations,
        pads,
        accumulator: accumulator(dtype),
        epilogue: bias_epilogue(dtype, values.len() == 3),
    };
    one(context.builder.op1(operator, &values)?)
}

fn convolve_transpose(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, w) = (context.operand(node, 0, "X")?, context.operand(node, 1, "W")?);
    let kernel = kernel_of(context, node, w)?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    if shape.len() != kernel.len() + 2 {
        return Err(operands(format!("the input has rank {}, the filter {}", shape.len(), kernel.len() + 2)));
    }
    let window = WindowAttributes::of(node, kernel)?;
    let (pads, output_pads) = transpose_padding(node, &window, &shape[2..])?;
    let mut values = vec![x, w];
    if let Some(bias) = context.optional(node, 2)? {
        values.push(context.per_channel(bias, shape.len())?);
    }
    let operator = Operator::ConvolveTranspose {
        layout: Layout::ChannelsFirst,
        groups: groups(node)?,
        strides: window.strides,
        dilations: window.dilations,
        pads,
        output_pads,
        accumulator: accumulator(dtype),
        epilogue: bias_epilogue(dtype, values.len() == 3),
    };
    one(context.builder.op1(operator, &values)?)
}

/// Padding of a transposed convolution: given, or what `output_shape` or `auto_pad` leave over.
fn transpose_padding(
    node: &Node,
    window: &WindowAttributes,
    extents: &[Dim],
) -> Result<(Vec<i64>, Vec<usize>), Refusal> {
    let rank = extents.len();
    let amounts = match node.ints("output_padding")? {
        None => vec![0; rank],
        Some(list)
            if list.len() == rank && list.iter().all(|&amount| (0..=LARGEST as i64).contains(&amount)) =>
        {
            list.to_vec()
        }
        Some(list) => return Err(attribute("output_padding", format!("{list:?}, expected {rank} counts"))),
    };
    let mut output_pads: Vec<usize> = amounts.iter().map(|&amount| amount as usize).collect();
    let mode = node.string("auto_pad")?.unwrap_or("NOTSET");
    let targets: Option<Vec<Dim>> = match (node.ints("output_shape")?, mode) {
        (Some(list), _) if list.len() < rank => return Err(attribute("output_shape", format!("{list:?}"))),
        // Some exporters put batch and channels in front.
        (Some(list), _) => Some(list[list.len() - rank..].iter().map(|&size| Dim::Const(size)).collect()),
        (None, "SAME_UPPER" | "SAME_LOWER") => {
            let strides = window.strides.iter().map(|&stride| Dim::from(stride));
            Some(extents.iter().zip(strides).map(|(extent, stride)| extent.clone() * stride).collect())
        }
        (None, _) => None,
    };
    let Some(targets) = targets else {
        return match window.padding(node, extents)? {
            Padding::Fixed(pads) => Ok((pads, output_pads)),
            Padding::Symbolic(..) => Err(unsupported("padding that depends on a symbolic extent")),
        };
    };
    let mut pads = vec![0; 2 * rank];
    for axis in 0..rank {
        let stride = Dim::from(window.strides[axis]);
        let full =
            stride * (extents[axis].clone() - Dim::Const(1)) + Dim::Const(amounts[axis] + window.span(axis));
        let total = (full - targets[axis].clone())
            .as_const()
            .ok_or_else(|| unsupported("padding that depends on a symbolic extent"))?;
        if total < 0 {
            output_pads[axis] += total.unsigned_abs() as usize;
            continue;
        }
        let half = total / 2;
        let (low, high) = if mode == "SAME_UPPER" { (half, total - half) } else { (total - half, half) };
        (pads[axis], pads[rank + axis]) = (low, high);
    }
    Ok((pads, output_pads))
}

/// A depthwise convolution of each position with the ones before it, and the positions that the next call starts from.
fn causal_convolution(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, w) = (context.operand(node, 0, "input")?, context.operand(node, 1, "weight")?);
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let kernel = kernel_of(context, node, w)?;
    let ([batch, channels, _], [kernel]) = (&shape[..], &kernel[..]) else {
        return Err(operands("the input is [batch, channels, length] and the weight [channels, 1, kernel]"));
    };
    let before = Dim::from(kernel - 1);
    let past = match context.optional(node, 3)? {
        Some(past) => past,
        None => {
            let zero = context.builder.scalar(tcc_ir::scalar::Scalar::of(dtype, 0.0))?;
            context.builder.broadcast(zero, vec![batch.clone(), channels.clone(), before.clone()])?
        }
    };
    let whole = context.builder.op1(Operator::Concat { axis: 2 }, &[past, x])?;
    let mut values = vec![whole, w];
    if let Some(bias) = context.optional(node, 2)? {
        values.push(context.per_channel(bias, 3)?);
    }
    let operator = Operator::Convolve {
        layout: Layout::ChannelsFirst,
        groups: constant_size(channels, "the number of channels")?,
        strides: vec![1],
        dilations: vec![1],
        pads: vec![0, 0],
        accumulator: accumulator(dtype),
        epilogue: bias_epilogue(dtype, values.len() == 3),
    };
    let mut y = context.builder.op1(operator, &values)?;
    match node.string("activation")?.unwrap_or("none") {
        "none" => {}
        "silu" | "swish" => {
            y = context.map1(y, |body, x| {
                let gate = body.call(Function::Sigmoid, &[x]);
                body.call(Function::Mul, &[x, gate])
            })?;
        }
        other => return Err(attribute("activation", format!("'{other}'"))),
    }
    let length = context.shape(whole)?[2].clone();
    let state = context.slice_axis(whole, 2, length - before.clone(), before)?;
    Ok(vec![Binding::Value(y), Binding::Value(state)])
}
