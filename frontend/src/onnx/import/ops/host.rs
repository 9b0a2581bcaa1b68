//! Operators that run as host functions: their work or their number of results is no loop nest.

use super::super::super::graph::{Attribute, Node};
use super::super::context::{Context, Lowered};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::sizes::{self, SIZE};
use super::super::table::{Entry, custom, since};
use super::super::{data, dtype};
use serde_json::{Map, Value as Json, json};
use tcc_ir::convert;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

pub(super) static TABLE: &[Entry] = &[
    since(10, "NonMaxSuppression", non_max_suppression),
    since(11, "Unique", unique),
    since(11, "Det", determinant),
    since(19, "DeformConv", deformable_convolution),
    since(9, "TfIdfVectorizer", ngrams),
    since(10, "StringNormalizer", normalize_text),
    since(20, "StringConcat", concatenate_text),
    since(20, "StringSplit", split_text),
    since(20, "RegexFullMatch", |context, node| {
        let x = context.operand(node, 0, "X")?;
        let shape = context.shape(x)?;
        context.host_operator(node, &[Type::tensor(DType::Bool, shape)])
    }),
    custom("ai.onnx.ml", "LabelEncoder", encode_labels),
    custom("ai.onnx.ml", "TreeEnsemble", tree_ensemble),
];

/// The attributes of a node as JSON text. Tensors are objects of shape and data.
fn attributes(node: &Node, absent: &[usize]) -> Result<String, Refusal> {
    let mut object = Map::new();
    for (name, value) in &node.attributes {
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes).map(Json::from).map_err(|_| attribute(name, "text that is not UTF-8"))
        };
        let json = match value {
            Attribute::Float(value) => real(f64::from(*value)),
            Attribute::Int(value) => json!(value),
            Attribute::String(bytes) => text(bytes)?,
            Attribute::Floats(values) => values.iter().map(|&value| real(value.into())).collect(),
            Attribute::Ints(values) => json!(values),
            Attribute::Strings(values) => {
                values.iter().map(|bytes| text(bytes)).collect::<Result<Json, _>>()?
            }
            Attribute::Tensor(tensor) => {
                let data = data(tensor).map_err(unsupported)?;
                let elements: Json = match convert::texts(&data) {
                    Some(texts) => texts.into_iter().map(Json::from).collect(),
                    None => (0..data.count())
                        .filter_map(|index| convert::element(&data, index))
                        .map(|scalar| {
                            if scalar.dtype.is_float() {
                                real(scalar.as_f64())
                            } else {
                                json!(scalar.as_i64())
                            }
                        })
                        .collect(),
                };
                json!({ "shape": data.shape(), "data": elements })
            }
            Attribute::Type(_) => continue,
            Attribute::Graph(_) | Attribute::Tensors(_) | Attribute::Other(_) => {
                return Err(unsupported(format!("attribute '{name}' of a host function")));
            }
        };
        object.insert(name.clone(), json);
    }
    if !absent.is_empty() {
        object.insert("absent".into(), json!(absent));
    }
    Ok(Json::Object(object).to_string())
}

/// JSON has no infinities and no NaN; they are text.
fn real(value: f64) -> Json {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

impl Context<'_> {
    /// The node as a host function of its operands, with these result types.
    pub(super) fn host_operator(&mut self, node: &Node, types: &[Type]) -> Lowered {
        let mut values = Vec::new();
        let mut absent = Vec::new();
        for index in 0..node.inputs.len() {
            match self.optional(node, index)? {
                Some(value) => values.push(value),
                None => absent.push(index),
            }
        }
        let results = self.host(&node.id.operator, &attributes(node, &absent)?, types, &values)?;
        Ok(results.into_iter().map(Binding::Value).collect())
    }

    /// RoiAlign as a host function, which knows one default of the coordinate mode while versions differ.
    pub(super) fn host_with_default(&mut self, node: &Node, mode: &str, result: Type) -> Lowered {
        let mut node = node.clone();
        let mode = Attribute::String(mode.to_owned().into());
        node.attributes.entry("coordinate_transformation_mode".into()).or_insert(mode);
        self.host_operator(&node, &[result])
    }

    /// A run-time function by the ONNX operator's name, with result types.
    pub(super) fn host(
        &mut self,
        operator: &str,
        attributes: &str,
        types: &[Type],
        values: &[Value],
    ) -> Result<Vec<Value>, Refusal> {
        let operator = Operator::Host {
            function: format!("onnx.{operator}"),
            attributes: attributes.to_owned(),
            types: types.iter().map(Type::to_string).collect(),
        };
        Ok(self.builder.op(operator, values)?)
    }

    /// An extent that is decided at run time.
    pub(super) fn open_extent(&mut self, name: &str) -> Dim {
        Dim::symbol(&self.builder.fresh_symbol(name, SIZE))
    }
}

fn non_max_suppression(context: &mut Context<'_>, node: &Node) -> Lowered {
    let count = context.open_extent("selected");
    context.host_operator(node, &[Type::tensor(DType::I64, vec![count, Dim::Const(3)])])
}

fn unique(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (mut shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let count = context.open_extent("unique");
    let total = match node.int("axis")? {
        None => {
            let total = Dim::product(&shape);
            shape = vec![count.clone()];
            total
        }
        Some(axis) => {
            let axis = sizes::axis(axis, shape.len())?;
            std::mem::replace(&mut shape[axis], count.clone())
        }
    };
    let vector = |extent: Dim| Type::tensor(DType::I64, vec![extent]);
    let types = [Type::tensor(dtype, shape), vector(count.clone()), vector(total), vector(count)];
    context.host_operator(node, &types)
}

fn determinant(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let [batch @ .., rows, columns] = &shape[..] else { return Err(operands("the operand is no matrix")) };
    context.require_equal(rows.clone(), columns.clone(), "rows and columns")?;
    let types = [Type::tensor(dtype, batch.to_vec())];
    context.host_operator(node, &types)
}

fn deformable_convolution(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, w) = (context.operand(node, 0, "X")?, context.operand(node, 1, "W")?);
    let offset = context.operand(node, 2, "offset")?;
    let (x_shape, w_shape, places) = (context.shape(x)?, context.shape(w)?, context.shape(offset)?);
    if x_shape.len() < 3 || w_shape.len() != x_shape.len() || places.len() != x_shape.len() {
        return Err(operands("X, W and offset differ in rank"));
    }
    // The offsets are given for each place of the output.
    let mut result = vec![x_shape[0].clone(), w_shape[0].clone()];
    result.extend_from_slice(&places[2..]);
    let dtype = context.dtype(x)?;
    context.host_operator(node, &[Type::tensor(dtype, result)])
}

fn ngrams(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let mut shape = context.shape(x)?;
    let indexes = node.ints("ngram_indexes")?.unwrap_or_default();
    let columns = indexes.iter().max().map_or(0, |&last| last.saturating_add(1));
    shape.pop();
    shape.push(Dim::Const(columns));
    context.host_operator(node, &[Type::tensor(DType::F32, shape)])
}

/// Words that are left after stop words are dropped; their number is decided at run time.
fn normalize_text(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let mut shape = context.shape(x)?;
    if shape.pop().is_none() {
        return Err(operands("the operand is a scalar"));
    }
    shape.push(context.open_extent("words"));
    context.host_operator(node, &[Type::tensor(DType::String, shape)])
}

fn concatenate_text(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "X")?, context.operand(node, 1, "Y")?);
    let shape = context.broadcast_shape(&[a, b])?;
    context.host_operator(node, &[Type::tensor(DType::String, shape)])
}

fn split_text(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let shape = context.shape(x)?;
    let mut parts = shape.clone();
    parts.push(context.open_extent("parts"));
    context.host_operator(node, &[Type::tensor(DType::String, parts), Type::tensor(DType::I64, shape)])
}

impl Context<'_> {
    /// The shape that operands broadcast to.
    fn broadcast_shape(&mut self, values: &[Value]) -> Result<Vec<Dim>, Refusal> {
        let mut result: Vec<Dim> = Vec::new();
        for &value in values {
            let shape = self.shape(value)?;
            while result.len() < shape.len() {
                result.insert(0, Dim::Const(1));
            }
            let offset = result.len() - shape.len();
            for (axis, extent) in shape.into_iter().enumerate() {
                let place = &mut result[offset + axis];
                if place.is(1) {
                    *place = extent;
                } else if !extent.is(1) {
                    self.require_equal(place.clone(), extent, "extents")?;
                }
            }
        }
        Ok(result)
    }

    /// `onnx.Equal` on text.
    pub(super) fn equal_texts(&mut self, a: Value, b: Value) -> Result<Value, Refusal> {
        let shape = self.broadcast_shape(&[a, b])?;
        Ok(self.host("Equal", "{}", &[Type::tensor(DType::Bool, shape)], &[a, b])?[0])
    }

    /// `onnx.Cast` to or from text.
    pub(super) fn cast_text(&mut self, x: Value, to: DType) -> Result<Value, Refusal> {
        let shape = self.shape(x)?;
        Ok(self.host("Cast", "{}", &[Type::tensor(to, shape)], &[x])?[0])
    }
}

/// The element type of the labels that come out, which the name of the attribute with the values tells.
fn encode_labels(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let shape = context.shape(x)?;
    let result = if node.attributes.contains_key("values_strings") {
        DType::String
    } else if node.attributes.contains_key("values_int64s") {
        DType::I64
    } else if node.attributes.contains_key("values_floats") {
        DType::F32
    } else {
        let values = node.tensor("values_tensor")?.ok_or_else(|| attribute("values_tensor", "missing"))?;
        dtype(values.element).ok_or_else(|| attribute("values_tensor", "of a type that is not supported"))?
    };
    context.host_operator(node, &[Type::tensor(result, shape)])
}

fn tree_ensemble(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let batch = shape.first().cloned().ok_or_else(|| operands("the input has no axes"))?;
    let targets = node.int("n_targets")?.unwrap_or(1);
    context.host_operator(node, &[Type::tensor(dtype, vec![batch, Dim::Const(targets)])])
}
