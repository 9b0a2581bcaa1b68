//! Checks the inputs of a run against the manifest and learns the symbols from their shapes.

use crate::dim::DimExpr;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{Constraint, Manifest, Relation, SymbolSource};
use crate::tensor::{DataRef, TensorRef};

/// Fills in the values of all input symbols; those of the state stay, the others become unknown.
pub(crate) fn bind_inputs(
    manifest: &Manifest,
    inputs: &[TensorRef],
    symbols: &mut [Option<i64>],
) -> Result<()> {
    if inputs.len() != manifest.inputs.len() {
        let names: Vec<_> = manifest.inputs.iter().map(|port| port.name.as_str()).collect();
        return Err(Error::InputCount {
            expected: names.len(),
            names: names.join(", "),
            found: inputs.len(),
        });
    }
    for (port, input) in manifest.inputs.iter().zip(inputs) {
        let tensor = &manifest.tensors[port.tensor as usize];
        if tensor.dtype != input.dtype() {
            return Err(Error::InputType {
                input: port.name.clone(),
                expected: tensor.dtype,
                found: input.dtype(),
            });
        }
        if tensor.shape.len() != input.shape().len() {
            let reason = format!("the rank is {}, not {}", input.shape().len(), tensor.shape.len());
            return Err(shape_error(manifest, port.tensor, input.shape(), &port.name, reason));
        }
        if let DataRef::Bytes(bytes) = input.data()
            && !bytes.is_empty()
            && !(bytes.as_ptr() as usize).is_multiple_of(tensor.dtype.alignment())
        {
            let (input, dtype) = (port.name.clone(), tensor.dtype);
            return Err(Error::InputAlignment { input, dtype, alignment: dtype.alignment() });
        }
        debug_assert!(tensor.dtype != DType::String || matches!(input.data(), DataRef::Strings(_)));
    }
    bind_shapes(manifest, |index| inputs[index].shape(), symbols)
}

/// As `bind_inputs` from shapes of the right number and ranks alone.
pub(crate) fn bind_shapes<'a>(
    manifest: &Manifest,
    shape_of: impl Fn(usize) -> &'a [usize],
    symbols: &mut [Option<i64>],
) -> Result<()> {
    for (value, symbol) in symbols.iter_mut().zip(&manifest.symbols) {
        *value = match symbol.source {
            SymbolSource::Input { input, axis } => {
                i64::try_from(shape_of(input as usize)[axis as usize]).ok()
            }
            SymbolSource::State => *value,
            SymbolSource::Step { .. } => None,
        };
    }
    for (index, port) in manifest.inputs.iter().enumerate() {
        let shape = shape_of(index);
        for (axis, (dim, &found)) in
            manifest.tensors[port.tensor as usize].shape.iter().zip(shape).enumerate()
        {
            let fail = |reason: String| Err(shape_error(manifest, port.tensor, shape, &port.name, reason));
            let expected = match dim.evaluate(symbols) {
                Ok(expected) => expected,
                Err(error) => return fail(format!("axis {axis}: {error}")),
            };
            if i64::try_from(found) != Ok(expected) {
                let origin =
                    if dim.as_const().is_some() { "" } else { ", which follows from the other dimensions" };
                return fail(format!("axis {axis} is {found}, expected {expected}{origin}"));
            }
            if let DimExpr::Symbol(id) = dim {
                let symbol = &manifest.symbols[*id as usize];
                if !(symbol.lo..=symbol.hi).contains(&expected) {
                    let range = match symbol.hi {
                        i64::MAX => format!("at least {}", symbol.lo),
                        hi => format!("in {}..={hi}", symbol.lo),
                    };
                    return fail(format!("axis {axis} (`{}`) is {found}, must be {range}", symbol.name));
                }
            }
        }
    }
    manifest.constraints.iter().try_for_each(|constraint| check(manifest, constraint, symbols))
}

#[cold]
fn shape_error(manifest: &Manifest, tensor: u32, found: &[usize], input: &str, reason: String) -> Error {
    let expected = manifest.describe_shape(&manifest.tensors[tensor as usize].shape);
    Error::InputShape { input: input.to_owned(), expected, found: found.to_vec(), reason }
}

/// Checks that a relation holds.
pub(crate) fn check(manifest: &Manifest, constraint: &Constraint, symbols: &[Option<i64>]) -> Result<()> {
    let value = |dim: &DimExpr| {
        dim.evaluate(symbols).map_err(|source| Error::Dim {
            field: constraint.reason.clone(),
            expression: manifest.describe_dim(dim),
            source,
        })
    };
    let (left, right) = (value(&constraint.left)?, value(&constraint.right)?);
    let (holds, relation) = match constraint.relation {
        Relation::Equal => (left == right, "equal to"),
        Relation::LessOrEqual => (left <= right, "at most"),
        Relation::MultipleOf => {
            (right != 0 && left.checked_rem(right).is_none_or(|rest| rest == 0), "a multiple of")
        }
    };
    if holds {
        return Ok(());
    }
    let side = |dim: &DimExpr, value: i64| match dim.as_const() {
        Some(value) => value.to_string(),
        None => format!("{} = {value}", manifest.describe_dim(dim)),
    };
    Err(Error::Constraint {
        reason: constraint.reason.clone(),
        left: side(&constraint.left, left),
        relation,
        right: side(&constraint.right, right),
    })
}
