//! Weights that stay as narrow in memory as the model stores them.
//!
//! Imported models say exactly what they compute: `contract(x, decode_blocks(bytes))`, `contract(x, dequantize(codes,
//! scale, zero))` with a scale for each block, `contract(x, cast(w))`. Here these become products with packed weights
//! ([`block_weights`]), with activations as floats or integers, and contractions of mixed types ([`narrow_floats`]). Products of one
//! value run together ([`neighbours`]).

pub mod block_weights;
pub mod narrow_floats;
pub mod neighbours;

use std::collections::HashMap;

use tcc_ir::block_format::RowForm;
use tcc_ir::data::Data;
use tcc_ir::module::{Operation, Region, Value};
use tcc_ir::operator::Operator;

/// How products with block-quantized weights take their activations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Activations {
    /// As floats: nothing is rounded that the model does not round.
    #[default]
    Float,
    /// In 8 bits with a scale for each 32 of a row, on the way into the product; an approximation that has to be asked for.
    Int8,
    /// In 15 bits with a scale for each 32 of a row: as far from floats as sums in another order are, by integer products.
    Int16,
}

impl Activations {
    /// As what the operator takes them.
    pub fn rows(self) -> RowForm {
        match self {
            Activations::Float => RowForm::Float,
            Activations::Int8 => RowForm::Int8,
            Activations::Int16 => RowForm::Int16,
        }
    }
}

/// What produces each value that is visible in a region.
#[derive(Clone, Default)]
struct Producers {
    operations: HashMap<Value, Operation>,
}

impl Producers {
    fn define(&mut self, operation: &Operation) {
        // Operations with regions produce nothing that is looked into.
        if operation.regions.is_empty() && operation.results.len() == 1 {
            self.operations.insert(operation.results[0], operation.clone());
        }
    }

    fn of(&self, value: Value) -> Option<&Operation> {
        self.operations.get(&value)
    }

    fn constant(&self, value: Value) -> Option<&Data> {
        match &self.of(value)?.operator {
            Operator::Constant { data } => Some(data),
            _ => None,
        }
    }
}

/// Rewrites the operations of a region and of those inside it: `rewrite` gives what stands for an operation.
fn each(
    region: &mut Region,
    outer: &Producers,
    rewrite: &mut dyn FnMut(Operation, &Producers) -> Vec<Operation>,
) {
    let mut producers = outer.clone();
    let mut kept = Vec::with_capacity(region.operations.len());
    for mut operation in std::mem::take(&mut region.operations) {
        for nested in &mut operation.regions {
            each(nested, &producers, rewrite);
        }
        for operation in rewrite(operation, &producers) {
            producers.define(&operation);
            kept.push(operation);
        }
    }
    region.operations = kept;
}

#[cfg(test)]
mod tests;
