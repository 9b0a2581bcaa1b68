//! Attention of new tokens over the pages of their sequences.

use tcc_ir::attribute::Real;
use tcc_ir::cache::{CacheOrder, SCALE_GROUP};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::types::TensorType;

use super::memory::{Cache, Channel};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt};
use crate::lower::tiled_attention::{Block, Scores, Tile, TileState, inverse};
use crate::lower::{Argument, LowerError, Lowering};

/// Query rows of a tile where the context is not split: enough to hide what a block costs once.
const TILE_ROWS: i64 = 48;

/// What the kernels of one attention share.
struct Attend {
    keys: Cache,
    values: Cache,
    query_heads: i64,
    /// Query heads of a cache head.
    group: i64,
    scale: Real,
    scores: Scores,
    window: i64,
    page: i64,
    /// Positions of a part of the context; 0: not split.
    split: i64,
    tile: Tile,
    /// Tokens of a tile.
    tokens: i64,
}

pub(super) fn attend(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let Operator::KvAttend { scale, softcap, window, sinks, page, split, k_storage, v_storage } = operator
    else {
        return Err(lowering.malformed("not kv_attend"));
    };
    let (q, y) = (lowering.operands[0].clone(), lowering.results[0].clone());
    let keys = Cache::of(lowering, 1, k_storage, &q.shape[2])?;
    let values = Cache::of(lowering, 2, v_storage, &y.shape[2])?;
    let Some(query_heads) = q.shape[1].as_const() else {
        return Err(lowering.unsupported("the number of query heads must be known"));
    };
    let group = if keys.heads == 0 { 1 } else { query_heads / keys.heads };
    let tokens = match (split, q.shape[0].as_const()) {
        (1.., _) => 1,
        (0, known) => (TILE_ROWS / group.max(1)).max(1).min(known.unwrap_or(i64::MAX).max(1)),
    };
    let tile = Tile::choose(tokens * group.max(1), keys.depth, values.depth, lowering.tuning);
    let attend = Attend {
        keys,
        values,
        query_heads,
        group,
        scale: *scale,
        scores: Scores { softcap: softcap.get(), windowed: *window > 0, sinks: *sinks as i64 },
        window: *window as i64,
        page: *page as i64,
        split: (*split as i64 + tile.keys() - 1) / tile.keys() * tile.keys(),
        tile,
        tokens,
    };
    if attend.split == 0 {
        let body = attend.tiles(lowering, &Target::Result);
        lowering.launch(body, false);
        return Ok(());
    }
    let rows = q.shape[0].clone() * q.shape[1].clone();
    let parts = attend.parts(&lowering.operands[3].shape);
    let float = |shape| TensorType::new(DType::F32, shape);
    let depth = Dim::from(values.depth as usize);
    let sums = lowering.temporary(float(vec![rows.clone(), parts.clone(), depth]));
    let statistics = lowering.temporary(float(vec![rows, parts, Dim::Const(2)]));
    let body = attend.tiles(lowering, &Target::Parts { sums, statistics });
    lowering.launch(body, false);
    let body = attend.combine(lowering, sums, statistics);
    lowering.launch(body, false);
    Ok(())
}

/// Where a tile's results go.
enum Target {
    /// To the result.
    Result,
    /// To be combined: weighted sums `[rows, parts, d]`, and the largest score and total `[rows, parts, 2]`.
    Parts { sums: Argument, statistics: Argument },
}

impl Attend {
    /// Parts that the longest context has.
    fn parts(&self, table: &[Dim]) -> Dim {
        (table[1].clone() * Dim::Const(self.page)).ceil_div(&Dim::Const(self.split.max(1)))
    }

    /// The last position that a token may see in the memory there is; below 0 where there is no page.
    fn last_position(&self, this: &mut Lowering) -> Expr {
        let table = this.operands[3].shape.clone();
        let (rows, columns) = (this.dim(&table[0]), this.dim(&table[1]));
        let pages = self.pages(this);
        // Any of the three at 0 leaves nothing to see.
        let usable = rows.at_most(pages).at_most(Expr::index(1));
        columns.times(Expr::index(self.page)).times(usable).minus(Expr::index(1))
    }

    /// Whole pages that both caches have.
    fn pages(&self, this: &mut Lowering) -> Expr {
        let slots = self.keys.slots(this).at_most(self.values.slots(this));
        slots.over(Expr::index(self.page))
    }

    /// The position of token `index`, limited to `last`; below 0 for tokens that see nothing.
    fn position(&self, this: &mut Lowering, index: Expr, last: &Expr) -> Expr {
        let dtype = this.operands[5].dtype();
        let position = this.load(Argument::Operand(5), &[index]).cast(dtype, DType::I64);
        position.at_most(last.clone()).at_least(Expr::index(-1))
    }

    /// The row of the block table of token `index`.
    fn sequence(&self, this: &mut Lowering, index: Expr) -> Expr {
        let (dtype, table) = (this.operands[4].dtype(), this.operands[3].shape[0].clone());
        let last = this.dim(&table).minus(Expr::index(1));
        let row = this.load(Argument::Operand(4), &[index]).cast(dtype, DType::I64);
        row.at_most(last).at_least(Expr::index(0))
    }

    /// The slot of a position.
    fn slot(&self, this: &mut Lowering, sequence: &Expr, position: Expr) -> Expr {
        let (dtype, table) = (this.operands[3].dtype(), this.operands[3].shape[1].clone());
        let (page, one) = (Expr::index(self.page), Expr::index(1));
        let last = this.dim(&table).minus(one.clone());
        let column = position.clone().over(page.clone()).at_most(last);
        let entry = this.load(Argument::Operand(3), &[sequence.clone(), column]).cast(dtype, DType::I64);
        let entry = entry.at_most(self.pages(this).minus(one)).at_least(Expr::index(0));
        entry.times(page.clone()).plus(position.remainder(page))
    }

    /// The kernel over tiles of tokens, cache heads and parts of the context.
    fn tiles(&self, lowering: &mut Lowering, target: &Target) -> Vec<Stmt> {
        let tokens = lowering.operands[0].shape[0].clone();
        let table = lowering.operands[3].shape.clone();
        let tiles = tokens.ceil_div(&Dim::Const(self.tokens));
        let parts = match target {
            Target::Result => Dim::Const(1),
            Target::Parts { .. } => self.parts(&table),
        };
        let domain = [tiles, parts.clone(), Dim::Const(self.keys.heads)];
        lowering.parallel_rows(&domain, &mut |this, at| {
            let (tile, part, head) = (&at[0], &at[1], &at[2]);
            let count = this.dim(&tokens);
            let last = self.last_position(this);
            let (last, set_last) = this.assign("last", last);
            let state = TileState::new(this, &self.tile, self.scores);
            let first_token = tile.clone().times(Expr::index(self.tokens));
            let mut stmts = state.start(this);
            stmts.extend(self.queries(this, &state, &first_token, &count, head));
            let segments = Segments { first_token, count, last: Expr::Var(last), part, head };
            stmts.extend(self.sequences(this, &state, &segments));
            stmts.push(self.store(this, &state, &segments, target));
            if let Target::Parts { .. } = target {
                // Parts behind the last position are neither computed nor combined.
                let position = self.position(this, segments.first_token.clone(), &segments.last);
                let begin = part.clone().times(Expr::index(self.split));
                let condition = begin.less_equal(position);
                stmts = vec![Stmt::If { condition, then: stmts, otherwise: vec![] }];
            }
            stmts.insert(0, set_last);
            stmts
        })
    }

    /// Copies the scaled queries of the tile.
    fn queries(
        &self,
        this: &mut Lowering,
        state: &TileState,
        first_token: &Expr,
        count: &Expr,
        head: &Expr,
    ) -> Vec<Stmt> {
        let q = this.operands[0].dtype();
        let lanes = this.tuning.lanes(DType::F32);
        let scale = Expr::constant(DType::F32, self.scale.get());
        let here = count.clone().minus(first_token.clone()).at_most(Expr::index(self.tokens));
        vec![this.for_loop("token", here, LoopKind::Serial, |this, token| {
            vec![this.for_loop("g", Expr::index(self.group), LoopKind::Serial, |this, g| {
                let row = token.clone().times(Expr::index(self.group)).plus(g.clone());
                let from = first_token.clone().plus(token.clone());
                let own = head.clone().times(Expr::index(self.group)).plus(g);
                this.vector_line(Expr::index(0), Expr::index(self.keys.depth), lanes, &mut |this, channel| {
                    let at = [from.clone(), own.clone(), channel.clone()];
                    let value = this.load(Argument::Operand(0), &at).cast(q, DType::F32);
                    let value = Expr::call(Function::Mul, vec![value, scale.clone()]);
                    let index = row.clone().times(Expr::index(self.keys.depth)).plus(channel);
                    vec![Stmt::Store { buffer: state.queries, index, value, valid: None }]
                })
            })]
        })]
    }

    /// Runs the tile against the context of every sequence that a token of it belongs to; tokens of others see nothing
    /// meanwhile.
    fn sequences(&self, this: &mut Lowering, state: &TileState, segments: &Segments<'_>) -> Vec<Stmt> {
        let here =
            segments.count.clone().minus(segments.first_token.clone()).at_most(Expr::index(self.tokens));
        vec![this.for_loop("token", here.clone(), LoopKind::Serial, |this, token| {
            let sequence = self.sequence(this, segments.first_token.clone().plus(token.clone()));
            let (sequence, set_sequence) = this.assign("sequence", sequence);
            let sequence = Expr::Var(sequence);
            // Only the first token of a sequence stands for all of it.
            let (before, set_before) = this.assign("before", Expr::index(0));
            let mut stmts = vec![set_sequence, set_before];
            if self.tokens > 1 {
                stmts.push(this.for_loop("other", token, LoopKind::Serial, |this, other| {
                    let other = self.sequence(this, segments.first_token.clone().plus(other));
                    let same = Expr::call(Function::Equal, vec![other, sequence.clone()]);
                    let value = same.choose(Expr::index(1), Expr::Var(before));
                    vec![Stmt::Assign { var: before, value }]
                }));
            }
            let then = self.sequence_context(this, state, segments, &sequence, &here);
            let condition = Expr::call(Function::Equal, vec![Expr::Var(before), Expr::index(0)]);
            stmts.push(Stmt::If { condition, then, otherwise: vec![] });
            stmts
        })]
    }

    /// The blocks of one sequence's context.
    fn sequence_context(
        &self,
        this: &mut Lowering,
        state: &TileState,
        segments: &Segments<'_>,
        sequence: &Expr,
        here: &Expr,
    ) -> Vec<Stmt> {
        let none = Expr::index(-1);
        let far = Expr::index(i64::MAX >> 1);
        let (highest, set_highest) = this.assign("highest", none.clone());
        let (lowest, set_lowest) = this.assign("lowest", far.clone());
        let mut stmts = vec![set_highest, set_lowest];
        stmts.push(this.for_loop("token", here.clone(), LoopKind::Serial, |this, token| {
            let index = segments.first_token.clone().plus(token.clone());
            let own = self.sequence(this, index.clone());
            let own = Expr::call(Function::Equal, vec![own, sequence.clone()]);
            let position = self.position(this, index, &segments.last);
            let (position, set_position) = this.assign("position", own.choose(position, none.clone()));
            let position = Expr::Var(position);
            let sees = Expr::index(0).less_equal(position.clone());
            let lower = Expr::Var(lowest).at_most(sees.choose(position.clone(), far.clone()));
            let bounds = this.for_loop("g", Expr::index(self.group), LoopKind::Serial, |_, g| {
                let row = token.times(Expr::index(self.group)).plus(g);
                let low = position.clone().minus(Expr::index(self.window));
                let store = |buffer, value| Stmt::Store { buffer, index: row.clone(), value, valid: None };
                vec![store(state.high, position.clone()), store(state.low, low)]
            });
            vec![
                set_position,
                Stmt::Assign { var: highest, value: Expr::Var(highest).at_least(position.clone()) },
                Stmt::Assign { var: lowest, value: lower },
                bounds,
            ]
        }));
        let keys = Expr::index(self.tile.keys());
        let end = Expr::Var(highest).plus(Expr::index(1));
        let begin = segments.part.clone().times(Expr::index(self.split));
        let end = match self.split {
            0 => end,
            split => end.at_most(begin.clone().plus(Expr::index(split))),
        };
        let (end, set_end) = this.assign("end", end);
        stmts.push(set_end);
        let (mut from, mut sinks) = (begin.clone(), Expr::index(0));
        if self.scores.windowed {
            let start = Expr::Var(lowest).minus(Expr::index(self.window - 1));
            let start = start.at_least(begin.clone()).over(keys.clone()).times(keys.clone());
            let (start, set_start) = this.assign("start", start);
            stmts.push(set_start);
            from = Expr::Var(start);
            // Blocks with sinks that the window does not reach.
            let last_sink = Expr::index(self.scores.sinks).at_most(Expr::Var(end));
            let before = last_sink.minus(begin.clone()).at_least(Expr::index(0)).over_up(keys.clone());
            sinks = before.at_most(from.clone().minus(begin.clone()).over(keys.clone()));
        }
        let (sinks, set_sinks) = this.assign("sink_blocks", sinks);
        stmts.push(set_sinks);
        let sinks = Expr::Var(sinks);
        let blocks = Expr::Var(end).minus(from.clone()).at_least(Expr::index(0)).over_up(keys.clone());
        stmts.push(this.for_loop("block", blocks.plus(sinks.clone()), LoopKind::Serial, |this, block| {
            let first = match self.scores.windowed {
                false => from.plus(block.times(keys.clone())),
                true => {
                    let near = from.plus(block.clone().minus(sinks.clone()).times(keys.clone()));
                    let far = begin.plus(block.clone().times(keys.clone()));
                    block.less(sinks).choose(far, near)
                }
            };
            let (first, set_first) = this.assign("first", first);
            let count = Expr::Var(end).minus(Expr::Var(first)).at_most(keys);
            let (count, set_count) = this.assign("count", count);
            let mut stmts = vec![set_first, set_count];
            stmts.extend(self.block(
                this,
                state,
                segments.head,
                sequence,
                Expr::Var(first),
                Expr::Var(count),
            ));
            stmts
        }));
        stmts
    }

    /// True where the vectors of a page lie in one block of the cache.
    fn is_aligned(&self, cache: &Cache) -> bool {
        let whole = |extent: i64| extent % self.tile.lanes == 0;
        whole(self.page)
            && (whole(cache.block()) || (cache.block() == 1 && cache.storage.order == CacheOrder::Rows))
    }

    fn block(
        &self,
        this: &mut Lowering,
        state: &TileState,
        head: &Expr,
        sequence: &Expr,
        first: Expr,
        count: Expr,
    ) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let keys = self.key_source(this, head, sequence, &first, &count, &mut stmts);
        let values = self.value_source(this, head, sequence, &first, &count, &mut stmts);
        let block = Block {
            first,
            count,
            key: &mut |this, at| keys.element(this, self, at),
            value_base: &mut |_, at| values.base(&at[0]),
            value: &mut |this, at| values.element(this, self, at),
            bias: None,
        };
        stmts.extend(state.block(this, block));
        stmts
    }

    /// Statements that make the keys of a block ready, and how to read them.
    fn key_source(
        &self,
        this: &mut Lowering,
        head: &Expr,
        sequence: &Expr,
        first: &Expr,
        count: &Expr,
        stmts: &mut Vec<Stmt>,
    ) -> KeySource {
        let Tile { vectors, lanes, depth, .. } = self.tile;
        let columns = self.keys.storage.order == CacheOrder::Columns && self.is_aligned(&self.keys);
        if columns && !self.keys.storage.format.has_scales() {
            let bases = this.kernel.buffer(
                "key_base",
                DType::I64,
                Space::Register,
                Expr::index(vectors),
                Access::ReadWrite,
            );
            stmts.push(this.for_loop("vector", Expr::index(vectors), LoopKind::Unroll, |this, vector| {
                let position = first.clone().plus(vector.clone().times(Expr::index(lanes)));
                let slot = self.slot(this, sequence, position);
                let (slot, set_slot) = this.assign("slot", slot);
                let place = self.keys.place(&Expr::Var(slot), head);
                let channel = Channel { group: Expr::index(0), half: Expr::index(0), index: Expr::index(0) };
                let base = self.keys.code_index(&place, &channel);
                vec![set_slot, Stmt::Store { buffer: bases, index: vector, value: base, valid: None }]
            }));
            return KeySource::Memory { bases };
        }
        let size = Expr::index(depth * self.tile.keys());
        let unpacked = this.kernel.buffer("keys", DType::F32, Space::Scratch, size, Access::ReadWrite);
        let stride = Expr::index(self.tile.keys());
        if columns {
            let vectors = count.clone().over_up(Expr::index(lanes));
            stmts.push(this.for_loop("vector", vectors, LoopKind::Serial, |this, vector| {
                let key = vector.times(Expr::index(lanes));
                let slot = self.slot(this, sequence, first.clone().plus(key.clone()));
                let (slot, set_slot) = this.assign("slot", slot);
                let mut stmts = vec![set_slot];
                stmts.push(self.unpack_columns(this, head, Expr::Var(slot), unpacked, key));
                stmts
            }));
        } else {
            stmts.push(this.for_loop("key", count.clone(), LoopKind::Serial, |this, key| {
                let slot = self.slot(this, sequence, first.clone().plus(key.clone()));
                let (slot, set_slot) = this.assign("slot", slot);
                let place = self.keys.place(&Expr::Var(slot), head);
                let mut stmts = vec![set_slot];
                stmts.extend(self.keys.channels(this, &place, &mut |this, channel, scale| {
                    let value = self.keys.number(this, &place, channel, scale);
                    let row = channel.number(self.keys.storage.format).times(stride.clone());
                    vec![Stmt::Store { buffer: unpacked, index: row.plus(key.clone()), value, valid: None }]
                }));
                stmts
            }));
        }
        // What stands behind the last key takes part in products and is masked after: it must be a number.
        let rest = self.tile.keys();
        stmts.push(this.for_loop("channel", Expr::index(depth), LoopKind::Serial, |this, channel| {
            let start = match columns {
                true => count.clone().over_up(Expr::index(lanes)).times(Expr::index(lanes)),
                false => count.clone(),
            };
            let behind = Expr::index(rest).minus(start.clone());
            vec![this.for_loop("key", behind, LoopKind::Serial, |_, key| {
                let index = channel.times(Expr::index(rest)).plus(start.plus(key));
                let value = Expr::constant(DType::F32, 0.0);
                vec![Stmt::Store { buffer: unpacked, index, value, valid: None }]
            })]
        }));
        KeySource::Unpacked { buffer: unpacked }
    }

    /// Unpacks one vector of keys that lie channel by channel with their scales.
    fn unpack_columns(&self, this: &mut Lowering, head: &Expr, slot: Expr, to: BufferId, key: Expr) -> Stmt {
        let Tile { lanes, .. } = self.tile;
        let cache = &self.keys;
        let stride = Expr::index(self.tile.keys());
        let groups = Expr::index(cache.depth / SCALE_GROUP);
        this.for_loop("group", groups, LoopKind::Serial, |this, group| {
            let half = this.for_loop("half", Expr::index(2), LoopKind::Unroll, |this, half| {
                let part = Expr::index(SCALE_GROUP / 2);
                vec![this.for_loop("index", part, LoopKind::Serial, |this, index| {
                    vec![this.for_loop("lane", Expr::index(lanes), LoopKind::Vector, |this, lane| {
                        // A vector stays inside one block, so the lane adds to the place within it.
                        let mut place = cache.place(&slot, head);
                        place.within = place.within.plus(lane.clone());
                        let channel =
                            Channel { group: group.clone(), half: half.clone(), index: index.clone() };
                        let scale = cache.scale(this, &place, &group);
                        let value = cache.number(this, &place, &channel, Some(scale));
                        let row = channel.number(cache.storage.format).times(stride.clone());
                        let index = row.plus(key.clone()).plus(lane);
                        vec![Stmt::Store { buffer: to, index, value, valid: None }]
                    })]
                })]
            });
            vec![half]
        })
    }

    /// Statements that make the values of a block ready, and how to read them.
    fn value_source(
        &self,
        this: &mut Lowering,
        head: &Expr,
        sequence: &Expr,
        first: &Expr,
        count: &Expr,
        stmts: &mut Vec<Stmt>,
    ) -> ValueSource {
        let Tile { vectors, lanes, value_depth, .. } = self.tile;
        let rows = self.values.storage.order == CacheOrder::Rows && self.is_aligned(&self.values);
        if rows && !self.values.storage.format.has_scales() {
            let size = Expr::index(vectors);
            let bases = this.kernel.buffer("value_base", DType::I64, Space::Stack, size, Access::ReadWrite);
            let groups = count.clone().over_up(Expr::index(lanes));
            stmts.push(this.for_loop("vector", groups, LoopKind::Serial, |this, vector| {
                let position = first.clone().plus(vector.clone().times(Expr::index(lanes)));
                let slot = self.slot(this, sequence, position);
                let (slot, set_slot) = this.assign("slot", slot);
                let place = self.values.place(&Expr::Var(slot), head);
                let channel = Channel { group: Expr::index(0), half: Expr::index(0), index: Expr::index(0) };
                let base = self.values.code_index(&place, &channel);
                vec![set_slot, Stmt::Store { buffer: bases, index: vector, value: base, valid: None }]
            }));
            let stride = match self.values.block() {
                1 => self.values.heads * value_depth,
                _ => value_depth,
            };
            return ValueSource::Memory { bases, stride };
        }
        let size = Expr::index(value_depth * self.tile.keys());
        let unpacked = this.kernel.buffer("values", DType::F32, Space::Scratch, size, Access::ReadWrite);
        stmts.push(this.for_loop("key", count.clone(), LoopKind::Serial, |this, key| {
            let slot = self.slot(this, sequence, first.clone().plus(key.clone()));
            let (slot, set_slot) = this.assign("slot", slot);
            let place = self.values.place(&Expr::Var(slot), head);
            let mut stmts = vec![set_slot];
            stmts.extend(self.values.channels(this, &place, &mut |this, channel, scale| {
                let value = self.values.number(this, &place, channel, scale);
                let row = key.clone().times(Expr::index(value_depth));
                let index = row.plus(channel.number(self.values.storage.format));
                vec![Stmt::Store { buffer: unpacked, index, value, valid: None }]
            }));
            stmts
        }));
        ValueSource::Unpacked { buffer: unpacked, stride: value_depth, vector: lanes * value_depth }
    }

    /// Stores what a tile has summed up.
    fn store(
        &self,
        this: &mut Lowering,
        state: &TileState,
        segments: &Segments<'_>,
        target: &Target,
    ) -> Stmt {
        let y = this.results[0].dtype();
        let here =
            segments.count.clone().minus(segments.first_token.clone()).at_most(Expr::index(self.tokens));
        this.for_loop("token", here, LoopKind::Serial, |this, token| {
            vec![this.for_loop("g", Expr::index(self.group), LoopKind::Serial, |this, g| {
                let row = token.clone().times(Expr::index(self.group)).plus(g.clone());
                let index = segments.first_token.clone().plus(token.clone());
                let head = segments.head.clone().times(Expr::index(self.group)).plus(g);
                let (largest, total) = state.statistics(&row);
                match target {
                    Target::Result => {
                        let (factor, set_factor) = this.assign("total", total);
                        let (factor, set_inverse) = this.assign("factor", inverse(Expr::Var(factor)));
                        let factor = Some(Expr::Var(factor));
                        let mut stmts = vec![set_factor, set_inverse];
                        stmts.extend(state.results(this, &row, factor, &mut |this, channel, value| {
                            let at = [index.clone(), head.clone(), channel];
                            this.store(Argument::Result(0), &at, value.cast(DType::F32, y))
                        }));
                        stmts
                    }
                    Target::Parts { sums, statistics } => {
                        let row_of = index.clone().times(Expr::index(self.query_heads)).plus(head.clone());
                        let at = |last: Expr| [row_of.clone(), segments.part.clone(), last];
                        let mut stmts = vec![
                            this.store(*statistics, &at(Expr::index(0)), largest),
                            this.store(*statistics, &at(Expr::index(1)), total),
                        ];
                        stmts.extend(state.results(this, &row, None, &mut |this, channel, value| {
                            this.store(*sums, &at(channel), value)
                        }));
                        stmts
                    }
                }
            })]
        })
    }

    /// The kernel that adds up the parts of every row, in their order.
    fn combine(&self, lowering: &mut Lowering, sums: Argument, statistics: Argument) -> Vec<Stmt> {
        let tokens = lowering.operands[0].shape[0].clone();
        let y = lowering.results[0].dtype();
        let domain = [tokens, Dim::Const(self.query_heads)];
        let lanes = lowering.tuning.lanes(DType::F32);
        lowering.parallel_rows(&domain, &mut |this, at| {
            let (token, head) = (at[0].clone(), at[1].clone());
            let last = self.last_position(this);
            let position = self.position(this, token.clone(), &last);
            let parts = position.plus(Expr::index(self.split)).over(Expr::index(self.split));
            let (parts, set_parts) = this.assign("parts", parts);
            let row = token.clone().times(Expr::index(self.query_heads)).plus(head.clone());
            let (largest, set_largest) =
                this.assign("largest", Expr::constant(DType::F32, f64::NEG_INFINITY));
            let mut stmts = vec![set_parts, set_largest];
            stmts.push(this.for_loop("part", Expr::Var(parts), LoopKind::Serial, |this, part| {
                let own = this.load(statistics, &[row.clone(), part, Expr::index(0)]);
                let value = Expr::call(Function::Max, vec![Expr::Var(largest), own]);
                vec![Stmt::Assign { var: largest, value }]
            }));
            let depth = Expr::index(self.values.depth);
            let together =
                this.kernel.buffer("together", DType::F32, Space::Scratch, depth.clone(), Access::ReadWrite);
            stmts.extend(this.vector_line(Expr::index(0), depth.clone(), lanes, &mut |_, channel| {
                let value = Expr::constant(DType::F32, 0.0);
                vec![Stmt::Store { buffer: together, index: channel, value, valid: None }]
            }));
            let (total, set_total) = this.assign("total", Expr::constant(DType::F32, 0.0));
            stmts.push(set_total);
            let none = Expr::constant(DType::F32, f64::NEG_INFINITY);
            stmts.push(this.for_loop("part", Expr::Var(parts), LoopKind::Serial, |this, part| {
                let own = this.load(statistics, &[row.clone(), part.clone(), Expr::index(0)]);
                let seen = none.clone().less(own.clone());
                let weight = Expr::call(Function::Sub, vec![own, Expr::Var(largest)]);
                let (weight, set_weight) = this.assign("weight", Expr::call(Function::Exp, vec![weight]));
                let own_total = this.load(statistics, &[row.clone(), part.clone(), Expr::index(1)]);
                let fma = |a: Expr, b: Expr, c: Expr| Expr::Fma(Box::new(a), Box::new(b), Box::new(c));
                let add =
                    Stmt::Assign { var: total, value: fma(own_total, Expr::Var(weight), Expr::Var(total)) };
                let mut then = vec![set_weight, add];
                then.extend(this.vector_line(Expr::index(0), depth.clone(), lanes, &mut |this, channel| {
                    let own = this.load(sums, &[row.clone(), part.clone(), channel.clone()]);
                    let value = fma(own, Expr::Var(weight), Expr::load(together, channel.clone()));
                    vec![Stmt::Store { buffer: together, index: channel, value, valid: None }]
                }));
                vec![Stmt::If { condition: seen, then, otherwise: vec![] }]
            }));
            let (factor, set_factor) = this.assign("factor", inverse(Expr::Var(total)));
            stmts.push(set_factor);
            stmts.extend(this.vector_line(Expr::index(0), depth.clone(), lanes, &mut |this, channel| {
                let sum = Expr::load(together, channel.clone());
                let value = Expr::call(Function::Mul, vec![sum, Expr::Var(factor)]).cast(DType::F32, y);
                vec![this.store(Argument::Result(0), &[token.clone(), head.clone(), channel], value)]
            }));
            stmts
        })
    }
}

/// The place of a tile in the domain.
struct Segments<'s> {
    first_token: Expr,
    count: Expr,
    /// Last position that there can be.
    last: Expr,
    part: &'s Expr,
    head: &'s Expr,
}

/// How keys are read.
enum KeySource {
    /// From the cache, vector by vector.
    Memory { bases: BufferId },
    /// From scratch memory, channel by channel.
    Unpacked { buffer: BufferId },
}

impl KeySource {
    /// The key at vector, channel and lane.
    fn element(&self, this: &mut Lowering, attend: &Attend, at: &[Expr]) -> Expr {
        let [vector, channel, lane] = at else { return Expr::constant(DType::F32, 0.0) };
        match self {
            KeySource::Memory { bases } => {
                let row = channel.clone().times(Expr::index(attend.keys.block()));
                let index = Expr::load(*bases, vector.clone()).plus(row).plus(lane.clone());
                let buffer = this.buffer(Argument::Operand(attend.keys.operand));
                Expr::load(buffer, index).cast(attend.keys.dtype(this), DType::F32)
            }
            KeySource::Unpacked { buffer } => {
                let row = channel.clone().times(Expr::index(attend.tile.keys()));
                let key = vector.clone().times(Expr::index(attend.tile.lanes)).plus(lane.clone());
                Expr::load(*buffer, row.plus(key))
            }
        }
    }
}

/// How values are read.
enum ValueSource {
    /// From the cache, token by token.
    Memory { bases: BufferId, stride: i64 },
    /// From scratch memory.
    Unpacked { buffer: BufferId, stride: i64, vector: i64 },
}

impl ValueSource {
    /// What the addresses of a vector's values share.
    fn base(&self, vector: &Expr) -> Expr {
        match self {
            ValueSource::Memory { bases, .. } => Expr::load(*bases, vector.clone()),
            ValueSource::Unpacked { vector: elements, .. } => vector.clone().times(Expr::index(*elements)),
        }
    }

    /// The value at base, key and channel; zero for channels that only fill up a vector.
    fn element(&self, this: &mut Lowering, attend: &Attend, at: &[Expr]) -> Expr {
        let [base, key, channel] = at else { return Expr::constant(DType::F32, 0.0) };
        let (buffer, dtype, stride) = match self {
            ValueSource::Memory { stride, .. } => {
                let operand = attend.values.operand;
                (this.buffer(Argument::Operand(operand)), attend.values.dtype(this), *stride)
            }
            ValueSource::Unpacked { buffer, stride, .. } => (*buffer, DType::F32, *stride),
        };
        let index = base.clone().plus(key.clone().times(Expr::index(stride))).plus(channel.clone());
        let depth = attend.tile.value_depth;
        let valid =
            (depth % attend.tile.lanes != 0).then(|| Box::new(Expr::index(depth).minus(channel.clone())));
        Expr::Load { buffer, index: Box::new(index), lanes: 1, valid }.cast(dtype, DType::F32)
    }
}
