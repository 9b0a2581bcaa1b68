//! Reading ONNX models: structure, payloads, local functions, and files that are out to do harm.

mod common;

use bytes::Bytes;
use common::{graph, integer, model, node, opset, tensor};
use prost::Message;
use std::fs;
use tcc_frontend::onnx::error::{ExternalError, OnnxError, TensorError};
use tcc_frontend::onnx::proto::{
    AttributeProto, FunctionProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    attribute_proto::AttributeType, tensor_proto::DataLocation, tensor_proto::DataType,
};
use tcc_frontend::onnx::tensor::Payload;
use tcc_frontend::onnx::{Attribute, Model};

fn resolve(proto: ModelProto) -> Result<tcc_frontend::onnx::Graph, OnnxError> {
    Model::from_bytes(proto.encode_to_vec().into())?.graph()
}

fn one_tensor(tensor: TensorProto) -> Result<tcc_frontend::onnx::Graph, OnnxError> {
    let name = tensor.name().to_owned();
    let mut graph = graph(&[], &[&name], vec![]);
    graph.initializer.push(tensor);
    resolve(model(graph))
}

#[test]
fn nodes_are_put_in_order_of_data_flow() {
    let nodes = vec![node("Relu", &["b"], &["c"]), node("Abs", &["x"], &["b"]), node("Neg", &["c"], &["y"])];
    let graph = resolve(model(graph(&["x"], &["y"], nodes))).unwrap();
    let operators: Vec<&str> = graph.nodes.iter().map(|node| node.id.operator.as_str()).collect();
    assert_eq!(operators, ["Abs", "Relu", "Neg"]);
    assert_eq!(graph.nodes[0].id.name, "Abs#1", "an unnamed node is called by its place in the file");
}

#[test]
fn a_cycle_is_named() {
    let nodes =
        vec![node("Add", &["x", "c"], &["a"]), node("Relu", &["a"], &["b"]), node("Abs", &["b"], &["c"])];
    match resolve(model(graph(&["x"], &["c"], nodes))).unwrap_err() {
        OnnxError::Cycle { nodes } => {
            assert_eq!(nodes.first(), nodes.last());
            assert_eq!(nodes.len(), 4);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn undefined_and_doubly_defined_values_are_named() {
    let missing = resolve(model(graph(&["x"], &["y"], vec![node("Add", &["x", "w"], &["y"])]))).unwrap_err();
    assert!(matches!(&missing, OnnxError::Undefined { value, .. } if value == "w"), "{missing}");
    let missing = resolve(model(graph(&["x"], &["z"], vec![node("Abs", &["x"], &["y"])]))).unwrap_err();
    assert!(matches!(&missing, OnnxError::Undefined { value, .. } if value == "z"), "{missing}");
    let nodes = vec![node("Abs", &["x"], &["y"]), node("Neg", &["x"], &["y"])];
    let twice = resolve(model(graph(&["x"], &["y"], nodes))).unwrap_err();
    assert!(matches!(&twice, OnnxError::DefinedTwice { value, .. } if value == "y"), "{twice}");
}

#[test]
fn an_initializer_takes_the_place_of_an_input_of_the_same_name() {
    let mut with_default = graph(&["x", "w"], &["y"], vec![node("Add", &["x", "w"], &["y"])]);
    with_default
        .initializer
        .push(TensorProto { float_data: vec![2.0], ..tensor("w", DataType::Float, &[1]) });
    let graph = resolve(model(with_default)).unwrap();
    assert_eq!(graph.inputs.len(), 1);
    assert_eq!(graph.initializers["w"].to_floats(), Some(vec![2.0]));
}

#[test]
fn raw_data_is_a_slice_of_the_file() {
    let payload: Vec<u8> = (0..64).collect();
    let stored =
        TensorProto { raw_data: Some(payload.clone().into()), ..tensor("w", DataType::Float, &[4, 4]) };
    let mut with_weights = graph(&[], &["w"], vec![]);
    with_weights.initializer.push(stored);
    let file: Bytes = model(with_weights).encode_to_vec().into();
    let range = file.as_ptr_range();
    let graph = Model::from_bytes(file.clone()).unwrap().graph().unwrap();
    let Payload::Bytes(bytes) = &graph.initializers["w"].payload else { panic!("not bytes") };
    assert_eq!(bytes[..], payload);
    assert!(range.contains(&bytes.as_ptr()), "the payload was copied");
}

#[test]
fn typed_fields_become_little_endian_bytes() {
    let bytes = |stored: TensorProto| match one_tensor(stored).unwrap().initializers["t"].payload.clone() {
        Payload::Bytes(bytes) => bytes.to_vec(),
        Payload::Strings(_) => panic!("not bytes"),
    };
    let entries =
        |element, dims: &[i64], int32_data| TensorProto { int32_data, ..tensor("t", element, dims) };
    assert_eq!(bytes(entries(DataType::Int8, &[2], vec![-1, 127])), [255, 127]);
    assert_eq!(bytes(entries(DataType::Float16, &[1], vec![0x3c00])), [0, 0x3c]);
    assert_eq!(bytes(entries(DataType::Bfloat16, &[1], vec![0x3f80])), [0x80, 0x3f]);
    assert_eq!(bytes(entries(DataType::Uint4, &[3], vec![0x21, 0x03])), [0x21, 0x03], "two elements a byte");
    assert_eq!(bytes(entries(DataType::Float8e4m3fn, &[1], vec![0x38])), [0x38]);
    assert_eq!(bytes(entries(DataType::Bool, &[2], vec![1, 0])), [1, 0]);
    let wide = TensorProto { uint64_data: vec![7], ..tensor("t", DataType::Uint32, &[1]) };
    assert_eq!(bytes(wide), [7, 0, 0, 0]);
}

#[test]
fn payloads_must_be_as_long_as_their_shape_says() {
    let refused = |stored: TensorProto| match one_tensor(stored).unwrap_err() {
        OnnxError::Tensor { tensor, source } => {
            assert_eq!(tensor, "t");
            source
        }
        other => panic!("{other}"),
    };
    let huge = TensorProto {
        raw_data: Some(Bytes::from_static(&[0; 4])),
        ..tensor("t", DataType::Float, &[1 << 40])
    };
    assert!(matches!(refused(huge), TensorError::Length { expected: 0x400_0000_0000, found: 4, .. }));
    let overflowing = tensor("t", DataType::Float, &[i64::MAX, i64::MAX]);
    assert!(matches!(refused(overflowing), TensorError::TooLarge(_)));
    let negative = tensor("t", DataType::Float, &[-1]);
    assert!(matches!(refused(negative), TensorError::NegativeDimension { axis: 0, size: -1 }));
    let unknown = TensorProto { data_type: Some(99), ..tensor("t", DataType::Float, &[]) };
    assert!(matches!(refused(unknown), TensorError::UnknownType(99)));
    let complex = tensor("t", DataType::Complex64, &[0]);
    assert!(matches!(refused(complex), TensorError::UnsupportedType("COMPLEX64")));
    let wide = TensorProto { int32_data: vec![300], ..tensor("t", DataType::Int8, &[1]) };
    assert!(matches!(refused(wide), TensorError::Value { value: 300, .. }));
}

#[test]
fn opset_imports_are_checked() {
    let mut future = model(graph(&["x"], &["y"], vec![node("Abs", &["x"], &["y"])]));
    future.opset_import = vec![opset("", 99)];
    assert!(matches!(resolve(future.clone()), Err(OnnxError::OpsetVersion { version: 99, .. })));
    future.opset_import = vec![opset("", 17), opset("ai.onnx", 18)];
    assert!(matches!(resolve(future), Err(OnnxError::OpsetConflict { first: 17, second: 18, .. })));
}

fn reference(name: &str, to: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        ref_attr_name: Some(to.into()),
        r#type: Some(AttributeType::Int as i32),
        ..Default::default()
    }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: outputs.iter().map(|&name| name.into()).collect(),
        node: nodes,
        opset_import: vec![opset("", 13)],
        ..Default::default()
    }
}

fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: Some("local".into()), ..node(name, inputs, outputs) }
}

#[test]
fn local_functions_are_inlined_with_their_attributes() {
    let body = vec![
        NodeProto { attribute: vec![reference("axis", "along")], ..node("Softmax", &["a"], &["t"]) },
        node("Add", &["t", "a"], &["b"]),
    ];
    let mut twice = model(graph(
        &["x"],
        &["y"],
        vec![
            NodeProto { attribute: vec![integer("along", 1)], ..call("Twice", &["x"], &["m"]) },
            call("Twice", &["m"], &["y"]),
        ],
    ));
    let mut definition = function("Twice", &["a"], &["b"], body);
    definition.attribute_proto.push(integer("along", -1));
    twice.functions.push(definition);
    let graph = resolve(twice).unwrap();
    assert_eq!(graph.nodes.len(), 4);
    assert_eq!(graph.nodes[0].attributes["axis"], Attribute::Int(1));
    assert_eq!(graph.nodes[2].attributes["axis"], Attribute::Int(-1), "the default of the function");
    assert_eq!(graph.nodes[0].id.opset, 13, "a body is written in the operator sets of its function");
    assert_eq!(graph.nodes[1].inputs, ["Twice#0/t", "x"]);
    assert_eq!(graph.nodes[1].outputs, ["m"]);
}

#[test]
fn a_function_may_return_its_input() {
    let mut passing = model(graph(&["x"], &["y"], vec![call("Pass", &["x"], &["y"])]));
    passing.functions.push(function("Pass", &["a"], &["a"], vec![]));
    let graph = resolve(passing).unwrap();
    assert_eq!((graph.nodes[0].id.operator.as_str(), &graph.nodes[0].inputs[0][..]), ("Identity", "x"));
}

#[test]
fn recursive_and_exploding_functions_are_refused() {
    let mut recursive = model(graph(&["x"], &["y"], vec![call("A", &["x"], &["y"])]));
    recursive.functions.push(function("A", &["a"], &["b"], vec![call("B", &["a"], &["b"])]));
    recursive.functions.push(function("B", &["a"], &["b"], vec![call("A", &["a"], &["b"])]));
    let error = resolve(recursive).unwrap_err();
    assert!(matches!(&error, OnnxError::Recursion { calls } if calls.len() == 3), "{error}");

    let mut exploding = model(graph(&["x"], &["y"], vec![call("F0", &["x"], &["y"])]));
    for level in 0..40 {
        let next = format!("F{}", level + 1);
        let body = vec![call(&next, &["a"], &["t"]), call(&next, &["t"], &["b"])];
        exploding.functions.push(function(&format!("F{level}"), &["a"], &["b"], body));
    }
    exploding.functions.push(function("F40", &["a"], &["b"], vec![node("Abs", &["a"], &["b"])]));
    assert!(matches!(resolve(exploding), Err(OnnxError::TooManyNodes { .. })));
}

#[test]
fn long_chains_of_calls_are_refused() {
    let mut chain = model(graph(&["x"], &["y"], vec![call("F0", &["x"], &["y"])]));
    for level in 0..5000 {
        let body = vec![call(&format!("F{}", level + 1), &["a"], &["b"])];
        chain.functions.push(function(&format!("F{level}"), &["a"], &["b"], body));
    }
    chain.functions.push(function("F5000", &["a"], &["b"], vec![node("Abs", &["a"], &["b"])]));
    assert!(matches!(resolve(chain), Err(OnnxError::TooDeep { .. })));
}

#[test]
fn subgraphs_see_the_names_around_them() {
    let inner = graph(&[], &["t"], vec![node("Abs", &["late"], &["t"])]);
    let branch = |name: &str| AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(inner.clone()),
        ..Default::default()
    };
    let choice = NodeProto {
        attribute: vec![branch("then_branch"), branch("else_branch")],
        ..node("If", &["c"], &["y"])
    };
    let graph =
        resolve(model(graph(&["c", "x"], &["y"], vec![choice, node("Neg", &["x"], &["late"])]))).unwrap();
    assert_eq!(
        graph.nodes[0].id.operator, "Neg",
        "a captured value is assigned before the node that captures it"
    );
    assert_eq!(graph.nodes[1].reads(), ["c", "late", "late"]);
}

fn external(location: &str, offset: &str, length: &str) -> TensorProto {
    let entry =
        |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    TensorProto {
        data_location: Some(DataLocation::External as i32),
        external_data: vec![entry("location", location), entry("offset", offset), entry("length", length)],
        ..tensor("t", DataType::Float, &[2])
    }
}

#[test]
fn external_data_stays_in_the_folder_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("weights"), [1u8; 16]).unwrap();
    fs::write(folder.path().join("secret"), [2u8; 16]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("link")).unwrap();
    let open = |stored: TensorProto| {
        let mut graph = graph(&[], &["t"], vec![]);
        graph.initializer.push(stored);
        let path = inside.join("model.onnx");
        fs::write(&path, model(graph).encode_to_vec()).unwrap();
        Model::open(&path).unwrap().graph()
    };
    let refused = |stored| match open(stored).unwrap_err() {
        OnnxError::Tensor { source: TensorError::External(error), .. } => error,
        other => panic!("{other}"),
    };
    let read = open(external("weights", "8", "8")).unwrap();
    assert_eq!(read.initializers["t"].payload, Payload::Bytes(Bytes::from_static(&[1; 8])));
    let secret = folder.path().join("secret");
    let mut escapes = vec!["../secret", "./../secret", "a/../../secret", "", secret.to_str().unwrap()];
    if cfg!(unix) {
        escapes.push("link");
    }
    for location in escapes {
        let error = refused(external(location, "0", "8"));
        assert!(matches!(error, ExternalError::Outside { .. }), "{location}: {error}");
    }
    assert!(matches!(refused(external("weights", "12", "8")), ExternalError::Range { .. }));
    assert!(matches!(refused(external("weights", "18446744073709551615", "8")), ExternalError::Range { .. }));
    assert!(matches!(refused(external("weights", "-1", "8")), ExternalError::Number { key: "offset", .. }));
    assert!(matches!(refused(external("absent", "0", "8")), ExternalError::Read { .. }));
    assert!(matches!(refused(external(".", "0", "8")), ExternalError::Read { .. }), "a folder is no file");
}

#[test]
fn damaged_files_are_refused() {
    assert!(matches!(Model::from_bytes(Bytes::new()), Err(OnnxError::Empty)));
    let mut with_weights = graph(&["x"], &["y"], vec![node("Abs", &["x"], &["y"])]);
    with_weights
        .initializer
        .push(TensorProto { float_data: vec![1.0; 32], ..tensor("w", DataType::Float, &[32]) });
    let whole: Bytes = model(with_weights).encode_to_vec().into();
    // Truncated and bit-flipped files either fail with an error or still are well-formed; none may panic.
    for length in 1..whole.len() {
        let _ = Model::from_bytes(whole.slice(..length)).map(|model| model.graph());
    }
    for position in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[position / 8] ^= 1 << (position % 8);
        let _ = Model::from_bytes(flipped.into()).map(|model| model.graph());
    }
}

/// `count` empty nodes in a graph: two bytes each on the wire, some two hundred in memory.
#[test]
fn a_file_that_would_expand_without_bound_is_refused() {
    let body = [0x0a, 0x00].repeat(4 << 20);
    let mut file = vec![0x3a];
    prost::encoding::encode_varint(body.len() as u64, &mut file);
    file.extend(body);
    assert!(matches!(Model::from_bytes(file.into()), Err(OnnxError::Oversized { .. })));
}

#[test]
fn deep_nesting_is_refused() {
    let mut inner = graph(&[], &[], vec![]);
    for _ in 0..2000 {
        let attribute = AttributeProto {
            name: Some("body".into()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(inner),
            ..Default::default()
        };
        inner = graph(&[], &[], vec![NodeProto { attribute: vec![attribute], ..node("Loop", &[], &[]) }]);
    }
    // Encoding and dropping recurse as well, so the sender of such a file needs a large stack; the reader must not.
    let file = std::thread::Builder::new()
        .stack_size(256 << 20)
        .spawn(move || Bytes::from(model(inner).encode_to_vec()))
        .unwrap()
        .join()
        .unwrap();
    assert!(matches!(Model::from_bytes(file), Err(OnnxError::Malformed { .. })));
}
