//! The model function in tensor IR.
//!
//! Inputs `tokens [n]`, `positions [n]`, `slots [n]`, `rows [n]`, `block_table [s, p]` and `outputs [o]`, all `i64`;
//! result `logits [o, vocabulary]` in `f32`. Token `i` stands at `positions[i]` of the sequence in row `rows[i]` of the
//! block table, and its keys and values go to slot `slots[i]` of the caches `k.LAYER` and `v.LAYER`. `outputs` says which
//! of the `n` tokens' logits are wanted; only those go through the head and what of the last layer no cache needs. One function serves chunks of
//! a prompt, batches of single tokens, and mixtures.
//!
//! Everything is computed in `f32` from the stored numbers: nothing is quantized, merged or approximated here.

mod attention;
mod expression;
mod forward;
mod matrix;
mod rotation;

use super::decoder::{BlockOrder, Decoder, QkNorm};
use super::error::{LanguageModelError, Result};
use super::names::Role;
use super::weights::Weights;
use expression::Body;
use rotation::Turn;
use std::collections::HashMap;
use tcc_ir::builder::Builder;
use tcc_ir::cache::{CacheFormat, CacheStorage};
use tcc_ir::data::Data;
use tcc_ir::dim::{Dim, Range, Symbol};
use tcc_ir::dtype::DType;
use tcc_ir::module::{Location, Module, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::types::Type;

/// What the caller decides about the function.
#[derive(Clone, PartialEq, Debug)]
pub struct ImportOptions {
    /// Name of the function.
    pub function: String,
    /// Positions to be served, at most; 0: as many as the model was trained for.
    pub context: usize,
    /// Tokens in one run.
    pub tokens: Range,
    /// Slots of a page of the caches.
    pub page: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions { function: "main".into(), context: 0, tokens: Range { low: 1, high: 4096 }, page: 16 }
    }
}

/// The function under construction and what its parts share.
struct Build<'m> {
    builder: Builder,
    decoder: &'m Decoder,
    weights: &'m Weights,
    page: usize,
    /// Caches of an imported function are exact; passes choose what is stored.
    storage: CacheStorage,
    /// Stored tensors that are already in the function, by name: tied ones are there once.
    constants: HashMap<String, Value>,
    /// Cosines and sines of each rotary embedding, from the first layer on that uses it.
    turns: Vec<Option<Turn>>,
    context: usize,
    inputs: Inputs,
}

/// The inputs.
struct Inputs {
    tokens: Value,
    positions: Value,
    slots: Value,
    rows: Value,
    block_table: Value,
    outputs: Value,
    slot_count: Dim,
}

/// Builds the function of a model.
///
/// # Errors
/// Weights are missing, have other shapes than the description gives them, or are more than it has use for.
pub(super) fn module(decoder: &Decoder, weights: &Weights, options: &ImportOptions) -> Result<Module> {
    let context = if options.context == 0 { decoder.context } else { options.context };
    let mut builder = Builder::new(&options.function);
    let page = options.page.max(1);
    let high = options.tokens.high;
    let mut symbol = |name: &str, low: i64, high: i64| {
        let symbol = Symbol::new(name);
        builder.declare(&symbol, Range { low, high });
        Dim::symbol(&symbol)
    };
    let n = symbol("n", options.tokens.low, high);
    let s = symbol("s", 1, high);
    let p = symbol("p", 1, context.div_ceil(page).max(1) as i64);
    let o = symbol("o", 0, high);
    let slot_count = symbol("kv_slots", 1, i64::from(i32::MAX));
    let mut input = |name: &str, shape: Vec<Dim>| builder.input(name, Type::tensor(DType::I64, shape));
    let inputs = Inputs {
        tokens: input("tokens", vec![n.clone()]),
        positions: input("positions", vec![n.clone()]),
        slots: input("slots", vec![n.clone()]),
        rows: input("rows", vec![n]),
        block_table: input("block_table", vec![s, p]),
        outputs: input("outputs", vec![o]),
        slot_count,
    };
    let storage = CacheStorage::plain(CacheFormat::F32);
    let turns = decoder.ropes.iter().map(|_| None).collect();
    let constants = HashMap::new();
    let mut build = Build { builder, decoder, weights, page, storage, constants, turns, context, inputs };
    let logits = build.logits()?;
    weights.check_used()?;
    Ok(Module::with(build.builder.finish(&[("logits", logits)])))
}

impl Build<'_> {
    fn logits(&mut self) -> Result<Value> {
        let mut x = self.embedding()?;
        for layer in 0..self.decoder.layers.len() {
            x = self.layer(x, layer)?;
        }
        let x = self.norm(x, Role::FinalNorm, 0)?;
        self.at("head");
        let logits = self.head(x)?;
        let logits = self.scaled(logits, self.decoder.logit_scale)?;
        self.soft_capped(logits, self.decoder.logit_softcap)
    }

    /// Names the operations that follow.
    fn at(&mut self, place: &str) {
        self.builder.set_location(Location::named(place));
    }

    fn at_layer(&mut self, layer: usize, place: &str) {
        self.at(&format!("layer.{layer}.{place}"));
    }

    fn embedding(&mut self) -> Result<Value> {
        self.at("embedding");
        let (decoder, tokens) = (self.decoder, self.inputs.tokens);
        let shape = [decoder.vocabulary, decoder.width];
        let rows = self.rows(Role::Embedding, shape, "vocabulary and width", tokens)?;
        let x = self.scaled(rows, decoder.embedding_scale)?;
        if !decoder.learned_positions {
            return Ok(x);
        }
        let context = self.context;
        if context > decoder.context {
            return Err(LanguageModelError::Value {
                source_name: "the context asked for",
                key: "positions".into(),
                reason: format!("{context}, and the model has learned {}", decoder.context),
            });
        }
        let shape = [decoder.context, decoder.width];
        let positions = self.rows(Role::Positions, shape, "positions and width", self.inputs.positions)?;
        Ok(self.builder.call(Function::Add, &[x, positions])?)
    }

    fn head(&mut self, x: Value) -> Result<Value> {
        let decoder = self.decoder;
        let stored = self.weights.has(Role::Head, 0, ".weight");
        let tied = decoder.tied.unwrap_or(!stored);
        if tied && stored && decoder.tied.is_some() {
            // Files may hold the embedding a second time; the configuration says which one counts.
            self.weights.matrix(
                Role::Head,
                0,
                0,
                [decoder.vocabulary, decoder.width],
                "vocabulary and width",
            )?;
        }
        let role = if tied { Role::Embedding } else { Role::Head };
        self.linear(x, role, 0, [decoder.vocabulary, decoder.width], "vocabulary and width", None)
    }

    /// The rows of `x` `[n, ..]` that the rest of a layer needs: in the last one, those whose logits are wanted.
    fn wanted(&mut self, x: Value, layer: usize) -> Result<Value> {
        if layer + 1 < self.decoder.layers.len() {
            return Ok(x);
        }
        Ok(self.builder.op1(Operator::Gather { axis: 0 }, &[x, self.inputs.outputs])?)
    }

    fn layer(&mut self, x: Value, layer: usize) -> Result<Value> {
        match self.decoder.order {
            BlockOrder::Before => {
                let attended = self.norm(x, Role::AttentionNorm, layer)?;
                let attended = self.attention(attended, layer)?;
                let x = self.wanted(x, layer)?;
                let x = self.residual(x, attended)?;
                let forward = self.norm(x, Role::ForwardNorm, layer)?;
                let forward = self.forward(forward, layer)?;
                self.residual(x, forward)
            }
            BlockOrder::After => {
                let attended = self.attention(x, layer)?;
                let attended = self.norm(attended, Role::AttentionPostNorm, layer)?;
                let x = self.wanted(x, layer)?;
                let x = self.residual(x, attended)?;
                let forward = self.forward(x, layer)?;
                let forward = self.norm(forward, Role::ForwardPostNorm, layer)?;
                self.residual(x, forward)
            }
            BlockOrder::Around => {
                let attended = self.norm(x, Role::AttentionNorm, layer)?;
                let attended = self.attention(attended, layer)?;
                let attended = self.norm(attended, Role::AttentionPostNorm, layer)?;
                let x = self.wanted(x, layer)?;
                let x = self.residual(x, attended)?;
                let forward = self.norm(x, Role::ForwardNorm, layer)?;
                let forward = self.forward(forward, layer)?;
                let forward = self.norm(forward, Role::ForwardPostNorm, layer)?;
                self.residual(x, forward)
            }
            BlockOrder::Parallel | BlockOrder::ParallelShared => {
                let first = self.norm(x, Role::AttentionNorm, layer)?;
                let second = match self.decoder.order {
                    BlockOrder::Parallel => self.norm(x, Role::ForwardNorm, layer)?,
                    _ => first,
                };
                let attended = self.attention(first, layer)?;
                let second = self.wanted(second, layer)?;
                let forward = self.forward(second, layer)?;
                let x = self.wanted(x, layer)?;
                let x = self.residual(x, attended)?;
                self.residual(x, forward)
            }
        }
    }

    /// `x + scale * part`.
    fn residual(&mut self, x: Value, part: Value) -> Result<Value> {
        let scale = self.decoder.residual_scale;
        if scale == 1.0 {
            return Ok(self.builder.call(Function::Add, &[x, part])?);
        }
        let mut body = Body::new(2);
        let scaled = body.with(Function::Mul, Body::input(1), scale);
        let sum = body.call(Function::Add, &[Body::input(0), scaled]);
        Ok(self.builder.map(body.finish(sum), &[x, part])?)
    }

    fn scaled(&mut self, x: Value, scale: f64) -> Result<Value> {
        if scale == 1.0 { Ok(x) } else { Ok(self.builder.call_with(Function::Mul, x, scale)?) }
    }

    fn soft_capped(&mut self, x: Value, cap: f64) -> Result<Value> {
        if cap == 0.0 {
            return Ok(x);
        }
        let mut body = Body::new(1);
        let scaled = body.with(Function::Div, Body::input(0), cap);
        let bent = body.call(Function::Tanh, &[scaled]);
        let capped = body.with(Function::Mul, bent, cap);
        Ok(self.builder.map(body.finish(capped), &[x])?)
    }

    /// The norm of this role over the features of `x` `[.., width]`.
    fn norm(&mut self, x: Value, role: Role, layer: usize) -> Result<Value> {
        match role {
            Role::FinalNorm => self.at("output.norm"),
            role => self.at_layer(layer, &format!("{role:?}")),
        }
        let width = self.decoder.width;
        let weight = self.weights.plain(role, layer, ".weight", &[width], "width")?;
        let weight = weight.ok_or_else(|| self.weights.missing(role, layer, 0, "norms have weights"))?;
        let bias = match self.decoder.norm.centered {
            true => self.weights.plain(role, layer, ".bias", &[width], "width")?,
            false => None,
        };
        self.normalize(x, weight, bias)
    }

    /// Normalization over the last axis with a weight and a bias that broadcast against `x`.
    fn normalize(&mut self, x: Value, weight: Data, bias: Option<Data>) -> Result<Value> {
        let norm = self.decoder.norm;
        let mut weight = self.small(weight)?;
        if norm.offset != 0.0 {
            weight = self.builder.call_with(Function::Add, weight, norm.offset)?;
        }
        let mut operands = vec![x, weight];
        if let Some(bias) = bias {
            operands.push(self.small(bias)?);
        }
        let mut body = Body::new(operands.len());
        let mut y = body.call(Function::Mul, &[Body::input(0), Body::input(1)]);
        if operands.len() == 3 {
            y = body.call(Function::Add, &[y, Body::input(2)]);
        }
        let last = self.builder.shape(x)?.len().saturating_sub(1);
        let operator = Operator::Normalize {
            axes: vec![last],
            epsilon: norm.epsilon.into(),
            centered: norm.centered,
            epilogue: body.finish(y),
        };
        Ok(self.builder.op1(operator, &operands)?)
    }

    /// Queries or keys `[n, heads * size]`, normalized, as `[n, heads, size]`.
    fn head_normalize(
        &mut self,
        x: Value,
        role: Role,
        layer: usize,
        heads: usize,
        size: usize,
    ) -> Result<Value> {
        let kind = self.decoder.layers[layer].qk_norm;
        let rows = self.builder.shape(x)?.first().cloned().unwrap_or(Dim::Const(0));
        let split = vec![rows, Dim::from(heads), Dim::from(size)];
        let missing = |build: &Self| build.weights.missing(role, layer, 0, "queries and keys are normalized");
        match kind {
            QkNorm::None => Ok(self.builder.reshape(x, split)?),
            QkNorm::Whole => {
                let weight = self.weights.plain(role, layer, ".weight", &[heads * size], "all heads")?;
                let y = self.normalize(x, weight.ok_or_else(|| missing(self))?, None)?;
                Ok(self.builder.reshape(y, split)?)
            }
            QkNorm::Head => {
                let x = self.builder.reshape(x, split)?;
                let weight = self.weights.plain(role, layer, ".weight", &[size], "size of a head")?;
                self.normalize(x, weight.ok_or_else(|| missing(self))?, None)
            }
            QkNorm::EachHead => {
                let x = self.builder.reshape(x, split)?;
                let rows = self.weights.head_norms(role, layer, heads, size)?.ok_or_else(|| missing(self))?;
                let weight = self.stack(rows)?;
                let y = self.builder.normalize(
                    x,
                    vec![2],
                    self.decoder.norm.epsilon,
                    self.decoder.norm.centered,
                )?;
                Ok(self.builder.call(Function::Mul, &[y, weight])?)
            }
        }
    }
}
