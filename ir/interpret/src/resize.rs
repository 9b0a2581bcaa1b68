//! ONNX Resize: weights of input samples, axis by axis, in `f64`.

use tcc_ir::words::{CoordinateKind, NearestKind, ResizeKind};

use crate::error::{Error, Result};
use crate::indexing::{Walk, around};
use crate::tensor::{Contents, Tensor};

/// The attributes of a resize.
pub(crate) struct Resize {
    /// Interpolation.
    pub kind: ResizeKind,
    /// From output to input coordinates.
    pub coordinates: CoordinateKind,
    /// Rounding of `nearest`.
    pub nearest: NearestKind,
    /// Output / input an axis; empty: from the extents.
    pub scales: Vec<f64>,
    /// The coefficient of cubic interpolation.
    pub cubic: f64,
    /// Whether samples outside lose their weight.
    pub exclude_outside: bool,
    /// Value beyond the input, for crop-and-resize.
    pub outside: f64,
    /// Starts, then ends an axis, normalized.
    pub region: Vec<f64>,
    /// Whether shrinking filters first.
    pub antialias: bool,
}

/// What one output coordinate reads along an axis: samples with weights, or nothing where it lies outside.
type Taps = Option<Vec<(usize, f64)>>;

/// `x` resized to `shape`.
pub(crate) fn resize(attributes: &Resize, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let rank = shape.len();
    for (list, length) in [(&attributes.scales, rank), (&attributes.region, 2 * rank)] {
        if !list.is_empty() && list.len() != length {
            return Err(Error::operands(format!("{} numbers for {rank} axes", list.len())));
        }
    }
    let extents = x.shape().iter().zip(shape).enumerate();
    let axes = extents
        .map(|(axis, (input, output))| attributes.taps(axis, *input, *output))
        .collect::<Result<Vec<_>>>()?;
    let mut values = x.to_numbers()?;
    let mut current = x.shape().to_vec();
    for (axis, taps) in axes.iter().enumerate() {
        let identity = |(index, taps): (usize, &Taps)| matches!(taps.as_deref(), Some([(source, 1.0)]) if *source == index);
        if shape[axis] == current[axis] && taps.iter().enumerate().all(identity) {
            continue;
        }
        values = interpolate(&values, &current, axis, taps);
        current[axis] = shape[axis];
    }
    // Beyond the input along any axis means beyond the input.
    if axes.iter().flatten().any(Option::is_none) {
        let coordinates: Vec<isize> =
            crate::indexing::strides(shape).iter().map(|step| *step as isize).collect();
        for offset in Walk::new(shape, &coordinates, 0) {
            let outside = |axis: usize| {
                let coordinate = offset / coordinates[axis] as usize % shape[axis];
                axes[axis][coordinate].is_none()
            };
            if (0..rank).any(outside) {
                values[offset] = attributes.outside;
            }
        }
    }
    Tensor::new(x.dtype(), shape, Contents::from_numbers(x.dtype(), values.into_iter()))
}

fn interpolate(values: &[f64], shape: &[usize], axis: usize, taps: &[Taps]) -> Vec<f64> {
    let (outer, extent, inner) = around(shape, axis);
    let mut out = Vec::with_capacity(outer * taps.len() * inner);
    for row in 0..outer {
        for taps in taps {
            let taps = taps.as_deref().unwrap_or(&[]);
            for column in 0..inner {
                let at = |source: usize| values[(row * extent + source) * inner + column];
                out.push(match taps {
                    // A single sample is copied, so that infinities stay what they are.
                    [(source, 1.0)] => at(*source),
                    _ => taps.iter().map(|(source, weight)| weight * at(*source)).sum(),
                });
            }
        }
    }
    out
}

impl Resize {
    /// The samples of every output coordinate of an axis.
    fn taps(&self, axis: usize, input: usize, output: usize) -> Result<Vec<Taps>> {
        if output == 0 {
            return Ok(Vec::new());
        }
        if input == 0 {
            return Err(Error::operands("an axis without elements cannot be resized"));
        }
        let rank = self.region.len() / 2;
        let scale = self.scales.get(axis).copied().unwrap_or(output as f64 / input as f64);
        let region = match self.region.len() {
            0 => (0.0, 1.0),
            _ => (self.region[axis], self.region[axis + rank]),
        };
        // A low-pass filter is as wide as the inverse of the scale, which must not be far beyond the input.
        if scale.is_nan() || scale <= 0.0 || self.antialias && scale * (input as f64) < 0.5 {
            return Err(Error::operands(format!("axis {axis} is scaled by {scale}")));
        }
        (0..output).map(|x| self.taps_at(x as f64, scale, input, output, region)).collect()
    }

    fn taps_at(&self, x: f64, scale: f64, input: usize, output: usize, region: (f64, f64)) -> Result<Taps> {
        let (n, scaled) = (input as f64, scale * input as f64);
        let half_pixel = (x + 0.5) / scale - 0.5;
        let source = match self.coordinates {
            CoordinateKind::HalfPixel => half_pixel,
            CoordinateKind::PytorchHalfPixel if output == 1 => 0.0,
            CoordinateKind::PytorchHalfPixel => half_pixel,
            CoordinateKind::HalfPixelSymmetric => n / 2.0 * (1.0 - output as f64 / scaled) + half_pixel,
            CoordinateKind::AlignCorners => {
                if scaled == 1.0 {
                    0.0
                } else {
                    x * (n - 1.0) / (scaled - 1.0)
                }
            }
            CoordinateKind::Asymmetric => x / scale,
            CoordinateKind::TfCropAndResize => {
                let (start, end) = region;
                let source = if scaled == 1.0 {
                    (start + end) * (n - 1.0) / 2.0
                } else {
                    start * (n - 1.0) + x * (end - start) * (n - 1.0) / (scaled - 1.0)
                };
                if source < 0.0 || source > n - 1.0 {
                    return Ok(None);
                }
                source
            }
        };
        // The sample on the left is preferred: a whole coordinate is the right one of its two neighbours.
        let whole = source.floor() == source;
        let left = if whole { source - 1.0 } else { source.floor() };
        let ratio = if whole { 1.0 } else { source - left };
        let (start, weights) = self.weights(ratio, scale);
        let mut taps: Vec<(f64, f64)> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| (left + start as f64 + index as f64, *weight))
            .collect();
        if self.exclude_outside {
            taps.retain(|(index, _)| (0.0..n).contains(index));
            let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        let clamp = |(index, weight): (f64, f64)| (index.clamp(0.0, n - 1.0) as usize, weight);
        Ok(Some(taps.into_iter().filter(|(_, weight)| *weight != 0.0).map(clamp).collect()))
    }

    /// Weights of neighbouring samples, and where the first stands relative to the left neighbour.
    fn weights(&self, ratio: f64, scale: f64) -> (i64, Vec<f64>) {
        // Shrinking with a low-pass filter widens the interpolation kernel by the inverse of the scale.
        let scale = if self.antialias { scale.min(1.0) } else { 1.0 };
        let filter = |radius: f64, kernel: &dyn Fn(f64) -> f64| {
            let start = (-radius / scale).floor() as i64 + 1;
            let weights: Vec<f64> =
                (start..2 - start).map(|index| kernel((index as f64 - ratio) * scale)).collect();
            let sum: f64 = if self.antialias { weights.iter().sum() } else { 1.0 };
            (start, weights.into_iter().map(|weight| weight / sum).collect())
        };
        match self.kind {
            ResizeKind::Nearest => {
                let right = match self.nearest {
                    _ if ratio == 1.0 => true,
                    NearestKind::RoundPreferFloor => ratio > 0.5,
                    NearestKind::RoundPreferCeil => ratio >= 0.5,
                    NearestKind::Floor => false,
                    NearestKind::Ceil => true,
                };
                (0, if right { vec![0.0, 1.0] } else { vec![1.0, 0.0] })
            }
            ResizeKind::Linear => filter(1.0, &|x| (1.0 - x.abs()).max(0.0)),
            ResizeKind::Cubic => filter(2.0, &|x| cubic_kernel(x, self.cubic)),
        }
    }
}

/// Cubic convolution interpolation (Keys, 1981) with coefficient `a`.
pub(crate) fn cubic_kernel(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}
