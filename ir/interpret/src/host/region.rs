//! ONNX RoiAlign.

use super::call::Call;
use crate::error::Result;
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

/// Four neighbours of a point of a plane, with bilinear weights; none where the point is outside.
fn corners(y: f64, x: f64, height: usize, width: usize) -> [(usize, f64); 4] {
    if !(-1.0..=height as f64).contains(&y) || !(-1.0..=width as f64).contains(&x) || height * width == 0 {
        return [(0, 0.0); 4];
    }
    let along = |at: f64, extent: usize| {
        let at = at.max(0.0);
        let low = at as usize;
        if low >= extent - 1 { (extent - 1, extent - 1, 0.0) } else { (low, low + 1, at - low as f64) }
    };
    let (top, bottom, down) = along(y, height);
    let (left, right, across) = along(x, width);
    [
        (top * width + left, (1.0 - down) * (1.0 - across)),
        (top * width + right, (1.0 - down) * across),
        (bottom * width + left, down * (1.0 - across)),
        (bottom * width + right, down * across),
    ]
}

/// Samples of regions of interest on a regular grid, averaged or reduced to the largest term.
pub(super) fn roi_align(call: &Call) -> Result<Vec<Value>> {
    let (x, rois, batches) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let ([batch, channels, height, width], [count, 4]) = (x.shape(), rois.shape()) else {
        return call.fail("X is [batch, channels, height, width] and rois [count, 4]");
    };
    let (out_height, out_width) = (call.count("output_height", 1)?, call.count("output_width", 1)?);
    let sampling = call.count("sampling_ratio", 0)?;
    let scale = call.float("spatial_scale", 1.0)?;
    let half_pixel = call.text("coordinate_transformation_mode", "half_pixel")? == "half_pixel";
    let largest = call.text("mode", "avg")? == "max";
    let shape = [*count, *channels, out_height, out_width];
    if shape
        .iter()
        .try_fold(1usize, |product, extent| product.checked_mul(*extent))
        .is_none_or(|n| n > call.limit)
    {
        return call.fail("the result is above the limit");
    }
    let (values, rois, batches) = (x.to_numbers()?, rois.to_numbers()?, batches.integers()?);
    if batches.len() != *count {
        return call.fail("there is one batch index for each region");
    }
    let plane = height * width;
    let mut out = Vec::with_capacity(count * channels * out_height * out_width);
    for (region, of) in rois.chunks_exact(4).zip(batches) {
        let of = crate::indexing::position(*of, *batch)?;
        let offset = if half_pixel { 0.5 } else { 0.0 };
        let [x1, y1, x2, y2] = [0, 1, 2, 3].map(|index| region[index] * scale - offset);
        // The older mode makes every region at least one sample wide.
        let extent = |low: f64, high: f64| if half_pixel { high - low } else { (high - low).max(1.0) };
        let bin = [extent(y1, y2) / out_height as f64, extent(x1, x2) / out_width as f64];
        let samples = bin.map(|size| if sampling > 0 { sampling } else { size.ceil().max(0.0) as usize });
        if samples[0].saturating_mul(samples[1]) > call.limit {
            return call.fail("a region has more samples than the limit");
        }
        for channel in 0..*channels {
            let source = &values[(of * channels + channel) * plane..][..plane];
            for row in 0..out_height {
                for column in 0..out_width {
                    let (mut sum, mut most) = (0.0, f64::NEG_INFINITY);
                    for sample in 0..samples[0] * samples[1] {
                        let (down, across) = (sample / samples[1], sample % samples[1]);
                        let at = |start: f64, cell: usize, step: usize, axis: usize| {
                            start + (cell as f64 + (step as f64 + 0.5) / samples[axis] as f64) * bin[axis]
                        };
                        let terms = corners(at(y1, row, down, 0), at(x1, column, across, 1), *height, *width)
                            .map(
                                |(offset, weight)| if weight == 0.0 { 0.0 } else { weight * source[offset] },
                            );
                        sum += terms.iter().sum::<f64>();
                        most = terms.iter().copied().fold(most, f64::max);
                    }
                    let number = (samples[0] * samples[1]).max(1) as f64;
                    out.push(match (largest, samples[0] * samples[1]) {
                        (_, 0) => 0.0,
                        (true, _) => most,
                        (false, _) => sum / number,
                    });
                }
            }
        }
    }
    Ok(vec![Value::Tensor(Tensor::new(
        x.dtype(),
        &shape,
        Contents::from_numbers(x.dtype(), out.into_iter()),
    )?)])
}
