//! Short paths for the operations that large weights go through: views, transposes, and `f32` sums and products.

use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr};

/// The result where the operation has a short path; the interpreter's bits exactly.
pub fn evaluate(operator: &Operator, operands: &[Data]) -> Option<Data> {
    match (operator, operands) {
        (Operator::Reshape { shape }, [x]) => {
            let shape: Option<Vec<usize>> =
                shape.iter().map(|dim| dim.as_const().and_then(|dim| usize::try_from(dim).ok())).collect();
            x.reshaped(&shape?).ok()
        }
        (Operator::Transpose { perm }, [x]) => transpose(x, perm),
        (Operator::Map { body }, [x]) if *body == ScalarExpr::cast(DType::F32) => widened(x),
        (Operator::Map { body }, [a, b]) => match body.as_call()? {
            Function::Add => elementwise(a, b, |a, b| a + b),
            Function::Sub => elementwise(a, b, |a, b| a - b),
            Function::Mul => elementwise(a, b, |a, b| a * b),
            Function::Div => elementwise(a, b, |a, b| a / b),
            _ => None,
        },
        _ => None,
    }
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// Calls `visit` with the source offset of each row of `shape`, rows being runs along the last axis.
fn rows(shape: &[usize], strides: &[usize], visit: &mut dyn FnMut(usize)) {
    if shape.contains(&0) {
        return;
    }
    let outer = shape.len().saturating_sub(1);
    let count: usize = shape[..outer].iter().product();
    let mut index = vec![0usize; outer];
    let mut offset = 0usize;
    for _ in 0..count {
        visit(offset);
        for axis in (0..outer).rev() {
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

fn transpose(x: &Data, perm: &[usize]) -> Option<Data> {
    if x.dtype().is_packed() || x.dtype().bits() == 0 || perm.len() != x.shape().len() {
        return None;
    }
    let size = x.dtype().size();
    let from = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|axis| x.shape().get(*axis).copied()).collect::<Option<_>>()?;
    let moved: Vec<usize> = perm.iter().map(|axis| from[*axis]).collect();
    let bytes = &x.bytes()[..];
    let (length, step) = (shape.last().copied().unwrap_or(1), moved.last().copied().unwrap_or(1));
    let mut out = Vec::with_capacity(bytes.len());
    match size {
        4 => rows(&shape, &moved, &mut |offset| {
            for index in 0..length {
                let at = (offset + index * step) * 4;
                out.extend_from_slice(&bytes[at..at + 4]);
            }
        }),
        _ => rows(&shape, &moved, &mut |offset| {
            for index in 0..length {
                let at = (offset + index * step) * size;
                out.extend_from_slice(&bytes[at..at + size]);
            }
        }),
    }
    Data::new(x.dtype(), &shape, out.into()).ok()
}

/// Bytes as `f32`, which holds each of them.
fn widened(x: &Data) -> Option<Data> {
    let bytes = x.bytes().iter();
    let out: Vec<u8> = match x.dtype() {
        DType::I8 => bytes.flat_map(|byte| f32::from(*byte as i8).to_le_bytes()).collect(),
        DType::U8 => bytes.flat_map(|byte| f32::from(*byte).to_le_bytes()).collect(),
        _ => return None,
    };
    Data::new(DType::F32, x.shape(), out.into()).ok()
}

/// Strides of `shape` broadcast to `out`; `None` where it does not broadcast.
fn broadcast_strides(shape: &[usize], out: &[usize]) -> Option<Vec<usize>> {
    let own = strides(shape);
    let offset = out.len().checked_sub(shape.len())?;
    let mut result = vec![0usize; out.len()];
    for (axis, extent) in shape.iter().enumerate() {
        if *extent == out[offset + axis] {
            result[offset + axis] = if *extent == 1 { 0 } else { own[axis] };
        } else if *extent != 1 {
            return None;
        }
    }
    Some(result)
}

fn elementwise(a: &Data, b: &Data, apply: impl Fn(f32, f32) -> f32) -> Option<Data> {
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 {
        return None;
    }
    let (left, right) = (&a.bytes()[..], &b.bytes()[..]);
    let read = |bytes: &[u8], index: usize| {
        let at = 4 * index;
        f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let rank = a.shape().len().max(b.shape().len());
    let at =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |own| shape[own]);
    let shape: Vec<usize> = (0..rank)
        .map(|axis| match (at(a.shape(), axis), at(b.shape(), axis)) {
            (1, extent) | (extent, 1) => Some(extent),
            (x, y) => (x == y).then_some(x),
        })
        .collect::<Option<_>>()?;
    let (from_a, from_b) = (broadcast_strides(a.shape(), &shape)?, broadcast_strides(b.shape(), &shape)?);
    let length = shape.last().copied().unwrap_or(1);
    let (step_a, step_b) = (from_a.last().copied().unwrap_or(0), from_b.last().copied().unwrap_or(0));
    let mut starts = Vec::new();
    rows(&shape, &from_b, &mut |offset| starts.push(offset));
    let mut starts = starts.into_iter();
    let mut out = Vec::with_capacity(4 * shape.iter().product::<usize>());
    rows(&shape, &from_a, &mut |offset| {
        let other = starts.next().unwrap_or(0);
        for index in 0..length {
            let value = apply(read(left, offset + index * step_a), read(right, other + index * step_b));
            out.extend_from_slice(&value.to_le_bytes());
        }
    });
    Data::new(DType::F32, &shape, out.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_paths_give_the_interpreters_bits() {
        let values: Vec<f32> = (0..30).map(|value| (value as f32 - 7.3) * 0.37).collect();
        let x = Data::from_f32(&[2, 3, 5], &values).unwrap();
        let s = Data::from_f32(&[3, 1], &[0.1, -2.5, 3.0]).unwrap();
        let multiply = Operator::Map { body: ScalarExpr::call(Function::Mul) };
        let cast = Operator::Map { body: ScalarExpr::cast(DType::F32) };
        let signed = Data::new(DType::I8, &[2, 2], vec![0u8, 127, 128, 255].into()).unwrap();
        let unsigned = Data::new(DType::U8, &[4], vec![0u8, 127, 128, 255].into()).unwrap();
        let cases = [
            (Operator::Transpose { perm: vec![2, 0, 1] }, vec![x.clone()]),
            (Operator::Reshape { shape: vec![6.into(), 5.into()] }, vec![x.clone()]),
            (multiply, vec![x, s]),
            (cast.clone(), vec![signed]),
            (cast, vec![unsigned]),
        ];
        for (operator, operands) in cases {
            let slow = tcc_interpret::evaluate(&operator, &operands, &|_| None).unwrap();
            assert_eq!(evaluate(&operator, &operands).as_ref(), slow.first(), "{operator:?}");
        }
    }

    #[test]
    fn empty_tensors_fold() {
        let x = Data::from_f32(&[0, 3], &[]).unwrap();
        let y = evaluate(&Operator::Transpose { perm: vec![1, 0] }, &[x]).unwrap();
        assert_eq!(y.shape(), [3, 0]);
    }
}
