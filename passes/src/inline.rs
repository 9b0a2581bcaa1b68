//! Inlining: every `call` is replaced by the body of its callee; only the entry function stays.

use std::collections::HashMap;

use tcc_ir::dim::{Dim, Symbol};
use tcc_ir::module::{Function, Module, Operation, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::error::Error;

/// Replaces calls in the entry function; functions that are then unused go.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    let Some(entry) = module.entry() else { return Ok(()) };
    if !has_calls(&entry.body) {
        let name = entry.name.clone();
        module.functions.retain(|key, _| *key == name);
        return Ok(());
    }
    let mut entry = entry.clone();
    let body = std::mem::take(&mut entry.body);
    entry.body = expand(module, &mut entry, body, &mut Vec::new())?;
    module.functions.clear();
    module.functions.insert(entry.name.clone(), entry);
    Ok(())
}

fn has_calls(region: &Region) -> bool {
    let mut found = false;
    region.visit(&mut |operation| found |= matches!(operation.operator, Operator::Call { .. }));
    found
}

/// Expands the calls of a region whose values belong to `function`.
fn expand(
    module: &Module,
    function: &mut Function,
    mut region: Region,
    stack: &mut Vec<String>,
) -> Result<Region, Error> {
    let mut renamed: HashMap<Value, Value> = HashMap::new();
    let mut operations = Vec::with_capacity(region.operations.len());
    for mut operation in region.operations {
        rename(&mut operation, &renamed);
        operation.regions = std::mem::take(&mut operation.regions)
            .into_iter()
            .map(|region| expand(module, function, region, stack))
            .collect::<Result<Vec<Region>, Error>>()?;
        let Operator::Call { callee } = &operation.operator else {
            operations.push(operation);
            continue;
        };
        let called = module.functions.get(callee).ok_or_else(|| Error::Call {
            callee: callee.clone(),
            reason: "there is no such function".into(),
        })?;
        if stack.contains(callee) || function.name == *callee {
            return Err(Error::RecursiveCall(callee.clone()));
        }
        if called.body.params.len() != operation.operands.len()
            || called.body.results.len() != operation.results.len()
        {
            return Err(Error::Call {
                callee: callee.clone(),
                reason: "operands or results do not match its declaration".into(),
            });
        }
        stack.push(callee.clone());
        let body = copy_in(function, called, &operation);
        let mut body = expand(module, function, body, stack)?;
        stack.pop();
        operations.append(&mut body.operations);
        renamed.extend(operation.results.iter().copied().zip(body.results.iter().copied()));
    }
    region.operations = operations;
    for result in &mut region.results {
        *result = renamed.get(result).copied().unwrap_or(*result);
    }
    Ok(region)
}

/// The callee's body with values of `function`, its parameters replaced by the call's operands, and its symbols by the
/// extents of the operands.
fn copy_in(function: &mut Function, called: &Function, call: &Operation) -> Region {
    let mut symbols: HashMap<Symbol, Dim> = HashMap::new();
    for (param, operand) in called.body.params.iter().zip(&call.operands) {
        if let (Some(declared), Some(actual)) =
            (called.type_of(*param).as_tensor(), function.type_of(*operand).as_tensor())
        {
            for (dim, extent) in declared.shape.iter().zip(&actual.shape) {
                if let Some(symbol) = dim.as_symbol() {
                    symbols.entry(symbol.clone()).or_insert_with(|| extent.clone());
                }
            }
        }
    }
    // Symbols that the callee decides itself get a name of their own for each call.
    for (symbol, range) in &called.symbols {
        if !symbols.contains_key(symbol) {
            let mut name = symbol.name().to_string();
            while function.symbols.contains_key(&Symbol::new(&name)) {
                name.push('_');
            }
            let fresh = Symbol::new(&name);
            function.symbols.insert(fresh.clone(), *range);
            symbols.insert(symbol.clone(), Dim::symbol(&fresh));
        }
    }
    let mut callee = called.clone();
    rename_bound(&mut callee.body, &symbols);
    callee.substitute(&|symbol| symbols.get(symbol).cloned());
    function.equalities.extend(callee.equalities.iter().cloned());
    let mut values: HashMap<Value, Value> =
        callee.body.params.iter().copied().zip(call.operands.iter().copied()).collect();
    let body = std::mem::take(&mut callee.body);
    copy_region(function, &callee, body, &mut values)
}

/// Symbols that a `bind` defines are names, not dimensions, so substitution leaves them.
fn rename_bound(region: &mut Region, symbols: &HashMap<Symbol, Dim>) {
    for operation in &mut region.operations {
        if let Operator::Bind { symbols: bound } = &mut operation.operator {
            for symbol in bound {
                if let Some(renamed) = symbols.get(symbol).and_then(|dim| dim.as_symbol()) {
                    *symbol = renamed.clone();
                }
            }
        }
        operation.regions.iter_mut().for_each(|region| rename_bound(region, symbols));
    }
}

fn copy_region(
    function: &mut Function,
    callee: &Function,
    mut region: Region,
    values: &mut HashMap<Value, Value>,
) -> Region {
    let fresh = |function: &mut Function, value: Value, values: &mut HashMap<Value, Value>| {
        *values.entry(value).or_insert_with(|| function.new_value(callee.type_of(value).clone()))
    };
    for param in &mut region.params {
        *param = fresh(function, *param, values);
    }
    for operation in &mut region.operations {
        for operand in &mut operation.operands {
            *operand = fresh(function, *operand, values);
        }
        for result in &mut operation.results {
            *result = fresh(function, *result, values);
        }
        operation.regions = std::mem::take(&mut operation.regions)
            .into_iter()
            .map(|region| copy_region(function, callee, region, values))
            .collect();
    }
    for result in &mut region.results {
        *result = fresh(function, *result, values);
    }
    region
}

/// Replaces values in an operation and its regions.
fn rename(operation: &mut Operation, renamed: &HashMap<Value, Value>) {
    if renamed.is_empty() {
        return;
    }
    let replace = |value: &mut Value| *value = renamed.get(value).copied().unwrap_or(*value);
    operation.operands.iter_mut().for_each(replace);
    for region in &mut operation.regions {
        region.operations.iter_mut().for_each(|operation| rename(operation, renamed));
        region.results.iter_mut().for_each(replace);
    }
}
