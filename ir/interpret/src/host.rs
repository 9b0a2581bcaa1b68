//! Host functions: what is not a loop nest.
//!
//! A host function has the name of its ONNX operator, `onnx.NonZero`, its operands are the ONNX inputs in order, and its
//! attributes are a JSON object of the ONNX attributes. Inputs that are left out are listed in the attribute `absent`.

use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::value::Value;

/// The results of a host function.
pub(crate) fn call(function: &str, attributes: &str, operands: &[Value], limit: usize) -> Result<Vec<Value>> {
    let fail = |message: String| Error::Host { function: function.to_string(), message };
    let attributes: Json = if attributes.trim().is_empty() {
        Json::Object(Default::default())
    } else {
        serde_json::from_str(attributes).map_err(|error| fail(format!("attributes: {error}")))?
    };
    let _ = (attributes, operands, limit);
    Err(fail("the interpreter does not know it".into()))
}
