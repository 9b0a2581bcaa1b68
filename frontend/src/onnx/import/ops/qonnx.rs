//! Quantizers of the QONNX and FINN dialects: values on a grid, in floating point.
//!
//! Bit widths are tensors there; they must be constants. The exporters Brevitas, QONNX and FINN put the same operators
//! in domains of their own.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::table::{Entry, custom};
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr, ScalarOp};
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] = &[
    custom("qonnx.custom_op.general", "Quant", quantizer),
    custom("qonnx.custom_op.general", "IntQuant", quantizer),
    custom("qonnx.custom_op.general", "BipolarQuant", bipolar),
    custom("qonnx.custom_op.general", "FloatQuant", float_quantizer),
    custom("qonnx.custom_op.general", "Trunc", truncation),
    custom("qonnx.custom_op.general", "MultiThreshold", multi_threshold),
    custom("onnx.brevitas", "Quant", quantizer),
    custom("onnx.brevitas", "IntQuant", quantizer),
    custom("onnx.brevitas", "BipolarQuant", bipolar),
    custom("onnx.brevitas", "FloatQuant", float_quantizer),
    custom("onnx.brevitas", "Trunc", truncation),
    custom("finn.custom_op.general", "Quant", quantizer),
    custom("finn.custom_op.general", "BipolarQuant", bipolar),
    custom("finn.custom_op.general", "MultiThreshold", multi_threshold),
];

/// A constant scalar operand.
fn constant(context: &Context<'_>, node: &Node, operand: usize, name: &'static str) -> Result<f64, Refusal> {
    match context.numbers(node, operand, name)?.as_deref() {
        Some([value]) => Ok(*value),
        Some(_) => Err(unsupported(format!("{name} per channel"))),
        None => Err(operands(format!("{name} is missing"))),
    }
}

/// Smallest and largest integer of a width.
fn integer_range(width: f64, signed: bool, narrow: bool) -> (f64, f64) {
    let narrow = f64::from(u8::from(narrow));
    if signed {
        let half = (width - 1.0).exp2();
        (narrow - half, half - 1.0)
    } else {
        (0.0, width.exp2() - 1.0 - narrow)
    }
}

fn rounding(node: &Node) -> Result<Function, Refusal> {
    let mode = node.string("rounding_mode")?.unwrap_or("ROUND").to_ascii_uppercase();
    Ok(match mode.as_str() {
        "ROUND" | "HALF_EVEN" => Function::Round,
        "CEIL" => Function::Ceil,
        "FLOOR" => Function::Floor,
        "DOWN" | "ROUND_TO_ZERO" => Function::Trunc,
        other => return Err(unsupported(format!("rounding mode '{other}'"))),
    })
}

/// `(clamp(round(x / scale + zero)) - zero) * scale`.
fn quantizer(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (scale, zero) = (context.operand(node, 1, "scale")?, context.operand(node, 2, "zeropt")?);
    let width = constant(context, node, 3, "bitwidth")?;
    let (low, high) = integer_range(width, node.flag("signed", true)?, node.flag("narrow", false)?);
    let round = rounding(node)?;
    let mut body = Body::new(3, context.dtype(x)?);
    let (value, step, offset) = (body.operand(0), body.operand(1), body.operand(2));
    let level = body.call(Function::Div, &[value, step]);
    let level = body.call(Function::Add, &[level, offset]);
    let level = body.call(round, &[level]);
    let level = body.with(Function::Max, level, low);
    let level = body.with(Function::Min, level, high);
    let level = body.call(Function::Sub, &[level, offset]);
    let result = body.call(Function::Mul, &[level, step]);
    one(context.builder.map(body.finish(result), &[x, scale, zero])?)
}

/// `scale` where the element is not negative, `-scale` elsewhere.
fn bipolar(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, scale) = (context.operand(node, 0, "X")?, context.operand(node, 1, "scale")?);
    let mut body = Body::new(2, context.dtype(x)?);
    let (value, step) = (body.operand(0), body.operand(1));
    let opposite = body.call(Function::Neg, &[step]);
    let negative = body.with(Function::Less, value, 0.0);
    let result = body.select(negative, opposite, step);
    one(context.builder.map(body.finish(result), &[x, scale])?)
}

/// Drops the low bits of a quantized value (version 1 of the operator).
fn truncation(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (scale, zero) = (context.operand(node, 1, "scale")?, context.operand(node, 2, "zeropt")?);
    if node.inputs.len() != 5 {
        return Err(unsupported("the form with a scale for the result"));
    }
    let dropped = constant(context, node, 3, "in_bitwidth")? - constant(context, node, 4, "out_bitwidth")?;
    let mode = node.string("rounding_mode")?.unwrap_or("FLOOR");
    let round = if mode.eq_ignore_ascii_case("FLOOR") { Function::Floor } else { rounding(node)? };
    let mut body = Body::new(3, context.dtype(x)?);
    let (value, step, offset) = (body.operand(0), body.operand(1), body.operand(2));
    let level = body.call(Function::Div, &[value, step]);
    let level = body.call(Function::Add, &[level, offset]);
    let level = body.call(Function::Round, &[level]);
    let level = body.with(Function::Div, level, dropped.exp2());
    let level = body.call(round, &[level]);
    let level = body.call(Function::Sub, &[level, offset]);
    let result = body.call(Function::Mul, &[level, step]);
    one(context.builder.map(body.finish(result), &[x, scale, zero])?)
}

/// Rounds to a floating-point format of given exponent and mantissa widths, with subnormals, saturating.
fn float_quantizer(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let scale = context.operand(node, 1, "scale")?;
    if context.dtype(x)? != DType::F32 {
        return Err(unsupported("element types other than f32"));
    }
    if !node.flag("saturation", true)? {
        return Err(unsupported("overflow to infinity or NaN"));
    }
    let exponent = constant(context, node, 2, "exponent_bitwidth")?;
    let mantissa = constant(context, node, 3, "mantissa_bitwidth")?;
    let bias = match node.input(4) {
        Some(_) => constant(context, node, 4, "exponent_bias")?,
        None => (exponent - 1.0).exp2() - 1.0,
    };
    let largest = (2.0 - (-mantissa).exp2()) * (exponent.exp2() - 1.0 - bias).exp2();
    let largest = match node.input(5) {
        Some(_) => largest.min(constant(context, node, 5, "max_val")?),
        None => largest,
    };
    let smallest_step = 1.0 - bias - mantissa;
    if !(-126.0..=127.0).contains(&smallest_step) || !largest.is_finite() {
        return Err(attribute("exponent_bias", format!("{bias}, which f32 does not hold")));
    }
    let round = rounding(node)?;
    let integer = |value: f64| Arg::Const(Scalar::integer(DType::I32, value as i64));
    let mut body = ScalarExpr::with_inputs(2);
    let scaled = body.apply(Function::Div, &[Arg::Input(0), Arg::Input(1)]);
    // The exponent field of an f32 is the floor of the binary logarithm, exactly.
    let magnitude = body.apply(Function::Abs, &[scaled]);
    let bits = body.push(ScalarOp::Bitcast(DType::I32), &[magnitude]);
    let field = body.apply(Function::ShiftRight, &[bits, integer(23.0)]);
    let step = body.apply(Function::Sub, &[field, integer(127.0 + mantissa)]);
    let step = body.apply(Function::Max, &[step, integer(smallest_step)]);
    let field = body.apply(Function::Add, &[step, integer(127.0)]);
    let bits = body.apply(Function::ShiftLeft, &[field, integer(23.0)]);
    let step = body.push(ScalarOp::Bitcast(DType::F32), &[bits]);
    let level = body.apply(Function::Div, &[scaled, step]);
    let level = body.apply(round, &[level]);
    let value = body.apply(Function::Mul, &[level, step]);
    let number = |value: f64| Arg::Const(Scalar::float(DType::F32, value));
    let value = body.apply(Function::Max, &[value, number(-largest)]);
    let value = body.apply(Function::Min, &[value, number(largest)]);
    body.result = body.apply(Function::Mul, &[value, Arg::Input(1)]);
    one(context.builder.map(body, &[x, scale])?)
}

/// `out_scale * (how many of the channel's thresholds the element reaches) + out_bias`.
fn multi_threshold(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, thresholds) = (context.operand(node, 0, "v")?, context.operand(node, 1, "thresholds")?);
    let (shape, levels) = (context.shape(x)?, context.shape(thresholds)?);
    let [channels, steps] = &levels[..] else { return Err(operands("the thresholds are no matrix")) };
    let default = match shape.len() {
        3 => "NWC",
        4 => "NCHW",
        _ => "NC",
    };
    let layout = node.string("data_layout")?.filter(|layout| !layout.is_empty()).unwrap_or(default);
    let axis = layout.find('C').unwrap_or(1);
    if axis >= shape.len() {
        return Err(attribute("data_layout", format!("'{layout}' for rank {}", shape.len())));
    }
    let (scale, bias) = (node.float("out_scale")?.unwrap_or(1.0), node.float("out_bias")?.unwrap_or(0.0));
    // A last axis runs over the thresholds of each channel.
    let mut spread = shape.clone();
    spread.push(Dim::Const(1));
    let values = context.builder.reshape(x, spread)?;
    let mut extents = vec![Dim::Const(1); shape.len() + 1];
    (extents[axis], extents[shape.len()]) = (channels.clone(), steps.clone());
    let thresholds = context.builder.reshape(thresholds, extents)?;
    let dtype = context.dtype(x)?;
    let thresholds = context.builder.cast(thresholds, dtype)?;
    let mut body = Body::new(2, dtype);
    let (threshold, value) = (body.operand(0), body.operand(1));
    let reached = body.call(Function::LessEqual, &[threshold, value]);
    let counted = body.cast(reached, dtype);
    let counted = context.builder.map(body.finish_as_is(counted), &[thresholds, values])?;
    let count = context.builder.reduce(ReduceKind::Sum, counted, vec![shape.len()], false)?;
    one(context.map1(count, |body, count| {
        let scaled = body.with(Function::Mul, count, scale.into());
        body.with(Function::Add, scaled, bias.into())
    })?)
}
