//! safetensors files: a JSON header and tensors as slices of the memory map.
//!
//! The format: the length of the header (`u64`, little endian), the header, the tensors. The header names each tensor
//! with element type, shape and the range of its bytes behind the header. As in GGUF ([`crate::gguf`]) nothing is
//! trusted: the header lies inside the file, ranges lie inside the data, are as long as element type and shape say, do
//! not overlap, and names are unique.

mod error;
mod folder;
mod header;

pub use error::SafetensorsError;
pub use folder::Folder;

use crate::map::map_file;
use bytes::Bytes;
use header::Entry;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::path::Path;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;

/// The most that a header may take, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

/// A file that has been read; tensors refer to its map.
#[derive(Clone, Debug)]
pub struct Safetensors {
    /// Free texts of the header's `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Tensors by name.
    pub tensors: IndexMap<String, Data>,
}

impl Safetensors {
    /// Maps and reads a file.
    ///
    /// # Errors
    /// The file cannot be mapped, or is not well formed.
    pub fn open(path: &Path) -> Result<Safetensors, SafetensorsError> {
        Safetensors::parse(map_file(path).map_err(SafetensorsError::Io)?)
    }

    /// Reads a file that is in memory; tensors share the bytes.
    ///
    /// # Errors
    /// The bytes are not a well-formed file.
    pub fn parse(file: Bytes) -> Result<Safetensors, SafetensorsError> {
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(SafetensorsError::Header { length: 8, available: file.len() });
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER || length > rest.len() as u64 {
            return Err(SafetensorsError::Header { length, available: rest.len() });
        }
        let start = 8 + length as usize;
        let header = header::read(&file[8..start])?;
        let data = file.slice(start..);
        let mut tensors = IndexMap::with_capacity(header.tensors.len());
        let mut ranges = Vec::with_capacity(header.tensors.len());
        for (name, entry) in header.tensors {
            let tensor = tensor(&name, &entry, &data)?;
            let [first, end] = entry.data_offsets;
            if first < end {
                ranges.push((first, end, name.clone()));
            }
            tensors.insert(name, tensor);
        }
        ranges.sort();
        match ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
            Some(pair) => {
                Err(SafetensorsError::Overlap { first: pair[0].2.clone(), second: pair[1].2.clone() })
            }
            None => Ok(Safetensors { metadata: header.metadata, tensors }),
        }
    }
}

fn tensor(name: &str, entry: &Entry, data: &Bytes) -> Result<Data, SafetensorsError> {
    let name = || name.to_owned();
    let dtype = dtype(&entry.dtype)
        .ok_or_else(|| SafetensorsError::ElementType { name: name(), dtype: entry.dtype.clone() })?;
    let [first, end] = entry.data_offsets;
    if first > end || end > data.len() as u64 {
        return Err(SafetensorsError::Outside { name: name(), first, end, available: data.len() });
    }
    let shape: Option<Vec<usize>> = entry.shape.iter().map(|extent| usize::try_from(*extent).ok()).collect();
    let count = entry.shape.iter().try_fold(1u64, |product, extent| product.checked_mul(*extent));
    let expected = count.and_then(|count| count.checked_mul(dtype.size() as u64));
    match (shape, expected) {
        (Some(shape), Some(expected)) if expected == end - first => {
            let bytes = data.slice(first as usize..end as usize);
            Data::new(dtype, &shape, bytes)
                .map_err(|source| SafetensorsError::Tensor { name: name(), source })
        }
        _ => Err(SafetensorsError::Length {
            name: name(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            found: end - first,
        }),
    }
}

/// The element type of the IR by its name in headers.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F8_E4M3" => DType::F8E4M3FN,
        "F8_E5M2" => DType::F8E5M2,
        "F8_E8M0" => DType::F8E8M0FNU,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I16" => DType::I16,
        "I8" => DType::I8,
        "U64" => DType::U64,
        "U32" => DType::U32,
        "U16" => DType::U16,
        "U8" => DType::U8,
        "BOOL" => DType::Bool,
        _ => return None,
    })
}
