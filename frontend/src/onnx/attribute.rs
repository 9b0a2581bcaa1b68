//! Attributes of nodes, and typed access to them.

use super::error::{NodeError, OnnxError, TensorError};
use super::graph::{Graph, Node};
use super::proto::{self, attribute_proto::AttributeType};
use super::tensor::Tensor;
use super::value::ValueType;
use bytes::Bytes;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// A string; ONNX leaves the encoding open.
    String(Bytes),
    /// A constant tensor.
    Tensor(Tensor),
    /// A subgraph.
    Graph(Box<Graph>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Strings.
    Strings(Vec<Bytes>),
    /// Constant tensors.
    Tensors(Vec<Tensor>),
    /// A type.
    Type(ValueType),
    /// A kind of attribute that tcc does not represent; the text names it.
    Other(&'static str),
}

/// What reading an attribute needs from its surroundings: tensors and subgraphs.
pub(super) trait AttributeScope {
    /// Reads a stored tensor.
    fn tensor(&self, tensor: &proto::TensorProto) -> Result<Tensor, TensorError>;
    /// Resolves a subgraph.
    fn graph(&mut self, graph: &proto::GraphProto) -> Result<Graph, OnnxError>;
}

impl Attribute {
    /// Reads one attribute; `place` names it in errors.
    pub(super) fn from_proto(
        attribute: &proto::AttributeProto,
        place: &str,
        scope: &mut impl AttributeScope,
    ) -> Result<Self, OnnxError> {
        let in_tensor = |source| OnnxError::Tensor { tensor: place.to_owned(), source };
        let missing = || OnnxError::Malformed {
            message: "attribute",
            reason: format!("{place} has no value of its type"),
        };
        Ok(match kind(attribute) {
            AttributeType::Float => Attribute::Float(attribute.f()),
            AttributeType::Int => Attribute::Int(attribute.i()),
            AttributeType::String => Attribute::String(attribute.s.clone().unwrap_or_default()),
            AttributeType::Tensor => {
                Attribute::Tensor(scope.tensor(attribute.t.as_ref().ok_or_else(missing)?).map_err(in_tensor)?)
            }
            AttributeType::Graph => {
                Attribute::Graph(Box::new(scope.graph(attribute.g.as_ref().ok_or_else(missing)?)?))
            }
            AttributeType::Floats => Attribute::Floats(attribute.floats.clone()),
            AttributeType::Ints => Attribute::Ints(attribute.ints.clone()),
            AttributeType::Strings => Attribute::Strings(attribute.strings.clone()),
            AttributeType::Tensors => {
                let tensors: Result<_, _> =
                    attribute.tensors.iter().map(|tensor| scope.tensor(tensor)).collect();
                Attribute::Tensors(tensors.map_err(in_tensor)?)
            }
            AttributeType::TypeProto => {
                Attribute::Type(ValueType::from_proto(attribute.tp.as_ref().ok_or_else(missing)?))
            }
            AttributeType::Graphs => Attribute::Other("a list of graphs"),
            AttributeType::SparseTensor | AttributeType::SparseTensors => Attribute::Other("a sparse tensor"),
            AttributeType::TypeProtos => Attribute::Other("a list of types"),
            AttributeType::Undefined => return Err(missing()),
        })
    }
}

/// The declared type, or for files older than IR version 2 the one whose field is set.
fn kind(attribute: &proto::AttributeProto) -> AttributeType {
    match attribute.r#type() {
        AttributeType::Undefined => {}
        declared => return declared,
    }
    if attribute.f.is_some() {
        AttributeType::Float
    } else if attribute.i.is_some() {
        AttributeType::Int
    } else if attribute.s.is_some() {
        AttributeType::String
    } else if attribute.t.is_some() {
        AttributeType::Tensor
    } else if attribute.g.is_some() {
        AttributeType::Graph
    } else if !attribute.floats.is_empty() {
        AttributeType::Floats
    } else if !attribute.ints.is_empty() {
        AttributeType::Ints
    } else if !attribute.strings.is_empty() {
        AttributeType::Strings
    } else {
        AttributeType::Undefined
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty, $text:literal, $convert:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// The attribute is there with another type.
        pub fn $name<'a>(&'a self, name: &str) -> Result<Option<$type>, NodeError> {
            match self.attributes.get(name) {
                None => Ok(None),
                Some(Attribute::$variant(value)) => {
                    let convert: fn(&'a _) -> $type = $convert;
                    Ok(Some(convert(value)))
                }
                Some(_) => Err(NodeError::AttributeType { attribute: name.to_owned(), expected: $text }),
            }
        }
    )*};
}

/// Attributes by name; each is `None` where the node does not give it.
impl Node {
    accessors! {
        /// An integer.
        int: Int -> i64, "an integer", |value| *value;
        /// A number.
        float: Float -> f32, "a number", |value| *value;
        /// Integers.
        ints: Ints -> &'a [i64], "a list of integers", |values: &Vec<i64>| values.as_slice();
        /// Numbers.
        floats: Floats -> &'a [f32], "a list of numbers", |values: &Vec<f32>| values.as_slice();
        /// A constant tensor.
        tensor: Tensor -> &'a Tensor, "a tensor", |value| value;
        /// A subgraph.
        graph: Graph -> &'a Graph, "a graph", |value| value;
        /// Bytes of strings.
        strings: Strings -> &'a [Bytes], "a list of strings", |values: &Vec<Bytes>| values.as_slice();
    }

    /// A string.
    ///
    /// # Errors
    /// The attribute is there and is no UTF-8 string.
    pub fn string(&self, name: &str) -> Result<Option<&str>, NodeError> {
        let wrong = || NodeError::AttributeType { attribute: name.to_owned(), expected: "a string" };
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::String(bytes)) => std::str::from_utf8(bytes).map(Some).map_err(|_| wrong()),
            Some(_) => Err(wrong()),
        }
    }

    /// An integer used as a truth value.
    ///
    /// # Errors
    /// The attribute is there with another type.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, NodeError> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    /// The name of an input, `None` where it is left out.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of an output, `None` where it is left out.
    pub fn output(&self, index: usize) -> Option<&str> {
        self.outputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }
}
