//! Tensor contents: `dense<...> : tensor<...>`.

use bytes::Bytes;

use super::cursor::{Cursor, hex_digit};
use super::{MAX_SPLAT, ParseError, types};
use crate::convert;
use crate::data::Data;
use crate::dtype::{Class, DType};
use crate::minifloat;
use crate::scalar::Scalar;

type Result<T> = std::result::Result<T, ParseError>;

/// What stands between the angle brackets; the type comes after it.
enum Body<'a> {
    Empty,
    Hex(&'a str),
    List { shape: Vec<usize>, items: Vec<Item<'a>> },
}

enum Item<'a> {
    Number(&'a str),
    Text(String),
}

/// A `dense` attribute.
pub(super) fn dense(cursor: &mut Cursor) -> Result<Data> {
    let start = cursor.clone();
    cursor.expect("dense<")?;
    let body = if cursor.looking_at(">") {
        Body::Empty
    } else if let Some(digits) = cursor.hex_string() {
        Body::Hex(digits)
    } else {
        let mut items = Vec::new();
        let shape = list(cursor, &mut items)?;
        Body::List { shape, items }
    };
    cursor.expect(">")?;
    cursor.expect(":")?;
    let ty = types::tensor(cursor)?;
    let Some(shape) = ty.static_shape() else { return start.error("a constant has constant extents") };
    if !matches!(ty.element, crate::types::Element::Plain(_)) {
        return start.error("a constant has plain elements");
    }
    contents(&start, body, ty.dtype(), &shape)
}

/// A literal or a bracketed list of lists; returns its shape.
fn list<'a>(cursor: &mut Cursor<'a>, items: &mut Vec<Item<'a>>) -> Result<Vec<usize>> {
    if !cursor.eat("[") {
        items.push(if cursor.looking_at("\"") {
            Item::Text(cursor.string()?)
        } else {
            Item::Number(cursor.literal()?)
        });
        return Ok(Vec::new());
    }
    cursor.nested(|cursor| {
        let mut length = 0;
        let mut inner: Option<Vec<usize>> = None;
        cursor.list("]", |cursor| {
            let shape = list(cursor, items)?;
            length += 1;
            match inner.replace(shape.clone()) {
                Some(previous) if previous != shape => cursor.error("the lists differ in length"),
                _ => Ok(()),
            }
        })?;
        Ok([vec![length], inner.unwrap_or_default()].concat())
    })
}

fn contents(start: &Cursor, body: Body, dtype: DType, shape: &[usize]) -> Result<Data> {
    let Some(count) = shape.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim)) else {
        return start.error("the constant has more elements than can be addressed");
    };
    let compact = !dtype.is_packed() && dtype != DType::String;
    let uniform = |element: Vec<u8>| {
        Data::uniform(dtype, shape, Bytes::from(element)).or_else(|error| start.error(error.to_string()))
    };
    let bytes = match body {
        Body::Empty if count == 0 => Vec::new(),
        Body::Empty => return start.error("the constant has no elements"),
        Body::Hex(digits) => {
            let bytes = hex(start, digits, dtype)?;
            if bytes.len() == dtype.size() && count != 1 {
                return uniform(bytes);
            }
            bytes
        }
        Body::List { shape: list_shape, items } => {
            let splat = list_shape.is_empty() && count != 1;
            if splat && compact {
                return uniform(elements(start, &items, dtype, 1)?);
            }
            if splat && count > MAX_SPLAT {
                return start.error(format!("a splat has at most {MAX_SPLAT} elements"));
            }
            if !splat && list_shape != shape && !(list_shape.is_empty() && count == 1) {
                return start
                    .error(format!("the lists are of shape {list_shape:?}, the type says {shape:?}"));
            }
            elements(start, &items, dtype, if splat { count } else { 1 })?
        }
    };
    Data::new(dtype, shape, Bytes::from(bytes)).or_else(|error| start.error(error.to_string()))
}

fn hex(start: &Cursor, digits: &str, dtype: DType) -> Result<Vec<u8>> {
    if dtype.is_packed() || matches!(dtype, DType::Bool | DType::String) {
        return start.error(format!("{dtype} constants are written as lists"));
    }
    if !digits.len().is_multiple_of(2) {
        return start.error("an odd number of hexadecimal digits");
    }
    let pairs = digits.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| Some(hex_digit(pair[0])? * 16 + hex_digit(pair[1])?)).collect();
    bytes.map_or_else(|| start.error("not a hexadecimal digit"), Ok)
}

/// The bytes of literals, all of them `repeat` times.
fn elements(start: &Cursor, items: &[Item], dtype: DType, repeat: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut codes = Vec::new();
    for item in items.iter().cycle().take(items.len() * repeat) {
        match item {
            Item::Text(text) if dtype == DType::String => convert::push_text(text, &mut bytes),
            Item::Text(_) => return start.error(format!("text in a constant of type {dtype}")),
            Item::Number(text) => {
                let Some(scalar) = number(text, dtype) else {
                    return start.error(format!("'{text}' is not a value of {dtype}"));
                };
                match scalar {
                    Number::Value(scalar) if dtype.is_packed() => codes.push(convert::packed_code(scalar)),
                    Number::Value(scalar) => convert::push_scalar(scalar, &mut bytes),
                    Number::Bits(bits) => bytes.extend(&bits.to_le_bytes()[..dtype.size()]),
                }
            }
        }
    }
    if dtype.is_packed() {
        bytes = convert::pack(dtype, &codes);
    }
    Ok(bytes)
}

enum Number {
    Value(Scalar),
    Bits(u64),
}

fn number(text: &str, dtype: DType) -> Option<Number> {
    match dtype.class() {
        Class::Text => None,
        Class::Bool => match text {
            "true" | "1" => Some(Number::Value(Scalar::integer(dtype, 1))),
            "false" | "0" => Some(Number::Value(Scalar::integer(dtype, 0))),
            _ => None,
        },
        Class::Signed | Class::Unsigned => {
            let (low, high) = dtype.integer_range()?;
            let value: i128 = text.parse().ok()?;
            (low..=high).contains(&value).then_some(Number::Value(Scalar { dtype, bits: value as u64 }))
        }
        Class::Float => {
            if let Some(hex) = text.strip_prefix("0x") {
                let bits = u64::from_str_radix(hex, 16).ok()?;
                let fits = dtype.bits() == 64 || bits >> dtype.bits() == 0;
                return (fits && !dtype.is_packed()).then_some(Number::Bits(bits));
            }
            if !text.contains(|c: char| c.is_ascii_digit()) {
                return None;
            }
            // Narrow numbers are written as the shortest `f32` of their value.
            let value =
                if dtype == DType::F64 { text.parse().ok()? } else { f64::from(text.parse::<f32>().ok()?) };
            if dtype.bits() == 8 {
                let code = minifloat::encode(dtype, value as f32, true);
                return Some(Number::Bits(u64::from(code)));
            }
            Some(Number::Value(Scalar::float(dtype, value)))
        }
    }
}
