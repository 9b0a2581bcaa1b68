//! Import of ONNX graphs into tensor IR: symbolic shapes, operator set versions, control flow, refusals.

mod common;

use common::*;
use std::collections::BTreeMap;
use tcc_frontend::onnx::error::OnnxError;
use tcc_frontend::onnx::import::table;
use tcc_frontend::onnx::proto::{
    GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataType,
};
use tcc_frontend::onnx::{ImportOptions, Model, Tensor, check, import};
use tcc_ir::dim::Range;
use tcc_ir::module::Function;
use tcc_ir::operator::OperatorKind;

fn imported(proto: ModelProto) -> Result<Function, OnnxError> {
    imported_with(proto, &ImportOptions::default())
}

fn imported_with(proto: ModelProto, options: &ImportOptions) -> Result<Function, OnnxError> {
    let module = import(&Model::from_proto(proto)?, options)?;
    tcc_ir::verify::verify(&module).unwrap();
    // What is imported can be written and read back.
    let text = tcc_ir::print::module(&module);
    let read = tcc_ir::parse::module(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(tcc_ir::print::module(&read), text);
    Ok(module.entry().unwrap().clone())
}

/// The type of an output, as text.
fn output(function: &Function, index: usize) -> String {
    function.type_of(function.body.results[index]).to_string()
}

fn kinds(function: &Function) -> Vec<OperatorKind> {
    let mut kinds = Vec::new();
    function.body.visit(&mut |operation| kinds.push(operation.operator.kind()));
    kinds
}

fn typed_graph(inputs: Vec<ValueInfoProto>, outputs: &[&str], nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto { input: inputs, ..graph(&[], outputs, nodes) }
}

fn f32s(name: &str, dims: &[&str]) -> ValueInfoProto {
    typed(name, DataType::Float, dims)
}

/// What exporters write for `x.reshape(x.shape[0], -1, 4)`: five nodes of shape arithmetic that must leave no trace.
#[test]
fn shape_arithmetic_becomes_symbolic_dimensions() {
    let nodes = vec![
        node("Shape", &["x"], &["shape"]),
        node("Gather", &["shape", "zero"], &["batch"]),
        node("Unsqueeze", &["batch", "axis"], &["batch1"]),
        node("Concat", &["batch1", "rest"], &["target"]),
        node("Reshape", &["x", "target"], &["y"]),
    ];
    let nodes = nodes
        .into_iter()
        .map(|n| if n.op_type() == "Concat" { with(n, integer("axis", 0)) } else { n })
        .collect();
    let mut graph = typed_graph(vec![f32s("x", &["batch", "seq", "8"])], &["y"], nodes);
    let scalar = TensorProto { int64_data: vec![0], ..tensor("zero", DataType::Int64, &[]) };
    graph.initializer = vec![scalar, int64s("axis", &[0]), int64s("rest", &[-1, 4])];
    let function = imported(model(graph)).unwrap();
    assert_eq!(output(&function, 0), "tensor<?x?x4xf32, \"batch; 2*seq; 4\">");
    assert_eq!(kinds(&function), [OperatorKind::Reshape]);
}

#[test]
fn dimensions_can_be_fixed_and_bounded() {
    let nodes = vec![node("Relu", &["x"], &["y"])];
    let proto = model(typed_graph(vec![f32s("x", &["batch", "seq.len", "?"])], &["y"], nodes));
    let dims = BTreeMap::from([
        ("batch".to_owned(), Range { low: 4, high: 4 }),
        ("seq.len".to_owned(), Range { low: 1, high: 128 }),
    ]);
    let function = imported_with(proto, &ImportOptions { dims, ..Default::default() }).unwrap();
    assert_eq!(output(&function, 0), "tensor<4x?x?xf32, \"4; seq_len; x_2\">");
    let nodes = vec![node("Relu", &["x"], &["y"])];
    let proto = model(typed_graph(vec![f32s("x", &["batch", "3"])], &["y"], nodes));
    let dims = BTreeMap::from([("bacth".to_owned(), Range { low: 4, high: 4 })]);
    let mistyped = imported_with(proto, &ImportOptions { dims, ..Default::default() }).unwrap_err();
    assert!(mistyped.to_string().contains("'bacth'; their names are batch"), "{mistyped}");
    let range = function.symbols.iter().find(|(symbol, _)| symbol.name() == "seq_len").unwrap().1;
    assert_eq!((range.low, range.high), (1, 128));
}

#[test]
fn sizes_that_depend_on_data_are_bound_at_run_time() {
    let inputs = vec![f32s("x", &["n", "6"]), typed("shape", DataType::Int64, &["3"])];
    let proto = model(typed_graph(inputs, &["y"], vec![node("Reshape", &["x", "shape"], &["y"])]));
    let function = imported(proto.clone()).unwrap();
    assert!(kinds(&function).contains(&OperatorKind::Bind));
    assert_eq!(output(&function, 0), "tensor<?x?x?xf32, \"shape_0; shape_1; shape_2\">");
    // The same input can be fixed by the caller and then is no input any more.
    let shape = Tensor::from_proto(&int64s("shape", &[-1, 2, 3]), &Default::default()).unwrap();
    let options =
        ImportOptions { inputs: BTreeMap::from([("shape".to_owned(), shape)]), ..Default::default() };
    let function = imported_with(proto, &options).unwrap();
    assert_eq!(function.input_names, ["x"]);
    assert_eq!(output(&function, 0), "tensor<?x2x3xf32, \"n; 2; 3\">");
}

#[test]
fn slices_follow_python() {
    let cases: &[(&str, i64, i64, i64, &str)] = &[
        ("10", 1, 8, 1, "7"),
        ("10", -3, i64::MAX, 1, "3"),
        ("10", 8, 2, -2, "3"),
        ("10", -1, i64::MIN, -1, "10"),
        ("10", 20, 30, 1, "0"),
        ("0", 0, 5, 1, "0"),
        ("n", 0, i64::MAX, 2, "floordiv(n+1, 2)"),
        ("n", 1, i64::MAX, 1, "max(0, n-1)"),
        ("n", -1, i64::MIN, -1, "n"),
    ];
    for &(extent, start, end, step, expected) in cases {
        let nodes = vec![node("Slice", &["x", "starts", "ends", "axes", "steps"], &["y"])];
        let mut graph = typed_graph(vec![f32s("x", &[extent])], &["y"], nodes);
        graph.initializer = vec![
            int64s("starts", &[start]),
            int64s("ends", &[end]),
            int64s("axes", &[0]),
            int64s("steps", &[step]),
        ];
        let function = imported(model(graph)).unwrap();
        let shape = &function.type_of(function.body.results[0]).as_tensor().unwrap().shape;
        assert_eq!(shape[0].to_string(), expected, "x[{start}:{end}:{step}] of extent {extent}");
    }
}

/// Softmax flattened the axes from `axis` on before version 13; Squeeze took an attribute before and an operand since.
#[test]
fn operator_set_versions_have_their_own_meaning() {
    let softmax = |version| {
        let nodes = vec![with(node("Softmax", &["x"], &["y"]), integer("axis", 1))];
        let function =
            imported(in_opset(version, typed_graph(vec![f32s("x", &["2", "3", "4"])], &["y"], nodes)));
        kinds(&function.unwrap())
    };
    assert_eq!(softmax(13), [OperatorKind::Softmax]);
    assert_eq!(softmax(11), [OperatorKind::Reshape, OperatorKind::Softmax, OperatorKind::Reshape]);
    let by_attribute = vec![with(node("Squeeze", &["x"], &["y"]), integers("axes", &[1]))];
    let function =
        imported(in_opset(11, typed_graph(vec![f32s("x", &["2", "1", "1"])], &["y"], by_attribute)));
    assert_eq!(output(&function.unwrap(), 0), "tensor<2x1xf32>");
}

#[test]
fn old_broadcasting_aligns_at_an_axis() {
    let sum = node("Add", &["x", "b"], &["y"]);
    let sum = with(with(sum, integer("broadcast", 1)), integer("axis", 1));
    let inputs = vec![f32s("x", &["2", "3", "4"]), f32s("b", &["3"])];
    let function = imported(in_opset(6, typed_graph(inputs.clone(), &["y"], vec![sum.clone()]))).unwrap();
    assert_eq!(output(&function, 0), "tensor<2x3x4xf32>");
    let newer = imported(in_opset(13, typed_graph(inputs, &["y"], vec![sum])));
    assert!(matches!(newer, Err(OnnxError::Node { .. })), "NumPy's rule does not fit these shapes");
}

#[test]
fn a_known_condition_leaves_one_branch() {
    let branch = |operator: &str| graph(&[], &["z"], vec![node(operator, &["x"], &["z"])]);
    let choice = with(node("If", &["c"], &["y"]), subgraph("then_branch", branch("Exp")));
    let choice = with(choice, subgraph("else_branch", branch("Nonsense")));
    let nodes = vec![
        node("Shape", &["x"], &["shape"]),
        node("Size", &["shape"], &["rank"]),
        node("Equal", &["rank", "two"], &["c"]),
        choice.clone(),
    ];
    let mut known = typed_graph(vec![f32s("x", &["n", "3"])], &["y"], nodes);
    known.initializer = vec![TensorProto { int64_data: vec![2], ..tensor("two", DataType::Int64, &[]) }];
    assert_eq!(kinds(&imported(model(known)).unwrap()), [OperatorKind::Map]);
    let inputs = vec![f32s("x", &["n", "3"]), typed("c", DataType::Bool, &[])];
    let unknown = imported(model(typed_graph(inputs, &["y"], vec![choice])));
    assert!(matches!(unknown, Err(OnnxError::Unsupported { .. })), "both branches count now");
}

/// `for i in range(5): v = v + v[i]`, with every `v` stacked.
#[test]
fn loops_stack_what_they_scan() {
    let body = GraphProto {
        output: vec![value("next"), value("v2"), value("scanned")],
        ..graph(
            &["i", "cond", "v"],
            &[],
            vec![
                node("Identity", &["cond"], &["next"]),
                node("Gather", &["v", "i"], &["e"]),
                node("Add", &["v", "e"], &["v2"]),
                node("Identity", &["v2"], &["scanned"]),
            ],
        )
    };
    let repeat = with(node("Loop", &["trips", "", "v0"], &["last", "all"]), subgraph("body", body));
    let mut graph = typed_graph(vec![f32s("v0", &["n"])], &["last", "all"], vec![repeat]);
    graph.initializer = vec![TensorProto { int64_data: vec![5], ..tensor("trips", DataType::Int64, &[]) }];
    let function = imported(model(graph)).unwrap();
    assert_eq!(output(&function, 0), "tensor<?xf32, \"n\">");
    assert_eq!(output(&function, 1), "tensor<5x?xf32, \"5; n\">");
}

/// `v = concat(v, v)`: the extent changes, so inside of the loop it is a symbol of its own.
#[test]
fn a_carried_value_may_grow() {
    let body = GraphProto {
        output: vec![value("cond"), value("v2")],
        ..graph(
            &["i", "cond", "v"],
            &[],
            vec![with(node("Concat", &["v", "v"], &["v2"]), integer("axis", 0))],
        )
    };
    let repeat = with(node("Loop", &["trips", "", "v0"], &["last"]), subgraph("body", body));
    let inputs = vec![f32s("v0", &["3"]), typed("trips", DataType::Int64, &[])];
    let function = imported(model(typed_graph(inputs, &["last"], vec![repeat]))).unwrap();
    assert_eq!(output(&function, 0), "tensor<?xf32, \"carried_1\">");
}

#[test]
fn all_unsupported_nodes_are_named_at_once() {
    let nodes = vec![
        node("Nonsense", &["x"], &["a"]),
        node("Relu", &["a"], &["b"]),
        node("Gibberish", &["b"], &["c"]),
        node("GroupNormalization", &["x", "s", "s"], &["d"]),
    ];
    let mut graph = typed_graph(vec![f32s("x", &["1", "2", "3"])], &["c", "d"], nodes);
    graph.initializer = vec![floats("s", &[2], &[1.0, 1.0])];
    let model = Model::from_proto(model(graph)).unwrap();
    let listed = check(&model, &ImportOptions::default()).unwrap();
    let names: Vec<&str> = listed.iter().map(|unsupported| unsupported.node.name.as_str()).collect();
    assert_eq!(names, ["Nonsense#0", "Gibberish#2", "GroupNormalization#3"]);
    assert!(listed[2].reason.contains("18 and later"), "{}", listed[2].reason);
    match import(&model, &ImportOptions::default()) {
        Err(OnnxError::Unsupported { nodes }) => assert_eq!(nodes, listed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_name_the_node() {
    let wrong = |node: NodeProto| {
        let graph = typed_graph(vec![f32s("x", &["2", "3"]), f32s("z", &["5"])], &["y"], vec![node]);
        imported(model(graph)).unwrap_err().to_string()
    };
    let cases = [
        (node("Add", &["x", "z"], &["y"]), "'Add#0' (Add, ai.onnx opset 17)"),
        (node("MatMul", &["x", "z"], &["y"]), "MatMul#0"),
        (with(node("Concat", &["x", "x"], &["y"]), integer("axis", 7)), "axis 7"),
        (node("Concat", &["x", "x"], &["y"]), "axis"),
        (with(node("Softmax", &["x"], &["y"]), text("axis", "one")), "'axis' is not an integer"),
        (with(node("Transpose", &["x"], &["y"]), integers("perm", &[0, 0])), "given twice"),
        (node("Add", &["x"], &["y"]), "input 1 (B) is missing"),
        (with(node("Conv", &["x", "x"], &["y"]), integers("strides", &[0, 0])), "rank"),
        (with(node("Cast", &["x"], &["y"]), integer("to", 99)), "no element type"),
    ];
    for (node, expected) in cases {
        let text = wrong(node);
        assert!(text.contains(expected), "'{expected}' is not in: {text}");
    }
}

/// Damaged models are refused with an error or import; none may panic or take memory that the file does not justify.
#[test]
fn damaged_models_do_not_panic() {
    use prost::Message;
    let convolution = with(node("Conv", &["x", "w"], &["a"]), integers("pads", &[1, 1, 1, 1]));
    let nodes = vec![
        convolution,
        with(node("MaxPool", &["a"], &["b"]), integers("kernel_shape", &[2, 2])),
        node("Shape", &["b"], &["s"]),
        node("Slice", &["s", "one", "two"], &["t"]),
        node("Concat", &["t", "one"], &["u"]),
        node("Reshape", &["b", "u"], &["y"]),
    ];
    let nodes = nodes
        .into_iter()
        .map(|n| if n.op_type() == "Concat" { with(n, integer("axis", 0)) } else { n })
        .collect();
    let mut graph = typed_graph(vec![f32s("x", &["n", "1", "4", "4"])], &["y"], nodes);
    graph.initializer =
        vec![floats("w", &[1, 1, 3, 3], &[0.5; 9]), int64s("one", &[-1]), int64s("two", &[i64::MAX])];
    let whole = model(graph).encode_to_vec();
    let try_import = |bytes: Vec<u8>| {
        let _ = Model::from_bytes(bytes.into()).and_then(|model| import(&model, &ImportOptions::default()));
    };
    for length in 0..whole.len() {
        try_import(whole[..length].to_vec());
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        try_import(flipped);
    }
    for position in 0..whole.len() {
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[position] = byte;
            try_import(changed);
        }
    }
}

#[test]
fn the_coverage_table_has_no_overlaps() {
    let lines = table::coverage();
    for pair in lines.windows(2) {
        let same = (pair[0].domain, pair[0].operator) == (pair[1].domain, pair[1].operator);
        assert!(!same || pair[0].last.is_some_and(|last| last < pair[1].first), "{pair:?}");
    }
    assert!(lines.iter().any(|line| line.operator == "Clip" && line.first == 6 && line.last.is_none()));
    assert!(table::coverage_page().contains("| ai.onnx | Conv | 1 and later |"));
}

/// `docs/onnx-operators.md` is written from the operator tables; `TCC_BLESS=1` writes it.
#[test]
fn the_coverage_page_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/onnx-operators.md");
    let page = table::coverage_page();
    if std::env::var_os("TCC_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "run with TCC_BLESS=1 to write it");
}
