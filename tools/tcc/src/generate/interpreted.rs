//! The reference interpreter as a model that can be run: slow, and the measure of every other one.

use tcc_interpret::{Contents, Interpreter, State, Tensor, Value};
use tcc_ir::dim::Symbol;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_runtime::{Batch, PageCopy};

use super::GenerateError;
use super::step::{Step, StepLimits};

/// A model function run by the interpreter.
pub struct InterpretedStep {
    module: Module,
    state: State,
    limits: StepLimits,
}

fn fail(error: impl std::fmt::Display) -> GenerateError {
    GenerateError::Step(error.to_string())
}

impl InterpretedStep {
    /// A model whose caches have `limits.slots` slots.
    pub fn new(module: Module, limits: StepLimits) -> Result<InterpretedStep, GenerateError> {
        let slots = i64::try_from(limits.slots).map_err(fail)?;
        Ok(InterpretedStep { module, state: State::new([(Symbol::new("kv_slots"), slots)]), limits })
    }
}

impl Step for InterpretedStep {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<(), GenerateError> {
        let list = |values: &[i64]| Tensor::from_integers(DType::I64, &[values.len()], values);
        let table = Tensor::from_integers(DType::I64, &batch.table_shape, &batch.block_table);
        let inputs = [
            list(&batch.tokens),
            list(&batch.positions),
            list(&batch.slots),
            list(&batch.rows),
            table,
            list(&batch.outputs),
        ];
        let inputs = inputs
            .into_iter()
            .map(|input| input.map(Value::Tensor))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        let results = Interpreter::new(&self.module).with_state(&self.state).run(inputs).map_err(fail)?;
        let result = results.first().ok_or_else(|| fail("the model function has no result"))?;
        match result.as_tensor().map_err(fail)?.contents() {
            Contents::F32(values) => {
                logits.clear();
                logits.extend_from_slice(values);
                Ok(())
            }
            _ => Err(fail("the logits are not f32")),
        }
    }

    fn copy_page(&mut self, copy: PageCopy) -> Result<(), GenerateError> {
        self.state.copy_part(copy.from, copy.to, self.limits.slots / self.limits.page).map_err(fail)
    }
}
