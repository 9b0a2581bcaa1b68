//! Attribute values and dictionaries.

use indexmap::IndexMap;

use super::ParseError;
use super::cursor::Cursor;
use super::data;
use crate::attribute::AttributeValue;

type Result<T> = std::result::Result<T, ParseError>;

/// Attributes by name.
pub(super) type Dictionary = IndexMap<String, AttributeValue>;

/// A double: decimal, or its bit pattern as hexadecimal.
pub(super) fn float(cursor: &mut Cursor) -> Result<f64> {
    cursor.skip_space();
    let start = cursor.clone();
    let text = cursor.literal()?;
    let value = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(f64::from_bits),
        None if text.contains(|c: char| c.is_ascii_digit()) => text.parse().ok(),
        // `inf` and `nan` are not numbers of the text form.
        None => None,
    };
    value.map_or_else(|| start.error(format!("'{text}' is not a number")), Ok)
}

/// `{name = value, ...}` or nothing.
pub(super) fn dictionary(cursor: &mut Cursor) -> Result<Dictionary> {
    let mut entries = Dictionary::new();
    if !cursor.eat("{") {
        return Ok(entries);
    }
    cursor.list("}", |cursor| {
        cursor.skip_space();
        let start = cursor.clone();
        let name = if cursor.looking_at("\"") { cursor.string()? } else { cursor.identifier()?.to_string() };
        cursor.expect("=")?;
        let value = value(cursor)?;
        match entries.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => start.error(format!("attribute '{name}' occurs twice")),
        }
    })?;
    Ok(entries)
}

/// One value.
pub(super) fn value(cursor: &mut Cursor) -> Result<AttributeValue> {
    cursor.nested(|cursor| {
        cursor.skip_space();
        match cursor.peek() {
            Some(b'"') => cursor.string().map(AttributeValue::Text),
            Some(b'[') => {
                cursor.expect("[")?;
                let mut items = Vec::new();
                cursor.list("]", |cursor| {
                    items.push(value(cursor)?);
                    Ok(())
                })?;
                Ok(AttributeValue::List(items))
            }
            Some(b'd') => data::dense(cursor).map(AttributeValue::Data),
            _ => scalar(cursor),
        }
    })
}

/// A truth value, an integer or a double, with an optional type.
fn scalar(cursor: &mut Cursor) -> Result<AttributeValue> {
    let mut start = cursor.clone();
    let text = cursor.literal()?;
    let value = match text {
        "true" => AttributeValue::Bool(true),
        "false" => AttributeValue::Bool(false),
        _ if text.contains('.') || text.starts_with("0x") => AttributeValue::Float(float(&mut start)?),
        _ => AttributeValue::Integer(start.integer()?),
    };
    if cursor.eat(":") {
        let name = cursor.identifier()?;
        let fits = match &value {
            AttributeValue::Float(_) => name == "f64",
            AttributeValue::Integer(_) => name == "i64",
            _ => false,
        };
        if !fits {
            return cursor.error(format!("attributes are i64 or f64, not {name}"));
        }
    }
    Ok(value)
}
