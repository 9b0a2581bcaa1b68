//! The testbench: reads vectors and expected values from files, runs the top function, compares.
//!
//! A file has the number of vectors and of elements, then the elements of all vectors. Actual results go to a file beside the
//! expected ones with enough digits to be exact.

use std::fmt::Write as _;

use tcc_ir::dtype::{Class, DType};
use tcc_kernel::fold;

use crate::design::{Design, Port};
use crate::error::Error;
use crate::numbers::element_type;
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
        let text = inputs(port, position, vectors)?;
        files.push((format!("tb/{}.txt", port.name), text));
    }
    for (position, port) in design.outputs.iter().enumerate() {
        let mut text = format!("{} {}\n", vectors.len(), port.elements);
        for (number, vector) in vectors.iter().enumerate() {
            let values = vector.outputs.get(position).map(Vec::as_slice).unwrap_or_default();
            if values.len() as u64 != port.elements {
                let reason = format!("'{}' has {} elements, not {}", port.name, port.elements, values.len());
                return Err(Error::Vector { number, reason });
            }
            values.iter().for_each(|value| {
                let _ = writeln!(text, "{}", decimal(*value));
            });
        }
        files.push((format!("tb/{}.expected.txt", port.name), text));
    }
    Ok(files)
}

/// The file of an input: the number of vectors and of elements, then the elements.
pub fn inputs(port: &Port, position: usize, vectors: &[Vector]) -> Result<String, Error> {
    let mut text = format!("{} {}\n", vectors.len(), port.elements);
    for (number, vector) in vectors.iter().enumerate() {
        let failed = |reason: String| Error::Vector { number, reason };
        let missing = || failed(format!("nothing is given for '{}'", port.name));
        let bytes = vector.inputs.get(position).ok_or_else(missing)?;
        for element in 0..port.elements as usize {
            let bits = bits(port.dtype, bytes, element).ok_or_else(|| {
                failed(format!("'{}' has fewer than {} elements", port.name, port.elements))
            })?;
            let _ = writeln!(text, "{}", decimal(fold::from_bits(port.dtype, bits)));
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
fn conversion(port: &Port) -> &'static str {
    match port.dtype.class() {
        Class::Float if port.format.is_some() => ".to_double()",
        Class::Float | Class::Bool => "",
        Class::Unsigned => ".to_uint64()",
        _ => ".to_int64()",
    }
}

fn program(design: &Design, tolerance: f64) -> String {
    let mut text = String::from("#include \"testbench.h\"\n\n#include \"top.h\"\n\n");
    for port in design.inputs.iter().chain(&design.outputs) {
        let ty = element_type(port.dtype, port.format).unwrap_or_default();
        let _ = writeln!(text, "static {ty} {}[{}];", port.name, port.elements.max(1));
    }
    text.push_str(
        "\nint main(int argc, char **argv) {\n  const std::string folder = argc > 1 ? argv[1] : \"tb\";\n",
    );
    text.push_str("  const bool compares = argc < 3 || std::string(argv[2]) != \"run\";\n");
    let _ = writeln!(text, "  const double tolerance = {tolerance:?};");
    for port in &design.inputs {
        let (name, ty) = (&port.name, file_type(port.dtype));
        let _ = writeln!(text, "  Values<{ty}> {name}_file(folder + \"/{name}.txt\", {});", port.elements);
    }
    let count = match design.inputs.first() {
        Some(port) => format!("{}_file.vectors()", port.name),
        None => "1".into(),
    };
    let _ = writeln!(text, "  const size_t count = {count};");
    for port in &design.outputs {
        let (name, ty) = (&port.name, file_type(port.dtype));
        let _ = writeln!(
            text,
            "  Check<{ty}> {name}_check(folder, \"{name}\", {}, tolerance, compares ? 0 : count);",
            port.elements
        );
    }
    text.push_str("  double seconds = 0;\n  for (size_t vector = 0; vector < count; ++vector) {\n");
    for port in &design.inputs {
        let (name, n) = (&port.name, port.elements);
        let _ = writeln!(text, "    for (size_t i = 0; i < {n}; ++i) {name}[i] = {name}_file.at(vector, i);");
    }
    let names: Vec<&str> =
        design.inputs.iter().chain(&design.outputs).map(|port| port.name.as_str()).collect();
    text.push_str("    const auto start = std::chrono::steady_clock::now();\n");
    let _ = writeln!(text, "    {}({});", design.name, names.join(", "));
    text.push_str(
        "    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();\n",
    );
    for port in &design.outputs {
        let (name, n, conversion) = (&port.name, port.elements, conversion(port));
        let _ = writeln!(
            text,
            "    for (size_t i = 0; i < {n}; ++i) {name}_check.compare(vector, i, {name}[i]{conversion});"
        );
    }
    text.push_str("  }\n  bool passed = true;\n");
    for port in &design.outputs {
        let _ = writeln!(text, "  passed = {}_check.report() && passed;", port.name);
    }
    text.push_str("  std::cout << \"time: \" << seconds << \" s for \" << count << \" vectors\\n\";\n");
    text.push_str("  return passed ? 0 : 1;\n}\n");
    text
}
