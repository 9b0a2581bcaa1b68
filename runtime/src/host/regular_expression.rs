//! ONNX `RegexFullMatch`: whether texts match a pattern from end to end.

use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::DataRef;
use regex_lite::Regex;

struct FullMatch(Regex);

/// Attribute `pattern`. Classes such as `\d` are those of ASCII, as in RE2, which ONNX refers to.
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &["pattern"])?;
    signature.expect_input(0, DType::String)?;
    signature.expect_output(0, DType::Bool, Some(signature.input(0)?.rank))?;
    let pattern = signature.string("pattern")?;
    let regex =
        Regex::new(&format!(r"^(?:{pattern})$")).map_err(|error| format!("attribute `pattern`: {error}"))?;
    Ok(Box::new(FullMatch(regex)))
}

impl HostFunction for FullMatch {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let input = call.input(0)?;
        let DataRef::Strings(texts) = input.data() else {
            return Err(call.fail("input 0 is not of strings"));
        };
        for (text, slot) in texts.iter().zip(call.output::<u8>(0, input.shape())?) {
            *slot = self.0.is_match(text).into();
        }
        Ok(())
    }
}
