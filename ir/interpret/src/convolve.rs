//! Convolutions and their transposes over any number of spatial dimensions.
//!
//! Everything is computed channels first; channels-last operands are transposed before and the result after.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::words::Layout;

use crate::accumulate::{Kernel, Number, accumulate};
use crate::elementwise::map;
use crate::error::{Error, Result};
use crate::indexing::{Walk, count, strides};
use crate::movement::transpose;
use crate::parallel;
use crate::tensor::Tensor;

/// The attributes that convolutions and their transposes share.
pub(crate) struct Convolution<'a> {
    /// Where channels sit.
    pub layout: Layout,
    /// Number of groups.
    pub groups: usize,
    /// Output distance an axis, or input distance of the transpose.
    pub strides: &'a [usize],
    /// Distance of filter taps an axis.
    pub dilations: &'a [usize],
    /// Low, then high padding an axis.
    pub pads: &'a [i64],
    /// Type of the sums.
    pub accumulator: DType,
    /// What happens to the sums.
    pub epilogue: &'a ScalarExpr,
    /// True for the transpose.
    pub transposed: bool,
}

/// Axes that bring channels to the second place.
pub(crate) fn to_channels_first(rank: usize) -> Vec<usize> {
    [vec![0, rank - 1], (1..rank - 1).collect()].concat()
}

/// Axes that bring channels to the last place.
pub(crate) fn to_channels_last(rank: usize) -> Vec<usize> {
    [vec![0], (2..rank).collect(), vec![1]].concat()
}

/// Refuses distances at which positions could leave 64 bits.
pub(crate) fn check_moderate(counts: &[&[usize]], pads: &[i64]) -> Result<()> {
    const LIMIT: u64 = 1 << 31;
    let counts = counts.iter().flat_map(|counts| counts.iter().map(|count| *count as u64));
    match counts.chain(pads.iter().map(|pad| pad.unsigned_abs())).find(|distance| *distance > LIMIT) {
        Some(distance) => Err(Error::operands(format!("a stride, dilation or padding of {distance}"))),
        None => Ok(()),
    }
}

/// The convolution, mapped by its epilogue; `shape` is that of the result.
pub(crate) fn convolve(attributes: &Convolution, operands: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    check_moderate(&[attributes.strides, attributes.dilations], attributes.pads)?;
    let rank = shape.len();
    let last = attributes.layout == Layout::ChannelsLast;
    let (x, w, first_shape) = if last {
        // Filters are [spatial..., in, out], or [spatial..., out, in] for the transpose: both swap and come first.
        let filter = [vec![rank - 1, rank - 2], (0..rank - 2).collect()].concat();
        let to_first = to_channels_first(rank);
        (
            transpose(operands[0], &to_first)?,
            transpose(operands[1], &filter)?,
            to_first.iter().map(|axis| shape[*axis]).collect(),
        )
    } else {
        (operands[0].clone(), operands[1].clone(), shape.to_vec())
    };
    let planes = Planes { attributes, x: x.shape(), w: w.shape(), out: &first_shape };
    let mut sum = accumulate(&planes, &x, &w, attributes.accumulator, &first_shape)?;
    if last {
        sum = transpose(&sum, &to_channels_last(rank))?;
    }
    map(attributes.epilogue, &[&[&sum], &operands[2..]].concat(), shape)
}

/// A channels-first convolution, one output plane after the other.
struct Planes<'a> {
    attributes: &'a Convolution<'a>,
    x: &'a [usize],
    w: &'a [usize],
    out: &'a [usize],
}

impl Kernel for Planes<'_> {
    fn run<N: Number>(&self, x: &[N], w: &[N]) -> Vec<N> {
        let a = self.attributes;
        let (in_channels, out_channels) = (self.x[1], self.out[1]);
        let (in_group, out_group) = (in_channels / a.groups, out_channels / a.groups);
        let taps = count(&self.w[2..]);
        let (in_plane, out_plane) = (count(&self.x[2..]), count(&self.out[2..]));
        let spans: Vec<Span> = self.spans();
        let mut out = vec![N::ZERO; count(self.out)];
        parallel::rows(&mut out, out_plane, |index, plane| {
            let (batch, channel) = (index / out_channels, index % out_channels);
            let group = channel / out_group;
            for input in 0..in_group {
                let source = &x[(batch * in_channels + group * in_group + input) * in_plane..][..in_plane];
                let filter = if a.transposed {
                    (group * in_group + input) * out_group + channel % out_group
                } else {
                    channel * in_group + input
                };
                let factors = &w[filter * taps..][..taps];
                for span in &spans {
                    span.add(factors[span.tap], source, plane);
                }
            }
        });
        out
    }
}

/// A run of positions along the last axis where one filter tap joins input and output.
struct Span {
    tap: usize,
    input: usize,
    output: usize,
    length: usize,
    input_step: usize,
    output_step: usize,
}

impl Span {
    fn add<N: Number>(&self, factor: N, source: &[N], plane: &mut [N]) {
        if self.length == 0 {
            return;
        }
        let inputs = source[self.input..].iter().step_by(self.input_step);
        if self.output_step == 1 {
            let sums = &mut plane[self.output..self.output + self.length];
            if self.input_step == 1 {
                // The common case, plain enough to become vector code.
                for (sum, value) in sums.iter_mut().zip(&source[self.input..self.input + self.length]) {
                    *sum = sum.plus_product(factor, *value);
                }
            } else {
                for (sum, value) in sums.iter_mut().zip(inputs) {
                    *sum = sum.plus_product(factor, *value);
                }
            }
        } else {
            let sums = plane[self.output..].iter_mut().step_by(self.output_step);
            for (sum, value) in sums.zip(inputs).take(self.length) {
                *sum = sum.plus_product(factor, *value);
            }
        }
    }
}

impl Planes<'_> {
    /// Every pair of input and output positions, tap by tap: along an axis, position `i` of the coarse side (the output,
    /// or the input of the transpose) meets `i * stride + tap * dilation - pad` of the fine side.
    fn spans(&self) -> Vec<Span> {
        let a = self.attributes;
        let spatial = self.x.len() - 2;
        let (coarse, fine) = if a.transposed { (self.x, self.out) } else { (self.out, self.x) };
        let (coarse, fine) = (&coarse[2..], &fine[2..]);
        let (coarse_steps, fine_steps) = (strides(coarse), strides(fine));
        let last = spatial - 1;
        let mut spans: Vec<Span> = Vec::new();
        let taps = &self.w[2..];
        let tap_steps = strides(taps);
        for tap in Walk::new(taps, &tap_steps.iter().map(|step| *step as isize).collect::<Vec<_>>(), 0) {
            let coordinate = |axis: usize| (tap / tap_steps[axis]) % taps[axis];
            let shift = |axis: usize| (coordinate(axis) * a.dilations[axis]) as i64 - a.pads[axis];
            // Coarse positions on the last axis whose fine position is inside.
            let (stride, offset) = (a.strides[last] as i64, shift(last));
            let low = (-offset).max(0).div_euclid(stride) + i64::from((-offset).max(0) % stride != 0);
            let high = (fine[last] as i64 - offset + stride - 1).div_euclid(stride).min(coarse[last] as i64);
            if high <= low {
                continue;
            }
            let outer = &coarse[..last];
            let outer_steps: Vec<isize> = coarse_steps[..last].iter().map(|step| *step as isize).collect();
            for start in Walk::new(outer, &outer_steps, 0) {
                let mut fine_start = Some(0usize);
                for axis in 0..last {
                    let position = (start / coarse_steps[axis]) % coarse[axis];
                    let at = position as i64 * a.strides[axis] as i64 + shift(axis);
                    fine_start = match (usize::try_from(at), fine_start) {
                        (Ok(at), Some(sum)) if at < fine[axis] => Some(sum + at * fine_steps[axis]),
                        _ => None,
                    };
                }
                let Some(fine_start) = fine_start else { continue };
                let coarse_at = start + low as usize;
                let fine_at = fine_start + (low * stride + offset) as usize;
                let (length, stride) = ((high - low) as usize, a.strides[last]);
                let span = if a.transposed {
                    Span {
                        tap,
                        input: coarse_at,
                        output: fine_at,
                        length,
                        input_step: 1,
                        output_step: stride,
                    }
                } else {
                    Span {
                        tap,
                        input: fine_at,
                        output: coarse_at,
                        length,
                        input_step: stride,
                        output_step: 1,
                    }
                };
                join(&mut spans, span);
            }
        }
        spans
    }
}

/// Appends a span, or lengthens the one before where they are one dense run.
fn join(spans: &mut Vec<Span>, span: Span) {
    if let Some(before) = spans.last_mut()
        && before.tap == span.tap
        && (before.input_step, before.output_step) == (1, 1)
        && (span.input_step, span.output_step) == (1, 1)
        && before.input + before.length == span.input
        && before.output + before.length == span.output
    {
        before.length += span.length;
    } else {
        spans.push(span);
    }
}
