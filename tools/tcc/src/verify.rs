//! Compiled results against the reference interpreter.

use tcc_interpret::{Interpreter, Tensor, Value};
use tcc_ir::convert::{element, push_scalar};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::module::{Module, Region};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar};
use tcc_ir::types::Type;

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

/// Relative size of the changes that [`perturbed`] makes: 256 roundings of an `f32` sum, each at most 2^-24 of it and as
/// often up as down, move it by 2^-20 in the mean.
const PERTURBATION: f64 = 1.0 / (1u64 << 20) as f64;

/// The module with every floating-point constant, and the result of every sum, moved by a relative 2^-20, up or down.
///
/// Its results show how far rounding alone can move the model's: where values are rounded to integers, a tie that falls
/// the other way is a whole step, and the steps of many layers add up; and where a variance is a difference of two large
/// sums, what is left of it is their rounding.
pub fn perturbed(module: &Module) -> Result<Module, Error> {
    let mut moved = module.clone();
    let mut signs = Signs(1);
    for function in moved.functions.values_mut() {
        perturb(&mut function.body, &function.types, &mut signs)?;
    }
    Ok(moved)
}

/// A sequence of 1 + 2^-20 and 1 - 2^-20 (a linear congruential generator with Knuth's constants).
struct Signs(u64);

impl Signs {
    fn factor(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if self.0 >> 63 == 0 { 1.0 + PERTURBATION } else { 1.0 - PERTURBATION }
    }
}

fn perturb(region: &mut Region, types: &[Type], signs: &mut Signs) -> Result<(), Error> {
    let is_wide = |dtype: DType| matches!(dtype, DType::F32 | DType::F64);
    for operation in &mut region.operations {
        let result = operation.results.first().and_then(|result| types.get(result.index()));
        let dtype = result.and_then(Type::as_tensor).map(|tensor| tensor.dtype());
        match &mut operation.operator {
            Operator::Constant { data } if is_wide(data.dtype()) => {
                let mut bytes = Vec::with_capacity(data.bytes().len());
                for index in 0..data.count() {
                    let value = element(data, index).map_or(0.0, |scalar| scalar.as_f64());
                    push_scalar(Scalar::float(data.dtype(), value * signs.factor()), &mut bytes);
                }
                *data = Data::new(data.dtype(), data.shape(), bytes.into())
                    .map_err(|error| Error::Ir(error.to_string()))?;
            }
            Operator::Reduce { epilogue, .. }
            | Operator::Contract { epilogue, .. }
            | Operator::Convolve { epilogue, .. }
            | Operator::ConvolveTranspose { epilogue, .. } => {
                if let Some(dtype) = dtype.filter(|dtype| is_wide(*dtype)) {
                    let factor = Arg::Const(Scalar::float(dtype, signs.factor()));
                    epilogue.result = epilogue.apply(Function::Mul, &[epilogue.result, factor]);
                }
            }
            _ => {}
        }
        operation.regions.iter_mut().try_for_each(|region| perturb(region, types, signs))?;
    }
    Ok(())
}

/// Root mean square of the difference of two tensors of one shape; `None` where the shapes or types differ.
pub fn root_mean_square(a: &Data, b: &Data) -> Option<f64> {
    if (a.dtype(), a.shape()) != (b.dtype(), b.shape()) || a.dtype() == DType::String {
        return None;
    }
    let number = |data: &Data, index: usize| element(data, index).map_or(f64::NAN, |scalar| scalar.as_f64());
    let squares: f64 = (0..a.count())
        .map(|index| (number(a, index), number(b, index)))
        .filter(|(x, y)| x != y && !(x.is_nan() && y.is_nan()))
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    Some((squares / a.count().max(1) as f64).sqrt())
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
