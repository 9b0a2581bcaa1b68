//! Tensor contents as `dense` attributes.

use std::fmt::Write;

use super::quoted;
use crate::attribute::float_text;
use crate::convert;
use crate::data::Data;
use crate::dtype::{Class, DType};
use crate::types::TensorType;

/// Constants with more elements print as bytes in hexadecimal where their type allows it.
const READABLE: usize = 16;

pub(super) fn dense(data: &Data, elide_above: Option<usize>, out: &mut String) {
    let (dtype, count) = (data.dtype(), data.count());
    let ty = TensorType::new(dtype, data.shape().iter().map(|extent| (*extent).into()).collect());
    // MLIR holds packed types and truth values in other layouts than we do, so those are written element by element.
    let as_list = count <= READABLE || dtype.is_packed() || matches!(dtype, DType::Bool | DType::String);
    if elide_above.is_some_and(|limit| count > limit) {
        let _ = write!(out, "dense_resource<elided> : {ty}");
        return;
    }
    out.push_str("dense<");
    if data.as_uniform().is_some() && count > READABLE {
        out.push_str(&element(&one_of(data), 0));
    } else if count > 0 && as_list {
        let elements: Vec<String> = match convert::texts(data) {
            Some(texts) => texts.into_iter().map(quoted).collect(),
            None => (0..count).map(|index| element(data, index)).collect(),
        };
        list(&elements, data.shape(), out);
    } else if count > 0 {
        out.push_str("\"0x");
        for byte in data.bytes().iter() {
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
        out.push('"');
    }
    let _ = write!(out, "> : {ty}");
}

/// A scalar with the element of a uniform tensor, whose text stands for all of them.
fn one_of(data: &Data) -> Data {
    let scalar = data.as_uniform().and_then(|one| Data::new(data.dtype(), &[], one.clone()).ok());
    scalar.unwrap_or_else(|| data.clone())
}

fn list(elements: &[String], shape: &[usize], out: &mut String) {
    let Some((&extent, inner)) = shape.split_first() else {
        elements.iter().for_each(|element| out.push_str(element));
        return;
    };
    out.push('[');
    for (index, part) in elements.chunks((elements.len() / extent.max(1)).max(1)).enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        list(part, inner, out);
    }
    out.push(']');
}

fn element(data: &Data, index: usize) -> String {
    let dtype = data.dtype();
    let Some(scalar) = convert::element(data, index) else { return String::from("0") };
    match dtype.class() {
        Class::Bool => (scalar.as_i64() != 0).to_string(),
        Class::Unsigned => scalar.bits.to_string(),
        Class::Signed => scalar.as_i64().to_string(),
        Class::Text => String::new(),
        Class::Float => {
            let value = scalar.as_f64();
            if !value.is_finite() {
                // The bits of the element itself: NaNs keep their payload.
                let size = dtype.size();
                let raw = &data.bytes()[index * size..(index + 1) * size];
                let hex: String = raw.iter().rev().map(|byte| format!("{byte:02X}")).collect();
                return format!("0x{hex}");
            }
            if dtype == DType::F64 { float_text(value) } else { narrow_text(value as f32) }
        }
    }
}

/// The shortest text that reads back as this `f32`, in MLIR's spelling.
fn narrow_text(value: f32) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    }
}
