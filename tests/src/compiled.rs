//! Compiled code as a runner of models and an executor of file tests.

use std::collections::BTreeMap;
use std::path::Path;

use tcc::compile::compile_module;
use tcc::inputs::{Inputs, ordered, to_data};
use tcc::runtime::Session;
use tcc::{CompileOptions, Device, Target};
use tcc_ir::data::Data;
use tcc_ir::module::Module;

use crate::compiler;
use crate::conformance::{RunError, Runner};
use crate::filetest::Executor;
use crate::value::Value;

/// Compiles for a target that this machine runs, and runs on one and on two threads, which must give the same bits.
pub struct Compiled {
    /// Name of the runner.
    pub name: &'static str,
    /// Name of the target.
    pub target: &'static str,
    /// Where the code runs.
    pub device: Device,
}

impl Compiled {
    fn run_module(&self, module: Module, inputs: &Inputs) -> Result<Vec<(String, Data)>, String> {
        let target = Target::named(self.target).map_err(|error| error.to_string())?;
        // Tests are parallel already.
        let options = CompileOptions { threads: 1, device: self.device, ..CompileOptions::new(target) };
        let compiled = compile_module(module, "test", &options).map_err(|error| error.to_string())?;
        let executable = compiled.executable().map_err(|error| error.to_string())?;
        let ordered = ordered(&compiled.manifest, inputs).map_err(|error| error.to_string())?;
        let arguments = ordered.tensors().map_err(|error| error.to_string())?;
        let run = |threads| -> Result<Vec<(String, Data)>, String> {
            let mut session = Session::new(&executable, threads).map_err(|error| error.to_string())?;
            let results = session.run(&arguments).map_err(|error| error.to_string())?;
            let named = compiled.manifest.outputs.iter().zip(&results);
            named
                .map(|(port, tensor)| Ok((port.name.clone(), to_data(tensor).map_err(|e| e.to_string())?)))
                .collect()
        };
        let (one, two) = (run(1)?, run(2)?);
        match one.iter().zip(&two).find(|(a, b)| a != b) {
            Some(((name, _), _)) => Err(format!("output {name} differs between one and two threads")),
            None => Ok(one),
        }
    }
}

impl Runner for Compiled {
    fn run(&self, model: &Path, inputs: &[(String, Value)]) -> Result<BTreeMap<String, Value>, RunError> {
        let module = compiler::import_model(model, inputs)?;
        let mut tensors = Inputs::new();
        let fixed = |name: &String| module.entry().is_some_and(|entry| !entry.input_names.contains(name));
        for (name, value) in inputs.iter().filter(|(name, _)| !fixed(name)) {
            let Value::Tensor(data) = value else {
                return Err(RunError::Refused(format!("input {name} is {}", value.describe())));
            };
            tensors.insert(name.clone(), data.clone());
        }
        let results = self.run_module(module, &tensors).map_err(RunError::Failed)?;
        Ok(results.into_iter().map(|(name, data)| (name, Value::Tensor(data))).collect())
    }
}

impl Executor for Compiled {
    fn name(&self) -> &str {
        self.name
    }

    fn execute(&self, module: &str, function: &str, arguments: &[Data]) -> Result<Vec<Data>, String> {
        let mut module = compiler::read(module)?;
        compiler::make_entry(&mut module, function)?;
        let entry = module.entry().ok_or("the module has no function")?;
        let inputs = entry.input_names.iter().cloned().zip(arguments.iter().cloned()).collect();
        Ok(self.run_module(module, &inputs)?.into_iter().map(|(_, data)| data).collect())
    }
}
