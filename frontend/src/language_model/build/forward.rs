//! The feed-forward part of a layer, dense or a mixture of experts.

use super::super::decoder::{Experts, Layer};
use super::super::error::Result;
use super::super::names::Role;
use super::Build;
use super::expression::Body;
use tcc_ir::dim::Dim;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

impl Build<'_> {
    /// The feed-forward part of `x` `[n, width]`.
    pub(super) fn forward(&mut self, x: Value, layer: usize) -> Result<Value> {
        let l = self.decoder.layers[layer].clone();
        if let Some(experts) = l.experts {
            return self.mixture(x, layer, &l, experts);
        }
        let (width, inner, bias) = (self.decoder.width, l.inner, self.decoder.biases.forward);
        let reason = "feed-forward size and width";
        let hidden = if self.decoder.gated {
            let (gate, up) = if self.weights.has(Role::GateUp, layer, ".weight") {
                self.at_layer(layer, "forward.gate_up");
                let both = self.linear(x, Role::GateUp, layer, [2 * inner, width], reason, bias)?;
                (self.columns(both, 0, inner)?, self.columns(both, inner, inner)?)
            } else {
                self.at_layer(layer, "forward.gate");
                let gate = self.linear(x, Role::Gate, layer, [inner, width], reason, bias)?;
                self.at_layer(layer, "forward.up");
                (gate, self.linear(x, Role::Up, layer, [inner, width], reason, bias)?)
            };
            self.gated(gate, up)?
        } else {
            self.at_layer(layer, "forward.up");
            let up = self.linear(x, Role::Up, layer, [inner, width], reason, bias)?;
            let mut body = Body::new(1);
            let y = body.activation(self.decoder.activation, Body::input(0));
            self.builder.map(body.finish(y), &[up])?
        };
        self.at_layer(layer, "forward.down");
        self.linear(hidden, Role::Down, layer, [width, inner], reason, bias)
    }

    /// `activation(gate) * up`.
    fn gated(&mut self, gate: Value, up: Value) -> Result<Value> {
        let mut body = Body::new(2);
        let bent = body.activation(self.decoder.activation, Body::input(0));
        let y = body.call(Function::Mul, &[bent, Body::input(1)]);
        Ok(self.builder.map(body.finish(y), &[gate, up])?)
    }

    /// The numbers `[count]` in rising order, and where each of them was.
    fn sorted(&mut self, numbers: Value, count: &Dim) -> Result<[Value; 2]> {
        let sort = Operator::TopK { axis: 0, k: count.clone(), largest: false };
        match self.builder.op(sort, &[numbers])?[..] {
            [values, order] => Ok([values, order]),
            _ => Err(tcc_ir::infer::InferError::new("top_k has two results").into()),
        }
    }

    /// The weighted sum of the experts with the largest scores. Rows of token and expert, `[n * used, ..]`, go through
    /// the matrices of their experts, sorted by expert so that those of one come together.
    fn mixture(&mut self, x: Value, layer: usize, l: &Layer, experts: Experts) -> Result<Value> {
        let Experts { count, used, normalized } = experts;
        let (width, inner) = (self.decoder.width, l.inner);
        let n = self.builder.shape(x)?[0].clone();
        let rows = n.clone() * Dim::from(used);
        self.at_layer(layer, "forward.router");
        let scores = self.linear(x, Role::Router, layer, [count, width], "experts and width", None)?;
        let scores = self.builder.op1(Operator::Softmax { axis: 1, log: false }, &[scores])?;
        let top = Operator::TopK { axis: 1, k: Dim::from(used), largest: true };
        let [mut weights, chosen] = self.builder.op(top, &[scores])?[..] else {
            return Err(tcc_ir::infer::InferError::new("top_k has two results").into());
        };
        if normalized {
            let sum = self.builder.reduce(ReduceKind::Sum, weights, vec![1], true)?;
            weights = self.builder.call(Function::Div, &[weights, sum])?;
        }
        let chosen = self.builder.reshape(chosen, vec![rows.clone()])?;
        let [chosen, order] = self.sorted(chosen, &rows)?;
        let [_, places] = self.sorted(order, &rows)?;
        let tokens = self.builder.call_with(Function::Div, order, used as f64)?;
        let x = self.builder.op1(Operator::Gather { axis: 0 }, &[x, tokens])?;
        self.at_layer(layer, "forward.gate");
        let gate = self.expert_linear(x, Role::ExpertGate, layer, count, [inner, width], chosen)?;
        self.at_layer(layer, "forward.up");
        let up = self.expert_linear(x, Role::ExpertUp, layer, count, [inner, width], chosen)?;
        let hidden = self.gated(gate, up)?;
        self.at_layer(layer, "forward.down");
        let y = self.expert_linear(hidden, Role::ExpertDown, layer, count, [width, inner], chosen)?;
        self.at_layer(layer, "forward.sum");
        let y = self.builder.op1(Operator::Gather { axis: 0 }, &[y, places])?;
        let y = self.builder.reshape(y, vec![n.clone(), Dim::from(used), Dim::from(width)])?;
        let weights = self.builder.reshape(weights, vec![n, Dim::from(used), Dim::Const(1)])?;
        let weighted = self.builder.call(Function::Mul, &[y, weights])?;
        Ok(self.builder.reduce(ReduceKind::Sum, weighted, vec![1], false)?)
    }
}
