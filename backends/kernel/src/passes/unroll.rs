//! Writes out `Unroll` loops.

use super::Error;
use crate::ir::Kernel;
use crate::simplify::simplify_unrolled;

/// More statements than this would not fit an instruction cache, and take long to compile.
const STATEMENT_LIMIT: usize = 1 << 17;

/// Replaces every `Unroll` loop by copies of its body, one for each value of the counter.
///
/// ```text
/// for i in 0..2 unroll { x[i * 4] = f(i) }   =>   x[0] = f(0); x[4] = f(1)
/// ```
pub fn unroll(kernel: &mut Kernel) -> Result<(), Error> {
    if simplify_unrolled(kernel, STATEMENT_LIMIT) {
        Ok(())
    } else {
        Err(Error::TooLarge { kernel: kernel.name.clone(), limit: STATEMENT_LIMIT })
    }
}
