//! Import of a resolved ONNX graph into tensor IR.
//!
//! Every node is looked up in the [`table`] by domain, operator and operator set version, and its lowering appends
//! operations to the function under construction. Types, and with them symbolic shapes, are inferred as the operations
//! are appended. Values that hold sizes rather than data (what comes out of `Shape` and the arithmetic on it) are
//! followed symbolically ([`known`]) and never become operations, so that targets of `Reshape`, `Expand`, `Slice`,
//! `Resize` and the like are symbolic dimensions. Sizes that depend on run-time data become symbols through `tir.bind`.

mod arity;
mod attributes;
mod context;
mod continuation;
pub mod known;
mod known_operators;
mod ops;
mod refusal;
mod scope;
mod sizes;
pub mod table;

use super::element::DataType;
use super::error::{NodeError, NodeId, OnnxError};
use super::graph::Graph;
use super::model::Model;
use super::tensor::Tensor;
use context::Context;
use std::collections::BTreeMap;
use std::fmt;
use tcc_ir::data::Data;
use tcc_ir::dim::Range;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;

/// What the caller fixes about a model before it is imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Ranges of symbolic dimensions by the name that the file gives them; a range of one value makes it a constant.
    pub dims: BTreeMap<String, Range>,
    /// Values of graph inputs that are known before run time (axes, target shapes); these inputs disappear from the
    /// function.
    pub inputs: BTreeMap<String, Tensor>,
    /// Name of the function; `main` where empty.
    pub function: String,
}

/// A node that cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Name, operator, domain and operator set version of the node.
    pub node: NodeId,
    /// Why.
    pub reason: String,
    /// A graph input whose value would have to be given in [`ImportOptions::inputs`], where that is the reason.
    pub input: Option<String>,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.reason)
    }
}

/// Imports a model.
///
/// # Errors
/// The model is not well formed ([`OnnxError`]), or some of its nodes are not supported: all of them are listed in
/// [`OnnxError::Unsupported`].
pub fn import(model: &Model, options: &ImportOptions) -> Result<Module, OnnxError> {
    import_graph(&model.graph()?, options)
}

/// Imports a resolved graph.
///
/// # Errors
/// As [`import`].
pub fn import_graph(graph: &Graph, options: &ImportOptions) -> Result<Module, OnnxError> {
    let mut context = Context::new(options);
    let outputs = context.function(graph)?;
    if let Some(name) = options.dims.keys().find(|name| !context.dimension_names.contains(*name)) {
        let known = context.dimension_names.into_iter().collect();
        return Err(OnnxError::UnknownDimension { name: name.clone(), known });
    }
    if !context.unsupported.is_empty() {
        return Err(OnnxError::Unsupported { nodes: context.unsupported });
    }
    let pairs: Vec<(&str, _)> = outputs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    Ok(Module::with(context.builder.finish(&pairs)))
}

/// Lists every node that the import does not support. Nodes that read results of such nodes are judged by the operator
/// table alone.
///
/// # Errors
/// The model is not well formed.
pub fn check(model: &Model, options: &ImportOptions) -> Result<Vec<Unsupported>, OnnxError> {
    let mut context = Context::new(options);
    context.function(&model.graph()?)?;
    Ok(context.unsupported)
}

/// The contents of a stored tensor as the IR holds them.
///
/// # Errors
/// The element type has no counterpart in the IR, or text is not UTF-8; the message says which.
pub fn data(tensor: &Tensor) -> Result<Data, String> {
    context::to_data(tensor).map_err(|refusal| match refusal {
        refusal::Refusal::Invalid(error) => error.to_string(),
        refusal::Refusal::Unsupported(reason) => reason,
        _ => "the tensor is not supported".into(),
    })
}

/// The element type of the IR for one of ONNX; `None` where the IR has none.
pub fn dtype(element: DataType) -> Option<DType> {
    Some(match element {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Float8e4m3fn => DType::F8E4M3FN,
        DataType::Float8e4m3fnuz => DType::F8E4M3FNUZ,
        DataType::Float8e5m2 => DType::F8E5M2,
        DataType::Float8e5m2fnuz => DType::F8E5M2FNUZ,
        DataType::Float8e8m0 => DType::F8E8M0FNU,
        DataType::Float4e2m1 => DType::F4E2M1FN,
        DataType::Int2 => DType::I2,
        DataType::Int4 => DType::I4,
        DataType::Int8 => DType::I8,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::Uint2 => DType::U2,
        DataType::Uint4 => DType::U4,
        DataType::Uint8 => DType::U8,
        DataType::Uint16 => DType::U16,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Bool => DType::Bool,
        DataType::String => DType::String,
        DataType::Undefined
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float6e2m3
        | DataType::Float6e3m2 => return None,
    })
}

/// The element type for the number in a `to` or `dtype` attribute.
pub(crate) fn dtype_of_number(attribute: &str, number: i64) -> Result<DType, refusal::Refusal> {
    let element = i32::try_from(number).ok().and_then(|number| DataType::try_from(number).ok());
    let value = || NodeError::AttributeValue {
        attribute: attribute.to_owned(),
        value: format!("{number}, which is no element type"),
    };
    let element = element.ok_or_else(value)?;
    dtype(element).ok_or_else(|| refusal::unsupported(format!("element type {}", element.as_str_name())))
}
