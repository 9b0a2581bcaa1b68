//! The C header of a static library.

use std::collections::BTreeSet;
use std::fmt::Write;

use tcc_kernel::identifier::{is_keyword, plain};
use tcc_runtime::DType;
use tcc_runtime::manifest::{Manifest, Port};

use super::name::{LEAD, LibraryName};

/// The interface of the runtime, which every header carries so that it needs no other file.
const RUNTIME: &str = include_str!("../../../../runtime/include/tcc.h");

/// Names that the text of the function uses itself, and macros of headers and compilers.
const RESERVED: &[&str] = &["inputs", "linux", "memset", "NULL", "outputs", "session", "unix"];

/// A parameter of the typed function.
pub(super) struct Parameter {
    pub name: String,
    /// Type of an element in C.
    pub element: &'static str,
    pub dtype: DType,
    pub shape: Vec<i64>,
    pub bytes: u64,
}

/// The C type of an element or of the byte that holds packed ones, none where C has no plain type.
fn element(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::F16 | DType::Bf16 | DType::U16 => "uint16_t",
        DType::I8 => "int8_t",
        DType::I16 => "int16_t",
        DType::I32 => "int32_t",
        DType::I64 => "int64_t",
        DType::U32 => "uint32_t",
        DType::U64 => "uint64_t",
        DType::Complex64 | DType::Complex128 | DType::String => return None,
        _ => "uint8_t",
    })
}

/// Text that may stand in a comment.
pub(super) fn comment(text: &str) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    plain.replace("*/", "* /").replace("/*", "/ *")
}

/// The parameters for some ports, none where a shape is not constant or a type is not plain. No name is `reserved`.
pub(super) fn parameters(
    manifest: &Manifest,
    ports: &[Port],
    reserved: fn(&str) -> bool,
    taken: &mut BTreeSet<String>,
) -> Option<Vec<Parameter>> {
    let mut all = Vec::new();
    for port in ports {
        let tensor = &manifest.tensors[port.tensor as usize];
        let shape = tensor.shape.iter().map(|dim| dim.as_const()).collect::<Option<Vec<_>>>()?;
        let elements =
            shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim.try_into().ok()?))?;
        let bytes = tensor.dtype.bytes_for(elements)?;
        let mut name = plain(&port.name, LEAD);
        // Names of the runtime and of types, which the function uses.
        if name.to_ascii_lowercase().starts_with("tcc_") || name.ends_with("_t") {
            name.insert_str(0, "m_");
            name.push('_');
        }
        while reserved(&name) || !taken.insert(name.clone()) {
            name.push('_');
        }
        all.push(Parameter { name, element: element(tensor.dtype)?, dtype: tensor.dtype, shape, bytes });
    }
    Some(all)
}

/// Names, types and shapes of ports, each line after `margin`.
pub(super) fn list(out: &mut String, manifest: &Manifest, margin: &str, title: &str, ports: &[Port]) {
    let _ = writeln!(out, "{margin}\n{margin} {title}:{}", if ports.is_empty() { " none" } else { "" });
    for port in ports {
        let tensor = &manifest.tensors[port.tensor as usize];
        let shape = comment(&manifest.describe_shape(&tensor.shape));
        let _ = writeln!(out, "{margin}   {}: {} {shape}", comment(&port.name), tensor.dtype.name());
    }
}

fn describe(out: &mut String, array: &str, parameters: &[Parameter]) {
    for (index, parameter) in parameters.iter().enumerate() {
        let Parameter { name, dtype, shape, bytes, .. } = parameter;
        let target = format!("    {array}[{index}]");
        let _ = writeln!(out, "{target}.dtype = TCC_{};", dtype.name().to_uppercase());
        let _ = writeln!(out, "{target}.rank = {};", shape.len());
        for (axis, dim) in shape.iter().enumerate() {
            let _ = writeln!(out, "{target}.shape[{axis}] = {dim};");
        }
        let _ = writeln!(out, "{target}.data = (void *){name};");
        let _ = writeln!(out, "{target}.bytes = {bytes};");
    }
}

/// The function that takes plain arrays.
fn typed(out: &mut String, prefix: &str, inputs: &[Parameter], outputs: &[Parameter]) {
    let pointers = inputs
        .iter()
        .map(|parameter| format!("const {} *{}", parameter.element, parameter.name))
        .chain(outputs.iter().map(|parameter| format!("{} *{}", parameter.element, parameter.name)));
    let all: Vec<_> = std::iter::once("tcc_session *session".to_string()).chain(pointers).collect();
    for parameter in inputs.iter().chain(outputs) {
        let Parameter { name, bytes, .. } = parameter;
        let _ = writeln!(out, "/* Size of the memory at {name}, in bytes. */");
        let _ = writeln!(out, "#define {prefix}_{name}_bytes ((size_t){bytes})");
    }
    let _ = write!(
        out,
        "\n/* Runs the model once, from arrays of the caller into arrays of the caller, which do not overlap. */\n\
         static inline tcc_status {prefix}_run({})\n{{\n",
        all.join(", ")
    );
    let array = |name, parameters: &[Parameter]| match parameters.len() {
        // C has no arrays of length 0.
        0 => format!("    tcc_tensor *{name} = NULL;\n"),
        count => format!("    tcc_tensor {name}[{count}];\n"),
    };
    out.push_str(&array("inputs", inputs));
    out.push_str(&array("outputs", outputs));
    for (name, parameters) in [("inputs", inputs), ("outputs", outputs)] {
        if !parameters.is_empty() {
            let _ = writeln!(out, "    memset({name}, 0, sizeof {name});");
        }
        describe(out, name, parameters);
    }
    let _ = writeln!(
        out,
        "    return tcc_run(session, inputs, {}, outputs, {});\n}}",
        inputs.len(),
        outputs.len()
    );
}

/// The header.
pub(super) fn text(manifest: &Manifest, name: &LibraryName) -> String {
    let prefix = name.prefix();
    let mut out = String::new();
    let (file, model) = (comment(&name.header_file()), comment(&manifest.name));
    let _ = writeln!(out, "/* {file} - the model {model}, compiled by tcc.");
    let _ = writeln!(out, " *\n * Link with the library {}, libm and pthread.", comment(name.stem()));
    list(&mut out, manifest, " *", "Inputs", &manifest.inputs);
    list(&mut out, manifest, " *", "Outputs", &manifest.outputs);
    let target = &manifest.target;
    let _ = write!(out, " *\n * Machine: {}", comment(&target.arch));
    if !target.features.is_empty() {
        let _ = write!(out, " with {}; any other is refused", comment(&target.features.join(", ")));
    }
    let guard = format!("TCC_PROGRAM_{prefix}_H");
    let _ = write!(out, ".\n */\n#ifndef {guard}\n#define {guard}\n\n#include <string.h>\n\n{RUNTIME}\n");
    let _ = write!(
        out,
        r#"#ifdef __cplusplus
extern "C" {{
#endif

/* The model: an argument of tcc_load_linked. */
extern const tcc_linked_program {prefix}_program;

/* Makes the model ready to run, for any number of sessions. */
static inline tcc_status {prefix}_load(tcc_executable **executable)
{{
    return tcc_load_linked(&{prefix}_program, executable);
}}

/* A session of its own, with this many threads; 0 means one for each CPU. */
static inline tcc_status {prefix}_create(size_t threads, tcc_session **session)
{{
    tcc_executable *executable = NULL;
    tcc_status status = {prefix}_load(&executable);
    if (session != NULL) *session = NULL;
    if (status == TCC_OK) status = tcc_session_create(executable, threads, session);
    /* The session keeps what it needs. */
    tcc_executable_free(executable);
    return status;
}}

/* Frees a session of {prefix}_create. Null is allowed. */
static inline void {prefix}_free(tcc_session *session)
{{
    tcc_session_free(session);
}}

"#
    );
    let mut taken = BTreeSet::new();
    let reserved = |word: &str| is_keyword(word) || RESERVED.contains(&word);
    let inputs = parameters(manifest, &manifest.inputs, reserved, &mut taken);
    let outputs = parameters(manifest, &manifest.outputs, reserved, &mut taken);
    match (inputs, outputs) {
        (Some(inputs), Some(outputs)) => typed(&mut out, prefix, &inputs, &outputs),
        _ => out
            .push_str("/* Not all shapes are constant and all types plain: run a session with tcc_run. */\n"),
    }
    out.push_str("\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
    out
}

#[cfg(test)]
mod tests {
    use tcc_runtime::manifest::{Manifest, Port, Storage, TensorInfo};
    use tcc_runtime::{DType, DimExpr};

    use super::{LibraryName, text};

    /// A model of inputs with these names and one output, all of one shape.
    fn manifest(names: &[&str], shape: &[DimExpr], dtype: DType) -> Manifest {
        let mut manifest = Manifest::new("*/ int x; /*", "tests");
        for (index, name) in names.iter().chain(&["y"]).enumerate() {
            let storage = match index {
                index if index == names.len() => Storage::Output(0),
                index => Storage::Input(index as u32),
            };
            manifest.tensors.push(TensorInfo { name: String::new(), dtype, shape: shape.to_vec(), storage });
            manifest.inputs.push(Port { name: name.to_string(), tensor: index as u32 });
        }
        manifest.outputs.extend(manifest.inputs.pop());
        manifest
    }

    fn header(manifest: &Manifest) -> String {
        text(manifest, &LibraryName::of("libnet.a".as_ref()).unwrap())
    }

    #[test]
    fn any_port_name_becomes_a_parameter_of_its_own() {
        let names = ["input:0", "input_0", "int", "0", "*/ y", "session", "y", "TCC_F16", "uint16_t", "NULL"];
        let text = header(&manifest(&names, &[DimExpr::Const(3), DimExpr::Const(0)], DType::F16));
        let parameters = "net_run(tcc_session *session, const uint16_t *input_0, const uint16_t *input_0_, \
                          const uint16_t *int_, const uint16_t *m0, const uint16_t *m___y, const uint16_t *session_, \
                          const uint16_t *y, const uint16_t *m_TCC_F16_, const uint16_t *m_uint16_t_, const uint16_t *NULL_, \
                          uint16_t *y_)";
        assert!(text.contains(parameters), "{text}");
        assert!(text.contains("#define net_input_0_bytes ((size_t)0)"), "{text}");
        // The comment at the start ends before the first directive.
        assert_eq!(text.find("*/").map(|end| &text[end + 3..end + 10]), Some("#ifndef"), "{text}");
    }

    #[test]
    fn models_without_plain_constant_arrays_have_no_typed_function() {
        let constant = [DimExpr::Const(3)];
        for (shape, dtype, typed) in [
            (&constant[..], DType::I4, true),
            (&[], DType::F64, true),
            (&[DimExpr::Symbol(0)], DType::F32, false),
            (&constant, DType::String, false),
            (&constant, DType::Complex64, false),
            (&[DimExpr::Const(i64::MAX), DimExpr::Const(i64::MAX)], DType::F32, false),
        ] {
            let text = header(&manifest(&["x"], shape, dtype));
            assert_eq!(text.contains("net_run("), typed, "{shape:?} {dtype:?}");
            assert!(text.contains("net_create("), "{shape:?} {dtype:?}");
        }
    }
}
