//! Fused floating-point operators that ONNX Runtime writes into models, domain `com.microsoft`.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::table::{Entry, custom};
use super::attention::Heads;
use super::normalization::normalize;
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function};

pub(super) const DOMAIN: &str = "com.microsoft";

pub(super) static TABLE: &[Entry] = &[
    custom(DOMAIN, "Gelu", super::activation::gelu),
    custom(DOMAIN, "BiasGelu", |context, node| biased(context, node, false)),
    custom(DOMAIN, "FastGelu", |context, node| biased(context, node, true)),
    custom(DOMAIN, "QuickGelu", quick_gelu),
    custom(DOMAIN, "FusedMatMul", fused_matmul),
    custom(DOMAIN, "FusedConv", fused_convolution),
    custom(DOMAIN, "SkipLayerNormalization", |context, node| skip_normalization(context, node, true)),
    custom(DOMAIN, "SkipSimplifiedLayerNormalization", |context, node| {
        skip_normalization(context, node, false)
    }),
    custom(DOMAIN, "MultiHeadAttention", multi_head_attention),
    custom(DOMAIN, "Attention", packed_attention),
    custom(DOMAIN, "EmbedLayerNormalization", embedding),
];

/// `x + bias`, then the Gaussian error linear unit, by the error function or by its approximation with tanh.
fn biased(context: &mut Context<'_>, node: &Node, tanh: bool) -> Lowered {
    let mut values = vec![context.operand(node, 0, "X")?];
    values.extend(context.optional(node, 1)?);
    let mut body = Body::new(values.len(), context.dtype(values[0])?);
    let mut x = body.operand(0);
    if values.len() == 2 {
        let bias = body.operand(1);
        x = body.call(Function::Add, &[x, bias]);
    }
    let result = super::activation::gaussian_unit(&mut body, x, tanh);
    one(context.builder.map(body.finish(result), &values)?)
}

fn quick_gelu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let alpha = node.float("alpha")?.map_or(1.702, f64::from);
    one(context.map1(x, |body, x| {
        let gate = body.with(Function::Mul, x, alpha);
        let gate = body.call(Function::Sigmoid, &[gate]);
        body.call(Function::Mul, &[x, gate])
    })?)
}

fn fused_matmul(context: &mut Context<'_>, node: &Node) -> Lowered {
    let mut matrices = Vec::new();
    for (index, name) in ["transA", "transB"].into_iter().enumerate() {
        let mut value = context.operand(node, index, "matrix")?;
        if node.flag(name, false)? {
            let rank = context.shape(value)?.len();
            if rank > 1 {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(rank - 2, rank - 1);
                value = context.builder.transpose(value, perm)?;
            }
        }
        matrices.push(value);
    }
    if node.flag("transBatchA", false)? || node.flag("transBatchB", false)? {
        return Err(unsupported("transposed batch axes"));
    }
    let product = context.matmul(matrices[0], matrices[1])?;
    let alpha = node.float("alpha")?.map_or(1.0, f64::from);
    one(if alpha == 1.0 {
        product
    } else {
        context.map1(product, |body, x| body.with(Function::Mul, x, alpha))?
    })
}

/// A convolution, the sum with a fourth operand, and an activation.
fn fused_convolution(context: &mut Context<'_>, node: &Node) -> Lowered {
    let mut plain = node.clone();
    plain.inputs.truncate(3);
    let Some(Binding::Value(mut y)) = super::convolution::convolve(context, &plain)?.pop() else {
        return Err(operands("the convolution has no result"));
    };
    if let Some(addend) = context.optional(node, 3)? {
        y = context.call(Function::Add, &[y, addend])?;
    }
    let parameters = node.floats("activation_params")?.unwrap_or_default();
    let parameter = |index: usize| parameters.get(index).map(|&value| f64::from(value));
    let Some(activation) = node.string("activation")? else { return one(y) };
    let missing = || attribute("activation_params", "too short");
    one(match activation {
        "" => y,
        "Relu" => context.map1(y, |body, x| body.with(Function::Max, x, 0.0))?,
        "Tanh" => context.call(Function::Tanh, &[y])?,
        "Sigmoid" => context.call(Function::Sigmoid, &[y])?,
        "LeakyRelu" => {
            let alpha = parameter(0).ok_or_else(missing)?;
            context.map1(y, |body, x| {
                let scaled = body.with(Function::Mul, x, alpha);
                let negative = body.with(Function::Less, x, 0.0);
                body.select(negative, scaled, x)
            })?
        }
        "Clip" => {
            let (low, high) = (parameter(0).ok_or_else(missing)?, parameter(1).ok_or_else(missing)?);
            context.map1(y, |body, x| {
                let x = body.with(Function::Max, x, low);
                body.with(Function::Min, x, high)
            })?
        }
        "HardSigmoid" => {
            let (alpha, beta) = (parameter(0).ok_or_else(missing)?, parameter(1).ok_or_else(missing)?);
            context.map1(y, |body, x| super::activation::ramp(body, x, alpha, beta))?
        }
        other => return Err(attribute("activation", format!("'{other}'"))),
    })
}

/// `normalize(input + skip + bias) * gamma + beta`; the sum is the fourth result.
fn skip_normalization(context: &mut Context<'_>, node: &Node, centered: bool) -> Lowered {
    let mut values = vec![context.operand(node, 0, "input")?, context.operand(node, 1, "skip")?];
    let scale = context.operand(node, 2, "gamma")?;
    let shift = if centered { context.optional(node, 3)? } else { None };
    values.extend(context.optional(node, if centered { 4 } else { 3 })?);
    let mut body = Body::new(values.len(), context.dtype(values[0])?);
    let mut sum = body.operand(0);
    for index in 1..values.len() {
        let next: Arg = body.operand(index);
        sum = body.call(Function::Add, &[sum, next]);
    }
    let sum = context.builder.map(body.finish(sum), &values)?;
    let last = context.shape(sum)?.len().checked_sub(1).ok_or_else(|| operands("the input is a scalar"))?;
    let epsilon = node.float("epsilon")?.map_or(1e-12, f64::from);
    if node.output(1).is_some() || node.output(2).is_some() {
        return Err(unsupported("the statistics as results"));
    }
    let y = normalize(context, sum, vec![last], epsilon, centered, Some(scale), shift)?;
    // Results 1 and 2 are not asked for; what stands in their place is read by nobody.
    Ok([y, y, y, sum].map(Binding::Value).to_vec())
}

fn multi_head_attention(context: &mut Context<'_>, node: &Node) -> Lowered {
    let heads = node.int("num_heads")?.filter(|&heads| heads > 0);
    let heads = Dim::Const(heads.ok_or_else(|| attribute("num_heads", "missing or not positive"))?);
    if node.inputs.len() > 6 && (6..node.inputs.len()).any(|index| node.input(index).is_some()) {
        return Err(unsupported("a cache of past keys and values"));
    }
    let mut parts = Vec::new();
    for (index, name) in ["query", "key", "value"].into_iter().enumerate() {
        if node.input(index).is_none() {
            return Err(unsupported("queries, keys and values packed in one operand"));
        }
        let value = context.operand(node, index, name)?;
        if context.shape(value)?.len() == 5 {
            return Err(unsupported("queries, keys and values packed in one operand"));
        }
        parts.push(value);
    }
    if let Some(bias) = context.optional(node, 3)? {
        let mut start = Dim::Const(0);
        for part in &mut parts {
            let size = context.shape(*part)?.last().cloned().unwrap_or(Dim::Const(0));
            let own = context.slice_axis(bias, 0, start.clone(), size.clone())?;
            *part = context.call(Function::Add, &[*part, own])?;
            start = start + size;
        }
    }
    let q = context.split_heads(parts[0], heads.clone())?;
    let (k, v) = (context.split_heads(parts[1], heads.clone())?, context.split_heads(parts[2], heads)?);
    let (dtype, keys) = (context.dtype(q)?, context.shape(k)?[2].clone());
    let mut mask: Option<Value> = None;
    if let Some(padding) = context.optional(node, 4)? {
        let shape = context.shape(padding)?;
        let [batch, length] = &shape[..] else { return Err(unsupported("a padding mask that is no matrix")) };
        let shape = vec![batch.clone(), Dim::Const(1), Dim::Const(1), length.clone()];
        let visible = context.builder.cast(padding, DType::Bool)?;
        let visible = context.builder.reshape(visible, shape)?;
        mask = Some(context.additive_mask(visible, &keys, dtype)?);
    }
    if let Some(bias) = context.optional(node, 5)? {
        let bias = context.additive_mask(bias, &keys, dtype)?;
        mask = Some(match mask {
            Some(mask) => context.call(Function::Add, &[mask, bias])?,
            None => bias,
        });
    }
    let scale = node.float("scale")?.filter(|&scale| scale != 0.0).map(f64::from);
    let causal = node.flag("unidirectional", false)?;
    let y = context.attend(&Heads { q, k, v, mask, scale, softcap: 0.0, causal, window: 0 })?;
    let y = context.join_heads(y)?;
    Ok([y, k, v].map(Binding::Value).to_vec())
}

/// Self-attention with one projection to queries, keys and values.
fn packed_attention(context: &mut Context<'_>, node: &Node) -> Lowered {
    let heads = node.int("num_heads")?.filter(|&heads| heads > 0);
    let heads = Dim::Const(heads.ok_or_else(|| attribute("num_heads", "missing or not positive"))?);
    if node.flag("do_rotary", false)? || (6..node.inputs.len()).any(|index| node.input(index).is_some()) {
        return Err(unsupported("rotation of positions, or a cache of fixed length"));
    }
    let (x, weights) = (context.operand(node, 0, "input")?, context.operand(node, 1, "weights")?);
    let mut projected = context.matmul(x, weights)?;
    if let Some(bias) = context.optional(node, 2)? {
        projected = context.call(Function::Add, &[projected, bias])?;
    }
    let shape = context.shape(projected)?;
    let [batch, _, width] = &shape[..] else {
        return Err(operands("the input is [batch, length, features]"));
    };
    let sizes: Vec<Dim> = match node.ints("qkv_hidden_sizes")? {
        Some(&[q, k, v]) => [q, k, v].map(Dim::Const).to_vec(),
        Some(sizes) => return Err(attribute("qkv_hidden_sizes", format!("{sizes:?}"))),
        None => vec![width.floor_div(&Dim::Const(3)); 3],
    };
    let (mut parts, mut start) = (Vec::new(), Dim::Const(0));
    for size in sizes {
        let part = context.slice_axis(projected, 2, start.clone(), size.clone())?;
        parts.push(context.split_heads(part, heads.clone())?);
        start = start + size;
    }
    if let Some(past) = context.optional(node, 4)? {
        for index in 0..2 {
            let part = context.slice_axis(past, 0, Dim::from(index), Dim::Const(1))?;
            let part_shape = context.shape(part)?.split_off(1);
            let part = context.builder.reshape(part, part_shape)?;
            parts[1 + index] =
                context.builder.op1(Operator::Concat { axis: 2 }, &[part, parts[1 + index]])?;
        }
    }
    let [q, k, v] = parts[..] else { return Err(operands("three projections are needed")) };
    let (dtype, keys) = (context.dtype(q)?, context.shape(k)?[2].clone());
    let mut mask = None;
    if let Some(given) = context.optional(node, 3)? {
        let visible = visible_keys(context, given, batch, &keys)?;
        mask = Some(context.additive_mask(visible, &keys, dtype)?);
    }
    if let Some(bias) = context.optional(node, 5)? {
        let bias = context.additive_mask(bias, &keys, dtype)?;
        mask = Some(match mask {
            Some(mask) => context.call(Function::Add, &[mask, bias])?,
            None => bias,
        });
    }
    let scale = node.float("scale")?.filter(|&scale| scale != 0.0).map(f64::from);
    let causal = node.flag("unidirectional", false)?;
    let y = context.attend(&Heads { q, k, v, mask, scale, softcap: 0.0, causal, window: 0 })?;
    let mut results = vec![Binding::Value(context.join_heads(y)?)];
    if node.output(1).is_some() {
        let mut planes = Vec::new();
        for part in [k, v] {
            let mut shape = context.shape(part)?;
            shape.insert(0, Dim::Const(1));
            planes.push(context.builder.reshape(part, shape)?);
        }
        results.push(Binding::Value(context.builder.op1(Operator::Concat { axis: 0 }, &planes)?));
    }
    Ok(results)
}

/// Truth values for the keys that a mask leaves, with four axes. A vector holds the number of keys of each batch entry;
/// more axes hold one number for each key, or for each query and key.
fn visible_keys(context: &mut Context<'_>, mask: Value, batch: &Dim, keys: &Dim) -> Result<Value, Refusal> {
    let shape = context.shape(mask)?;
    let unit = Dim::Const(1);
    match &shape[..] {
        [count] if count == batch => {
            let place = vec![unit.clone(), unit.clone(), unit.clone(), keys.clone()];
            let place =
                context.builder.op1(Operator::Iota { dtype: DType::I64, shape: place, axis: 3 }, &[])?;
            let counts = context.builder.cast(mask, DType::I64)?;
            let counts =
                context.builder.reshape(counts, vec![count.clone(), unit.clone(), unit.clone(), unit])?;
            context.call(Function::Less, &[place, counts])
        }
        [_, _] | [_, _, _] => {
            let visible = context.builder.cast(mask, DType::Bool)?;
            let mut extents = shape.clone();
            while extents.len() < 4 {
                extents.insert(1, unit.clone());
            }
            Ok(context.builder.reshape(visible, extents)?)
        }
        _ => Err(unsupported(format!("a mask of rank {}", shape.len()))),
    }
}

/// The normalized sum of the embeddings of words, positions and segments.
fn embedding(context: &mut Context<'_>, node: &Node) -> Lowered {
    let ids = context.operand(node, 0, "input_ids")?;
    let mut total = {
        let words = context.operand(node, 2, "word_embedding")?;
        context.builder.op1(Operator::Gather { axis: 0 }, &[words, ids])?
    };
    let positions = context.operand(node, 3, "position_embedding")?;
    let placed = match context.optional(node, 8)? {
        Some(places) => context.builder.op1(Operator::Gather { axis: 0 }, &[positions, places])?,
        None => {
            let length =
                context.shape(ids)?.get(1).cloned().ok_or_else(|| operands("input_ids is no matrix"))?;
            context.slice_axis(positions, 0, Dim::Const(0), length)?
        }
    };
    total = context.call(Function::Add, &[total, placed])?;
    if let (Some(segments), Some(table)) = (context.optional(node, 1)?, context.optional(node, 4)?) {
        let part = context.builder.op1(Operator::Gather { axis: 0 }, &[table, segments])?;
        total = context.call(Function::Add, &[total, part])?;
    }
    let (scale, shift) = (context.operand(node, 5, "gamma")?, context.operand(node, 6, "beta")?);
    let epsilon = node.float("epsilon")?.map_or(1e-12, f64::from);
    let y = normalize(context, total, vec![2], epsilon, true, Some(scale), Some(shift))?;
    // The number of unmasked words of each entry; 0 without a mask.
    let counts = match context.optional(node, 7)? {
        Some(mask) => context.builder.reduce(tcc_ir::words::ReduceKind::Sum, mask, vec![1], false)?,
        None => {
            let batch = context.shape(ids)?[0].clone();
            let zero = context.builder.scalar(tcc_ir::scalar::Scalar::integer(DType::I32, 0))?;
            context.builder.broadcast(zero, vec![batch])?
        }
    };
    Ok([y, counts, total].map(Binding::Value).to_vec())
}

/// The quantizing and dequantizing operators of a single scale.
impl Context<'_> {
    /// `(x - zero) * scale`; without a zero point it is 0.
    pub(super) fn dequantized(
        &mut self,
        x: Value,
        scale: Value,
        zero: Option<Value>,
    ) -> Result<Value, Refusal> {
        let dtype = self.dtype(scale)?;
        let zero = self.zero_point(zero, x)?;
        let scale = self.scalar_of(scale)?;
        Ok(self.builder.op1(Operator::Dequantize { dtype, axis: 0, block: 0 }, &[x, scale, zero])?)
    }

    /// `round(x / scale) + zero`, saturating, in the type of the zero point.
    pub(super) fn quantized(&mut self, x: Value, scale: Value, zero: Value) -> Result<Value, Refusal> {
        let dtype = self.dtype(zero)?;
        let (scale, zero) = (self.scalar_of(scale)?, self.scalar_of(zero)?);
        Ok(self
            .builder
            .op1(Operator::Quantize { dtype, axis: 0, block: 0, saturate: true }, &[x, scale, zero])?)
    }

    /// The zero point as a scalar, 0 in the type of `like` where it is left out.
    pub(super) fn zero_point(&mut self, zero: Option<Value>, like: Value) -> Result<Value, Refusal> {
        match zero {
            Some(zero) => self.scalar_of(zero),
            None => {
                let dtype = self.dtype(like)?;
                Ok(self.builder.scalar(tcc_ir::scalar::Scalar::of(dtype, 0.0))?)
            }
        }
    }

    fn scalar_of(&mut self, value: Value) -> Result<Value, Refusal> {
        Ok(self.builder.reshape(value, Vec::new())?)
    }
}
