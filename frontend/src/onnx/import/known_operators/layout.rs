//! Operators that move known elements about: Shape, Gather, Slice, Concat, Reshape and their kin.

use super::super::super::element::DataType;
use super::super::super::graph::Node;
use super::super::context::Context;
use super::super::known::{Element, Known, LIMIT};
use super::super::refusal::Refusal;
use super::super::sizes;
use tcc_ir::dim::Dim;

/// The shape of an operand, whatever the operand is.
pub(super) fn shape(context: &Context<'_>, node: &Node) -> Result<Option<Known>, Refusal> {
    let Some(dims) = node.input(0).and_then(|name| context.shape_of(name)) else { return Ok(None) };
    let rank = dims.len() as i64;
    let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let start = clamp(node.int("start")?.unwrap_or(0));
    let end = clamp(node.int("end")?.unwrap_or(rank)).max(start);
    Ok(Some(Known::sizes(dims[start..end].to_vec())))
}

/// The number of elements of an operand.
pub(super) fn size(context: &Context<'_>, node: &Node) -> Option<Known> {
    let dims = node.input(0).and_then(|name| context.shape_of(name))?;
    Some(Known::size(Dim::product(&dims)))
}

/// The results of a layout operator on a known first operand, where they are known.
pub(super) fn evaluate(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Vec<Known>>, Refusal> {
    let result = match node.id.operator.as_str() {
        "Identity" => Some(x.clone()),
        "Squeeze" => squeeze(context, node, x)?,
        "Unsqueeze" => unsqueeze(context, node, x)?,
        "Reshape" => reshape(context, node, x)?,
        "Flatten" if x.shape.len() == 1 && node.int("axis")?.unwrap_or(1) == 0 => {
            x.reshaped(vec![1, x.shape[0]])
        }
        "Concat" => concat(context, node, x)?,
        "Gather" => gather(context, node, x)?,
        "Slice" => slice(context, node, x)?,
        "Transpose" => transpose(node, x)?,
        "Expand" => expand(context, node, x),
        "ConstantOfShape" => fill(node, x)?,
        "Split" => return split(context, node, x),
        _ => None,
    };
    Ok(result.map(|known| vec![known]))
}

/// Constant integers from an attribute or an operand; `None` where neither is known.
fn list(
    context: &Context<'_>,
    node: &Node,
    attribute: &str,
    operand: usize,
) -> Result<Option<Vec<i64>>, Refusal> {
    if let Some(list) = node.ints(attribute)? {
        return Ok(Some(list.to_vec()));
    }
    Ok(context.known(node, operand).and_then(|known| known.integers()))
}

fn squeeze(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let axes = match list(context, node, "axes", 1)? {
        Some(axes) => sizes::axes(&axes, x.shape.len())?,
        None if node.input(1).is_some() => return Ok(None),
        None => (0..x.shape.len()).filter(|&axis| x.shape[axis] == 1).collect(),
    };
    let shape = x.shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &size)| size);
    Ok(x.reshaped(shape.collect()))
}

fn unsqueeze(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let Some(axes) = list(context, node, "axes", 1)? else { return Ok(None) };
    let mut axes = sizes::axes(&axes, x.shape.len() + axes.len())?;
    axes.sort_unstable();
    let mut shape = x.shape.clone();
    for axis in axes {
        shape.insert(axis, 1);
    }
    Ok(x.reshaped(shape))
}

fn reshape(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let Some(target) = list(context, node, "shape", 1)? else { return Ok(None) };
    let zero_is_zero = node.flag("allowzero", false)?;
    let mut shape = Vec::with_capacity(target.len());
    for (axis, &size) in target.iter().enumerate() {
        shape.push(match size {
            0 if !zero_is_zero => match x.shape.get(axis) {
                Some(&size) => size,
                None => return Ok(None),
            },
            -1 => usize::MAX,
            _ => match usize::try_from(size) {
                Ok(size) => size,
                Err(_) => return Ok(None),
            },
        });
    }
    if let Some(open) = shape.iter().position(|&size| size == usize::MAX) {
        let rest: usize =
            shape.iter().filter(|&&size| size != usize::MAX).fold(1, |a, &b| a.saturating_mul(b));
        if rest == 0 || !x.elements.len().is_multiple_of(rest) {
            return Ok(None);
        }
        shape[open] = x.elements.len() / rest;
    }
    Ok(x.reshaped(shape))
}

fn concat(context: &Context<'_>, node: &Node, first: &Known) -> Result<Option<Known>, Refusal> {
    let axis = sizes::axis(node.int("axis")?.unwrap_or(1), first.shape.len())?;
    let mut parts = vec![first.clone()];
    for index in 1..node.inputs.len() {
        match context.known(node, index) {
            Some(part) if part.shape.len() == first.shape.len() && part.dtype == first.dtype => {
                parts.push(part)
            }
            _ => return Ok(None),
        }
    }
    let mut shape = first.shape.clone();
    shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
    if shape.iter().product::<usize>() > LIMIT {
        return Ok(None);
    }
    let outer: usize = shape[..axis].iter().product();
    let mut elements = Vec::new();
    for block in 0..outer {
        for part in &parts {
            let length: usize = part.shape[axis..].iter().product();
            match part.elements.get(block * length..(block + 1) * length) {
                Some(piece) => elements.extend_from_slice(piece),
                None => return Ok(None),
            }
        }
    }
    Ok(Known { dtype: first.dtype, shape: vec![elements.len()], elements }.reshaped(shape))
}

fn gather(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let Some(indices) = context.known(node, 1) else { return Ok(None) };
    let Some(positions) = indices.integers() else { return Ok(None) };
    if x.shape.is_empty() {
        return Ok(None);
    }
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), x.shape.len())?;
    let size = x.shape[axis] as i64;
    let strides = x.strides();
    let index_strides = indices.strides();
    let shape = [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat();
    let inner = axis + indices.shape.len();
    Ok(x.gathered(shape, |at| {
        let position: usize =
            (0..indices.shape.len()).map(|index| at[axis + index] * index_strides[index]).sum();
        let position = positions[position];
        let position = if position < 0 { position + size } else { position };
        let before: usize = (0..axis).map(|index| at[index] * strides[index]).sum();
        let after: usize = (inner..at.len()).map(|index| at[index] * strides[axis + 1 + index - inner]).sum();
        (0..size).contains(&position).then(|| before + position as usize * strides[axis] + after)
    }))
}

fn slice(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let (Some(starts), Some(ends)) = (list(context, node, "starts", 1)?, list(context, node, "ends", 2)?)
    else {
        return Ok(None);
    };
    let rank = x.shape.len();
    let unknown = |operand: usize| node.input(operand).is_some() && context.known(node, operand).is_none();
    if unknown(3) || unknown(4) {
        return Ok(None);
    }
    let axes = match list(context, node, "axes", 3)? {
        Some(axes) => sizes::axes(&axes, rank)?,
        None => (0..starts.len()).collect(),
    };
    let steps = context.known(node, 4).and_then(|steps| steps.integers()).unwrap_or(vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || steps.contains(&0) || starts.len() > rank
    {
        return Ok(None);
    }
    let mut shape = x.shape.clone();
    let mut from = vec![(0i64, 1i64); rank];
    for (index, &axis) in axes.iter().enumerate() {
        let size = x.shape[axis] as i64;
        let (first, count) = range(starts[index], ends[index], steps[index], size);
        shape[axis] = count;
        from[axis] = (first, steps[index]);
    }
    let strides = x.strides();
    Ok(x.gathered(shape, |at| {
        let mut position = 0;
        for axis in 0..rank {
            let coordinate = from[axis].0 + at[axis] as i64 * from[axis].1;
            position += usize::try_from(coordinate).ok()? * strides[axis];
        }
        Some(position)
    }))
}

/// First index and number of elements of a Python-style slice.
fn range(start: i64, end: i64, step: i64, size: i64) -> (i64, usize) {
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let clamp = |at: i64, low: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(low, high);
    let (start, end) = (clamp(start, if step > 0 { 0 } else { low.min(high) }), clamp(end, low.min(high)));
    let span = if step > 0 { end - start } else { start - end };
    (start, if span <= 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) as usize })
}

fn transpose(node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let rank = x.shape.len();
    let perm = match node.ints("perm")? {
        Some(perm) => sizes::axes(perm, rank)?,
        None => (0..rank).rev().collect(),
    };
    if perm.len() != rank {
        return Ok(None);
    }
    let strides = x.strides();
    let shape = perm.iter().map(|&axis| x.shape[axis]).collect();
    Ok(x.gathered(shape, |at| Some(at.iter().zip(&perm).map(|(&index, &axis)| index * strides[axis]).sum())))
}

fn expand(context: &Context<'_>, node: &Node, x: &Known) -> Option<Known> {
    let target: Vec<usize> = context
        .known(node, 1)?
        .integers()?
        .iter()
        .map(|&size| usize::try_from(size).ok())
        .collect::<Option<_>>()?;
    x.broadcast(&super::super::known::broadcast_shape(&x.shape, &target)?)
}

fn fill(node: &Node, shape: &Known) -> Result<Option<Known>, Refusal> {
    let Some(sizes) = shape.integers() else { return Ok(None) };
    let Some(sizes) = sizes.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let value = match node.tensor("value")? {
        None => Some(Known {
            dtype: tcc_ir::dtype::DType::F32,
            shape: vec![1],
            elements: vec![Element::Dim(Dim::Const(0))],
        }),
        // Refused by the lowering.
        Some(tensor) if tensor.element == DataType::String || tensor.dims.iter().any(|&size| size != 1) => {
            None
        }
        Some(tensor) => Known::from_data(&super::super::context::to_data(tensor)?),
    };
    Ok(value.and_then(|value| value.gathered(sizes, |_| Some(0))))
}

fn split(context: &Context<'_>, node: &Node, x: &Known) -> Result<Option<Vec<Known>>, Refusal> {
    if x.shape.len() != 1 {
        return Ok(None);
    }
    let count = node.outputs.len();
    let lengths = match list(context, node, "split", 1)? {
        Some(lengths) => lengths,
        None if node.input(1).is_some() => return Ok(None),
        None => {
            let chunk = x.elements.len().div_ceil(count.max(1));
            let length = |part: usize| x.elements.len().saturating_sub(part * chunk).min(chunk) as i64;
            (0..count).map(length).collect()
        }
    };
    let mut start = 0usize;
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        let Some(elements) =
            usize::try_from(length).ok().and_then(|length| x.elements.get(start..start.checked_add(length)?))
        else {
            return Ok(None);
        };
        start += elements.len();
        parts.push(Known { dtype: x.dtype, shape: vec![elements.len()], elements: elements.to_vec() });
    }
    Ok((start == x.elements.len() && parts.len() == count).then_some(parts))
}
