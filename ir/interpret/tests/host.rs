//! Host functions on text, sequences and trees; numeric ones are among the golden cases.

mod common;

use common::*;
use tcc_interpret::{Error, Interpreter, Tensor, Value};
use tcc_ir::builder::Builder;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

/// The type of a value, as far as host functions need it.
fn type_of(value: &Value) -> Type {
    match value {
        Value::Tensor(tensor) => tensor.ty(),
        Value::Sequence(items) => {
            Type::Sequence(Box::new(items.first().map_or(Type::tensor(DType::F32, vec![]), type_of)))
        }
        Value::Optional(inner) => Type::Optional(Box::new(
            inner.as_ref().map_or(Type::tensor(DType::F32, vec![]), |inner| type_of(inner)),
        )),
    }
}

/// One host function on values; `types` are those of the results.
fn host(function: &str, attributes: &str, types: &[&str], inputs: &[Value]) -> Result<Vec<Value>, Error> {
    let mut builder = Builder::new("main");
    let operands: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, value)| builder.input(&index.to_string(), type_of(value)))
        .collect();
    let operator = Operator::Host {
        function: format!("onnx.{function}"),
        attributes: attributes.into(),
        types: types.iter().map(|ty| ty.to_string()).collect(),
    };
    let results = builder.op(operator, &operands).unwrap();
    let names: Vec<String> = (0..results.len()).map(|index| format!("y{index}")).collect();
    let outputs: Vec<_> = names.iter().map(String::as_str).zip(results).collect();
    let module = Module::with(builder.finish(&outputs));
    Interpreter::new(&module).run(inputs.to_vec())
}

fn text(shape: &[usize], texts: &[&str]) -> Value {
    Value::from(Data::from_texts(shape, texts).unwrap())
}

#[track_caller]
fn texts(value: &Value) -> Vec<String> {
    value.as_tensor().unwrap().texts().unwrap().to_vec()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_tensor().unwrap().integers().unwrap().to_vec()
}

const ANY: &str = "tensor<?x!tir.string, \"p\">";

#[test]
fn text_is_normalized() {
    let words = text(&[4], &["Monday", "tuesday", "Wednesday", "THE"]);
    let run = |attributes: &str| {
        texts(&host("StringNormalizer", attributes, &[ANY], std::slice::from_ref(&words)).unwrap()[0])
    };
    assert_eq!(
        run(r#"{"case_change_action": "LOWER", "stopwords": ["monday", "the"]}"#),
        ["tuesday", "wednesday"]
    );
    assert_eq!(
        run(r#"{"case_change_action": "UPPER", "is_case_sensitive": 1, "stopwords": ["monday", "THE"]}"#),
        ["MONDAY", "TUESDAY", "WEDNESDAY"]
    );
    let all = r#"{"stopwords": ["monday", "tuesday", "wednesday", "the"]}"#;
    assert_eq!(run(all), [""]);
}

#[test]
fn text_is_split_and_joined() {
    let ty = ["tensor<?x?x!tir.string, \"2; p\">", "tensor<2xi64>"];
    let ty = [ty[0].replace("?x?", "2x?"), ty[1].to_string()];
    let ty = [ty[0].as_str(), ty[1].as_str()];
    let x = [text(&[2], &["a b  c ", " d"])];
    let results = host("StringSplit", "{}", &ty, &x).unwrap();
    assert_eq!(texts(&results[0]), ["a", "b", "c", "d", "", ""]);
    assert_eq!(integers(&results[1]), [3, 1]);
    let results = host("StringSplit", r#"{"maxsplit": 1}"#, &ty, &x).unwrap();
    assert_eq!(texts(&results[0]), ["a", "b  c ", "d", ""]);
    let results = host("StringSplit", r#"{"delimiter": " "}"#, &ty, &x).unwrap();
    assert_eq!(texts(&results[0]), ["a", "b", "", "c", "", "", "d", "", "", ""]);
    let joined = host(
        "StringConcat",
        "",
        &["tensor<2x2x!tir.string>"],
        &[text(&[2, 1], &["a", "b"]), text(&[2], &["x", "y"])],
    );
    assert_eq!(texts(&joined.unwrap()[0]), ["ax", "ay", "bx", "by"]);
    let equal =
        host("Equal", "{}", &["tensor<2xi1>"], &[text(&[2], &["a", "b"]), text(&[], &["b"])]).unwrap();
    assert_eq!(integers(&equal[0]), [0, 1]);
}

#[test]
fn text_matches_as_a_whole() {
    let run = |pattern: &str| {
        let attributes = serde_json::json!({ "pattern": pattern }).to_string();
        host(
            "RegexFullMatch",
            &attributes,
            &["tensor<3xi1>"],
            &[text(&[3], &["www.a.com", "www.a.com ", "b"])],
        )
    };
    assert_eq!(integers(&run(r"www\.[\w.]+com|c").unwrap()[0]), [1, 0, 0]);
    assert!(run("(").is_err());
}

#[test]
fn text_becomes_numbers_and_back() {
    let run = |to: &str, x: Value| host("Cast", "{}", &[&format!("tensor<3x{to}>")], &[x]);
    let numbers_of = |value: &Value| numbers(value.as_tensor().unwrap());
    let x = text(&[3], &["1.5", "-INF", "NaN"]);
    assert_close(&numbers_of(&run("f32", x).unwrap()[0]), &[1.5, f64::NEG_INFINITY, f64::NAN], 0.0);
    assert_eq!(integers(&run("i64", text(&[3], &["7", "-3", " 2 "])).unwrap()[0]), [7, -3, 2]);
    assert!(run("i64", text(&[3], &["7", "x", "2"])).is_err());
    let back = run("!tir.string", Value::Tensor(f(&[3], &[0.478_925_47, f64::INFINITY, 2.0]))).unwrap();
    assert_eq!(texts(&back[0]), ["0.47892547", "INF", "2.0"]);
    let big = Tensor::from_integers(DType::U64, &[3], &[-1, 0, 5]).unwrap();
    assert_eq!(
        texts(&run("!tir.string", Value::Tensor(big)).unwrap()[0]),
        ["18446744073709551615", "0", "5"]
    );
}

#[test]
fn labels_are_looked_up() {
    let attributes = r#"{"keys_strings": ["a", "b"], "values_int64s": [10, 20], "default_int64": 7}"#;
    let found =
        host("LabelEncoder", attributes, &["tensor<3xi64>"], &[text(&[3], &["b", "z", "a"])]).unwrap();
    assert_eq!(integers(&found[0]), [20, 7, 10]);
    let attributes = r#"{"keys_floats": ["NaN", 1.0], "values_strings": ["nothing", "one"]}"#;
    let x = Value::Tensor(f(&[3], &[1.0, f64::NAN, 3.0]));
    let found = host("LabelEncoder", attributes, &["tensor<3x!tir.string>"], &[x]).unwrap();
    assert_eq!(texts(&found[0]), ["one", "nothing", "_Unused"]);
    let attributes = r#"{"keys_tensor": {"shape": [2], "data": [3, 4]}, "values_tensor": {"shape": [2], "data": [0.5, 0.25]},
        "default_tensor": {"shape": [1], "data": ["-inf"]}}"#;
    let x = Value::Tensor(i(&[3], &[4, 3, 9]));
    let found = host("LabelEncoder", attributes, &["tensor<3xf32>"], &[x]).unwrap();
    assert_eq!(numbers(found[0].as_tensor().unwrap()), [0.25, 0.5, f64::NEG_INFINITY]);
}

#[test]
fn sequences_grow_and_shrink() {
    let sequence = "!tir.sequence<tensor<?xf32, \"k\">>";
    let item = |values: &[f64]| Value::Tensor(f(&[values.len()], values));
    let run = |function: &str, inputs: &[Value]| host(function, "{}", &[sequence], inputs);
    let made = run("SequenceConstruct", &[item(&[1.0]), item(&[2.0, 3.0])]).unwrap().remove(0);
    let place = |index: i64| Value::Tensor(i(&[], &[index]));
    let inserted = run("SequenceInsert", &[made.clone(), item(&[9.0]), place(-1)]).unwrap().remove(0);
    assert_eq!(inserted, Value::Sequence(vec![item(&[1.0]), item(&[9.0]), item(&[2.0, 3.0])]));
    let appended = run("SequenceInsert", &[made.clone(), item(&[9.0])]).unwrap().remove(0);
    assert_eq!(appended, Value::Sequence(vec![item(&[1.0]), item(&[2.0, 3.0]), item(&[9.0])]));
    assert!(run("SequenceInsert", &[made.clone(), item(&[9.0]), place(-3)]).is_err());
    assert!(run("SequenceInsert", &[made.clone(), item(&[9.0]), place(i64::MIN)]).is_err());
    let erased = run("SequenceErase", std::slice::from_ref(&made)).unwrap().remove(0);
    assert_eq!(erased, Value::Sequence(vec![item(&[1.0])]));
    assert!(run("SequenceErase", &[Value::Sequence(vec![])]).is_err());
    let length = host("SequenceLength", "{}", &["tensor<i64>"], std::slice::from_ref(&made)).unwrap();
    assert_eq!(integers(&length[0]), [2]);
    let at = host("SequenceAt", "{}", &["tensor<?xf32, \"k\">"], &[made.clone(), place(-1)]).unwrap();
    assert_eq!(at[0], item(&[2.0, 3.0]));
    let joined = host("ConcatFromSequence", r#"{"axis": 0}"#, &["tensor<?xf32, \"k\">"], &[made]).unwrap();
    assert_eq!(joined[0], item(&[1.0, 2.0, 3.0]));
    let stacked = host(
        "ConcatFromSequence",
        r#"{"axis": -1, "new_axis": 1}"#,
        &["tensor<?x?xf32, \"a; b\">"],
        &[Value::Sequence(vec![item(&[1.0, 2.0]), item(&[3.0, 4.0])])],
    );
    assert_eq!(stacked.unwrap()[0], Value::Tensor(f(&[2, 2], &[1.0, 3.0, 2.0, 4.0])));
}

#[test]
fn tensors_split_into_sequences() {
    fn run(attributes: &str, inputs: &[Value]) -> Result<Vec<Tensor>, Error> {
        match host("SplitToSequence", attributes, &["!tir.sequence<tensor<?xf32, \"k\">>"], inputs)?.remove(0)
        {
            Value::Sequence(items) => items.iter().map(|item| item.as_tensor().cloned()).collect(),
            other => panic!("{other:?}"),
        }
    }
    let x = Value::Tensor(counting(&[2, 3]));
    let shapes = |items: &[Tensor]| items.iter().map(|item| item.shape().to_vec()).collect::<Vec<_>>();
    let parts = run(r#"{"axis": 1}"#, &[x.clone(), Value::Tensor(i(&[], &[2]))]).unwrap();
    assert_eq!(shapes(&parts), [[2, 2], [2, 1]]);
    assert_eq!(numbers(&parts[1]), [2.0, 5.0]);
    let parts = run(r#"{"axis": -1, "keepdims": 0}"#, std::slice::from_ref(&x)).unwrap();
    assert_eq!((shapes(&parts), numbers(&parts[1])), (vec![vec![2]; 3], vec![1.0, 4.0]));
    let parts = run(r#"{"axis": 0, "keepdims": 0}"#, &[x.clone(), Value::Tensor(i(&[2], &[0, 2]))]).unwrap();
    assert_eq!(shapes(&parts), [[0, 3], [2, 3]]);
    for sizes in [vec![1, 2], vec![-1, 3], vec![i64::MAX, 1]] {
        assert!(run("{}", &[x.clone(), Value::Tensor(i(&[2], &sizes))]).is_err());
    }
}

#[test]
fn optionals_hold_a_value_or_none() {
    let optional = "!tir.optional<tensor<f32>>";
    let full = host("Optional", "{}", &[optional], &[Value::Tensor(f(&[], &[2.0]))]).unwrap().remove(0);
    let empty = host("Optional", "{}", &[optional], &[]).unwrap().remove(0);
    let has = |value: &Value| {
        integers(&host("OptionalHasElement", "{}", &["tensor<i1>"], std::slice::from_ref(value)).unwrap()[0])
    };
    assert_eq!((has(&full), has(&empty)), (vec![1], vec![0]));
    assert_eq!(integers(&host("OptionalHasElement", "{}", &["tensor<i1>"], &[]).unwrap()[0]), [0]);
    let get = |value: &Value| host("OptionalGetElement", "{}", &["tensor<f32>"], std::slice::from_ref(value));
    assert_eq!(get(&full).unwrap()[0], Value::Tensor(f(&[], &[2.0])));
    assert!(get(&empty).is_err());
}

#[test]
fn conditions_pick_slices() {
    let x = Value::Tensor(counting(&[3, 2]));
    let condition = |values: &[f64]| Value::Tensor(t(DType::Bool, &[values.len()], values));
    let run = |attributes: &str, ty: &str, picked: &[f64]| {
        let results = host("Compress", attributes, &[ty], &[x.clone(), condition(picked)])?;
        Ok::<_, Error>(numbers(results[0].as_tensor().unwrap()))
    };
    assert_eq!(
        run(r#"{"axis": 0}"#, "tensor<?x2xf32, \"k; 2\">", &[0.0, 1.0, 1.0]).unwrap(),
        [2.0, 3.0, 4.0, 5.0]
    );
    assert_eq!(run("{}", "tensor<?xf32, \"k\">", &[0.0, 1.0, 0.0, 0.0, 1.0]).unwrap(), [1.0, 4.0]);
    assert!(run(r#"{"axis": 1}"#, "tensor<3x?xf32, \"3; k\">", &[0.0, 0.0, 1.0]).is_err());
}

#[test]
fn trees_are_walked() {
    // x0 <= 1 ? leaf 0 : (x1 in {3, 4} ? leaf 1 : leaf 2), and a second tree x1 > 2 ? leaf 0 : leaf 2.
    let attributes = |more: &str| {
        format!(
            r#"{{"n_targets": 2, "tree_roots": [0, 2], "nodes_modes": {{"shape": [3], "data": [0, 6, 3]}},
            "nodes_featureids": [0, 1, 1], "nodes_splits": {{"shape": [3], "data": [1.0, 0.0, 2.0]}},
            "membership_values": {{"shape": [3], "data": [3.0, 4.0, "NaN"]}},
            "nodes_truenodeids": [0, 1, 0], "nodes_trueleafs": [1, 1, 1],
            "nodes_falsenodeids": [1, 2, 2], "nodes_falseleafs": [0, 1, 1],
            "leaf_targetids": [0, 1, 1], "leaf_weights": {{"shape": [3], "data": [10.0, 20.0, 30.0]}}{more}}}"#
        )
    };
    let x = Value::Tensor(f(&[3, 2], &[0.0, 5.0, 2.0, 4.0, 2.0, 0.0]));
    let run = |more: &str| {
        let results =
            host("TreeEnsemble", &attributes(more), &["tensor<3x2xf32>"], std::slice::from_ref(&x))?;
        Ok::<_, Error>(numbers(results[0].as_tensor().unwrap()))
    };
    assert_eq!(run("").unwrap(), [20.0, 0.0, 10.0, 20.0, 0.0, 60.0]);
    assert_eq!(run(r#", "aggregate_function": 0"#).unwrap(), [10.0, 0.0, 5.0, 10.0, 0.0, 30.0]);
    assert_eq!(run(r#", "aggregate_function": 3"#).unwrap(), [10.0, 0.0, 10.0, 20.0, 0.0, 30.0]);
    // A node that is its own child never reaches a leaf.
    let circle = attributes("").replace("\"nodes_falseleafs\": [0, 1, 1]", "\"nodes_falseleafs\": [0, 0, 0]");
    assert!(host("TreeEnsemble", &circle, &["tensor<3x2xf32>"], std::slice::from_ref(&x)).is_err());
}

#[test]
fn unknown_functions_and_attributes_are_errors() {
    let x = [Value::Tensor(f(&[1], &[1.0]))];
    assert!(matches!(host("Nothing", "{}", &["tensor<1xf32>"], &x), Err(Error::At { .. })));
    assert!(host("NonZero", "[", &["tensor<?x?xi64, \"a; b\">"], &x).is_err());
    assert!(host("Det", "{}", &["tensor<f32>"], &x).is_err());
    assert!(host("RoiAlign", "{}", &["tensor<f32>"], &x).is_err());
}
