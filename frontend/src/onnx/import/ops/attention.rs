//! Attention and rotary position embedding of the standard operator set.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::table::{Entry, custom, since};
use super::layout::constant_size;
use tcc_ir::attribute::Real;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};

pub(super) static TABLE: &[Entry] = &[
    since(23, "Attention", attention),
    since(23, "RotaryEmbedding", rotary_embedding),
    since(24, "TensorScatter", write_cache),
    custom("com.microsoft", "RotaryEmbedding", microsoft_rotary_embedding),
];

/// Heads and sizes of an attention, all `[batch, heads, length, size]`.
pub(super) struct Heads {
    pub(super) q: Value,
    pub(super) k: Value,
    pub(super) v: Value,
    /// Additive mask, broadcast to `[batch, q_heads, q_len, kv_len]`.
    pub(super) mask: Option<Value>,
    pub(super) scale: Option<f64>,
    pub(super) softcap: f64,
    pub(super) causal: bool,
    /// How many keys a query sees at most, itself included; 0 for all.
    pub(super) window: usize,
}

impl Context<'_> {
    /// `[batch, length, heads * size]` as `[batch, heads, length, size]`; four axes stay.
    pub(super) fn split_heads(&mut self, x: Value, heads: Dim) -> Result<Value, Refusal> {
        let shape = self.shape(x)?;
        match &shape[..] {
            [_, _, _, _] => Ok(x),
            [batch, length, hidden] => {
                let size = hidden
                    .exact_quotient(&heads)
                    .ok_or_else(|| operands(format!("{hidden} features do not divide into {heads} heads")))?;
                let split = self.builder.reshape(x, vec![batch.clone(), length.clone(), heads, size])?;
                Ok(self.builder.transpose(split, vec![0, 2, 1, 3])?)
            }
            _ => Err(operands(format!("rank {}, expected 3 or 4", shape.len()))),
        }
    }

    /// The inverse of [`Context::split_heads`].
    pub(super) fn join_heads(&mut self, x: Value) -> Result<Value, Refusal> {
        let shape = self.shape(x)?;
        let [batch, heads, length, size] = &shape[..] else { return Err(operands("expected four axes")) };
        let joined = vec![batch.clone(), length.clone(), heads.clone() * size.clone()];
        let x = self.builder.transpose(x, vec![0, 2, 1, 3])?;
        Ok(self.builder.reshape(x, joined)?)
    }

    /// The attention operator.
    pub(super) fn attend(&mut self, heads: &Heads) -> Result<Value, Refusal> {
        let size =
            self.shape(heads.q)?.get(3).cloned().ok_or_else(|| operands("the query has too few axes"))?;
        let scale = match heads.scale {
            Some(scale) => scale,
            None => 1.0 / (constant_size(&size, "the head size")? as f64).sqrt(),
        };
        let mut values = vec![heads.q, heads.k, heads.v];
        values.extend(heads.mask);
        let operator = Operator::Attention {
            scale: Real::from(scale),
            softcap: Real::from(heads.softcap),
            causal: heads.causal,
            window: heads.window,
        };
        Ok(self.builder.op1(operator, &values)?)
    }

    /// A mask with four axes that is added to scores: truth values become 0 and minus infinity; columns that are
    /// missing up to `keys` hide their keys.
    pub(super) fn additive_mask(&mut self, mask: Value, keys: &Dim, dtype: DType) -> Result<Value, Refusal> {
        let mask = if self.dtype(mask)? == DType::Bool {
            self.hide_where_false(mask, dtype)?
        } else {
            self.builder.cast(mask, dtype)?
        };
        let mut shape = self.shape(mask)?;
        while shape.len() < 4 {
            shape.insert(0, Dim::Const(1));
        }
        let mask = self.builder.reshape(mask, shape.clone())?;
        let missing = keys.clone() - shape[3].clone();
        if missing.is(0) || shape[3].is(1) || self.bounds(&missing).low < 0 {
            return Ok(mask);
        }
        let hidden = self.builder.scalar(Scalar::of(dtype, f64::NEG_INFINITY))?;
        let none = vec![Dim::Const(0); 4];
        let mut high = none.clone();
        high[3] = missing;
        let kind = tcc_ir::words::PadKind::Constant;
        Ok(self.builder.op1(Operator::Pad { kind, low: none, high }, &[mask, hidden])?)
    }

    fn hide_where_false(&mut self, visible: Value, dtype: DType) -> Result<Value, Refusal> {
        let mut body = ScalarExpr::with_inputs(1);
        let [shown, hidden] = [0.0, f64::NEG_INFINITY].map(|value| Arg::Const(Scalar::of(dtype, value)));
        body.result = body.apply(Function::Select, &[Arg::Input(0), shown, hidden]);
        Ok(self.builder.map(body, &[visible])?)
    }

    /// Adds a mask to what is there already.
    fn also(&mut self, mask: Option<Value>, other: Value) -> Result<Option<Value>, Refusal> {
        Ok(Some(match mask {
            None => other,
            Some(mask) => self.call(Function::Add, &[mask, other])?,
        }))
    }

    /// Where two conditions hold, of which the first may be missing.
    fn both(&mut self, condition: Option<Value>, other: Value) -> Result<Option<Value>, Refusal> {
        Ok(Some(match condition {
            None => other,
            Some(condition) => self.call(Function::And, &[condition, other])?,
        }))
    }

    /// Coordinates along one of the two last axes of scores, as `i64` with four axes.
    fn score_coordinates(&mut self, extent: &Dim, axis: usize) -> Result<Value, Refusal> {
        let mut shape = vec![Dim::Const(1); 4];
        shape[axis] = extent.clone();
        Ok(self.builder.op1(Operator::Iota { dtype: DType::I64, shape, axis }, &[])?)
    }
}

fn head_count(node: &Node, name: &str) -> Result<Dim, Refusal> {
    match node.int(name)? {
        Some(heads) if heads > 0 => Ok(Dim::Const(heads)),
        Some(heads) => Err(attribute(name, format!("{heads}"))),
        // Four axes do not need it; three cannot be split into no heads.
        None => Ok(Dim::Const(1)),
    }
}

/// How far a query sees to one side; `None` for all the way.
fn window_size(node: &Node, name: &str) -> Result<Option<i64>, Refusal> {
    match node.int(name)?.unwrap_or(-1) {
        -1 => Ok(None),
        size if (0..=i64::from(i32::MAX)).contains(&size) => Ok(Some(size)),
        size => Err(attribute(name, format!("{size}"))),
    }
}

fn attention(context: &mut Context<'_>, node: &Node) -> Lowered {
    let q = context.operand(node, 0, "Q")?;
    let flat = context.shape(q)?.len() == 3;
    let (q_heads, kv_heads) = (head_count(node, "q_num_heads")?, head_count(node, "kv_num_heads")?);
    let q = context.split_heads(q, q_heads)?;
    let k = context.operand(node, 1, "K")?;
    let k = context.split_heads(k, kv_heads.clone())?;
    let v = context.operand(node, 2, "V")?;
    let v = context.split_heads(v, kv_heads)?;
    let (queries, new_keys) = (context.shape(q)?[2].clone(), context.shape(k)?[2].clone());
    let mut offset = Dim::Const(0);
    let mut cached = [k, v];
    for (index, part) in cached.iter_mut().enumerate() {
        if let Some(past) = context.optional(node, 4 + index)? {
            offset =
                context.shape(past)?.get(2).cloned().ok_or_else(|| operands("the past has too few axes"))?;
            *part = context.builder.op1(Operator::Concat { axis: 2 }, &[past, *part])?;
        }
    }
    let [k, v] = cached;
    let (keys, dtype) = (context.shape(k)?[2].clone(), context.dtype(q)?);
    let mut mask = match context.optional(node, 3)? {
        Some(mask) => Some(context.additive_mask(mask, &keys, dtype)?),
        None => None,
    };
    let mut causal = node.flag("is_causal", false)?;
    let window = [window_size(node, "left_window_size")?, window_size(node, "right_window_size")?];
    let valid = context.optional(node, 6)?;
    // The operator of the IR aligns the last query with the last key; here query 0 stands behind the keys of the past, or
    // behind the valid ones that are there before the queries. That is the same only where as many keys as queries are
    // new, and everything else is a mask.
    if valid.is_some() || window.iter().any(Option::is_some) || (causal && new_keys != queries) {
        let (row, place) = (context.score_coordinates(&queries, 2)?, context.score_coordinates(&keys, 3)?);
        let mut visible = None;
        let offset = match valid {
            None => context.size_scalar(offset)?,
            Some(valid) => {
                let count = Dim::product(&context.shape(valid)?);
                let valid = context.builder.cast(valid, DType::I64)?;
                let one = Dim::Const(1);
                let valid = context.builder.reshape(valid, vec![count, one.clone(), one.clone(), one])?;
                // Keys behind the valid ones of each batch entry are padding.
                visible = Some(context.call(Function::Less, &[place, valid])?);
                let length = context.size_scalar(queries.clone())?;
                context.call(Function::Sub, &[valid, length])?
            }
        };
        let position = context.call(Function::Add, &[row, offset])?;
        let [left, mut right] = window;
        if std::mem::take(&mut causal) {
            right = Some(right.map_or(0, |right| right.min(0)));
        }
        if let Some(right) = right {
            let last = context.map_constant(position, Function::Add, right as f64)?;
            let inside = context.call(Function::LessEqual, &[place, last])?;
            visible = context.both(visible, inside)?;
        }
        if let Some(left) = left {
            let first = context.map_constant(position, Function::Sub, left as f64)?;
            let inside = context.call(Function::LessEqual, &[first, place])?;
            visible = context.both(visible, inside)?;
        }
        if let Some(visible) = visible {
            let hidden = context.hide_where_false(visible, dtype)?;
            mask = context.also(mask, hidden)?;
        }
    }
    let softcap = node.float("softcap")?.map_or(0.0, f64::from);
    let heads =
        Heads { q, k, v, mask, scale: node.float("scale")?.map(f64::from), softcap, causal, window: 0 };
    let y = context.attend(&heads)?;
    let y = if flat { context.join_heads(y)? } else { y };
    let mut results = vec![Binding::Value(y), Binding::Value(k), Binding::Value(v)];
    if node.output(3).is_some() {
        results.push(Binding::Value(scores(context, node, &heads)?));
    }
    Ok(results)
}

/// The scores at the stage that `qk_matmul_output_mode` asks for.
fn scores(context: &mut Context<'_>, node: &Node, heads: &Heads) -> Result<Value, Refusal> {
    let mode = node.int("qk_matmul_output_mode")?.unwrap_or(0);
    if !(0..=3).contains(&mode) {
        return Err(attribute("qk_matmul_output_mode", format!("{mode}")));
    }
    let dtype = context.dtype(heads.q)?;
    let (q_shape, k_shape) = (context.shape(heads.q)?, context.shape(heads.k)?);
    let scale = match heads.scale {
        Some(scale) => scale,
        None => 1.0 / (constant_size(&q_shape[3], "the head size")? as f64).sqrt(),
    };
    // Query heads that share a key head are an axis of their own.
    let shared = q_shape[1]
        .exact_quotient(&k_shape[1])
        .ok_or_else(|| operands(format!("{} query heads for {} key heads", q_shape[1], k_shape[1])))?;
    let [batch, _, queries, size] = &q_shape[..] else { return Err(operands("expected four axes")) };
    let grouped = vec![batch.clone(), k_shape[1].clone(), shared, queries.clone(), size.clone()];
    let q = context.builder.reshape(heads.q, grouped)?;
    let spec = ContractionSpec { lhs: b"bhgqd".to_vec(), rhs: b"bhkd".to_vec(), out: b"bhgqk".to_vec() };
    let products = context.builder.contract(spec, q, heads.k)?;
    let full = vec![batch.clone(), q_shape[1].clone(), queries.clone(), k_shape[2].clone()];
    let mut result = context.builder.reshape(products, full)?;
    result = context.map1(result, |body, x| body.with(Function::Mul, x, scale))?;
    if mode >= 1 && heads.softcap != 0.0 {
        result = context.map1(result, |body, x| {
            let bent = body.with(Function::Div, x, heads.softcap);
            let bent = body.call(Function::Tanh, &[bent]);
            body.with(Function::Mul, bent, heads.softcap)
        })?;
    }
    if mode >= 2 {
        if let Some(mask) = heads.mask {
            result = context.call(Function::Add, &[result, mask])?;
        }
        if heads.causal {
            let (row, place) =
                (context.score_coordinates(queries, 2)?, context.score_coordinates(&k_shape[2], 3)?);
            let shift = context.size_scalar(k_shape[2].clone() - queries.clone())?;
            let last = context.call(Function::Add, &[row, shift])?;
            let visible = context.call(Function::LessEqual, &[place, last])?;
            let hidden = context.hide_where_false(visible, dtype)?;
            result = context.call(Function::Add, &[result, hidden])?;
        }
    }
    if mode == 3 {
        let weights = context.builder.op1(Operator::Softmax { axis: 3, log: false }, &[result])?;
        // A query that sees no key has no weights.
        result = context.map1(weights, |body, weight| {
            let undefined = body.call(Function::IsNan, &[weight]);
            let zero = body.constant(0.0);
            body.select(undefined, zero, weight)
        })?;
    }
    Ok(result)
}

fn rotary_embedding(context: &mut Context<'_>, node: &Node) -> Lowered {
    let positions = context.optional(node, 3)?;
    rotate(context, node, [1, 2], positions)
}

/// The same with the positions before the tables.
fn microsoft_rotary_embedding(context: &mut Context<'_>, node: &Node) -> Lowered {
    let positions = context.operand(node, 1, "position_ids")?;
    let shape = context.shape(positions)?;
    if shape.len() != 2 {
        // One entry says where the sequence starts.
        let x = context.operand(node, 0, "input")?;
        let x_shape = context.shape(x)?;
        let length = x_shape[x_shape.len().saturating_sub(2)].clone();
        let steps = Operator::Iota { dtype: DType::I64, shape: vec![Dim::Const(1), length], axis: 1 };
        let steps = context.builder.op1(steps, &[])?;
        let start = context.builder.cast(positions, DType::I64)?;
        let positions = context.call(Function::Add, &[steps, start])?;
        return rotate(context, node, [2, 3], Some(positions));
    }
    rotate(context, node, [2, 3], Some(positions))
}

fn rotate(context: &mut Context<'_>, node: &Node, tables: [usize; 2], positions: Option<Value>) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let rank = context.shape(x)?.len();
    let width = node.int("rotary_embedding_dim")?.unwrap_or(0);
    let heads = match node.int("num_heads")? {
        Some(heads) if heads > 0 => Dim::Const(heads),
        // The tables hold half a head each.
        _ if rank == 3 => {
            let table = context.operand(node, tables[0], "cos_cache")?;
            let half = context.shape(table)?.last().cloned().unwrap_or(Dim::Const(1));
            let hidden = context.shape(x)?[2].clone();
            let size = half * Dim::Const(2);
            hidden.exact_quotient(&size).ok_or_else(|| attribute("num_heads", "missing"))?
        }
        _ => Dim::Const(1),
    };
    let split = context.split_heads(x, heads)?;
    let mut angles = Vec::new();
    for table in tables {
        angles.push(context.operand(node, table, "cache")?);
    }
    let width = if width > 0 { Some(Dim::Const(width)) } else { None };
    let y =
        context.rotated(split, [angles[0], angles[1]], positions, width, node.flag("interleaved", false)?)?;
    one(if rank == 3 { context.join_heads(y)? } else { y })
}

impl Context<'_> {
    /// Rotates the first `width` features (all, if it is not given) of `[batch, heads, length, size]` by the angles whose
    /// cosines and sines are in tables: rows for positions `[batch, length]`, or for the elements themselves.
    pub(super) fn rotated(
        &mut self,
        x: Value,
        tables: [Value; 2],
        positions: Option<Value>,
        width: Option<Dim>,
        interleaved: bool,
    ) -> Result<Value, Refusal> {
        let shape = self.shape(x)?;
        let width = width.unwrap_or_else(|| shape[3].clone());
        let half = width.floor_div(&Dim::Const(2));
        let mut angles = Vec::new();
        for mut table in tables {
            if let Some(positions) = positions {
                table = self.builder.op1(Operator::Gather { axis: 0 }, &[table, positions])?;
            }
            let mut extents = self.shape(table)?;
            if extents.len() != 3 {
                return Err(operands("a table of angles has another rank"));
            }
            table = self.slice_axis(table, 2, Dim::Const(0), half.clone())?;
            extents[2] = half.clone();
            extents.insert(1, Dim::Const(1));
            angles.push(self.builder.reshape(table, extents)?);
        }
        let part = self.slice_axis(x, 3, Dim::Const(0), width.clone())?;
        let y = self.builder.op1(Operator::Rope { interleaved }, &[part, angles[0], angles[1]])?;
        let rest = shape[3].clone() - width.clone();
        if rest.is(0) {
            return Ok(y);
        }
        let kept = self.slice_axis(x, 3, width, rest)?;
        Ok(self.builder.op1(Operator::Concat { axis: 3 }, &[y, kept])?)
    }
}

/// Writes `update` along an axis of a cache, from an index that each batch entry has; `circular` starts over at the end.
fn write_cache(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (cache, update) = (context.operand(node, 0, "past_cache")?, context.operand(node, 1, "update")?);
    let (shape, part) = (context.shape(cache)?, context.shape(update)?);
    let axis = super::super::sizes::axis(node.int("axis")?.unwrap_or(-2), shape.len())?;
    if axis == 0 || part.len() != shape.len() {
        return Err(attribute("axis", "the batch axis, or the ranks differ"));
    }
    let mut extents = vec![Dim::Const(1); shape.len()];
    extents[axis] = part[axis].clone();
    let mut place = context.builder.op1(Operator::Iota { dtype: DType::I64, shape: extents, axis }, &[])?;
    if let Some(start) = context.optional(node, 2)? {
        let mut extents = vec![Dim::Const(1); shape.len()];
        extents[0] = shape[0].clone();
        let start = context.builder.cast(start, DType::I64)?;
        let start = context.builder.reshape(start, extents)?;
        place = context.call(Function::Add, &[place, start])?;
    }
    match node.string("mode")?.unwrap_or("linear") {
        "linear" => {}
        "circular" => {
            let length = context.size_scalar(shape[axis].clone())?;
            place = context.call(Function::Mod, &[place, length])?;
        }
        other => return Err(attribute("mode", format!("'{other}'"))),
    }
    let place = context.builder.broadcast(place, part)?;
    let kind = tcc_ir::words::ScatterKind::Replace;
    one(context.builder.op1(Operator::ScatterElements { axis, kind }, &[cache, place, update])?)
}
