//! Compiled results against the reference interpreter.

use tcc_interpret::{Interpreter, Tensor, Value};
use tcc_ir::convert::element;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;

use crate::error::Error;
use crate::inputs::Inputs;

/// How far a compiled tensor is from the reference.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// Name of the output.
    pub name: String,
    /// Largest distance over the tolerance; up to 1 is a match.
    pub worst: f64,
    /// Row-major index of that element.
    pub index: usize,
    /// The compiled value there.
    pub compiled: f64,
    /// The reference value there.
    pub reference: f64,
}

/// Tolerance for an element type as (relative to the element, relative to the largest magnitude of the tensor).
///
/// A sum of k products in the accumulator's precision u is off by at most about sqrt(k) u of the magnitude of its terms
/// in the mean; deep models repeat this a few hundred times. With k = 2^12 and 2^8 layers that is 2^10 u, and terms have
/// the magnitude of the tensor, not of the element.
fn tolerance(dtype: DType) -> (f64, f64) {
    let unit = match dtype {
        DType::F64 => f64::EPSILON / 2.0,
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        dtype if dtype.is_float() => 2f64.powi(-3),
        _ => return (0.0, 0.0),
    };
    // Narrow types round once at the end of an f32 computation.
    let growth = if dtype.bits() >= 32 { 1024.0 } else { 2.0 };
    (unit * growth, unit * growth)
}

/// The outputs of the reference interpreter.
pub fn reference(module: &Module, inputs: &Inputs) -> Result<Vec<Data>, Error> {
    let function = module.entry().ok_or_else(|| Error::Ir("the module has no function".into()))?;
    let mut values = Vec::new();
    for name in &function.input_names {
        let data = inputs
            .get(name)
            .ok_or_else(|| Error::Input { name: name.clone(), reason: "is missing".into() })?;
        values.push(Value::Tensor(Tensor::from(data)));
    }
    let outputs = Interpreter::new(module).run(values)?;
    outputs.iter().map(|value| Ok(value.as_tensor()?.to_data()?)).collect()
}

/// Compares a compiled tensor with its reference.
pub fn compare(name: &str, compiled: &Data, reference: &Data) -> Result<Difference, Error> {
    if (compiled.dtype(), compiled.shape()) != (reference.dtype(), reference.shape()) {
        return Err(Error::Mismatch(format!(
            "output '{name}': compiled {:?} of {}, reference {:?} of {}",
            compiled.shape(),
            compiled.dtype(),
            reference.shape(),
            reference.dtype()
        )));
    }
    let mut difference =
        Difference { name: name.to_string(), worst: 0.0, index: 0, compiled: 0.0, reference: 0.0 };
    if compiled.dtype() == DType::String {
        difference.worst = if compiled.bytes() == reference.bytes() { 0.0 } else { f64::INFINITY };
        return Ok(difference);
    }
    let (relative, to_largest) = tolerance(compiled.dtype());
    let number = |data: &Data, index: usize| element(data, index).map_or(f64::NAN, |scalar| scalar.as_f64());
    let count = compiled.count();
    let largest = (0..count)
        .map(|index| number(reference, index).abs())
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    for index in 0..count {
        let (a, b) = (number(compiled, index), number(reference, index));
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let allowed = relative * b.abs() + to_largest * largest;
        let distance = (a - b).abs();
        let share = if distance.is_nan() || allowed == 0.0 { f64::INFINITY } else { distance / allowed };
        if share > difference.worst {
            difference = Difference { worst: share, index, compiled: a, reference: b, ..difference };
        }
    }
    Ok(difference)
}
