//! Tensor contents: dtype, concrete shape and a shared byte buffer.
//!
//! The bytes are reference counted and may live in a memory map, so a weight is never copied when it enters the IR. A
//! tensor whose elements are all the same keeps one of them, and is written out only for who asks for its bytes.

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

/// The most bytes of a uniform tensor, so that asking for them is always possible.
pub const MOST_UNIFORM_BYTES: usize = 1 << 30;

enum Contents {
    Bytes(Bytes),
    /// One element, which stands for all, and all of them once somebody asked.
    Uniform(Bytes, OnceLock<Bytes>),
}

struct Inner {
    dtype: DType,
    shape: Vec<usize>,
    contents: Contents,
    digest: OnceLock<[u8; 32]>,
}

/// An immutable tensor value; cloning shares the bytes.
#[derive(Clone)]
pub struct Data(Arc<Inner>);

/// Elements of a uniform tensor that are hashed at a time.
const UNIFORM_BLOCK: usize = 1 << 14;

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
        Ok(Data::with(dtype, shape, Contents::Bytes(bytes)))
    }

    fn with(dtype: DType, shape: &[usize], contents: Contents) -> Data {
        Data(Arc::new(Inner { dtype, shape: shape.to_vec(), contents, digest: OnceLock::new() }))
    }

    /// A tensor whose elements are all `element`, which is given as bytes. Takes no more memory than one element until its
    /// bytes are asked for; at most [`MOST_UNIFORM_BYTES`]. Packed and text elements have no such form.
    pub fn uniform(dtype: DType, shape: &[usize], element: Bytes) -> Result<Data, DataError> {
        let count = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let expected = count.and_then(|count| dtype.bytes_for(count));
        let expected = expected.filter(|bytes| *bytes <= MOST_UNIFORM_BYTES);
        let expected = expected.ok_or_else(|| DataError::TooLarge(shape.to_vec()))?;
        if dtype.is_packed() || dtype == DType::String || element.len() != dtype.size() {
            let (shape, found) = (shape.to_vec(), element.len());
            return Err(DataError::Length { dtype, shape, expected, found });
        }
        Ok(Data::with(dtype, shape, Contents::Uniform(element, OnceLock::new())))
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
        match &self.0.contents {
            Contents::Bytes(bytes) => bytes,
            Contents::Uniform(element, expanded) => {
                expanded.get_or_init(|| Bytes::from(element.repeat(self.count())))
            }
        }
    }

    /// Number of bytes of the contents.
    pub fn byte_count(&self) -> usize {
        match &self.0.contents {
            Contents::Bytes(bytes) => bytes.len(),
            Contents::Uniform(element, _) => element.len() * self.count(),
        }
    }

    /// The one element that all are, where the tensor was made of it.
    pub fn as_uniform(&self) -> Option<&Bytes> {
        match &self.0.contents {
            Contents::Bytes(_) => None,
            Contents::Uniform(element, _) => Some(element),
        }
    }

    /// The same bytes under another shape with as many elements.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Data, DataError> {
        if let Contents::Uniform(element, _) = &self.0.contents
            && shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)) == Some(self.count())
        {
            return Data::uniform(self.dtype(), shape, element.clone());
        }
        Data::new(self.dtype(), shape, self.bytes().clone())
    }

    /// Content hash over dtype, shape and bytes; computed once.
    pub fn digest(&self) -> &[u8; 32] {
        self.0.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(self.0.dtype.text().as_bytes());
            // The rank tells extents from elements: `[0]` without elements from a scalar zero.
            hasher.update(&(self.0.shape.len() as u64).to_le_bytes());
            for dim in &self.0.shape {
                hasher.update(&(*dim as u64).to_le_bytes());
            }
            match &self.0.contents {
                Contents::Bytes(bytes) => {
                    hasher.update(bytes);
                }
                // Equal contents have equal hashes, whatever form they are in.
                Contents::Uniform(element, _) => {
                    let block = element.repeat(UNIFORM_BLOCK.min(self.count()));
                    let mut rest = self.byte_count();
                    while rest > 0 {
                        let part = rest.min(block.len());
                        hasher.update(&block[..part]);
                        rest -= part;
                    }
                }
            }
            *hasher.finalize().as_bytes()
        })
    }

    /// The integers of an integer or truth tensor, widened; `None` for other types.
    pub fn to_integers(&self) -> Option<Vec<i64>> {
        let bytes = &self.bytes()[..];
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
            self.bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_tensors_equal_those_written_out() {
        for (dtype, element) in
            [(DType::F32, vec![10u8, 215, 163, 60]), (DType::U8, vec![7]), (DType::F64, vec![1; 8])]
        {
            for shape in [&[][..], &[0, 3], &[1], &[7, 11], &[129, 257]] {
                let count: usize = shape.iter().product();
                let full = Data::new(dtype, shape, element.repeat(count).into()).unwrap();
                let uniform = Data::uniform(dtype, shape, element.clone().into()).unwrap();
                assert_eq!(full, uniform);
                assert_eq!((full.byte_count(), full.bytes()), (uniform.byte_count(), uniform.bytes()));
                let flat = uniform.reshaped(&[count]).unwrap();
                assert!(flat.as_uniform().is_some());
                assert_eq!(flat, full.reshaped(&[count]).unwrap());
                assert!(uniform.reshaped(&[count + 1]).is_err());
            }
        }
    }

    #[test]
    fn extents_are_not_elements() {
        let zero = |shape: &[usize], count: usize| Data::from_i64(shape, &vec![0; count]).unwrap();
        assert_ne!(zero(&[0], 0).digest(), zero(&[], 1).digest());
        assert_ne!(zero(&[1, 0], 0).digest(), Data::from_i64(&[1], &[0]).unwrap().digest());
    }

    #[test]
    fn uniform_tensors_are_bounded() {
        let zero = Bytes::from_static(&[0; 4]);
        for shape in [&[1usize << 40][..], &[usize::MAX, 2], &[(MOST_UNIFORM_BYTES / 4) + 1]] {
            assert!(Data::uniform(DType::F32, shape, zero.clone()).is_err());
        }
        assert!(Data::uniform(DType::I4, &[2], Bytes::from_static(&[0])).is_err());
        assert!(Data::uniform(DType::F64, &[2], zero).is_err());
    }
}
