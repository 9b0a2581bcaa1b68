//! Operands and attributes of one call of a host function.

use serde_json::{Map, Value as Json};
use tcc_ir::dtype::DType;
use tcc_ir::parse;
use tcc_ir::types::Type;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value::Value;

/// One call.
pub(super) struct Call<'a> {
    function: &'a str,
    attributes: Map<String, Json>,
    /// For each ONNX input, its position among the operands.
    inputs: Vec<Option<usize>>,
    operands: &'a [Value],
    types: Vec<Type>,
    /// Largest number of elements of one tensor.
    pub(super) limit: usize,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        function: &'a str,
        attributes: &str,
        types: &[String],
        operands: &'a [Value],
        limit: usize,
    ) -> Result<Call<'a>> {
        let fail = |message: String| Error::Host { function: function.to_string(), message };
        let attributes: Map<String, Json> = if attributes.trim().is_empty() {
            Map::new()
        } else {
            serde_json::from_str(attributes).map_err(|error| fail(format!("attributes: {error}")))?
        };
        let types =
            types.iter().map(|text| parse::ty(text)).collect::<std::result::Result<_, _>>().map_err(fail)?;
        let absent: Vec<usize> = match attributes.get("absent").and_then(Json::as_array) {
            Some(list) => list.iter().filter_map(Json::as_u64).map(|index| index as usize).collect(),
            None => Vec::new(),
        };
        let mut inputs = Vec::new();
        let mut position = 0;
        while position < operands.len() {
            if absent.contains(&inputs.len()) {
                inputs.push(None);
            } else {
                inputs.push(Some(position));
                position += 1;
            }
        }
        Ok(Call { function, attributes, inputs, operands, types, limit })
    }

    /// This call's error.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::Host { function: self.function.to_string(), message: message.into() }
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(self.error(message))
    }

    /// ONNX input `index`, if it is there.
    pub(super) fn optional(&self, index: usize) -> Option<&'a Value> {
        self.operands.get((*self.inputs.get(index)?)?)
    }

    /// ONNX input `index`.
    pub(super) fn value(&self, index: usize) -> Result<&'a Value> {
        self.optional(index).ok_or_else(|| self.error(format!("input {index} is missing")))
    }

    /// ONNX input `index`, a tensor.
    pub(super) fn tensor(&self, index: usize) -> Result<&'a Tensor> {
        self.value(index)?.as_tensor()
    }

    /// ONNX input `index`, a tensor, if it is there.
    pub(super) fn optional_tensor(&self, index: usize) -> Result<Option<&'a Tensor>> {
        self.optional(index).map(Value::as_tensor).transpose()
    }

    /// ONNX input `index`, a sequence.
    pub(super) fn sequence(&self, index: usize) -> Result<&'a [Value]> {
        match self.value(index)? {
            Value::Sequence(items) => Ok(items),
            _ => self.fail(format!("input {index} is no sequence")),
        }
    }

    /// Element type of result `index`.
    pub(super) fn result_dtype(&self, index: usize) -> Result<DType> {
        match self.types.get(index) {
            Some(Type::Tensor(ty)) => Ok(ty.dtype()),
            _ => self.fail(format!("result {index} is declared as no tensor")),
        }
    }

    fn attribute<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&Json) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(json) => match read(json) {
                Some(value) => Ok(Some(value)),
                None => self.fail(format!("attribute '{name}' is not {what}")),
            },
        }
    }

    /// An integer attribute.
    pub(super) fn integer(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.attribute(name, "an integer", Json::as_i64)?.unwrap_or(default))
    }

    /// An integer attribute, if it is there.
    pub(super) fn optional_integer(&self, name: &str) -> Result<Option<i64>> {
        self.attribute(name, "an integer", Json::as_i64)
    }

    /// An attribute that is a small count.
    pub(super) fn count(&self, name: &str, default: usize) -> Result<usize> {
        let count = self.integer(name, default as i64)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.limit => Ok(count),
            _ => self.fail(format!("attribute '{name}' is {count}")),
        }
    }

    /// A number.
    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.attribute(name, "a number", number)?.unwrap_or(default))
    }

    /// Text.
    pub(super) fn text(&self, name: &str, default: &str) -> Result<String> {
        let read = |json: &Json| json.as_str().map(str::to_string);
        Ok(self.attribute(name, "text", read)?.unwrap_or_else(|| default.to_string()))
    }

    /// A list of integers; a tensor attribute counts as the list of its elements.
    pub(super) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        self.attribute(name, "a list of integers", |json| list(json)?.iter().map(Json::as_i64).collect())
    }

    /// A list of numbers; a tensor attribute counts as the list of its elements.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        self.attribute(name, "a list of numbers", |json| list(json)?.iter().map(number).collect())
    }

    /// A list of texts; a tensor attribute counts as the list of its elements.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        let read = |json: &Json| json.as_str().map(str::to_string);
        self.attribute(name, "a list of texts", |json| list(json)?.iter().map(read).collect())
    }

    /// An axis attribute, negative ones counted from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        crate::indexing::position(axis, rank)
            .or_else(|_| self.fail(format!("axis {axis} is outside rank {rank}")))
    }
}

/// The elements of a list or of a tensor attribute.
fn list(json: &Json) -> Option<&Vec<Json>> {
    match json {
        Json::Array(items) => Some(items),
        Json::Object(tensor) => tensor.get("data")?.as_array(),
        _ => None,
    }
}

/// A number; infinities and NaN are text.
fn number(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| json.as_str()?.parse().ok())
}
