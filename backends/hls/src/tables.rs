//! Tables of functions that fixed-point designs look up, with linear interpolation between the entries.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_kernel::fold;

use crate::numbers::Fixed;

/// A function that fixed point takes from a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Table {
    /// The function.
    pub function: Function,
    /// First argument; the range ends at its opposite.
    pub low: i32,
    /// Entries to a unit are two to this power.
    pub shift: u32,
}

impl Table {
    /// The table of a function; none where it has no useful table.
    pub fn of(function: Function) -> Option<Table> {
        let low = match function {
            Function::Exp => -16,
            Function::Sigmoid | Function::Tanh | Function::Erf => -8,
            Function::Sin | Function::Cos => -8,
            _ => return None,
        };
        Some(Table { function, low, shift: 6 })
    }

    /// Number of intervals; there is one more entry.
    pub fn intervals(&self) -> usize {
        (2 * self.low.unsigned_abs() as usize) << self.shift
    }

    /// Name of the array.
    pub fn name(&self) -> String {
        format!("{}_table", self.function.text())
    }

    fn value(&self, x: f64) -> f64 {
        let args = [Scalar::float(DType::F64, x)];
        fold::apply(ScalarOp::Call(self.function), &args).map_or(0.0, Scalar::as_f64)
    }

    /// The argument of an entry.
    fn argument(&self, entry: f64) -> f64 {
        f64::from(self.low) + entry / f64::from(1u32 << self.shift)
    }

    /// The entries, limited to the format.
    pub fn entries(&self, format: Fixed) -> Vec<f64> {
        let (low, high) = format.range();
        (0..=self.intervals()).map(|entry| self.value(self.argument(entry as f64)).clamp(low, high)).collect()
    }

    /// Largest difference between the interpolated and the exact function over arguments and results in the range of the
    /// format, absolute and relative to the larger of 1 and the result; rounding to the format comes on top.
    pub fn error(&self, format: Fixed) -> f64 {
        let (_, high) = format.range();
        let mut worst = 0.0f64;
        for entry in 0..self.intervals() {
            let (a, b) =
                (self.value(self.argument(entry as f64)), self.value(self.argument(entry as f64 + 1.0)));
            let exact = self.value(self.argument(entry as f64 + 0.5));
            if b <= high {
                worst = worst.max(((a + b) / 2.0 - exact).abs() / exact.abs().max(1.0));
            }
        }
        worst
    }

    /// The C++ definition.
    pub fn definition(&self, format: Fixed) -> String {
        let entries: Vec<String> = self.entries(format).iter().map(|value| format!("{value:?}")).collect();
        format!(
            "// {} over {} to {}, {} entries a unit; interpolation error at most {:.1e}, relative above 1.\n\
             static const sum_t {}[{}] = {{\n{}\n}};\n",
            self.function.text(),
            self.low,
            -self.low,
            1 << self.shift,
            self.error(format),
            self.name(),
            self.intervals() + 1,
            rows(&entries),
        )
    }
}

/// Comma-separated numbers, several to a line.
pub fn rows(numbers: &[String]) -> String {
    numbers.chunks(8).map(|row| format!("  {}", row.join(", "))).collect::<Vec<_>>().join(",\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolation_is_accurate() {
        let format = Fixed { width: 40, integer: 20 };
        for function in [Function::Exp, Function::Sigmoid, Function::Tanh, Function::Erf] {
            let table = Table::of(function).unwrap();
            assert!(table.error(format) < 1e-4, "{function:?}: {}", table.error(format));
        }
        assert_eq!(Table::of(Function::Pow), None);
    }
}
