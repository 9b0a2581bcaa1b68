//! One case: where its files lie, what they hold, and how it runs.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use prost::Message;
use tcc_frontend::onnx::ValueType;
use tcc_frontend::onnx::proto::tensor_proto::DataType;
use tcc_frontend::onnx::proto::{ModelProto, TypeProto, ValueInfoProto};
use tcc_frontend::onnx::test_data::read_value;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;

use super::{RunError, Runner};
use crate::compare::{Tolerance, compare};
use crate::value::Value;

/// A model with inputs and the outputs it must give.
#[derive(Clone, Debug)]
pub struct Case {
    /// The model file.
    pub model: PathBuf,
    /// Operator types of the main graph.
    pub operators: BTreeSet<String>,
    /// Inputs by name, in the order of the graph.
    pub inputs: Vec<(String, Value)>,
    /// Outputs by name.
    pub outputs: BTreeMap<String, Value>,
}

/// The names of all cases below a folder, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.path().join("model.onnx").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The operator types of the main graph of a model.
///
/// # Errors
/// The file is unreadable or damaged.
pub fn operators(model: &Path) -> Result<BTreeSet<String>, String> {
    let graph = decode(model)?.graph.unwrap_or_default();
    Ok(graph.node.iter().map(|node| node.op_type().to_owned()).collect())
}

impl Case {
    /// Reads the model and its first data set.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn read(folder: &Path) -> Result<Case, String> {
        let model = folder.join("model.onnx");
        let graph = decode(&model)?.graph.unwrap_or_default();
        let constants: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        let data = folder.join("test_data_set_0");
        let read = |role: &str, index: usize, declared: &ValueInfoProto| {
            let path = data.join(format!("{role}_{index}.pb"));
            let ty = ValueType::from_proto(declared.r#type.as_ref().unwrap_or(&TypeProto::default()));
            let (_, value) =
                read_value(&path, &ty).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>((declared.name().to_owned(), as_declared(Value::from_test_data(&value)?, &ty)))
        };
        let declared = graph.input.iter().filter(|input| !constants.contains(input.name()));
        let inputs =
            declared.enumerate().map(|(i, input)| read("input", i, input)).collect::<Result<_, _>>()?;
        let outputs = graph
            .output
            .iter()
            .enumerate()
            .map(|(i, output)| read("output", i, output))
            .collect::<Result<_, _>>()?;
        let operators = graph.node.iter().map(|node| node.op_type().to_owned()).collect();
        Ok(Case { model, operators, inputs, outputs })
    }

    /// Runs the case and compares every output.
    ///
    /// # Errors
    /// One line that says what went wrong.
    pub fn run(&self, runner: &dyn Runner) -> Result<(), String> {
        let outputs = catch_unwind(AssertUnwindSafe(|| runner.run(&self.model, &self.inputs)));
        let outputs = match outputs {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(RunError::Refused(message))) => return Err(format!("refused: {message}")),
            Ok(Err(RunError::Failed(message))) => return Err(format!("failed: {message}")),
            Err(payload) => return Err(format!("panicked: {}", panic_message(&*payload))),
        };
        for (name, expected) in &self.outputs {
            let found = outputs.get(name).ok_or_else(|| format!("wrong: there is no output {name}"))?;
            compare(expected, found, &Tolerance::ONNX_SUITE)
                .map_err(|difference| format!("wrong: output {name}: {difference}"))?;
        }
        Ok(())
    }
}

fn decode(model: &Path) -> Result<ModelProto, String> {
    let bytes = fs::read(model).map_err(|error| format!("{}: {error}", model.display()))?;
    ModelProto::decode(&bytes[..]).map_err(|error| format!("{}: {error}", model.display()))
}

/// The files of the suite hold bfloat16 under the type of NumPy's stand-in for it, UINT16.
fn as_declared(value: Value, declared: &ValueType) -> Value {
    match (&value, declared) {
        (Value::Tensor(data), ValueType::Tensor { element: DataType::Bfloat16, .. })
            if data.dtype() == DType::U16 =>
        {
            Data::new(DType::BF16, data.shape(), data.bytes().clone()).map_or(value, Value::Tensor)
        }
        _ => value,
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text =
        payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}
