//! Shapes of convolutions and sliding windows.

use super::{Matcher, Result, fail};
use crate::dim::Dim;
use crate::types::TensorType;
use crate::words::Layout;

/// Output extent of a window of `size` over `input` elements with padding, and rounding up where `ceil`.
pub fn window_extent(
    input: &Dim,
    size: &Dim,
    stride: usize,
    dilation: usize,
    low: i64,
    high: i64,
    ceil: bool,
) -> Dim {
    let reach = (size.clone() - Dim::Const(1)) * Dim::from(dilation) + Dim::Const(1);
    let room = input.clone() + Dim::Const(low.saturating_add(high)) - reach;
    let stride = Dim::from(stride);
    if ceil {
        // A window that would start in the high padding does not count.
        let rounded = room.ceil_div(&stride) + Dim::Const(1);
        rounded.minimum(&(input.clone() + Dim::Const(low)).ceil_div(&stride))
    } else {
        room.floor_div(&stride) + Dim::Const(1)
    }
}

fn check_parameters(spatial: usize, strides: &[usize], dilations: &[usize], pads: &[i64]) -> Result<()> {
    if strides.len() != spatial || dilations.len() != spatial || pads.len() != 2 * spatial {
        return fail(format!(
            "{spatial} spatial dimensions take as many strides and dilations and twice as many pads, got {strides:?}, \
             {dilations:?}, {pads:?}"
        ));
    }
    if strides.contains(&0) || dilations.contains(&0) {
        return fail("strides and dilations are positive");
    }
    Ok(())
}

/// Batch, channels and spatial extents of an operand.
fn split(ty: &TensorType, layout: Layout) -> Result<(Dim, Dim, Vec<Dim>)> {
    let rank = ty.rank();
    if rank < 3 {
        return fail(format!("expected batch, channels and spatial dimensions, got {ty}"));
    }
    Ok(match layout {
        Layout::ChannelsFirst => (ty.shape[0].clone(), ty.shape[1].clone(), ty.shape[2..].to_vec()),
        Layout::ChannelsLast => {
            (ty.shape[0].clone(), ty.shape[rank - 1].clone(), ty.shape[1..rank - 1].to_vec())
        }
    })
}

fn join(batch: Dim, channels: Dim, spatial: Vec<Dim>, layout: Layout) -> Vec<Dim> {
    match layout {
        Layout::ChannelsFirst => [vec![batch, channels], spatial].concat(),
        Layout::ChannelsLast => [vec![batch], spatial, vec![channels]].concat(),
    }
}

/// The two channel axes of a filter, outer one first in channels-first order, and its spatial extents.
fn split_filter(ty: &TensorType, layout: Layout) -> (Dim, Dim, Vec<Dim>) {
    let rank = ty.rank();
    match layout {
        Layout::ChannelsFirst => (ty.shape[0].clone(), ty.shape[1].clone(), ty.shape[2..].to_vec()),
        Layout::ChannelsLast => {
            (ty.shape[rank - 1].clone(), ty.shape[rank - 2].clone(), ty.shape[..rank - 2].to_vec())
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the attributes of a convolution")]
pub(super) fn convolve(
    matcher: &mut Matcher,
    x: &TensorType,
    w: &TensorType,
    layout: Layout,
    groups: usize,
    strides: &[usize],
    dilations: &[usize],
    pads: &[i64],
) -> Result<Vec<Dim>> {
    let (batch, channels, input) = split(x, layout)?;
    if w.rank() != x.rank() {
        return fail(format!("filter {w} does not fit {x}"));
    }
    check_parameters(input.len(), strides, dilations, pads)?;
    let (out, per_group, size) = split_filter(w, layout);
    if groups == 0 || out.modulo(&Dim::from(groups)).as_const().unwrap_or(0) != 0 {
        return fail(format!("{out} output channels do not divide into {groups} groups"));
    }
    matcher.same(&channels, &(per_group * Dim::from(groups)), "input channels")?;
    let extent = |axis: usize| {
        let (low, high) = (pads[axis], pads[axis + input.len()]);
        window_extent(&input[axis], &size[axis], strides[axis], dilations[axis], low, high, false)
    };
    let output: Vec<Dim> = (0..input.len()).map(extent).collect();
    if output.iter().any(|dim| dim.as_const().is_some_and(|dim| dim < 0)) {
        return fail(format!("the filter {w} is larger than the padded input {x}"));
    }
    Ok(join(batch, out, output, layout))
}

#[allow(clippy::too_many_arguments, reason = "the attributes of a convolution")]
pub(super) fn convolve_transpose(
    matcher: &mut Matcher,
    x: &TensorType,
    w: &TensorType,
    layout: Layout,
    groups: usize,
    strides: &[usize],
    dilations: &[usize],
    pads: &[i64],
    output_pads: &[usize],
) -> Result<Vec<Dim>> {
    let (batch, channels, input) = split(x, layout)?;
    if w.rank() != x.rank() || output_pads.len() != input.len() || groups == 0 {
        return fail(format!("filter {w} does not fit {x}"));
    }
    check_parameters(input.len(), strides, dilations, pads)?;
    if channels.modulo(&Dim::from(groups)).as_const().unwrap_or(0) != 0 {
        return fail(format!("{channels} input channels do not divide into {groups} groups"));
    }
    // Of a transposed filter the input channels stand where a filter has its output channels.
    let (in_channels, per_group, size) = split_filter(w, layout);
    matcher.same(&channels, &in_channels, "input channels")?;
    let extent = |axis: usize| {
        let reach = (size[axis].clone() - Dim::Const(1)) * Dim::from(dilations[axis]) + Dim::Const(1);
        (input[axis].clone() - Dim::Const(1)) * Dim::from(strides[axis])
            + reach
            + Dim::from(output_pads[axis])
            - Dim::Const(pads[axis].saturating_add(pads[axis + input.len()]))
    };
    let output: Vec<Dim> = (0..input.len()).map(extent).collect();
    if output.iter().any(|dim| dim.as_const().is_some_and(|dim| dim < 0)) {
        return fail(format!("the padding of the transposed convolution of {x} by {w} leaves nothing"));
    }
    Ok(join(batch, per_group * Dim::from(groups), output, layout))
}

pub(super) fn window(
    x: &TensorType,
    layout: Layout,
    size: &[usize],
    strides: &[usize],
    dilations: &[usize],
    pads: &[i64],
    ceil: bool,
) -> Result<Vec<Dim>> {
    let (batch, channels, input) = split(x, layout)?;
    if size.len() != input.len() || size.contains(&0) {
        return fail(format!("a window over {x} takes a positive size for each spatial dimension"));
    }
    check_parameters(input.len(), strides, dilations, pads)?;
    let extent = |axis: usize| {
        let (low, high) = (pads[axis], pads[axis + input.len()]);
        window_extent(&input[axis], &Dim::from(size[axis]), strides[axis], dilations[axis], low, high, ceil)
    };
    let output: Vec<Dim> = (0..input.len()).map(extent).collect();
    if output.iter().any(|dim| dim.as_const().is_some_and(|dim| dim < 0)) {
        return fail(format!("the window {size:?} is larger than the padded input {x}"));
    }
    Ok(join(batch, channels, output, layout))
}
