//! ONNX `Cast` from numbers to strings and back.
//!
//! Numbers become the shortest decimal text that gives them back; what is not finite becomes `NaN`, `INF`, `-INF`.
//! Text becomes the nearest number of a float type, in any spelling of those three; for an integer type it must be an
//! integer, of which the low bits count.

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::DataRef;
use std::fmt::Write;

type Run = fn(&mut HostCall<'_>) -> Result<()>;

struct Cast {
    run: Run,
}

pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &[])?;
    let run = match (signature.input(0)?.dtype, signature.output(0)?.dtype) {
        (DType::String, DType::Bool) | (DType::Bool, DType::String) => {
            return Err("strings are not cast to or from bool".into());
        }
        (DType::String, DType::F32 | DType::F64 | DType::F16 | DType::Bf16) => {
            for_dtype!(signature.output(0)?.dtype, parse_float as Run)?
        }
        (DType::String, to) => for_dtype!(to, parse_integer as Run)?,
        (from, DType::String) => for_dtype!(from, print as Run)?,
        (from, to) => return Err(format!("{from} to {to} is not a cast of strings")),
    };
    Ok(Box::new(Cast { run }))
}

impl HostFunction for Cast {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(call)
    }
}

fn print<T: Numeric>(call: &mut HostCall<'_>) -> Result<()> {
    let input = call.input(0)?;
    let elements = call.elements::<T>(&input)?;
    let target = call.output_strings(0, input.shape())?;
    target.resize_with(elements.len(), String::new);
    for (element, text) in elements.iter().zip(target) {
        text.clear();
        let wide = element.to_f64();
        if wide.is_nan() {
            text.push_str("NaN");
        } else if wide.is_infinite() {
            text.push_str(if wide > 0.0 { "INF" } else { "-INF" });
        } else if write!(text, "{element:?}").is_err() {
            return Err(call.fail("an element cannot be written"));
        }
    }
    Ok(())
}

fn parse<T: Numeric>(call: &mut HostCall<'_>, read: impl Fn(&str) -> Option<T>) -> Result<()> {
    let input = call.input(0)?;
    let DataRef::Strings(texts) = input.data() else { return Err(call.fail("input 0 is not of strings")) };
    for (text, element) in texts.iter().zip(call.output::<T>(0, input.shape())?) {
        *element = read(text.trim()).ok_or_else(|| call.fail(format!("`{text}` is not {}", T::DTYPE)))?;
    }
    Ok(())
}

fn parse_float<T: Numeric>(call: &mut HostCall<'_>) -> Result<()> {
    parse(call, |text| text.parse::<f64>().ok().map(T::from_f64))
}

fn parse_integer<T: Numeric>(call: &mut HostCall<'_>) -> Result<()> {
    parse(call, |text| text.parse::<i128>().ok().map(T::wrap))
}
