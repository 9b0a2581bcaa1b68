//! ONNX `DeformConv` over images: a convolution whose taps are moved by offsets that come with the data and scaled by a
//! mask. Points between pixels are interpolated bilinearly, those outside of the image are zero (Dai et al., Deformable
//! Convolutional Networks, 2017).

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::error::Result;
use crate::tensor::TensorRef;

type Run = fn(&Convolution, &mut HostCall<'_>) -> Result<()>;

struct Convolution {
    strides: [f64; 2],
    dilations: [f64; 2],
    /// Before the first row and column.
    pads: [f64; 2],
    groups: usize,
    offset_groups: usize,
    /// Positions of bias and mask among the inputs, which leave out what is absent.
    bias: Option<usize>,
    mask: Option<usize>,
    run: Run,
}

/// Inputs `X [batch, channels, height, width]`, `W`, `offset`, and if present `B` and `mask`.
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    let known = ["dilations", "group", "kernel_shape", "offset_group", "pads", "strides"];
    signature.expect(3..=5, 1..=1, &known)?;
    let input = signature.input(0)?;
    if input.rank != 4 {
        return Err(format!("the input has rank {}; images have 4", input.rank));
    }
    for index in 1..signature.inputs.len() {
        signature.expect_input(index, input.dtype)?;
    }
    signature.expect_output(0, input.dtype, Some(4))?;
    let list = |name: &str, default: f64| -> Result<[f64; 2], String> {
        if !signature.has(name) {
            return Ok([default; 2]);
        }
        match signature.integers(name)?[..] {
            [a, b] | [a, b, _, _] => Ok([a as f64, b as f64]),
            ref other => Err(format!("attribute `{name}` is {other:?}")),
        }
    };
    let groups = |name: &str| {
        let count = signature.integer(name, 1)?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| format!("attribute `{name}` is {count}"))
    };
    let absent = if signature.has("absent") { signature.integers("absent")? } else { Vec::new() };
    let count = signature.inputs.len();
    let bias = (!absent.contains(&3) && count > 3).then_some(3);
    let mask = Some(3 + usize::from(bias.is_some())).filter(|index| *index < count);
    Ok(Box::new(Convolution {
        strides: list("strides", 1.0)?,
        dilations: list("dilations", 1.0)?,
        pads: list("pads", 0.0)?,
        groups: groups("group")?,
        offset_groups: groups("offset_group")?,
        bias,
        mask,
        run: for_dtype!(input.dtype, run as Run)?,
    }))
}

/// The four dimensions of an input.
fn extents(call: &HostCall<'_>, tensor: &TensorRef<'_>) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(tensor.shape()).map_err(|_| call.fail("an operand has not four dimensions"))
}

/// The value of a plane of `height` by `width` pixels at a point.
fn sample(plane: impl Fn(usize) -> f64, [height, width]: [usize; 2], [y, x]: [f64; 2]) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let mut sum = 0.0;
    for (row, vertical) in [(top, 1.0 - (y - top)), (top + 1.0, y - top)] {
        for (column, horizontal) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
            let weight = vertical * horizontal;
            let inside = (0.0..height as f64).contains(&row) && (0.0..width as f64).contains(&column);
            if inside && weight != 0.0 {
                sum += weight * plane(row as usize * width + column as usize);
            }
        }
    }
    sum
}

fn run<T: Numeric>(this: &Convolution, call: &mut HostCall<'_>) -> Result<()> {
    let (x, w, offset) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let [batch, channels, height, width] = extents(call, &x)?;
    let [filters, per_group, tap_rows, tap_columns] = extents(call, &w)?;
    let [moved, moves, rows, columns] = extents(call, &offset)?;
    let (taps, places) = (tap_rows * tap_columns, rows * columns);
    let bias = this.bias.map(|index| call.input(index)).transpose()?;
    let mask = this.mask.map(|index| call.input(index)).transpose()?;
    let fits = per_group * this.groups == channels
        && filters.is_multiple_of(this.groups)
        && channels.is_multiple_of(this.offset_groups)
        && (moved, moves) == (batch, 2 * this.offset_groups * taps)
        && bias.is_none_or(|bias| bias.shape() == [filters])
        && mask.is_none_or(|mask| mask.shape() == [batch, this.offset_groups * taps, rows, columns]);
    if !fits {
        return Err(call.fail("the operands do not fit each other"));
    }
    let (values, weights) = (call.elements::<T>(&x)?, call.elements::<T>(&w)?);
    let offsets = call.elements::<T>(&offset)?;
    let bias = bias.map(|bias| call.elements::<T>(&bias)).transpose()?;
    let mask = mask.map(|mask| call.elements::<T>(&mask)).transpose()?;
    let results = call.output::<T>(0, &[batch, filters, rows, columns])?;
    for (index, result) in results.iter_mut().enumerate() {
        let (place, filter, image) = (index % places, index / places % filters, index / places / filters);
        let corner = [
            (place / columns) as f64 * this.strides[0] - this.pads[0],
            (place % columns) as f64 * this.strides[1] - this.pads[1],
        ];
        let mut sum = bias.map_or(0.0, |bias| bias[filter].to_f64());
        for inner in 0..per_group {
            let source = filter / (filters / this.groups) * per_group + inner;
            let plane = (image * channels + source) * height * width;
            let offset_group = source / (channels / this.offset_groups);
            for tap in 0..taps {
                let entry = (image * this.offset_groups + offset_group) * taps + tap;
                let shift = |axis: usize| offsets[(2 * entry + axis) * places + place].to_f64();
                let point = [
                    corner[0] + (tap / tap_columns) as f64 * this.dilations[0] + shift(0),
                    corner[1] + (tap % tap_columns) as f64 * this.dilations[1] + shift(1),
                ];
                let scale = mask.map_or(1.0, |mask| mask[entry * places + place].to_f64());
                let weight = weights[(filter * per_group + inner) * taps + tap].to_f64();
                sum += weight * scale * sample(|at| values[plane + at].to_f64(), [height, width], point);
            }
        }
        *result = T::from_f64(sum);
    }
    Ok(())
}

impl HostFunction for Convolution {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}
