//! ONNX `Compress`: the slices along `axis` whose condition is true; without `axis`, of the flattened tensor. A
//! condition shorter than the axis selects nothing of the rest.

use super::numeric::Lanes;
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Shape;

struct Compress {
    axis: Option<usize>,
}

pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(2..=2, 1..=1, &["axis"])?;
    signature.expect_input(1, DType::Bool)?;
    let input = signature.input(0)?;
    if input.dtype == DType::String || input.dtype.bits() % 8 != 0 {
        return Err(format!("element type {} is not supported", input.dtype));
    }
    let axis = if signature.has("axis") { Some(signature.axis("axis", 0, input.rank)?) } else { None };
    let rank = if axis.is_some() { input.rank } else { 1 };
    signature.expect_output(0, input.dtype, Some(rank))?;
    Ok(Box::new(Compress { axis }))
}

impl HostFunction for Compress {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let (input, condition) = (call.input(0)?, call.input(1)?);
        let source = call.bytes(&input)?;
        let condition = call.elements::<u8>(&condition)?;
        let size = (input.dtype().bits() / 8) as usize;
        let (lanes, mut shape) = match self.axis {
            Some(axis) => {
                (Lanes::new(input.shape(), axis), Shape::new(input.shape()).unwrap_or(Shape::SCALAR))
            }
            None => {
                let length = source.len() / size;
                (Lanes { outer: 1, length, inner: 1 }, Shape::new(&[length]).unwrap_or(Shape::SCALAR))
            }
        };
        let chosen = || condition.iter().take(lanes.length).enumerate().filter(|(_, chosen)| **chosen != 0);
        shape[self.axis.unwrap_or(0)] = chosen().count();
        let target = call.output_bytes(0, &shape)?;
        let run = lanes.inner * size;
        if run == 0 {
            return Ok(());
        }
        let mut slots = target.chunks_exact_mut(run);
        for outer in 0..lanes.outer {
            for ((position, _), slot) in chosen().zip(&mut slots) {
                let start = lanes.at(outer, position, 0) * size;
                slot.copy_from_slice(&source[start..start + run]);
            }
        }
        Ok(())
    }
}
