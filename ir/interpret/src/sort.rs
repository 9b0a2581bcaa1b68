//! The largest or smallest elements along an axis.

use std::cmp::Ordering;

use tcc_ir::dtype::DType;

use crate::error::{Error, Result};
use crate::indexing::{around, pick};
use crate::number;
use crate::tensor::{Contents, Tensor, map_contents};

/// The `k` extreme elements in order with their positions; NaN counts as the largest number.
pub(crate) fn top_k(
    x: &Tensor,
    axis: usize,
    k: usize,
    largest: bool,
    shape: &[usize],
) -> Result<Vec<Tensor>> {
    let (outer, extent, inner) = around(x.shape(), axis);
    if k > extent {
        return Err(Error::operands(format!("the {k} extreme elements of {extent}")));
    }
    let compare: Box<dyn Fn(usize, usize) -> Ordering> = match x.contents() {
        Contents::Text(_) => return Err(Error::operands("text has no extreme elements")),
        Contents::Integer(values) => {
            let dtype = x.dtype();
            Box::new(move |a, b| number::widen(dtype, values[a]).cmp(&number::widen(dtype, values[b])))
        }
        Contents::F32(_) | Contents::F64(_) => {
            let values = x.to_numbers()?;
            Box::new(move |a, b| compare_floats(values[a], values[b]))
        }
    };
    let mut offsets = vec![0; outer * k * inner];
    let mut positions = vec![0; outer * k * inner];
    for row in 0..outer {
        for column in 0..inner {
            let at = |index: usize| (row * extent + index) * inner + column;
            let mut order: Vec<usize> = (0..extent).collect();
            // The sort is stable, so the lower index comes first among equals in both directions.
            order.sort_by(|a, b| {
                let ascending = compare(at(*a), at(*b));
                if largest { ascending.reverse() } else { ascending }
            });
            for (rank, index) in order.into_iter().take(k).enumerate() {
                let target = (row * k + rank) * inner + column;
                offsets[target] = at(index);
                positions[target] = index as i64;
            }
        }
    }
    let values = map_contents!(x.contents(), values => pick(values, offsets.into_iter()));
    Ok(vec![
        Tensor::new(x.dtype(), shape, values)?,
        Tensor::new(DType::I64, shape, Contents::Integer(positions))?,
    ])
}

fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
