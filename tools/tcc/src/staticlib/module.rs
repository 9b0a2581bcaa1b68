//! The Rust module of a library: the same functions as the C header's, safe to call, with nothing but `std`.

use std::collections::BTreeSet;
use std::fmt::Write;

use tcc_runtime::DType;
use tcc_runtime::manifest::Manifest;

use super::header::{Parameter, comment, list, parameters};
use super::name::LibraryName;

/// Names that a parameter cannot have: keywords of Rust, and what the text of the function uses itself.
const RESERVED: &[&str] = &[
    "Self", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do",
    "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "inputs",
    "let", "loop", "macro", "match", "mod", "move", "mut", "outputs", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe",
    "unsized", "use", "virtual", "where", "while", "yield",
];

/// The part that is the same for all models.
const COMMON: &str = include_str!("module_common.rs.txt");

/// The Rust type of an element or of the byte that holds packed ones.
fn element(parameter: &Parameter) -> (&'static str, u64) {
    match parameter.dtype {
        DType::F32 => ("f32", 4),
        DType::F64 => ("f64", 8),
        DType::F16 | DType::Bf16 | DType::U16 => ("u16", 2),
        DType::I8 => ("i8", 1),
        DType::I16 => ("i16", 2),
        DType::I32 => ("i32", 4),
        DType::I64 => ("i64", 8),
        DType::U32 => ("u32", 4),
        DType::U64 => ("u64", 8),
        _ => ("u8", 1),
    }
}

fn array(parameter: &Parameter) -> String {
    let (element, size) = element(parameter);
    format!("[{element}; {}]", parameter.bytes / size)
}

/// A tensor over a parameter.
fn tensor(parameter: &Parameter, pointer: &str) -> String {
    let Parameter { name, dtype, shape, bytes, .. } = parameter;
    let name = name.to_lowercase();
    let number = *dtype as i32;
    format!("Raw::new({number}, &{shape:?}, {name}.{pointer}.cast(), {bytes})")
}

/// The method that takes plain arrays.
fn typed(out: &mut String, inputs: &[Parameter], outputs: &[Parameter]) {
    let named = |mutable: &'static str| {
        move |parameter: &Parameter| {
            format!(", {}: &{mutable}{}", parameter.name.to_lowercase(), array(parameter))
        }
    };
    let arguments: String = inputs.iter().map(named("")).chain(outputs.iter().map(named("mut "))).collect();
    let tensors = |parameters: &[Parameter], pointer: &str| {
        let all: Vec<String> = parameters.iter().map(|parameter| tensor(parameter, pointer)).collect();
        all.join(", ")
    };
    let _ = write!(
        out,
        r#"
impl Session {{
    /// Runs the model once.
    #[allow(clippy::too_many_arguments)]
    pub fn run(&mut self{arguments}) -> Result<(), Error> {{
        let inputs: [Raw; {}] = [{}];
        let mut outputs: [Raw; {}] = [{}];
        self.call(&inputs, &mut outputs)
    }}
}}
"#,
        inputs.len(),
        tensors(inputs, "as_ptr().cast_mut()"),
        outputs.len(),
        tensors(outputs, "as_mut_ptr()"),
    );
}

/// The module.
pub(super) fn text(manifest: &Manifest, name: &LibraryName) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "//! The model {}, compiled by tcc.", comment(&manifest.name));
    list(&mut out, manifest, "//!", "Inputs", &manifest.inputs);
    list(&mut out, manifest, "//!", "Outputs", &manifest.outputs);
    let kind = if name.is_shared() { "dylib" } else { "static" };
    let common = COMMON
        .replace("@STEM@", name.stem())
        .replace("@PREFIX@", name.prefix())
        .replace("@KIND@", kind)
        .replace("@INPUTS@", &manifest.inputs.len().to_string())
        .replace("@OUTPUTS@", &manifest.outputs.len().to_string());
    out.push_str(&common);
    // Parameters of Rust are in lower case, so names that differ in case only must not meet there.
    let mut taken = BTreeSet::new();
    let reserved = |word: &str| RESERVED.contains(&word);
    let lower = |mut manifest: Manifest| {
        for port in manifest.inputs.iter_mut().chain(&mut manifest.outputs) {
            port.name = port.name.to_lowercase();
        }
        manifest
    };
    let lower = lower(manifest.clone());
    let inputs = parameters(&lower, &lower.inputs, reserved, &mut taken);
    let outputs = parameters(&lower, &lower.outputs, reserved, &mut taken);
    if let (Some(inputs), Some(outputs)) = (inputs, outputs) {
        typed(&mut out, &inputs, &outputs);
    }
    out
}
