//! The key-value cache: its contents between runs, appends and attention over pages, computed in `f64`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use half::f16;
use tcc_ir::cache::{CacheFormat, SCALE_GROUP};
use tcc_ir::dim::Symbol;
use tcc_ir::dtype::DType;

use crate::error::{Error, Result};
use crate::indexing::count;
use crate::tensor::{Contents, Tensor};

/// Caches by name, and the symbols that are fixed as long as they exist, such as the number of slots.
#[derive(Debug, Default)]
pub struct State {
    symbols: BTreeMap<Symbol, i64>,
    tensors: RefCell<BTreeMap<String, Tensor>>,
}

impl State {
    /// Caches of zeros whose shapes use these values of symbols.
    pub fn new(symbols: impl IntoIterator<Item = (Symbol, i64)>) -> State {
        State { symbols: symbols.into_iter().collect(), tensors: RefCell::default() }
    }

    /// Copies one part of every cache over another: the outermost axis is cut into `parts` equal parts, such as pages.
    pub fn copy_part(&self, from: usize, to: usize, parts: usize) -> Result<()> {
        for tensor in self.tensors.borrow_mut().values_mut() {
            let Contents::F32(old) = tensor.contents() else {
                return Err(Error::operands("a cache holds f32"));
            };
            let outer = tensor.shape().first().copied().unwrap_or(0);
            if from >= parts || to >= parts || !outer.is_multiple_of(parts) {
                let reason = format!("a cache of {outer} slots has no parts {from} and {to} of {parts}");
                return Err(Error::operands(reason));
            }
            let size = old.len() / parts;
            let mut new = old.clone();
            new.copy_within(from * size..(from + 1) * size, to * size);
            *tensor = Tensor::new(DType::F32, tensor.shape(), Contents::F32(new))?;
        }
        Ok(())
    }

    pub(crate) fn symbols(&self) -> impl Iterator<Item = (&Symbol, i64)> {
        self.symbols.iter().map(|(symbol, value)| (symbol, *value))
    }

    /// The contents of a cache; zeros at first.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if let Some(tensor) = self.tensors.borrow().get(name) {
            return match tensor.shape() == shape {
                true => Ok(tensor.clone()),
                false => Err(Error::operands(format!(
                    "the cache '{name}' has shape {:?}, this function takes {shape:?}",
                    tensor.shape()
                ))),
            };
        }
        Tensor::new(DType::F32, shape, Contents::F32(vec![0.0; count(shape)]))
    }

    pub(crate) fn write(&self, name: &str, tensor: &Tensor) {
        self.tensors.borrow_mut().insert(name.to_string(), tensor.clone());
    }
}

/// The numbers of one token and head as a cache of this format gives them back.
fn stored(row: &[f32], format: CacheFormat) -> Vec<f32> {
    let Some(largest_code) = format.largest_code() else {
        return match format {
            CacheFormat::F16 => row.iter().map(|value| f16::from_f32(*value).to_f32()).collect(),
            _ => row.to_vec(),
        };
    };
    let limit = largest_code as f32;
    let mut out = Vec::with_capacity(row.len());
    for group in row.chunks(SCALE_GROUP as usize) {
        let largest = group.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = f16::from_f32(largest / limit).to_f32();
        out.extend(group.iter().map(|value| match scale {
            0.0 => 0.0,
            scale => (value / scale).round_ties_even().clamp(-limit, limit) * scale,
        }));
    }
    out
}

/// The cache `[slots, heads, d]` with the rows of `x` at `slots`.
pub(crate) fn append(cache: &Tensor, x: &Tensor, slots: &Tensor, format: CacheFormat) -> Result<Tensor> {
    let (heads, depth) = (cache.shape()[1], cache.shape()[2]);
    let Contents::F32(old) = cache.contents() else {
        return Err(Error::operands("a cache holds f32"));
    };
    let mut out = old.clone();
    let x: Vec<f32> = x.to_numbers()?.into_iter().map(|value| value as f32).collect();
    for (row, slot) in slots.integers()?.iter().enumerate() {
        if *slot < 0 {
            continue;
        }
        let place = usize::try_from(*slot).ok().filter(|place| *place < cache.shape()[0]);
        let place = place.ok_or(Error::Index { index: *slot, extent: cache.shape()[0] })?;
        for head in 0..heads {
            let from = (row * heads + head) * depth;
            let to = (place * heads + head) * depth;
            out[to..to + depth].copy_from_slice(&stored(&x[from..from + depth], format));
        }
    }
    Tensor::new(DType::F32, cache.shape(), Contents::F32(out))
}

/// The attributes of attention over a cache.
pub(crate) struct Attend {
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// 0, or the limit of the scaled scores.
    pub softcap: f64,
    /// 0, or how many of the newest positions a token sees.
    pub window: usize,
    /// How many of the first positions it sees besides.
    pub sinks: usize,
    /// Slots of a page.
    pub page: usize,
}

/// Position as index below `extent`.
fn index(value: i64, extent: usize) -> Result<usize> {
    let place = usize::try_from(value).ok().filter(|place| *place < extent);
    place.ok_or(Error::Index { index: value, extent })
}

/// Causal attention of tokens over paged caches.
pub(crate) fn attend(attributes: &Attend, operands: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let (q, k, v, table) = (operands[0], operands[1], operands[2], operands[3]);
    let (rows, positions) = (operands[4].integers()?, operands[5].integers()?);
    let (heads, depth, value_depth) = (q.shape()[1], q.shape()[2], v.shape()[2]);
    let (slots, shared) = (k.shape()[0], k.shape()[1]);
    let (sequences, pages) = (table.shape()[0], table.shape()[1]);
    let (queries, keys, values) = (q.to_numbers()?, k.to_numbers()?, v.to_numbers()?);
    let pages_of = table.integers()?;
    let mut out = Vec::with_capacity(count(shape));
    for (token, (row, position)) in rows.iter().zip(positions).enumerate() {
        let mut seen = Vec::new();
        if *position >= 0 {
            let row = index(*row, sequences)?;
            let position = index(*position, pages * attributes.page)?;
            for t in 0..=position {
                if attributes.window == 0 || position - t < attributes.window || t < attributes.sinks {
                    let page = index(pages_of[row * pages + t / attributes.page], slots)?;
                    seen.push(index((page * attributes.page + t % attributes.page) as i64, slots)?);
                }
            }
        }
        for head in 0..heads {
            let shared_head = head / (heads / shared);
            let q = &queries[(token * heads + head) * depth..][..depth];
            let scores: Vec<f64> = seen
                .iter()
                .map(|slot| {
                    let k = &keys[(slot * shared + shared_head) * depth..][..depth];
                    let score = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * attributes.scale;
                    match attributes.softcap {
                        0.0 => score,
                        cap => cap * (score / cap).tanh(),
                    }
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, crate::elementwise::maximum);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for column in 0..value_depth {
                let value = |slot: usize| values[(slot * shared + shared_head) * value_depth + column];
                let sum: f64 = weights.iter().zip(&seen).map(|(weight, slot)| weight * value(*slot)).sum();
                out.push(if seen.is_empty() { 0.0 } else { sum / total });
            }
        }
    }
    Tensor::new(q.dtype(), shape, Contents::from_numbers(q.dtype(), out.into_iter()))
}
