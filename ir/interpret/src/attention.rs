//! Attention and rotary embedding, computed in `f64` and rounded once.

use crate::error::{Error, Result};
use crate::indexing::{Walk, count};
use crate::movement::broadcast;
use crate::tensor::{Contents, Tensor};

/// The attributes of attention.
pub(crate) struct Attention {
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// 0, or the limit of the scaled scores.
    pub softcap: f64,
    /// Whether later keys are hidden.
    pub causal: bool,
    /// 0, or how many keys a query sees at most.
    pub window: usize,
}

/// Scaled dot-product attention; a query that sees no key gives 0.
pub(crate) fn attention(attributes: &Attention, operands: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let (q, k, v) = (operands[0], operands[1], operands[2]);
    let (heads, queries, size) = (q.shape()[1], q.shape()[2], q.shape()[3]);
    let (shared, keys, value_size) = (k.shape()[1], k.shape()[2], v.shape()[3]);
    let batch = shape[0];
    if heads > 0 && (shared == 0 || !heads.is_multiple_of(shared)) {
        return Err(Error::operands(format!("{heads} query heads do not divide into {shared} key heads")));
    }
    let mask = match operands.get(3) {
        Some(mask) => {
            let full = [batch, heads, queries, keys];
            let fits = mask.shape().iter().rev().zip(full.iter().rev()).all(|(a, b)| *a == 1 || a == b);
            if !fits {
                return Err(Error::operands(format!(
                    "the mask {:?} does not broadcast to {full:?}",
                    mask.shape()
                )));
            }
            Some(broadcast(mask, &full)?.to_numbers()?)
        }
        None => None,
    };
    let (q, k, v, dtype) = (q.to_numbers()?, k.to_numbers()?, v.to_numbers()?, q.dtype());
    let mut out = Vec::with_capacity(count(shape));
    for b in 0..batch {
        for head in 0..heads {
            let shared_head = b * shared + head / (heads / shared);
            for query in 0..queries {
                let row = (b * heads + head) * queries + query;
                let q = &q[row * size..(row + 1) * size];
                // The last key that a causal query sees.
                let position = query as i64 + keys as i64 - queries as i64;
                let score = |key: usize| {
                    let age = position - key as i64;
                    if attributes.causal && age < 0
                        || attributes.window > 0 && age >= attributes.window as i64
                    {
                        return f64::NEG_INFINITY;
                    }
                    let k = &k[(shared_head * keys + key) * size..][..size];
                    let mut score = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * attributes.scale;
                    if attributes.softcap != 0.0 {
                        score = attributes.softcap * (score / attributes.softcap).tanh();
                    }
                    score + mask.as_ref().map_or(0.0, |mask| mask[row * keys + key])
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, crate::elementwise::maximum);
                let hidden = largest == f64::NEG_INFINITY;
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for column in 0..value_size {
                    let value = |key: usize| v[(shared_head * keys + key) * value_size + column];
                    let sum: f64 = weights
                        .iter()
                        .enumerate()
                        // A hidden key counts nothing, whatever its value is.
                        .filter(|(_, weight)| **weight != 0.0)
                        .map(|(key, weight)| weight * value(key))
                        .sum();
                    out.push(if hidden { 0.0 } else { sum / total });
                }
            }
        }
    }
    Tensor::new(dtype, shape, Contents::from_numbers(dtype, out.into_iter()))
}

/// Rotary position embedding of the last axis.
pub(crate) fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let shape = x.shape();
    let size = shape[shape.len() - 1];
    let half = size / 2;
    let angles = [&shape[..shape.len() - 1], &[half]].concat();
    let fits = |table: &Tensor| {
        table.shape().len() <= angles.len()
            && table.shape().iter().rev().zip(angles.iter().rev()).all(|(a, b)| *a == 1 || a == b)
    };
    if !size.is_multiple_of(2) || !fits(cos) || !fits(sin) {
        return Err(Error::operands(format!("tables {:?} do not fit {shape:?}", cos.shape())));
    }
    let (values, cosines, sines) = (x.to_numbers()?, cos.to_numbers()?, sin.to_numbers()?);
    let mut out = vec![0.0; values.len()];
    let tables = Walk::broadcast(cos.shape(), &angles).zip(Walk::broadcast(sin.shape(), &angles));
    for (index, (cosine, sine)) in tables.enumerate() {
        let (row, pair) = (index / half, index % half);
        let (first, second) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
        let (first, second) = (row * size + first, row * size + second);
        let (a, b) = (values[first], values[second]);
        out[first] = a * cosines[cosine] - b * sines[sine];
        out[second] = b * cosines[cosine] + a * sines[sine];
    }
    Tensor::new(x.dtype(), shape, Contents::from_numbers(x.dtype(), out.into_iter()))
}
