use proptest::prelude::*;

use super::*;
use crate::dtype::DType;
use crate::print;

#[test]
fn dimensions_round_trip() {
    for text in [
        "5",
        "n",
        "2*seq+floordiv(n, 2)-1",
        "n*n*m-3*m+7",
        "max(n, min(m, 3))",
        "mod(n+1, 4)",
        "-n+2",
        "-9223372036854775808",
        "floordiv(floordiv(n, 2)-1, 3)*n",
    ] {
        let parsed = dim(text).unwrap();
        assert_eq!(dim(&parsed.to_string()).unwrap(), parsed, "{text}");
    }
    assert_eq!(dim("2 * (n + 1)").unwrap().to_string(), "2*n+2");
    assert_eq!(dim("floordiv(4*n+7, 4)").unwrap().to_string(), "n+1");
    for text in ["", "2*", "n n", "f(1, 2)", "floordiv(1)", "99999999999999999999", "a.b", &"(".repeat(500)] {
        assert!(dim(text).is_err(), "{text}");
    }
}

#[test]
fn division_of_the_smallest_integer_does_not_overflow() {
    for text in ["floordiv(-9223372036854775808, -1)", "floordiv(-9223372036854775808*n, -n)", "mod(n, -1)"] {
        dim(text).unwrap();
    }
}

#[test]
fn types_round_trip() {
    for text in [
        "tensor<f32>",
        "tensor<2x0x!tir.string>",
        "tensor<?x3xui8, \"2*n+1; 3\">",
        "tensor<4x!quant.uniform<u8:f32, 0.5:128>>",
        "tensor<2x?x!quant.uniform<i8:f16:0, {1.0e-7:0, 0.25:-3}>, \"2; n\">",
        "tensor<4x!tir.block<\"ui4:f32:0:2, 0.5:8, 0.25:7\">>",
        "!tir.sequence<!tir.optional<tensor<?xi64, \"n\">>>",
    ] {
        let parsed = ty(text).unwrap();
        assert_eq!(ty(&parsed.to_string()).unwrap(), parsed, "{text}");
    }
    for text in [
        "tensor<?xf32>",
        "tensor<3xf33>",
        "tensor<?xf32, \"3\">",
        "tensor<2xf32, \"n\">",
        "tensor<2xf32, \"2; 3\">",
        "tensor<0x3",
        &"!tir.sequence<".repeat(500),
    ] {
        assert!(ty(text).is_err(), "{text}");
    }
}

fn body(operation: &str) -> String {
    format!(
        "module {{ \"tir.func\"() ({{\n {operation}\n \"tir.return\"() : () -> () }}) {{sym_name = \"main\"}} : () -> () }}"
    )
}

fn constant(text: &str, ty: &str) -> Result<crate::data::Data, ParseError> {
    let text = body(&format!("%0 = \"tir.constant\"() {{data = dense<{text}> : {ty}}} : () -> {ty}"));
    let module = module(&text)?;
    match &module.functions["main"].body.operations[0].operator {
        crate::operator::Operator::Constant { data } => Ok(data.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn constants_have_several_spellings() {
    let ints = |text: &str, ty: &str| constant(text, ty).unwrap().to_integers().unwrap();
    assert_eq!(ints("7", "tensor<2x2xi64>"), [7; 4]);
    assert_eq!(ints("[[1, -2], [3, 4]]", "tensor<2x2xi8>"), [1, -2, 3, 4]);
    assert_eq!(ints("\"0x01000200\"", "tensor<2xi16>"), [1, 2]);
    assert_eq!(ints("\"0x05\"", "tensor<3xui8>"), [5; 3]);
    assert_eq!(ints("[true, false]", "tensor<2xi1>"), [1, 0]);
    assert_eq!(
        constant("[1.5, 0x7F800000]", "tensor<2xf32>").unwrap().to_f32().unwrap(),
        [1.5, f32::INFINITY]
    );
    assert_eq!(constant("[1, -8, 7]", "tensor<3xi4>").unwrap().bytes()[..], [0x81, 0x07]);
    assert_eq!(constant("", "tensor<0x3xf32>").unwrap().count(), 0);
    assert_eq!(constant("\"a\"", "tensor<!tir.string>").unwrap().bytes()[..], [1, 0, 0, 0, b'a']);
    for (text, ty) in [
        ("[1, 2]", "tensor<3xi64>"),
        ("[1, [2]]", "tensor<2xi64>"),
        ("[[1], [2, 3]]", "tensor<2x1xi64>"),
        ("128", "tensor<i8>"),
        ("0.5", "tensor<i8>"),
        ("inf", "tensor<f32>"),
        ("\"0x0\"", "tensor<1xi8>"),
        ("\"0x000000\"", "tensor<2xi16>"),
        ("1", "tensor<99999999999999x99999999999999xi8>"),
        ("1", "tensor<999999999999xi8>"),
        ("", "tensor<2xi8>"),
    ] {
        assert!(constant(text, ty).is_err(), "{text} {ty}");
    }
}

#[test]
fn errors_name_the_place() {
    let error = |operation: &str| module(&body(operation)).unwrap_err();
    let e = error("%0 = \"tir.iota\"() {dtype = \"i64\", shape = [3], axis = -1} : () -> tensor<3xi64>");
    assert_eq!((e.line, e.column), (2, 7));
    assert!(e.message.contains("axis"), "{e}");
    for (operation, expected) in [
        ("\"tir.nothing\"() : () -> ()", "unknown operator"),
        ("\"tir.dims\"() {dims = [], other = 1} : () -> ()", "no attribute 'other'"),
        ("\"tir.dims\"() {dims = [1]} : () -> tensor<1xi64>", "1 results"),
        ("\"arith.addf\"() : () -> ()", "tir dialect"),
        ("\"tir.bind\"(%9) {symbols = [\"n\"]} : (tensor<1xi64>) -> ()", "%9 is not defined"),
        ("\"tir.dims\"() {dims = [\"n+\"]} : () -> ()", "not a dimension"),
        ("\"tir.dims\"() {dims = [1, 2} : () -> ()", "',' or ']'"),
        ("\"tir.dims\"() {dims = [], dims = []} : () -> ()", "occurs twice"),
    ] {
        let error = error(operation);
        assert!(error.message.contains(expected), "{operation}: {error}");
    }
    let e = module("module {\n").unwrap_err();
    assert_eq!(e.to_string(), "2:1: expected '\"tir.func\"', found the end of the text");
}

#[test]
fn deep_nesting_is_refused() {
    let lists = format!("\"tir.dims\"() {{dims = {}}} : () -> ()", "[".repeat(100_000));
    assert!(module(&body(&lists)).unwrap_err().message.contains("deep"));
    let regions = "\"tir.if\"() ({ ".repeat(100_000);
    assert!(module(&body(&regions)).unwrap_err().message.contains("deep"));
    let dense = format!("%0 = \"tir.constant\"() {{data = dense<{}", "[".repeat(100_000));
    assert!(module(&body(&dense)).unwrap_err().message.contains("deep"));
}

#[test]
fn the_generic_module_form_is_read() {
    let text = "\"builtin.module\"() ({ }) : () -> ()";
    assert!(module(text).unwrap().functions.is_empty());
}

/// One edit of a text: position, kind, byte.
type Edit = (usize, u8, u8);

fn mutate(text: &str, edits: &[Edit]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for &(position, kind, byte) in edits {
        let position = position % bytes.len().max(1);
        match kind % 5 {
            0 if !bytes.is_empty() => bytes[position] = byte,
            1 => bytes.insert(position, byte),
            2 if !bytes.is_empty() => {
                bytes.remove(position);
            }
            3 => bytes.truncate(position),
            _ => {
                let end = (position + usize::from(byte)).min(bytes.len());
                let copy = bytes[position..end].to_vec();
                bytes.splice(position..position, copy);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_text_never_panics(edits in prop::collection::vec(any::<Edit>(), 1..6)) {
        let text = mutate(&print::module(&print::tests::sample()), &edits);
        if let Ok(module) = module(&text) {
            let _ = crate::verify::verify(&module);
            let again = print::module(&module);
            prop_assert_eq!(super::module(&again).map(|module| print::module(&module)), Ok(again));
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = module(&text);
        let _ = dim(&text);
        let _ = ty(&text);
    }

    #[test]
    fn dimension_text_never_panics(text in "[nm0-9+*()a-z, -]{0,60}") {
        if let Ok(parsed) = dim(&text) {
            prop_assert_eq!(dim(&parsed.to_string()), Ok(parsed));
        }
    }
}

#[test]
fn every_element_type_is_read_in_a_type() {
    for dtype in DType::ALL {
        assert_eq!(ty(&format!("tensor<3x{dtype}>")).unwrap().as_tensor().unwrap().dtype(), *dtype);
    }
}
