//! Constant folding: operations on compile-time tensors are evaluated by the reference interpreter.
//!
//! A result is kept only where it is not much larger than what it is computed from, so that a broadcast of a small
//! constant stays an operation. Weights are large, so what compilers do to them most, moving and scaling, has a short
//! path here; it gives the same bits. What is still spread from one element at the end, as some models make their weights,
//! becomes a constant that keeps that element alone.

mod weights;

use std::collections::HashMap;

use tcc_ir::data::Data;
use tcc_ir::module::{Function, Module, Operation, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::error::Error;

/// Results up to this size are folded whatever they come from.
const SMALL_BYTES: usize = 1 << 16;

/// Largest growth from operands to result: bytes to `f32`.
const GROWTH: usize = 4;

/// True where a result of `bytes` may replace operands of `inputs` bytes.
pub fn within_bounds(bytes: usize, inputs: usize) -> bool {
    bytes <= SMALL_BYTES.max(inputs.saturating_mul(GROWTH))
}

/// The single result of `operator` on compile-time operands; `None` where the interpreter refuses.
pub fn evaluate(operator: &Operator, operands: &[Data]) -> Option<Data> {
    match &evaluate_all(operator, operands)?[..] {
        [data] => Some(data.clone()),
        _ => None,
    }
}

fn evaluate_all(operator: &Operator, operands: &[Data]) -> Option<Vec<Data>> {
    if let Some(data) = weights::evaluate(operator, operands) {
        return Some(vec![data]);
    }
    tcc_interpret::evaluate(operator, operands, &|_| None).ok()
}

/// Folds constants in every function, except that weights stay as narrow as they are: integer kernels may want them.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    fold_module(module, false);
    Ok(())
}

/// Folds constants in every function, weights that no kernel takes as narrow as they are included.
pub fn run_on_all(module: &mut Module, _context: &Context) -> Result<(), Error> {
    fold_module(module, true);
    Ok(())
}

fn fold_module(module: &mut Module, widen: bool) {
    for function in module.functions.values_mut() {
        let mut body = std::mem::take(&mut function.body);
        fold(function, &mut body, &mut HashMap::new(), widen);
        function.body = body;
    }
}

/// Bytes of all results where every extent is known; `None` otherwise.
fn result_bytes(function: &Function, operation: &Operation) -> Option<usize> {
    let mut sum = 0usize;
    for value in &operation.results {
        let ty = function.type_of(*value).as_tensor()?;
        let count =
            ty.static_shape()?.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))?;
        sum = sum.checked_add(ty.dtype().bytes_for(count)?)?;
    }
    Some(sum)
}

/// True where quantized numbers, more than a few, become wider ones.
fn widens(function: &Function, operation: &Operation) -> bool {
    let tensor = |value: &Value| function.type_of(*value).as_tensor();
    match (operation.operands.first().and_then(tensor), operation.results.first().and_then(tensor)) {
        (Some(from), Some(to)) => {
            let quantized = from.dtype().is_integer() && from.dtype().bits() <= 8;
            quantized && to.dtype().bits() > 8 && !to.count().is(1)
        }
        _ => false,
    }
}

fn fold(function: &Function, region: &mut Region, known: &mut HashMap<Value, Data>, widen: bool) {
    let mut kept = Vec::with_capacity(region.operations.len());
    for mut operation in std::mem::take(&mut region.operations) {
        if let (Operator::Constant { data }, [value]) = (&operation.operator, &operation.results[..]) {
            known.insert(*value, data.clone());
            kept.push(operation);
            continue;
        }
        for nested in &mut operation.regions {
            fold(function, nested, known, widen);
        }
        let kept_back = !widen && widens(function, &operation);
        let results = match folded(function, &operation, known) {
            _ if kept_back => None,
            // Only at the end: before, rewrites see better what an operation does than what its result holds.
            None if widen => uniform(function, &operation, known).map(|data| vec![data]),
            results => results,
        };
        match results {
            Some(results) => {
                for (value, data) in operation.results.iter().zip(results) {
                    known.insert(*value, data.clone());
                    kept.push(Operation {
                        operator: Operator::Constant { data },
                        operands: Vec::new(),
                        results: vec![*value],
                        regions: Vec::new(),
                        location: operation.location.clone(),
                    });
                }
            }
            None => kept.push(operation),
        }
    }
    region.operations = kept;
}

/// The result of an operation all of whose elements are the same, however many.
fn uniform(function: &Function, operation: &Operation, known: &HashMap<Value, Data>) -> Option<Data> {
    let [result] = &operation.results[..] else { return None };
    let ty = function.type_of(*result).as_tensor()?;
    let operands = operation.operands.iter().map(|value| known.get(value)).collect::<Option<Vec<_>>>()?;
    weights::uniform(&operation.operator, &operands, ty.dtype(), &ty.static_shape()?)
}

fn folded(function: &Function, operation: &Operation, known: &HashMap<Value, Data>) -> Option<Vec<Data>> {
    if !operation.operator.describe().pure_function || !operation.regions.is_empty() {
        return None;
    }
    // Kernels read block-quantized weights as they are.
    if matches!(operation.operator, Operator::DecodeBlocks { .. }) {
        return None;
    }
    let operands: Vec<Data> =
        operation.operands.iter().map(|value| known.get(value).cloned()).collect::<Option<Vec<Data>>>()?;
    let inputs = operands.iter().map(Data::byte_count).sum();
    if !within_bounds(result_bytes(function, operation)?, inputs) {
        return None;
    }
    let results = evaluate_all(&operation.operator, &operands)?;
    let fits = results.len() == operation.results.len()
        && results.iter().zip(&operation.results).all(|(data, value)| {
            function.type_of(*value).as_tensor().is_some_and(|ty| {
                ty.dtype() == data.dtype() && ty.static_shape().is_some_and(|shape| shape == data.shape())
            })
        });
    fits.then_some(results)
}
