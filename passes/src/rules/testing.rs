//! What the tests of rules share: build a function, optimize it with some topics, run both in the reference interpreter.

use std::collections::HashMap;

use tcc_ir::builder::Builder;
use tcc_ir::data::Data;
use tcc_ir::dim::Symbol;
use tcc_ir::dtype::DType;
use tcc_ir::module::{Function, Module, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Scalar;
use tcc_ir::types::Type;

use super::Topic;
use crate::context::Context;
use crate::cost::Machine;
use crate::egraph::{Plan, optimize};

/// A small generator of pseudo-random numbers: xorshift, the same on every machine.
pub struct Numbers(u64);

impl Numbers {
    /// Numbers that follow from a seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }

    /// A tensor of numbers in -2 to 2 in steps of 1/64, or small integers.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Data {
        let mut bytes = Vec::new();
        for _ in 0..shape.iter().product() {
            let scalar = match dtype {
                _ if dtype.is_float() => Scalar::float(dtype, (self.below(257) as f64 - 128.0) / 64.0),
                DType::Bool => Scalar::integer(dtype, self.below(2) as i64),
                _ if dtype.is_signed() => Scalar::integer(dtype, self.below(200) as i64 - 100),
                _ => Scalar::integer(dtype, self.below(200) as i64),
            };
            tcc_ir::convert::push_scalar(scalar, &mut bytes);
        }
        Data::new(dtype, shape, bytes.into()).unwrap()
    }
}

/// A context that is the same on every machine.
pub fn context() -> Context {
    Context::new(Machine::of("cpu:x86-64-v3").unwrap())
}

/// The function that `build` makes, with its results as outputs.
pub fn function(build: impl FnOnce(&mut Builder) -> Vec<Value>) -> Function {
    let mut builder = Builder::new("main");
    let results = build(&mut builder);
    let names: Vec<String> = (0..results.len()).map(|index| format!("y{index}")).collect();
    let outputs: Vec<(&str, Value)> = names.iter().map(String::as_str).zip(results).collect();
    builder.finish(&outputs)
}

/// The function after saturation with `topics`, fused where `fuse`, constants folded and dead code gone.
pub fn rewritten(function: &Function, topics: &[Topic], fuse: bool) -> Function {
    let mut changed = function.clone();
    let rules: Vec<_> = topics.iter().flat_map(|topic| (topic.rules)()).collect();
    let plan = Plan { phases: vec![rules.iter().collect()], fuse };
    let context = context();
    optimize(&mut changed, &plan, &context).unwrap();
    let mut module = Module::with(changed);
    crate::run_passes(&mut module, &["fold-weights", "cse", "dce"], &context).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    module.entry().unwrap().clone()
}

/// Names of the operators in the body, constants left out.
pub fn operators(function: &Function) -> Vec<&'static str> {
    let names = function.body.operations.iter().map(|operation| operation.operator.name());
    names.filter(|name| *name != "constant").collect()
}

/// Runs a function without control flow; symbols take their values from the inputs.
pub fn run(function: &Function, inputs: &[Data]) -> Vec<Data> {
    let mut symbols: HashMap<Symbol, i64> = HashMap::new();
    let mut values: HashMap<Value, Data> = HashMap::new();
    for (param, input) in function.body.params.iter().zip(inputs) {
        let ty = function.type_of(*param).as_tensor().unwrap();
        for (dim, extent) in ty.shape.iter().zip(input.shape()) {
            if let Some(symbol) = dim.as_symbol() {
                symbols.insert(symbol.clone(), *extent as i64);
            }
        }
        values.insert(*param, input.clone());
    }
    for operation in &function.body.operations {
        let operands: Vec<Data> = operation.operands.iter().map(|value| values[value].clone()).collect();
        let results = match &operation.operator {
            Operator::Constant { data } => vec![data.clone()],
            operator => tcc_interpret::evaluate(operator, &operands, &|symbol| symbols.get(symbol).copied())
                .unwrap_or_else(|error| panic!("{}: {error}", operator.name())),
        };
        values.extend(operation.results.iter().copied().zip(results));
    }
    function.body.results.iter().map(|value| values[value].clone()).collect()
}

/// Random inputs for a function; symbols take values below 6, the same for every input.
pub fn random_inputs(function: &Function, numbers: &mut Numbers) -> Vec<Data> {
    let mut symbols: HashMap<Symbol, i64> = HashMap::new();
    let mut inputs = Vec::new();
    for param in &function.body.params {
        let Type::Tensor(ty) = function.type_of(*param) else { panic!("inputs are tensors") };
        for dim in &ty.shape {
            dim.visit_symbols(&mut |symbol| {
                symbols.entry(symbol.clone()).or_insert_with(|| 1 + numbers.below(5) as i64);
            });
        }
        let value = |symbol: &Symbol| symbols.get(symbol).copied();
        let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.evaluate(&value).unwrap() as usize).collect();
        inputs.push(numbers.tensor(ty.dtype(), &shape));
    }
    inputs
}

/// Panics where the two functions differ by more than rounding on random inputs; integers by more than `steps`.
pub fn assert_equivalent_within(a: &Function, b: &Function, steps: f64) {
    for seed in 1..6 {
        let inputs = random_inputs(a, &mut Numbers::new(seed));
        let (left, right) = (run(a, &inputs), run(b, &inputs));
        assert_eq!(left.len(), right.len());
        for (x, y) in left.iter().zip(&right) {
            assert_eq!((x.dtype(), x.shape()), (y.dtype(), y.shape()));
            for index in 0..x.count() {
                let (p, q) = (
                    tcc_ir::convert::element(x, index).unwrap().as_f64(),
                    tcc_ir::convert::element(y, index).unwrap().as_f64(),
                );
                let tolerance = if x.dtype().is_float() { 2e-4 * (1.0 + p.abs()) } else { steps };
                let same = p == q || (p.is_nan() && q.is_nan()) || (p - q).abs() <= tolerance;
                assert!(same, "element {index}: {p} and {q}");
            }
        }
    }
}

/// Panics where the two functions differ by more than rounding on random inputs.
pub fn assert_equivalent(a: &Function, b: &Function) {
    assert_equivalent_within(a, b, 0.0);
}

/// An `f32` input.
pub fn input(builder: &mut Builder, name: &str, shape: &[i64]) -> Value {
    builder.input(name, Type::tensor(DType::F32, shape.iter().map(|extent| (*extent).into()).collect()))
}

/// A random constant.
pub fn weights(builder: &mut Builder, seed: u64, shape: &[usize]) -> Value {
    builder.constant(Numbers::new(seed).tensor(DType::F32, shape)).unwrap()
}
