//! Comparison of a result with its reference, under a stated tolerance, naming the worst element.
//!
//! - Integers, truth values and text must be equal; tolerances are for floating point.
//! - NaN equals NaN, infinities equal only themselves.
//! - Type and shape must agree before any element is looked at.

use std::fmt;

use tcc_ir::convert::{element, texts};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;

use crate::value::Value;

/// How far a floating-point result may be from its reference.
///
/// Element `i` passes if `|found - expected| <= absolute + relative * |expected| + scaled * rms(expected)`, and the tensor
/// if `rms(found - expected) <= absolute + mean * rms(expected)` besides, where `mean` is set.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Tolerance {
    /// Allowed difference whatever the magnitude.
    pub absolute: f64,
    /// Allowed difference over the magnitude of the element.
    pub relative: f64,
    /// Allowed difference over the root mean square of the reference.
    pub scaled: f64,
    /// Allowed root mean square of all differences over that of the reference.
    pub mean: Option<f64>,
}

impl Tolerance {
    /// Bit-equal up to the sign of zero and the payload of NaN.
    pub const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0, scaled: 0.0, mean: None };

    /// What the ONNX backend suite uses for its node cases, and some ten units in the last place of the tensor's magnitude
    /// for elements that are zero but for rounding.
    pub const ONNX_SUITE: Tolerance = Tolerance { absolute: 1e-7, relative: 1e-3, scaled: 1e-6, mean: None };

    /// For whole models: `fraction` of the element plus of the root mean square, and half of it on average. The part
    /// that follows the root mean square serves elements near zero that come out of cancellation.
    pub fn of_model(fraction: f64) -> Tolerance {
        Tolerance { absolute: 1e-7, relative: fraction, scaled: fraction, mean: Some(fraction / 2.0) }
    }

    /// For a chain of `terms` additions and products in `dtype` that may run in any order: the probabilistic bound
    /// of rounding error, the unit roundoff times the square root of the number of terms (Higham and Mary 2019), with a
    /// factor of 8 for the products, the conversions at both ends, and a confidence far above any test run.
    pub fn accumulated(dtype: DType, terms: usize) -> Tolerance {
        let roundoff = unit_roundoff(dtype);
        let bound = 8.0 * roundoff * (terms.max(1) as f64).sqrt();
        Tolerance { absolute: 0.0, relative: bound, scaled: bound, mean: None }
    }
}

/// Half the distance from 1 to the next number of the type; 0 for integers.
pub fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON / 2.0,
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        DType::F8E4M3FN | DType::F8E4M3FNUZ => 2f64.powi(-4),
        DType::F8E5M2 | DType::F8E5M2FNUZ => 2f64.powi(-3),
        DType::F4E2M1FN => 2f64.powi(-2),
        DType::F8E8M0FNU => 0.5,
        _ => 0.0,
    }
}

/// Why two values are not the same.
#[derive(Clone, PartialEq, Debug)]
pub enum Difference {
    /// Another kind, type, shape or number of elements.
    Form {
        /// What the reference is.
        expected: String,
        /// What came.
        found: String,
    },
    /// Elements that differ by more than the tolerance.
    Elements {
        /// How many.
        wrong: usize,
        /// Out of how many.
        count: usize,
        /// Index of the worst element.
        index: Vec<usize>,
        /// Its reference.
        expected: String,
        /// What came instead.
        found: String,
        /// `|found - expected|` over what is allowed there; infinite where one of them is NaN or the type is exact.
        excess: f64,
    },
    /// Every element passes, the tensor as a whole does not.
    Mean {
        /// Root mean square of the differences over that of the reference.
        found: f64,
        /// What is allowed.
        allowed: f64,
    },
    /// A difference inside a sequence.
    Inside {
        /// Position in the sequence.
        position: usize,
        /// The difference there.
        difference: Box<Difference>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Form { expected, found } => write!(f, "expected {expected}, found {found}"),
            Difference::Elements { wrong, count, index, expected, found, excess } => {
                write!(
                    f,
                    "{wrong} of {count} elements differ, worst at {index:?}: expected {expected}, found {found}"
                )?;
                if excess.is_finite() { write!(f, ", {excess:.1} times the tolerance") } else { Ok(()) }
            }
            Difference::Mean { found, allowed } => {
                write!(
                    f,
                    "the differences have a root mean square of {found:.2e} of the reference, allowed are {allowed:.2e}"
                )
            }
            Difference::Inside { position, difference } => {
                write!(f, "element {position} of the sequence: {difference}")
            }
        }
    }
}

/// Compares `found` with `expected`.
///
/// # Errors
/// The [`Difference`], with the worst element.
pub fn compare(expected: &Value, found: &Value, tolerance: &Tolerance) -> Result<(), Difference> {
    let form = || Difference::Form { expected: expected.describe(), found: found.describe() };
    match (expected, found) {
        (Value::Tensor(e), Value::Tensor(f)) => compare_tensors(e, f, tolerance),
        (Value::Sequence(e), Value::Sequence(f)) if e.len() == f.len() => {
            for (position, (e, f)) in e.iter().zip(f).enumerate() {
                compare(e, f, tolerance).map_err(|difference| Difference::Inside {
                    position,
                    difference: Box::new(difference),
                })?;
            }
            Ok(())
        }
        (Value::Absent, Value::Absent) => Ok(()),
        _ => Err(form()),
    }
}

/// Compares two tensors.
///
/// # Errors
/// The [`Difference`], with the worst element.
pub fn compare_tensors(expected: &Data, found: &Data, tolerance: &Tolerance) -> Result<(), Difference> {
    if expected.dtype() != found.dtype() || expected.shape() != found.shape() {
        let describe = |data: &Data| Value::Tensor(data.clone()).describe();
        return Err(Difference::Form { expected: describe(expected), found: describe(found) });
    }
    if expected.dtype() == DType::String {
        return compare_texts(expected, found);
    }
    let float = expected.dtype().is_float();
    let count = expected.count();
    let (mut wrong, mut worst, mut squares, mut finite) = (0, (0, -1.0), 0.0, 0usize);
    let scale = if float { root_mean_square(expected) } else { 0.0 };
    for index in 0..count {
        let (Some(e), Some(f)) = (element(expected, index), element(found, index)) else { continue };
        if e.bits == f.bits {
            finite += 1;
            continue;
        }
        let excess = if float {
            let (e, f) = (e.as_f64(), f.as_f64());
            let difference = (f - e).abs();
            if difference.is_finite() {
                squares += difference * difference;
                finite += 1;
            }
            excess(e, f, tolerance, scale)
        } else {
            f64::INFINITY
        };
        if excess > 1.0 {
            wrong += 1;
            if excess > worst.1 {
                worst = (index, excess);
            }
        }
    }
    if wrong > 0 {
        let text = |data| element(data, worst.0).map(|scalar| scalar.to_string()).unwrap_or_default();
        return Err(Difference::Elements {
            wrong,
            count,
            index: unravel(worst.0, expected.shape()),
            expected: text(expected),
            found: text(found),
            excess: worst.1,
        });
    }
    if let Some(mean) = tolerance.mean {
        let difference = (squares / finite.max(1) as f64).sqrt();
        if difference > tolerance.absolute + mean * scale {
            return Err(Difference::Mean { found: difference / scale, allowed: mean });
        }
    }
    Ok(())
}

fn compare_texts(expected: &Data, found: &Data) -> Result<(), Difference> {
    let (e, f) = (texts(expected).unwrap_or_default(), texts(found).unwrap_or_default());
    let wrong: Vec<usize> = (0..expected.count()).filter(|&index| e.get(index) != f.get(index)).collect();
    let Some(&first) = wrong.first() else { return Ok(()) };
    let text = |texts: &[&str]| texts.get(first).map_or("nothing".to_owned(), |text| format!("{text:?}"));
    Err(Difference::Elements {
        wrong: wrong.len(),
        count: expected.count(),
        index: unravel(first, expected.shape()),
        expected: text(&e),
        found: text(&f),
        excess: f64::INFINITY,
    })
}

/// `|found - expected|` over what the tolerance allows; at most 1 passes.
fn excess(expected: f64, found: f64, tolerance: &Tolerance, scale: f64) -> f64 {
    if expected == found || (expected.is_nan() && found.is_nan()) {
        return 0.0;
    }
    if !expected.is_finite() || !found.is_finite() {
        return f64::INFINITY;
    }
    let allowed = tolerance.absolute + tolerance.relative * expected.abs() + tolerance.scaled * scale;
    (found - expected).abs() / allowed
}

/// Root mean square of the finite elements; 0 where there are none.
pub fn root_mean_square(data: &Data) -> f64 {
    let values = (0..data.count()).filter_map(|index| element(data, index)).map(|scalar| scalar.as_f64());
    let (sum, count) = values
        .filter(|value| value.is_finite())
        .fold((0.0, 0usize), |(sum, count), value| (sum + value * value, count + 1));
    (sum / count.max(1) as f64).sqrt()
}

fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (axis, &dim) in shape.iter().enumerate().rev() {
        index[axis] = flat % dim.max(1);
        flat /= dim.max(1);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> Data {
        Data::from_f32(shape, values).unwrap()
    }

    #[test]
    fn the_worst_element_is_named() {
        let expected = floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let found = floats(&[2, 2], &[1.0, 2.1, 3.0, 5.0]);
        let tolerance = Tolerance { absolute: 0.01, ..Tolerance::EXACT };
        let difference = compare_tensors(&expected, &found, &tolerance).unwrap_err();
        let Difference::Elements { wrong, index, .. } = &difference else { panic!("{difference}") };
        assert_eq!((*wrong, &index[..]), (2, &[1, 1][..]));
        assert!(difference.to_string().contains("100.0 times the tolerance"), "{difference}");
    }

    #[test]
    fn nan_equals_nan_and_infinity_only_itself() {
        let special = floats(&[3], &[f32::NAN, f32::INFINITY, -0.0]);
        assert!(
            compare_tensors(&special, &floats(&[3], &[f32::NAN, f32::INFINITY, 0.0]), &Tolerance::EXACT)
                .is_ok()
        );
        let loose = Tolerance { absolute: 1e30, ..Tolerance::EXACT };
        assert!(compare_tensors(&special, &floats(&[3], &[f32::NAN, f32::MAX, 0.0]), &loose).is_err());
        assert!(compare_tensors(&special, &floats(&[3], &[0.0, f32::INFINITY, 0.0]), &loose).is_err());
    }

    #[test]
    fn integers_are_exact_beyond_the_precision_of_a_float() {
        let expected = Data::from_i64(&[1], &[i64::MAX]).unwrap();
        let loose = Tolerance { absolute: 1e30, ..Tolerance::EXACT };
        assert!(compare_tensors(&expected, &Data::from_i64(&[1], &[i64::MAX - 1]).unwrap(), &loose).is_err());
        assert!(compare_tensors(&expected, &expected.clone(), &loose).is_ok());
    }

    #[test]
    fn texts_are_compared_as_text() {
        let expected = Data::from_texts(&[3], &["a", "bc", ""]).unwrap();
        assert!(compare_tensors(&expected, &expected.clone(), &Tolerance::EXACT).is_ok());
        let found = Data::from_texts(&[3], &["a", "b", "c"]).unwrap();
        let difference = compare_tensors(&expected, &found, &Tolerance::EXACT).unwrap_err().to_string();
        assert!(
            difference.starts_with("2 of 3 elements differ, worst at [1]: expected \"bc\""),
            "{difference}"
        );
    }

    #[test]
    fn type_and_shape_come_first() {
        let expected = floats(&[2], &[1.0, 2.0]);
        for found in [floats(&[2, 1], &[1.0, 2.0]), Data::from_i64(&[2], &[1, 2]).unwrap()] {
            assert!(matches!(
                compare_tensors(&expected, &found, &Tolerance::EXACT),
                Err(Difference::Form { .. })
            ));
        }
    }

    #[test]
    fn small_errors_everywhere_fail_the_mean() {
        let expected = floats(&[64], &[1.0; 64]);
        let tolerance = Tolerance { relative: 0.1, mean: Some(0.01), ..Tolerance::EXACT };
        assert!(matches!(
            compare_tensors(&expected, &floats(&[64], &[1.05; 64]), &tolerance),
            Err(Difference::Mean { .. })
        ));
        let mut one = [1.0; 64];
        one[7] = 1.05;
        assert!(compare_tensors(&expected, &floats(&[64], &one), &tolerance).is_ok());
    }

    #[test]
    fn the_tolerance_follows_type_and_length() {
        let short = Tolerance::accumulated(DType::F32, 1);
        assert!(Tolerance::accumulated(DType::F32, 100).relative > 9.0 * short.relative);
        assert!(Tolerance::accumulated(DType::BF16, 1).relative > 1000.0 * short.relative);
        assert_eq!(Tolerance::accumulated(DType::I32, 1000).relative, 0.0);
    }
}
