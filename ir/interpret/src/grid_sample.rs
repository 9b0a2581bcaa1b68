//! ONNX GridSample over any number of spatial dimensions, in `f64`.

use tcc_ir::words::{PadKind, ResizeKind};

use crate::error::{Error, Result};
use crate::indexing::{count, strides};
use crate::resize::cubic_kernel;
use crate::tensor::{Contents, Tensor};

/// The coefficient of cubic interpolation that the ONNX operator fixes.
const CUBIC: f64 = -0.75;

/// `x` read at the coordinates of `grid`.
pub(crate) fn grid_sample(
    kind: ResizeKind,
    outside: PadKind,
    align_corners: bool,
    x: &Tensor,
    grid: &Tensor,
    shape: &[usize],
) -> Result<Tensor> {
    let spatial = &x.shape()[2..];
    let rank = spatial.len();
    if outside == PadKind::Wrap {
        return Err(Error::operands("grid_sample pads with zeros, the edge or a reflection"));
    }
    if grid.shape()[0] != x.shape()[0] || grid.shape()[rank + 1] != rank {
        return Err(Error::operands(format!("the grid {:?} does not fit {:?}", grid.shape(), x.shape())));
    }
    let (channels, plane, points) = (x.shape()[1], count(spatial), count(&shape[2..]));
    if plane == 0 && count(shape) > 0 {
        return Err(Error::operands("an empty plane cannot be sampled"));
    }
    let (values, coordinates) = (x.to_numbers()?, grid.to_numbers()?);
    let own = strides(spatial);
    let axes: Vec<Axis> =
        spatial.iter().map(|extent| Axis { extent: *extent, outside, align_corners }).collect();
    let mut out = vec![0.0; count(shape)];
    for batch in 0..shape[0] {
        for point in 0..points {
            let position = &coordinates[(batch * points + point) * rank..][..rank];
            // Offsets with weights, the product over the axes; the last coordinate is that of the first axis.
            let mut taps = vec![(0usize, 1.0)];
            for (axis, reader) in axes.iter().enumerate() {
                let along = reader.taps(kind, position[rank - 1 - axis]);
                let step = own[axis];
                taps = taps
                    .iter()
                    .flat_map(|(offset, weight)| {
                        along.iter().map(move |(index, factor)| (offset + index * step, weight * factor))
                    })
                    .collect();
            }
            for channel in 0..channels {
                let base = (batch * channels + channel) * plane;
                let sum = taps.iter().map(|(offset, weight)| weight * values[base + offset]).sum();
                out[(batch * channels + channel) * points + point] = sum;
            }
        }
    }
    Tensor::new(x.dtype(), shape, Contents::from_numbers(x.dtype(), out.into_iter()))
}

/// How coordinates of one axis are read.
struct Axis {
    extent: usize,
    outside: PadKind,
    align_corners: bool,
}

impl Axis {
    /// Samples with weights at a normalized coordinate; those that count as zero are left out.
    fn taps(&self, kind: ResizeKind, normalized: f64) -> Vec<(usize, f64)> {
        let n = self.extent as f64;
        let mut x = if self.align_corners {
            (normalized + 1.0) / 2.0 * (n - 1.0)
        } else {
            ((normalized + 1.0) * n - 1.0) / 2.0
        };
        if kind == ResizeKind::Nearest {
            x = x.round_ties_even();
        }
        let (low, high) = self.borders();
        // Cubic interpolation treats each of its samples by itself.
        if kind != ResizeKind::Cubic && (x < low || x > high) {
            match self.outside {
                PadKind::Edge => x = x.clamp(0.0, n - 1.0),
                PadKind::Reflect => x = reflect(x, low, high),
                PadKind::Constant | PadKind::Wrap => {}
            }
        }
        if !x.is_finite() {
            // Nothing is near; a sum without samples is zero.
            return Vec::new();
        }
        let left = x.floor();
        let all: Vec<(f64, f64)> = match kind {
            ResizeKind::Nearest => vec![(x.round_ties_even(), 1.0)],
            ResizeKind::Linear => vec![(left, 1.0 - (x - left)), (left + 1.0, x - left)],
            ResizeKind::Cubic => (-1..3)
                .map(|step| left + f64::from(step))
                .map(|at| (at, cubic_kernel(x - at, CUBIC)))
                .collect(),
        };
        all.into_iter()
            .filter(|(_, weight)| *weight != 0.0)
            .filter_map(|(at, weight)| Some((self.pixel(at)?, weight)))
            .collect()
    }

    /// Where the axis ends: at the outer samples, or half a sample beyond them.
    fn borders(&self) -> (f64, f64) {
        let n = self.extent as f64;
        if self.align_corners { (0.0, n - 1.0) } else { (-0.5, n - 0.5) }
    }

    /// The sample at a whole coordinate; `None` for zero.
    fn pixel(&self, at: f64) -> Option<usize> {
        let n = self.extent as f64;
        if (0.0..n).contains(&at) {
            return Some(at as usize);
        }
        let (low, high) = self.borders();
        match self.outside {
            PadKind::Constant | PadKind::Wrap => None,
            PadKind::Edge => Some(at.clamp(0.0, n - 1.0) as usize),
            PadKind::Reflect => Some(reflect(at, low, high).clamp(0.0, n - 1.0) as usize),
        }
    }
}

/// `x` folded back into `low..=high` at both ends.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let distance = (x - low).rem_euclid(2.0 * range);
    low + distance.min(2.0 * range - distance)
}
