//! String tensors: constants, `StringConcat`, `StringSplit`, `Equal`, and the shape of any tensor.

use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{DataRef, Shape, TensorRef};

fn strings<'a>(call: &HostCall<'a>, index: usize) -> Result<(TensorRef<'a>, &'a [String])> {
    let tensor = call.input(index)?;
    match tensor.data() {
        DataRef::Strings(strings) => Ok((tensor, strings)),
        DataRef::Bytes(_) => Err(call.fail(format!("input {index} is not of strings"))),
    }
}

/// Overwrites a list of strings, reusing the memory of those that are there.
fn assign<'s>(target: &mut Vec<String>, values: impl Iterator<Item = &'s str>) {
    let mut count = 0;
    for value in values {
        match target.get_mut(count) {
            Some(slot) => {
                slot.clear();
                slot.push_str(value);
            }
            None => target.push(value.to_owned()),
        }
        count += 1;
    }
    target.truncate(count);
}

struct Constant(Vec<String>);

/// Attribute `values`: the elements; the shape is that of the output.
pub(super) fn build_constant(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(0..=0, 1..=1, &["values"])?;
    signature.expect_output(0, DType::String, None)?;
    Ok(Box::new(Constant(signature.strings("values")?)))
}

impl HostFunction for Constant {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let shape = call.declared_shape(0)?;
        if shape.elements() != Some(self.0.len() as u64) {
            return Err(call.fail(format!("{} values do not fill {shape:?}", self.0.len())));
        }
        assign(call.output_strings(0, &shape)?, self.0.iter().map(String::as_str));
        Ok(())
    }
}

/// Position in a tensor of the element that a position of the broadcast result takes.
fn broadcast_position(mut position: usize, result: &[usize], shape: &[usize]) -> usize {
    let mut from = 0;
    let mut stride = 1;
    let missing = result.len() - shape.len();
    for (axis, &dim) in result.iter().enumerate().rev() {
        let coordinate = position % dim;
        position /= dim;
        if axis >= missing {
            let own = shape[axis - missing];
            from += if own == 1 { 0 } else { coordinate * stride };
            stride *= own;
        }
    }
    from
}

/// The shape that two shapes broadcast to, as NumPy does.
fn broadcast(call: &HostCall<'_>, a: &[usize], b: &[usize]) -> Result<Shape> {
    let rank = a.len().max(b.len());
    let mut shape = Shape::SCALAR;
    for axis in 0..rank {
        let dim = |shape: &[usize]| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
        let (a_dim, b_dim) = (dim(a), dim(b));
        if a_dim != b_dim && a_dim != 1 && b_dim != 1 {
            return Err(call.fail(format!("shapes {a:?} and {b:?} do not broadcast")));
        }
        shape.push(if a_dim == 1 { b_dim } else { a_dim });
    }
    Ok(shape)
}

struct Concat;

/// The strings of two inputs, joined element by element with broadcasting.
pub(super) fn build_concat(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(2..=2, 1..=1, &[])?;
    signature.expect_input(0, DType::String)?;
    signature.expect_input(1, DType::String)?;
    signature.expect_output(0, DType::String, None)?;
    Ok(Box::new(Concat))
}

impl HostFunction for Concat {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let ((a, a_strings), (b, b_strings)) = (strings(call, 0)?, strings(call, 1)?);
        let shape = broadcast(call, a.shape(), b.shape())?;
        let count = shape.elements().unwrap_or(0) as usize;
        let target = call.output_strings(0, &shape)?;
        target.resize_with(count, String::new);
        for (position, slot) in target.iter_mut().enumerate() {
            slot.clear();
            slot.push_str(&a_strings[broadcast_position(position, &shape, a.shape())]);
            slot.push_str(&b_strings[broadcast_position(position, &shape, b.shape())]);
        }
        Ok(())
    }
}

struct Equal;

/// Whether the strings of two inputs are equal, element by element with broadcasting.
pub(super) fn build_equal(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(2..=2, 1..=1, &[])?;
    signature.expect_input(0, DType::String)?;
    signature.expect_input(1, DType::String)?;
    signature.expect_output(0, DType::Bool, None)?;
    Ok(Box::new(Equal))
}

impl HostFunction for Equal {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let ((a, a_strings), (b, b_strings)) = (strings(call, 0)?, strings(call, 1)?);
        let shape = broadcast(call, a.shape(), b.shape())?;
        for (position, slot) in call.output::<u8>(0, &shape)?.iter_mut().enumerate() {
            let left = &a_strings[broadcast_position(position, &shape, a.shape())];
            *slot = (left == &b_strings[broadcast_position(position, &shape, b.shape())]).into();
        }
        Ok(())
    }
}

struct Split {
    delimiter: Option<String>,
    most: usize,
}

/// Attributes `delimiter` (default: runs of white space) and `maxsplit` (default: no limit). Outputs: the pieces with
/// a new last dimension as long as the most pieces, filled up with empty strings; and the number of pieces, `i64`.
pub(super) fn build_split(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 2..=2, &["delimiter", "maxsplit"])?;
    signature.expect_input(0, DType::String)?;
    let rank = signature.input(0)?.rank;
    signature.expect_output(0, DType::String, Some(rank + 1))?;
    signature.expect_output(1, DType::I64, Some(rank))?;
    let delimiter = if signature.has("delimiter") { Some(signature.string("delimiter")?) } else { None };
    let most = usize::try_from(signature.integer("maxsplit", i64::MAX)?).unwrap_or(usize::MAX);
    Ok(Box::new(Split { delimiter: delimiter.filter(|delimiter| !delimiter.is_empty()), most }))
}

impl Split {
    /// Calls `visit` with each piece, as Python's `str.split` gives them: white space around pieces is dropped, except
    /// at the end of the last one when the limit is reached; a delimiter leaves empty pieces.
    fn pieces<'s>(&self, text: &'s str, visit: &mut dyn FnMut(&'s str)) {
        if let Some(delimiter) = &self.delimiter {
            text.splitn(self.most.saturating_add(1), delimiter.as_str()).for_each(visit);
            return;
        }
        let mut rest = text.trim_start();
        for _ in 0..self.most {
            let Some((head, tail)) = rest.split_once(char::is_whitespace) else { break };
            visit(head);
            rest = tail.trim_start();
        }
        if !rest.is_empty() {
            visit(rest);
        }
    }
}

impl HostFunction for Split {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let (input, texts) = strings(call, 0)?;
        let count = |text: &str| {
            let mut count = 0usize;
            self.pieces(text, &mut |_| count += 1);
            count
        };
        let width = texts.iter().map(|text| count(text)).max().unwrap_or(0);
        let mut shape = Shape::new(input.shape()).unwrap_or(Shape::SCALAR);
        let counts = call.output::<i64>(1, &shape)?;
        if !shape.push(width) {
            return Err(call.fail("the result has too many dimensions"));
        }
        let target = call.output_strings(0, &shape)?;
        target.resize_with(texts.len() * width, String::new);
        target.iter_mut().for_each(String::clear);
        for (index, text) in texts.iter().enumerate() {
            let mut piece = 0;
            self.pieces(text, &mut |part| {
                target[index * width + piece].push_str(part);
                piece += 1;
            });
            counts[index] = piece as i64;
        }
        Ok(())
    }
}

struct ShapeOf;

/// The dimensions of input 0 as an `i64` vector.
pub(super) fn build_shape(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &[])?;
    signature.input(0)?;
    signature.expect_output(0, DType::I64, Some(1))?;
    Ok(Box::new(ShapeOf))
}

impl HostFunction for ShapeOf {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let input = call.input(0)?;
        let dims = call.output::<i64>(0, &[input.shape().len()])?;
        dims.iter_mut().zip(input.shape()).for_each(|(to, &dim)| *to = dim as i64);
        Ok(())
    }
}
