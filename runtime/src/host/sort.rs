//! Sorting along an axis: ONNX `TopK`, and `sort` and `argsort` for whole axes.
//!
//! Of equal elements the one with the lower index comes first, in both directions. NaN counts as the largest value.
//! `sorted = 0` leaves the order open, and is sorted, too.

use super::numeric::{Lanes, Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Shape;

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Results {
    Values,
    Indices,
    Both,
}

/// How many elements of the axis are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// The number in input 1.
    Counted,
    /// What the shape of the output says.
    Declared,
}

type Run = fn(&Sort, &mut HostCall<'_>) -> Result<()>;

struct Sort {
    axis: usize,
    largest_first: bool,
    results: Results,
    keep: Keep,
    run: Run,
}

/// Inputs X, K (`i64`, one element; without it the output's shape says how many); outputs values, indices (`i64`).
/// Attributes `axis` = -1, `largest` = 1, `sorted`.
pub(super) fn build_top_k(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=2, 2..=2, &["axis", "largest", "sorted"])?;
    signature.expect_input(1, DType::I64)?;
    signature.flag("sorted", true)?;
    let keep = if signature.inputs.len() > 1 { Keep::Counted } else { Keep::Declared };
    build(signature, "largest", true, Results::Both, keep)
}

/// Output values. Attributes `axis` = -1, `descending` = 0.
pub(super) fn build_sort(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &["axis", "descending"])?;
    build(signature, "descending", false, Results::Values, Keep::All)
}

/// Output indices (`i64`). Attributes as for sort.
pub(super) fn build_argsort(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &["axis", "descending"])?;
    build(signature, "descending", false, Results::Indices, Keep::All)
}

fn build(
    signature: &Signature<'_>,
    flag: &str,
    default: bool,
    results: Results,
    keep: Keep,
) -> Result<Box<dyn HostFunction>, String> {
    let input = signature.input(0)?;
    if results != Results::Indices {
        signature.expect_output(0, input.dtype, Some(input.rank))?;
    }
    match results {
        Results::Values => {}
        Results::Indices => signature.expect_output(0, DType::I64, Some(input.rank))?,
        Results::Both => signature.expect_output(1, DType::I64, Some(input.rank))?,
    }
    Ok(Box::new(Sort {
        axis: signature.axis("axis", -1, input.rank)?,
        largest_first: signature.flag(flag, default)?,
        results,
        keep,
        run: for_dtype!(input.dtype, run as Run)?,
    }))
}

impl HostFunction for Sort {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}

fn run<T: Numeric>(sort: &Sort, call: &mut HostCall<'_>) -> Result<()> {
    let input = call.input(0)?;
    let elements = call.elements::<T>(&input)?;
    let lanes = Lanes::new(input.shape(), sort.axis);
    let count = match sort.keep {
        Keep::All => lanes.length as i64,
        Keep::Counted => call.integer_input(1, 0)?,
        Keep::Declared => call.declared_shape(0)?[sort.axis] as i64,
    };
    let keep = match usize::try_from(count) {
        Ok(count) if count <= lanes.length => count,
        _ => return Err(call.fail(format!("K is {count}, the axis has {} elements", lanes.length))),
    };
    let mut shape = Shape::new(input.shape()).unwrap_or(Shape::SCALAR);
    shape[sort.axis] = keep;
    let mut values = match sort.results {
        Results::Indices => None,
        _ => Some(call.output::<T>(0, &shape)?),
    };
    let mut indices = match sort.results {
        Results::Values => None,
        Results::Indices => Some(call.output::<i64>(0, &shape)?),
        Results::Both => Some(call.output::<i64>(1, &shape)?),
    };
    let kept = Lanes { length: keep, ..lanes };
    let mut order = std::mem::take(&mut call.scratch().indices);
    for outer in 0..lanes.outer {
        for inner in 0..lanes.inner {
            let element = |position: usize| elements[lanes.at(outer, position, inner)];
            let compare = |a: &usize, b: &usize| {
                let by_value = element(*a).order(element(*b));
                let by_value = if sort.largest_first { by_value.reverse() } else { by_value };
                by_value.then(a.cmp(b))
            };
            order.clear();
            order.extend(0..lanes.length);
            if keep > 0 && keep < lanes.length {
                order.select_nth_unstable_by(keep - 1, compare);
            }
            order.truncate(keep);
            order.sort_unstable_by(compare);
            for (position, &from) in order.iter().enumerate() {
                let to = kept.at(outer, position, inner);
                if let Some(values) = &mut values {
                    values[to] = element(from);
                }
                if let Some(indices) = &mut indices {
                    indices[to] = from as i64;
                }
            }
        }
    }
    call.scratch().indices = order;
    Ok(())
}
