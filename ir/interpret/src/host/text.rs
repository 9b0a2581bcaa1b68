//! Text.

use std::fmt::Write;

use regex::Regex;
use tcc_ir::dtype::DType;

use super::call::Call;
use crate::error::Result;
use crate::indexing::{Walk, count};
use crate::number;
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

fn texts(shape: &[usize], texts: Vec<String>) -> Result<Value> {
    Ok(Value::Tensor(Tensor::new(DType::String, shape, Contents::Text(texts))?))
}

fn truths(shape: &[usize], values: Vec<i64>) -> Result<Value> {
    Ok(Value::Tensor(Tensor::new(DType::Bool, shape, Contents::Integer(values))?))
}

/// ONNX StringNormalizer: stop words are dropped, then the case is changed; an empty result is one empty text.
pub(super) fn normalize(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let stop_words = call.texts("stopwords")?.unwrap_or_default();
    let sensitive = call.integer("is_case_sensitive", 0)? != 0;
    let key = |text: &str| if sensitive { text.to_string() } else { text.to_lowercase() };
    let stop_words: Vec<String> = stop_words.iter().map(|word| key(word)).collect();
    let action = call.text("case_change_action", "NONE")?;
    let change = |text: &String| match action.as_str() {
        "LOWER" => text.to_lowercase(),
        "UPPER" => text.to_uppercase(),
        _ => text.clone(),
    };
    let mut kept: Vec<String> =
        x.texts()?.iter().filter(|text| !stop_words.contains(&key(text))).map(change).collect();
    if kept.is_empty() {
        kept.push(String::new());
    }
    let shape = match x.shape() {
        [_] => vec![kept.len()],
        [1, _] => vec![1, kept.len()],
        other => return call.fail(format!("the operand is [words] or [1, words], got {other:?}")),
    };
    Ok(vec![texts(&shape, kept)?])
}

/// Pairs of texts.
type Pairs<'a> = Vec<(&'a String, &'a String)>;

/// Two text operands broadcast to a common shape, element by element.
fn broadcast_pairs<'a>(call: &Call<'a>) -> Result<(Vec<usize>, Pairs<'a>)> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let rank = a.shape().len().max(b.shape().len());
    let extent = |tensor: &Tensor, axis: usize| {
        let missing = rank - tensor.shape().len();
        if axis < missing { 1 } else { tensor.shape()[axis - missing] }
    };
    let mut shape = Vec::with_capacity(rank);
    for axis in 0..rank {
        shape.push(match (extent(a, axis), extent(b, axis)) {
            (1, other) | (other, 1) => other,
            (x, y) if x == y => x,
            (x, y) => return call.fail(format!("extents {x} and {y} do not broadcast")),
        });
    }
    if shape
        .iter()
        .try_fold(1usize, |product, extent| product.checked_mul(*extent))
        .is_none_or(|n| n > call.limit)
    {
        return call.fail("the result is above the limit");
    }
    let (x, y) = (a.texts()?, b.texts()?);
    let offsets = Walk::broadcast(a.shape(), &shape).zip(Walk::broadcast(b.shape(), &shape));
    let pairs = offsets.map(|(left, right)| (&x[left], &y[right])).collect();
    Ok((shape, pairs))
}

/// ONNX StringConcat.
pub(super) fn concat(call: &Call) -> Result<Vec<Value>> {
    let (shape, pairs) = broadcast_pairs(call)?;
    Ok(vec![texts(&shape, pairs.into_iter().map(|(a, b)| format!("{a}{b}")).collect())?])
}

/// ONNX Equal of texts.
pub(super) fn equal(call: &Call) -> Result<Vec<Value>> {
    let (shape, pairs) = broadcast_pairs(call)?;
    Ok(vec![truths(&shape, pairs.into_iter().map(|(a, b)| i64::from(a == b)).collect())?])
}

/// ONNX StringSplit: the parts along a new last axis, filled up with empty texts, and how many there are.
pub(super) fn split(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let delimiter = call.text("delimiter", "")?;
    let most = match call.optional_integer("maxsplit")? {
        Some(most) if most >= 0 => most as usize,
        _ => usize::MAX,
    };
    let parts: Vec<Vec<&str>> = x.texts()?.iter().map(|text| split_one(text, &delimiter, most)).collect();
    let widest = parts.iter().map(Vec::len).max().unwrap_or(0);
    if widest.saturating_mul(parts.len()) > call.limit {
        return call.fail("the result is above the limit");
    }
    let padded = parts.iter().flat_map(|parts| {
        (0..widest).map(|index| parts.get(index).map_or(String::new(), |part| part.to_string()))
    });
    let shape = [x.shape(), &[widest]].concat();
    let counts = parts.iter().map(|parts| parts.len() as i64).collect();
    Ok(vec![
        texts(&shape, padded.collect())?,
        Value::Tensor(Tensor::new(DType::I64, x.shape(), Contents::Integer(counts))?),
    ])
}

/// The parts of a text after at most `most` cuts; without a delimiter, runs of white space separate.
fn split_one<'a>(text: &'a str, delimiter: &str, most: usize) -> Vec<&'a str> {
    if !delimiter.is_empty() {
        return text.splitn(most.saturating_add(1), delimiter).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    parts
}

/// ONNX RegexFullMatch.
pub(super) fn full_match(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let pattern = call.text("pattern", "")?;
    let regex = Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|error| call.error(error.to_string()))?;
    let matches = x.texts()?.iter().map(|text| i64::from(regex.is_match(text))).collect();
    Ok(vec![truths(x.shape(), matches)?])
}

/// ONNX Cast from or to text; numbers as the shortest decimal text that gives them back.
pub(super) fn cast(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let to = call.result_dtype(0)?;
    let contents = match (x.contents(), to) {
        (Contents::Text(values), DType::String) => Contents::Text(values.clone()),
        (Contents::Text(values), _) if to.is_float() => {
            let parse = |text: &String| {
                let text = text.trim();
                // Rust reads the spellings of infinity and NaN in any case, as ONNX writes them.
                text.parse::<f64>().map_err(|_| call.error(format!("'{text}' is no number")))
            };
            Contents::from_numbers(to, values.iter().map(parse).collect::<Result<Vec<f64>>>()?.into_iter())
        }
        (Contents::Text(values), _) => {
            let parse = |text: &String| {
                let value = text.trim().parse::<i128>();
                let value = value.map_err(|_| call.error(format!("'{text}' is no integer")))?;
                Ok(number::wrap(to, value))
            };
            Contents::Integer(values.iter().map(parse).collect::<Result<_>>()?)
        }
        (Contents::Integer(values), _) => {
            let text = |value: &i64| number::widen(x.dtype(), *value).to_string();
            Contents::Text(values.iter().map(text).collect())
        }
        (Contents::F32(values), _) => {
            Contents::Text(values.iter().map(|value| float_text(value, *value as f64)).collect())
        }
        (Contents::F64(values), _) => {
            Contents::Text(values.iter().map(|value| float_text(value, *value)).collect())
        }
    };
    Ok(vec![Value::Tensor(Tensor::new(to, x.shape(), contents)?)])
}

fn float_text(value: &dyn std::fmt::Debug, wide: f64) -> String {
    if wide.is_nan() {
        return "NaN".into();
    }
    if wide.is_infinite() {
        return if wide > 0.0 { "INF".into() } else { "-INF".into() };
    }
    let mut text = String::new();
    let _ = write!(text, "{value:?}");
    text
}

/// ONNX LabelEncoder: a table from keys to values.
pub(super) fn encode_labels(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let to = call.result_dtype(0)?;
    // Positions in the table.
    let found: Vec<Option<usize>> = match x.contents() {
        Contents::Text(values) => {
            let keys = match call.texts("keys_strings")? {
                Some(keys) => keys,
                None => call.texts("keys_tensor")?.unwrap_or_default(),
            };
            values.iter().map(|value| keys.iter().position(|key| key == value)).collect()
        }
        Contents::Integer(values) => {
            let keys = match call.integers("keys_int64s")? {
                Some(keys) => keys,
                None => call.integers("keys_tensor")?.unwrap_or_default(),
            };
            values.iter().map(|value| keys.iter().position(|key| key == value)).collect()
        }
        Contents::F32(_) | Contents::F64(_) => {
            let keys = match call.floats("keys_floats")? {
                Some(keys) => keys,
                None => call.floats("keys_tensor")?.unwrap_or_default(),
            };
            let keys: Vec<f64> = keys.into_iter().map(|key| number::round(x.dtype(), key)).collect();
            let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
            let values = x.to_numbers()?;
            values.iter().map(|value| keys.iter().position(|key| same(*key, *value))).collect()
        }
    };
    let missing = || call.error("the table lacks a value");
    let contents = if to == DType::String {
        let values = match call.texts("values_strings")? {
            Some(values) => values,
            None => call.texts("values_tensor")?.unwrap_or_default(),
        };
        let default = match call.texts("default_tensor")? {
            Some(default) => default.first().cloned().ok_or_else(missing)?,
            None => call.text("default_string", "_Unused")?,
        };
        let pick = |place: &Option<usize>| match place {
            Some(place) => values.get(*place).cloned().ok_or_else(missing),
            None => Ok(default.clone()),
        };
        Contents::Text(found.iter().map(pick).collect::<Result<_>>()?)
    } else if to.is_float() {
        let values = match call.floats("values_floats")? {
            Some(values) => values,
            None => call.floats("values_tensor")?.unwrap_or_default(),
        };
        let default = match call.floats("default_tensor")? {
            Some(default) => default.first().copied().ok_or_else(missing)?,
            None => call.float("default_float", -0.0)?,
        };
        let pick = |place: &Option<usize>| match place {
            Some(place) => values.get(*place).copied().ok_or_else(missing),
            None => Ok(default),
        };
        Contents::from_numbers(to, found.iter().map(pick).collect::<Result<Vec<f64>>>()?.into_iter())
    } else {
        let values = match call.integers("values_int64s")? {
            Some(values) => values,
            None => call.integers("values_tensor")?.unwrap_or_default(),
        };
        let default = match call.integers("default_tensor")? {
            Some(default) => default.first().copied().ok_or_else(missing)?,
            None => call.integer("default_int64", -1)?,
        };
        let pick = |place: &Option<usize>| match place {
            Some(place) => values.get(*place).copied().ok_or_else(missing),
            None => Ok(default),
        };
        Contents::Integer(found.iter().map(pick).collect::<Result<_>>()?)
    };
    debug_assert_eq!(contents.len(), count(x.shape()));
    Ok(vec![Value::Tensor(Tensor::new(to, x.shape(), contents)?)])
}
