//! ONNX DeformConv over any number of spatial dimensions.

use super::call::Call;
use crate::error::Result;
use crate::indexing::{count, strides};
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

/// The value at a point of a plane by multilinear interpolation; samples outside are zero.
fn sample(plane: &[f64], shape: &[usize], steps: &[usize], point: &[f64]) -> f64 {
    let mut terms = vec![(0usize, 1.0)];
    for (axis, at) in point.iter().enumerate() {
        let low = at.floor();
        let sides = [(low, 1.0 - (at - low)), (low + 1.0, at - low)];
        terms = terms
            .iter()
            .flat_map(|(offset, weight)| {
                sides
                    .iter()
                    .filter(|(index, factor)| *factor != 0.0 && (0.0..shape[axis] as f64).contains(index))
                    .map(move |(index, factor)| (offset + *index as usize * steps[axis], weight * factor))
            })
            .collect();
    }
    terms.into_iter().map(|(offset, weight)| weight * plane[offset]).sum()
}

/// A convolution whose filter taps are moved by `offset` and scaled by `mask`.
pub(super) fn deform_convolve(call: &Call) -> Result<Vec<Value>> {
    let (x, w, offset) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let (bias, mask) = (call.optional_tensor(3)?, call.optional_tensor(4)?);
    let rank = x.shape().len();
    if rank < 3 || w.shape().len() != rank || offset.shape().len() != rank {
        return call.fail("X, W and offset have one rank of 3 or more");
    }
    let spatial = rank - 2;
    let list = |name: &str, default: i64, length: usize| -> Result<Vec<f64>> {
        let values = call.integers(name)?.unwrap_or_else(|| vec![default; length]);
        if values.len() == length {
            Ok(values.into_iter().map(|value| value as f64).collect())
        } else {
            call.fail(format!("attribute '{name}' has {} numbers for {length}", values.len()))
        }
    };
    let (strides_of, dilations) = (list("strides", 1, spatial)?, list("dilations", 1, spatial)?);
    let pads = list("pads", 0, 2 * spatial)?;
    let (groups, offset_groups) = (call.count("group", 1)?.max(1), call.count("offset_group", 1)?.max(1));
    let (batch, in_channels, out_channels) = (x.shape()[0], x.shape()[1], w.shape()[0]);
    let (input, taps, output) = (&x.shape()[2..], &w.shape()[2..], &offset.shape()[2..]);
    let (tap_count, out_plane, in_plane) = (count(taps), count(output), count(input));
    let in_group = w.shape()[1];
    let fits = in_group.checked_mul(groups) == Some(in_channels)
        && out_channels % groups == 0
        && in_channels % offset_groups == 0
        && offset.shape()[0] == batch
        && offset.shape()[1] == offset_groups * tap_count * spatial
        && mask.is_none_or(|mask| mask.shape() == [&[batch, offset_groups * tap_count], output].concat())
        && bias.is_none_or(|bias| bias.shape() == [out_channels]);
    if !fits {
        return call.fail("the operands do not fit each other");
    }
    let shape = [&[batch, out_channels], output].concat();
    if shape
        .iter()
        .try_fold(1usize, |product, extent| product.checked_mul(*extent))
        .is_none_or(|n| n > call.limit)
    {
        return call.fail("the result is above the limit");
    }
    let (values, weights, moves) = (x.to_numbers()?, w.to_numbers()?, offset.to_numbers()?);
    let mask = mask.map(Tensor::to_numbers).transpose()?;
    let bias = bias.map(Tensor::to_numbers).transpose()?;
    let (in_steps, tap_steps, out_steps) = (strides(input), strides(taps), strides(output));
    let mut out = Vec::with_capacity(batch * out_channels * out_plane);
    for n in 0..batch {
        for channel in 0..out_channels {
            let group = channel / (out_channels / groups);
            for place in 0..out_plane {
                let mut sum = bias.as_ref().map_or(0.0, |bias| bias[channel]);
                for inner in 0..in_group {
                    let source = group * in_group + inner;
                    let plane = &values[(n * in_channels + source) * in_plane..][..in_plane];
                    let offset_group = source / (in_channels / offset_groups);
                    for tap in 0..tap_count {
                        let entry = (n * offset_groups + offset_group) * tap_count + tap;
                        let at = |axis: usize| {
                            let position = (place / out_steps[axis] % output[axis]) as f64;
                            let step = (tap / tap_steps[axis] % taps[axis]) as f64;
                            position * strides_of[axis] - pads[axis]
                                + step * dilations[axis]
                                + moves[(entry * spatial + axis) * out_plane + place]
                        };
                        let point: Vec<f64> = (0..spatial).map(at).collect();
                        let scale = mask.as_ref().map_or(1.0, |mask| mask[entry * out_plane + place]);
                        let weight = weights[(channel * in_group + inner) * tap_count + tap];
                        sum += weight * scale * sample(plane, input, &in_steps, &point);
                    }
                }
                out.push(sum);
            }
        }
    }
    Ok(vec![Value::Tensor(Tensor::new(
        x.dtype(),
        &shape,
        Contents::from_numbers(x.dtype(), out.into_iter()),
    )?)])
}
