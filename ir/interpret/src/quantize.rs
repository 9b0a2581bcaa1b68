//! Quantization with explicit parameters.
//!
//! Quotients and products are those of `f32` (`f64` for `f64` operands), as the kernels and ONNX have them: the quotient
//! is rounded to `f32` before it is rounded to an integer.

use tcc_ir::dtype::DType;

use crate::error::Result;
use crate::indexing::{count, strides};
use crate::number;
use crate::tensor::{Contents, Tensor};

/// Which elements share parameters.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    /// The axis that parameters follow.
    pub axis: usize,
    /// 0, or the number of elements along the axis that share parameters.
    pub block: usize,
}

impl Groups {
    /// The index of the parameters of each element, in order.
    fn indices<'a>(&self, shape: &'a [usize], parameters: &Tensor) -> impl Iterator<Item = usize> + use<'a> {
        let (own, target) = (strides(shape), strides(parameters.shape()));
        let (axis, block, single) = (self.axis, self.block, parameters.contents().len() == 1);
        (0..count(shape)).map(move |offset| {
            let coordinate = |axis: usize| offset / own[axis] % shape[axis];
            match block {
                _ if single => 0,
                0 => coordinate(axis),
                _ => (0..shape.len())
                    .map(|other| if other == axis { coordinate(axis) / block } else { coordinate(other) })
                    .zip(&target)
                    .map(|(coordinate, step)| coordinate * step)
                    .sum(),
            }
        })
    }
}

/// The precision of the arithmetic on operands of this type.
fn precision(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `saturate(round_half_even(x / scale) + zero)`; floating-point results are `x / scale + zero` rounded to `dtype`.
pub(crate) fn quantize(
    x: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    groups: Groups,
    dtype: DType,
    saturate: bool,
) -> Result<Tensor> {
    let (values, scales, zeros) = (x.to_numbers()?, scale.to_numbers()?, zero.to_numbers()?);
    let quotients = values
        .iter()
        .zip(groups.indices(x.shape(), scale))
        .map(|(value, group)| (number::round(precision(x.dtype()), value / scales[group]), zeros[group]));
    let contents = if dtype.is_float() {
        let round = |value| {
            if saturate { number::round(dtype, value) } else { number::round_overflowing(dtype, value) }
        };
        Contents::from_numbers(dtype, quotients.map(|(quotient, zero)| round(quotient + zero)))
    } else {
        let integer =
            |(quotient, zero): (f64, f64)| number::to_integer(dtype, quotient.round_ties_even() + zero);
        Contents::Integer(quotients.map(integer).collect())
    };
    Tensor::new(dtype, x.shape(), contents)
}

/// `(x - zero) * scale` as `dtype`.
pub(crate) fn dequantize(
    x: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    groups: Groups,
    dtype: DType,
) -> Result<Tensor> {
    let (values, scales, zeros) = (x.to_numbers()?, scale.to_numbers()?, zero.to_numbers()?);
    let products = values
        .iter()
        .zip(groups.indices(x.shape(), scale))
        .map(|(value, group)| number::round(precision(dtype), value - zeros[group]) * scales[group]);
    Tensor::new(dtype, x.shape(), Contents::from_numbers(dtype, products))
}
