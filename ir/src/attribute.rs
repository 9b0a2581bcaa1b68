//! Attributes: what parametrizes an operator besides its operands.
//!
//! Operators hold typed fields; [`Attribute`] converts each field type to and from the small value language
//! [`AttributeValue`] that the text form prints and parses.

use crate::data::Data;
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::scalar::ScalarExpr;

/// An attribute as the text form knows it.
#[derive(Clone, PartialEq, Debug)]
pub enum AttributeValue {
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Quoted text.
    Text(String),
    /// A list.
    List(Vec<AttributeValue>),
    /// Tensor contents.
    Data(Data),
}

/// A double as MLIR writes it: with a decimal point, shortest round trip; infinities and NaN as their bit pattern.
pub fn float_text(value: f64) -> String {
    if !value.is_finite() {
        return format!("0x{:016X}", value.to_bits());
    }
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    }
}

/// A field type of operators.
pub trait Attribute: Sized {
    /// The field as an attribute value.
    fn to_value(&self) -> AttributeValue;
    /// The field from an attribute value; the error says what was expected.
    fn from_value(value: &AttributeValue) -> Result<Self, String>;
}

impl Attribute for i64 {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Integer(*self)
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Integer(value) => Ok(*value),
            other => Err(format!("expected an integer, found {other:?}")),
        }
    }
}

impl Attribute for usize {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Integer(*self as i64)
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        usize::try_from(i64::from_value(value)?)
            .map_err(|_| "expected a count, found a negative integer".into())
    }
}

impl Attribute for bool {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Bool(*self)
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Bool(value) => Ok(*value),
            other => Err(format!("expected true or false, found {other:?}")),
        }
    }
}

/// A double that compares and hashes by its bits, so that operators can be keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Real(u64);

impl Real {
    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Real {
    fn from(value: f64) -> Real {
        Real(value.to_bits())
    }
}

impl From<f32> for Real {
    fn from(value: f32) -> Real {
        Real(f64::from(value).to_bits())
    }
}

impl Attribute for Real {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Float(self.get())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Float(value) => Ok(Real::from(*value)),
            AttributeValue::Integer(value) => Ok(Real::from(*value as f64)),
            other => Err(format!("expected a number, found {other:?}")),
        }
    }
}

impl Attribute for String {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Text(self.clone())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Text(text) => Ok(text.clone()),
            other => Err(format!("expected text, found {other:?}")),
        }
    }
}

impl Attribute for Symbol {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Text(self.name().to_string())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        Ok(Symbol::new(&String::from_value(value)?))
    }
}

impl Attribute for Dim {
    fn to_value(&self) -> AttributeValue {
        match self {
            Dim::Const(value) => AttributeValue::Integer(*value),
            Dim::Poly(_) => AttributeValue::Text(self.to_string()),
        }
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Integer(value) => Ok(Dim::Const(*value)),
            AttributeValue::Text(text) => crate::parse::dim(text),
            other => Err(format!("expected a dimension, found {other:?}")),
        }
    }
}

impl Attribute for DType {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Text(self.text().to_string())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        String::from_value(value)?.parse()
    }
}

impl Attribute for ScalarExpr {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Text(self.to_string())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        String::from_value(value)?.parse().map_err(|error: crate::scalar::ScalarError| error.to_string())
    }
}

impl Attribute for Data {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Data(self.clone())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::Data(data) => Ok(data.clone()),
            other => Err(format!("expected tensor contents, found {other:?}")),
        }
    }
}

impl<T: Attribute> Attribute for Vec<T> {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::List(self.iter().map(T::to_value).collect())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        match value {
            AttributeValue::List(items) => items.iter().map(T::from_value).collect(),
            other => Err(format!("expected a list, found {other:?}")),
        }
    }
}

/// Declares an enumeration whose variants print as words, with the [`Attribute`] conversions.
#[macro_export]
macro_rules! word_attribute {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident $text:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word in the text form.
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl $crate::attribute::Attribute for $name {
            fn to_value(&self) -> $crate::attribute::AttributeValue {
                $crate::attribute::AttributeValue::Text(self.text().to_string())
            }

            fn from_value(value: &$crate::attribute::AttributeValue) -> Result<Self, String> {
                let text = String::from_value(value)?;
                Self::ALL
                    .iter()
                    .copied()
                    .find(|variant| variant.text() == text)
                    .ok_or_else(|| format!("'{text}' is not one of {:?}", Self::ALL.iter().map(|v| v.text()).collect::<Vec<_>>()))
            }
        }
    };
}
