//! safetensors files: the changes are of the header's values, and its length is made right again.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use serde_json::{Value, json};
use tcc_frontend::safetensors::Safetensors;

use super::Reader;
use super::mutate::Extreme;

pub const READER: Reader = Reader { name: "safetensors", seeds, mutate, read };

fn seeds() -> Vec<Vec<u8>> {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "a.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
        "b.qweight": {"dtype": "I32", "shape": [1, 2], "data_offsets": [28, 36]},
        "c": {"dtype": "F8_E4M3", "shape": [], "data_offsets": [36, 37]},
        "empty": {"dtype": "U8", "shape": [0, 4], "data_offsets": [37, 37]},
    });
    vec![assemble(&header, &[0; 37]), assemble(&json!({}), &[])]
}

fn assemble(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A number where sizes and offsets go wrong.
fn number(source: &mut Unstructured) -> Result<Value> {
    Ok(match source.int_in_range(0..=3u8)? {
        0 => Value::from(source.arbitrary::<Extreme>()?.value()),
        1 => Value::from(u64::MAX),
        _ => Value::from(source.int_in_range(-1..=40i64)?),
    })
}

fn mutate(file: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    let parts = file.split_first_chunk::<8>().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (header, data) = rest.split_at_checked(length)?;
        Some((serde_json::from_slice::<Value>(header).ok()?, data))
    });
    let Some((mut header, data)) = parts else { return super::bytes(file, source) };
    let Some(fields) = header.as_object_mut().filter(|fields| !fields.is_empty()) else {
        return super::bytes(file, source);
    };
    let at = source.choose_index(fields.len())?;
    let Some(entry) = fields.values_mut().nth(at) else { return super::bytes(file, source) };
    if !entry.is_object() {
        return super::bytes(file, source);
    }
    match source.int_in_range(0..=5u8)? {
        0 => entry["dtype"] = json!(source.choose(&["F64", "F16", "I8", "BOOL", "F4", ""])?),
        1 => entry["shape"] = json!([number(source)?, number(source)?, number(source)?]),
        2 => entry["data_offsets"] = json!([number(source)?, number(source)?]),
        3 => {
            let end = source.int_in_range(0..=1usize)?;
            if let Some(offset) = entry.get_mut("data_offsets").and_then(|offsets| offsets.get_mut(end)) {
                *offset = number(source)?;
            }
        }
        4 => *entry = number(source)?,
        _ => return Ok(assemble(&header, &super::bytes(data, source)?)),
    }
    Ok(assemble(&header, data))
}

fn read(file: &[u8]) {
    let Ok(read) = Safetensors::parse(Bytes::copy_from_slice(file)) else { return };
    let held: usize = read.tensors.values().map(|data| data.bytes().len()).sum();
    assert!(held <= file.len(), "tensors do not overlap");
}
