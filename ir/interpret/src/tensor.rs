//! Tensors as the interpreter holds them: one vector a class of numbers.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use tcc_ir::convert;
use tcc_ir::data::Data;
use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::Scalar;
use tcc_ir::types::Type;

use crate::error::{Error, Result};
use crate::indexing::count;

/// The elements of a tensor in row-major order, each exactly a value of its element type.
#[derive(Clone, PartialEq, Debug)]
pub enum Contents {
    /// Floating-point types that `f32` contains.
    F32(Vec<f32>),
    /// `f64`.
    F64(Vec<f64>),
    /// Integers and truth values; `ui64` as the same 64 bits.
    Integer(Vec<i64>),
    /// Text.
    Text(Vec<String>),
}

/// Runs the same expression on whichever vector there is, giving contents of the same class.
macro_rules! map_contents {
    ($contents:expr, $vector:ident => $body:expr) => {
        match $contents {
            Contents::F32($vector) => Contents::F32($body),
            Contents::F64($vector) => Contents::F64($body),
            Contents::Integer($vector) => Contents::Integer($body),
            Contents::Text($vector) => Contents::Text($body),
        }
    };
}

/// Runs the same expression on two vectors of one class, giving contents of that class.
macro_rules! zip_contents {
    ($a:expr, $b:expr, ($x:ident, $y:ident) => $body:expr) => {
        match ($a, $b) {
            (Contents::F32($x), Contents::F32($y)) => Ok(Contents::F32($body)),
            (Contents::F64($x), Contents::F64($y)) => Ok(Contents::F64($body)),
            (Contents::Integer($x), Contents::Integer($y)) => Ok(Contents::Integer($body)),
            (Contents::Text($x), Contents::Text($y)) => Ok(Contents::Text($body)),
            _ => Err($crate::error::Error::operands("the operands are of different element types")),
        }
    };
}

pub(crate) use {map_contents, zip_contents};

impl Contents {
    /// Contents of type `dtype` from numbers, rounded to it.
    pub(crate) fn from_numbers(dtype: DType, values: impl Iterator<Item = f64>) -> Contents {
        match dtype {
            DType::F64 => Contents::F64(values.collect()),
            _ if dtype.is_float() => {
                Contents::F32(values.map(|value| crate::number::round(dtype, value) as f32).collect())
            }
            _ => Contents::Integer(values.map(|value| crate::number::to_integer(dtype, value)).collect()),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Contents::F32(values) => values.len(),
            Contents::F64(values) => values.len(),
            Contents::Integer(values) => values.len(),
            Contents::Text(values) => values.len(),
        }
    }

    /// True where there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor; cloning shares the contents.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    contents: Arc<Contents>,
}

impl Tensor {
    /// A tensor of contents that are values of `dtype`, as many as the shape says.
    pub fn new(dtype: DType, shape: &[usize], contents: Contents) -> Result<Tensor> {
        let class = match (&contents, dtype) {
            (Contents::F64(_), DType::F64) => true,
            (Contents::F32(_), dtype) => dtype.is_float() && dtype != DType::F64,
            (Contents::Integer(_), dtype) => dtype.is_integer() || dtype == DType::Bool,
            (Contents::Text(_), dtype) => dtype == DType::String,
            _ => false,
        };
        let expected = shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
        if !class || expected != Some(contents.len()) {
            let found = contents.len();
            return Err(Error::operands(format!(
                "{found} elements are no {dtype} tensor of shape {shape:?}"
            )));
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), contents: Arc::new(contents) })
    }

    /// A tensor of any numeric type from numbers, each rounded to the type.
    pub fn from_numbers(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Tensor> {
        Tensor::new(dtype, shape, Contents::from_numbers(dtype, values.iter().copied()))
    }

    /// A tensor of any integer type from integers, wrapped to it.
    pub fn from_integers(dtype: DType, shape: &[usize], values: &[i64]) -> Result<Tensor> {
        let wrap = |value: &i64| crate::number::wrap(dtype, i128::from(*value));
        Tensor::new(dtype, shape, Contents::Integer(values.iter().map(wrap).collect()))
    }

    /// The same contents under another shape with as many elements.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Result<Tensor> {
        if count(shape) != self.contents.len() {
            return Err(Error::operands(format!("{:?} elements do not fit the shape {shape:?}", self.shape)));
        }
        Ok(Tensor { dtype: self.dtype, shape: shape.to_vec(), contents: self.contents.clone() })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The type with constant extents.
    pub fn ty(&self) -> Type {
        Type::tensor(self.dtype, self.shape.iter().map(|extent| (*extent).into()).collect())
    }

    /// The elements of an integer or truth tensor.
    pub fn integers(&self) -> Result<&[i64]> {
        match self.contents() {
            Contents::Integer(values) => Ok(values),
            _ => Err(Error::operands(format!("expected integers, got {}", self.dtype))),
        }
    }

    /// The elements of a text tensor.
    pub fn texts(&self) -> Result<&[String]> {
        match self.contents() {
            Contents::Text(values) => Ok(values),
            _ => Err(Error::operands(format!("expected text, got {}", self.dtype))),
        }
    }

    /// The elements of a numeric tensor as `f64`; 64-bit integers above 2^53 round.
    pub fn to_numbers(&self) -> Result<Vec<f64>> {
        match self.contents() {
            Contents::F32(values) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
            Contents::F64(values) => Ok(values.clone()),
            Contents::Integer(values) => {
                Ok(values.iter().map(|value| crate::number::widen(self.dtype, *value) as f64).collect())
            }
            Contents::Text(_) => Err(Error::operands("expected numbers, got text")),
        }
    }

    /// The only element of an integer tensor.
    pub(crate) fn integer(&self) -> Result<i64> {
        match self.integers()? {
            [value] => Ok(*value),
            values => Err(Error::operands(format!("expected one integer, got {}", values.len()))),
        }
    }
}

impl From<&Data> for Tensor {
    fn from(data: &Data) -> Tensor {
        let bytes = &data.bytes()[..];
        macro_rules! read {
            ($ty:ty, $convert:expr) => {
                bytes
                    .chunks_exact(size_of::<$ty>())
                    .map(|chunk| $convert(<$ty>::from_le_bytes(chunk.try_into().unwrap_or_default())))
                    .collect()
            };
        }
        let each = |convert: &dyn Fn(Scalar) -> f64| -> Vec<f32> {
            (0..data.count())
                .filter_map(|index| convert::element(data, index))
                .map(|scalar| convert(scalar) as f32)
                .collect()
        };
        let dtype = data.dtype();
        let contents = match dtype {
            DType::F32 => Contents::F32(read!(f32, |value| value)),
            DType::F64 => Contents::F64(read!(f64, |value| value)),
            DType::F16 => Contents::F32(read!(u16, |bits| f16::from_bits(bits).to_f32())),
            DType::BF16 => Contents::F32(read!(u16, |bits| bf16::from_bits(bits).to_f32())),
            DType::I8 => Contents::Integer(read!(i8, i64::from)),
            DType::I16 => Contents::Integer(read!(i16, i64::from)),
            DType::I32 => Contents::Integer(read!(i32, i64::from)),
            DType::I64 => Contents::Integer(read!(i64, |value| value)),
            DType::U8 => Contents::Integer(read!(u8, i64::from)),
            DType::U16 => Contents::Integer(read!(u16, i64::from)),
            DType::U32 => Contents::Integer(read!(u32, i64::from)),
            DType::U64 => Contents::Integer(read!(u64, |value| value as i64)),
            DType::Bool => Contents::Integer(read!(u8, |value| i64::from(value != 0))),
            DType::String => Contents::Text(
                convert::texts(data).unwrap_or_default().into_iter().map(String::from).collect(),
            ),
            _ if dtype.class() == Class::Float => Contents::F32(each(&Scalar::as_f64)),
            _ => Contents::Integer(
                (0..data.count())
                    .filter_map(|index| convert::element(data, index))
                    .map(Scalar::as_i64)
                    .collect(),
            ),
        };
        Tensor { dtype, shape: data.shape().to_vec(), contents: Arc::new(contents) }
    }
}

impl From<Data> for Tensor {
    fn from(data: Data) -> Tensor {
        Tensor::from(&data)
    }
}

impl Tensor {
    /// The tensor as the IR holds it.
    pub fn to_data(&self) -> Result<Data> {
        let dtype = self.dtype;
        if let (Contents::F32(values), DType::F32) = (self.contents(), dtype) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return Ok(Data::new(dtype, &self.shape, Bytes::from(bytes))?);
        }
        let scalars: Box<dyn Iterator<Item = Scalar>> = match self.contents() {
            Contents::F32(values) => {
                Box::new(values.iter().map(move |value| Scalar::float(dtype, f64::from(*value))))
            }
            Contents::F64(values) => Box::new(values.iter().map(move |value| Scalar::float(dtype, *value))),
            Contents::Integer(values) => {
                Box::new(values.iter().map(move |value| Scalar::integer(dtype, *value)))
            }
            Contents::Text(values) => return Ok(Data::from_texts(&self.shape, values)?),
        };
        let mut bytes = Vec::with_capacity(dtype.bytes_for(self.contents.len()).unwrap_or(0));
        if dtype.is_packed() {
            let codes: Vec<u8> = scalars.map(convert::packed_code).collect();
            bytes = convert::pack(dtype, &codes);
        } else {
            scalars.for_each(|scalar| convert::push_scalar(scalar, &mut bytes));
        }
        Ok(Data::new(dtype, &self.shape, Bytes::from(bytes))?)
    }
}
