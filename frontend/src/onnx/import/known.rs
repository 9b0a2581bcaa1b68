//! Values whose elements are known at import time, as numbers or as symbolic dimensions.

use tcc_ir::convert;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::Scalar;

/// Most elements that are followed one by one. Shapes, axes, pads and scales are far smaller; weights are larger and
/// stay opaque.
pub const LIMIT: usize = 1024;

/// One element: sizes stay symbolic, other numbers are constants.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// An integer or truth value (0 or 1), or a floating-point number that is an integer.
    Dim(Dim),
    /// A floating-point number that is not an integer, or not finite.
    Real(f64),
}

impl Element {
    /// A floating-point number, as a dimension where it is an integer that `f64` and `i64` both hold exactly.
    pub fn real(value: f64) -> Element {
        let exact = value.fract() == 0.0
            && value.abs() < (1u64 << 53) as f64
            && !(value == 0.0 && value.is_sign_negative());
        if exact { Element::Dim(Dim::Const(value as i64)) } else { Element::Real(value) }
    }

    /// The value, where it is no symbol.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Element::Dim(dim) => dim.as_const().map(|value| value as f64),
            Element::Real(value) => Some(*value),
        }
    }

    /// The integer or size.
    pub fn as_dim(&self) -> Option<&Dim> {
        match self {
            Element::Dim(dim) => Some(dim),
            Element::Real(_) => None,
        }
    }
}

/// A small tensor of known elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub elements: Vec<Element>,
}

impl Known {
    /// A one-dimensional tensor of sizes.
    pub fn sizes(dims: Vec<Dim>) -> Known {
        Known {
            dtype: DType::I64,
            shape: vec![dims.len()],
            elements: dims.into_iter().map(Element::Dim).collect(),
        }
    }

    /// A scalar size.
    pub fn size(dim: Dim) -> Known {
        Known { dtype: DType::I64, shape: Vec::new(), elements: vec![Element::Dim(dim)] }
    }

    /// The elements of a constant; `None` for large tensors, text and packed or 8-bit floats.
    pub fn from_data(data: &Data) -> Option<Known> {
        let dtype = data.dtype();
        if data.count() > LIMIT || dtype.bits() == 0 || (dtype.is_float() && dtype.bits() < 16) {
            return None;
        }
        let elements = (0..data.count()).map(|index| {
            let scalar = convert::element(data, index)?;
            Some(match dtype.class() {
                Class::Float => Element::real(scalar.as_f64()),
                // A huge unsigned number is no size.
                Class::Unsigned if scalar.bits > i64::MAX as u64 => return None,
                _ => Element::Dim(Dim::Const(scalar.as_i64())),
            })
        });
        Some(Known { dtype, shape: data.shape().to_vec(), elements: elements.collect::<Option<_>>()? })
    }

    /// The tensor as contents, where no element is symbolic.
    pub fn to_data(&self) -> Option<Data> {
        let mut bytes = Vec::with_capacity(self.elements.len() * 8);
        if self.dtype.is_packed() || self.dtype == DType::String {
            return None;
        }
        for element in &self.elements {
            let scalar = match element {
                Element::Dim(dim) if self.dtype.is_float() => {
                    Scalar::float(self.dtype, dim.as_const()? as f64)
                }
                Element::Dim(dim) => Scalar::integer(self.dtype, dim.as_const()?),
                Element::Real(value) => Scalar::of(self.dtype, *value),
            };
            convert::push_scalar(scalar, &mut bytes);
        }
        Data::new(self.dtype, &self.shape, bytes.into()).ok()
    }

    /// All elements as sizes; `None` where one is a fraction.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        self.elements.iter().map(|element| element.as_dim().cloned()).collect()
    }

    /// All elements as constant integers.
    pub fn integers(&self) -> Option<Vec<i64>> {
        self.elements.iter().map(|element| element.as_dim().and_then(Dim::as_const)).collect()
    }

    /// All elements as constant numbers.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        self.elements.iter().map(Element::as_f64).collect()
    }

    /// The same elements under another shape of as many.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Known> {
        let same = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
            == Some(self.elements.len());
        same.then(|| Known { dtype: self.dtype, shape, elements: self.elements.clone() })
    }

    /// Row-major strides of the shape.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        strides
    }

    /// The tensor of `shape` whose element at each coordinate is the element of `self` that `source` points at.
    /// `None` where the result is too large or a source is outside.
    pub fn gathered(&self, shape: Vec<usize>, source: impl Fn(&[usize]) -> Option<usize>) -> Option<Known> {
        let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        if count > LIMIT {
            return None;
        }
        let mut elements = Vec::with_capacity(count);
        let mut at = vec![0; shape.len()];
        for _ in 0..count {
            elements.push(self.elements.get(source(&at)?)?.clone());
            for axis in (0..shape.len()).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Some(Known { dtype: self.dtype, shape, elements })
    }

    /// NumPy-style broadcast.
    pub fn broadcast(&self, shape: &[usize]) -> Option<Known> {
        let offset = shape.len().checked_sub(self.shape.len())?;
        for (axis, &size) in self.shape.iter().enumerate() {
            if size != 1 && size != shape[offset + axis] {
                return None;
            }
        }
        let strides = self.strides();
        self.gathered(shape.to_vec(), |at| {
            let place =
                |axis: usize| if self.shape[axis] == 1 { 0 } else { at[offset + axis] * strides[axis] };
            Some((0..self.shape.len()).map(place).sum())
        })
    }
}

/// The shape that two shapes broadcast to.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |index| shape[index]);
    (0..rank)
        .map(|axis| match (extent(a, axis), extent(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
