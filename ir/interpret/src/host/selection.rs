//! Functions whose number of results depends on values, and the determinant.

use std::cmp::Ordering;

use tcc_ir::dtype::DType;

use super::call::Call;
use crate::error::Result;
use crate::gather::gather;
use crate::indexing::{count, strides};
use crate::number;
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

/// A one-dimensional `i64` tensor.
fn vector(values: Vec<i64>) -> Result<Value> {
    Ok(Value::Tensor(Tensor::new(DType::I64, &[values.len()], Contents::Integer(values))?))
}

/// ONNX NonZero: coordinates of the elements that are not zero, `[rank, count]`, in row-major order.
pub(super) fn nonzero(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let found: Vec<usize> = match x.contents() {
        Contents::Integer(values) => (0..values.len()).filter(|offset| values[*offset] != 0).collect(),
        Contents::Text(_) => return call.fail("text is neither zero nor not"),
        _ => {
            let values = x.to_numbers()?;
            (0..values.len()).filter(|offset| values[*offset] != 0.0).collect()
        }
    };
    let own = strides(x.shape());
    let coordinates = |axis: usize| {
        let (step, extent) = (own[axis], x.shape()[axis]);
        found.iter().map(move |offset| (offset / step % extent) as i64)
    };
    let all = (0..x.shape().len()).flat_map(coordinates).collect();
    let shape = [x.shape().len(), found.len()];
    Ok(vec![Value::Tensor(Tensor::new(DType::I64, &shape, Contents::Integer(all))?)])
}

/// ONNX Compress: the slices along an axis (elements where there is none) whose condition holds.
pub(super) fn compress(call: &Call) -> Result<Vec<Value>> {
    let (mut x, condition) = (call.tensor(0)?.clone(), call.tensor(1)?.integers()?);
    let axis = match call.optional_integer("axis")? {
        Some(axis) => call.axis(axis, x.shape().len())?,
        None => {
            x = x.reshaped(&[count(x.shape())])?;
            0
        }
    };
    // A short condition leaves out the rest.
    let kept = (0i64..).zip(condition).filter(|(_, condition)| **condition != 0).map(|(index, _)| index);
    let kept: Vec<i64> = kept.collect();
    let mut shape = x.shape().to_vec();
    shape[axis] = kept.len();
    let at = Tensor::from_integers(DType::I64, &[kept.len()], &kept)?;
    Ok(vec![Value::Tensor(gather(&x, &at, axis, &shape)?)])
}

/// The order of two elements; NaN is equal to itself and above every number.
fn compare(x: &Tensor, a: usize, b: usize) -> Ordering {
    fn floats(a: f64, b: f64) -> Ordering {
        a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }
    match x.contents() {
        Contents::F32(values) => floats(values[a].into(), values[b].into()),
        Contents::F64(values) => floats(values[a], values[b]),
        Contents::Integer(values) => {
            number::widen(x.dtype(), values[a]).cmp(&number::widen(x.dtype(), values[b]))
        }
        Contents::Text(values) => values[a].cmp(&values[b]),
    }
}

/// ONNX Unique: the different slices along an axis (elements where there is none), where each occurs first, which one
/// each slice is, and how often each occurs.
pub(super) fn unique(call: &Call) -> Result<Vec<Value>> {
    let mut x = call.tensor(0)?.clone();
    let axis = match call.optional_integer("axis")? {
        Some(axis) => call.axis(axis, x.shape().len())?,
        None => {
            x = x.reshaped(&[count(x.shape())])?;
            0
        }
    };
    let (outer, extent, inner) = crate::indexing::around(x.shape(), axis);
    let order = |a: usize, b: usize| {
        let offsets = (0..outer).flat_map(|row| (0..inner).map(move |column| (row, column)));
        offsets
            .map(|(row, column)| {
                let at = |index: usize| (row * extent + index) * inner + column;
                compare(&x, at(a), at(b))
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    // Equal slices stand next to each other, the first occurrence first.
    let mut sorted: Vec<usize> = (0..extent).collect();
    sorted.sort_by(|a, b| order(*a, *b));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in sorted {
        match groups.last_mut() {
            Some(group) if order(group[0], index).is_eq() => group.push(index),
            _ => groups.push(vec![index]),
        }
    }
    if call.integer("sorted", 1)? == 0 {
        groups.sort_by_key(|group| group[0]);
    }
    let first: Vec<i64> = groups.iter().map(|group| group[0] as i64).collect();
    let mut inverse = vec![0; extent];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|index| inverse[*index] = number as i64);
    }
    let counts = groups.iter().map(|group| group.len() as i64).collect();
    let mut shape = x.shape().to_vec();
    shape[axis] = groups.len();
    let at = Tensor::from_integers(DType::I64, &[first.len()], &first)?;
    Ok(vec![Value::Tensor(gather(&x, &at, axis, &shape)?), vector(first)?, vector(inverse)?, vector(counts)?])
}

/// Corners of a box, low before high.
struct Corners {
    low: [f64; 2],
    high: [f64; 2],
}

impl Corners {
    fn new(numbers: &[f64], center: bool) -> Corners {
        if center {
            let (x, y, width, height) = (numbers[0], numbers[1], numbers[2], numbers[3]);
            return Corners {
                low: [y - height / 2.0, x - width / 2.0],
                high: [y + height / 2.0, x + width / 2.0],
            };
        }
        let (y1, x1, y2, x2) = (numbers[0], numbers[1], numbers[2], numbers[3]);
        Corners { low: [y1.min(y2), x1.min(x2)], high: [y1.max(y2), x1.max(x2)] }
    }

    fn area(&self) -> f64 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Intersection over union; 0 where a box has no area.
    fn overlap(&self, other: &Corners) -> f64 {
        let side = |axis: usize| {
            (self.high[axis].min(other.high[axis]) - self.low[axis].max(other.low[axis])).max(0.0)
        };
        let intersection = side(0) * side(1);
        let union = self.area() + other.area() - intersection;
        if self.area() <= 0.0 || other.area() <= 0.0 || union <= 0.0 { 0.0 } else { intersection / union }
    }
}

/// ONNX NonMaxSuppression: `[count, 3]` of batch, class and box, for each class the best boxes that do not overlap.
pub(super) fn non_max_suppression(call: &Call) -> Result<Vec<Value>> {
    let (boxes, scores) = (call.tensor(0)?, call.tensor(1)?);
    let scalar = |index: usize| -> Result<Option<f64>> {
        let Some(tensor) = call.optional_tensor(index)? else { return Ok(None) };
        Ok(tensor.to_numbers()?.first().copied())
    };
    let most = scalar(2)?.unwrap_or(0.0).max(0.0) as usize;
    let (overlap_limit, score_limit) = (scalar(3)?.unwrap_or(0.0), scalar(4)?);
    let ([batches, count, 4], [score_batches, classes, score_count]) = (boxes.shape(), scores.shape()) else {
        return call.fail("boxes are [batch, count, 4] and scores [batch, classes, count]");
    };
    if batches != score_batches || count != score_count {
        return call.fail("boxes and scores differ in shape");
    }
    let center = call.integer("center_point_box", 0)? != 0;
    let (boxes, scores) = (boxes.to_numbers()?, scores.to_numbers()?);
    let boxes: Vec<Corners> = boxes.chunks_exact(4).map(|numbers| Corners::new(numbers, center)).collect();
    let mut selected = Vec::new();
    for batch in 0..*batches {
        for class in 0..*classes {
            let score = |index: usize| scores[(batch * classes + class) * count + index];
            let mut candidates: Vec<usize> =
                (0..*count).filter(|index| score_limit.is_none_or(|limit| score(*index) > limit)).collect();
            candidates.sort_by(|a, b| score(*b).partial_cmp(&score(*a)).unwrap_or(Ordering::Equal));
            let mut kept: Vec<usize> = Vec::new();
            for index in candidates {
                if kept.len() == most {
                    break;
                }
                let corners = |index: usize| &boxes[batch * count + index];
                if kept.iter().all(|other| corners(index).overlap(corners(*other)) <= overlap_limit) {
                    kept.push(index);
                }
            }
            selected
                .extend(kept.into_iter().flat_map(|index| [batch, class, index]).map(|index| index as i64));
        }
    }
    let shape = [selected.len() / 3, 3];
    Ok(vec![Value::Tensor(Tensor::new(DType::I64, &shape, Contents::Integer(selected))?)])
}

/// ONNX Det, by elimination with partial pivoting in `f64`.
pub(super) fn determinant(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let [batch @ .., rows, columns] = x.shape() else { return call.fail("the operand is no matrix") };
    if rows != columns {
        return call.fail(format!("the matrix is {rows} by {columns}"));
    }
    let n = *rows;
    let values = x.to_numbers()?;
    let matrices = (0..count(batch)).map(|index| values[index * n * n..(index + 1) * n * n].to_vec());
    let results = Contents::from_numbers(x.dtype(), matrices.map(|matrix| eliminate(matrix, n)));
    Ok(vec![Value::Tensor(Tensor::new(x.dtype(), batch, results)?)])
}

fn eliminate(mut matrix: Vec<f64>, n: usize) -> f64 {
    let mut determinant = 1.0;
    for column in 0..n {
        let size = |row: &usize| matrix[row * n + column].abs();
        let Some(pivot) = (column..n).max_by(|a, b| size(a).total_cmp(&size(b))) else { continue };
        if pivot != column {
            (0..n).for_each(|other| matrix.swap(pivot * n + other, column * n + other));
            determinant = -determinant;
        }
        let diagonal = matrix[column * n + column];
        determinant *= diagonal;
        if diagonal == 0.0 {
            return 0.0;
        }
        for row in column + 1..n {
            let factor = matrix[row * n + column] / diagonal;
            for other in column..n {
                matrix[row * n + other] -= factor * matrix[column * n + other];
            }
        }
    }
    determinant
}
