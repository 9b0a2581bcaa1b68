//! Attention over a growing cache of keys and values as ONNX Runtime writes it for language models.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::sizes::SIZE;
use super::super::table::{Entry, custom};
use super::attention::Heads;
use super::microsoft::DOMAIN;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] = &[custom(DOMAIN, "GroupQueryAttention", group_query_attention)];

/// Causal attention of new tokens to the past and to each other. The cache must hold exactly the past: buffers that are
/// longer, and batches of sequences with different lengths, end the run.
fn group_query_attention(context: &mut Context<'_>, node: &Node) -> Lowered {
    let count = |name: &str| -> Result<Dim, Refusal> {
        let heads = node.int(name)?.filter(|&heads| heads > 0);
        Ok(Dim::Const(heads.ok_or_else(|| attribute(name, "missing or not positive"))?))
    };
    let (heads, kv_heads) = (count("num_heads")?, count("kv_num_heads")?);
    if node.flag("smooth_softmax", false)? || (10..node.inputs.len()).any(|index| node.input(index).is_some())
    {
        return Err(unsupported("a smooth softmax, an additional bias, or attention sinks"));
    }
    let [q, k, v] = projections(context, node, &heads, &kv_heads)?;
    let (mut q, mut k) = (context.split_heads(q, heads)?, context.split_heads(k, kv_heads.clone())?);
    let v = context.split_heads(v, kv_heads)?;
    let (key_past, value_past) =
        (context.operand(node, 3, "past_key")?, context.operand(node, 4, "past_value")?);
    let past =
        context.shape(key_past)?.get(2).cloned().ok_or_else(|| operands("the past has too few axes"))?;
    let shape = context.shape(q)?;
    let (batch, length) = (shape[0].clone(), shape[2].clone());
    let total = past.clone() + length.clone();
    check_lengths(context, node, &total)?;
    if node.flag("do_rotary", false)? {
        let tables = [context.operand(node, 7, "cos_cache")?, context.operand(node, 8, "sin_cache")?];
        let positions = match context.optional(node, 9)? {
            Some(positions) => positions,
            None => {
                let steps = vec![Dim::Const(1), length];
                let steps =
                    context.builder.op1(Operator::Iota { dtype: DType::I64, shape: steps, axis: 1 }, &[])?;
                let start = context.size_scalar(past)?;
                let positions = context.call(Function::Add, &[steps, start])?;
                context.builder.broadcast(positions, vec![batch, shape[2].clone()])?
            }
        };
        let interleaved = node.flag("rotary_interleaved", false)?;
        let half =
            context.shape(tables[0])?.last().cloned().ok_or_else(|| operands("cos_cache is a scalar"))?;
        let width = Some(half * Dim::Const(2));
        q = context.rotated(q, tables, Some(positions), width.clone(), interleaved)?;
        k = context.rotated(k, tables, Some(positions), width, interleaved)?;
    }
    let k = context.builder.op1(Operator::Concat { axis: 2 }, &[key_past, k])?;
    let v = context.builder.op1(Operator::Concat { axis: 2 }, &[value_past, v])?;
    let window = match node.int("local_window_size")?.unwrap_or(-1) {
        -1 => 0,
        size => usize::try_from(size).map_err(|_| attribute("local_window_size", format!("{size}")))?,
    };
    let scale = node.float("scale")?.filter(|&scale| scale != 0.0).map(f64::from);
    let softcap = node.float("softcap")?.map_or(0.0, f64::from);
    let y = context.attend(&Heads { q, k, v, mask: None, scale, softcap, causal: true, window })?;
    let y = context.join_heads(y)?;
    Ok([y, k, v].map(Binding::Value).to_vec())
}

/// Queries, keys and values `[batch, length, features]`, which may come joined in the first operand.
fn projections(
    context: &mut Context<'_>,
    node: &Node,
    heads: &Dim,
    kv_heads: &Dim,
) -> Result<[Value; 3], Refusal> {
    let q = context.operand(node, 0, "query")?;
    if node.input(1).is_some() {
        return Ok([q, context.operand(node, 1, "key")?, context.operand(node, 2, "value")?]);
    }
    let width = context.shape(q)?.last().cloned().ok_or_else(|| operands("the query is a scalar"))?;
    let all = heads.clone() + kv_heads.clone() * Dim::Const(2);
    let size = width
        .exact_quotient(&all)
        .ok_or_else(|| operands(format!("{width} features do not divide into {all} heads")))?;
    let (mut parts, mut start) = ([q; 3], Dim::Const(0));
    for (part, heads) in parts.iter_mut().zip([heads, kv_heads, kv_heads]) {
        let extent = heads.clone() * size.clone();
        *part = context.slice_axis(q, 2, start.clone(), extent.clone())?;
        start = start + extent;
    }
    Ok(parts)
}

/// Requires that every sequence, and with them the cache, has this many tokens.
fn check_lengths(context: &mut Context<'_>, node: &Node, total: &Dim) -> Result<(), Refusal> {
    // `seqlens_k` holds the lengths less one.
    let lengths = context.operand(node, 5, "seqlens_k")?;
    let rank = context.shape(lengths)?.len();
    for kind in [ReduceKind::Min, ReduceKind::Max] {
        let extreme = context.builder.reduce(kind, lengths, (0..rank).collect(), false)?;
        let length = context.bind(extreme, 5, "seqlen", SIZE)?.remove(0);
        context.require_equal(length + Dim::Const(1), total.clone(), "sequence lengths")?;
    }
    let sum = context.sizes(node, 6, "total_sequence_length", SIZE)?;
    match &sum[..] {
        [sum] => context.require_equal(sum.clone(), total.clone(), "sequence lengths")?,
        _ => return Err(operands("total_sequence_length is no scalar")),
    }
    Ok(())
}
