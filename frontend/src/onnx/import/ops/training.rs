//! Optimizer steps of the training preview domain.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::table::{Entry, custom};
use super::scalar::Body;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};

const DOMAIN: &str = "ai.onnx.preview.training";

pub(super) static TABLE: &[Entry] =
    &[custom(DOMAIN, "Momentum", momentum), custom(DOMAIN, "Adagrad", adagrad), custom(DOMAIN, "Adam", adam)];

fn parameter(node: &Node, name: &str, default: f64) -> Result<f64, Refusal> {
    Ok(node.float(name)?.map_or(default, f64::from))
}

/// One update of every tensor: `groups` operands for each behind the rate and the step count. The outputs list all
/// first results, then all second ones, and so on.
fn update(
    context: &mut Context<'_>,
    node: &Node,
    groups: usize,
    step: impl Fn(&mut Context<'_>, Value, Value, &[Value]) -> Result<Vec<Value>, Refusal>,
) -> Lowered {
    let values = context.operands(node)?;
    let [rate, count, tensors @ ..] = &values[..] else {
        return Err(operands("the rate and the step are missing"));
    };
    if tensors.len() % groups != 0 {
        return Err(operands(format!("{} tensors are no multiple of {groups}", tensors.len())));
    }
    let number = tensors.len() / groups;
    let mut results: Vec<Vec<Value>> = Vec::new();
    for index in 0..number {
        let group: Vec<Value> = (0..groups).map(|part| tensors[part * number + index]).collect();
        results.push(step(context, *rate, *count, &group)?);
    }
    let parts = results.first().map_or(0, Vec::len);
    Ok((0..parts).flat_map(|part| results.iter().map(move |result| Binding::Value(result[part]))).collect())
}

/// The gradient with the derivative of the weight penalty.
fn regularized(body: &mut Body, x: Arg, gradient: Arg, norm: f64) -> Arg {
    let penalty = body.with(Function::Mul, x, norm);
    body.call(Function::Add, &[penalty, gradient])
}

fn momentum(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (alpha, beta) = (parameter(node, "alpha", 0.9)?, parameter(node, "beta", 0.1)?);
    let norm = parameter(node, "norm_coefficient", 0.0)?;
    let nesterov = match node.string("mode")?.unwrap_or("standard") {
        "standard" => false,
        "nesterov" => true,
        other => return Err(attribute("mode", format!("'{other}'"))),
    };
    update(context, node, 3, |context, rate, count, group| {
        let dtype = context.dtype(group[0])?;
        // In the first step the gradient counts in full.
        let first = context.map_constant(count, Function::Less, 1.0)?;
        let mut choice = ScalarExpr::with_inputs(1);
        let weights = [1.0, beta].map(|weight| Arg::Const(Scalar::of(dtype, weight)));
        choice.result = choice.apply(Function::Select, &[Arg::Input(0), weights[0], weights[1]]);
        let weight = context.builder.map(choice, &[first])?;
        let mut body = Body::new(4, dtype);
        let args = [body.operand(0), body.operand(1), body.operand(2), body.operand(3)];
        let gradient = regularized(&mut body, args[0], args[1], norm);
        let old = body.with(Function::Mul, args[2], alpha);
        let new = body.call(Function::Mul, &[gradient, args[3]]);
        let velocity = body.call(Function::Add, &[old, new]);
        let velocity = context.builder.map(body.finish(velocity), &[group[0], group[1], group[2], weight])?;
        let mut body = Body::new(4, dtype);
        let args = [body.operand(0), body.operand(1), body.operand(2), body.operand(3)];
        let direction = if nesterov {
            let gradient = regularized(&mut body, args[0], args[1], norm);
            let ahead = body.with(Function::Mul, args[2], alpha);
            body.call(Function::Add, &[gradient, ahead])
        } else {
            args[2]
        };
        let change = body.call(Function::Mul, &[args[3], direction]);
        let next = body.call(Function::Sub, &[args[0], change]);
        let next = context.builder.map(body.finish(next), &[group[0], group[1], velocity, rate])?;
        Ok(vec![next, velocity])
    })
}

fn adagrad(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (decay, epsilon) = (parameter(node, "decay_factor", 0.0)?, parameter(node, "epsilon", 1e-6)?);
    let norm = parameter(node, "norm_coefficient", 0.0)?;
    update(context, node, 3, |context, rate, count, group| {
        let dtype = context.dtype(group[0])?;
        let count = context.builder.cast(count, dtype)?;
        let mut body = Body::new(2, dtype);
        let (rate_of, count_of) = (body.operand(0), body.operand(1));
        let divisor = body.with(Function::Mul, count_of, decay);
        let divisor = body.with(Function::Add, divisor, 1.0);
        let decayed = body.call(Function::Div, &[rate_of, divisor]);
        let rate = context.builder.map(body.finish(decayed), &[rate, count])?;
        let mut body = Body::new(3, dtype);
        let args = [body.operand(0), body.operand(1), body.operand(2)];
        let gradient = regularized(&mut body, args[0], args[1], norm);
        let square = body.call(Function::Mul, &[gradient, gradient]);
        let sum = body.call(Function::Add, &[args[2], square]);
        let sum = context.builder.map(body.finish(sum), group)?;
        let mut body = Body::new(4, dtype);
        let args = [body.operand(0), body.operand(1), body.operand(2), body.operand(3)];
        let gradient = regularized(&mut body, args[0], args[1], norm);
        let scale = body.call(Function::Sqrt, &[args[2]]);
        let scale = body.with(Function::Add, scale, epsilon);
        let change = body.call(Function::Mul, &[args[3], gradient]);
        let change = body.call(Function::Div, &[change, scale]);
        let next = body.call(Function::Sub, &[args[0], change]);
        let next = context.builder.map(body.finish(next), &[group[0], group[1], sum, rate])?;
        Ok(vec![next, sum])
    })
}

fn adam(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (alpha, beta) = (parameter(node, "alpha", 0.9)?, parameter(node, "beta", 0.999)?);
    let epsilon = parameter(node, "epsilon", 1e-6)?;
    let norm = parameter(node, "norm_coefficient", 0.0)?;
    let norm_after = parameter(node, "norm_coefficient_post", 0.0)?;
    update(context, node, 4, |context, rate, count, group| {
        let dtype = context.dtype(group[0])?;
        let average =
            |context: &mut Context<'_>, old: Value, weight: f64, squared: bool| -> Result<Value, Refusal> {
                let mut body = Body::new(3, dtype);
                let args = [body.operand(0), body.operand(1), body.operand(2)];
                let gradient = regularized(&mut body, args[0], args[1], norm);
                let term = if squared { body.call(Function::Mul, &[gradient, gradient]) } else { gradient };
                let new = body.with(Function::Mul, term, 1.0 - weight);
                let kept = body.with(Function::Mul, args[2], weight);
                let mean = body.call(Function::Add, &[kept, new]);
                Ok(context.builder.map(body.finish(mean), &[group[0], group[1], old])?)
            };
        let mean = average(context, group[2], alpha, false)?;
        let square = average(context, group[3], beta, true)?;
        // The bias of the averages is corrected after the first step: rate * sqrt(1 - beta^t) / (1 - alpha^t).
        let steps = context.builder.cast(count, DType::F64)?;
        let wide_rate = context.builder.cast(rate, DType::F64)?;
        let mut body = Body::new(2, DType::F64);
        let (rate_of, count_of) = (body.operand(0), body.operand(1));
        let remaining = |body: &mut Body, base: f64| {
            let base = body.constant(base);
            let power = body.call(Function::Pow, &[base, count_of]);
            let one = body.constant(1.0);
            body.call(Function::Sub, &[one, power])
        };
        let (first, second) = (remaining(&mut body, alpha), remaining(&mut body, beta));
        let root = body.call(Function::Sqrt, &[second]);
        let corrected = body.call(Function::Mul, &[rate_of, root]);
        let corrected = body.call(Function::Div, &[corrected, first]);
        let zero = body.constant(0.0);
        let later = body.call(Function::Less, &[zero, count_of]);
        let corrected = body.select(later, corrected, rate_of);
        let corrected = body.cast(corrected, dtype);
        let rate = context.builder.map(body.finish_as_is(corrected), &[wide_rate, steps])?;
        let mut body = Body::new(4, dtype);
        let args = [body.operand(0), body.operand(1), body.operand(2), body.operand(3)];
        let scale = body.call(Function::Sqrt, &[args[2]]);
        let scale = body.with(Function::Add, scale, epsilon);
        let change = body.call(Function::Mul, &[args[3], args[1]]);
        let change = body.call(Function::Div, &[change, scale]);
        let next = body.call(Function::Sub, &[args[0], change]);
        let next = body.with(Function::Mul, next, 1.0 - norm_after);
        let next = context.builder.map(body.finish(next), &[group[0], mean, square, rate])?;
        Ok(vec![next, mean, square])
    })
}
