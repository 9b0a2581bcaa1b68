//! Shapes of reductions, contractions, data movement and composites.

use super::{InferError, Matcher, Result, check_axis, fail, gates, tensor};
use crate::contraction::ContractionSpec;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::types::{TensorType, Type};
use crate::words::CellKind;

/// `shape` with `axes` removed, or of extent 1 where `keep`.
pub(super) fn reduced(shape: &[Dim], axes: &[usize], keep: bool) -> Result<Vec<Dim>> {
    for (index, axis) in axes.iter().enumerate() {
        check_axis(*axis, shape.len())?;
        if axes[..index].contains(axis) {
            return fail(format!("axis {axis} occurs twice"));
        }
    }
    let kept = shape.iter().enumerate().filter_map(|(axis, dim)| match (axes.contains(&axis), keep) {
        (false, _) => Some(dim.clone()),
        (true, true) => Some(Dim::Const(1)),
        (true, false) => None,
    });
    Ok(kept.collect())
}

pub(super) fn contract(
    matcher: &mut Matcher,
    spec: &ContractionSpec,
    lhs: &TensorType,
    rhs: &TensorType,
) -> Result<Vec<Dim>> {
    spec.check().map_err(InferError::new)?;
    if spec.lhs.len() != lhs.rank() || spec.rhs.len() != rhs.rank() {
        return fail(format!("contraction {spec} does not fit {lhs} and {rhs}"));
    }
    for (axis, label) in spec.lhs.iter().enumerate() {
        if let Some(other) = spec.rhs.iter().position(|candidate| candidate == label) {
            matcher.same(
                &lhs.shape[axis],
                &rhs.shape[other],
                &format!("contraction axis '{}'", *label as char),
            )?;
        }
    }
    let extent = |label: &u8| {
        let in_lhs =
            spec.lhs.iter().position(|candidate| candidate == label).map(|axis| lhs.shape[axis].clone());
        let in_rhs =
            spec.rhs.iter().position(|candidate| candidate == label).map(|axis| rhs.shape[axis].clone());
        match (in_lhs, in_rhs) {
            (Some(a), Some(b)) if a.as_const().is_none() && b.as_const().is_some() => Ok(b),
            (Some(a), _) => Ok(a),
            (None, Some(b)) => Ok(b),
            (None, None) => fail("contraction result label is in no operand"),
        }
    };
    spec.out.iter().map(extent).collect()
}

pub(super) fn concat(matcher: &mut Matcher, operands: &[&Type], axis: usize) -> Result<Vec<Type>> {
    let first = tensor(operands, 0)?;
    check_axis(axis, first.rank())?;
    let mut shape = first.shape.clone();
    for index in 1..operands.len() {
        let next = tensor(operands, index)?;
        if next.rank() != first.rank() || next.dtype() != first.dtype() {
            return fail(format!("concat of {first} and {next}"));
        }
        for (position, dim) in next.shape.iter().enumerate() {
            shape[position] = if position == axis {
                shape[position].clone() + dim.clone()
            } else {
                matcher.same(&shape[position], dim, "concat")?
            };
        }
    }
    Ok(vec![Type::tensor(first.dtype(), shape)])
}

pub(super) fn attention(matcher: &mut Matcher, operands: &[&Type]) -> Result<Vec<Type>> {
    let (q, k, v) = (tensor(operands, 0)?, tensor(operands, 1)?, tensor(operands, 2)?);
    if q.rank() != 4 || k.rank() != 4 || v.rank() != 4 {
        return fail(format!("attention takes tensors of rank 4, got {q}, {k}, {v}"));
    }
    if k.dtype() != q.dtype() || v.dtype() != q.dtype() {
        return fail("attention: q, k and v have one element type");
    }
    let batch = matcher.same(&q.shape[0], &k.shape[0], "attention batch")?;
    let batch = matcher.same(&batch, &v.shape[0], "attention batch")?;
    matcher.same(&k.shape[1], &v.shape[1], "attention key and value heads")?;
    matcher.same(&k.shape[2], &v.shape[2], "attention key and value lengths")?;
    matcher.same(&q.shape[3], &k.shape[3], "attention head size")?;
    if let (Some(heads), Some(shared)) = (q.shape[1].as_const(), k.shape[1].as_const())
        && (shared == 0 || heads % shared != 0)
    {
        return fail(format!("attention: {heads} query heads do not divide into {shared} key heads"));
    }
    if operands.len() > 4 {
        return fail("attention takes at most one mask");
    }
    if operands.len() == 4 && (tensor(operands, 3)?.rank() > 4 || !tensor(operands, 3)?.dtype().is_float()) {
        return fail("the attention mask is an additive float of rank 4 at most");
    }
    Ok(vec![Type::tensor(q.dtype(), vec![batch, q.shape[1].clone(), q.shape[2].clone(), v.shape[3].clone()])])
}

pub(super) fn recurrent(matcher: &mut Matcher, operands: &[&Type], cell: CellKind) -> Result<Vec<Type>> {
    let lstm = cell == CellKind::Lstm;
    if operands.len() != if lstm { 8 } else { 6 } {
        return fail("recurrent takes x, w, r, b, lengths, h, and for LSTM c and p");
    }
    let (x, w, r, h) =
        (tensor(operands, 0)?, tensor(operands, 1)?, tensor(operands, 2)?, tensor(operands, 5)?);
    if x.rank() != 3 || w.rank() != 3 || r.rank() != 3 || h.rank() != 3 {
        return fail("recurrent takes x, w, r and h of rank 3");
    }
    let (dirs, hidden) = (w.shape[0].clone(), r.shape[2].clone());
    matcher.same(&x.shape[2], &w.shape[2], "recurrent input size")?;
    matcher.same(&w.shape[1], &(hidden.clone() * Dim::Const(gates(cell))), "recurrent gates")?;
    matcher.same(&x.shape[1], &h.shape[1], "recurrent batch")?;
    let width = hidden.clone() * Dim::Const(gates(cell));
    let (batch, both) = (x.shape[1].clone(), width.clone() * Dim::Const(2));
    check_shape(matcher, operands, 2, &[dirs.clone(), width, hidden.clone()], "recurrent weights r")?;
    check_shape(matcher, operands, 3, &[dirs.clone(), both], "recurrent biases")?;
    check_shape(matcher, operands, 4, std::slice::from_ref(&batch), "recurrent lengths")?;
    check_indices(tensor(operands, 4)?)?;
    let state = [dirs.clone(), batch, hidden.clone()];
    check_shape(matcher, operands, 5, &state, "recurrent state h")?;
    if lstm {
        check_shape(matcher, operands, 6, &state, "recurrent state c")?;
        let peepholes = [dirs.clone(), hidden.clone() * Dim::Const(3)];
        check_shape(matcher, operands, 7, &peepholes, "recurrent peepholes")?;
    }
    let all = vec![x.shape[0].clone(), dirs.clone(), x.shape[1].clone(), hidden.clone()];
    let last = vec![dirs, x.shape[1].clone(), hidden];
    let mut results = vec![Type::tensor(x.dtype(), all), Type::tensor(x.dtype(), last.clone())];
    if lstm {
        results.push(Type::tensor(x.dtype(), last));
    }
    Ok(results)
}

/// Rank and extents of one operand.
fn check_shape(
    matcher: &mut Matcher,
    operands: &[&Type],
    index: usize,
    shape: &[Dim],
    what: &str,
) -> Result<()> {
    let operand = tensor(operands, index)?;
    if operand.rank() != shape.len() {
        return fail(format!("{what}: expected rank {}, got {operand}", shape.len()));
    }
    for (found, expected) in operand.shape.iter().zip(shape) {
        matcher.same(found, expected, what)?;
    }
    Ok(())
}

pub(super) fn check_indices(indices: &TensorType) -> Result<()> {
    match indices.dtype() {
        DType::I32 | DType::I64 => Ok(()),
        other => fail(format!("indices are i32 or i64, got {other}")),
    }
}

/// Length of the index tuples in the last axis.
pub(super) fn index_depth(indices: &TensorType) -> Result<usize> {
    check_indices(indices)?;
    match indices.shape.last().and_then(Dim::as_const) {
        Some(depth) if depth >= 0 => Ok(depth as usize),
        _ => fail(format!("the last extent of the indices must be known, got {indices}")),
    }
}

pub(super) fn check_quantization(
    matcher: &mut Matcher,
    x: &TensorType,
    scale: &TensorType,
    zero: &TensorType,
    axis: usize,
    block: usize,
) -> Result<()> {
    if scale.shape != zero.shape {
        return fail(format!("scale {scale} and zero point {zero} differ in shape"));
    }
    if block > 0 {
        check_axis(axis, x.rank())?;
        if scale.rank() != x.rank() {
            return fail(format!("block scales of {x} have its rank, got {scale}"));
        }
        for (other, extent) in x.shape.iter().enumerate() {
            let groups = if other == axis { extent.ceil_div(&Dim::from(block)) } else { extent.clone() };
            matcher.same(&groups, &scale.shape[other], "block scales")?;
        }
    } else if scale.rank() == 1 && !scale.shape[0].is(1) {
        check_axis(axis, x.rank())?;
        matcher.same(&x.shape[axis], &scale.shape[0], "scales of an axis")?;
    } else if scale.rank() > 1 {
        return fail(format!("scales are a scalar or one-dimensional, got {scale}"));
    }
    Ok(())
}
