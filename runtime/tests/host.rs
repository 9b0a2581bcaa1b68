//! Host functions against the examples of the ONNX specification and properties of their results.

#![allow(clippy::cloned_ref_to_slice_refs)] // Shapes read better as lists.

mod programs;

use programs::*;
use proptest::prelude::*;
use serde_json::json;
use tcc_runtime::host::philox::Philox;
use tcc_runtime::manifest::*;
use tcc_runtime::{DType, Error, Result, Session, Tensor, TensorRef};

/// A dimension that the function binds.
const ANY: i64 = -1;

/// A program of one host step. Output dimensions are numbers, or `ANY`.
fn program(
    function: &str,
    attributes: serde_json::Value,
    inputs: &[(DType, &[usize])],
    outputs: &[(DType, &[i64])],
) -> Builder {
    let mut b = Builder::new();
    let mut ids = Vec::new();
    for (index, (dtype, shape)) in inputs.iter().enumerate() {
        let shape: Vec<_> = shape.iter().map(|&dim| constant(dim as i64)).collect();
        ids.push(Some(b.input(&format!("in{index}"), *dtype, &shape)));
    }
    let mut results = Vec::new();
    let mut binds = Vec::new();
    for (index, (dtype, shape)) in outputs.iter().enumerate() {
        let mut dims = Vec::new();
        for (axis, &dim) in shape.iter().enumerate() {
            dims.push(match dim {
                ANY => {
                    binds.push(b.manifest.symbols.len() as u32);
                    b.symbol(&format!("d{index}{axis}"), 0, i64::MAX, SymbolSource::Step { bound: None })
                }
                dim => constant(dim),
            });
        }
        let id = b.host(&format!("out{index}"), *dtype, &dims);
        b.result(&format!("out{index}"), id);
        results.push(id);
    }
    let attributes = attributes.as_object().cloned().unwrap_or_default();
    b.call(Step::Host(HostStep {
        function: function.into(),
        attributes,
        inputs: ids,
        outputs: results,
        binds,
    }));
    b
}

fn call(
    function: &str,
    attributes: serde_json::Value,
    inputs: &[TensorRef],
    outputs: &[(DType, &[i64])],
) -> Result<Vec<Tensor>> {
    let types: Vec<_> = inputs.iter().map(|input| (input.dtype(), input.shape())).collect();
    let executable = program(function, attributes, &types, outputs).finish()?;
    Session::new(&executable, 1)?.run(inputs)
}

fn tensor<'a, T: tcc_runtime::Element>(shape: &[usize], elements: &'a [T]) -> TensorRef<'a> {
    TensorRef::from_slice(shape, elements).unwrap()
}

#[track_caller]
fn check<T: tcc_runtime::Element + PartialEq + std::fmt::Debug>(
    tensor: &Tensor,
    shape: &[usize],
    elements: &[T],
) {
    assert_eq!(tensor.shape(), shape);
    assert_eq!(tensor.elements::<T>().unwrap(), elements);
}

#[test]
fn unknown_functions_and_attributes_are_refused_on_load() {
    let refused = |function: &str, attributes| {
        program(function, attributes, &[(DType::F32, &[3])], &[(DType::I64, &[1, ANY])]).finish().unwrap_err()
    };
    let error = refused("frobnicate", json!({}));
    assert!(
        matches!(&error, Error::UnknownHostFunction { function, .. } if function == "frobnicate"),
        "{error}"
    );
    let error = refused("nonzero", json!({"axis": 1})).to_string();
    assert!(error.contains("steps[0]") && error.contains("`axis`"), "{error}");
    let error = refused("argsort", json!({"axis": 1})).to_string();
    assert!(error.contains("rank"), "{error}");
}

#[test]
fn nonzero_lists_positions() {
    let out: &[(DType, &[i64])] = &[(DType::I64, &[2, ANY])];
    let outputs = call("nonzero", json!({}), &[tensor(&[2, 2], &[1i32, 0, 1, 1])], out).unwrap();
    check(&outputs[0], &[2, 3], &[0i64, 1, 1, 0, 0, 1]);
    let outputs = call("nonzero", json!({}), &[tensor(&[0, 2], &[0f32; 0])], out).unwrap();
    check(&outputs[0], &[2, 0], &[0i64; 0]);
    let flags = TensorRef::new(DType::Bool, &[], &[1]).unwrap();
    let outputs = call("onnx.NonZero", json!({"absent": []}), &[flags], &[(DType::I64, &[0, ANY])]).unwrap();
    check(&outputs[0], &[0, 1], &[0i64; 0]);
}

#[test]
fn compress_selects_slices() {
    let data = [1f32, 2., 3., 4., 5., 6.];
    let run = |attributes, condition: &[u8], shape: &[i64]| {
        let condition = TensorRef::new(DType::Bool, &[condition.len()], condition).unwrap();
        call("compress", attributes, &[tensor(&[3, 2], &data), condition], &[(DType::F32, shape)]).unwrap()
    };
    check(&run(json!({"axis": 0}), &[0, 1, 1], &[ANY, 2])[0], &[2, 2], &[3f32, 4., 5., 6.]);
    check(&run(json!({"axis": 1}), &[0, 1], &[3, ANY])[0], &[3, 1], &[2f32, 4., 6.]);
    check(&run(json!({"axis": -2}), &[1], &[ANY, 2])[0], &[1, 2], &[1f32, 2.]);
    check(&run(json!({}), &[0, 1, 0, 0, 1], &[ANY])[0], &[2], &[2f32, 5.]);
    check(&run(json!({}), &[], &[ANY])[0], &[0], &[0f32; 0]);
}

#[test]
fn top_k_takes_the_lower_index_of_equal_elements() {
    let x = [0f32, 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.];
    let out: &[(DType, &[i64])] = &[(DType::F32, &[3, ANY]), (DType::I64, &[3, ANY])];
    let k = [3i64];
    let outputs = call("top_k", json!({"axis": 1}), &[tensor(&[3, 4], &x), tensor(&[1], &k)], out).unwrap();
    check(&outputs[0], &[3, 3], &[3f32, 2., 1., 7., 6., 5., 11., 10., 9.]);
    check(&outputs[1], &[3, 3], &[3i64, 2, 1, 3, 2, 1, 3, 2, 1]);
    let declared: &[(DType, &[i64])] = &[(DType::F32, &[3, 1]), (DType::I64, &[3, 1])];
    let outputs = call("onnx.TopK", json!({"largest": 0}), &[tensor(&[3, 4], &x)], declared).unwrap();
    check(&outputs[0], &[3, 1], &[0f32, 4., 8.]);
    let ties = [1f32, 3., 3., f32::NAN, 1., 3.];
    let run = |largest: i64, k: i64| {
        let out: &[(DType, &[i64])] = &[(DType::F32, &[ANY]), (DType::I64, &[ANY])];
        let k = [k];
        call("top_k", json!({"largest": largest}), &[tensor(&[6], &ties), tensor(&[1], &k)], out)
    };
    assert_eq!(run(1, 3).unwrap()[1].elements::<i64>().unwrap(), [3, 1, 2]);
    assert_eq!(run(0, 3).unwrap()[1].elements::<i64>().unwrap(), [0, 4, 1]);
    assert_eq!(run(0, 0).unwrap()[1].shape(), [0]);
    let message = run(1, 7).unwrap_err().to_string();
    assert!(message.contains("K is 7") && message.contains("top_k"), "{message}");
}

#[test]
fn unique_orders_or_keeps_the_first() {
    let x = [2f32, 1., 1., 3., 4., 3.];
    let any: &[i64] = &[ANY];
    let out = [(DType::F32, any), (DType::I64, any), (DType::I64, any), (DType::I64, any)];
    let outputs = call("unique", json!({"sorted": 0}), &[tensor(&[6], &x)], &out).unwrap();
    check(&outputs[0], &[4], &[2f32, 1., 3., 4.]);
    check(&outputs[1], &[4], &[0i64, 1, 3, 4]);
    check(&outputs[2], &[6], &[0i64, 1, 1, 2, 3, 2]);
    check(&outputs[3], &[4], &[1i64, 2, 2, 1]);
    let outputs = call("unique", json!({}), &[tensor(&[2, 3], &x)], &out).unwrap();
    check(&outputs[0], &[4], &[1f32, 2., 3., 4.]);
    check(&outputs[1], &[4], &[1i64, 0, 3, 4]);
    check(&outputs[2], &[6], &[1i64, 0, 0, 2, 3, 2]);
    check(&outputs[3], &[4], &[2i64, 1, 2, 1]);
    // Slices: the third example of the specification, then one along the last axis.
    let rows = [1f32, 0., 0., 1., 0., 0., 2., 3., 4.];
    let out = [(DType::F32, [ANY, 3].as_slice()), (DType::I64, any), (DType::I64, any), (DType::I64, any)];
    let outputs = call("unique", json!({"axis": 0}), &[tensor(&[3, 3], &rows)], &out).unwrap();
    check(&outputs[0], &[2, 3], &[1f32, 0., 0., 2., 3., 4.]);
    check(&outputs[1], &[2], &[0i64, 2]);
    check(&outputs[2], &[3], &[0i64, 0, 1]);
    check(&outputs[3], &[2], &[2i64, 1]);
    let pairs = [1f32, 1., 0., 1., 2., 1., 0., 1., 1., 1., 0., 1., 2., 1., 0., 1.];
    let out = [(DType::F32, [2, ANY, 2].as_slice()), (DType::I64, any), (DType::I64, any), (DType::I64, any)];
    let outputs = call("unique", json!({"axis": 1}), &[tensor(&[2, 4, 2], &pairs)], &out).unwrap();
    check(&outputs[0], &[2, 3, 2], &[0f32, 1., 1., 1., 2., 1., 0., 1., 1., 1., 2., 1.]);
    check(&outputs[1], &[3], &[1i64, 0, 2]);
    check(&outputs[2], &[4], &[1i64, 0, 2, 0]);
    check(&outputs[3], &[3], &[2i64, 1, 1]);
}

#[test]
fn non_max_suppression_follows_the_examples() {
    let boxes = [
        0.0f32, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, -0.1, 1.0, 0.9, 0.0, 10.0, 1.0, 11.0, 0.0, 10.1, 1.0,
        11.1, 0.0, 100.0, 1.0, 101.0,
    ];
    let scores = [0.9f32, 0.75, 0.6, 0.95, 0.5, 0.3];
    let run = |attributes, boxes: &[f32], scores: &[f32], classes: usize, most: i64, score: f32| {
        let (most, overlap, score) = ([most], [0.5f32], [score]);
        let inputs = [
            tensor(&[1, boxes.len() / 4, 4], boxes),
            tensor(&[1, classes, boxes.len() / 4], scores),
            tensor(&[1], &most),
            tensor(&[1], &overlap),
            tensor(&[1], &score),
        ];
        let outputs = call("non_max_suppression", attributes, &inputs, &[(DType::I64, &[ANY, 3])]).unwrap();
        outputs[0].elements::<i64>().unwrap().to_vec()
    };
    assert_eq!(run(json!({}), &boxes, &scores, 1, 3, 0.0), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
    assert_eq!(run(json!({}), &boxes, &scores, 1, 2, 0.0), [0, 0, 3, 0, 0, 0]);
    assert_eq!(run(json!({}), &boxes, &scores, 1, 3, 0.4), [0, 0, 3, 0, 0, 0]);
    assert_eq!(run(json!({}), &boxes, &scores, 1, 0, 0.0), [0i64; 0]);
    let twice: Vec<f32> = scores.iter().chain(&scores).copied().collect();
    assert_eq!(run(json!({}), &boxes, &twice, 2, 2, 0.0), [0, 0, 3, 0, 0, 0, 0, 1, 3, 0, 1, 0]);
    // Corners in any order, and centre form, give the same.
    let flipped: Vec<f32> = boxes.chunks(4).flat_map(|c| [c[2], c[1], c[0], c[3]]).collect();
    assert_eq!(run(json!({}), &flipped, &scores, 1, 3, 0.0), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
    let centred: Vec<f32> = boxes
        .chunks(4)
        .flat_map(|c| [(c[1] + c[3]) / 2.0, (c[0] + c[2]) / 2.0, c[3] - c[1], c[2] - c[0]])
        .collect();
    assert_eq!(
        run(json!({"center_point_box": 1}), &centred, &scores, 1, 3, 0.0),
        [0, 0, 3, 0, 0, 0, 0, 0, 5]
    );
}

#[test]
fn range_counts_as_specified() {
    let any: &[(DType, &[i64])] = &[(DType::F32, &[ANY])];
    let run = |values: [f32; 3]| {
        let inputs = [tensor(&[], &values[..1]), tensor(&[], &values[1..2]), tensor(&[], &values[2..])];
        call("range", json!({}), &inputs, any)
    };
    check(&run([1.0, 5.0, 2.0]).unwrap()[0], &[2], &[1f32, 3.0]);
    check(&run([10.0, 4.0, -2.0]).unwrap()[0], &[3], &[10f32, 8.0, 6.0]);
    check(&run([1.0, 1.0, 1.0]).unwrap()[0], &[0], &[0f32; 0]);
    check(&run([5.0, 1.0, 1.0]).unwrap()[0], &[0], &[0f32; 0]);
    assert!(run([0.0, 1.0, 0.0]).is_err());
    assert!(run([0.0, f32::INFINITY, 1.0]).is_err());
    let big = [i64::MAX - 3, i64::MAX, 2];
    let inputs = [tensor(&[], &big[..1]), tensor(&[], &big[1..2]), tensor(&[], &big[2..])];
    let outputs = call("range", json!({}), &inputs, &[(DType::I64, &[ANY])]).unwrap();
    check(&outputs[0], &[2], &[i64::MAX - 3, i64::MAX - 1]);
}

#[test]
fn random_numbers_repeat_until_the_epoch_changes() {
    let attributes = json!({"stream": 3, "low": -2.0, "high": 2.0});
    let executable = program("random_uniform", attributes, &[], &[(DType::F32, &[1000])]).finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let mut draw = |epoch| {
        session.set_random_epoch(epoch);
        session.run(&[]).unwrap()[0].elements::<f32>().unwrap().to_vec()
    };
    let first = draw(0);
    assert_eq!(first, draw(0));
    assert_ne!(first, draw(1));
    let generator = Philox { seed: 0, stream: 0, epoch: 3 };
    let expected: Vec<f32> = (0..1000).map(|i| (-2.0 + generator.uniform(i) * 4.0) as f32).collect();
    assert_eq!(first, expected);

    // With a seed the epoch does not matter.
    let attributes = json!({"seed": 7, "stream": 3});
    let executable = program("random_uniform", attributes, &[], &[(DType::F64, &[5])]).finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    session.set_random_epoch(9);
    let generator = Philox { seed: 7, stream: 3, epoch: 0 };
    let expected: Vec<f64> = (0..5).map(|i| generator.uniform(i)).collect();
    check(&session.run(&[]).unwrap()[0], &[5], &expected);

    let outputs =
        call("random_normal", json!({"mean": 5.0, "scale": 0.0}), &[], &[(DType::F16, &[4])]).unwrap();
    check(&outputs[0], &[4], &[half::f16::from_f32(5.0); 4]);
    let p = [0f32, 1., 0.5, 0.5, 1., 0.];
    let outputs =
        call("bernoulli", json!({"seed": 1}), &[tensor(&[2, 3], &p)], &[(DType::I32, &[2, 3])]).unwrap();
    let tossed = outputs[0].elements::<i32>().unwrap();
    assert_eq!([tossed[0], tossed[1], tossed[4], tossed[5]], [0, 1, 1, 0]);
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0, 0.0, f32::NEG_INFINITY];
    let outputs =
        call("multinomial", json!({"seed": 5}), &[tensor(&[2, 3], &logits)], &[(DType::I64, &[2, 500])]);
    let outputs = outputs.unwrap();
    let (fixed, mixed) = outputs[0].elements::<i64>().unwrap().split_at(500);
    assert!(fixed.iter().all(|&class| class == 1));
    let ones = mixed.iter().filter(|&&class| class == 1).count();
    assert!(mixed.iter().all(|&class| class < 2) && (200..300).contains(&ones), "{ones}");
}

#[test]
fn determinants() {
    let x = [0f32, 2., 3., 4., 1., 2., 2., 4.];
    let outputs = call("onnx.Det", json!({}), &[tensor(&[2, 2, 2], &x)], &[(DType::F32, &[2])]).unwrap();
    check(&outputs[0], &[2], &[-6f32, 0.]);
    let outputs = call("onnx.Det", json!({}), &[tensor::<f64>(&[0, 0], &[])], &[(DType::F64, &[])]).unwrap();
    check(&outputs[0], &[], &[1f64]);
    assert!(call("onnx.Det", json!({}), &[tensor(&[2, 4], &x)], &[(DType::F32, &[])]).is_err());
}

#[test]
fn strings_are_normalized_and_cast() {
    let days = texts(&["monday", "Tuesday", "wednesday"]);
    let run = |attributes, list: &[String], shape: &[usize], out: &[i64]| {
        let input = TensorRef::from_strings(shape, list).unwrap();
        let outputs = call("onnx.StringNormalizer", attributes, &[input], &[(DType::String, out)]).unwrap();
        outputs[0].strings().unwrap().to_vec()
    };
    let attributes = json!({"case_change_action": "UPPER", "stopwords": ["tuesday"]});
    assert_eq!(run(attributes, &days, &[1, 3], &[1, ANY]), ["MONDAY", "WEDNESDAY"]);
    let attributes = json!({"is_case_sensitive": 1, "stopwords": ["monday", "tuesday"]});
    assert_eq!(run(attributes, &days, &[3], &[ANY]), ["Tuesday", "wednesday"]);
    assert_eq!(run(json!({"stopwords": ["monday"]}), &days[..1], &[1], &[ANY]), [""]);

    let numbers = [1.5f32, -0.0, f32::INFINITY, f32::NAN, 1e-7];
    let outputs = call("onnx.Cast", json!({}), &[tensor(&[5], &numbers)], &[(DType::String, &[5])]).unwrap();
    assert_eq!(outputs[0].strings().unwrap(), ["1.5", "-0.0", "INF", "NaN", "1e-7"]);
    let input = [outputs[0].as_ref()];
    let back = call("onnx.Cast", json!({}), &input, &[(DType::F32, &[5])]).unwrap();
    let bits = |list: &[f32]| list.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(back[0].elements().unwrap()), bits(&numbers));
    let words = texts(&["-3", " 300 ", "x"]);
    let input = TensorRef::from_strings(&[2], &words[..2]).unwrap();
    let outputs = call("onnx.Cast", json!({}), &[input], &[(DType::I8, &[2])]).unwrap();
    check(&outputs[0], &[2], &[-3i8, 44]);
    let input = TensorRef::from_strings(&[3], &words).unwrap();
    assert!(
        call("onnx.Cast", json!({}), &[input], &[(DType::I8, &[3])]).unwrap_err().to_string().contains("`x`")
    );
}

fn string<'a>(shape: &[usize], list: &'a [String]) -> TensorRef<'a> {
    TensorRef::from_strings(shape, list).unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn strings_are_joined_split_and_compared() {
    let (a, b) = (texts(&["cat", "dog"]), texts(&["s", ""]));
    let out: &[(DType, &[i64])] = &[(DType::String, &[2, 2])];
    let outputs = call("string_concat", json!({}), &[string(&[2, 1], &a), string(&[2], &b)], out).unwrap();
    assert_eq!(outputs[0].strings().unwrap(), ["cats", "cat", "dogs", "dog"]);
    let out: &[(DType, &[i64])] = &[(DType::Bool, &[2])];
    let c = texts(&["dog"]);
    let outputs = call("string_equal", json!({}), &[string(&[2], &a), string(&[1], &c)], out).unwrap();
    assert_eq!(outputs[0].bytes(), [0, 1]);
    let outputs =
        call("string_constant", json!({"values": ["x", "y"]}), &[], &[(DType::String, &[1, 2])]).unwrap();
    assert_eq!(outputs[0].strings().unwrap(), ["x", "y"]);
    assert_eq!(outputs[0].shape(), [1, 2]);

    let split = |attributes, list: &[String]| {
        let out: &[(DType, &[i64])] = &[(DType::String, &[ANY, ANY]), (DType::I64, &[ANY])];
        let outputs = call("string_split", attributes, &[string(&[list.len()], list)], out).unwrap();
        (outputs[0].strings().unwrap().to_vec(), outputs[1].elements::<i64>().unwrap().to_vec())
    };
    let (pieces, counts) = split(json!({"delimiter": "."}), &texts(&["abc.com", "abc.net"]));
    assert_eq!((pieces, counts), (texts(&["abc", "com", "abc", "net"]), vec![2, 2]));
    let (pieces, counts) = split(json!({"maxsplit": 1}), &texts(&["hello world", " a  b c ", "", "x"]));
    assert_eq!(
        (pieces, counts),
        (texts(&["hello", "world", "a", "b c ", "", "", "x", ""]), vec![2, 2, 0, 1])
    );
    let (pieces, counts) = split(json!({"delimiter": "-"}), &texts(&["o-n-n--x-", "o-n----nx"]));
    assert_eq!(pieces, texts(&["o", "n", "n", "", "x", "", "o", "n", "", "", "", "nx"]));
    assert_eq!(counts, [6, 6]);
    assert_eq!(split(json!({"delimiter": "-"}), &texts(&[""])), (texts(&[""]), vec![1]));
    assert_eq!(split(json!({}), &texts(&[" a b "])), (texts(&["a", "b"]), vec![2]));
}

#[test]
fn texts_match_from_end_to_end() {
    let sites = texts(&["www.google.com", "www.facebook.com", "www.bbc.co.uk", "xwww.a.com"]);
    let run = |pattern: &str| {
        let out: &[(DType, &[i64])] = &[(DType::Bool, &[2, 2])];
        call("onnx.RegexFullMatch", json!({ "pattern": pattern }), &[string(&[2, 2], &sites)], out)
    };
    assert_eq!(run(r"www\.[\w.-]+\.\bcom\b").unwrap()[0].bytes(), [1, 1, 0, 0]);
    assert!(run("(").unwrap_err().to_string().contains("`pattern`"));
}

#[test]
fn labels_are_looked_up() {
    let words = texts(&["b", "a", "z"]);
    let table = json!({ "keys_strings": ["a", "b", "a"], "values_int64s": [1, 2, 3] });
    let out: &[(DType, &[i64])] = &[(DType::I64, &[3])];
    let outputs = call("onnx.LabelEncoder", table, &[string(&[3], &words)], out).unwrap();
    check(&outputs[0], &[3], &[2i64, 1, -1]);

    let table = json!({
        "keys_tensor": { "shape": [3], "data": ["NaN", 1.5, "inf"] },
        "values_strings": ["nothing", "some", "all"],
        "default_string": "else",
    });
    let numbers = [1.5f32, f32::INFINITY, f32::NAN, 2.0];
    let out: &[(DType, &[i64])] = &[(DType::String, &[4])];
    let outputs = call("onnx.LabelEncoder", table, &[tensor(&[4], &numbers)], out).unwrap();
    assert_eq!(outputs[0].strings().unwrap(), texts(&["some", "all", "nothing", "else"]));

    let short = json!({ "keys_int64s": [1, 2], "values_floats": [0.5] });
    let out: &[(DType, &[i64])] = &[(DType::F32, &[1])];
    let error = call("onnx.LabelEncoder", short, &[tensor(&[1], &[1i64])], out).unwrap_err();
    assert!(error.to_string().contains("2 keys for 1 values"), "{error}");
}

#[test]
fn ngrams_are_counted() {
    let pool = |mode: &str, skips: i64, shortest: i64| {
        json!({
            "mode": mode, "min_gram_length": shortest, "max_gram_length": 2, "max_skip_count": skips,
            "ngram_counts": [0, 4], "ngram_indexes": [0, 1, 2, 3, 4, 5, 6],
            "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
        })
    };
    let words = [1i32, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8];
    let run = |attributes, shape: &[usize], out: &[i64]| {
        call("onnx.TfIdfVectorizer", attributes, &[tensor(shape, &words)], &[(DType::F32, out)]).unwrap()
    };
    check(&run(pool("TF", 0, 2), &[12], &[7])[0], &[7], &[0f32, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    check(&run(pool("TF", 5, 2), &[12], &[7])[0], &[7], &[0f32, 0.0, 0.0, 0.0, 1.0, 3.0, 1.0]);
    let rows = [0f32, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
    check(&run(pool("TF", 0, 1), &[2, 6], &[2, 7])[0], &[2, 7], &rows);
}

#[test]
fn trees_lead_to_leaves() {
    let stump = |nodes: serde_json::Value, leaves: serde_json::Value| {
        json!({
            "n_targets": 1, "tree_roots": [0], "nodes_modes": [0], "nodes_featureids": [1],
            "nodes_splits": [1.0], "nodes_truenodeids": nodes, "nodes_trueleafs": leaves,
            "nodes_falsenodeids": [1], "nodes_falseleafs": [1],
            "leaf_targetids": [0, 0], "leaf_weights": [5.0, -3.0],
        })
    };
    let rows = [9f32, 1.0, 9.0, 1.5, 9.0, f32::NAN];
    let out: &[(DType, &[i64])] = &[(DType::F32, &[3, 1])];
    let run = |trees| call("onnx.TreeEnsemble", trees, &[tensor(&[3, 2], &rows)], out);
    check(&run(stump(json!([0]), json!([1]))).unwrap()[0], &[3, 1], &[5f32, -3.0, -3.0]);
    let error = run(stump(json!([0]), json!([0]))).unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
    let error = run(stump(json!([7]), json!([0]))).unwrap_err();
    assert!(error.to_string().contains("7 of 1"), "{error}");
    let narrow = [1f32];
    let error = call(
        "onnx.TreeEnsemble",
        stump(json!([0]), json!([1])),
        &[tensor(&[1, 1], &narrow)],
        &[(DType::F32, &[1, 1])],
    );
    assert!(error.unwrap_err().to_string().contains("2 features"));
}

#[test]
fn taps_of_deformable_convolutions_move() {
    let image: Vec<f32> = (0..9u8).map(f32::from).collect();
    let filter = [1f32; 4];
    let mut offsets = [0f32; 32];
    let out: &[(DType, &[i64])] = &[(DType::F32, &[1, 1, 2, 2])];
    let run = |offsets: &[f32], absent: serde_json::Value, more: &[TensorRef]| {
        let shapes =
            [tensor(&[1, 1, 3, 3], &image), tensor(&[1, 1, 2, 2], &filter), tensor(&[1, 8, 2, 2], offsets)];
        call("onnx.DeformConv", json!({ "absent": absent }), &[&shapes, more].concat(), out)
    };
    check(&run(&offsets, json!([]), &[]).unwrap()[0], &[1, 1, 2, 2], &[8f32, 12.0, 20.0, 24.0]);
    // The first tap half a pixel down.
    offsets[..4].fill(0.5);
    check(&run(&offsets, json!([]), &[]).unwrap()[0], &[1, 1, 2, 2], &[9.5f32, 13.5, 21.5, 25.5]);
    let bias = [1f32];
    let moved = run(&offsets, json!([]), &[tensor(&[1], &bias)]).unwrap();
    check(&moved[0], &[1, 1, 2, 2], &[10.5f32, 14.5, 22.5, 26.5]);
    // A mask without a bias.
    let mask = [2f32; 16];
    let masked = run(&offsets, json!([3]), &[tensor(&[1, 4, 2, 2], &mask)]).unwrap();
    check(&masked[0], &[1, 1, 2, 2], &[19f32, 27.0, 43.0, 51.0]);
    assert!(run(&offsets, json!([3]), &[tensor(&[1], &bias)]).is_err());
}

#[test]
fn results_with_a_bound_go_into_the_arena_and_on_to_kernels() {
    // y = x[nonzero positions as a vector] through compress, then doubled by a kernel over the count found.
    let mut b = Builder::new();
    let n = b.symbol("n", 0, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let count = b.symbol("count", 0, i64::MAX, SymbolSource::Step { bound: Some(n.clone()) });
    let x = b.input("x", DType::F32, &[n.clone()]);
    let keep = b.input("keep", DType::Bool, &[n]);
    let kept = b.arena("kept", DType::F32, &[count.clone()], 0, 1);
    let y = b.output("y", DType::F32, &[count.clone()]);
    b.call(Step::Host(HostStep {
        function: "compress".into(),
        attributes: Default::default(),
        inputs: vec![Some(x), Some(keep)],
        outputs: vec![kept],
        binds: vec![1],
    }));
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::Write], 0);
    b.call(run_kernel(add, &[kept, kept, y], &[], count, 3));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 2).unwrap();
    for n in [0usize, 1, 5, 100, 7] {
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let keep: Vec<u8> = (0..n).map(|i| u8::from(i % 3 == 0)).collect();
        let outputs =
            session.run(&[tensor(&[n], &x), TensorRef::new(DType::Bool, &[n], &keep).unwrap()]).unwrap();
        let expected: Vec<f32> = x.iter().filter(|x| **x % 3.0 == 0.0).map(|x| x + x).collect();
        check(&outputs[0], &[n.div_ceil(3)], &expected);
    }
}

proptest! {
    #[test]
    fn sorting_agrees_with_the_standard_library(
        data in prop::collection::vec(-5i64..5, 0..40),
        descending: bool,
    ) {
        let mut expected: Vec<(i64, usize)> = data.iter().copied().zip(0..).collect();
        expected.sort_by(|a, b| if descending { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
        let attributes = json!({"descending": descending});
        let input = [tensor(&[data.len()], &data)];
        let sorted = call("sort", attributes.clone(), &input, &[(DType::I64, &[ANY])]).unwrap();
        let order = call("argsort", attributes, &input, &[(DType::I64, &[ANY])]).unwrap();
        let values: Vec<i64> = expected.iter().map(|pair| pair.0).collect();
        let indices: Vec<i64> = expected.iter().map(|pair| pair.1 as i64).collect();
        prop_assert_eq!(sorted[0].elements::<i64>().unwrap(), values);
        prop_assert_eq!(order[0].elements::<i64>().unwrap(), indices);
    }
}
