//! Common subexpressions: of equal pure operations on equal operands the first stays.

use std::collections::HashMap;

use tcc_ir::module::{Module, Operation, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::error::Error;

type Key = (Operator, Vec<Value>);

/// Merges equal operations of every function.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    for function in module.functions.values_mut() {
        let mut body = std::mem::take(&mut function.body);
        merge(&mut body, &mut HashMap::new(), &mut HashMap::new());
        function.body = body;
    }
    Ok(())
}

/// `known` holds the operations of the regions around this one too: their values are visible here.
#[allow(clippy::mutable_key_type, reason = "tensor contents cache their digest and never change")]
fn merge(region: &mut Region, known: &mut HashMap<Key, Vec<Value>>, renamed: &mut HashMap<Value, Value>) {
    let replace = |value: &mut Value, renamed: &HashMap<Value, Value>| {
        *value = renamed.get(value).copied().unwrap_or(*value);
    };
    let mut own: Vec<Key> = Vec::new();
    let mut kept: Vec<Operation> = Vec::with_capacity(region.operations.len());
    for mut operation in std::mem::take(&mut region.operations) {
        operation.operands.iter_mut().for_each(|value| replace(value, renamed));
        for nested in &mut operation.regions {
            merge(nested, known, renamed);
        }
        if operation.operator.describe().pure_function && operation.regions.is_empty() {
            let key = (operation.operator.clone(), operation.operands.clone());
            if let Some(results) = known.get(&key) {
                renamed.extend(operation.results.iter().copied().zip(results.iter().copied()));
                continue;
            }
            known.insert(key.clone(), operation.results.clone());
            own.push(key);
        }
        kept.push(operation);
    }
    region.operations = kept;
    region.results.iter_mut().for_each(|value| replace(value, renamed));
    for key in own {
        known.remove(&key);
    }
}
