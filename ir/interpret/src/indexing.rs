//! Row-major positions: strides and walks over strided elements.

use tcc_ir::dtype::DType;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Distance between neighbours along each axis of a row-major tensor.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// Number of elements.
pub(crate) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The offsets of the elements of a strided view, in row-major order of its shape.
#[derive(Clone)]
pub(crate) struct Walk {
    shape: Vec<usize>,
    strides: Vec<isize>,
    coordinates: Vec<usize>,
    offset: isize,
    left: usize,
}

impl Walk {
    /// A view of `shape` with these strides whose first element is at `start`.
    pub(crate) fn new(shape: &[usize], strides: &[isize], start: isize) -> Walk {
        Walk {
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            coordinates: vec![0; shape.len()],
            offset: start,
            left: count(shape),
        }
    }

    /// A tensor of shape `from` broadcast to `to`, aligned at the last axis.
    pub(crate) fn broadcast(from: &[usize], to: &[usize]) -> Walk {
        let missing = to.len() - from.len();
        let own = strides(from);
        let stride = |axis: usize| match axis.checked_sub(missing) {
            Some(axis) if from[axis] != 1 => own[axis] as isize,
            _ => 0,
        };
        Walk::new(to, &(0..to.len()).map(stride).collect::<Vec<_>>(), 0)
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let offset = self.offset as usize;
        for axis in (0..self.shape.len()).rev() {
            self.coordinates[axis] += 1;
            self.offset += self.strides[axis];
            if self.coordinates[axis] < self.shape[axis] {
                break;
            }
            self.offset -= self.strides[axis] * self.shape[axis] as isize;
            self.coordinates[axis] = 0;
        }
        Some(offset)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The elements at these offsets.
pub(crate) fn pick<T: Clone>(values: &[T], offsets: impl Iterator<Item = usize>) -> Vec<T> {
    offsets.map(|offset| values[offset].clone()).collect()
}

/// Extents before, at and after an axis: the shape as three nested loops.
pub(crate) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (count(&shape[..axis]), shape[axis], count(&shape[axis + 1..]))
}

/// The position that an index operand means on an axis; negative ones count from the end.
pub(crate) fn position(index: i64, extent: usize) -> Result<usize> {
    let wrapped = if index < 0 { index.checked_add(extent as i64) } else { Some(index) };
    match wrapped.and_then(|index| usize::try_from(index).ok()) {
        Some(position) if position < extent => Ok(position),
        _ => Err(Error::Index { index, extent }),
    }
}

/// The integers of an index operand.
pub(crate) fn indices(tensor: &Tensor) -> Result<&[i64]> {
    match tensor.dtype() {
        DType::I32 | DType::I64 => tensor.integers(),
        other => Err(Error::operands(format!("indices are i32 or i64, got {other}"))),
    }
}
