//! What operators need besides their operands: values of dimensions and the allocation limit.

use tcc_ir::dim::{Dim, Symbol};

use crate::error::{Error, Result};

/// How many elements one tensor may have unless the caller says otherwise.
pub const DEFAULT_LIMIT: usize = 1 << 30;

/// The surroundings of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Values of symbols.
    pub value_of: &'a dyn Fn(&Symbol) -> Option<i64>,
    /// Largest number of elements of one tensor.
    pub limit: usize,
    /// Distinguishes random operations without a seed from run to run.
    pub epoch: u32,
}

impl Context<'_> {
    /// The value of a dimension.
    pub(crate) fn dim(&self, dim: &Dim) -> Result<i64> {
        Ok(dim.evaluate(self.value_of)?)
    }

    /// The shape with constant extents, checked to be allocatable.
    pub(crate) fn shape(&self, dims: &[Dim]) -> Result<Vec<usize>> {
        let values = dims.iter().map(|dim| self.dim(dim)).collect::<Result<Vec<i64>>>()?;
        let extents: Option<Vec<usize>> = values.iter().map(|value| usize::try_from(*value).ok()).collect();
        let Some(extents) = extents else {
            return Err(Error::operands(format!("the shape {values:?} has a negative extent")));
        };
        // Extents of 0 do not excuse the others: every stride has to fit as well.
        let count = extents.iter().try_fold(1usize, |product, extent| product.checked_mul((*extent).max(1)));
        match count {
            Some(count) if count <= self.limit => Ok(extents),
            _ => Err(Error::TooLarge { shape: values, limit: self.limit }),
        }
    }
}
