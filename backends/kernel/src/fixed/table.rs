//! Functions that fixed point looks up, with linear interpolation between the entries.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use super::{Exact, Fixed};
use crate::fold;

/// A function as entries over `low ..= high`, two to the power of `shift` a unit. Outside of them the ends continue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Table {
    /// The function.
    pub function: Function,
    /// First argument.
    pub low: i32,
    /// Last argument.
    pub high: i32,
    /// Entries to a unit are two to this power.
    pub shift: u32,
}

impl Table {
    /// The table of a function; none where it has no useful table. That of the logarithm covers one octave.
    pub fn of(function: Function) -> Option<Table> {
        let (low, high) = match function {
            Function::Exp => (-16, 16),
            Function::Sigmoid | Function::Tanh | Function::Erf => (-8, 8),
            Function::Sin | Function::Cos => (-8, 8),
            Function::Log => (1, 2),
            _ => return None,
        };
        Some(Table { function, low, high, shift: 6 })
    }

    /// Number of intervals; there is one more entry.
    pub fn intervals(&self) -> usize {
        ((self.high - self.low).max(0) as usize) << self.shift
    }

    fn value(&self, x: f64) -> f64 {
        let args = [Scalar::float(DType::F64, x)];
        fold::apply(ScalarOp::Call(self.function), &args).map_or(0.0, Scalar::as_f64)
    }

    /// The argument of an entry.
    fn argument(&self, entry: f64) -> f64 {
        f64::from(self.low) + entry / f64::from(1u32 << self.shift)
    }

    /// An entry in the format.
    pub fn entry(&self, number: usize, format: Fixed) -> Exact {
        Exact::nearest(self.value(self.argument(number as f64)), format)
    }

    /// The function of an argument in the format; none where a step needs more bits than the interpreter has.
    pub fn look_up(&self, x: Exact, format: Fixed) -> Option<Exact> {
        let from_start = x.plus(Exact::whole((-self.low).into()))?;
        let scaled = from_start.times(Exact::whole(1 << self.shift))?;
        let number = scaled.floor();
        if number < 0 {
            return Some(self.entry(0, format));
        }
        let intervals = self.intervals();
        let Some(number) = usize::try_from(number).ok().filter(|number| *number < intervals) else {
            return Some(self.entry(intervals, format));
        };
        let rest = scaled.plus(Exact::whole(-(number as i64)))?;
        let (a, b) = (self.entry(number, format), self.entry(number + 1, format));
        Some(a.plus(b.plus(a.negated()?)?.times(rest)?)?.rounded(format))
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
}
