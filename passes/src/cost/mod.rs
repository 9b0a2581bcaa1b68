//! The cost model: seconds that an operator takes on a target.
//!
//! An operator costs the larger of its operations over peak rate and its bytes over bandwidth, plus one kernel launch.
//! Symbolic extents are valued at a representative size.

mod machine;
mod measured;
mod operation;

pub use machine::{CacheLevel, Machine};
pub use measured::{Bandwidth, MeasuredError, MeasuredMachine, Rate};
pub use operation::{is_view, scalar_work, seconds};

use std::collections::BTreeMap;

use tcc_ir::dim::{Dim, Range, Symbol};
use tcc_ir::module::Function;

/// What a symbol counts as when its range says nothing better.
const REPRESENTATIVE: i64 = 64;

/// The least extent that an expression of representative sizes stands for.
const LEAST_DERIVED: i64 = 4;

/// Representative values of a function's symbols.
pub struct Sizes {
    ranges: BTreeMap<Symbol, Range>,
}

impl Sizes {
    /// Sizes from the ranges that a function declares.
    pub fn of(function: &Function) -> Sizes {
        Sizes { ranges: function.symbols.clone() }
    }

    /// A size for a symbol: its lower bound for batch-like names, else a middling one inside its range.
    pub fn symbol(&self, symbol: &Symbol) -> i64 {
        let range = self.ranges.get(symbol).copied().unwrap_or_default();
        let name = symbol.name().to_ascii_lowercase();
        let wanted = if name == "n" || name.contains("batch") { 1 } else { REPRESENTATIVE };
        wanted.clamp(range.low.min(range.high), range.high)
    }

    /// The value of a dimension at the representative sizes; at least 0.
    pub fn value(&self, dim: &Dim) -> f64 {
        // An extent that follows from others and nearly vanishes says that the sizes are too small for this model, not that
        // its work is.
        let least = if dim.as_const().is_some() || dim.as_symbol().is_some() { 0 } else { LEAST_DERIVED };
        dim.evaluate(&|symbol| Some(self.symbol(symbol)))
            .map_or(REPRESENTATIVE as f64, |value| value.max(least) as f64)
    }

    /// Number of elements of a shape.
    pub fn count(&self, shape: &[Dim]) -> f64 {
        shape.iter().map(|dim| self.value(dim)).product()
    }
}
