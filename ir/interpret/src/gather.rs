//! Reading and writing at run-time positions.

use tcc_ir::dtype::DType;
use tcc_ir::words::{ReduceKind, ScatterKind};

use crate::error::{Error, Result};
use crate::indexing::{self, Walk, around, count, indices, position, strides};
use crate::number;
use crate::reduce::{float_combine, integer_combine};
use crate::tensor::{Contents, Tensor, map_contents, zip_contents};

/// The elements of `x` at these offsets.
fn pick(x: &Tensor, offsets: &[usize], shape: &[usize]) -> Result<Tensor> {
    let contents = map_contents!(x.contents(), values => indexing::pick(values, offsets.iter().copied()));
    Tensor::new(x.dtype(), shape, contents)
}

/// `x` along `axis` at `indices`.
pub(crate) fn gather(x: &Tensor, at: &Tensor, axis: usize, shape: &[usize]) -> Result<Tensor> {
    let (outer, extent, inner) = around(x.shape(), axis);
    let positions =
        indices(at)?.iter().map(|index| position(*index, extent)).collect::<Result<Vec<usize>>>()?;
    let mut offsets = Vec::with_capacity(count(shape));
    for row in 0..outer {
        for position in &positions {
            let start = (row * extent + position) * inner;
            offsets.extend(start..start + inner);
        }
    }
    pick(x, &offsets, shape)
}

/// For each element of `at`: its own coordinates with that of `axis` replaced by the index, as an offset into `shape`.
fn element_offsets(shape: &[usize], at: &Tensor, axis: usize) -> Result<Vec<usize>> {
    let fits = at.shape().iter().zip(shape).enumerate().all(|(i, (a, b))| i == axis || a <= b);
    if at.shape().len() != shape.len() || !fits {
        return Err(Error::operands(format!("indices {:?} do not fit {shape:?}", at.shape())));
    }
    let own = strides(shape);
    let mut steps: Vec<isize> = own.iter().map(|stride| *stride as isize).collect();
    steps[axis] = 0;
    let base = Walk::new(at.shape(), &steps, 0);
    base.zip(indices(at)?)
        .map(|(base, index)| Ok(base + position(*index, shape[axis])? * own[axis]))
        .collect()
}

/// `y[i..] = x[i.. with axis replaced by indices[i..]]`.
pub(crate) fn gather_elements(x: &Tensor, at: &Tensor, axis: usize) -> Result<Tensor> {
    pick(x, &element_offsets(x.shape(), at, axis)?, at.shape())
}

/// Starts of the slices that the index tuples in the last axis of `at` address in `shape`, after `batch` shared axes.
fn tuple_offsets(shape: &[usize], at: &Tensor, batch: usize) -> Result<Vec<usize>> {
    let Some((&depth, leading)) = at.shape().split_last() else {
        return Err(Error::operands("index tuples need an axis"));
    };
    if batch + depth > shape.len() || batch > leading.len() || leading[..batch] != shape[..batch] {
        return Err(Error::operands(format!("index tuples {:?} do not fit {shape:?}", at.shape())));
    }
    let own = strides(shape);
    let mut steps = vec![0isize; leading.len()];
    for axis in 0..batch {
        steps[axis] = own[axis] as isize;
    }
    let all = indices(at)?;
    let mut offsets = Vec::with_capacity(count(leading));
    for (tuple, base) in Walk::new(leading, &steps, 0).enumerate() {
        let mut offset = base;
        for (level, index) in all[tuple * depth..(tuple + 1) * depth].iter().enumerate() {
            offset += position(*index, shape[batch + level])? * own[batch + level];
        }
        offsets.push(offset);
    }
    Ok(offsets)
}

/// Slices of `x` at index tuples.
pub(crate) fn gather_nd(x: &Tensor, at: &Tensor, batch: usize, shape: &[usize]) -> Result<Tensor> {
    let depth = at.shape().last().copied().unwrap_or(0);
    let size = count(&x.shape()[(batch + depth).min(x.shape().len())..]);
    let starts = tuple_offsets(x.shape(), at, batch)?;
    let offsets: Vec<usize> = starts.into_iter().flat_map(|start| start..start + size).collect();
    pick(x, &offsets, shape)
}

/// `x` with `updates` combined at `[i.. with axis replaced by indices[i..]]`.
pub(crate) fn scatter_elements(
    x: &Tensor,
    at: &Tensor,
    updates: &Tensor,
    axis: usize,
    kind: ScatterKind,
) -> Result<Tensor> {
    if at.shape() != updates.shape() {
        return Err(Error::operands(format!(
            "indices {:?} and updates {:?} differ in shape",
            at.shape(),
            updates.shape()
        )));
    }
    scatter(x, &element_offsets(x.shape(), at, axis)?, updates, kind)
}

/// `x` with slices of `updates` combined at index tuples.
pub(crate) fn scatter_nd(x: &Tensor, at: &Tensor, updates: &Tensor, kind: ScatterKind) -> Result<Tensor> {
    let starts = tuple_offsets(x.shape(), at, 0)?;
    let depth = at.shape().last().copied().unwrap_or(0);
    let slice = &x.shape()[depth..];
    let leading = &at.shape()[..at.shape().len() - 1];
    if updates.shape() != [leading, slice].concat() {
        return Err(Error::operands(format!("updates {:?} do not fit the indices", updates.shape())));
    }
    let size = count(slice);
    let offsets: Vec<usize> = starts.into_iter().flat_map(|start| start..start + size).collect();
    scatter(x, &offsets, updates, kind)
}

/// Combines update `i` into element `offsets[i]`, one after the other; floats round after each step.
fn scatter(x: &Tensor, offsets: &[usize], updates: &Tensor, kind: ScatterKind) -> Result<Tensor> {
    let dtype = x.dtype();
    let reduction = match kind {
        ScatterKind::Replace => None,
        ScatterKind::Add => Some(ReduceKind::Sum),
        ScatterKind::Mul => Some(ReduceKind::Prod),
        ScatterKind::Max => Some(ReduceKind::Max),
        ScatterKind::Min => Some(ReduceKind::Min),
    };
    let Some(reduction) = reduction else {
        let contents = zip_contents!(x.contents(), updates.contents(), (values, updates) => {
            replace(values, offsets, updates)
        })?;
        return Tensor::new(dtype, x.shape(), contents);
    };
    let float = |a: f64, b: f64| number::round(dtype, float_combine(reduction, a, b));
    let contents = match (x.contents(), updates.contents()) {
        (Contents::F32(values), Contents::F32(updates)) => {
            let mut out = values.clone();
            for (offset, update) in offsets.iter().zip(updates) {
                out[*offset] = float(f64::from(out[*offset]), f64::from(*update)) as f32;
            }
            Contents::F32(out)
        }
        (Contents::F64(values), Contents::F64(updates)) => {
            let mut out = values.clone();
            for (offset, update) in offsets.iter().zip(updates) {
                out[*offset] = float(out[*offset], *update);
            }
            Contents::F64(out)
        }
        (Contents::Integer(values), Contents::Integer(updates)) => {
            let wide = |value: i64| number::widen(dtype, value);
            let mut out = values.clone();
            for (offset, update) in offsets.iter().zip(updates) {
                let combined = integer_combine(reduction, wide(out[*offset]), wide(*update));
                out[*offset] = number::wrap(dtype, combined);
            }
            Contents::Integer(out)
        }
        _ => return Err(Error::operands(format!("{dtype} cannot be combined"))),
    };
    Tensor::new(dtype, x.shape(), contents)
}

/// `values` with update `i` at `offsets[i]`.
fn replace<T: Clone>(values: &[T], offsets: &[usize], updates: &[T]) -> Vec<T> {
    let mut out = values.to_vec();
    for (offset, update) in offsets.iter().zip(updates) {
        out[*offset].clone_from(update);
    }
    out
}

/// The integers of shape operands such as the values of `dims`.
pub(crate) fn dims(values: &[i64]) -> Result<Tensor> {
    Tensor::new(DType::I64, &[values.len()], Contents::Integer(values.to_vec()))
}
