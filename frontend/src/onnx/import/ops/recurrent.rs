//! Recurrent layers: RNN, GRU, LSTM.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::table::{Entry, since};
use tcc_ir::attribute::Real;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Scalar;
use tcc_ir::words::{CellKind, Direction};

pub(super) static TABLE: &[Entry] = &[
    since(7, "RNN", |context, node| recurrent(context, node, CellKind::Rnn)),
    since(7, "GRU", |context, node| recurrent(context, node, CellKind::Gru)),
    since(7, "LSTM", |context, node| recurrent(context, node, CellKind::Lstm)),
];

fn recurrent(context: &mut Context<'_>, node: &Node, cell: CellKind) -> Lowered {
    let batch_first = node.flag("layout", false)?;
    let mut x = context.operand(node, 0, "X")?;
    let (w, r) = (context.operand(node, 1, "W")?, context.operand(node, 2, "R")?);
    if context.shape(x)?.len() != 3 || context.shape(w)?.len() != 3 || context.shape(r)?.len() != 3 {
        return Err(operands("X, W and R have three axes"));
    }
    if batch_first {
        x = context.builder.transpose(x, vec![1, 0, 2])?;
    }
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let (steps, batch) = (shape[0].clone(), shape[1].clone());
    let (directions, hidden) = (context.shape(w)?[0].clone(), context.shape(r)?[2].clone());
    let (direction, expected) = match node.string("direction")?.unwrap_or("forward") {
        "forward" => (Direction::Forward, 1),
        "reverse" => (Direction::Reverse, 1),
        "bidirectional" => (Direction::Bidirectional, 2),
        other => return Err(attribute("direction", format!("'{other}'"))),
    };
    if !directions.is(expected) {
        return Err(operands(format!("W has {directions} directions, expected {expected}")));
    }
    if let Some(size) = node.int("hidden_size")? {
        context.require_equal(
            hidden.clone(),
            Dim::Const(size),
            "attribute 'hidden_size' and the extent of R",
        )?;
    }
    let gates = match cell {
        CellKind::Rnn => 1,
        CellKind::Gru => 3,
        CellKind::Lstm => 4,
    };
    let zeros = |context: &mut Context<'_>, shape: Vec<Dim>| -> Result<Value, Refusal> {
        let zero = context.builder.scalar(Scalar::of(dtype, 0.0))?;
        Ok(context.builder.broadcast(zero, shape)?)
    };
    let bias = match context.optional(node, 3)? {
        Some(bias) => bias,
        None => zeros(context, vec![directions.clone(), hidden.clone() * Dim::Const(2 * gates)])?,
    };
    let lengths = match context.optional(node, 4)? {
        Some(lengths) => lengths,
        None => {
            let steps = context.size_scalar(steps)?;
            let steps = context.builder.cast(steps, DType::I32)?;
            context.builder.broadcast(steps, vec![batch.clone()])?
        }
    };
    let state_shape = vec![directions.clone(), batch, hidden.clone()];
    let state = |context: &mut Context<'_>, index: usize| -> Result<Value, Refusal> {
        match context.optional(node, index)? {
            Some(state) if batch_first => Ok(context.builder.transpose(state, vec![1, 0, 2])?),
            Some(state) => Ok(state),
            None => zeros(context, state_shape.clone()),
        }
    };
    let mut values = vec![x, w, r, bias, lengths, state(context, 5)?];
    if cell == CellKind::Lstm {
        values.push(state(context, 6)?);
        values.push(match context.optional(node, 7)? {
            Some(peepholes) => peepholes,
            None => zeros(context, vec![directions, hidden * Dim::Const(3)])?,
        });
    }
    let Activations { names: activations, alphas, betas } = activations(node, cell, expected as usize)?;
    let reals = |list: Vec<f64>| list.into_iter().map(Real::from).collect();
    let operator = Operator::Recurrent {
        cell,
        direction,
        activations,
        alphas: reals(alphas),
        betas: reals(betas),
        clip: Real::from(node.float("clip")?.unwrap_or(0.0)),
        linear_before_reset: node.flag("linear_before_reset", false)?,
        input_forget: node.flag("input_forget", false)?,
    };
    let results = context.builder.op(operator, &values)?;
    let mut bindings = Vec::with_capacity(results.len());
    for (index, mut result) in results.into_iter().enumerate() {
        if batch_first {
            // All states are [steps, directions, batch, hidden], the last ones [directions, batch, hidden].
            let perm = if index == 0 { vec![2, 0, 1, 3] } else { vec![1, 0, 2] };
            result = context.builder.transpose(result, perm)?;
        }
        bindings.push(Binding::Value(result));
    }
    Ok(bindings)
}

/// Activation functions of all directions in lower case, each with its alpha and beta (0 where it has none).
struct Activations {
    names: Vec<String>,
    alphas: Vec<f64>,
    betas: Vec<f64>,
}

fn activations(node: &Node, cell: CellKind, directions: usize) -> Result<Activations, Refusal> {
    let defaults: &[&str] = match cell {
        CellKind::Rnn => &["tanh"],
        CellKind::Gru => &["sigmoid", "tanh"],
        CellKind::Lstm => &["sigmoid", "tanh", "tanh"],
    };
    let names: Vec<String> = match node.strings("activations")? {
        Some(names) => names.iter().map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect(),
        None => defaults.repeat(directions).iter().map(|&name| name.to_owned()).collect(),
    };
    if names.len() != defaults.len() * directions {
        return Err(attribute("activations", format!("{names:?}, expected {}", defaults.len() * directions)));
    }
    let (mut alphas, mut betas) = (Vec::new(), Vec::new());
    // The lists hold values only for those functions that have the parameter, in order.
    let mut given_alphas = node.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut given_betas = node.floats("activation_beta")?.unwrap_or_default().iter();
    for name in &names {
        let (alpha, beta) = match name.as_str() {
            "relu" | "tanh" | "sigmoid" | "softsign" | "softplus" => (None, None),
            "affine" => (Some(1.0), Some(0.0)),
            "leakyrelu" => (Some(0.01), None),
            "thresholdedrelu" | "elu" => (Some(1.0), None),
            "scaledtanh" => (Some(1.0), Some(1.0)),
            "hardsigmoid" => (Some(0.2), Some(0.5)),
            other => return Err(attribute("activations", format!("'{other}'"))),
        };
        let next = |default: Option<f64>, given: &mut std::slice::Iter<'_, f32>| {
            default.map_or(0.0, |default| given.next().map_or(default, |&value| value.into()))
        };
        alphas.push(next(alpha, &mut given_alphas));
        betas.push(next(beta, &mut given_betas));
    }
    Ok(Activations { names, alphas, betas })
}
