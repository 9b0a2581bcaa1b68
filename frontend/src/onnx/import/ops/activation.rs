//! Activation functions, softmax and its relatives.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute};
use super::super::sizes;
use super::super::table::{Entry, between, since};
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function as F};
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] = &[
    since(6, "Relu", |context, node| map(context, node, |body, x| Ok(body.with(F::Max, x, 0.0)))),
    since(6, "Sigmoid", |context, node| map(context, node, |body, x| Ok(body.call(F::Sigmoid, &[x])))),
    since(6, "Tanh", |context, node| map(context, node, |body, x| Ok(body.call(F::Tanh, &[x])))),
    since(6, "LeakyRelu", leaky_relu),
    since(6, "Elu", elu),
    since(12, "Celu", celu),
    since(6, "Selu", selu),
    since(10, "ThresholdedRelu", thresholded_relu),
    since(6, "HardSigmoid", hard_sigmoid),
    since(14, "HardSwish", hard_swish),
    since(1, "Softplus", |context, node| map(context, node, |body, x| Ok(softplus(body, x)))),
    since(1, "Softsign", softsign),
    since(18, "Mish", mish),
    since(20, "Gelu", gelu),
    since(24, "Swish", swish),
    since(28, "SwiGLU", gated_swish),
    since(9, "Shrink", shrink),
    between(6, 10, "Clip", clip_by_attributes),
    since(11, "Clip", clip),
    since(6, "PRelu", prelu),
    since(1, "Softmax", |context, node| softmax(context, node, false)),
    since(1, "LogSoftmax", |context, node| softmax(context, node, true)),
    since(1, "Hardmax", hardmax),
];

/// An elementwise function of the first operand.
fn map(
    context: &mut Context<'_>,
    node: &Node,
    write: impl FnOnce(&mut Body, Arg) -> Result<Arg, Refusal>,
) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let mut body = Body::new(1, context.dtype(x)?);
    let operand = body.operand(0);
    let result = write(&mut body, operand)?;
    one(context.builder.map(body.finish(result), &[x])?)
}

fn parameter(node: &Node, name: &str, default: f64) -> Result<f64, Refusal> {
    Ok(node.float(name)?.map_or(default, f64::from))
}

fn leaky_relu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = parameter(node, "alpha", 0.01)?;
    map(context, node, |body, x| {
        let scaled = body.with(F::Mul, x, alpha);
        let negative = body.with(F::Less, x, 0.0);
        Ok(body.select(negative, scaled, x))
    })
}

fn elu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = parameter(node, "alpha", 1.0)?;
    map(context, node, |body, x| {
        let curve = body.call(F::Expm1, &[x]);
        let curve = body.with(F::Mul, curve, alpha);
        let negative = body.with(F::Less, x, 0.0);
        Ok(body.select(negative, curve, x))
    })
}

/// `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`.
fn celu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = parameter(node, "alpha", 1.0)?;
    map(context, node, |body, x| {
        let positive = body.with(F::Max, x, 0.0);
        let curve = body.with(F::Div, x, alpha);
        let curve = body.call(F::Expm1, &[curve]);
        let curve = body.with(F::Mul, curve, alpha);
        let curve = body.with(F::Min, curve, 0.0);
        Ok(body.call(F::Add, &[positive, curve]))
    })
}

fn selu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = parameter(node, "alpha", 1.673_263_192_176_818_8)?;
    let gamma = parameter(node, "gamma", 1.050_701_022_148_132_3)?;
    map(context, node, |body, x| {
        let curve = body.call(F::Expm1, &[x]);
        let curve = body.with(F::Mul, curve, alpha);
        let positive = body.constant(0.0);
        let positive = body.call(F::Less, &[positive, x]);
        let either = body.select(positive, x, curve);
        Ok(body.with(F::Mul, either, gamma))
    })
}

fn thresholded_relu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = parameter(node, "alpha", 1.0)?;
    map(context, node, |body, x| {
        let (threshold, zero) = (body.constant(alpha), body.constant(0.0));
        let above = body.call(F::Less, &[threshold, x]);
        Ok(body.select(above, x, zero))
    })
}

fn hard_sigmoid(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (alpha, beta) = (parameter(node, "alpha", 0.2)?, parameter(node, "beta", 0.5)?);
    map(context, node, |body, x| Ok(ramp(body, x, alpha, beta)))
}

/// `max(0, min(1, alpha * x + beta))`.
pub(super) fn ramp(body: &mut Body, x: Arg, alpha: f64, beta: f64) -> Arg {
    let line = body.with(F::Mul, x, alpha);
    let line = body.with(F::Add, line, beta);
    let line = body.with(F::Min, line, 1.0);
    body.with(F::Max, line, 0.0)
}

fn hard_swish(context: &mut Context<'_>, node: &Node) -> Lowered {
    map(context, node, |body, x| {
        let gate = ramp(body, x, 1.0 / 6.0, 0.5);
        Ok(body.call(F::Mul, &[x, gate]))
    })
}

/// `log(1 + exp(x))` without overflow: `max(x, 0) + log1p(exp(-|x|))`.
fn softplus(body: &mut Body, x: Arg) -> Arg {
    let positive = body.with(F::Max, x, 0.0);
    let tail = body.call(F::Abs, &[x]);
    let tail = body.call(F::Neg, &[tail]);
    let tail = body.call(F::Exp, &[tail]);
    let tail = body.call(F::Log1p, &[tail]);
    body.call(F::Add, &[positive, tail])
}

fn softsign(context: &mut Context<'_>, node: &Node) -> Lowered {
    map(context, node, |body, x| {
        let below = body.call(F::Abs, &[x]);
        let below = body.with(F::Add, below, 1.0);
        Ok(body.call(F::Div, &[x, below]))
    })
}

fn mish(context: &mut Context<'_>, node: &Node) -> Lowered {
    map(context, node, |body, x| {
        let gate = softplus(body, x);
        let gate = body.call(F::Tanh, &[gate]);
        Ok(body.call(F::Mul, &[x, gate]))
    })
}

pub(super) fn gelu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let tanh = match node.string("approximate")?.unwrap_or("none") {
        "none" => false,
        "tanh" => true,
        other => return Err(attribute("approximate", format!("'{other}', expected none or tanh"))),
    };
    map(context, node, |body, x| Ok(gaussian_unit(body, x, tanh)))
}

/// `x / 2 * (1 + erf(x / sqrt(2)))`, or its approximation with tanh.
pub(super) fn gaussian_unit(body: &mut Body, x: Arg, tanh: bool) -> Arg {
    let gate = if tanh {
        let cube = body.call(F::Mul, &[x, x]);
        let cube = body.call(F::Mul, &[cube, x]);
        let cube = body.with(F::Mul, cube, 0.044715);
        let inner = body.call(F::Add, &[x, cube]);
        let inner = body.with(F::Mul, inner, (2.0 / std::f64::consts::PI).sqrt());
        body.call(F::Tanh, &[inner])
    } else {
        let inner = body.with(F::Mul, x, std::f64::consts::FRAC_1_SQRT_2);
        body.call(F::Erf, &[inner])
    };
    let gate = body.with(F::Add, gate, 1.0);
    let half = body.with(F::Mul, x, 0.5);
    body.call(F::Mul, &[half, gate])
}

fn swish(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = parameter(node, "alpha", 1.0)?;
    map(context, node, |body, x| {
        let gate = if alpha == 1.0 { x } else { body.with(F::Mul, x, alpha) };
        let gate = body.call(F::Sigmoid, &[gate]);
        Ok(body.call(F::Mul, &[x, gate]))
    })
}

/// `a * sigmoid(alpha * a) * b`.
fn gated_swish(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    let alpha = parameter(node, "alpha", 1.0)?;
    let mut body = Body::new(2, context.dtype(a)?);
    let (gate_of, value) = (body.operand(0), body.operand(1));
    let gate = if alpha == 1.0 { gate_of } else { body.with(F::Mul, gate_of, alpha) };
    let gate = body.call(F::Sigmoid, &[gate]);
    let gate = body.call(F::Mul, &[gate_of, gate]);
    let result = body.call(F::Mul, &[gate, value]);
    one(context.builder.map(body.finish(result), &[a, b])?)
}

fn shrink(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (bias, limit) = (parameter(node, "bias", 0.0)?, parameter(node, "lambd", 0.5)?);
    map(context, node, |body, x| {
        let (low, high, zero) = (body.constant(-limit), body.constant(limit), body.constant(0.0));
        let below = body.call(F::Less, &[x, low]);
        let above = body.call(F::Less, &[high, x]);
        let raised = body.with(F::Add, x, bias);
        let lowered = body.with(F::Sub, x, bias);
        let inner = body.select(above, lowered, zero);
        Ok(body.select(below, raised, inner))
    })
}

fn clip_by_attributes(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (low, high) = (node.float("min")?, node.float("max")?);
    map(context, node, |body, mut x| {
        if let Some(low) = low.filter(|low| *low > f32::MIN) {
            x = body.with(F::Max, x, low.into());
        }
        if let Some(high) = high.filter(|high| *high < f32::MAX) {
            x = body.with(F::Min, x, high.into());
        }
        Ok(x)
    })
}

/// `min(max(x, low), high)`; constant bounds become constants of the function.
fn clip(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let dtype = context.dtype(x)?;
    let mut values = vec![x];
    let mut constants = [None; 2];
    for (bound, constant) in constants.iter_mut().enumerate() {
        match context.known(node, bound + 1).and_then(|known| known.numbers()) {
            // A 64-bit bound beyond 2^53 is not exact as a number, so it stays an operand.
            Some(numbers) if numbers.len() == 1 && numbers[0].abs() <= 9e15 => *constant = Some(numbers[0]),
            _ => {
                if let Some(value) = context.optional(node, bound + 1)? {
                    let scalar = context.builder.reshape(value, Vec::new())?;
                    values.push(scalar);
                }
            }
        }
    }
    let mut body = Body::new(values.len(), dtype);
    let mut result = body.operand(0);
    let mut next = 1;
    for (bound, function) in [F::Max, F::Min].into_iter().enumerate() {
        let limit = match constants[bound] {
            Some(constant) => body.constant(constant),
            None if node.input(bound + 1).is_some() => {
                next += 1;
                body.operand(next - 1)
            }
            None => continue,
        };
        result = body.call(function, &[result, limit]);
    }
    one(context.builder.map(body.finish(result), &values)?)
}

/// `x < 0 ? slope * x : x`; before version 7 a slope of one axis belonged to the channels.
fn prelu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, mut slope) = (context.operand(node, 0, "X")?, context.operand(node, 1, "slope")?);
    let (rank, slopes) = (context.shape(x)?.len(), context.shape(slope)?);
    if node.id.opset < 7 && slopes.len() == 1 && rank > 1 {
        let shape: Vec<Dim> =
            slopes.into_iter().chain(std::iter::repeat_n(Dim::Const(1), rank - 2)).collect();
        slope = context.builder.reshape(slope, shape)?;
    }
    let mut body = Body::new(2, context.dtype(x)?);
    let (operand, factor) = (body.operand(0), body.operand(1));
    let scaled = body.call(F::Mul, &[operand, factor]);
    let negative = body.with(F::Less, operand, 0.0);
    let result = body.select(negative, scaled, operand);
    one(context.builder.map(body.finish(result), &[x, slope])?)
}

/// Applies `f` along one axis. Before version 13 the axes from `axis` on were flattened into one.
fn along_axis(
    context: &mut Context<'_>,
    node: &Node,
    f: impl FnOnce(&mut Context<'_>, Value, usize) -> Result<Value, Refusal>,
) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let shape = context.shape(x)?;
    let flattening = node.id.opset < 13;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(if flattening { 1 } else { -1 }), shape.len().max(1))?;
    if shape.is_empty() || !flattening || axis + 1 == shape.len() {
        return one(f(context, x, axis)?);
    }
    let flat = vec![Dim::product(&shape[..axis]), Dim::product(&shape[axis..])];
    let flat = context.builder.reshape(x, flat)?;
    let result = f(context, flat, 1)?;
    one(context.builder.reshape(result, shape)?)
}

fn softmax(context: &mut Context<'_>, node: &Node, log: bool) -> Lowered {
    along_axis(context, node, |context, x, axis| {
        Ok(context.builder.op1(Operator::Softmax { axis, log }, &[x])?)
    })
}

/// 1 at the first maximum along the axis, 0 elsewhere.
fn hardmax(context: &mut Context<'_>, node: &Node) -> Lowered {
    along_axis(context, node, |context, x, axis| {
        let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
        let operator = Operator::ArgReduce { kind: ReduceKind::Max, axis, keep: true, last: false };
        let best = context.builder.op1(operator, &[x])?;
        let mut extents = vec![Dim::Const(1); shape.len()];
        extents[axis] = shape[axis].clone();
        let place = context.builder.op1(Operator::Iota { dtype: DType::I64, shape: extents, axis }, &[])?;
        let hit = context.call(F::Equal, &[best, place])?;
        Ok(context.builder.cast(hit, dtype)?)
    })
}
