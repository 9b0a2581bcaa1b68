//! The invariants of a module, checked.
//!
//! - A function is listed under its own name, has as many input names as parameters and output names as results, and
//!   input names and output names are each unique.
//! - Every value is defined exactly once, by a parameter or an operation, and before its uses; a region sees the values
//!   of the regions around it and nothing of its siblings.
//! - Every operand count fits the operator's declaration; the number of regions is the declared one.
//! - Result types are those that inference gives: the same kind, element storage and rank, and no two different
//!   constant extents. Symbolic extents may be written in another way (the run checks them).
//! - Types hold no negative constant extent; quantized types have as many scales and zero points as groups and scales
//!   above zero.
//! - Every symbol in a type or attribute is declared by its function; ranges are not empty; symbol names are valid.
//! - `if` takes a truth scalar and two regions without parameters that yield values of the result types; `loop` takes
//!   an `i64` scalar, a truth scalar and carried values, and its region takes the iteration number, the condition and
//!   the carried values, and yields the condition, the carried values and the scanned ones.
//! - Caches are named once and updated in place, so a consumed cache value has no other use (`caches.rs`).
//! - `call` names a function of the module whose parameters and results fit; calls do not recurse.

mod caches;

use std::collections::HashSet;

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::infer;
use crate::module::{Function, Module, Operation, Region, Value};
use crate::operator::Operator;
use crate::types::{Element, Granularity, Quantized, TensorType, Type};

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// Of a function as a whole.
    #[error("function '{function}': {message}")]
    Function {
        /// The function.
        function: String,
        /// What is wrong.
        message: String,
    },
    /// Of one operation.
    #[error("function '{function}', tir.{operator} at '{location}': {message}")]
    Operation {
        /// The function.
        function: String,
        /// The operator.
        operator: &'static str,
        /// The source node.
        location: String,
        /// What is wrong.
        message: String,
    },
}

type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

/// Checks every invariant; the first one that is broken is the error.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    for (name, function) in &module.functions {
        let of_function =
            |message: String| VerifyError::Function { function: function.name.clone(), message };
        check_signature(name, function).map_err(of_function)?;
        let mut verifier = Verifier { module, function, visible: HashSet::new(), defined: HashSet::new() };
        verifier.region(&function.body).map_err(|broken| broken.in_function(&function.name))?;
        caches::check(function).map_err(of_function)?;
    }
    check_recursion(module)
}

/// A message and the operation at fault, if it is one.
struct Broken {
    operation: Option<(&'static str, String)>,
    message: String,
}

impl From<String> for Broken {
    fn from(message: String) -> Broken {
        Broken { operation: None, message }
    }
}

impl Broken {
    fn in_function(self, function: &str) -> VerifyError {
        let (function, message) = (function.to_string(), self.message);
        match self.operation {
            Some((operator, location)) => VerifyError::Operation { function, operator, location, message },
            None => VerifyError::Function { function, message },
        }
    }
}

fn check_signature(listed: &str, function: &Function) -> Check {
    ensure!(listed == function.name, "listed under the name '{listed}'");
    let body = &function.body;
    ensure!(
        function.input_names.len() == body.params.len(),
        "{} input names for {} parameters",
        function.input_names.len(),
        body.params.len()
    );
    ensure!(
        function.output_names.len() == body.results.len(),
        "{} output names for {} results",
        function.output_names.len(),
        body.results.len()
    );
    for names in [&function.input_names, &function.output_names] {
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
            return Err(format!("the name '{name}' occurs twice"));
        }
    }
    for (symbol, range) in &function.symbols {
        ensure!(Symbol::is_valid_name(symbol.name()), "'{symbol}' is no name of a symbol");
        ensure!(
            range.low <= range.high,
            "symbol '{symbol}' has the empty range {}..{}",
            range.low,
            range.high
        );
    }
    for (a, b) in &function.equalities {
        check_symbols(function, a)?;
        check_symbols(function, b)?;
    }
    Ok(())
}

fn check_symbols(function: &Function, dim: &Dim) -> Check {
    let mut unknown = None;
    dim.visit_symbols(&mut |symbol| {
        if !function.symbols.contains_key(symbol) {
            unknown = Some(symbol.clone());
        }
    });
    match unknown {
        Some(symbol) => Err(format!("symbol '{symbol}' is not declared")),
        None => Ok(()),
    }
}

fn check_quantized(quantized: &Quantized, ty: &TensorType) -> Check {
    ensure!(quantized.storage.is_integer(), "{ty}: quantized values are stored as integers");
    ensure!(quantized.expressed.is_float(), "{ty}: quantized values stand for floating-point numbers");
    let groups = match quantized.granularity {
        Granularity::Tensor => Some(1),
        Granularity::Axis(axis) => {
            ensure!(axis < ty.rank(), "{ty}: axis {axis} is outside the rank");
            ty.shape[axis].as_const()
        }
        Granularity::Block { axis, size } => {
            ensure!(axis < ty.rank() && size > 0, "{ty}: blocks of {size} along axis {axis}");
            let groups = |(index, dim): (usize, &Dim)| {
                if index == axis { dim.ceil_div(&Dim::from(size)) } else { dim.clone() }
            };
            ty.shape.iter().enumerate().map(groups).fold(Dim::Const(1), |a, b| a * b).as_const()
        }
    };
    ensure!(
        quantized.scales.len() == quantized.zeros.len()
            && groups.is_none_or(|groups| quantized.scales.len() as i64 == groups),
        "{ty}: {} scales and {} zero points for {groups:?} groups",
        quantized.scales.len(),
        quantized.zeros.len()
    );
    let positive = |bits: &u64| f64::from_bits(*bits) > 0.0 && f64::from_bits(*bits).is_finite();
    ensure!(quantized.scales.iter().all(positive), "{ty}: scales are above zero");
    Ok(())
}

struct Verifier<'a> {
    module: &'a Module,
    function: &'a Function,
    /// Values that the current place sees.
    visible: HashSet<Value>,
    /// Values defined anywhere so far.
    defined: HashSet<Value>,
}

impl Verifier<'_> {
    fn ty(&self, value: Value) -> Result<&Type, String> {
        self.function.types.get(value.index()).ok_or_else(|| format!("{value:?} has no type"))
    }

    fn types(&self, values: &[Value]) -> Result<Vec<&Type>, String> {
        values.iter().map(|value| self.ty(*value)).collect()
    }

    fn check_type(&self, ty: &Type) -> Check {
        match ty {
            Type::Tensor(tensor) => {
                for dim in &tensor.shape {
                    ensure!(dim.as_const().is_none_or(|dim| dim >= 0), "{ty} has a negative extent");
                    check_symbols(self.function, dim)?;
                }
                match &tensor.element {
                    Element::Plain(_) => Ok(()),
                    Element::Quantized(quantized) => check_quantized(quantized, tensor),
                }
            }
            Type::Sequence(inner) | Type::Optional(inner) => self.check_type(inner),
        }
    }

    fn define(&mut self, value: Value) -> Check {
        self.check_type(self.ty(value)?)?;
        ensure!(self.defined.insert(value), "{value:?} is defined twice");
        self.visible.insert(value);
        Ok(())
    }

    fn check_uses(&self, values: &[Value]) -> Check {
        match values.iter().find(|value| !self.visible.contains(value)) {
            Some(value) => Err(format!("{value:?} is used where it is not defined")),
            None => Ok(()),
        }
    }

    fn region(&mut self, region: &Region) -> Result<(), Broken> {
        let outside = self.visible.clone();
        for param in &region.params {
            self.define(*param)?;
        }
        for operation in &region.operations {
            self.operation(operation).map_err(|broken| match broken.operation {
                Some(_) => broken,
                None => Broken {
                    operation: Some((operation.operator.name(), operation.location.text().to_string())),
                    ..broken
                },
            })?;
        }
        self.check_uses(&region.results)?;
        self.visible = outside;
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), Broken> {
        let operator = &operation.operator;
        self.check_uses(&operation.operands)?;
        let declared = operator.describe();
        infer::check_arity(operator, operation.operands.len()).map_err(|error| error.0)?;
        if operation.regions.len() != declared.regions {
            let found = operation.regions.len();
            return Err(format!("takes {} regions, found {found}", declared.regions).into());
        }
        self.check_attributes(operator)?;
        for region in &operation.regions {
            self.region(region)?;
        }
        for result in &operation.results {
            self.define(*result)?;
        }
        match operator {
            Operator::If {} => self.check_if(operation)?,
            Operator::Loop { scans } => self.check_loop(operation, *scans)?,
            Operator::Call { callee } => self.check_call(operation, callee)?,
            _ => {
                let operands = self.types(&operation.operands)?;
                let inferred = infer::infer(operator, &operands).map_err(|error| error.0)?;
                let stated = self.types(&operation.results)?;
                same_types("results", &inferred.results.iter().collect::<Vec<_>>(), &stated)?;
            }
        }
        Ok(())
    }

    fn check_attributes(&self, operator: &Operator) -> Check {
        let unknown = std::cell::RefCell::new(Ok(()));
        operator.clone().map_dims(&|dim| {
            if let Err(message) = check_symbols(self.function, dim) {
                *unknown.borrow_mut() = Err(message);
            }
            dim.clone()
        });
        if let Operator::Bind { symbols } = operator {
            symbols.iter().try_for_each(|symbol| check_symbols(self.function, &Dim::symbol(symbol)))?;
        }
        unknown.into_inner()
    }

    fn check_if(&self, operation: &Operation) -> Check {
        let results = self.types(&operation.results)?;
        is_scalar(self.ty(operation.operands[0])?, DType::Bool, "condition")?;
        ensure!(operation.operands.len() == 1, "if takes one operand");
        for region in &operation.regions {
            ensure!(region.params.is_empty(), "the regions of if take no parameters");
            same_types("yielded values", &results, &self.types(&region.results)?)?;
        }
        Ok(())
    }

    fn check_loop(&self, operation: &Operation, scans: usize) -> Check {
        let operands = self.types(&operation.operands)?;
        let results = self.types(&operation.results)?;
        let region = &operation.regions[0];
        let (params, yields) = (self.types(&region.params)?, self.types(&region.results)?);
        let carried = operands.len() - 2;
        is_scalar(operands[0], DType::I64, "trip limit")?;
        is_scalar(operands[1], DType::Bool, "condition")?;
        ensure!(
            params.len() == 2 + carried,
            "the region takes {} parameters for {carried} carried",
            params.len()
        );
        is_scalar(params[0], DType::I64, "iteration number")?;
        is_scalar(params[1], DType::Bool, "condition")?;
        ensure!(yields.len() == 1 + carried + scans, "the region yields {} values", yields.len());
        ensure!(results.len() == carried + scans, "loop has {} results", results.len());
        is_scalar(yields[0], DType::Bool, "yielded condition")?;
        same_kinds("carried values", &operands[2..], &params[2..])?;
        same_kinds("carried values", &params[2..], &yields[1..1 + carried])?;
        same_kinds("carried values", &yields[1..1 + carried], &results[..carried])?;
        for (yielded, result) in yields[1 + carried..].iter().zip(&results[carried..]) {
            let (Type::Tensor(yielded), Type::Tensor(result)) = (yielded, result) else {
                return Err("scanned values are tensors".into());
            };
            ensure!(
                result.dtype() == yielded.dtype() && result.rank() == yielded.rank() + 1,
                "values of {yielded} are scanned into {result}"
            );
        }
        Ok(())
    }

    fn check_call(&self, operation: &Operation, callee: &str) -> Check {
        let Some(function) = self.module.functions.get(callee) else {
            return Err(format!("there is no function '{callee}'"));
        };
        let types = |values: &[Value]| -> Result<Vec<&Type>, String> {
            let ty = |value: &Value| {
                function.types.get(value.index()).ok_or_else(|| format!("'{callee}': {value:?} has no type"))
            };
            values.iter().map(ty).collect()
        };
        same_kinds("arguments", &types(&function.body.params)?, &self.types(&operation.operands)?)?;
        same_kinds("results", &types(&function.body.results)?, &self.types(&operation.results)?)
    }
}

fn is_scalar(ty: &Type, dtype: DType, what: &str) -> Check {
    let fits = ty.as_tensor().is_some_and(|tensor| tensor.dtype() == dtype && tensor.count().is(1));
    ensure!(fits, "the {what} is one element of {dtype}, got {ty}");
    Ok(())
}

/// Same kinds, element types and ranks, and no two different constant extents.
fn same_types(what: &str, expected: &[&Type], found: &[&Type]) -> Check {
    same_kinds(what, expected, found)?;
    for (expected, found) in expected.iter().zip(found) {
        let (Type::Tensor(a), Type::Tensor(b)) = (expected, found) else { continue };
        let differ = |(a, b): (&Dim, &Dim)| a.as_const().is_some() && b.as_const().is_some() && a != b;
        ensure!(!a.shape.iter().zip(&b.shape).any(differ), "{what}: expected {expected}, found {found}");
    }
    Ok(())
}

/// Same kinds, element types and ranks.
fn same_kinds(what: &str, expected: &[&Type], found: &[&Type]) -> Check {
    fn same(a: &Type, b: &Type) -> bool {
        match (a, b) {
            (Type::Tensor(a), Type::Tensor(b)) => a.dtype() == b.dtype() && a.rank() == b.rank(),
            (Type::Sequence(a), Type::Sequence(b)) | (Type::Optional(a), Type::Optional(b)) => {
                match (&**a, &**b) {
                    // The elements of a sequence may differ in rank and extents.
                    (Type::Tensor(a), Type::Tensor(b)) => a.dtype() == b.dtype(),
                    (a, b) => same(a, b),
                }
            }
            _ => false,
        }
    }
    ensure!(expected.len() == found.len(), "{what}: expected {}, found {}", expected.len(), found.len());
    match expected.iter().zip(found).find(|(a, b)| !same(a, b)) {
        Some((expected, found)) => Err(format!("{what}: expected {expected}, found {found}")),
        None => Ok(()),
    }
}

/// Calls must form no cycle.
fn check_recursion(module: &Module) -> Result<(), VerifyError> {
    // Functions that call nothing but finished functions are finished; what remains is on or behind a cycle.
    let callees = |function: &Function| {
        let mut callees = HashSet::new();
        function.body.visit(&mut |operation| {
            if let Operator::Call { callee } = &operation.operator {
                callees.insert(callee.clone());
            }
        });
        callees
    };
    let mut waiting: Vec<(&String, HashSet<String>)> =
        module.functions.iter().map(|(name, function)| (name, callees(function))).collect();
    while !waiting.is_empty() {
        let blocked: HashSet<String> = waiting.iter().map(|(name, _)| (*name).clone()).collect();
        let before = waiting.len();
        waiting.retain(|(_, callees)| !callees.is_disjoint(&blocked));
        if waiting.len() == before {
            let function = waiting[0].0.clone();
            return Err(VerifyError::Function { function, message: "calls itself, directly or not".into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
