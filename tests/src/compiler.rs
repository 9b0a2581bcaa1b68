//! The compiler as tests call it: models and modules in, modules out.

use std::path::Path;

use tcc_frontend::onnx::import::dtype;
use tcc_frontend::onnx::proto::tensor_proto::DataType;
use tcc_frontend::onnx::tensor::{Payload, Tensor};
use tcc_frontend::onnx::{ImportOptions, Model, OnnxError, import};
use tcc_ir::convert::texts;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::{parse, print, verify};
use tcc_passes::{Context, optimize, run_passes};

use crate::conformance::RunError;
use crate::filetest::Transform;
use crate::value::Value;

/// The reader, verifier, passes and printer of this build, for the machine that the tests run on.
pub struct Compiler;

impl Transform for Compiler {
    fn transform(&self, module: &str, passes: &[String]) -> Result<String, String> {
        let mut module = read(module)?;
        let passes: Vec<&str> = passes.iter().map(String::as_str).collect();
        run_passes(&mut module, &passes, &Context::default()).map_err(|error| error.to_string())?;
        verify::verify(&module).map_err(|error| format!("after the passes: {error}"))?;
        Ok(print::module(&module))
    }
}

/// Reads and verifies a module in text form.
///
/// # Errors
/// The message that a user would see.
pub fn read(text: &str) -> Result<Module, String> {
    let module = parse::module(text).map_err(|error| error.to_string())?;
    verify::verify(&module).map_err(|error| error.to_string())?;
    Ok(module)
}

/// Puts a function first, where the entry is.
///
/// # Errors
/// There is no such function.
pub fn make_entry(module: &mut Module, function: &str) -> Result<(), String> {
    let index =
        module.functions.get_index_of(function).ok_or_else(|| format!("there is no function @{function}"))?;
    module.functions.move_index(index, 0);
    Ok(())
}

/// A module with the default passes applied.
///
/// # Errors
/// A pass failed or broke the module.
pub fn optimized(mut module: Module) -> Result<Module, String> {
    optimize(&mut module, &Context::default()).map_err(|error| error.to_string())?;
    verify::verify(&module).map_err(|error| format!("after the passes: {error}"))?;
    Ok(module)
}

/// Imports an ONNX model. Inputs that must be known before run time, like axes, are fixed to the values given and are no
/// inputs of the module.
///
/// # Errors
/// The model is refused, or what the import made of it does not verify.
pub fn import_model(path: &Path, inputs: &[(String, Value)]) -> Result<Module, RunError> {
    let model = Model::open(path).map_err(|error| RunError::Refused(error.to_string()))?;
    let mut options = ImportOptions::default();
    let module = loop {
        let error = match import(&model, &options) {
            Ok(module) => break module,
            Err(error) => error,
        };
        let before = options.inputs.len();
        if let OnnxError::Unsupported { nodes } = &error {
            for name in nodes.iter().filter_map(|node| node.input.as_ref()) {
                let given = inputs.iter().find(|(given, _)| given == name);
                if let Some((_, Value::Tensor(data))) = given
                    && let Some(tensor) = stored(data)
                {
                    options.inputs.insert(name.clone(), tensor);
                }
            }
        }
        if options.inputs.len() == before {
            return Err(RunError::Refused(refusal(&error)));
        }
    };
    verify::verify(&module)
        .map_err(|error| RunError::Failed(format!("the import does not verify: {error}")))?;
    Ok(module)
}

/// One line: the first unsupported node, with how many there are.
fn refusal(error: &OnnxError) -> String {
    match error {
        OnnxError::Unsupported { nodes } => match &nodes[..] {
            [only] => format!("{} (opset {}): {}", only.node.operator, only.node.opset, only.reason),
            [first, ..] => format!("{}: {} and {} more", first.node.operator, first.reason, nodes.len() - 1),
            [] => error.to_string(),
        },
        _ => error.to_string(),
    }
}

/// A tensor as ONNX stores it; `None` for types that ONNX lacks.
fn stored(data: &Data) -> Option<Tensor> {
    // The type numbers of the schema are few and small.
    let element = (1..64)
        .filter_map(|number| DataType::try_from(number).ok())
        .find(|&e| dtype(e) == Some(data.dtype()))?;
    let payload = if data.dtype() == DType::String {
        Payload::Strings(
            texts(data)?.into_iter().map(|text| bytes::Bytes::copy_from_slice(text.as_bytes())).collect(),
        )
    } else {
        Payload::Bytes(data.bytes().clone())
    };
    Some(Tensor { element, dims: data.shape().iter().map(|&dim| dim as u64).collect(), payload })
}
