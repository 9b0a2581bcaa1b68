//! ONNX `Det`: determinants of the matrices in the last two dimensions, by elimination with partial pivoting in double
//! precision.

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::error::Result;

type Run = fn(&mut HostCall<'_>) -> Result<()>;

struct Determinant {
    run: Run,
}

pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &[])?;
    let input = signature.input(0)?;
    let rank = input.rank.checked_sub(2).ok_or_else(|| format!("the input has rank {}", input.rank))?;
    signature.expect_output(0, input.dtype, Some(rank))?;
    Ok(Box::new(Determinant { run: for_dtype!(input.dtype, run as Run)? }))
}

impl HostFunction for Determinant {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(call)
    }
}

fn run<T: Numeric>(call: &mut HostCall<'_>) -> Result<()> {
    let input = call.input(0)?;
    let elements = call.elements::<T>(&input)?;
    let (batch, matrix) = input.shape().split_at(input.shape().len() - 2);
    let n = matrix[0];
    if matrix[1] != n {
        return Err(call.fail(format!("a matrix is {n} by {}", matrix[1])));
    }
    let results = call.output::<T>(0, batch)?;
    let mut values = std::mem::take(&mut call.scratch().floats);
    for (index, result) in results.iter_mut().enumerate() {
        values.clear();
        values.extend(elements[index * n * n..][..n * n].iter().map(|element| element.to_f64()));
        *result = T::from_f64(eliminate(&mut values, n));
    }
    call.scratch().floats = values;
    Ok(())
}

/// The determinant of a matrix, which is destroyed; that of an empty one is 1.
fn eliminate(matrix: &mut [f64], n: usize) -> f64 {
    let mut determinant = 1.0;
    for column in 0..n {
        let mut pivot = column;
        for row in column + 1..n {
            if matrix[row * n + column].abs() > matrix[pivot * n + column].abs() {
                pivot = row;
            }
        }
        let diagonal = matrix[pivot * n + column];
        if diagonal == 0.0 {
            return 0.0;
        }
        if pivot != column {
            determinant = -determinant;
            (column..n).for_each(|other| matrix.swap(pivot * n + other, column * n + other));
        }
        determinant *= diagonal;
        for row in column + 1..n {
            let factor = matrix[row * n + column] / diagonal;
            for other in column..n {
                matrix[row * n + other] -= factor * matrix[column * n + other];
            }
        }
    }
    determinant
}
