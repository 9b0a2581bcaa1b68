//! Sums of products: what contractions and convolutions have in common.

use tcc_ir::dtype::DType;

use crate::error::{Error, Result};
use crate::number;
use crate::tensor::{Contents, Tensor};

/// A number that sums of products are computed in: `f64`, or 64-bit integers that wrap.
pub(crate) trait Number: Copy + Send + Sync {
    /// The empty sum.
    const ZERO: Self;
    /// `self + other`.
    fn plus(self, other: Self) -> Self;
    /// `self + a * b`.
    fn plus_product(self, a: Self, b: Self) -> Self;
}

impl Number for f64 {
    const ZERO: f64 = 0.0;

    fn plus(self, other: f64) -> f64 {
        self + other
    }

    fn plus_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Number for i64 {
    const ZERO: i64 = 0;

    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }

    fn plus_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// An operator on two tensors, for both classes of numbers.
pub(crate) trait Kernel {
    /// The elements of the result.
    fn run<N: Number>(&self, lhs: &[N], rhs: &[N]) -> Vec<N>;
}

/// Runs `kernel` in the class of the operands and rounds or wraps the result to `accumulator`.
pub(crate) fn accumulate(
    kernel: &impl Kernel,
    lhs: &Tensor,
    rhs: &Tensor,
    accumulator: DType,
    shape: &[usize],
) -> Result<Tensor> {
    let contents = match (lhs.contents(), rhs.contents()) {
        (Contents::Integer(a), Contents::Integer(b)) if accumulator.is_integer() => {
            // Integers modulo 2^64 reduce to every narrower type.
            let sums = kernel.run(a, b);
            Contents::Integer(
                sums.into_iter().map(|sum| number::wrap(accumulator, i128::from(sum))).collect(),
            )
        }
        (Contents::F32(_) | Contents::F64(_), Contents::F32(_) | Contents::F64(_))
            if accumulator.is_float() =>
        {
            let sums = kernel.run(&lhs.to_numbers()?, &rhs.to_numbers()?);
            Contents::from_numbers(accumulator, sums.into_iter())
        }
        _ => {
            let (lhs, rhs) = (lhs.dtype(), rhs.dtype());
            return Err(Error::operands(format!("{lhs} by {rhs} does not accumulate in {accumulator}")));
        }
    };
    Tensor::new(accumulator, shape, contents)
}
