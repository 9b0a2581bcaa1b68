//! Products with weights that stay packed, and the rows of integers that they may meet.

use tcc_ir::block_format::{BlockOperands, COARSE_STEP, RowForm, WeightForm};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;

use crate::elementwise::map;
use crate::error::{Error, Result};
use crate::quantize::{self, Groups};
use crate::tensor::{Contents, Tensor};
use crate::{block_format, parallel};

/// Maxima below this quantize to zeros: the largest code over them would overflow.
const LEAST: f32 = 1.0 / (1u128 << 100) as f32;

/// Codes, scales and sums of rows, and fine codes.
pub(crate) fn quantize_rows(
    x: &Tensor,
    group: usize,
    sum: usize,
    rows: RowForm,
    shapes: &[Vec<usize>],
) -> Result<Vec<Tensor>> {
    let limit = rows.largest_code().ok_or_else(|| Error::operands("rows of floats have no codes"))? as f32;
    let values: Vec<f32> = x.to_numbers()?.into_iter().map(|value| value as f32).collect();
    let (mut codes, mut scales, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for run in values.chunks_exact(group) {
        let largest = run.iter().fold(0.0f32, |largest, value| match largest.is_nan() || value.is_nan() {
            true => f32::NAN,
            false => largest.max(value.abs()),
        });
        let scale = largest / limit;
        let inverse = if largest < LEAST { 0.0 } else { limit / largest };
        let own: Vec<i64> = run.iter().map(|value| (value * inverse).round_ties_even() as i64).collect();
        scales.push(scale);
        sums.extend(own.chunks_exact(sum).map(|part| scale * part.iter().sum::<i64>() as f32));
        codes.extend(own);
    }
    let bytes = |codes| Tensor::new(DType::I8, &shapes[0], Contents::Integer(codes));
    let parts = [
        Tensor::new(DType::F32, &shapes[1], Contents::F32(scales))?,
        Tensor::new(DType::F32, &shapes[2], Contents::F32(sums))?,
    ];
    if rows == RowForm::Int8 {
        return Ok([bytes(codes)?].into_iter().chain(parts).collect());
    }
    let coarse: Vec<i64> =
        codes.iter().map(|code| (code + COARSE_STEP / 2).div_euclid(COARSE_STEP)).collect();
    let fine = codes.iter().zip(&coarse).map(|(code, coarse)| code - COARSE_STEP * coarse).collect();
    Ok([bytes(coarse)?].into_iter().chain(parts).chain([bytes(fine)?]).collect())
}

/// The product, mapped by `epilogue`.
pub(crate) fn block_contract(
    form: WeightForm,
    places: &BlockOperands,
    epilogue: &ScalarExpr,
    operands: &[&Tensor],
    shape: &[usize],
) -> Result<Tensor> {
    let depth = operands[0].shape().last().copied().unwrap_or(1);
    let mut x = operands[0].to_numbers()?;
    if places.activations.len() > 1 {
        if let Some(fine) = places.activations.clone().nth(3) {
            let fine = operands[fine].to_numbers()?;
            x.iter_mut().zip(fine).for_each(|(code, fine)| *code = *code * COARSE_STEP as f64 + fine);
        }
        let scales = operands[1].to_numbers()?;
        let group = depth / operands[1].shape().last().copied().unwrap_or(1).max(1);
        x.iter_mut().enumerate().for_each(|(index, code)| *code *= scales[index / group]);
    }
    let w = operands[places.weights.start];
    let weights = match form {
        WeightForm::Blocks(format) => {
            let mut decoded = w.shape().to_vec();
            if let Some(last) = decoded.last_mut() {
                *last = depth;
            }
            block_format::decode(w, format, DType::F32, &decoded)?
        }
        WeightForm::Affine { block } => {
            let (scale, zero) = (operands[places.weights.start + 1], operands[places.weights.start + 2]);
            quantize::dequantize(w, scale, zero, Groups { axis: w.shape().len() - 1, block }, DType::F32)?
        }
    };
    let weights = weights.to_numbers()?;
    let columns = shape.last().copied().unwrap_or(1);
    let matrix = columns * depth;
    let experts: Vec<usize> = match places.experts {
        Some(place) => {
            let count = w.shape()[0];
            let expert = |index: &i64| usize::try_from(*index).ok().filter(|index| *index < count);
            let found: Option<Vec<usize>> = operands[place].integers()?.iter().map(expert).collect();
            found.ok_or_else(|| Error::operands(format!("an expert is none of {count}")))?
        }
        None => Vec::new(),
    };
    let mut sums = vec![0.0f32; shape.iter().product()];
    parallel::rows(&mut sums, columns, |row, line| {
        let factors = &x[row * depth..(row + 1) * depth];
        let own = &weights[experts.get(row).map_or(0, |expert| expert * matrix)..][..matrix];
        for (column, sum) in line.iter_mut().enumerate() {
            let products = factors.iter().zip(&own[column * depth..]).map(|(a, b)| a * b);
            *sum = products.sum::<f64>() as f32;
        }
    });
    let sums = Tensor::new(DType::F32, shape, Contents::F32(sums))?;
    map(epilogue, &[&[&sums], &operands[places.rest..]].concat(), shape)
}
