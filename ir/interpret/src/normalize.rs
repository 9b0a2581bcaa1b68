//! Softmax and normalization, computed in `f64` and rounded once.

use tcc_ir::scalar::ScalarExpr;

use crate::elementwise::{map, maximum};
use crate::error::Result;
use crate::indexing::{Walk, around, count, strides};
use crate::tensor::{Contents, Tensor};

/// `exp(x - max) / sum(exp(x - max))` along `axis`, or its logarithm.
pub(crate) fn softmax(x: &Tensor, axis: usize, log: bool) -> Result<Tensor> {
    let (outer, extent, inner) = around(x.shape(), axis);
    let mut values = x.to_numbers()?;
    for row in 0..outer {
        for column in 0..inner {
            let at = |index: usize| (row * extent + index) * inner + column;
            let largest = (0..extent).fold(f64::NEG_INFINITY, |max, index| maximum(max, values[at(index)]));
            let sum: f64 = (0..extent).map(|index| (values[at(index)] - largest).exp()).sum();
            for index in 0..extent {
                let shifted = values[at(index)] - largest;
                values[at(index)] = if log { shifted - sum.ln() } else { shifted.exp() / sum };
            }
        }
    }
    Tensor::new(x.dtype(), x.shape(), Contents::from_numbers(x.dtype(), values.into_iter()))
}

/// `(x - mean) / sqrt(variance + epsilon)` over `axes`, or without the mean; then `epilogue`.
pub(crate) fn normalize(
    axes: &[usize],
    epsilon: f64,
    centered: bool,
    epilogue: &ScalarExpr,
    operands: &[&Tensor],
) -> Result<Tensor> {
    let x = operands[0];
    let shape = x.shape();
    let kept: Vec<usize> =
        (0..shape.len()).map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] }).collect();
    let own = strides(&kept);
    let steps: Vec<isize> =
        (0..shape.len()).map(|axis| if axes.contains(&axis) { 0 } else { own[axis] as isize }).collect();
    let groups = Walk::new(shape, &steps, 0);
    let size = axes.iter().map(|axis| shape[*axis]).product::<usize>() as f64;
    let values = x.to_numbers()?;
    let mut mean = vec![0.0; count(&kept)];
    if centered {
        for (value, group) in values.iter().zip(groups.clone()) {
            mean[group] += value / size;
        }
    }
    let mut variance = vec![0.0; count(&kept)];
    for (value, group) in values.iter().zip(groups.clone()) {
        variance[group] += (value - mean[group]).powi(2) / size;
    }
    let normalized = values
        .iter()
        .zip(groups)
        .map(|(value, group)| (value - mean[group]) / (variance[group] + epsilon).sqrt());
    let normalized = Tensor::new(x.dtype(), shape, Contents::from_numbers(x.dtype(), normalized))?;
    map(epilogue, &[&[&normalized], &operands[1..]].concat(), shape)
}
