//! GGUF files: metadata, and tensors as slices of the memory map.
//!
//! The format is that of the GGUF specification, versions 2 and 3, little endian: a header, key-value metadata, a table
//! of tensors, and behind padding to the alignment the tensor data. Nothing of a file is trusted: counts are bounded by
//! the bytes that are left before anything is allocated, every tensor lies inside the file at an aligned offset, tensors
//! do not overlap, names are unique. Arrays of the metadata (a vocabulary has some 100,000 texts) stay where they are in
//! the map and are walked.
//!
//! | step | module |
//! |---|---|
//! | bounded reads | `cursor` |
//! | metadata values | [`value`] |
//! | numbers and blocks that tensors hold | [`encoding`] |

mod cursor;
pub mod encoding;
mod error;
mod split;
pub mod value;

pub use encoding::Encoding;
pub use error::GgufError;
pub use value::{Array, Value};

use crate::map::map_file;
use bytes::Bytes;
use cursor::Cursor;
use indexmap::IndexMap;
use indexmap::map::Entry;
use std::path::Path;
use tcc_ir::data::{Data, DataError};
use tcc_ir::dtype::DType;

/// The first bytes of every file.
const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors start and what their offsets are multiples of, unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The specification's limit on dimensions.
const MAX_DIMENSIONS: u32 = 4;
/// The specification's limit on keys, in bytes.
const MAX_KEY: usize = 65_535;
/// The least that one entry of the tensor table takes: name length, dimension count, encoding and offset.
const LEAST_TENSOR_ENTRY: usize = 8 + 4 + 4 + 8;
/// The least that one metadata entry takes: key length, type and a value of one byte.
const LEAST_METADATA_ENTRY: usize = 8 + 4 + 1;

/// A file that has been read; tensors refer to its map.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Metadata in the order of the file.
    pub metadata: IndexMap<String, Value>,
    /// Tensors by name in the order of the file.
    pub tensors: IndexMap<String, Tensor>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Extents, outermost first (the file has them innermost first).
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub encoding: Encoding,
    /// The contents, a slice of the memory map.
    pub bytes: Bytes,
}

impl Tensor {
    /// The stored tensor as the IR holds it: numbers of a plain type, or the bytes of blocks with the length of a row in
    /// bytes as last extent.
    ///
    /// # Errors
    /// Bytes and shape disagree, which [`Gguf::parse`] excludes.
    pub fn data(&self) -> Result<Data, DataError> {
        match self.encoding {
            Encoding::Plain(dtype) => Data::new(dtype, &self.shape, self.bytes.clone()),
            Encoding::Blocks(format) => {
                let mut shape = self.shape.clone();
                if let Some(row) = shape.last_mut() {
                    *row = *row / format.elements() * format.bytes();
                }
                Data::new(DType::U8, &shape, self.bytes.clone())
            }
        }
    }
}

/// An entry of the tensor table whose place in the file is not checked yet.
struct Declared {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    offset: u64,
    bytes: u64,
}

impl Gguf {
    /// Maps and reads a file.
    ///
    /// # Errors
    /// The file cannot be mapped, or is not well formed.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        Gguf::parse(map_file(path).map_err(GgufError::Io)?)
    }

    /// Maps and reads a file, and the other parts of the model where it is one of several.
    ///
    /// # Errors
    /// As [`Gguf::open`]; a part is missing, or is another one than its name says.
    pub fn open_parts(path: &Path) -> Result<Gguf, GgufError> {
        split::open(path)
    }

    /// Reads a file that is in memory; tensors share the bytes.
    ///
    /// # Errors
    /// The bytes are not a well-formed file.
    pub fn parse(file: Bytes) -> Result<Gguf, GgufError> {
        let mut cursor = Cursor::new(&file);
        if cursor.array::<4>("the magic number").ok() != Some(MAGIC) {
            return Err(GgufError::Magic);
        }
        let version = cursor.u32("the version")?;
        if version != 0 && version & 0xffff == 0 {
            return Err(GgufError::BigEndian);
        }
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = cursor.u64("the tensor count")?;
        let metadata_count = cursor.u64("the metadata count")?;
        let metadata_count = cursor.bounded(metadata_count, LEAST_METADATA_ENTRY, "metadata entries")?;
        let metadata = read_metadata(&mut cursor, metadata_count)?;
        let alignment = alignment(&metadata)?;
        let tensor_count = cursor.bounded(tensor_count, LEAST_TENSOR_ENTRY, "tensors")?;
        let declared: Vec<Declared> =
            (0..tensor_count).map(|_| read_tensor(&mut cursor, alignment)).collect::<Result<_, _>>()?;
        let start = (cursor.position() as u64).next_multiple_of(alignment);
        let tensors = place(&file, start, declared)?;
        Ok(Gguf { version, metadata, tensors })
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<IndexMap<String, Value>, GgufError> {
    let mut metadata = IndexMap::new();
    for _ in 0..count {
        let key = cursor.text("a metadata key")?;
        if key.len() > MAX_KEY {
            return Err(GgufError::Count {
                what: "bytes of a metadata key",
                count: key.len() as u64,
                limit: MAX_KEY as u64,
            });
        }
        let value = Value::read(cursor, key)?;
        match metadata.entry(key.to_owned()) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(_) => return Err(GgufError::DuplicateKey(key.to_owned())),
        };
    }
    Ok(metadata)
}

fn alignment(metadata: &IndexMap<String, Value>) -> Result<u64, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => match value.unsigned() {
            // The specification asks for a multiple of 8; every writer uses a power of two.
            Some(alignment) if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) => {
                Ok(alignment)
            }
            _ => Err(GgufError::Alignment(format!("{value:?}"))),
        },
    }
}

fn read_tensor(cursor: &mut Cursor<'_>, alignment: u64) -> Result<Declared, GgufError> {
    let name = cursor.text("a tensor name")?.to_owned();
    let rank = cursor.u32("the rank of a tensor")?;
    if rank == 0 || rank > MAX_DIMENSIONS {
        return Err(GgufError::Rank { name, rank });
    }
    let mut shape = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        shape.push(cursor.u64("the shape of a tensor")?);
    }
    let code = cursor.u32("the encoding of a tensor")?;
    let offset = cursor.u64("the offset of a tensor")?;
    shape.reverse();
    let encoding =
        Encoding::of_code(code).map_err(|encoding| GgufError::Encoding { name: name.clone(), encoding })?;
    let too_large = || GgufError::Shape { name: name.clone(), shape: shape.clone() };
    let row = shape.last().copied().unwrap_or(0);
    let row_bytes = match encoding {
        Encoding::Plain(dtype) => row.checked_mul(dtype.size() as u64),
        Encoding::Blocks(format) => {
            if !row.is_multiple_of(format.elements() as u64) {
                return Err(GgufError::Row { name, row, format: format.text(), block: format.elements() });
            }
            (row / format.elements() as u64).checked_mul(format.bytes() as u64)
        }
    };
    let rows = shape[..shape.len() - 1].iter().try_fold(1u64, |product, extent| product.checked_mul(*extent));
    let bytes = rows.zip(row_bytes).and_then(|(rows, row)| rows.checked_mul(row)).ok_or_else(too_large)?;
    let fits: Option<Vec<usize>> = shape.iter().map(|extent| usize::try_from(*extent).ok()).collect();
    let shape = fits.ok_or_else(too_large)?;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { name, offset, alignment });
    }
    Ok(Declared { name, shape, encoding, offset, bytes })
}

/// Cuts the tensors out of the file after checking that they lie inside and apart.
fn place(file: &Bytes, start: u64, declared: Vec<Declared>) -> Result<IndexMap<String, Tensor>, GgufError> {
    let length = file.len() as u64;
    let mut tensors = IndexMap::with_capacity(declared.len());
    let mut ranges: Vec<(u64, u64, String)> = Vec::with_capacity(declared.len());
    for Declared { name, shape, encoding, offset, bytes } in declared {
        let first = start.checked_add(offset);
        let range = first.and_then(|first| Some((first, first.checked_add(bytes)?)));
        let Some((first, end)) = range.filter(|(_, end)| *end <= length) else {
            return Err(GgufError::Outside { name, offset, bytes, available: length.saturating_sub(start) });
        };
        ranges.push((first, end, name.clone()));
        let tensor = Tensor { shape, encoding, bytes: file.slice(first as usize..end as usize) };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(GgufError::DuplicateTensor(name));
        }
    }
    ranges.retain(|(first, end, _)| first < end);
    ranges.sort();
    match ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(GgufError::Overlap { first: pair[0].2.clone(), second: pair[1].2.clone() }),
        None => Ok(tensors),
    }
}
