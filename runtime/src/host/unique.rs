//! ONNX `Unique`: the different elements, or with `axis` the different slices along it.
//!
//! Outputs: the unique ones, then (each optional from the end, all `i64`) the position of the first occurrence of
//! each, for every element or slice which unique one it is, and how often each occurs. `sorted = 1` orders them, slices
//! lexicographically; `sorted = 0` keeps the order of first occurrence. All NaNs count as one.

use super::numeric::{Lanes, Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Shape;
use std::cmp::Ordering;

type Run = fn(&Unique, &mut HostCall<'_>) -> Result<()>;

struct Unique {
    axis: Option<usize>,
    sorted: bool,
    run: Run,
}

pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=4, &["axis", "sorted"])?;
    let input = signature.input(0)?;
    let axis = if signature.has("axis") { Some(signature.axis("axis", 0, input.rank)?) } else { None };
    signature.expect_output(0, input.dtype, Some(if axis.is_some() { input.rank } else { 1 }))?;
    for output in 1..4 {
        signature.expect_output(output, DType::I64, Some(1))?;
    }
    let (sorted, run) = (signature.flag("sorted", true)?, for_dtype!(input.dtype, run as Run)?);
    Ok(Box::new(Unique { axis, sorted, run }))
}

impl HostFunction for Unique {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}

fn run<T: Numeric>(unique: &Unique, call: &mut HostCall<'_>) -> Result<()> {
    let input = call.input(0)?;
    let elements = call.elements::<T>(&input)?;
    let (lanes, mut shape) = match unique.axis {
        Some(axis) => (Lanes::new(input.shape(), axis), Shape::new(input.shape()).unwrap_or(Shape::SCALAR)),
        None => {
            let length = elements.len();
            (Lanes { outer: 1, length, inner: 1 }, Shape::new(&[length]).unwrap_or(Shape::SCALAR))
        }
    };
    let compare = |a: usize, b: usize| {
        for outer in 0..lanes.outer {
            for inner in 0..lanes.inner {
                match elements[lanes.at(outer, a, inner)].order(elements[lanes.at(outer, b, inner)]) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
        }
        Ordering::Equal
    };
    let mut order = std::mem::take(&mut call.scratch().indices);
    let mut first = std::mem::take(&mut call.scratch().selected);
    order.clear();
    order.extend(0..lanes.length);
    // Equal ones stand together, the first occurrence in front.
    order.sort_unstable_by(|&a, &b| compare(a, b).then(a.cmp(&b)));
    first.clear();
    for (rank, &item) in order.iter().enumerate() {
        if rank == 0 || compare(order[rank - 1], item) != Ordering::Equal {
            first.push(item);
        }
    }
    if !unique.sorted {
        first.sort_unstable();
    }

    shape[unique.axis.unwrap_or(0)] = first.len();
    let values = call.output::<T>(0, &shape)?;
    let kept = Lanes { length: first.len(), ..lanes };
    for (position, &from) in first.iter().enumerate() {
        for outer in 0..lanes.outer {
            let (to, from) = (kept.at(outer, position, 0), lanes.at(outer, from, 0));
            values[to..to + lanes.inner].copy_from_slice(&elements[from..from + lanes.inner]);
        }
    }
    if call.has_output(1) {
        let indices = call.output::<i64>(1, &[first.len()])?;
        indices.iter_mut().zip(&first).for_each(|(index, &item)| *index = item as i64);
    }
    if call.has_output(2) {
        let inverse = call.output::<i64>(2, &[lanes.length])?;
        let mut counts = match call.has_output(3) {
            true => Some(call.output::<i64>(3, &[first.len()])?),
            false => None,
        };
        if let Some(counts) = &mut counts {
            counts.fill(0);
        }
        let mut group = 0;
        let mut position = 0;
        for (rank, &item) in order.iter().enumerate() {
            if rank == 0 || compare(order[rank - 1], item) != Ordering::Equal {
                // The front of a group is a first occurrence; in the order of occurrence it must be looked up.
                position = match unique.sorted {
                    true => group,
                    false => first.partition_point(|&other| other < item),
                };
                group += 1;
            }
            inverse[item] = position as i64;
            if let Some(counts) = &mut counts {
                counts[position] += 1;
            }
        }
    }
    call.scratch().indices = order;
    call.scratch().selected = first;
    Ok(())
}
