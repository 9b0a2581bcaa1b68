//! ONNX `StringNormalizer`: drops stop words, then changes the case. When nothing is left the result is one empty text.

use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::DataRef;
use std::borrow::Cow;

#[derive(Clone, Copy)]
enum Case {
    Keep,
    Lower,
    Upper,
}

struct Normalizer {
    case: Case,
    sensitive: bool,
    stop_words: Vec<String>,
}

/// Input and output `[words]` or `[1, words]`. Attributes `case_change_action` (`LOWER`, `UPPER`, `NONE`),
/// `is_case_sensitive`, `stopwords`, `locale` (case mapping follows Unicode whatever it says).
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &["case_change_action", "is_case_sensitive", "stopwords", "locale"])?;
    signature.expect_input(0, DType::String)?;
    let rank = signature.input(0)?.rank;
    if !(1..=2).contains(&rank) {
        return Err(format!("the input has rank {rank}"));
    }
    signature.expect_output(0, DType::String, Some(rank))?;
    let action = if signature.has("case_change_action") {
        signature.string("case_change_action")?
    } else {
        "NONE".into()
    };
    let case = match action.as_str() {
        "NONE" => Case::Keep,
        "LOWER" => Case::Lower,
        "UPPER" => Case::Upper,
        other => return Err(format!("attribute `case_change_action` is `{other}`")),
    };
    let sensitive = signature.flag("is_case_sensitive", false)?;
    let mut stop_words =
        if signature.has("stopwords") { signature.strings("stopwords")? } else { Vec::new() };
    if !sensitive {
        stop_words.iter_mut().for_each(|word| *word = word.to_lowercase());
    }
    Ok(Box::new(Normalizer { case, sensitive, stop_words }))
}

impl Normalizer {
    fn keeps(&self, text: &str) -> bool {
        let key = if self.sensitive { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) };
        !self.stop_words.iter().any(|word| *word == key)
    }
}

impl HostFunction for Normalizer {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let input = call.input(0)?;
        let DataRef::Strings(texts) = input.data() else {
            return Err(call.fail("input 0 is not of strings"));
        };
        if input.shape().len() == 2 && input.shape()[0] != 1 {
            return Err(call.fail(format!("the input has shape {:?}, not [1, words]", input.shape())));
        }
        let changed = texts.iter().filter(|text| self.keeps(text)).map(|text| match self.case {
            Case::Keep => text.clone(),
            Case::Lower => text.to_lowercase(),
            Case::Upper => text.to_uppercase(),
        });
        let mut kept: Vec<String> = changed.collect();
        if kept.is_empty() {
            kept.push(String::new());
        }
        let shape = [1, kept.len()];
        let shape = if input.shape().len() == 2 { &shape[..] } else { &shape[1..] };
        *call.output_strings(0, shape)? = kept;
        Ok(())
    }
}
