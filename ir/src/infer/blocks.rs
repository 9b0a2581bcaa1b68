//! Shapes of operators on block-quantized weights.

use super::{Matcher, Result, fail, tensor};
use crate::block_format::{BlockFormat, BlockOperands, RowForm, WeightForm};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::types::{TensorType, Type};

/// Rows of bytes as rows of numbers.
pub(super) fn decode_blocks(x: &TensorType, format: BlockFormat, dtype: DType) -> Result<Vec<Dim>> {
    if x.dtype() != DType::U8 || !dtype.is_float() {
        return fail(format!("decode_blocks takes ui8 to floating point, got {x} to {dtype}"));
    }
    let row = x.shape.last().and_then(Dim::as_const).and_then(|row| usize::try_from(row).ok());
    let Some(elements) = row.and_then(|row| format.row_elements(row)) else {
        return fail(format!(
            "rows of {x} are no whole number of {} blocks of {} bytes",
            format.text(),
            format.bytes()
        ));
    };
    let rows = x.shape[..x.rank() - 1].iter().cloned();
    Ok(rows.chain([Dim::from(elements)]).collect())
}

/// The constant last extent of a tensor.
fn depth(x: &TensorType) -> Result<usize> {
    match x.shape.last().and_then(Dim::as_const).and_then(|depth| usize::try_from(depth).ok()) {
        Some(depth) => Ok(depth),
        None => fail(format!("the last axis of {x} has no known extent")),
    }
}

/// `x` with another last extent.
fn with_last(x: &TensorType, last: usize) -> Vec<Dim> {
    x.shape[..x.rank() - 1].iter().cloned().chain([Dim::from(last)]).collect()
}

pub(super) fn quantize_rows(x: &TensorType, group: usize, sum: usize, rows: RowForm) -> Result<Vec<Type>> {
    let depth = depth(x)?;
    if !x.dtype().is_float()
        || group == 0
        || sum == 0
        || !depth.is_multiple_of(group)
        || !group.is_multiple_of(sum)
    {
        return fail(format!("quantize_rows: {x} has no whole runs of {group} floats, or these of {sum}"));
    }
    let codes = Type::tensor(DType::I8, x.shape.clone());
    let mut results = vec![
        codes.clone(),
        Type::tensor(DType::F32, with_last(x, depth / group)),
        Type::tensor(DType::F32, with_last(x, depth / sum)),
    ];
    match rows {
        RowForm::Float => return fail("quantize_rows makes integers: int8 or int16"),
        RowForm::Int8 => {}
        RowForm::Int16 => results.push(codes),
    }
    Ok(results)
}

/// The shape of the result, from all operands in their places.
pub(super) fn block_contract(
    matcher: &mut Matcher,
    operands: &[&Type],
    form: WeightForm,
    places: &BlockOperands,
) -> Result<Vec<Dim>> {
    let x = tensor(operands, 0)?;
    let depth = depth(x)?;
    if places.activations.len() > 1 {
        for codes in std::iter::once(0).chain(places.activations.clone().skip(3)) {
            let codes = tensor(operands, codes)?;
            if codes.dtype() != DType::I8 || codes.shape != x.shape {
                return fail(format!(
                    "block_contract: codes of activations are i8, as many in all parts, got {codes}"
                ));
            }
        }
        for part in [tensor(operands, 1)?, tensor(operands, 2)?] {
            let runs = self::depth(part)?;
            let whole = if runs == 0 { depth == 0 } else { depth.is_multiple_of(runs) };
            if part.dtype() != DType::F32 || !whole || part.rank() != x.rank() {
                return fail(format!("block_contract: {part} holds no scales or sums of {x}"));
            }
        }
    } else if !x.dtype().is_float() {
        return fail(format!("block_contract: activations are floats, got {x}"));
    }
    let w = tensor(operands, places.weights.start)?;
    let lead = usize::from(places.experts.is_some());
    if w.rank() != 2 + lead {
        return fail(format!("block_contract: weights have {} axes, got {w}", 2 + lead));
    }
    let weights = match form {
        WeightForm::Blocks(format) => decode_blocks(w, format, DType::F32)?,
        WeightForm::Affine { block } => {
            if block == 0 || !depth.is_multiple_of(block) || !w.dtype().is_integer() || w.dtype().bits() > 8 {
                return fail(format!("block_contract: {w} holds no codes in whole blocks of {block}"));
            }
            for index in 1..3 {
                let part = tensor(operands, places.weights.start + index)?;
                let fits = part.rank() == w.rank() && self::depth(part)? == depth / block;
                if !fits || (index == 1) != part.dtype().is_float() {
                    return fail(format!("block_contract: {part} does not fit blocks of {block} of {w}"));
                }
                matcher.same(&w.shape[lead], &part.shape[lead], "block_contract: rows of weights")?;
            }
            w.shape.clone()
        }
    };
    matcher.same(&x.shape[x.rank() - 1], &weights[weights.len() - 1], "block_contract: summed axis")?;
    if let Some(experts) = places.experts {
        let index = tensor(operands, experts)?;
        if index.dtype() != DType::I64 {
            return fail(format!("block_contract: experts are i64, got {index}"));
        }
        matcher.same(&index.count(), &Dim::product(&x.shape[..x.rank() - 1]), "block_contract: experts")?;
    }
    Ok(x.shape[..x.rank() - 1].iter().cloned().chain([weights[lead].clone()]).collect())
}
