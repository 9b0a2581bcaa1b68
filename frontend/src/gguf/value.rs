//! Metadata values.

use super::cursor::Cursor;
use super::error::GgufError;
use bytes::Bytes;

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width.
    Signed(i64),
    /// A floating-point number of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one type.
    Array(Array),
}

/// The type of a value that is no array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    Bool,
    Text,
}

/// An array in the memory map; its elements are checked when the file is read and decoded when they are asked for.
#[derive(Clone, PartialEq)]
pub struct Array {
    kind: Kind,
    count: usize,
    bytes: Bytes,
}

/// The type number of arrays.
const ARRAY: u32 = 9;

impl Kind {
    fn of_code(code: u32) -> Option<Kind> {
        Some(match code {
            0 => Kind::Unsigned(1),
            1 => Kind::Signed(1),
            2 => Kind::Unsigned(2),
            3 => Kind::Signed(2),
            4 => Kind::Unsigned(4),
            5 => Kind::Signed(4),
            6 => Kind::Float(4),
            7 => Kind::Bool,
            8 => Kind::Text,
            10 => Kind::Unsigned(8),
            11 => Kind::Signed(8),
            12 => Kind::Float(8),
            _ => return None,
        })
    }

    /// Bytes of an element; the least for text.
    fn size(self) -> usize {
        match self {
            Kind::Unsigned(size) | Kind::Signed(size) | Kind::Float(size) => size,
            Kind::Bool => 1,
            Kind::Text => 8,
        }
    }

    /// The number in `size()` bytes.
    fn number(self, bytes: &[u8]) -> Value {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Kind::Signed(size) => {
                let unused = 64 - 8 * size as u32;
                Value::Signed((bits << unused) as i64 >> unused)
            }
            Kind::Float(4) => Value::Float(f64::from(f32::from_bits(bits as u32))),
            Kind::Float(_) => Value::Float(f64::from_bits(bits)),
            Kind::Bool => Value::Bool(bits != 0),
            Kind::Unsigned(_) | Kind::Text => Value::Unsigned(bits),
        }
    }
}

impl Value {
    /// Reads a value of the entry `key`.
    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, GgufError> {
        let kind =
            |code: u32| Kind::of_code(code).ok_or_else(|| GgufError::ValueType { key: key.to_owned(), code });
        let code = cursor.u32("the type of a metadata value")?;
        if code != ARRAY {
            return element(cursor, kind(code)?, key);
        }
        let code = cursor.u32("the element type of a metadata array")?;
        if code == ARRAY {
            return Err(GgufError::NestedArray(key.to_owned()));
        }
        let kind = kind(code)?;
        let count = cursor.u64("the length of a metadata array")?;
        let count = cursor.bounded(count, kind.size(), "elements of a metadata array")?;
        let start = cursor.position();
        for _ in 0..count {
            match kind {
                Kind::Text => drop(cursor.text("a text of a metadata array")?),
                Kind::Bool => drop(element(cursor, kind, key)?),
                _ => drop(cursor.take(kind.size() as u64, "a metadata array")?),
            }
        }
        Ok(Value::Array(Array { kind, count, bytes: cursor.since(start) }))
    }

    /// The number where it is an integer that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The number where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The truth value.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The array.
    pub fn array(&self) -> Option<&Array> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

fn element(cursor: &mut Cursor<'_>, kind: Kind, key: &str) -> Result<Value, GgufError> {
    if kind == Kind::Text {
        return Ok(Value::Text(cursor.text("a metadata text")?.to_owned()));
    }
    let bytes = cursor.take(kind.size() as u64, "a metadata value")?;
    match (kind, bytes) {
        (Kind::Bool, [value @ 2..=255]) => Err(GgufError::Truth { key: key.to_owned(), value: *value }),
        _ => Ok(kind.number(bytes)),
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements of an array of text; `None` for other arrays.
    pub fn texts(&self) -> Option<impl Iterator<Item = &str>> {
        let mut rest = &self.bytes[..];
        (self.kind == Kind::Text).then(|| {
            // The lengths and the encoding were checked when the file was read, so nothing ends early here.
            std::iter::from_fn(move || {
                let (length, tail) = rest.split_first_chunk::<8>()?;
                let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*length) as usize)?;
                rest = tail;
                std::str::from_utf8(text).ok()
            })
        })
    }

    /// The elements of an array that is not of text; `None` for one of text.
    pub fn values(&self) -> Option<impl Iterator<Item = Value>> {
        (self.kind != Kind::Text)
            .then(|| self.bytes.chunks_exact(self.kind.size()).map(|bytes| self.kind.number(bytes)))
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} values of {:?}]", self.count, self.kind)
    }
}
