//! Short paths for the operations that large weights go through: views, transposes, casts of bytes, sums and products.

use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_ir::words::ReduceKind;

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
        (Operator::Map { body }, [x]) if *body == ScalarExpr::cast(DType::I32) => widened_integers(x),
        (Operator::Reduce { kind: ReduceKind::Sum, axes, keep: true, prologue, epilogue }, [x])
            if prologue.is_identity() && epilogue.is_identity() =>
        {
            integer_sums(x, axes)
        }
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

/// The result of an operation on operands that are each the same everywhere, or have one element.
pub fn uniform(operator: &Operator, operands: &[&Data], dtype: DType, shape: &[usize]) -> Option<Data> {
    let one = |data: &Data| match data.as_uniform() {
        Some(element) => Some(element.clone()),
        None => (data.count() == 1).then(|| data.bytes().clone()),
    };
    let element = match (operator, operands) {
        (Operator::Broadcast { .. } | Operator::Reshape { .. } | Operator::Transpose { .. }, [x]) => one(x)?,
        (Operator::Map { .. }, _) => {
            let scalars: Option<Vec<Data>> =
                operands.iter().map(|x| Data::new(x.dtype(), &[], one(x)?).ok()).collect();
            let results = tcc_interpret::evaluate(operator, &scalars?, &|_| None).ok()?;
            results.first()?.bytes().clone()
        }
        _ => return None,
    };
    Data::uniform(dtype, shape, element).ok()
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
    if x.as_uniform().is_some() {
        let shape: Option<Vec<usize>> = perm.iter().map(|axis| x.shape().get(*axis).copied()).collect();
        return uniform(&Operator::Transpose { perm: perm.to_vec() }, &[x], x.dtype(), &shape?);
    }
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

fn widened_integers(x: &Data) -> Option<Data> {
    let bytes = x.bytes().iter();
    let out: Vec<u8> = match x.dtype() {
        DType::I8 => bytes.flat_map(|byte| i32::from(*byte as i8).to_le_bytes()).collect(),
        DType::U8 => bytes.flat_map(|byte| i32::from(*byte).to_le_bytes()).collect(),
        _ => return None,
    };
    Data::new(DType::I32, x.shape(), out.into()).ok()
}

/// Wrapping sums of `i32` over `axes`, which stay with extent 1.
fn integer_sums(x: &Data, axes: &[usize]) -> Option<Data> {
    if x.dtype() != DType::I32 || axes.iter().any(|axis| *axis >= x.shape().len()) {
        return None;
    }
    let shape: Vec<usize> = x
        .shape()
        .iter()
        .enumerate()
        .map(|(axis, extent)| if axes.contains(&axis) { 1 } else { *extent })
        .collect();
    let into = broadcast_strides(&shape, x.shape())?;
    let mut sums = vec![0i32; shape.iter().product()];
    let (length, step) = (x.shape().last().copied().unwrap_or(1), into.last().copied().unwrap_or(0));
    let mut values = x.bytes().chunks_exact(4);
    rows(x.shape(), &into, &mut |offset| {
        for index in 0..length {
            let value =
                values.next().map_or(0, |value| i32::from_le_bytes([value[0], value[1], value[2], value[3]]));
            let sum = &mut sums[offset + index * step];
            *sum = sum.wrapping_add(value);
        }
    });
    Data::new(DType::I32, &shape, sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()).ok()
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
        let integers: Vec<u8> =
            (0..24i32).flat_map(|value| value.wrapping_mul(178_956_971).to_le_bytes()).collect();
        let integers = Data::new(DType::I32, &[2, 3, 4], integers.into()).unwrap();
        let sum = |axes: Vec<usize>| Operator::Reduce {
            kind: ReduceKind::Sum,
            axes,
            keep: true,
            prologue: ScalarExpr::identity(),
            epilogue: ScalarExpr::identity(),
        };
        let cases = [
            (Operator::Transpose { perm: vec![2, 0, 1] }, vec![x.clone()]),
            (Operator::Reshape { shape: vec![6.into(), 5.into()] }, vec![x.clone()]),
            (multiply, vec![x, s]),
            (cast.clone(), vec![signed.clone()]),
            (cast, vec![unsigned]),
            (Operator::Map { body: ScalarExpr::cast(DType::I32) }, vec![signed]),
            (sum(vec![0, 2]), vec![integers.clone()]),
            (sum(vec![1]), vec![integers.clone()]),
            (sum(vec![2]), vec![integers]),
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
