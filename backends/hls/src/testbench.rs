//! The testbench: reads vectors and expected values from files, runs the top function, compares.
//!
//! A file has the number of vectors and of elements, then the elements of all vectors. Actual results go to a file beside the
//! expected ones with enough digits to be exact.

use std::fmt::Write as _;

use tcc_ir::dtype::{Class, DType};

use crate::design::{Design, Port};
use crate::error::Error;
use crate::reference::Vector;
use crate::weights::{bits, decimal};

const SUPPORT: &str = include_str!("support/testbench.h");

/// Files of the testbench.
pub fn files(design: &Design, vectors: &[Vector], tolerance: f64) -> Result<Vec<(String, String)>, Error> {
    let mut files = vec![
        ("tb/testbench.h".to_string(), SUPPORT.to_string()),
        ("tb/testbench.cpp".to_string(), program(design, tolerance)),
    ];
    for (position, port) in design.inputs.iter().enumerate() {
        let text = values(port, vectors, |vector| vector.inputs.get(position))?;
        files.push((format!("tb/{}.txt", port.name), text));
    }
    for (position, port) in design.outputs.iter().enumerate() {
        let text = values(port, vectors, |vector| vector.outputs.get(position))?;
        files.push((format!("tb/{}.expected.txt", port.name), text));
    }
    Ok(files)
}

fn values<'v>(
    port: &Port,
    vectors: &'v [Vector],
    bytes: impl Fn(&'v Vector) -> Option<&'v Vec<u8>>,
) -> Result<String, Error> {
    let mut text = format!("{} {}\n", vectors.len(), port.elements);
    for (number, vector) in vectors.iter().enumerate() {
        let failed = |reason: String| Error::Vector { number, reason };
        let bytes = bytes(vector).ok_or_else(|| failed(format!("nothing is given for '{}'", port.name)))?;
        for element in 0..port.elements as usize {
            let bits = bits(port.dtype, bytes, element).ok_or_else(|| {
                failed(format!("'{}' has fewer than {} elements", port.name, port.elements))
            })?;
            let _ = writeln!(text, "{}", decimal(port.dtype, bits));
        }
    }
    Ok(text)
}

/// The type that a testbench file is read as.
fn file_type(dtype: DType) -> &'static str {
    match dtype.class() {
        Class::Float => "double",
        Class::Unsigned | Class::Bool => "unsigned long long",
        _ => "long long",
    }
}

/// How an element becomes the file's type again.
fn conversion(design: &Design, dtype: DType) -> &'static str {
    match dtype.class() {
        Class::Float if design.numbers.is_fixed() => ".to_double()",
        Class::Float | Class::Bool => "",
        Class::Unsigned => ".to_uint64()",
        _ => ".to_int64()",
    }
}

fn program(design: &Design, tolerance: f64) -> String {
    let mut text = String::from("#include \"testbench.h\"\n\n#include \"top.h\"\n\n");
    for port in design.inputs.iter().chain(&design.outputs) {
        let ty = design.numbers.memory(port.dtype).unwrap_or_default();
        let _ = writeln!(text, "static {ty} {}[{}];", port.name, port.elements.max(1));
    }
    text.push_str(
        "\nint main(int argc, char **argv) {\n  const std::string folder = argc > 1 ? argv[1] : \"tb\";\n",
    );
    let _ = writeln!(text, "  const double tolerance = argc > 2 ? atof(argv[2]) : {tolerance:?};");
    for port in &design.inputs {
        let (name, ty) = (&port.name, file_type(port.dtype));
        let _ = writeln!(text, "  Values<{ty}> {name}_file(folder + \"/{name}.txt\", {});", port.elements);
    }
    for port in &design.outputs {
        let (name, ty) = (&port.name, file_type(port.dtype));
        let _ =
            writeln!(text, "  Check<{ty}> {name}_check(folder, \"{name}\", {}, tolerance);", port.elements);
    }
    let count = match (design.inputs.first(), design.outputs.first()) {
        (Some(port), _) => format!("{}_file.vectors()", port.name),
        (None, Some(port)) => format!("{}_check.vectors()", port.name),
        (None, None) => "0".into(),
    };
    let _ = writeln!(text, "  for (size_t vector = 0; vector < {count}; ++vector) {{");
    for port in &design.inputs {
        let (name, n) = (&port.name, port.elements);
        let _ = writeln!(text, "    for (size_t i = 0; i < {n}; ++i) {name}[i] = {name}_file.at(vector, i);");
    }
    let names: Vec<&str> =
        design.inputs.iter().chain(&design.outputs).map(|port| port.name.as_str()).collect();
    let _ = writeln!(text, "    {}({});", design.name, names.join(", "));
    for port in &design.outputs {
        let (name, n, conversion) = (&port.name, port.elements, conversion(design, port.dtype));
        let _ = writeln!(
            text,
            "    for (size_t i = 0; i < {n}; ++i) {name}_check.compare(vector, i, {name}[i]{conversion});"
        );
    }
    text.push_str("  }\n  bool passed = true;\n");
    for port in &design.outputs {
        let _ = writeln!(text, "  passed = {}_check.report() && passed;", port.name);
    }
    text.push_str("  return passed ? 0 : 1;\n}\n");
    text
}
