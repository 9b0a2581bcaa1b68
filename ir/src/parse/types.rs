//! Types of values and elements.

use super::ParseError;
use super::cursor::Cursor;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::types::{Element, Granularity, Quantized, TensorType, Type};

type Result<T> = std::result::Result<T, ParseError>;

/// A type.
pub(super) fn ty(cursor: &mut Cursor) -> Result<Type> {
    cursor.nested(|cursor| {
        let wrap: fn(Box<Type>) -> Type = if cursor.eat("!tir.sequence<") {
            Type::Sequence
        } else if cursor.eat("!tir.optional<") {
            Type::Optional
        } else {
            return tensor(cursor).map(Type::Tensor);
        };
        let inner = ty(cursor)?;
        cursor.expect(">")?;
        Ok(wrap(Box::new(inner)))
    })
}

/// A tensor type such as `tensor<?x3xf32, "batch; 3">`.
pub(super) fn tensor(cursor: &mut Cursor) -> Result<TensorType> {
    cursor.skip_space();
    let start = cursor.clone();
    if !cursor.eat("tensor<") {
        return cursor.unexpected("a type");
    }
    // `None` stands for `?`.
    let mut extents: Vec<Option<i64>> = Vec::new();
    loop {
        cursor.skip_space();
        let extent = match cursor.peek() {
            Some(b'?') => {
                cursor.expect("?")?;
                None
            }
            Some(byte) if byte.is_ascii_digit() => Some(cursor.integer()?),
            _ => break,
        };
        if !cursor.eat_here("x") {
            return cursor.unexpected("'x' after an extent");
        }
        extents.push(extent);
    }
    let element = element(cursor)?;
    let mut shape: Vec<Dim> = extents.iter().map(|extent| Dim::Const(extent.unwrap_or(0))).collect();
    if cursor.eat(",") {
        let encoding = cursor.string()?;
        shape = encoding_dims(&start, &encoding)?;
        let agrees =
            shape.len() == extents.len() && shape.iter().zip(&extents).all(|(a, b)| a.as_const() == *b);
        if !agrees {
            return start.error(format!("the extents \"{encoding}\" do not fit the tensor type"));
        }
    } else if extents.contains(&None) {
        return start.error("a tensor type with '?' takes its extents as text, as in tensor<?xf32, \"n\">");
    }
    cursor.expect(">")?;
    Ok(TensorType { element, shape })
}

/// The extents of an encoding; errors are reported at the type.
fn encoding_dims(start: &Cursor, encoding: &str) -> Result<Vec<Dim>> {
    let mut dims = Vec::new();
    for text in encoding.split(';') {
        match super::dim(text.trim()) {
            Ok(dim) => dims.push(dim),
            Err(message) => return start.error(message),
        }
    }
    Ok(dims)
}

fn element(cursor: &mut Cursor) -> Result<Element> {
    if cursor.eat("!quant.uniform<") {
        let quantized = quantized(cursor)?;
        cursor.expect(">")?;
        return Ok(Element::Quantized(Box::new(quantized)));
    }
    let start = cursor.clone();
    if cursor.eat("!tir.block<") {
        let body = cursor.string()?;
        cursor.expect(">")?;
        let mut inner = Cursor::new(&body);
        let quantized = block_quantized(&mut inner)
            .and_then(|quantized| inner.expect_end().map(|()| quantized))
            .or_else(|error| start.error(format!("in the block type: {}", error.message)))?;
        return Ok(Element::Quantized(Box::new(quantized)));
    }
    dtype(cursor).map(Element::Plain)
}

pub(super) fn dtype(cursor: &mut Cursor) -> Result<DType> {
    cursor.skip_space();
    let start = cursor.clone();
    if cursor.eat_here("!tir.string") {
        return Ok(DType::String);
    }
    let name = cursor.take_while(|byte| byte.is_ascii_alphanumeric());
    name.parse().or_else(|_| start.error(format!("unknown element type '{name}'")))
}

/// The storage type as the `quant` dialect spells it: `u8` for `ui8`.
fn storage(cursor: &mut Cursor) -> Result<DType> {
    cursor.skip_space();
    let start = cursor.clone();
    let name = cursor.take_while(|byte| byte.is_ascii_alphanumeric());
    let spelled = if name.starts_with('u') && !name.starts_with("ui") {
        name.replacen('u', "ui", 1)
    } else {
        name.to_string()
    };
    spelled.parse().or_else(|_| start.error(format!("unknown storage type '{name}'")))
}

fn quantized(cursor: &mut Cursor) -> Result<Quantized> {
    let storage = storage(cursor)?;
    cursor.expect(":")?;
    let expressed = dtype(cursor)?;
    let mut pairs = Pairs::default();
    let granularity = if cursor.eat(":") {
        let axis = cursor.count()?;
        cursor.expect(",")?;
        cursor.expect("{")?;
        cursor.list("}", |cursor| pairs.read(cursor))?;
        Granularity::Axis(axis)
    } else {
        cursor.expect(",")?;
        pairs.read(cursor)?;
        Granularity::Tensor
    };
    Ok(Quantized { storage, expressed, granularity, scales: pairs.scales, zeros: pairs.zeros })
}

/// The inside of a block type: `ui4:f32:0:32, 0.5:8, ...`.
fn block_quantized(cursor: &mut Cursor) -> Result<Quantized> {
    let storage = storage(cursor)?;
    cursor.expect(":")?;
    let expressed = dtype(cursor)?;
    cursor.expect(":")?;
    let axis = cursor.count()?;
    cursor.expect(":")?;
    let size = cursor.count()?;
    let mut pairs = Pairs::default();
    while cursor.eat(",") {
        pairs.read(cursor)?;
    }
    let granularity = Granularity::Block { axis, size };
    Ok(Quantized { storage, expressed, granularity, scales: pairs.scales, zeros: pairs.zeros })
}

/// Scales with zero points, which may be left out where they are 0.
#[derive(Default)]
struct Pairs {
    scales: Vec<u64>,
    zeros: Vec<i64>,
}

impl Pairs {
    fn read(&mut self, cursor: &mut Cursor) -> Result<()> {
        let scale = super::attribute::float(cursor)?;
        let zero = if cursor.eat(":") { cursor.integer()? } else { 0 };
        self.scales.push(scale.to_bits());
        self.zeros.push(zero);
        Ok(())
    }
}
