//! Models built in code.
#![allow(dead_code, reason = "each test file uses a part")]

use tcc_frontend::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};

/// A node without attributes.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: outputs.iter().map(|&name| name.into()).collect(),
        ..Default::default()
    }
}

/// The node with one more attribute.
pub fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

pub fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

pub fn integers(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.to_owned().into()), ..attribute(name, AttributeType::String) }
}

pub fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), ..attribute(name, AttributeType::Graph) }
}

pub fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() }
}

/// A tensor without payload.
pub fn tensor(name: &str, element: DataType, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(element as i32),
        dims: dims.to_vec(),
        ..Default::default()
    }
}

pub fn int64s(name: &str, values: &[i64]) -> TensorProto {
    TensorProto { int64_data: values.to_vec(), ..tensor(name, DataType::Int64, &[values.len() as i64]) }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto { float_data: values.to_vec(), ..tensor(name, DataType::Float, dims) }
}

/// A value without a type.
pub fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..Default::default() }
}

/// A typed value; dimensions are numbers, names, or `?`.
pub fn typed(name: &str, element: DataType, dims: &[&str]) -> ValueInfoProto {
    let dim = dims.iter().map(|&text| Dimension {
        value: Some(match text.parse() {
            Ok(size) => dimension::Value::DimValue(size),
            Err(_) => dimension::Value::DimParam(text.into()),
        }),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: Some(element as i32),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { r#type: Some(TypeProto { value, ..Default::default() }), ..self::value(name) }
}

/// A graph over untyped values.
pub fn graph(inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        name: Some("main".into()),
        input: inputs.iter().map(|name| value(name)).collect(),
        output: outputs.iter().map(|name| value(name)).collect(),
        node: nodes,
        ..Default::default()
    }
}

pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

/// A model in operator set 17.
pub fn model(graph: GraphProto) -> ModelProto {
    in_opset(17, graph)
}

pub fn in_opset(version: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", version)],
        graph: Some(graph),
        ..Default::default()
    }
}
