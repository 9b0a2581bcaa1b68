//! Imported graphs give the values that their operators are defined to give, by the reference interpreter.
//!
//! The conformance suite covers the standard operators; here are the domains that it does not know, and slices and loops
//! over many shapes.

mod common;

use common::*;
use proptest::prelude::*;
use tcc_frontend::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use tcc_frontend::onnx::{ImportOptions, Model, import};
use tcc_interpret::{Interpreter, Tensor, Value};
use tcc_ir::dtype::DType;

/// Runs a graph of constants, and inputs in order; the results as numbers.
fn run(proto: ModelProto, inputs: Vec<Tensor>) -> Vec<(Vec<usize>, Vec<f64>)> {
    let module = import(&Model::from_proto(proto).unwrap(), &ImportOptions::default()).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    let results = Interpreter::new(&module).run(inputs.into_iter().map(Value::from).collect()).unwrap();
    let number = |value: &Value| {
        let tensor = value.as_tensor().unwrap();
        (tensor.shape().to_vec(), tensor.to_numbers().unwrap())
    };
    results.iter().map(number).collect()
}

fn in_domain(domain: &str, node: NodeProto) -> NodeProto {
    NodeProto { domain: Some(domain.into()), ..node }
}

/// A model of one node over constants.
fn single(node: NodeProto, constants: Vec<TensorProto>) -> Vec<(Vec<usize>, Vec<f64>)> {
    let outputs: Vec<&str> = node.output.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let graph = GraphProto { initializer: constants, ..graph(&[], &outputs, vec![node.clone()]) };
    run(model(graph), vec![])
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{found:?} is not {expected:?}");
    }
}

fn bytes(name: &str, element: DataType, dims: &[i64], raw: &[u8]) -> TensorProto {
    TensorProto { raw_data: Some(raw.to_vec().into()), ..tensor(name, element, dims) }
}

/// Two blocks of two along K for each column, low four bits first, with the zero point in the middle and with one given.
#[test]
fn packed_weights_are_dequantized_by_block() {
    let node = |inputs: &[&str]| {
        let node = in_domain("com.microsoft", node("MatMulNBits", inputs, &["y"]));
        [("K", 3), ("N", 1), ("bits", 4), ("block_size", 2)]
            .into_iter()
            .fold(node, |node, (name, value)| with(node, integer(name, value)))
    };
    let constants = |zeros: bool| {
        let mut list = vec![
            floats("a", &[1, 3], &[1.0, 10.0, 100.0]),
            bytes("b", DataType::Uint8, &[1, 2, 1], &[0x9a, 0x0b]),
            floats("s", &[2], &[0.5, 2.0]),
        ];
        if zeros {
            list.push(bytes("z", DataType::Uint8, &[1], &[0x31]));
        }
        list
    };
    // Weights 10, 9 and 11 less 8; then less 1 in the first block and 3 in the second.
    let y = single(node(&["a", "b", "s"]), constants(false));
    close(&y[0].1, &[0.5 * (2.0 + 10.0) + 2.0 * 300.0]);
    let y = single(node(&["a", "b", "s", "z"]), constants(true));
    close(&y[0].1, &[0.5 * (9.0 + 80.0) + 2.0 * 800.0]);
}

#[test]
fn quantized_sums_saturate() {
    let constants = vec![
        bytes("a", DataType::Uint8, &[3], &[10, 200, 255]),
        floats("sa", &[], &[0.1]),
        bytes("za", DataType::Uint8, &[], &[10]),
        floats("sb", &[], &[0.2]),
        floats("sy", &[], &[0.1]),
    ];
    let node = in_domain(
        "com.microsoft",
        node("QLinearAdd", &["a", "sa", "za", "a", "sb", "za", "sy", "za"], &["y"]),
    );
    // 0, 19 + 38 and 24.5 + 49, in steps of 0.1 from 10.
    assert_eq!(single(node, constants)[0].1, [10.0, 255.0, 255.0]);
}

#[test]
fn skipped_sums_are_normalized() {
    let constants = vec![
        floats("x", &[1, 2], &[1.0, 2.0]),
        floats("s", &[1, 2], &[1.0, 4.0]),
        floats("g", &[2], &[2.0, 3.0]),
        floats("b", &[2], &[0.5, 0.25]),
    ];
    let outputs = ["y", "", "", "sum"];
    let node = in_domain("com.microsoft", node("SkipLayerNormalization", &["x", "s", "g", "b"], &outputs));
    let results = single(node, constants);
    close(&results[0].1, &[-2.0 + 0.5, 3.0 + 0.25]);
    close(&results[1].1, &[2.0, 6.0]);
}

#[test]
fn quantizers_of_training_frameworks_round_to_their_grid() {
    let constants = || {
        vec![
            floats("x", &[5], &[-3.0, -0.6, 0.25, 0.75, 3.0]),
            floats("s", &[], &[0.5]),
            floats("z", &[], &[0.0]),
            floats("w", &[], &[3.0]),
        ]
    };
    let quantizer = in_domain("qonnx.custom_op.general", node("Quant", &["x", "s", "z", "w"], &["y"]));
    let signed = with(with(quantizer.clone(), integer("signed", 1)), integer("narrow", 0));
    // Halves go to the even level; three signed bits reach from -4 to 3.
    assert_eq!(single(signed, constants())[0].1, [-2.0, -0.5, 0.0, 1.0, 1.5]);
    let narrow = with(with(quantizer, integer("signed", 1)), integer("narrow", 1));
    assert_eq!(single(narrow, constants())[0].1, [-1.5, -0.5, 0.0, 1.0, 1.5]);
    let sign = in_domain("qonnx.custom_op.general", node("BipolarQuant", &["x", "s"], &["y"]));
    assert_eq!(single(sign, constants())[0].1, [-0.5, -0.5, 0.5, 0.5, 0.5]);
}

#[test]
fn thresholds_are_counted_by_channel() {
    let constants =
        vec![floats("x", &[1, 2], &[0.5, 0.5]), floats("t", &[2, 3], &[0.0, 0.5, 1.0, 0.6, 0.7, 0.8])];
    let node = in_domain("finn.custom_op.general", node("MultiThreshold", &["x", "t"], &["y"]));
    assert_eq!(single(node, constants)[0].1, [2.0, 0.0]);
}

/// The elements of `x[start:end:step]` by stepping through them.
fn python_slice(size: i64, start: i64, end: i64, step: i64) -> Vec<f64> {
    let resolve =
        |at: i64, low: i64, high: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(low, high);
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let (mut at, end) = (resolve(start, low, high), resolve(end, low, high));
    let mut elements = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        elements.push(at as f64);
        at += step;
    }
    elements
}

proptest! {
    /// The same slice with constant bounds on a symbolic extent, and with bounds that come at run time.
    #[test]
    fn slices_take_what_python_takes(
        size in 0i64..9,
        start in -12i64..12,
        end in -12i64..12,
        step in prop_oneof![-3i64..=-1, 1i64..=3],
        far in 0..3,
    ) {
        let end = match far {
            1 => i64::MAX,
            2 => i64::MIN,
            _ => end,
        };
        let expected = python_slice(size, start, end, step);
        let x = Tensor::from_numbers(DType::F32, &[size as usize], &(0..size).map(|i| i as f64).collect::<Vec<_>>()).unwrap();
        let slice = vec![node("Slice", &["x", "starts", "ends", "axes", "steps"], &["y"])];
        let fixed = GraphProto {
            input: vec![typed("x", DataType::Float, &["n"])],
            initializer: vec![
                int64s("starts", &[start]),
                int64s("ends", &[end]),
                int64s("axes", &[0]),
                int64s("steps", &[step]),
            ],
            ..graph(&[], &["y"], slice.clone())
        };
        prop_assert_eq!(&run(model(fixed), vec![x.clone()])[0].1, &expected);
        let open = GraphProto {
            input: vec![
                typed("x", DataType::Float, &["n"]),
                typed("starts", DataType::Int64, &["1"]),
                typed("ends", DataType::Int64, &["1"]),
            ],
            initializer: vec![int64s("axes", &[0]), int64s("steps", &[step])],
            ..graph(&[], &["y"], slice)
        };
        let bound = |value: i64| Tensor::from_integers(DType::I64, &[1], &[value]).unwrap();
        prop_assert_eq!(&run(model(open), vec![x, bound(start), bound(end)])[0].1, &expected);
    }

    /// A carried value that grows in each round, up to a limit that comes at run time.
    #[test]
    fn loops_carry_values_that_grow(limit in -1i64..5, size in 0usize..4) {
        let body = GraphProto {
            output: vec![value("go"), value("v2"), value("i2")],
            ..graph(
                &["i", "go", "v"],
                &[],
                vec![with(node("Concat", &["v", "v"], &["v2"]), integer("axis", 0)), node("Identity", &["i"], &["i2"])],
            )
        };
        // A negative limit would have no end without a condition.
        let limit = limit.max(0);
        let repeat = with(node("Loop", &["trips", "", "v0"], &["last", "all"]), subgraph("body", body));
        let graph = GraphProto {
            input: vec![typed("v0", DataType::Float, &["n"]), typed("trips", DataType::Int64, &[])],
            ..graph(&[], &["last", "all"], vec![repeat])
        };
        let start = Tensor::from_numbers(DType::F32, &[size], &vec![1.0; size]).unwrap();
        let trips = Tensor::from_integers(DType::I64, &[], &[limit]).unwrap();
        let results = run(model(graph), vec![start, trips]);
        prop_assert_eq!(results[0].1.len(), size << limit);
        prop_assert_eq!(&results[1].1, &(0..limit).map(|i| i as f64).collect::<Vec<_>>());
    }
}

/// A scalar or a vector, then a vector again: what follows the choice is in both branches.
#[test]
fn branches_may_differ_in_rank() {
    let branch = |node: NodeProto| graph(&[], &["z"], vec![node]);
    let sum = with(node("ReduceSum", &["x"], &["z"]), integer("keepdims", 0));
    let choice = with(node("If", &["c"], &["y"]), subgraph("then_branch", branch(sum)));
    let choice = with(choice, subgraph("else_branch", branch(node("Neg", &["x"], &["z"]))));
    let nodes = vec![
        choice,
        node("Add", &["y", "y"], &["twice"]),
        node("Reshape", &["twice", "all"], &["flat"]),
        node("Neg", &["x"], &["apart"]),
    ];
    let graph = GraphProto {
        input: vec![typed("c", DataType::Bool, &[]), typed("x", DataType::Float, &["n"])],
        initializer: vec![int64s("all", &[-1])],
        ..graph(&[], &["flat", "apart"], nodes)
    };
    let x = Tensor::from_numbers(DType::F32, &[3], &[1.0, 2.0, 4.0]).unwrap();
    for (condition, expected) in [(1.0, vec![14.0]), (0.0, vec![-2.0, -4.0, -8.0])] {
        let condition = Tensor::from_numbers(DType::Bool, &[], &[condition]).unwrap();
        let results = run(model(graph.clone()), vec![condition, x.clone()]);
        assert_eq!(results[0], (vec![expected.len()], expected));
        assert_eq!(results[1].1, [-1.0, -2.0, -4.0]);
    }
}

/// Choices in a row double what follows each time: after a few of them the model is refused, without the time that all
/// would take.
#[test]
fn many_branches_that_differ_in_rank_are_refused() {
    let branch = |node: NodeProto| graph(&[], &["z"], vec![node]);
    let mut nodes = Vec::new();
    for number in 0..40 {
        let sum = with(node("ReduceSum", &["x"], &["z"]), integer("keepdims", 0));
        let result = format!("y{number}");
        let choice = with(node("If", &["c"], &[result.as_str()]), subgraph("then_branch", branch(sum)));
        nodes.push(with(choice, subgraph("else_branch", branch(node("Neg", &["x"], &["z"])))));
    }
    let graph = GraphProto {
        input: vec![typed("c", DataType::Bool, &[]), typed("x", DataType::Float, &["n"])],
        ..graph(&[], &["y39"], nodes)
    };
    assert!(import(&Model::from_proto(model(graph)).unwrap(), &ImportOptions::default()).is_err());
}
