//! Shapes of up to [`MAX_RANK`] dimensions that need no heap.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::MAX_RANK;
use std::fmt;

/// The dimensions of a tensor, outermost first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    rank: usize,
    dims: [usize; MAX_RANK],
}

impl Shape {
    /// The shape of a scalar.
    pub const SCALAR: Shape = Shape { rank: 0, dims: [0; MAX_RANK] };

    /// A shape of these dimensions, `None` when there are more than [`MAX_RANK`].
    pub fn new(dims: &[usize]) -> Option<Self> {
        let mut shape = Shape::SCALAR;
        shape.rank = dims.len();
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(shape)
    }

    /// Appends a dimension, `false` when the shape is full.
    pub fn push(&mut self, dim: usize) -> bool {
        let Some(slot) = self.dims.get_mut(self.rank) else { return false };
        *slot = dim;
        self.rank += 1;
        true
    }

    /// Number of elements, `None` when it overflows.
    pub fn elements(&self) -> Option<u64> {
        elements(self)
    }
}

/// Number of elements of a shape, `None` when it overflows. A shape with a zero has none, whatever the rest is.
pub fn elements(shape: &[usize]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64))
}

/// Bytes of a tensor, or the reason why it has no size.
pub fn checked_bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    elements(shape)
        .and_then(|elements| dtype.bytes_for(elements))
        .and_then(|bytes| isize::try_from(bytes).ok())
        .map(|bytes| bytes as usize)
        .ok_or_else(|| Error::TensorData {
            dtype,
            shape: shape.to_vec(),
            reason: "has a size beyond the address space; use smaller dimensions".into(),
        })
}

impl std::ops::Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

impl std::ops::DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.dims[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_dimension_wins_over_overflow() {
        assert_eq!(elements(&[usize::MAX, usize::MAX, 0]), Some(0));
        assert_eq!(elements(&[usize::MAX, 2]), None);
        assert_eq!(elements(&[]), Some(1));
    }

    #[test]
    fn rank_is_limited() {
        assert!(Shape::new(&[1; MAX_RANK]).is_some());
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_none());
        let mut shape = Shape::new(&[2, 3]).unwrap();
        assert!(shape.push(4));
        assert_eq!(&*shape, &[2, 3, 4]);
    }
}
