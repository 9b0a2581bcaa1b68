//! ONNX TfIdfVectorizer: counts of n-grams.

use std::collections::HashMap;

use tcc_ir::dtype::DType;

use super::call::Call;
use crate::error::Result;
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

/// How often each n-gram of the pool occurs, in words that stand up to `max_skip_count` others apart.
pub(super) fn vectorize(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let (rows, length) = match x.shape() {
        [length] => (1, *length),
        [rows, length] => (*rows, *length),
        other => return call.fail(format!("the operand is [words] or [rows, words], got {other:?}")),
    };
    // Words as text: integers have one spelling each.
    let words: Vec<String> = match x.contents() {
        Contents::Text(values) => values.clone(),
        _ => x.integers()?.iter().map(i64::to_string).collect(),
    };
    let pool = match call.texts("pool_strings")? {
        Some(pool) => pool,
        None => call.integers("pool_int64s")?.unwrap_or_default().iter().map(i64::to_string).collect(),
    };
    let starts = call.integers("ngram_counts")?.unwrap_or_default();
    let columns = call.integers("ngram_indexes")?.unwrap_or_default();
    let weights = call.floats("weights")?;
    let width = columns.iter().max().map_or(0, |last| last.saturating_add(1));
    let width = match usize::try_from(width) {
        Ok(width) if width.saturating_mul(rows) <= call.limit => width,
        _ => return call.fail("the result is above the limit"),
    };
    // Each n-gram with its number in the pool.
    let mut numbers: HashMap<&[String], usize> = HashMap::new();
    let mut number = 0;
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(pool.len() as i64);
        let part =
            usize::try_from(*start).ok().zip(usize::try_from(end).ok()).and_then(|(a, b)| pool.get(a..b));
        let Some(part) = part else { return call.fail("ngram_counts does not fit the pool") };
        for ngram in part.chunks_exact(index + 1) {
            numbers.insert(ngram, number);
            number += 1;
        }
    }
    let (shortest, longest) = (call.count("min_gram_length", 1)?, call.count("max_gram_length", 1)?);
    let skips = call.count("max_skip_count", 0)?.min(length);
    let mode = call.text("mode", "TF")?;
    let mut out = vec![0.0; rows * width];
    for row in 0..rows {
        let words = &words[row * length..(row + 1) * length];
        let mut counts: HashMap<usize, f64> = HashMap::new();
        for skip in 0..=skips {
            for size in shortest.max(1)..=longest.min(length) {
                // Single words have no gaps, so they count once.
                if size == 1 && skip > 0 {
                    continue;
                }
                let reach = (size - 1) * (skip + 1);
                for start in 0..length.saturating_sub(reach) {
                    let ngram: Vec<String> =
                        words[start..=start + reach].iter().step_by(skip + 1).cloned().collect();
                    if let Some(number) = numbers.get(&ngram[..]) {
                        *counts.entry(*number).or_default() += 1.0;
                    }
                }
            }
        }
        for (number, count) in counts {
            let column = columns.get(number).and_then(|column| usize::try_from(*column).ok());
            let Some(column) = column else { return call.fail("ngram_indexes lacks an n-gram") };
            let weight = match &weights {
                Some(weights) => *weights.get(number).ok_or_else(|| call.error("weights lacks an n-gram"))?,
                None => 1.0,
            };
            out[row * width + column] += match mode.as_str() {
                "IDF" => weight,
                "TFIDF" => weight * count,
                _ => count,
            };
        }
    }
    let shape = [&x.shape()[..x.shape().len() - 1], &[width]].concat();
    let contents = Contents::from_numbers(DType::F32, out.into_iter());
    Ok(vec![Value::Tensor(Tensor::new(DType::F32, &shape, contents)?)])
}
