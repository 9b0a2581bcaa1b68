//! ONNX `Range`: `start + i * delta` for `max(ceil((limit - start) / delta), 0)` values of i.

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;

type Run = fn(&mut HostCall<'_>) -> Result<()>;

struct Range {
    run: Run,
}

/// Inputs start, limit, delta of one element each; one output of rank 1; all of one type.
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(3..=3, 1..=1, &[])?;
    let dtype = signature.input(0)?.dtype;
    signature.expect_input(1, dtype)?;
    signature.expect_input(2, dtype)?;
    signature.expect_output(0, dtype, Some(1))?;
    // Doubles do not hold all 64-bit integers.
    let run = if dtype == DType::I64 { run_i64 as Run } else { for_dtype!(dtype, run as Run)? };
    Ok(Box::new(Range { run }))
}

impl HostFunction for Range {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(call)
    }
}

fn only<T: Numeric>(call: &HostCall<'_>, index: usize) -> Result<T> {
    let input = call.input(index)?;
    let first = call.elements::<T>(&input)?.first().copied();
    first.ok_or_else(|| call.fail(format!("input {index} is empty")))
}

fn run<T: Numeric>(call: &mut HostCall<'_>) -> Result<()> {
    let (start, limit) = (only::<T>(call, 0)?.to_f64(), only::<T>(call, 1)?.to_f64());
    let delta = only::<T>(call, 2)?.to_f64();
    let count = ((limit - start) / delta).ceil().max(0.0);
    // Also refuses a delta of zero and NaN.
    if !(count.is_finite() && count <= (1u64 << 48) as f64) {
        return Err(call.fail(format!("{start}, {limit}, {delta} have no end")));
    }
    let values = call.output::<T>(0, &[count as usize])?;
    for (index, value) in values.iter_mut().enumerate() {
        *value = T::from_f64(start + index as f64 * delta);
    }
    Ok(())
}

/// As `run` without rounding.
fn run_i64(call: &mut HostCall<'_>) -> Result<()> {
    let [start, limit, delta] = [0, 1, 2].map(|index| only::<i64>(call, index).map(i128::from));
    let (start, limit, delta) = (start?, limit?, delta?);
    if delta == 0 {
        return Err(call.fail("delta is 0"));
    }
    let distance = (limit - start) * delta.signum();
    let step = delta.abs();
    let count = if distance > 0 { (distance + step - 1) / step } else { 0 };
    let Some(count) = usize::try_from(count).ok().filter(|count| *count < 1 << 48) else {
        return Err(call.fail(format!("{start}, {limit}, {delta} give {count} values")));
    };
    let values = call.output::<i64>(0, &[count])?;
    for (index, value) in values.iter_mut().enumerate() {
        *value = (start + index as i128 * delta) as i64;
    }
    Ok(())
}
