//! Models in several files: `NAME-00001-of-00003.gguf` and so on, the metadata in the first.

use super::{Gguf, GgufError, Value};
use std::path::Path;

/// Reads a file, and the other parts beside it where it is one of several.
pub(super) fn open(path: &Path) -> Result<Gguf, GgufError> {
    let own = Gguf::open(path)?;
    let count = own.value("split.count").and_then(Value::unsigned).unwrap_or(1);
    if count <= 1 {
        return Ok(own);
    }
    let number = own.value("split.no").and_then(Value::unsigned).unwrap_or(0);
    let name = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let Some(stem) = (number < count).then(|| file.strip_suffix(&name(number))).flatten() else {
        let expected = name(number.min(count));
        let reason =
            format!("it is part {} of {count}, but its name does not end in '{expected}'", number + 1);
        return Err(GgufError::Split(reason));
    };
    // Each part must be there, so the count is bounded by the files of the folder.
    let mut whole: Option<Gguf> = None;
    for number in 0..count {
        let part = format!("{stem}{}", name(number));
        let refuse = |reason: String| GgufError::Split(format!("part '{part}': {reason}"));
        let next = Gguf::open(&path.with_file_name(&part)).map_err(|error| refuse(error.to_string()))?;
        let says = |key: &str| next.value(key).and_then(Value::unsigned);
        if (says("split.no"), says("split.count")) != (Some(number), Some(count)) {
            return Err(refuse("its metadata says that it is another one".into()));
        }
        let Some(whole) = &mut whole else {
            whole = Some(next);
            continue;
        };
        for (name, tensor) in next.tensors {
            if whole.tensors.contains_key(&name) {
                return Err(GgufError::DuplicateTensor(name));
            }
            whole.tensors.insert(name, tensor);
        }
    }
    Ok(whole.unwrap_or(own))
}
