//! Tensors as they cross the edge of the runtime: borrowed inputs, borrowed or owned outputs.

pub mod shape;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::aligned::AlignedBytes;
pub use shape::Shape;
use shape::checked_bytes;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is the same in memory as an element type.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// The element type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(
            impl sealed::Sealed for $rust {}
            impl Element for $rust {
                const DTYPE: DType = DType::$dtype;
            }
        )*
    };
}

elements! {
    f32 => F32, f64 => F64, half::f16 => F16, half::bf16 => Bf16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}

/// An element of a tensor of integers or truth values.
pub(crate) fn integer(dtype: DType, bytes: &[u8], index: usize) -> std::result::Result<i64, &'static str> {
    let size = dtype.alignment();
    let start = index.checked_mul(size).ok_or("does not exist")?;
    let bytes = start.checked_add(size).and_then(|end| bytes.get(start..end)).ok_or("does not exist")?;
    let mut word = [0; 8];
    word.get_mut(..size).ok_or("is not an integer")?.copy_from_slice(bytes);
    let raw = u64::from_le_bytes(word);
    let signed = |bits: u32| ((raw << (64 - bits)) as i64) >> (64 - bits);
    match dtype {
        DType::I8 => Ok(signed(8)),
        DType::I16 => Ok(signed(16)),
        DType::I32 => Ok(signed(32)),
        DType::I64 => Ok(raw as i64),
        DType::U8 | DType::U16 | DType::U32 | DType::Bool => Ok(raw as i64),
        DType::U64 => i64::try_from(raw).map_err(|_| "exceeds 63 bits"),
        _ => Err("is not an integer"),
    }
}

/// Elements that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub enum DataRef<'a> {
    /// Dense elements in row-major order, little-endian.
    Bytes(&'a [u8]),
    /// Strings in row-major order.
    Strings(&'a [String]),
}

/// A borrowed tensor: an input of a run.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    dtype: DType,
    shape: Shape,
    data: DataRef<'a>,
}

fn mismatch(dtype: DType, shape: &[usize], reason: String) -> Error {
    Error::TensorData { dtype, shape: shape.to_vec(), reason }
}

fn checked_shape(dtype: DType, shape: &[usize]) -> Result<Shape> {
    Shape::new(shape).ok_or_else(|| {
        mismatch(dtype, shape, format!("has more than {} dimensions", crate::manifest::MAX_RANK))
    })
}

fn check_length(dtype: DType, shape: &[usize], found: usize) -> Result<()> {
    let expected = checked_bytes(dtype, shape)?;
    if expected != found {
        return Err(mismatch(
            dtype,
            shape,
            format!("takes {expected} bytes, found {found}; pass matching data"),
        ));
    }
    Ok(())
}

impl<'a> TensorRef<'a> {
    /// A tensor over bytes, whose number must be what type and shape say.
    pub fn new(dtype: DType, shape: &[usize], bytes: &'a [u8]) -> Result<Self> {
        check_length(dtype, shape, bytes.len())?;
        Ok(TensorRef { dtype, shape: checked_shape(dtype, shape)?, data: DataRef::Bytes(bytes) })
    }

    /// A tensor over a slice of elements.
    pub fn from_slice<T: Element>(shape: &[usize], elements: &'a [T]) -> Result<Self> {
        TensorRef::new(T::DTYPE, shape, bytemuck::cast_slice(elements))
    }

    /// A tensor of strings.
    pub fn from_strings(shape: &[usize], strings: &'a [String]) -> Result<Self> {
        let dtype = DType::String;
        if shape::elements(shape) != Some(strings.len() as u64) {
            let reason = format!("does not match {} strings; pass one for each element", strings.len());
            return Err(mismatch(dtype, shape, reason));
        }
        Ok(TensorRef { dtype, shape: checked_shape(dtype, shape)?, data: DataRef::Strings(strings) })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> DataRef<'a> {
        self.data
    }
}

/// Memory that the caller lends for an output.
#[derive(Debug)]
pub enum DataMut<'a> {
    /// At least as many bytes as the output takes; the rest stays as it is.
    Bytes(&'a mut [u8]),
    /// Replaced by the strings of the output.
    Strings(&'a mut Vec<String>),
}

/// An output buffer of the caller: element type, memory, and after a run the shape of what was written.
#[derive(Debug)]
pub struct TensorMut<'a> {
    dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) data: DataMut<'a>,
}

impl<'a> TensorMut<'a> {
    /// A buffer of bytes for an output of this type. It may be larger than the output.
    pub fn new(dtype: DType, bytes: &'a mut [u8]) -> Self {
        TensorMut { dtype, shape: Shape::SCALAR, data: DataMut::Bytes(bytes) }
    }

    /// A buffer of elements.
    pub fn from_slice<T: Element>(elements: &'a mut [T]) -> Self {
        TensorMut::new(T::DTYPE, bytemuck::cast_slice_mut(elements))
    }

    /// A buffer for strings.
    pub fn from_strings(strings: &'a mut Vec<String>) -> Self {
        TensorMut { dtype: DType::String, shape: Shape::SCALAR, data: DataMut::Strings(strings) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape of the output after a run.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// Elements of an owned tensor.
#[derive(Debug)]
enum Data {
    Bytes(AlignedBytes),
    Strings(Vec<String>),
}

/// An owned tensor: a result of a run.
#[derive(Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Data,
}

impl Tensor {
    /// A tensor of zeros, or of empty strings.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        let checked = checked_shape(dtype, shape)?;
        let data = if dtype == DType::String {
            let count = checked.elements().and_then(|count| usize::try_from(count).ok());
            let mut strings = Vec::new();
            let reserved = count.is_some_and(|count| strings.try_reserve_exact(count).is_ok());
            if !reserved {
                return Err(mismatch(dtype, shape, "has too many strings for the memory".into()));
            }
            strings.resize(count.unwrap_or(0), String::new());
            Data::Strings(strings)
        } else {
            Data::Bytes(AlignedBytes::zeroed(checked_bytes(dtype, shape)?, "a tensor")?)
        };
        Ok(Tensor { dtype, shape: checked, data })
    }

    pub(crate) fn from_bytes(dtype: DType, shape: Shape, bytes: AlignedBytes) -> Self {
        Tensor { dtype, shape, data: Data::Bytes(bytes) }
    }

    pub(crate) fn from_string_vec(shape: Shape, strings: Vec<String>) -> Self {
        Tensor { dtype: DType::String, shape, data: Data::Strings(strings) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(bytes) => bytes,
            Data::Strings(_) => &[],
        }
    }

    /// The elements as bytes; empty for strings.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.data {
            Data::Bytes(bytes) => bytes,
            Data::Strings(_) => &mut [],
        }
    }

    /// The elements, `None` when the type is another one.
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        (T::DTYPE == self.dtype).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// The strings, `None` when the type is another one.
    pub fn strings(&self) -> Option<&[String]> {
        match &self.data {
            Data::Strings(strings) => Some(strings),
            Data::Bytes(_) => None,
        }
    }

    /// The same tensor, borrowed.
    pub fn as_ref(&self) -> TensorRef<'_> {
        let data = match &self.data {
            Data::Bytes(bytes) => DataRef::Bytes(bytes),
            Data::Strings(strings) => DataRef::Strings(strings),
        };
        TensorRef { dtype: self.dtype, shape: self.shape, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_must_match() {
        assert!(TensorRef::from_slice(&[2, 3], &[0f32; 6]).is_ok());
        assert!(TensorRef::from_slice(&[2, 3], &[0f32; 5]).is_err());
        assert!(TensorRef::new(DType::I4, &[3], &[0; 2]).is_ok());
        assert!(TensorRef::new(DType::F32, &[usize::MAX, 2], &[]).is_err());
        assert!(TensorRef::from_strings(&[2], &["a".to_owned()]).is_err());
    }

    #[test]
    fn owned_tensors_know_their_type() {
        let tensor = Tensor::zeros(DType::I64, &[2, 2]).unwrap();
        assert_eq!(tensor.elements::<i64>(), Some([0; 4].as_slice()));
        assert_eq!(tensor.elements::<u64>(), None);
        assert_eq!(Tensor::zeros(DType::String, &[2]).unwrap().strings().unwrap().len(), 2);
        assert!(Tensor::zeros(DType::F64, &[1 << 62]).is_err());
    }
}
