//! Types of graph inputs, outputs and annotated values.

use super::element::DataType;
use super::proto;

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// A size fixed by the file.
    Size(u64),
    /// A named size (`batch`); equal names are equal sizes.
    Symbol(String),
    /// Neither; exporters also write a negative size for this.
    Unknown,
}

/// The declared type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A dense tensor; a missing shape means that even the rank is open.
    Tensor {
        /// Element type.
        element: DataType,
        /// Dimensions, outermost first.
        shape: Option<Vec<Dimension>>,
    },
    /// A list of values of one type.
    Sequence(Box<ValueType>),
    /// A value that may be absent.
    Optional(Box<ValueType>),
    /// A type of the schema that tcc does not represent; the text names it.
    Other(&'static str),
    /// The file says nothing.
    Undeclared,
}

/// A named value with its declared type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Name in the graph's scope.
    pub name: String,
    /// Declared type.
    pub value_type: ValueType,
}

impl ValueInfo {
    pub(crate) fn from_proto(info: &proto::ValueInfoProto) -> Self {
        let value_type = info.r#type.as_ref().map_or(ValueType::Undeclared, ValueType::from_proto);
        ValueInfo { name: info.name().to_owned(), value_type }
    }
}

impl ValueType {
    /// Reads a declared type. The depth is bounded by the protobuf recursion limit.
    pub fn from_proto(declared: &proto::TypeProto) -> Self {
        use proto::type_proto::Value;
        let inner = |element: &Option<Box<proto::TypeProto>>| {
            Box::new(element.as_ref().map_or(ValueType::Undeclared, |inner| ValueType::from_proto(inner)))
        };
        match &declared.value {
            None => ValueType::Undeclared,
            Some(Value::TensorType(tensor)) => match DataType::try_from(tensor.elem_type()) {
                Ok(DataType::Undefined) | Err(_) => ValueType::Undeclared,
                Ok(element) => ValueType::Tensor {
                    element,
                    shape: tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dimension).collect()),
                },
            },
            Some(Value::SequenceType(sequence)) => ValueType::Sequence(inner(&sequence.elem_type)),
            Some(Value::OptionalType(optional)) => ValueType::Optional(inner(&optional.elem_type)),
            Some(Value::MapType(_)) => ValueType::Other("map"),
            Some(Value::SparseTensorType(_)) => ValueType::Other("sparse tensor"),
            Some(Value::OpaqueType(_)) => ValueType::Other("opaque"),
        }
    }
}

fn dimension(dim: &proto::tensor_shape_proto::Dimension) -> Dimension {
    use proto::tensor_shape_proto::dimension::Value;
    match &dim.value {
        Some(Value::DimValue(size)) => u64::try_from(*size).map_or(Dimension::Unknown, Dimension::Size),
        // "?" and "" are what exporters write when they have no name; they must not become one symbol.
        Some(Value::DimParam(name)) if name.is_empty() || name == "?" => Dimension::Unknown,
        Some(Value::DimParam(name)) => Dimension::Symbol(name.clone()),
        None => Dimension::Unknown,
    }
}
