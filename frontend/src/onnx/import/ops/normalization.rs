//! Normalizations: over the batch, a layer, an instance, groups of channels, neighbouring channels.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::sizes;
use super::super::table::{Entry, custom, since};
use super::scalar::{Body, compute_type};
use tcc_ir::attribute::Real;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr, ScalarOp};
use tcc_ir::words::{Layout, ReduceKind, WindowKind};

pub(super) static TABLE: &[Entry] = &[
    since(6, "BatchNormalization", batch_normalization),
    since(17, "LayerNormalization", layer_normalization),
    since(1, "SimplifiedLayerNormalization", rms_normalization),
    since(23, "RMSNormalization", rms_normalization),
    custom("com.microsoft", "SimplifiedLayerNormalization", rms_normalization),
    since(6, "InstanceNormalization", instance_normalization),
    since(18, "GroupNormalization", group_normalization),
    since(9, "MeanVarianceNormalization", mean_variance_normalization),
    since(1, "LpNormalization", lp_normalization),
    since(1, "LRN", local_response_normalization),
];

fn epsilon(node: &Node) -> Result<f64, Refusal> {
    Ok(node.float("epsilon")?.map_or(1e-5, f64::from))
}

/// `x * a + b` with `a = scale / sqrt(variance + epsilon)` and `b = bias - mean * a`, so that both are constants where
/// the statistics are.
fn batch_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (scale, bias) = (context.operand(node, 1, "scale")?, context.operand(node, 2, "B")?);
    let (mean, variance) = (context.operand(node, 3, "input_mean")?, context.operand(node, 4, "input_var")?);
    let training =
        if node.id.opset < 7 { !node.flag("is_test", false)? } else { node.flag("training_mode", false)? };
    if !node.flag("spatial", true)? {
        return Err(attribute("spatial", "0; statistics per element are not supported"));
    }
    if !training {
        return one(normalized(context, x, scale, bias, mean, variance, epsilon(node)?)?);
    }
    let momentum = node.float("momentum")?.map_or(0.9, f64::from);
    let rank = context.shape(x)?.len();
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
    let (batch_mean, batch_variance) = context.mean_and_variance(x, &axes, false)?;
    let y = normalized(context, x, scale, bias, batch_mean, batch_variance, epsilon(node)?)?;
    let mut results = vec![Binding::Value(y)];
    for (running, batch) in [(mean, batch_mean), (variance, batch_variance)] {
        let mut body = Body::new(2, context.dtype(running)?);
        let (old, new) = (body.operand(0), body.operand(1));
        let (old, new) =
            (body.with(Function::Mul, old, momentum), body.with(Function::Mul, new, 1.0 - momentum));
        let sum = body.call(Function::Add, &[old, new]);
        let batch = context.builder.cast(batch, context.builder.dtype(running)?)?;
        results.push(Binding::Value(context.builder.map(body.finish(sum), &[running, batch])?));
    }
    Ok(results)
}

fn normalized(
    context: &mut Context<'_>,
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    epsilon: f64,
) -> Result<Value, Refusal> {
    let dtype = context.dtype(x)?;
    let compute = compute_type(dtype);
    let rank = context.shape(x)?.len();
    let mut parameters = Vec::new();
    for value in [scale, bias, mean, variance] {
        let wide = context.builder.cast(value, compute)?;
        parameters.push(context.per_channel(wide, rank)?);
    }
    let mut body = Body::new(2, compute);
    let (scale, variance) = (body.operand(0), body.operand(1));
    let deviation = body.with(Function::Add, variance, epsilon);
    let deviation = body.call(Function::Sqrt, &[deviation]);
    let factor = body.call(Function::Div, &[scale, deviation]);
    let factor = context.builder.map(body.finish(factor), &[parameters[0], parameters[3]])?;
    let mut body = Body::new(3, compute);
    let (bias, mean, weight) = (body.operand(0), body.operand(1), body.operand(2));
    let shift = body.call(Function::Mul, &[mean, weight]);
    let shift = body.call(Function::Sub, &[bias, shift]);
    let shift = context.builder.map(body.finish(shift), &[parameters[1], parameters[2], factor])?;
    scale_and_shift(context, x, factor, Some(shift), dtype)
}

/// `x * factor + shift` where the parameters are in the type that `x` is computed in.
fn scale_and_shift(
    context: &mut Context<'_>,
    x: Value,
    factor: Value,
    shift: Option<Value>,
    dtype: DType,
) -> Result<Value, Refusal> {
    let values: Vec<Value> = [Some(x), Some(factor), shift].into_iter().flatten().collect();
    let expr = affine(dtype, compute_type(dtype), values.len() == 3);
    Ok(context.builder.map(expr, &values)?)
}

/// `a0 * a1 + a2` with `a0` of type `dtype` and parameters of type `parameters`, rounded to `dtype` once.
fn affine(dtype: DType, parameters: DType, shifted: bool) -> ScalarExpr {
    let compute = compute_type(dtype);
    let mut expr = ScalarExpr::with_inputs(2 + usize::from(shifted));
    let widened = |expr: &mut ScalarExpr, arg: Arg, from: DType| {
        if from == compute { arg } else { expr.push(ScalarOp::Cast(compute), &[arg]) }
    };
    let x = widened(&mut expr, Arg::Input(0), dtype);
    let factor = widened(&mut expr, Arg::Input(1), parameters);
    let mut result = expr.apply(Function::Mul, &[x, factor]);
    if shifted {
        let shift = widened(&mut expr, Arg::Input(2), parameters);
        result = expr.apply(Function::Add, &[result, shift]);
    }
    expr.result = if compute == dtype { result } else { expr.push(ScalarOp::Cast(dtype), &[result]) };
    expr
}

pub(super) fn normalize(
    context: &mut Context<'_>,
    x: Value,
    axes: Vec<usize>,
    epsilon: f64,
    centered: bool,
    scale: Option<Value>,
    bias: Option<Value>,
) -> Result<Value, Refusal> {
    let dtype = context.dtype(x)?;
    let mut values = vec![x];
    values.extend(scale);
    values.extend(bias);
    let epilogue = match scale {
        None => ScalarExpr::identity(),
        Some(scale) => affine(dtype, context.dtype(scale)?, bias.is_some()),
    };
    Ok(context
        .builder
        .op1(Operator::Normalize { axes, epsilon: Real::from(epsilon), centered, epilogue }, &values)?)
}

fn trailing_axes(context: &Context<'_>, node: &Node, x: Value) -> Result<Vec<usize>, Refusal> {
    let rank = context.shape(x)?.len();
    Ok((sizes::axis(node.int("axis")?.unwrap_or(-1), rank)?..rank).collect())
}

fn layer_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (scale, bias) = (context.operand(node, 1, "Scale")?, context.optional(node, 2)?);
    let axes = trailing_axes(context, node, x)?;
    let epsilon = epsilon(node)?;
    let mut results =
        vec![Binding::Value(normalize(context, x, axes.clone(), epsilon, true, Some(scale), bias)?)];
    if node.output(1).is_some() || node.output(2).is_some() {
        let (mean, variance) = context.mean_and_variance(x, &axes, true)?;
        let deviation = context.map1(variance, |body, variance| {
            let sum = body.with(Function::Add, variance, epsilon);
            let root = body.call(Function::Sqrt, &[sum]);
            body.call(Function::Reciprocal, &[root])
        })?;
        results.extend([Binding::Value(mean), Binding::Value(deviation)]);
    }
    Ok(results)
}

fn rms_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let scale = context.operand(node, 1, "scale")?;
    let axes = trailing_axes(context, node, x)?;
    one(normalize(context, x, axes, epsilon(node)?, false, Some(scale), None)?)
}

fn instance_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let (scale, bias) = (context.operand(node, 1, "scale")?, context.operand(node, 2, "B")?);
    let rank = context.shape(x)?.len();
    let (scale, bias) = (context.per_channel(scale, rank)?, context.per_channel(bias, rank)?);
    one(normalize(context, x, (2..rank).collect(), epsilon(node)?, true, Some(scale), Some(bias))?)
}

/// Normalization over groups of channels; scale and bias belong to groups before version 21 and to channels from then on.
fn group_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (scale, bias) = (context.operand(node, 1, "scale")?, context.operand(node, 2, "bias")?);
    let groups = node.int("num_groups")?.filter(|&groups| groups > 0);
    let groups = Dim::Const(groups.ok_or_else(|| attribute("num_groups", "missing or not positive"))?);
    let shape = context.shape(x)?;
    let [batch, channels, spatial @ ..] = &shape[..] else {
        return Err(operands("the input has no channels"));
    };
    let members = channels
        .exact_quotient(&groups)
        .ok_or_else(|| operands(format!("{channels} channels do not divide into {groups} groups")))?;
    let mut split = vec![batch.clone(), groups.clone(), members.clone()];
    split.extend_from_slice(spatial);
    let grouped = context.builder.reshape(x, split.clone())?;
    let rank = split.len();
    let mut parameters = Vec::new();
    for value in [scale, bias] {
        let mut extents = vec![Dim::Const(1); rank - 1];
        extents[0] = groups.clone();
        if node.id.opset >= 21 {
            extents[1] = members.clone();
        }
        parameters.push(context.builder.reshape(value, extents)?);
    }
    let axes = (2..rank).collect();
    let epsilon = epsilon(node)?;
    let y = normalize(context, grouped, axes, epsilon, true, Some(parameters[0]), Some(parameters[1]))?;
    one(context.builder.reshape(y, shape)?)
}

/// `(x - mean) / (sqrt(mean(x^2) - mean^2) + 1e-9)`.
fn mean_variance_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let axes = sizes::axes(node.ints("axes")?.unwrap_or(&[0, 2, 3]), context.shape(x)?.len())?;
    let (mean, variance) = context.mean_and_variance(x, &axes, true)?;
    let mut body = Body::new(3, context.dtype(x)?);
    let (value, mean_of, variance_of) = (body.operand(0), body.operand(1), body.operand(2));
    let centered = body.call(Function::Sub, &[value, mean_of]);
    let deviation = body.call(Function::Sqrt, &[variance_of]);
    let deviation = body.with(Function::Add, deviation, 1e-9);
    let result = body.call(Function::Div, &[centered, deviation]);
    let dtype = context.dtype(x)?;
    let (mean, variance) = (context.builder.cast(mean, dtype)?, context.builder.cast(variance, dtype)?);
    one(context.builder.map(body.finish(result), &[x, mean, variance])?)
}

fn lp_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(-1), context.shape(x)?.len())?;
    let norm = match node.int("p")?.unwrap_or(2) {
        1 => context.norm(x, vec![axis], true, 1)?,
        2 => context.norm(x, vec![axis], true, 2)?,
        other => return Err(attribute("p", format!("{other}, expected 1 or 2"))),
    };
    // A vector of zeros stays one.
    let mut body = Body::new(2, context.dtype(x)?);
    let (value, length) = (body.operand(0), body.operand(1));
    let (nothing, unit) = (body.constant(0.0), body.constant(1.0));
    let empty = body.call(Function::Equal, &[length, nothing]);
    let length = body.select(empty, unit, length);
    let result = body.call(Function::Div, &[value, length]);
    one(context.builder.map(body.finish(result), &[x, norm])?)
}

/// `x / (bias + alpha / size * sum of squares over size neighbouring channels) ^ beta`.
fn local_response_normalization(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let size = node.int("size")?.and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0);
    let size = size.ok_or_else(|| attribute("size", "missing or not positive"))?;
    let parameter = |name: &str, default: f64| -> Result<f64, Refusal> {
        Ok(node.float(name)?.map_or(default, f64::from))
    };
    let (alpha, beta, bias) = (parameter("alpha", 1e-4)?, parameter("beta", 0.75)?, parameter("bias", 1.0)?);
    let shape = context.shape(x)?;
    let [batch, channels, spatial @ ..] = &shape[..] else {
        return Err(operands("the input has no channels"));
    };
    // The channels are the first spatial dimension of the window, everything behind them the second.
    let flat = vec![batch.clone(), Dim::Const(1), channels.clone(), Dim::product(spatial)];
    let squares = context.call(Function::Mul, &[x, x])?;
    let squares = context.builder.reshape(squares, flat)?;
    let (low, high) = ((size as i64 - 1) / 2, size as i64 / 2);
    let window = Operator::Window {
        kind: WindowKind::Sum,
        layout: Layout::ChannelsFirst,
        size: vec![size, 1],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads: vec![low, 0, high, 0],
        ceil: false,
    };
    let sums = context.builder.op1(window, &[squares])?;
    let sums = context.builder.reshape(sums, shape)?;
    let mut body = Body::new(2, context.dtype(x)?);
    let (value, sum) = (body.operand(0), body.operand(1));
    let base = body.with(Function::Mul, sum, alpha / size as f64);
    let base = body.with(Function::Add, base, bias);
    let divisor = body.with(Function::Pow, base, beta);
    let result = body.call(Function::Div, &[value, divisor]);
    one(context.builder.map(body.finish(result), &[x, sums])?)
}

impl Context<'_> {
    /// Mean and (biased) variance over axes, in the type that the operand is computed in.
    pub(super) fn mean_and_variance(
        &mut self,
        x: Value,
        axes: &[usize],
        keep: bool,
    ) -> Result<(Value, Value), Refusal> {
        let compute = compute_type(self.dtype(x)?);
        let wide = self.builder.cast(x, compute)?;
        let mean = self.mean(wide, axes.to_vec(), true)?;
        let mut body = Body::new(2, compute);
        let (value, center) = (body.operand(0), body.operand(1));
        let difference = body.call(Function::Sub, &[value, center]);
        let square = body.call(Function::Mul, &[difference, difference]);
        let squares = self.builder.map(body.finish(square), &[wide, mean])?;
        let variance = self.mean(squares, axes.to_vec(), keep)?;
        let mean = if keep {
            mean
        } else {
            let shape = self.shape(variance)?;
            self.builder.reshape(mean, shape)?
        };
        Ok((mean, variance))
    }

    /// Mean over axes.
    pub(super) fn mean(&mut self, x: Value, axes: Vec<usize>, keep: bool) -> Result<Value, Refusal> {
        let (shape, dtype) = (self.shape(x)?, self.dtype(x)?);
        let compute = compute_type(dtype);
        let count = Dim::product(axes.iter().map(|&axis| &shape[axis]));
        let prologue = if compute == dtype { ScalarExpr::identity() } else { ScalarExpr::cast(compute) };
        let mut values = vec![x];
        let mut epilogue = ScalarExpr::with_inputs(1);
        let divisor = match count.as_const() {
            Some(count) => Arg::Const(Scalar::of(compute, count as f64)),
            None => {
                let count = self.size_scalar(count)?;
                values.push(self.builder.cast(count, compute)?);
                epilogue = ScalarExpr::with_inputs(2);
                Arg::Input(1)
            }
        };
        let quotient = epilogue.apply(Function::Div, &[Arg::Input(0), divisor]);
        epilogue.result =
            if compute == dtype { quotient } else { epilogue.push(ScalarOp::Cast(dtype), &[quotient]) };
        Ok(self
            .builder
            .op1(Operator::Reduce { kind: ReduceKind::Sum, axes, keep, prologue, epilogue }, &values)?)
    }

    /// Sum of magnitudes (`p` 1) or Euclidean norm (`p` 2) over axes.
    pub(super) fn norm(&mut self, x: Value, axes: Vec<usize>, keep: bool, p: u8) -> Result<Value, Refusal> {
        let dtype = self.dtype(x)?;
        let compute = compute_type(dtype);
        let mut body = Body::new(1, dtype);
        let value = body.operand(0);
        let term = if p == 1 {
            body.call(Function::Abs, &[value])
        } else {
            body.call(Function::Mul, &[value, value])
        };
        let prologue = body.finish_as_is(term);
        let mut epilogue = ScalarExpr::with_inputs(1);
        let mut result = Arg::Input(0);
        if p == 2 && compute.is_float() {
            result = epilogue.apply(Function::Sqrt, &[result]);
        } else if p == 2 {
            // The root of an integer sum is taken as a real number and truncated.
            let wide = epilogue.push(ScalarOp::Cast(DType::F64), &[result]);
            let root = epilogue.apply(Function::Sqrt, &[wide]);
            result = epilogue.push(ScalarOp::Cast(compute), &[root]);
        }
        epilogue.result =
            if compute == dtype { result } else { epilogue.push(ScalarOp::Cast(dtype), &[result]) };
        Ok(self
            .builder
            .op1(Operator::Reduce { kind: ReduceKind::Sum, axes, keep, prologue, epilogue }, &[x])?)
    }
}
