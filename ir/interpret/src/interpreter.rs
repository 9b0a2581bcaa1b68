//! Running functions: symbols, values, regions.

use std::cell::Cell;
use std::collections::HashMap;

use tcc_ir::module::{Function, Module, Operation, Region, Value as Name};
use tcc_ir::operator::Operator;

use crate::cache::State;
use crate::context::{Context, DEFAULT_LIMIT};
use crate::error::{Error, Result};
use crate::evaluate::apply;
use crate::symbols::{CheckError, Symbols};
use crate::tensor::Tensor;
use crate::value::Value;
use crate::{control, host};

/// How deep calls may nest; the verifier forbids recursion.
const MAX_CALLS: usize = 64;

/// Sees each operation and its results.
pub type Observer<'a> = dyn FnMut(&Operation, &[Value]) + 'a;

/// Runs the entry function of a module.
pub struct Interpreter<'m> {
    module: &'m Module,
    limit: usize,
    epoch: u32,
    state: Option<&'m State>,
}

impl<'m> Interpreter<'m> {
    /// An interpreter of a module that [`tcc_ir::verify::verify`] accepts; others end with errors.
    pub fn new(module: &'m Module) -> Interpreter<'m> {
        Interpreter { module, limit: DEFAULT_LIMIT, epoch: 0, state: None }
    }

    /// Allows at most this many elements in one tensor.
    pub fn with_limit(self, elements: usize) -> Interpreter<'m> {
        Interpreter { limit: elements, ..self }
    }

    /// Distinguishes the random operations without a seed of this run from those of other runs.
    pub fn with_epoch(self, epoch: u32) -> Interpreter<'m> {
        Interpreter { epoch, ..self }
    }

    /// Reads and writes the caches of `state`, whose symbols are fixed; without it each run starts with empty caches.
    pub fn with_state(self, state: &'m State) -> Interpreter<'m> {
        Interpreter { state: Some(state), ..self }
    }

    /// The outputs of the entry function for inputs in order.
    pub fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>> {
        self.run_observed(inputs, &mut |_, _| {})
    }

    /// As [`Interpreter::run`]; `observe` is called after each operation, those of regions and calls included.
    pub fn run_observed(&self, inputs: Vec<Value>, observe: &mut Observer) -> Result<Vec<Value>> {
        let entry =
            self.module.entry().ok_or_else(|| Error::Malformed("the module has no function".into()))?;
        let empty = State::default();
        let mut run = Run {
            module: self.module,
            limit: self.limit,
            epoch: Cell::new(self.epoch),
            state: self.state.unwrap_or(&empty),
            observe,
            calls: 0,
        };
        run.call(entry, inputs)
    }
}

/// One run of the entry function.
pub(crate) struct Run<'m, 'o> {
    pub(crate) module: &'m Module,
    pub(crate) limit: usize,
    /// Of the next random operation without a seed.
    epoch: Cell<u32>,
    state: &'o State,
    observe: &'o mut Observer<'o>,
    calls: usize,
}

/// One call of a function.
pub(crate) struct Frame<'m> {
    function: &'m Function,
    pub(crate) symbols: Symbols<'m>,
    values: HashMap<Name, Value>,
    /// State behind each cache value.
    caches: HashMap<Name, &'m str>,
}

impl<'m> Frame<'m> {
    /// The value of a name.
    pub(crate) fn get(&self, name: Name) -> Result<&Value> {
        self.values.get(&name).ok_or_else(|| Error::Malformed(format!("{name:?} has no value")))
    }

    /// The values of names; cloning shares tensors.
    pub(crate) fn take(&self, names: &[Name]) -> Result<Vec<Value>> {
        names.iter().map(|name| self.get(*name).cloned()).collect()
    }

    /// Declared type of a name.
    pub(crate) fn type_of(&self, name: Name) -> Result<&'m tcc_ir::types::Type> {
        let function = self.function;
        function.types.get(name.index()).ok_or_else(|| Error::Malformed(format!("{name:?} has no type")))
    }

    /// Gives names their values, after checking them against the declared types.
    fn define(&mut self, names: &[Name], values: Vec<Value>) -> Result<()> {
        if names.len() != values.len() {
            return Err(Error::Malformed(format!("{} values for {} names", values.len(), names.len())));
        }
        for (name, value) in names.iter().zip(&values) {
            self.symbols.bind_lone(self.type_of(*name)?, value)?;
        }
        for (index, (name, value)) in names.iter().zip(values).enumerate() {
            let ty = self.type_of(*name)?;
            self.symbols.check(ty, &value).map_err(|error| match error {
                CheckError::Run(error) => error,
                _ => Error::Result { index, found: value.summary(), declared: ty.to_string() },
            })?;
            self.values.insert(*name, value);
        }
        Ok(())
    }
}

impl<'m> Run<'m, '_> {
    /// The results of a function.
    pub(crate) fn call(&mut self, function: &'m Function, inputs: Vec<Value>) -> Result<Vec<Value>> {
        if self.calls == MAX_CALLS {
            return Err(Error::Malformed(format!("calls nest more than {MAX_CALLS} deep")));
        }
        let params = &function.body.params;
        if params.len() != inputs.len() {
            return Err(Error::InputCount { expected: params.len(), found: inputs.len() });
        }
        let (values, caches) = (HashMap::new(), HashMap::new());
        let mut frame = Frame { function, symbols: Symbols::new(function), values, caches };
        for (symbol, value) in self.state.symbols() {
            if function.symbols.contains_key(symbol) {
                frame.symbols.bind(symbol, value)?;
            }
        }
        bind_inputs(&mut frame, &inputs)?;
        frame.values.extend(params.iter().copied().zip(inputs));
        self.calls += 1;
        let mut deaths = Deaths::of(&function.body);
        for (index, operation) in function.body.operations.iter().enumerate() {
            self.operation(&mut frame, operation)?;
            for name in deaths.after(index) {
                frame.values.remove(&name);
            }
        }
        self.calls -= 1;
        frame.take(&function.body.results)
    }

    /// What a nested region yields; symbols that it binds lose their values when it ends.
    pub(crate) fn region(
        &mut self,
        frame: &mut Frame<'m>,
        region: &'m Region,
        arguments: Vec<Value>,
    ) -> Result<Vec<Value>> {
        let outside = frame.symbols.clone();
        frame.define(&region.params, arguments)?;
        for operation in &region.operations {
            self.operation(frame, operation)?;
        }
        frame.symbols = outside;
        frame.take(&region.results)
    }

    fn operation(&mut self, frame: &mut Frame<'m>, operation: &'m Operation) -> Result<()> {
        let locate = |error: Error| match error {
            Error::At { .. } => error,
            source => Error::At {
                operator: operation.operator.name(),
                location: operation.location.text().to_string(),
                source: Box::new(source),
            },
        };
        let results = self.results(frame, operation).map_err(locate)?;
        (self.observe)(operation, &results);
        frame.define(&operation.results, results).map_err(locate)
    }

    fn results(&mut self, frame: &mut Frame<'m>, operation: &'m Operation) -> Result<Vec<Value>> {
        let operands = frame.take(&operation.operands)?;
        match &operation.operator {
            Operator::If {} => control::branch(self, frame, operation, &operands),
            Operator::Loop { scans } => control::repeat(self, frame, operation, &operands, *scans),
            Operator::Call { callee } => {
                let function = self.module.functions.get(callee);
                let function =
                    function.ok_or_else(|| Error::Malformed(format!("there is no function '{callee}'")))?;
                self.call(function, operands)
            }
            Operator::Bind { symbols } => {
                let values = operands.first().map(Value::as_tensor).transpose()?;
                let values = values.map_or(Ok(&[][..]), Tensor::integers)?;
                if values.len() != symbols.len() {
                    let message = format!("{} values for {} symbols", values.len(), symbols.len());
                    return Err(Error::operands(message));
                }
                for (symbol, value) in symbols.iter().zip(values) {
                    frame.symbols.bind(symbol, *value)?;
                }
                Ok(Vec::new())
            }
            Operator::Host { function, attributes, types } => {
                host::call(function, attributes, types, &operands, self.limit)
            }
            Operator::KvState { name, shape, .. } => {
                frame.caches.extend(operation.results.iter().map(|result| (*result, name.as_str())));
                let value_of = |symbol: &_| frame.symbols.get(symbol);
                let context = Context { value_of: &value_of, limit: self.limit, epoch: 0 };
                Ok(vec![Value::Tensor(self.state.read(name, &context.shape(shape)?)?)])
            }
            operator => {
                let tensors = operands.iter().map(Value::as_tensor).collect::<Result<Vec<&Tensor>>>()?;
                let epoch = self.epoch.replace(self.epoch.get().wrapping_add(1));
                let value_of = |symbol: &_| frame.symbols.get(symbol);
                let context = Context { value_of: &value_of, limit: self.limit, epoch };
                let results = apply(operator, &tensors, &context)?;
                if let Operator::KvAppend { .. } = operator
                    && let Some(name) = operation.operands.first().and_then(|cache| frame.caches.get(cache))
                {
                    let name = *name;
                    frame.caches.extend(operation.results.iter().map(|result| (*result, name)));
                    self.state.write(name, &results[0]);
                }
                Ok(results.into_iter().map(Value::Tensor).collect())
            }
        }
    }
}

/// Binds symbols to what the inputs show, in the order of the inputs, and checks everything else.
fn bind_inputs(frame: &mut Frame, inputs: &[Value]) -> Result<()> {
    let function = frame.function;
    let name = |index: usize| function.input_names.get(index).cloned().unwrap_or_else(|| format!("#{index}"));
    let located = |index: usize, error: Error| Error::Input { name: name(index), message: error.to_string() };
    let params = &function.body.params;
    for (index, (param, value)) in params.iter().zip(inputs).enumerate() {
        let ty = frame.type_of(*param)?;
        frame.symbols.bind_lone(ty, value).map_err(|error| located(index, error))?;
    }
    for (index, (param, value)) in params.iter().zip(inputs).enumerate() {
        let ty = frame.type_of(*param)?;
        frame.symbols.check(ty, value).map_err(|error| match (error.sentence(ty, value), error) {
            (Some(message), _) => Error::Input { name: name(index), message },
            (None, CheckError::Run(error)) => located(index, error),
            (None, _) => Error::Malformed("an input check without a message".into()),
        })?;
    }
    frame.symbols.check_equalities()
}

/// After which operation of a function body a value is not needed any more.
struct Deaths {
    by_operation: HashMap<usize, Vec<Name>>,
}

impl Deaths {
    fn of(body: &Region) -> Deaths {
        let mut last_use: HashMap<Name, usize> = HashMap::new();
        for (index, operation) in body.operations.iter().enumerate() {
            last_use.extend(operation.results.iter().map(|name| (*name, index)));
            last_use.extend(operation.operands.iter().map(|name| (*name, index)));
            for region in &operation.regions {
                last_use.extend(region.results.iter().map(|name| (*name, index)));
                region.visit(&mut |nested| {
                    last_use.extend(nested.operands.iter().map(|name| (*name, index)));
                    for region in &nested.regions {
                        last_use.extend(region.results.iter().map(|name| (*name, index)));
                    }
                });
            }
        }
        body.results.iter().for_each(|name| {
            last_use.remove(name);
        });
        let mut by_operation: HashMap<usize, Vec<Name>> = HashMap::new();
        for (name, index) in last_use {
            by_operation.entry(index).or_default().push(name);
        }
        Deaths { by_operation }
    }

    fn after(&mut self, index: usize) -> Vec<Name> {
        self.by_operation.remove(&index).unwrap_or_default()
    }
}
