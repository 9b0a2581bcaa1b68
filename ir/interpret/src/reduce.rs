//! Reductions, extreme positions and running reductions.
//!
//! Floating-point values are combined in `f64` and rounded once; integers are combined without loss and wrapped once.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::words::ReduceKind;

use crate::elementwise::{map, maximum, minimum};
use crate::error::{Error, Result};
use crate::indexing::{Walk, around, count, strides};
use crate::number;
use crate::tensor::{Contents, Tensor};

/// `prologue`, then the reduction of `axes`, then `epilogue`.
pub(crate) fn reduce(
    kind: ReduceKind,
    axes: &[usize],
    prologue: &ScalarExpr,
    epilogue: &ScalarExpr,
    operands: &[&Tensor],
    shape: &[usize],
) -> Result<Tensor> {
    let split = usize::from(prologue.inputs).clamp(1, operands.len());
    let x = map(prologue, &operands[..split], operands[0].shape())?;
    let reduced = reduce_axes(kind, &x, axes)?.reshaped(shape)?;
    let rest = [&[&reduced], &operands[split..]].concat();
    map(epilogue, &rest, shape)
}

/// The reduction alone; reduced axes have extent 1.
fn reduce_axes(kind: ReduceKind, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let extent = |(axis, extent): (usize, &usize)| if axes.contains(&axis) { 1 } else { *extent };
    let shape: Vec<usize> = x.shape().iter().enumerate().map(extent).collect();
    let own = strides(&shape);
    let steps: Vec<isize> =
        (0..shape.len()).map(|axis| if axes.contains(&axis) { 0 } else { own[axis] as isize }).collect();
    let targets = Walk::new(x.shape(), &steps, 0);
    let dtype = x.dtype();
    let contents = match x.contents() {
        Contents::Text(_) => return Err(Error::operands("text cannot be reduced")),
        Contents::Integer(values) => {
            let mut sums = vec![integer_start(kind, dtype); count(&shape)];
            for (value, target) in values.iter().zip(targets) {
                sums[target] = integer_combine(kind, sums[target], number::widen(dtype, *value));
            }
            Contents::Integer(sums.into_iter().map(|sum| number::wrap(dtype, sum)).collect())
        }
        Contents::F32(_) | Contents::F64(_) => {
            let mut sums = vec![float_start(kind); count(&shape)];
            for (value, target) in x.to_numbers()?.into_iter().zip(targets) {
                sums[target] = float_combine(kind, sums[target], value);
            }
            Contents::from_numbers(dtype, sums.into_iter())
        }
    };
    Tensor::new(dtype, &shape, contents)
}

pub(crate) fn float_start(kind: ReduceKind) -> f64 {
    match kind {
        ReduceKind::Sum => 0.0,
        ReduceKind::Prod => 1.0,
        ReduceKind::Max => f64::NEG_INFINITY,
        ReduceKind::Min => f64::INFINITY,
    }
}

pub(crate) fn float_combine(kind: ReduceKind, a: f64, b: f64) -> f64 {
    match kind {
        ReduceKind::Sum => a + b,
        ReduceKind::Prod => a * b,
        ReduceKind::Max => maximum(a, b),
        ReduceKind::Min => minimum(a, b),
    }
}

fn integer_start(kind: ReduceKind, dtype: DType) -> i128 {
    let (low, high) = dtype.integer_range().unwrap_or((0, 0));
    match kind {
        ReduceKind::Sum => 0,
        ReduceKind::Prod => 1,
        ReduceKind::Max => low,
        ReduceKind::Min => high,
    }
}

pub(crate) fn integer_combine(kind: ReduceKind, a: i128, b: i128) -> i128 {
    match kind {
        ReduceKind::Sum => a.wrapping_add(b),
        ReduceKind::Prod => a.wrapping_mul(b),
        ReduceKind::Max => a.max(b),
        ReduceKind::Min => a.min(b),
    }
}

/// Position of the extreme element along `axis`; the first NaN (the last one where `last`) beats every number.
pub(crate) fn arg_reduce(
    kind: ReduceKind,
    x: &Tensor,
    axis: usize,
    last: bool,
    shape: &[usize],
) -> Result<Tensor> {
    let (outer, extent, inner) = around(x.shape(), axis);
    if extent == 0 && outer * inner > 0 {
        return Err(Error::operands("an axis without elements has no extreme one"));
    }
    // Negation turns a minimum into a maximum; i128 and f64 both represent the negative of every element.
    let positions = match x.contents() {
        Contents::Text(_) => return Err(Error::operands("text has no extreme element")),
        Contents::Integer(values) => {
            let sign = if kind == ReduceKind::Min { -1 } else { 1 };
            let key = |offset: usize| sign * number::widen(x.dtype(), values[offset]);
            extreme(outer, extent, inner, last, key, |a, b| a > b, |a, b| a == b)
        }
        Contents::F32(_) | Contents::F64(_) => {
            let values = x.to_numbers()?;
            let sign = if kind == ReduceKind::Min { -1.0 } else { 1.0 };
            let beats = |a: f64, b: f64| a > b || a.is_nan() && !b.is_nan();
            let ties = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
            extreme(outer, extent, inner, last, |offset| sign * values[offset], beats, ties)
        }
    };
    Tensor::new(DType::I64, shape, Contents::Integer(positions))
}

fn extreme<K: Copy>(
    outer: usize,
    extent: usize,
    inner: usize,
    last: bool,
    key: impl Fn(usize) -> K,
    beats: impl Fn(K, K) -> bool,
    ties: impl Fn(K, K) -> bool,
) -> Vec<i64> {
    let mut positions = Vec::with_capacity(outer * inner);
    for row in 0..outer {
        for column in 0..inner {
            let at = |index: usize| key((row * extent + index) * inner + column);
            let mut best = 0;
            for index in 1..extent {
                if beats(at(index), at(best)) || last && ties(at(index), at(best)) {
                    best = index;
                }
            }
            positions.push(best as i64);
        }
    }
    positions
}

/// Running reduction along `axis`; `exclusive` leaves out the element itself, `reverse` runs from the end.
pub(crate) fn scan(
    kind: ReduceKind,
    x: &Tensor,
    axis: usize,
    exclusive: bool,
    reverse: bool,
) -> Result<Tensor> {
    let (outer, extent, inner) = around(x.shape(), axis);
    let dtype = x.dtype();
    let mut order: Vec<usize> = (0..extent).collect();
    if reverse {
        order.reverse();
    }
    let lines = || {
        (0..outer).flat_map(|row| (0..inner).map(move |column| (row, column))).map(|(row, column)| {
            order.iter().map(move |index| (row * extent + index) * inner + column).collect::<Vec<usize>>()
        })
    };
    let contents = match x.contents() {
        Contents::Text(_) => return Err(Error::operands("text cannot be reduced")),
        Contents::Integer(values) => {
            let mut out = vec![0; values.len()];
            for line in lines() {
                let mut sum = integer_start(kind, dtype);
                for offset in line {
                    let next = integer_combine(kind, sum, number::widen(dtype, values[offset]));
                    out[offset] = number::wrap(dtype, if exclusive { sum } else { next });
                    sum = next;
                }
            }
            Contents::Integer(out)
        }
        Contents::F32(_) | Contents::F64(_) => {
            let values = x.to_numbers()?;
            let mut out = vec![0.0; values.len()];
            for line in lines() {
                let mut sum = float_start(kind);
                for offset in line {
                    let next = float_combine(kind, sum, values[offset]);
                    out[offset] = if exclusive { sum } else { next };
                    sum = next;
                }
            }
            Contents::from_numbers(dtype, out.into_iter())
        }
    };
    Tensor::new(dtype, x.shape(), contents)
}
