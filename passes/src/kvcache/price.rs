//! What attention over a cache costs with each storage.

use tcc_ir::cache::{CacheFormat, CacheOrder, CacheStorage};
use tcc_ir::dim::Dim;
use tcc_ir::module::{Function, Operation};
use tcc_ir::types::TensorType;

use super::CHUNK;
use crate::cost::Machine;

/// Bytes that memory moves at once.
const LINE: f64 = 64.0;

/// Query rows of a tile; a block of the cache is unpacked once for each.
const TILE_ROWS: f64 = 48.0;

/// Handing a part of the domain to a thread.
const TASK_SECONDS: f64 = 2e-7;

/// What a cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Keys,
    Values,
}

/// How attention uses a cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub role: Role,
    /// Heads of the cache.
    heads: i64,
    /// Query heads of a cache head.
    group: i64,
    /// Channels of a row.
    pub depth: i64,
    page: i64,
    window: i64,
    /// Tokens of a run, at most.
    pub most_tokens: i64,
    /// Pages of a sequence, at most.
    most_pages: i64,
}

impl Use {
    /// The use that an attention makes of one of its caches; `None` where shapes are not known.
    pub fn of(
        function: &Function,
        attend: &Operation,
        operand: usize,
        role: Role,
        page: usize,
    ) -> Option<Use> {
        let tensor = |index: usize| -> Option<&TensorType> {
            function.type_of(*attend.operands.get(index)?).as_tensor()
        };
        let (q, cache, table) = (tensor(0)?, tensor(operand)?, tensor(3)?);
        let most = |dim: &Dim| match dim.as_symbol() {
            Some(symbol) => function.range_of(symbol).high,
            None => dim.as_const().unwrap_or(i64::MAX),
        };
        let heads = cache.shape.get(1)?.as_const()?.max(1);
        let tcc_ir::operator::Operator::KvAttend { window, .. } = &attend.operator else { return None };
        Some(Use {
            role,
            heads,
            group: (q.shape.get(1)?.as_const()? / heads).max(1),
            depth: cache.shape.get(2)?.as_const()?,
            page: page as i64,
            window: *window as i64,
            most_tokens: most(q.shape.first()?),
            most_pages: most(table.shape.get(1)?),
        })
    }

    /// One use that stands for both: the larger of each.
    pub fn joined(self, other: Use) -> Use {
        Use {
            most_tokens: self.most_tokens.max(other.most_tokens),
            most_pages: self.most_pages.max(other.most_pages),
            window: if self.window == 0 || other.window == 0 { 0 } else { self.window.max(other.window) },
            ..self
        }
    }

    /// Positions of a sequence, at most.
    pub fn longest(&self) -> i64 {
        self.most_pages.saturating_mul(self.page)
    }

    /// Positions that a token sees of so many.
    fn seen(&self, context: i64) -> f64 {
        match self.window {
            0 => context as f64,
            window => context.min(window) as f64,
        }
    }
}

/// A storage and its price.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Priced {
    pub storage: CacheStorage,
    /// Of one token of a chunk and one single token together, over all heads.
    pub seconds: f64,
    /// Of one token, over all heads.
    pub bytes: i64,
}

/// Every layout of a format by price, the least first; equal prices in the order of the list.
pub(super) fn alternatives(
    machine: &Machine,
    usage: &Use,
    format: CacheFormat,
    contexts: &[i64],
) -> Vec<Priced> {
    let lanes = lanes(machine);
    let layouts = [
        (CacheOrder::Rows, 1),
        (CacheOrder::Rows, usage.page),
        (CacheOrder::Columns, lanes),
        (CacheOrder::Columns, usage.page),
    ];
    let mut priced: Vec<Priced> = Vec::new();
    for (order, block) in layouts {
        let storage = CacheStorage { format, order, block: block.max(1) as usize };
        let known = priced.iter().any(|other| other.storage == storage);
        // A page is copied as a whole, so blocks divide it; columns of one token are rows.
        if known || usage.page % block.max(1) != 0 || (order == CacheOrder::Columns && block == 1) {
            continue;
        }
        let seconds = contexts.iter().map(|context| seconds(machine, usage, &storage, *context)).sum::<f64>();
        let seconds = seconds / contexts.len().max(1) as f64;
        priced.push(Priced { storage, seconds, bytes: usage.heads * row_bytes(usage, format) });
    }
    priced.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    priced
}

fn lanes(machine: &Machine) -> i64 {
    (machine.vector_bytes / 4).max(1) as i64
}

fn row_bytes(usage: &Use, format: CacheFormat) -> i64 {
    format.row_bytes(&Dim::Const(usage.depth)).as_const().unwrap_or(usage.depth * 4)
}

/// True where kernels read the cache where it is instead of unpacking it.
fn is_direct(usage: &Use, storage: &CacheStorage, lanes: i64) -> bool {
    let whole = |extent: i64| extent % lanes == 0;
    let aligned = whole(usage.page) && !storage.format.has_scales();
    match (usage.role, storage.order) {
        (Role::Keys, CacheOrder::Columns) => aligned && whole(storage.block as i64),
        (Role::Values, CacheOrder::Rows) => aligned && (storage.block == 1 || whole(storage.block as i64)),
        _ => false,
    }
}

/// Seconds of one single token and of one token of a chunk, appends included, at a context.
fn seconds(machine: &Machine, usage: &Use, storage: &CacheStorage, context: i64) -> f64 {
    let lanes = lanes(machine) as f64;
    let (heads, depth) = (usage.heads as f64, usage.depth as f64);
    let elements = usage.seen(context) * heads * depth;
    let row = row_bytes(usage, storage.format) as f64;
    // A head's rows of a block come in one run, which wastes part of a line at its ends.
    let run = storage.block as f64 * row;
    let bytes = usage.seen(context) * heads * row * (run + LINE / 2.0) / run;
    let simple = |operations: f64| machine.seconds_at(operations, machine.elementwise_gigaops);
    // Vector operations of an element: conversion, and for codes the shift, offset and scale.
    let convert = match storage.format {
        CacheFormat::F32 => 0.0,
        CacheFormat::F16 => 1.0,
        CacheFormat::I8 => 2.0,
        CacheFormat::I4 => 4.0,
    };
    let unpack = match (usage.role, storage.order) {
        _ if is_direct(usage, storage, lanes as i64) => 0.0,
        // Turning rows into columns stores single elements.
        (Role::Keys, CacheOrder::Rows) | (Role::Values, CacheOrder::Columns) => convert + lanes,
        _ => convert + 2.0,
    };
    let products = machine.seconds_at(2.0 * elements * usage.group as f64, machine.f32_gigaflops);
    let pass = |rows: f64| {
        let converted = if unpack == 0.0 { convert * (rows / 6.0).ceil() } else { unpack };
        simple(elements * converted) + products * rows / usage.group as f64
    };
    let single = pass(usage.group as f64).max(machine.seconds_to_move(bytes));
    let tile = (TILE_ROWS / usage.group as f64).max(1.0);
    let chunk = pass(tile * usage.group as f64).max(machine.seconds_to_move(bytes)) / tile.min(CHUNK as f64);
    let append = match storage.order {
        CacheOrder::Rows => simple(heads * depth * (1.0 + convert)),
        CacheOrder::Columns => simple(heads * depth * (lanes + convert)),
    };
    single + chunk + append
}

/// The split that takes the least time for one token, over the contexts: parts keep all cores busy, and cost their
/// combination.
pub(super) fn split(machine: &Machine, usage: &Use, contexts: &[i64], splits: &[i64]) -> i64 {
    let cores = machine.cores.max(1) as f64;
    let of_part = |positions: f64| {
        let bytes = 2.0 * positions * usage.depth as f64 * 2.0;
        let moved = bytes / (machine.memory_gigabytes_per_second * 1e9);
        let operations = 4.0 * positions * (usage.depth * usage.group) as f64;
        moved.max(operations / (machine.f32_gigaflops * 1e9)) + TASK_SECONDS
    };
    let seconds = |split: i64| {
        let at = |context: &i64| {
            let seen = usage.seen(*context);
            let parts = if split == 0 { 1.0 } else { (seen / split as f64).ceil() };
            let rounds = (parts * usage.heads as f64 / cores).ceil();
            let combined = parts * (usage.heads * usage.group * usage.depth) as f64;
            let combine = if split == 0 {
                0.0
            } else {
                machine.seconds_at(combined, machine.elementwise_gigaops) + machine.launch_seconds()
            };
            rounds * of_part(seen / parts) + combine
        };
        contexts.iter().map(at).sum::<f64>()
    };
    let mut best = (0, seconds(0));
    for candidate in splits {
        let time = seconds(*candidate);
        if time < best.1 {
            best = (*candidate, time);
        }
    }
    best.0
}
