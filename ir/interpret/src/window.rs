//! Sliding-window reductions.

use tcc_ir::dtype::DType;
use tcc_ir::words::{Layout, ReduceKind, WindowKind};

use crate::convolve::{check_moderate, to_channels_first, to_channels_last};
use crate::error::{Error, Result};
use crate::indexing::{Walk, count, strides};
use crate::movement::transpose;
use crate::number;
use crate::reduce::{float_combine, float_start};
use crate::tensor::{Contents, Tensor};

/// Size and placement of the windows.
pub(crate) struct Windows<'a> {
    /// Elements of a window an axis.
    pub size: &'a [usize],
    /// Distance of windows an axis.
    pub strides: &'a [usize],
    /// Distance of the elements of a window an axis.
    pub dilations: &'a [usize],
    /// Low, then high padding an axis.
    pub pads: &'a [i64],
    /// How many elements all windows of a plane may have together.
    pub limit: usize,
}

/// What one window covers.
struct Cover {
    /// Offsets of the elements inside the input plane.
    inside: Vec<usize>,
    /// Positions inside the input or its declared padding.
    padded: usize,
}

impl Windows<'_> {
    /// The windows of a plane, in row-major order of the output.
    fn covers(&self, input: &[usize], output: &[usize]) -> Result<Vec<Cover>> {
        check_moderate(&[self.size, self.strides, self.dilations], self.pads)?;
        let elements = [output, self.size].concat().iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        if elements.is_none_or(|elements| elements > self.limit) {
            let shape = [output, self.size].concat().iter().map(|extent| *extent as i64).collect();
            return Err(Error::TooLarge { shape, limit: self.limit });
        }
        let (own, out_steps, size_steps) = (strides(input), strides(output), strides(self.size));
        let walk = |shape: &[usize], steps: &[usize]| {
            Walk::new(shape, &steps.iter().map(|step| *step as isize).collect::<Vec<_>>(), 0)
        };
        let cover = |position: usize| {
            let mut cover = Cover { inside: Vec::new(), padded: 0 };
            for element in walk(self.size, &size_steps) {
                let (mut offset, mut inside, mut padded) = (0, true, true);
                for axis in 0..input.len() {
                    let window = (position / out_steps[axis]) % output[axis];
                    let tap = (element / size_steps[axis]) % self.size[axis];
                    let start = (window * self.strides[axis]) as i64 - self.pads[axis];
                    let at = start + (tap * self.dilations[axis]) as i64;
                    let extent = input[axis] as i64;
                    padded &= at < extent + self.pads[axis + input.len()];
                    inside &= (0..extent).contains(&at);
                    if inside {
                        offset += at as usize * own[axis];
                    }
                }
                cover.padded += usize::from(padded);
                if inside {
                    cover.inside.push(offset);
                }
            }
            cover
        };
        Ok(walk(output, &out_steps).map(cover).collect())
    }
}

/// The reduction of each window.
pub(crate) fn window(
    kind: WindowKind,
    layout: Layout,
    windows: &Windows,
    x: &Tensor,
    shape: &[usize],
) -> Result<Tensor> {
    if layout == Layout::ChannelsLast {
        let to_first = to_channels_first(shape.len());
        let first_shape: Vec<usize> = to_first.iter().map(|axis| shape[*axis]).collect();
        let first = window(kind, Layout::ChannelsFirst, windows, &transpose(x, &to_first)?, &first_shape)?;
        return transpose(&first, &to_channels_last(shape.len()));
    }
    let covers = windows.covers(&x.shape()[2..], &shape[2..])?;
    let (planes, size) = (shape[0] * shape[1], count(&x.shape()[2..]));
    let dtype = x.dtype();
    let reduction = if kind == WindowKind::Max { ReduceKind::Max } else { ReduceKind::Sum };
    let each = (0..planes).flat_map(|plane| covers.iter().map(move |cover| (plane * size, cover)));
    let contents = match x.contents() {
        Contents::Integer(values) if matches!(kind, WindowKind::Max | WindowKind::Sum) => {
            let wide = |offset: usize| number::widen(dtype, values[offset]);
            let smallest = dtype.integer_range().map_or(0, |(low, _)| low);
            let reduce = |(base, cover): (usize, &Cover)| {
                let elements = cover.inside.iter().map(|offset| wide(base + offset));
                let result = match kind {
                    WindowKind::Max => elements.max().unwrap_or(smallest),
                    _ => elements.sum(),
                };
                number::wrap(dtype, result)
            };
            Contents::Integer(each.map(reduce).collect())
        }
        _ => {
            let values = x.to_numbers()?;
            let reduce = |(base, cover): (usize, &Cover)| {
                let combine = |sum: f64, offset: &usize| float_combine(reduction, sum, values[base + offset]);
                let sum = cover.inside.iter().fold(float_start(reduction), combine);
                match kind {
                    WindowKind::Max | WindowKind::Sum => sum,
                    WindowKind::MeanValid => sum / cover.inside.len() as f64,
                    WindowKind::MeanPadded => sum / cover.padded as f64,
                }
            };
            Contents::from_numbers(dtype, each.map(reduce))
        }
    };
    Tensor::new(dtype, shape, contents)
}

/// The largest element of each window, and its flat index in all of `x`; -1 for a window without elements.
pub(crate) fn window_arg_max(
    windows: &Windows,
    row_major: bool,
    x: &Tensor,
    shape: &[usize],
) -> Result<Vec<Tensor>> {
    let input = &x.shape()[2..];
    let covers = windows.covers(input, &shape[2..])?;
    let size = count(input);
    let own = strides(input);
    // Column-major order counts the first spatial axis fastest.
    let column_major = |offset: usize| {
        let mut step = 1;
        let mut index = 0;
        for axis in 0..input.len() {
            index += (offset / own[axis]) % input[axis] * step;
            step *= input[axis];
        }
        index
    };
    let numbers = match x.contents() {
        Contents::Text(_) => return Err(Error::operands("text has no largest element")),
        _ => x.to_numbers()?,
    };
    let (mut largest, mut indices) = (Vec::new(), Vec::new());
    for plane in 0..shape[0] * shape[1] {
        for cover in &covers {
            let at = |offset: usize| numbers[plane * size + offset];
            let beats = |a: f64, b: f64| a > b || a.is_nan() && !b.is_nan();
            let best = cover
                .inside
                .iter()
                .copied()
                .reduce(|best, next| if beats(at(next), at(best)) { next } else { best });
            largest.push(best.map_or(f64::NEG_INFINITY, at));
            indices.push(best.map_or(-1, |best| {
                (plane * size + if row_major { best } else { column_major(best) }) as i64
            }));
        }
    }
    Ok(vec![
        Tensor::from_numbers(x.dtype(), shape, &largest)?,
        Tensor::new(DType::I64, shape, Contents::Integer(indices))?,
    ])
}
