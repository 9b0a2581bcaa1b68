//! Tensor contents: dtype, concrete shape and a shared byte buffer.
//!
//! The bytes are reference counted and may live in a memory map, so a weight is never copied when it enters the IR.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::convert::split_text;
use crate::dtype::DType;

/// Why bytes do not make a tensor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DataError {
    /// The byte count does not follow from dtype and shape.
    #[error("a {dtype} tensor of shape {shape:?} takes {expected} bytes, found {found}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Shape as declared.
        shape: Vec<usize>,
        /// Bytes that follow from the declaration.
        expected: usize,
        /// Bytes present.
        found: usize,
    },
    /// The element count does not fit the address space.
    #[error("the shape {0:?} has more elements than can be addressed")]
    TooLarge(Vec<usize>),
    /// The bytes of a text tensor are not as many texts as it has elements.
    #[error("the bytes of a text tensor of shape {0:?} are not that many UTF-8 texts with lengths")]
    Text(Vec<usize>),
}

struct Inner {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
    digest: OnceLock<[u8; 32]>,
}

/// An immutable tensor value; cloning shares the bytes.
#[derive(Clone)]
pub struct Data(Arc<Inner>);

impl Data {
    /// A tensor over existing bytes, little endian, row-major, sub-byte elements packed from the low bits; each text is
    /// its length as `u32` and its UTF-8 bytes.
    pub fn new(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Data, DataError> {
        let too_large = || DataError::TooLarge(shape.to_vec());
        let count =
            shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)).ok_or_else(too_large)?;
        let expected = dtype.bytes_for(count).ok_or_else(too_large)?;
        if dtype == DType::String {
            let mut rest = &bytes[..];
            // An element takes four bytes at least, so the count is bounded before anything runs that often.
            let whole = count <= bytes.len() / 4
                && (0..count).all(|_| match split_text(rest) {
                    Some((_, tail)) => {
                        rest = tail;
                        true
                    }
                    None => false,
                })
                && rest.is_empty();
            if !whole {
                return Err(DataError::Text(shape.to_vec()));
            }
        } else if expected != bytes.len() {
            return Err(DataError::Length { dtype, shape: shape.to_vec(), expected, found: bytes.len() });
        }
        Ok(Data(Arc::new(Inner { dtype, shape: shape.to_vec(), bytes, digest: OnceLock::new() })))
    }

    /// A tensor of `f32` values.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Data, DataError> {
        Data::new(DType::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A tensor of texts.
    pub fn from_texts<T: AsRef<str>>(shape: &[usize], texts: &[T]) -> Result<Data, DataError> {
        let mut bytes = Vec::new();
        texts.iter().for_each(|text| crate::convert::push_text(text.as_ref(), &mut bytes));
        Data::new(DType::String, shape, Bytes::from(bytes))
    }

    /// A tensor of `i64` values.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Result<Data, DataError> {
        Data::new(DType::I64, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// The contents.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The same bytes under another shape with as many elements.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Data, DataError> {
        Data::new(self.dtype(), shape, self.0.bytes.clone())
    }

    /// Content hash over dtype, shape and bytes; computed once.
    pub fn digest(&self) -> &[u8; 32] {
        self.0.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(self.0.dtype.text().as_bytes());
            for dim in &self.0.shape {
                hasher.update(&(*dim as u64).to_le_bytes());
            }
            hasher.update(&self.0.bytes);
            *hasher.finalize().as_bytes()
        })
    }

    /// The integers of an integer or truth tensor, widened; `None` for other types.
    pub fn to_integers(&self) -> Option<Vec<i64>> {
        let bytes = &self.0.bytes[..];
        macro_rules! widen {
            ($ty:ty) => {
                bytes
                    .chunks_exact(size_of::<$ty>())
                    .map(|chunk| <$ty>::from_le_bytes(chunk.try_into().unwrap_or_default()) as i64)
                    .collect()
            };
        }
        Some(match self.dtype() {
            DType::I8 => widen!(i8),
            DType::I16 => widen!(i16),
            DType::I32 => widen!(i32),
            DType::I64 => widen!(i64),
            DType::U8 | DType::Bool => widen!(u8),
            DType::U16 => widen!(u16),
            DType::U32 => widen!(u32),
            DType::U64 => widen!(u64),
            _ => return None,
        })
    }

    /// The numbers of an `f32` tensor; `None` for other types.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.dtype() == DType::F32).then(|| {
            self.0
                .bytes
                .chunks_exact(4)
                .map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
                .collect()
        })
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.dtype() == other.dtype()
                && self.shape() == other.shape()
                && self.digest() == other.digest())
    }
}

impl Eq for Data {}

impl Hash for Data {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl PartialOrd for Data {
    fn partial_cmp(&self, other: &Data) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Data {
    fn cmp(&self, other: &Data) -> Ordering {
        self.digest().cmp(other.digest())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data<{:?}x{}>", self.shape(), self.dtype())
    }
}
