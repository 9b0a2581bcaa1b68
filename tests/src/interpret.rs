//! The reference interpreter as a runner of models and an executor of file tests.

use std::collections::BTreeMap;
use std::path::Path;

use tcc_interpret::{Interpreter, Value as Interpreted};
use tcc_ir::data::Data;
use tcc_ir::module::Module;
use tcc_ir::types::Type;

use crate::compiler;
use crate::conformance::{RunError, Runner};
use crate::filetest::Executor;
use crate::value::Value;

/// Interprets modules as they are, or after the default passes: the oracle, and the test of every rewrite.
pub struct Interpret {
    /// Apply the default passes first.
    pub optimize: bool,
}

impl Interpret {
    fn prepared(&self, module: Module) -> Result<Module, String> {
        if self.optimize { compiler::optimized(module) } else { Ok(module) }
    }
}

impl Runner for Interpret {
    fn run(&self, model: &Path, inputs: &[(String, Value)]) -> Result<BTreeMap<String, Value>, RunError> {
        let module = self.prepared(compiler::import_model(model, inputs)?).map_err(RunError::Failed)?;
        let entry =
            module.entry().ok_or_else(|| RunError::Failed("the module has no function".to_owned()))?;
        let mut arguments = Vec::new();
        for (name, &param) in entry.input_names.iter().zip(&entry.body.params) {
            let given = inputs.iter().find(|(given, _)| given == name);
            let (_, value) = given.ok_or_else(|| RunError::Failed(format!("input {name} is not given")))?;
            arguments.push(to_interpreter(value, entry.type_of(param)));
        }
        let results =
            Interpreter::new(&module).run(arguments).map_err(|error| RunError::Failed(error.to_string()))?;
        let named = entry.output_names.iter().cloned().zip(results);
        named.map(|(name, value)| Ok((name, from_interpreter(&value).map_err(RunError::Failed)?))).collect()
    }
}

impl Executor for Interpret {
    fn name(&self) -> &str {
        if self.optimize { "optimized" } else { "interpret" }
    }

    fn execute(&self, module: &str, function: &str, arguments: &[Data]) -> Result<Vec<Data>, String> {
        let mut module = compiler::read(module)?;
        compiler::make_entry(&mut module, function)?;
        let module = self.prepared(module)?;
        let arguments = arguments.iter().map(|data| Interpreted::from(data.clone())).collect();
        let results = Interpreter::new(&module).run(arguments).map_err(|error| error.to_string())?;
        results
            .iter()
            .map(|value| {
                value.as_tensor().and_then(|tensor| tensor.to_data()).map_err(|error| error.to_string())
            })
            .collect()
    }
}

fn to_interpreter(value: &Value, ty: &Type) -> Interpreted {
    match (value, ty) {
        (Value::Absent, _) => Interpreted::Optional(None),
        (value, Type::Optional(inner)) => Interpreted::Optional(Some(Box::new(to_interpreter(value, inner)))),
        (Value::Tensor(data), _) => Interpreted::from(data.clone()),
        (Value::Sequence(items), Type::Sequence(inner)) => {
            Interpreted::Sequence(items.iter().map(|item| to_interpreter(item, inner)).collect())
        }
        (Value::Sequence(items), _) => {
            Interpreted::Sequence(items.iter().map(|item| to_interpreter(item, ty)).collect())
        }
    }
}

fn from_interpreter(value: &Interpreted) -> Result<Value, String> {
    Ok(match value {
        Interpreted::Tensor(tensor) => Value::Tensor(tensor.to_data().map_err(|error| error.to_string())?),
        Interpreted::Sequence(items) => {
            Value::Sequence(items.iter().map(from_interpreter).collect::<Result<_, _>>()?)
        }
        Interpreted::Optional(None) => Value::Absent,
        Interpreted::Optional(Some(inner)) => from_interpreter(inner)?,
    })
}
