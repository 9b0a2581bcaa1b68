//! Classification losses.

use super::super::super::graph::Node;
use super::super::context::Context;
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::table::{Entry, since};
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar};
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] = &[
    since(12, "NegativeLogLikelihoodLoss", |context, node| {
        let input = context.operand(node, 0, "input")?;
        Ok(vec![Binding::Value(loss(context, node, input)?)])
    }),
    since(12, "SoftmaxCrossEntropyLoss", |context, node| {
        let scores = context.operand(node, 0, "scores")?;
        if context.shape(scores)?.len() < 2 {
            return Err(operands("the scores have no classes"));
        }
        let logarithms = context.builder.op1(Operator::Softmax { axis: 1, log: true }, &[scores])?;
        Ok(vec![Binding::Value(loss(context, node, logarithms)?), Binding::Value(logarithms)])
    }),
];

/// `-input[n, target[n, d], d] * weight[target[n, d]]`, reduced; targets equal to `ignore_index` count for nothing.
fn loss(context: &mut Context<'_>, node: &Node, input: Value) -> Result<Value, Refusal> {
    let target = context.operand(node, 1, "target")?;
    let (shape, places) = (context.shape(input)?, context.shape(target)?);
    let dtype = context.dtype(input)?;
    if shape.len() < 2 || places.len() + 1 != shape.len() {
        return Err(operands(format!("scores of rank {} for targets of rank {}", shape.len(), places.len())));
    }
    let ignored = match node.int("ignore_index")? {
        None => None,
        Some(index) => Some(context.map_constant(target, Function::Equal, index as f64)?),
    };
    // An ignored target may lie outside of the classes; it reads class 0 and is multiplied by nothing.
    let target = match ignored {
        None => target,
        Some(ignored) => {
            let index_type = context.dtype(target)?;
            let zero = context.builder.scalar(Scalar::integer(index_type, 0))?;
            context.call(Function::Select, &[ignored, zero, target])?
        }
    };
    let mut weight = match context.optional(node, 2)? {
        Some(weight) => Some(context.builder.op1(Operator::Gather { axis: 0 }, &[weight, target])?),
        None => None,
    };
    if let Some(ignored) = ignored {
        let zero = context.builder.scalar(Scalar::of(dtype, 0.0))?;
        let otherwise = match weight {
            Some(weight) => weight,
            None => context.builder.scalar(Scalar::of(dtype, 1.0))?,
        };
        weight = Some(context.call(Function::Select, &[ignored, zero, otherwise])?);
    }
    let mut columns = places.clone();
    columns.insert(1, Dim::Const(1));
    let column = context.builder.reshape(target, columns)?;
    let picked = context.builder.op1(Operator::GatherElements { axis: 1 }, &[input, column])?;
    let picked = context.builder.reshape(picked, places.clone())?;
    let mut losses = context.call(Function::Neg, &[picked])?;
    if let Some(weight) = weight {
        losses = context.call(Function::Mul, &[losses, weight])?;
    }
    let axes: Vec<usize> = (0..places.len()).collect();
    match (node.string("reduction")?.unwrap_or("mean"), weight) {
        ("none", _) => Ok(losses),
        ("sum", _) => context.reduce_wide(ReduceKind::Sum, losses, axes, false),
        ("mean", None) => context.mean(losses, axes, false),
        ("mean", Some(weight)) => {
            let total = context.reduce_wide(ReduceKind::Sum, losses, axes.clone(), false)?;
            let weights = context.reduce_wide(ReduceKind::Sum, weight, axes, false)?;
            let mut body = Body::new(2, dtype);
            let (total_of, weights_of) = (body.operand(0), body.operand(1));
            let mean = body.call(Function::Div, &[total_of, weights_of]);
            Ok(context.builder.map(body.finish(mean), &[total, weights])?)
        }
        (other, _) => Err(attribute("reduction", format!("'{other}'"))),
    }
}
