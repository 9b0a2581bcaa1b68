//! Element types that host functions compute with: order, test for zero, conversion.

use crate::tensor::Element;
use half::{bf16, f16};
use std::cmp::Ordering;

/// A numeric element.
pub trait Numeric: Element + std::fmt::Debug {
    /// A total order in which NaN is the largest and equal to itself, and the two zeros are equal.
    fn order(self, other: Self) -> Ordering;

    /// Whether it differs from zero; NaN does.
    fn is_nonzero(self) -> bool;

    /// The nearest double; integers beyond 53 bits are rounded.
    fn to_f64(self) -> f64;

    /// The nearest value of the type; integers are cut towards zero and saturate.
    fn from_f64(value: f64) -> Self;

    /// The low bits of an integer; the nearest float.
    fn wrap(value: i128) -> Self;
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Numeric for $type {
            fn order(self, other: Self) -> Ordering {
                self.cmp(&other)
            }

            fn is_nonzero(self) -> bool {
                self != 0
            }

            fn to_f64(self) -> f64 {
                self as f64
            }

            fn from_f64(value: f64) -> Self {
                value as $type
            }

            fn wrap(value: i128) -> Self {
                value as $type
            }
        })*
    };
}

integers! { i8 i16 i32 i64 u8 u16 u32 u64 }

macro_rules! floats {
    ($($type:ty: $to:expr, $from:expr;)*) => {
        $(impl Numeric for $type {
            fn order(self, other: Self) -> Ordering {
                self.partial_cmp(&other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }

            fn is_nonzero(self) -> bool {
                self != <$type>::from_f64(0.0)
            }

            fn to_f64(self) -> f64 {
                $to(self)
            }

            fn from_f64(value: f64) -> Self {
                $from(value)
            }

            fn wrap(value: i128) -> Self {
                $from(value as f64)
            }
        })*
    };
}

floats! {
    f32: f64::from, |value: f64| value as f32;
    f64: |value: f64| value, |value: f64| value;
    f16: f16::to_f64, f16::from_f64;
    bf16: bf16::to_f64, bf16::from_f64;
}

/// The instance of a generic function for an element type, as `Result` of the function pointer type given; `bool` is
/// `u8`.
macro_rules! for_dtype {
    ($dtype:expr, $function:ident as $type:ty) => {{
        use $crate::dtype::DType;
        match $dtype {
            DType::F32 => Ok($function::<f32> as $type),
            DType::F64 => Ok($function::<f64> as $type),
            DType::F16 => Ok($function::<half::f16> as $type),
            DType::Bf16 => Ok($function::<half::bf16> as $type),
            DType::I8 => Ok($function::<i8> as $type),
            DType::I16 => Ok($function::<i16> as $type),
            DType::I32 => Ok($function::<i32> as $type),
            DType::I64 => Ok($function::<i64> as $type),
            DType::U8 | DType::Bool => Ok($function::<u8> as $type),
            DType::U16 => Ok($function::<u16> as $type),
            DType::U32 => Ok($function::<u32> as $type),
            DType::U64 => Ok($function::<u64> as $type),
            other => Err(format!("element type {other} is not supported")),
        }
    }};
}
pub(super) use for_dtype;

/// A tensor seen along one axis: `outer` times `length` times `inner` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Product of the dimensions before the axis.
    pub outer: usize,
    /// The dimension of the axis.
    pub length: usize,
    /// Product of the dimensions behind the axis.
    pub inner: usize,
}

impl Lanes {
    /// Splits a shape at an axis below its rank.
    pub fn new(shape: &[usize], axis: usize) -> Self {
        let product = |dims: &[usize]| dims.iter().product();
        Lanes { outer: product(&shape[..axis]), length: shape[axis], inner: product(&shape[axis + 1..]) }
    }

    /// Position of an element.
    pub fn at(&self, outer: usize, position: usize, inner: usize) -> usize {
        (outer * self.length + position) * self.inner + inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_the_largest_and_equal_to_itself() {
        assert_eq!(f32::NAN.order(f32::INFINITY), Ordering::Greater);
        assert_eq!(f16::NEG_INFINITY.order(f16::NAN), Ordering::Less);
        assert_eq!(f64::NAN.order(-f64::NAN), Ordering::Equal);
        assert_eq!((-0.0f32).order(0.0), Ordering::Equal);
        assert!(!(-0.0f32).is_nonzero() && f32::NAN.is_nonzero());
    }
}
