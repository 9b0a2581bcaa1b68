//! ONNX `NonZero`: positions of the elements that are not zero, `[rank, count]` in row-major order; `[0, count]` for a
//! scalar, unlike NumPy.

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;

type Run = fn(&mut HostCall<'_>) -> Result<()>;

struct NonZero {
    run: Run,
}

pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &[])?;
    signature.expect_output(0, DType::I64, Some(2))?;
    Ok(Box::new(NonZero { run: for_dtype!(signature.input(0)?.dtype, run as Run)? }))
}

impl HostFunction for NonZero {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(call)
    }
}

fn run<T: Numeric>(call: &mut HostCall<'_>) -> Result<()> {
    let input = call.input(0)?;
    let elements = call.elements::<T>(&input)?;
    let shape = input.shape();
    let count = elements.iter().filter(|element| element.is_nonzero()).count();
    let positions = call.output::<i64>(0, &[shape.len(), count])?;
    let nonzero = elements.iter().enumerate().filter(|(_, element)| element.is_nonzero());
    for (column, (mut position, _)) in nonzero.enumerate() {
        for (axis, &dim) in shape.iter().enumerate().rev() {
            positions[axis * count + column] = (position % dim) as i64;
            position /= dim;
        }
    }
    Ok(())
}
