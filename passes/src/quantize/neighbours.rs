//! Products of one value with several packed weights come one after the other, so that they run as one step.
//!
//! A product moves up behind the first one of the same activations if everything that it reads is there already; constants
//! come first of all.

use std::collections::HashSet;

use tcc_ir::module::{Module, Operation, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::error::Error;

/// Moves the products of every function.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    for function in module.functions.values_mut() {
        arrange(&mut function.body);
    }
    Ok(())
}

/// Number of leading operations that may run side by side: products of the same activations that do not read each other.
pub fn group(operations: &[Operation]) -> usize {
    let Some(first) = operations.first().filter(|operation| is_product(operation)) else { return 1 };
    let mut written: HashSet<Value> = HashSet::new();
    let mut joins = |operation: &Operation| {
        let fits = is_product(operation)
            && operation.operands[0] == first.operands[0]
            && operation.operands.iter().all(|operand| !written.contains(operand));
        written.extend(&operation.results);
        fits
    };
    operations.iter().take_while(|operation| joins(operation)).count()
}

fn is_product(operation: &Operation) -> bool {
    matches!(operation.operator, Operator::BlockContract { .. })
}

fn arrange(region: &mut Region) {
    region.operations.iter_mut().for_each(|operation| operation.regions.iter_mut().for_each(arrange));
    if region.operations.iter().filter(|operation| is_product(operation)).count() < 2 {
        return;
    }
    let (constants, others): (Vec<Operation>, Vec<Operation>) = std::mem::take(&mut region.operations)
        .into_iter()
        .partition(|operation| matches!(operation.operator, Operator::Constant { .. }));
    let mut rest: Vec<Option<Operation>> = others.into_iter().map(Some).collect();
    region.operations = constants;
    // Values of operations that are still to come.
    let mut coming: HashSet<Value> =
        rest.iter().flatten().flat_map(|operation| operation.results.iter().copied()).collect();
    for place in 0..rest.len() {
        let Some(operation) = rest[place].take() else { continue };
        operation.results.iter().for_each(|value| _ = coming.remove(value));
        let activations = is_product(&operation).then(|| operation.operands[0]);
        let mut own: HashSet<Value> = operation.results.iter().copied().collect();
        region.operations.push(operation);
        let Some(activations) = activations else { continue };
        for later in &mut rest[place + 1..] {
            let joins = later.as_ref().is_some_and(|later| {
                is_product(later)
                    && later.operands[0] == activations
                    && later.operands.iter().all(|value| !coming.contains(value) && !own.contains(value))
            });
            if joins && let Some(product) = later.take() {
                product.results.iter().for_each(|value| _ = coming.remove(value));
                own.extend(&product.results);
                region.operations.push(product);
            }
        }
    }
}
