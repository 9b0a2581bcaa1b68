use super::*;
use crate::builder::Builder;
use crate::data::Data;
use crate::dim::{Dim, Range, Symbol};
use crate::dtype::DType;
use crate::module::Location;
use crate::operator::Operator;
use crate::scalar::Function as Scalar;
use crate::types::{Element, Granularity, Quantized, TensorType, Type};
use crate::{parse, verify};

/// A module with a nested region, symbols, quantized types, constants of every element type and two functions.
pub(crate) fn sample() -> Module {
    let mut b = Builder::new("main");
    let n = Symbol::new("n");
    b.declare(&n, Range { low: 1, high: 64 });
    let x = b.input("x \"quoted\"\n", Type::tensor(DType::F32, vec![Dim::symbol(&n), Dim::Const(3)]));
    let quantized = Quantized {
        storage: DType::U8,
        expressed: DType::F32,
        granularity: Granularity::Axis(0),
        scales: [0.5f64, 1e-7].map(f64::to_bits).to_vec(),
        zeros: vec![128, 0],
    };
    let element = Element::Quantized(Box::new(quantized));
    b.input("q", Type::Tensor(TensorType { element, shape: vec![2.into(), Dim::symbol(&n)] }));
    b.input("s", Type::Sequence(Box::new(Type::Optional(Box::new(Type::tensor(DType::String, vec![]))))));
    let flag = b.input("flag", Type::tensor(DType::Bool, vec![]));
    b.set_location(Location::named("Add_1 ü"));
    let y = b.call(Scalar::Add, &[x, x]).unwrap();
    let shape = vec![Dim::symbol(&n) * 3.into()];
    b.begin_region(vec![]);
    let flat = b.reshape(y, shape.clone()).unwrap();
    let first = b.end_region(&[flat]);
    b.begin_region(vec![]);
    let flat = b.reshape(x, shape.clone()).unwrap();
    let second = b.end_region(&[flat]);
    let ty = Type::tensor(DType::F32, shape);
    let chosen = b.region_op(Operator::If {}, &[flag], vec![first, second], vec![ty])[0];
    for &dtype in DType::ALL {
        for count in [0, 1, 3, 40] {
            let data = if dtype == DType::String {
                Data::from_texts(&[count], &vec!["a\"\\\u{1}é"; count]).unwrap()
            } else {
                let bytes: Vec<u8> = (0..dtype.bytes_for(count).unwrap())
                    .map(|byte| if dtype == DType::Bool { byte as u8 % 2 } else { (byte * 37) as u8 })
                    .collect();
                let padding = bytes.len() * 8 - count * dtype.bits();
                let mut bytes = bytes;
                if let Some(last) = bytes.last_mut() {
                    *last &= (0xffu16 >> padding) as u8;
                }
                Data::new(dtype, &[count], bytes.into()).unwrap()
            };
            b.constant(data).unwrap();
        }
    }
    b.constant(Data::from_f32(&[2, 1, 2], &[f32::NAN, f32::INFINITY, -0.0, 1e-30]).unwrap()).unwrap();
    b.require_equal(Dim::symbol(&n) * Dim::symbol(&n), Dim::Const(9));
    let mut module = Module::with(b.finish(&[("y", y), ("chosen", chosen)]));
    let mut second = Builder::new("second");
    let x = second.input("x", Type::tensor(DType::F64, vec![]));
    module.functions.insert("second".into(), second.finish(&[("x", x)]));
    module
}

#[test]
fn text_round_trips() {
    let module = sample();
    verify::verify(&module).unwrap();
    let text = super::module(&module);
    let parsed = parse::module(&text).unwrap();
    for (name, function) in &module.functions {
        assert_eq!(function.renumbered(), parsed.functions[name]);
    }
    assert_eq!(super::module(&parsed), text);
    verify::verify(&parsed).unwrap();
}

#[test]
fn display_elides_large_constants() {
    let text = display(&sample());
    assert!(text.contains("dense_resource<elided> : tensor<40xf32>"));
    assert!(text.contains("dense<[[[0x7FC00000"));
}

/// What `mlir-opt` prints, or `None` where it is not installed.
fn mlir_opt(text: &str) -> Option<String> {
    let dir = std::env::temp_dir();
    let path = dir.join(format!("tcc-ir-print-{}.mlir", std::process::id()));
    std::fs::write(&path, text).ok()?;
    let program = ["/usr/lib/llvm-22/bin/mlir-opt", "mlir-opt-22", "mlir-opt"]
        .into_iter()
        .find(|program| std::process::Command::new(program).arg("--version").output().is_ok())?;
    let output = std::process::Command::new(program)
        .args(["--allow-unregistered-dialect", "--mlir-print-debuginfo", "--mlir-print-local-scope"])
        .arg(&path)
        .output()
        .ok()?;
    let _ = std::fs::remove_file(&path);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).ok()
}

#[test]
fn mlir_opt_accepts_the_text_and_keeps_its_meaning() {
    let module = sample();
    let Some(text) = mlir_opt(&super::module(&module)) else {
        eprintln!("skipped: mlir-opt is not installed");
        return;
    };
    // Its decimal printing of narrow floats is shorter than exact, so names, types and structure are compared.
    let parsed = parse::module(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (name, function) in &module.functions {
        let (expected, found) = (function.renumbered(), &parsed.functions[name]);
        assert_eq!(expected.types, found.types);
        assert_eq!(expected.input_names, found.input_names);
        assert_eq!(expected.symbols, found.symbols);
        assert_eq!(expected.body.operations.len(), found.body.operations.len());
        for (a, b) in expected.body.operations.iter().zip(&found.body.operations) {
            assert_eq!(
                (&a.operands, &a.results, a.operator.kind()),
                (&b.operands, &b.results, b.operator.kind())
            );
            assert_eq!(a.location, b.location);
        }
    }
}
