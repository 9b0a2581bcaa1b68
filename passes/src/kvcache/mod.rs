//! Storage of key-value caches: format and layout of each cache, and into how many parts attention splits the context.
//!
//! The alternatives of a cache are its formats times its layouts (token by token, head by head within pages, channels of
//! a vector of tokens side by side); the machine model prices each over the positions and batches that the function may
//! see. What is chosen depends on the shapes of the cache and on the machine, not on the batch of one entry, so that the
//! entries that share a cache agree on it; only the split is the entry's own.

mod price;

use std::collections::{BTreeMap, HashMap};

use tcc_ir::cache::{CacheFormat, CacheStorage, SCALE_GROUP};
use tcc_ir::dim::Dim;
use tcc_ir::module::{Function, Module, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::cost::Machine;
use crate::error::Error;
use price::{Priced, Role, Use};

/// What is asked of caches.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheOptions {
    /// The format of every cache; without it caches stay as exact as they are.
    pub format: Option<CacheFormat>,
}

/// Positions for which alternatives are priced, as far as the function may see so many.
const CONTEXTS: [i64; 2] = [256, 4096];

/// Tokens of a prompt chunk, against which a layout is priced besides single tokens.
const CHUNK: i64 = 256;

/// A function whose batch is no larger than this many tokens generates: few rows, a long context.
const FEW_TOKENS: i64 = 16;

/// Parts of the context that attention may be split into, in positions.
const SPLITS: [i64; 4] = [64, 128, 256, 512];

/// Chooses storage and split for every function.
pub fn run(module: &mut Module, context: &Context) -> Result<(), Error> {
    for function in module.functions.values_mut() {
        let chosen: HashMap<Value, CacheStorage> = choices(function, &context.machine, context.caches)
            .into_iter()
            .flat_map(|choice| {
                let storage = choice.best().storage;
                choice.values.into_iter().map(move |value| (value, storage))
            })
            .collect();
        let splits = splits(function, &context.machine);
        let mut body = std::mem::take(&mut function.body);
        for (index, operation) in body.operations.iter_mut().enumerate() {
            let of = |value: Option<&Value>| value.and_then(|value| chosen.get(value)).copied();
            match &mut operation.operator {
                Operator::KvState { storage, .. } => {
                    *storage = of(operation.results.first()).unwrap_or(*storage);
                }
                Operator::KvAppend { storage } => {
                    *storage = of(operation.operands.first()).unwrap_or(*storage);
                }
                Operator::KvAttend { k_storage, v_storage, split, .. } => {
                    *k_storage = of(operation.operands.get(1)).unwrap_or(*k_storage);
                    *v_storage = of(operation.operands.get(2)).unwrap_or(*v_storage);
                    *split = splits.get(&index).copied().unwrap_or(*split);
                }
                _ => {}
            }
        }
        function.body = body;
    }
    Ok(())
}

/// One line for each kind of cache: what its storage costs, and what the next best layout would.
pub fn explain(module: &Module, machine: &Machine) -> Vec<String> {
    let Some(function) = module.entry() else { return Vec::new() };
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for choice in choices(function, machine, CacheOptions::default()) {
        *lines.entry(choice.line()).or_default() += 1;
    }
    lines.into_iter().map(|(line, count)| format!("{count} x {line}")).collect()
}

/// The alternatives of one cache.
struct Choice {
    /// Every value of the cache.
    values: Vec<Value>,
    role: Role,
    shape: String,
    machine: String,
    /// By price, the least first.
    priced: Vec<Priced>,
}

impl Choice {
    fn best(&self) -> &Priced {
        &self.priced[0]
    }

    fn line(&self) -> String {
        let Priced { storage, seconds, bytes } = self.best();
        let role = match self.role {
            Role::Keys => "keys",
            Role::Values => "values",
        };
        let mut line = format!(
            "{role} {}: {storage}, {bytes} bytes a token, {:.2} us a token of attention on {}",
            self.shape,
            seconds * 1e6,
            self.machine
        );
        if let Some(next) = self.priced.get(1) {
            line += &format!("; next {} at {:.2} us", next.storage, next.seconds * 1e6);
        }
        line
    }
}

/// The choice for each cache of a function.
fn choices(function: &Function, machine: &Machine, options: CacheOptions) -> Vec<Choice> {
    // Values of one cache: the state and what appends make of it.
    let mut caches: Vec<(CacheStorage, Vec<Dim>, Vec<Value>)> = Vec::new();
    let mut cache_of: HashMap<Value, usize> = HashMap::new();
    let mut uses: HashMap<usize, Use> = HashMap::new();
    for operation in &function.body.operations {
        match &operation.operator {
            Operator::KvState { storage, shape, .. } => {
                cache_of.extend(operation.results.iter().map(|result| (*result, caches.len())));
                caches.push((*storage, shape.clone(), operation.results.clone()));
            }
            Operator::KvAppend { .. } => {
                let cache = operation.operands.first().and_then(|value| cache_of.get(value)).copied();
                if let (Some(cache), Some(result)) = (cache, operation.results.first()) {
                    cache_of.insert(*result, cache);
                    caches[cache].2.push(*result);
                }
            }
            Operator::KvAttend { page, .. } => {
                for (operand, role) in [(1, Role::Keys), (2, Role::Values)] {
                    let Some(cache) = operation.operands.get(operand).and_then(|value| cache_of.get(value))
                    else {
                        continue;
                    };
                    let known = uses.get(cache).copied();
                    if let Some(own) = Use::of(function, operation, operand, role, *page) {
                        uses.insert(*cache, known.map_or(own, |known| known.joined(own)));
                    }
                }
            }
            _ => {}
        }
    }
    let mut choices = Vec::new();
    for (index, (storage, shape, values)) in caches.into_iter().enumerate() {
        let Some(usage) = uses.get(&index) else { continue };
        let format = options.format.unwrap_or(storage.format);
        // Whole scale groups only; a format that does not fit leaves the cache as it is.
        let fits = !format.has_scales() || usage.depth % SCALE_GROUP == 0;
        let format = if fits { format } else { storage.format };
        let priced = price::alternatives(machine, usage, format, &contexts(usage));
        let shape: Vec<String> = shape.iter().map(Dim::to_string).collect();
        let (shape, machine) = (format!("[{}]", shape.join(", ")), machine.name.clone());
        choices.push(Choice { values, role: usage.role, shape, machine, priced });
    }
    choices
}

/// The lengths at which a cache is priced: those that its block table reaches, at least the longest of them.
fn contexts(usage: &Use) -> Vec<i64> {
    let longest = usage.longest();
    let mut contexts: Vec<i64> = CONTEXTS.into_iter().filter(|context| *context <= longest).collect();
    if contexts.is_empty() {
        contexts.push(longest.max(1));
    }
    contexts
}

/// The split of each attention by position of the operation: none for many tokens, which are work enough for all cores.
fn splits(function: &Function, machine: &Machine) -> HashMap<usize, usize> {
    let mut splits = HashMap::new();
    for (index, operation) in function.body.operations.iter().enumerate() {
        let Operator::KvAttend { page, .. } = &operation.operator else { continue };
        let Some(usage) = Use::of(function, operation, 1, Role::Keys, *page) else { continue };
        let split = match usage.most_tokens {
            0..=FEW_TOKENS => price::split(machine, &usage, &contexts(&usage), &SPLITS),
            _ => 0,
        };
        splits.insert(index, split as usize);
    }
    splits
}

#[cfg(test)]
mod tests;
