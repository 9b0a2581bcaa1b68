//! Dead code removal: pure operations whose results nothing needs go, and unused values leave the value table.

use std::collections::HashSet;

use tcc_ir::module::{Function, Module, Operation, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::error::Error;

/// Removes dead operations from every function.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    for function in module.functions.values_mut() {
        let mut live = HashSet::new();
        let mut body = std::mem::take(&mut function.body);
        live.extend(body.results.iter().copied());
        sweep(&mut body, &mut live);
        function.body = body;
        compact(function);
    }
    Ok(())
}

/// True where removal of the operation changes nothing but its results.
fn is_removable(operation: &Operation) -> bool {
    match &operation.operator {
        Operator::Random { .. } => true,
        Operator::If {} => operation.regions.iter().all(|region| region.operations.iter().all(is_removable)),
        operator => operator.describe().pure_function,
    }
}

/// Drops dead operations of a region, users before producers; `live` gains what the rest needs.
fn sweep(region: &mut Region, live: &mut HashSet<Value>) {
    let mut kept = Vec::with_capacity(region.operations.len());
    for mut operation in std::mem::take(&mut region.operations).into_iter().rev() {
        if is_removable(&operation) && !operation.results.iter().any(|value| live.contains(value)) {
            continue;
        }
        for nested in &mut operation.regions {
            live.extend(nested.results.iter().copied());
            sweep(nested, live);
        }
        live.extend(operation.operands.iter().copied());
        kept.push(operation);
    }
    kept.reverse();
    region.operations = kept;
}

/// Renumbers values in order of definition and drops the types of unused ones.
pub fn compact(function: &mut Function) {
    let mut moved: Vec<Option<Value>> = vec![None; function.types.len()];
    let mut types = Vec::new();
    let mut body = std::mem::take(&mut function.body);
    renumber(&mut body, &mut moved, &mut types, function);
    function.body = body;
    function.types = types;
}

fn renumber(
    region: &mut Region,
    moved: &mut [Option<Value>],
    types: &mut Vec<tcc_ir::types::Type>,
    function: &Function,
) {
    fn define(
        value: &mut Value,
        moved: &mut [Option<Value>],
        types: &mut Vec<tcc_ir::types::Type>,
        function: &Function,
    ) {
        types.push(function.type_of(*value).clone());
        let new = Value(types.len() as u32 - 1);
        moved[value.index()] = Some(new);
        *value = new;
    }
    region.params.iter_mut().for_each(|param| define(param, moved, types, function));
    for operation in &mut region.operations {
        for operand in &mut operation.operands {
            *operand = moved[operand.index()].unwrap_or(*operand);
        }
        for nested in &mut operation.regions {
            renumber(nested, moved, types, function);
        }
        operation.results.iter_mut().for_each(|result| define(result, moved, types, function));
    }
    for result in &mut region.results {
        *result = moved[result.index()].unwrap_or(*result);
    }
}
