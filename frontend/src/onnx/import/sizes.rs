//! Sizes that operands give: symbolic where they are known, symbols bound at run time where they are not.

use super::super::graph::Node;
use super::context::Context;
use super::refusal::{Refusal, operands};
use tcc_ir::dim::{Dim, Range};
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;

/// Most entries of a run-time shape. The number comes from the file; no real tensor has more axes than this.
pub(crate) const MOST_AXES: usize = 64;

/// Run-time sizes are never negative.
pub(crate) const SIZE: Range = Range { low: 0, high: i64::MAX };

impl Context<'_> {
    /// The elements of a one-dimensional (or scalar) integer operand as sizes. What is not known becomes symbols that
    /// are bound at run time, where a value outside `range` fails the run.
    pub(crate) fn sizes(
        &mut self,
        node: &Node,
        operand: usize,
        name: &'static str,
        range: Range,
    ) -> Result<Vec<Dim>, Refusal> {
        if let Some(dims) = self.known(node, operand).and_then(|known| known.dims()) {
            return Ok(dims);
        }
        let value = self.operand(node, operand, name)?;
        self.bind(value, operand, name, range)
    }

    /// Symbols for the elements of a run-time integer tensor of rank 0 or 1.
    pub(crate) fn bind(
        &mut self,
        value: Value,
        operand: usize,
        name: &'static str,
        range: Range,
    ) -> Result<Vec<Dim>, Refusal> {
        if let Some((depth, dims)) = self.bound.get(&value)
            && *depth <= self.depth
        {
            return Ok(dims.clone());
        }
        let shape = self.shape(value)?;
        let count = match &shape[..] {
            [] => 1,
            [length] => length.as_const().ok_or(Refusal::RunTime { operand, name })?,
            _ => return Err(operands(format!("{name} has {} axes, expected at most one", shape.len()))),
        };
        if !(0..=MOST_AXES as i64).contains(&count) {
            return Err(Refusal::RunTime { operand, name });
        }
        let symbols: Vec<_> = (0..count).map(|_| self.builder.fresh_symbol(name, range)).collect();
        let flat = self.builder.reshape(value, vec![Dim::Const(count)])?;
        let flat = if self.dtype(flat)?.is_integer() { flat } else { self.builder.cast(flat, DType::I64)? };
        let dims: Vec<Dim> = symbols.iter().map(Dim::symbol).collect();
        self.builder.op(Operator::Bind { symbols }, &[flat])?;
        self.bound.insert(value, (self.depth, dims.clone()));
        Ok(dims)
    }

    /// Forgets symbols that were bound inside of a region that has ended.
    pub(crate) fn leave_region(&mut self) {
        self.depth -= 1;
        let depth = self.depth;
        self.bound.retain(|_, (bound_at, _)| *bound_at <= depth);
    }
}

/// An axis counted from the end where negative.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
    let signed = rank as i64;
    if (-signed..signed).contains(&axis) {
        Ok(axis.rem_euclid(signed) as usize)
    } else {
        Err(operands(format!("axis {axis} is outside of rank {rank}")))
    }
}

/// Distinct axes counted from the end where negative.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Refusal> {
    let mut result = Vec::with_capacity(list.len());
    for &entry in list {
        let index = axis(entry, rank)?;
        if result.contains(&index) {
            return Err(operands(format!("axis {entry} is given twice")));
        }
        result.push(index);
    }
    Ok(result)
}
