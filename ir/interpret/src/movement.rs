//! Operators that only move elements, and those that make them up from coordinates.

use tcc_ir::dtype::DType;
use tcc_ir::words::PadKind;

use crate::error::{Error, Result};
use crate::indexing::{Walk, count, pick, strides};
use crate::number;
use crate::tensor::{Contents, Tensor, map_contents, zip_contents};

/// Coordinates along `axis`.
pub(crate) fn iota(dtype: DType, shape: &[usize], axis: usize) -> Result<Tensor> {
    let mut steps = vec![0isize; shape.len()];
    steps[axis] = 1;
    let walk = Walk::new(shape, &steps, 0);
    let contents = match dtype {
        DType::String => return Err(Error::operands("iota makes numbers")),
        _ if dtype.is_float() => Contents::from_numbers(dtype, walk.map(|index| index as f64)),
        _ => Contents::Integer(walk.map(|index| number::wrap(dtype, index as i128)).collect()),
    };
    Tensor::new(dtype, shape, contents)
}

/// The elements of a strided view of `x`.
fn view(x: &Tensor, shape: &[usize], steps: &[isize], start: isize) -> Result<Tensor> {
    let walk = Walk::new(shape, steps, start);
    let contents = map_contents!(x.contents(), values => pick(values, walk));
    Tensor::new(x.dtype(), shape, contents)
}

/// Axis `i` of the result is axis `perm[i]` of the operand.
pub(crate) fn transpose(x: &Tensor, perm: &[usize]) -> Result<Tensor> {
    let own = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|axis| x.shape()[*axis]).collect();
    let steps: Vec<isize> = perm.iter().map(|axis| own[*axis] as isize).collect();
    view(x, &shape, &steps, 0)
}

/// NumPy-style broadcast.
pub(crate) fn broadcast(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let walk = Walk::broadcast(x.shape(), shape);
    let contents = map_contents!(x.contents(), values => pick(values, walk));
    Tensor::new(x.dtype(), shape, contents)
}

/// `sizes[i]` elements from `starts[i]` in steps of `steps[i]`.
pub(crate) fn slice(x: &Tensor, starts: &[i64], sizes: &[usize], steps: &[i64]) -> Result<Tensor> {
    let own = strides(x.shape());
    let mut start = 0;
    for (axis, &size) in sizes.iter().enumerate() {
        let extent = x.shape()[axis];
        if size == 0 {
            continue;
        }
        let last =
            (size as i64 - 1).checked_mul(steps[axis]).and_then(|reach| reach.checked_add(starts[axis]));
        for index in [Some(starts[axis]), last] {
            let index = index.unwrap_or(i64::MAX);
            if index < 0 || index >= extent as i64 {
                return Err(Error::Index { index, extent });
            }
        }
        start += starts[axis] as isize * own[axis] as isize;
    }
    // A step is taken only where there are two elements, and then it stays inside the axis.
    let steps: Vec<isize> = own
        .iter()
        .zip(steps)
        .zip(sizes)
        .map(|((own, step), size)| if *size > 1 { *own as isize * *step as isize } else { 0 })
        .collect();
    if count(sizes) == 0 {
        start = 0;
    }
    view(x, sizes, &steps, start)
}

/// Joins tensors along `axis`.
pub(crate) fn concat(operands: &[&Tensor], axis: usize, shape: &[usize]) -> Result<Tensor> {
    let outer = count(&shape[..axis]);
    let row = |tensor: &Tensor| count(&tensor.shape()[axis..]);
    let mut joined: Option<Contents> = None;
    // Row by row of the axes before `axis`, each operand gives a consecutive piece.
    for index in 0..outer {
        for operand in operands {
            let piece = index * row(operand)..(index + 1) * row(operand);
            let piece = map_contents!(operand.contents(), values => values[piece].to_vec());
            joined = Some(match joined {
                None => piece,
                Some(before) => zip_contents!(before, piece, (a, b) => {
                    let mut a = a;
                    a.extend(b);
                    a
                })?,
            });
        }
    }
    let none = || map_contents!(operands[0].contents(), values => values[..0].to_vec());
    Tensor::new(operands[0].dtype(), shape, joined.unwrap_or_else(none))
}

/// Elements around each axis; negative amounts crop.
pub(crate) fn pad(x: &Tensor, value: &Tensor, kind: PadKind, low: &[i64], shape: &[usize]) -> Result<Tensor> {
    let own = strides(x.shape());
    // For each axis, the offset that each coordinate reads; `None` for the padding value.
    let mut sources: Vec<Vec<Option<usize>>> = Vec::new();
    for (axis, &extent) in x.shape().iter().enumerate() {
        let source = |coordinate: usize| {
            let index = i128::from(coordinate as i64) - i128::from(low[axis]);
            source_index(kind, index, extent).map(|index| index * own[axis])
        };
        sources.push((0..shape[axis]).map(source).collect());
    }
    let mut offsets: Vec<Option<usize>> = vec![Some(0)];
    for axis in sources {
        let extend = |base: &Option<usize>| {
            let base = *base;
            axis.iter().map(move |offset| Some(base? + (*offset)?)).collect::<Vec<_>>()
        };
        offsets = offsets.iter().flat_map(extend).collect();
    }
    if kind != PadKind::Constant && offsets.contains(&None) {
        return Err(Error::operands("there is nothing to pad an empty axis with"));
    }
    let contents = zip_contents!(x.contents(), value.contents(), (values, value) => {
        pick_or(values, &offsets, &value[0])
    })?;
    Tensor::new(x.dtype(), shape, contents)
}

/// The elements at these offsets, `value` where there is none.
fn pick_or<T: Clone>(values: &[T], offsets: &[Option<usize>], value: &T) -> Vec<T> {
    offsets.iter().map(|offset| offset.map_or(value, |offset| &values[offset]).clone()).collect()
}

/// The element that stands at `index` of an axis continued beyond its ends.
pub(crate) fn source_index(kind: PadKind, index: i128, extent: usize) -> Option<usize> {
    let n = extent as i128;
    if (0..n).contains(&index) {
        return Some(index as usize);
    }
    if n == 0 {
        return None;
    }
    Some(match kind {
        PadKind::Constant => return None,
        PadKind::Edge => index.clamp(0, n - 1) as usize,
        PadKind::Wrap => index.rem_euclid(n) as usize,
        PadKind::Reflect if n == 1 => 0,
        PadKind::Reflect => {
            let period = 2 * (n - 1);
            let folded = index.rem_euclid(period);
            folded.min(period - folded) as usize
        }
    })
}
