//! Types of values: tensors with symbolic shapes, quantized elements, sequences and optionals.

use std::fmt;

use crate::attribute::float_text;
use crate::dim::Dim;
use crate::dtype::DType;

/// How the scales and zero points of a quantized element type are laid out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Granularity {
    /// One scale for the tensor.
    Tensor,
    /// One scale per index of an axis.
    Axis(usize),
    /// One scale per block of this many consecutive elements along an axis.
    Block {
        /// The axis that is cut into blocks.
        axis: usize,
        /// Elements in a block.
        size: usize,
    },
}

/// An affine quantized element: `value ~ scale * (stored - zero)`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Quantized {
    /// Type of the stored integer.
    pub storage: DType,
    /// Type of the number that it stands for.
    pub expressed: DType,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Scales in row-major order of their groups, as `f64` bit patterns.
    pub scales: Vec<u64>,
    /// Zero points in the same order.
    pub zeros: Vec<i64>,
}

/// The element of a tensor.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Element {
    /// A plain number.
    Plain(DType),
    /// A quantized number whose parameters are known at compile time.
    Quantized(Box<Quantized>),
}

/// A dense tensor type.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// What one element is.
    pub element: Element,
    /// Extents, outermost first.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// A tensor of plain elements.
    pub fn new(dtype: DType, shape: Vec<Dim>) -> TensorType {
        TensorType { element: Element::Plain(dtype), shape }
    }

    /// Type of what is stored for one element.
    pub fn dtype(&self) -> DType {
        match &self.element {
            Element::Plain(dtype) => *dtype,
            Element::Quantized(quantized) => quantized.storage,
        }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn count(&self) -> Dim {
        Dim::product(&self.shape)
    }

    /// The shape where every extent is known at compile time.
    pub fn static_shape(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|dim| dim.as_const().and_then(|dim| usize::try_from(dim).ok())).collect()
    }
}

/// Type of an IR value.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// A dense tensor.
    Tensor(TensorType),
    /// A host-side list of values of one type.
    Sequence(Box<Type>),
    /// A host-side value that may be absent.
    Optional(Box<Type>),
}

impl Type {
    /// A tensor of plain elements.
    pub fn tensor(dtype: DType, shape: Vec<Dim>) -> Type {
        Type::Tensor(TensorType::new(dtype, shape))
    }

    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

impl fmt::Display for Quantized {
    /// The spelling of MLIR's `quant` dialect; block granularity, which has several forms there, as an opaque `tir` type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |index: usize| {
            let zero = self.zeros.get(index).copied().unwrap_or(0);
            format!("{}:{zero}", float_text(f64::from_bits(self.scales.get(index).copied().unwrap_or(0))))
        };
        // The quant dialect writes unsigned storage as u8 where builtin types write ui8.
        let storage = self.storage.text().replace("ui", "u");
        let list = || (0..self.scales.len()).map(pair).collect::<Vec<_>>().join(", ");
        match &self.granularity {
            Granularity::Tensor => write!(f, "!quant.uniform<{storage}:{}, {}>", self.expressed, pair(0)),
            Granularity::Axis(axis) => {
                write!(f, "!quant.uniform<{storage}:{}:{axis}, {{{}}}>", self.expressed, list())
            }
            Granularity::Block { axis, size } => {
                write!(f, "!tir.block<\"{storage}:{}:{axis}:{size}, {}\">", self.expressed, list())
            }
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Plain(dtype) => write!(f, "{dtype}"),
            Element::Quantized(quantized) => write!(f, "{quantized}"),
        }
    }
}

impl fmt::Display for TensorType {
    /// Symbolic extents print as `?`, with their expressions in a string encoding: `tensor<?x3xf32, "batch; 3">`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor<")?;
        for dim in &self.shape {
            match dim {
                Dim::Const(value) => write!(f, "{value}x")?,
                Dim::Poly(_) => write!(f, "?x")?,
            }
        }
        write!(f, "{}", self.element)?;
        if self.shape.iter().any(|dim| dim.as_const().is_none()) {
            let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
            write!(f, ", \"{}\"", dims.join("; "))?;
        }
        write!(f, ">")
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(tensor) => write!(f, "{tensor}"),
            Type::Sequence(element) => write!(f, "!tir.sequence<{element}>"),
            Type::Optional(element) => write!(f, "!tir.optional<{element}>"),
        }
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
