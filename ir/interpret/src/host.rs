//! Host functions: what is not a loop nest.
//!
//! A host function has the name of its ONNX operator, such as `onnx.NonZero`; its operands are the ONNX inputs in order,
//! those that are left out in the middle are listed in the attribute `absent`; its attributes are a JSON object of the
//! ONNX attributes, in which a tensor is an object of `shape` and `data` and a number that JSON lacks is text.

mod call;
mod deform;
mod ngrams;
mod region;
mod selection;
mod sequence;
mod text;
mod trees;

use crate::error::Result;
use crate::value::Value;
use call::Call;

/// The results of a host function of these result types.
pub(crate) fn call(
    function: &str,
    attributes: &str,
    types: &[String],
    operands: &[Value],
    limit: usize,
) -> Result<Vec<Value>> {
    let call = Call::new(function, attributes, types, operands, limit)?;
    match function.strip_prefix("onnx.").unwrap_or(function) {
        "NonZero" => selection::nonzero(&call),
        "Compress" => selection::compress(&call),
        "Unique" => selection::unique(&call),
        "NonMaxSuppression" => selection::non_max_suppression(&call),
        "Det" => selection::determinant(&call),
        "RoiAlign" => region::roi_align(&call),
        "DeformConv" => deform::deform_convolve(&call),
        "TfIdfVectorizer" => ngrams::vectorize(&call),
        "StringNormalizer" => text::normalize(&call),
        "StringConcat" => text::concat(&call),
        "StringSplit" => text::split(&call),
        "RegexFullMatch" => text::full_match(&call),
        "Equal" => text::equal(&call),
        "Cast" => text::cast(&call),
        "LabelEncoder" => text::encode_labels(&call),
        "TreeEnsemble" => trees::ensemble(&call),
        "SequenceEmpty" => Ok(vec![Value::Sequence(Vec::new())]),
        "SequenceConstruct" => Ok(vec![Value::Sequence(operands.to_vec())]),
        "SequenceInsert" => sequence::insert(&call),
        "SequenceErase" => sequence::erase(&call),
        "SequenceAt" => sequence::at(&call),
        "SequenceLength" => sequence::length(&call),
        "ConcatFromSequence" => sequence::concat_all(&call),
        "SplitToSequence" => sequence::split(&call),
        "Optional" => Ok(vec![Value::Optional(operands.first().cloned().map(Box::new))]),
        "OptionalHasElement" => sequence::has_element(&call),
        "OptionalGetElement" => sequence::get_element(&call),
        _ => call.fail("the interpreter does not know it"),
    }
}
