//! Sequences and optionals.

use tcc_ir::dtype::DType;

use super::call::Call;
use crate::error::Result;
use crate::indexing::{count, position};
use crate::movement::{concat, slice};
use crate::tensor::Tensor;
use crate::value::Value;

/// The position operand, or a default.
fn place(call: &Call, input: usize, extent: usize, default: i64) -> Result<usize> {
    let index = call.optional_tensor(input)?.map_or(Ok(default), Tensor::integer)?;
    position(index, extent)
}

/// ONNX SequenceInsert.
pub(super) fn insert(call: &Call) -> Result<Vec<Value>> {
    let mut items = call.sequence(0)?.to_vec();
    // One more place than there are items; negative positions still count from the end of the items.
    let index = call.optional_tensor(2)?.map_or(Ok(items.len() as i64), Tensor::integer)?;
    let index = if index < 0 { index.saturating_add(items.len() as i64) } else { index };
    let at = if index < 0 {
        return call.fail("the position is outside the sequence");
    } else {
        position(index, items.len() + 1)?
    };
    items.insert(at, call.value(1)?.clone());
    Ok(vec![Value::Sequence(items)])
}

/// ONNX SequenceErase.
pub(super) fn erase(call: &Call) -> Result<Vec<Value>> {
    let mut items = call.sequence(0)?.to_vec();
    let at = place(call, 1, items.len(), -1)?;
    items.remove(at);
    Ok(vec![Value::Sequence(items)])
}

/// ONNX SequenceAt.
pub(super) fn at(call: &Call) -> Result<Vec<Value>> {
    let items = call.sequence(0)?;
    let at = position(call.tensor(1)?.integer()?, items.len())?;
    Ok(vec![items[at].clone()])
}

/// ONNX SequenceLength.
pub(super) fn length(call: &Call) -> Result<Vec<Value>> {
    let length = call.sequence(0)?.len() as i64;
    Ok(vec![Value::Tensor(Tensor::from_integers(DType::I64, &[], &[length])?)])
}

/// ONNX ConcatFromSequence.
pub(super) fn concat_all(call: &Call) -> Result<Vec<Value>> {
    let mut items =
        call.sequence(0)?.iter().map(|item| item.as_tensor().cloned()).collect::<Result<Vec<Tensor>>>()?;
    let Some(first) = items.first() else { return call.fail("the sequence is empty") };
    let new_axis = call.integer("new_axis", 0)? != 0;
    let rank = first.shape().len() + usize::from(new_axis);
    let axis = call.axis(call.integer("axis", 0)?, rank)?;
    if new_axis {
        for item in &mut items {
            let mut shape = item.shape().to_vec();
            if axis > shape.len() {
                return call.fail("the tensors differ in shape");
            }
            shape.insert(axis, 1);
            *item = item.reshaped(&shape)?;
        }
    }
    let mut shape = items[0].shape().to_vec();
    let mut extent = 0usize;
    for item in &items {
        let same = item.shape().len() == shape.len()
            && item.dtype() == items[0].dtype()
            && item.shape().iter().zip(&shape).enumerate().all(|(other, (a, b))| other == axis || a == b);
        if !same {
            return call.fail("the tensors differ in shape");
        }
        extent = extent.saturating_add(item.shape()[axis]);
    }
    shape[axis] = extent;
    Ok(vec![Value::Tensor(concat(&items.iter().collect::<Vec<_>>(), axis, &shape)?)])
}

/// ONNX SplitToSequence: parts of given sizes, or of one size with a smaller last one.
pub(super) fn split(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.axis(call.integer("axis", 0)?, x.shape().len())?;
    let extent = x.shape()[axis];
    let split = call.optional_tensor(1)?;
    let parts = |size: usize| -> Vec<usize> {
        (0..extent).step_by(size).map(|start| size.min(extent - start)).collect()
    };
    let sizes: Vec<usize> = match split {
        None => parts(1),
        Some(split) if split.shape().is_empty() => match usize::try_from(split.integer()?) {
            Ok(size) if size > 0 => parts(size),
            _ => return call.fail("the size of a part is positive"),
        },
        Some(split) => {
            let sizes = split.integers()?.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX));
            sizes.collect()
        }
    };
    if sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size)) != Some(extent) {
        return call.fail(format!("the parts {sizes:?} do not make up {extent} elements"));
    }
    let keep = split.is_some() || call.integer("keepdims", 1)? != 0;
    let mut items = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for size in sizes {
        let mut shape = x.shape().to_vec();
        shape[axis] = size;
        let mut starts = vec![0; shape.len()];
        starts[axis] = start;
        let mut part = slice(x, &starts, &shape, &vec![1; shape.len()])?;
        if !keep {
            shape.remove(axis);
            part = part.reshaped(&shape)?;
        }
        debug_assert_eq!(count(part.shape()), part.contents().len());
        items.push(Value::Tensor(part));
        start += size as i64;
    }
    Ok(vec![Value::Sequence(items)])
}

/// ONNX OptionalHasElement; what is not an optional is there.
pub(super) fn has_element(call: &Call) -> Result<Vec<Value>> {
    let there = !matches!(call.optional(0), None | Some(Value::Optional(None)));
    Ok(vec![Value::Tensor(Tensor::from_integers(DType::Bool, &[], &[i64::from(there)])?)])
}

/// ONNX OptionalGetElement.
pub(super) fn get_element(call: &Call) -> Result<Vec<Value>> {
    match call.value(0)? {
        Value::Optional(Some(inner)) => Ok(vec![(**inner).clone()]),
        Value::Optional(None) => call.fail("the optional is empty"),
        other => Ok(vec![other.clone()]),
    }
}
