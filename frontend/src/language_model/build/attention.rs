//! The attention part of a layer.

use super::super::error::Result;
use super::super::family::Fused;
use super::super::names::Role;
use super::Build;
use super::expression::Body;
use super::rotation::Turn;
use tcc_ir::dim::Dim;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;

impl Build<'_> {
    /// Attention of `x` `[n, width]` over the caches of a layer, which get its keys and values; `[o, width]` in the last
    /// layer.
    pub(super) fn attention(&mut self, x: Value, layer: usize) -> Result<Value> {
        let l = self.decoder.layers[layer].clone();
        let (heads, kv_heads, size, value_size) = (l.heads, l.kv_heads, l.head_size, l.value_size);
        let [q, k, v] = self.projections(x, layer)?;
        self.at_layer(layer, "attention.heads");
        let q = self.head_normalize(q, Role::QueryNorm, layer, heads, size)?;
        let k = self.head_normalize(k, Role::KeyNorm, layer, kv_heads, size)?;
        let rows = self.builder.shape(x)?[0].clone();
        let v = self.builder.reshape(v, vec![rows.clone(), Dim::from(kv_heads), Dim::from(value_size)])?;
        let [mut q, mut k, v] =
            [self.clipped(q, l.qkv_clip)?, self.clipped(k, l.qkv_clip)?, self.clipped(v, l.qkv_clip)?];
        if let Some(rope) = l.rope {
            self.at("rope");
            let turn = self.turn(rope)?;
            self.at_layer(layer, "rope");
            q = turn.apply(&mut self.builder, q)?;
            k = turn.apply(&mut self.builder, k)?;
        }
        self.at_layer(layer, "attention");
        let keys = self.cached(&format!("k.{layer}"), k, kv_heads, size)?;
        let values = self.cached(&format!("v.{layer}"), v, kv_heads, value_size)?;
        let operator = Operator::KvAttend {
            scale: l.scale.into(),
            softcap: l.softcap.into(),
            window: l.window,
            sinks: 0,
            page: self.page,
            split: 0,
            k_storage: self.storage,
            v_storage: self.storage,
        };
        let [q, rows_in, positions] =
            [q, self.inputs.rows, self.inputs.positions].map(|x| self.wanted(x, layer));
        let (q, rows_in, positions) = (q?, rows_in?, positions?);
        let y =
            self.builder.op1(operator, &[q, keys, values, self.inputs.block_table, rows_in, positions])?;
        let rows = self.builder.shape(y)?[0].clone();
        let y = self.builder.reshape(y, vec![rows, Dim::from(heads * value_size)])?;
        self.at_layer(layer, "attention.output");
        let shape = [self.decoder.width, heads * value_size];
        let bias = self.decoder.biases.output;
        self.linear(y, Role::AttentionOutput, layer, shape, "width and query heads", bias)
    }

    /// Cosines and sines of a rotary embedding, which its layers share.
    fn turn(&mut self, rope: usize) -> Result<Turn> {
        if let Some(turn) = self.turns[rope] {
            return Ok(turn);
        }
        let positions = self.inputs.positions;
        let turn = Turn::build(&mut self.builder, &self.decoder.ropes[rope], positions, self.context)?;
        self.turns[rope] = Some(turn);
        Ok(turn)
    }

    /// Queries, keys and values of `x`, each `[n, features]`.
    fn projections(&mut self, x: Value, layer: usize) -> Result<[Value; 3]> {
        let l = &self.decoder.layers[layer];
        let (width, bias) = (self.decoder.width, self.decoder.biases.attention);
        let sizes = [l.heads * l.head_size, l.kv_heads * l.head_size, l.kv_heads * l.value_size];
        let (heads, head_size) = (l.heads, l.head_size);
        if self.weights.has(Role::QueryKeyValue, layer, ".weight") {
            self.at_layer(layer, "attention.qkv");
            let shape = [sizes.iter().sum(), width];
            let all = self.linear(x, Role::QueryKeyValue, layer, shape, "heads and width", bias)?;
            if self.weights.fused() == Fused::Heads && sizes == [sizes[0]; 3] {
                return self.by_heads(all, heads, head_size);
            }
            let starts = [0, sizes[0], sizes[0] + sizes[1]];
            return Ok([
                self.columns(all, starts[0], sizes[0])?,
                self.columns(all, starts[1], sizes[1])?,
                self.columns(all, starts[2], sizes[2])?,
            ]);
        }
        let mut parts = [x; 3];
        let roles = [(Role::Query, "query"), (Role::Key, "key"), (Role::Value, "value")];
        for ((part, (role, name)), size) in parts.iter_mut().zip(roles).zip(sizes) {
            self.at_layer(layer, &format!("attention.{name}"));
            *part = self.linear(x, role, layer, [size, width], "heads and width", bias)?;
        }
        Ok(parts)
    }

    /// The parts of `[n, heads, 3, size]`, each `[n, heads * size]`.
    fn by_heads(&mut self, all: Value, heads: usize, size: usize) -> Result<[Value; 3]> {
        let rows = self.builder.shape(all)?[0].clone();
        let split = vec![rows.clone(), Dim::from(heads), Dim::from(3usize), Dim::from(size)];
        let all = self.builder.reshape(all, split)?;
        let mut parts = [all; 3];
        for (index, part) in parts.iter_mut().enumerate() {
            let starts = vec![Dim::Const(0), Dim::Const(0), Dim::from(index), Dim::Const(0)];
            let sizes = vec![rows.clone(), Dim::from(heads), Dim::Const(1), Dim::from(size)];
            let own = self.builder.op1(Operator::Slice { starts, sizes, steps: vec![1; 4] }, &[all])?;
            *part = self.builder.reshape(own, vec![rows.clone(), Dim::from(heads * size)])?;
        }
        Ok(parts)
    }

    /// `size` columns of a matrix from `start`.
    pub(super) fn columns(&mut self, x: Value, start: usize, size: usize) -> Result<Value> {
        let rows = self.builder.shape(x)?[0].clone();
        let starts = vec![Dim::Const(0), Dim::from(start)];
        let sizes = vec![rows, Dim::from(size)];
        Ok(self.builder.op1(Operator::Slice { starts, sizes, steps: vec![1; 2] }, &[x])?)
    }

    /// The cache of this name with `x` `[n, heads, size]` at the slots of the tokens.
    fn cached(&mut self, name: &str, x: Value, heads: usize, size: usize) -> Result<Value> {
        let shape = vec![self.inputs.slot_count.clone(), Dim::from(heads), Dim::from(size)];
        let state = Operator::KvState { name: name.to_owned(), shape, storage: self.storage };
        let cache = self.builder.op1(state, &[])?;
        let append = Operator::KvAppend { storage: self.storage };
        Ok(self.builder.op1(append, &[cache, x, self.inputs.slots])?)
    }

    /// `x` limited to a magnitude; 0 is no limit.
    fn clipped(&mut self, x: Value, limit: f64) -> Result<Value> {
        if limit == 0.0 {
            return Ok(x);
        }
        let mut body = Body::new(1);
        let above = body.with(Function::Max, Body::input(0), -limit);
        let between = body.with(Function::Min, above, limit);
        Ok(self.builder.map(body.finish(between), &[x])?)
    }
}
