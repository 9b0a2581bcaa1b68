//! Attention by tiles: a tile of query rows against a block of keys at a time, with an online softmax.
//!
//! For each block the scores of the tile (rows times keys) are a small matrix product in registers, then the softmax is
//! carried forward (FlashAttention's recurrence), then the weighted values are a second product that adds to the sums of
//! the tile. Scores and sums of one tile are all that is in memory: the context may be of any length. Rows are the queries
//! that share a key head, so each key and value vector is loaded once for all of them.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

use super::{Lowering, Tuning};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt};

/// Extents of the tile and of its blocks.
#[derive(Clone, PartialEq, Debug)]
pub struct Tile {
    /// Query rows, those that only fill up the last register tile included.
    pub rows: i64,
    /// Rows of a register tile; divides `rows`.
    pub row_tile: i64,
    /// Key vectors of a block.
    pub vectors: i64,
    /// Lanes of a vector.
    pub lanes: i64,
    /// Channels of queries and keys.
    pub depth: i64,
    /// Channels of values.
    pub value_depth: i64,
}

impl Tile {
    /// The tile for so many query rows: four vectors of keys by six rows where there are 32 registers, two by six else,
    /// which leaves registers for the vectors themselves.
    pub fn choose(rows: i64, depth: i64, value_depth: i64, tuning: &Tuning) -> Tile {
        let vectors = if tuning.vector_registers >= 32 { 4 } else { 2 };
        let tiles = (rows + 5) / 6;
        let row_tile = (rows + tiles - 1) / tiles;
        let lanes = i64::from(tuning.lanes(DType::F32));
        Tile { rows: tiles * row_tile, row_tile, vectors, lanes, depth, value_depth }
    }

    /// Keys of a block.
    pub fn keys(&self) -> i64 {
        self.vectors * self.lanes
    }

    /// Elements between rows of sums: the value channels, filled up to whole vectors.
    fn sum_stride(&self) -> i64 {
        (self.value_depth + self.lanes - 1) / self.lanes * self.lanes
    }

    /// First channel and number of vectors of each tile of value channels.
    fn columns(&self) -> Vec<(i64, i64)> {
        let vectors = self.sum_stride() / self.lanes;
        let tiles = (vectors + self.vectors - 1) / self.vectors;
        let each = if tiles == 0 { 0 } else { (vectors + tiles - 1) / tiles };
        (0..tiles).map(|tile| (tile * each * self.lanes, each.min(vectors - tile * each))).collect()
    }
}

/// What happens to scores besides masking.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scores {
    /// 0, or the limit `c` of `c * tanh(s / c)`.
    pub softcap: f64,
    /// True where rows have a lower bound.
    pub windowed: bool,
    /// Positions before this one are seen whatever the lower bound is.
    pub sinks: i64,
}

/// Gives an expression at positions.
pub type Element<'e> = dyn FnMut(&mut Lowering, &[Expr]) -> Expr + 'e;

/// Where the keys and values of a block come from.
pub struct Block<'b> {
    /// Position of the first key.
    pub first: Expr,
    /// Number of keys that count, at least 1.
    pub count: Expr,
    /// The key vector number, the channel and the lane to the key as `f32`.
    pub key: &'b mut Element<'b>,
    /// The vector number to what all its values' addresses need.
    pub value_base: &'b mut Element<'b>,
    /// That, the key's number within its vector and the value channel to the value as `f32`.
    pub value: &'b mut Element<'b>,
    /// The row and the key's number within the block to what is added to its score.
    pub bias: Option<&'b mut Element<'b>>,
}

/// The buffers of a tile.
pub struct TileState {
    tile: Tile,
    scores_of: Scores,
    /// Scaled queries, `[rows, depth]`.
    pub queries: BufferId,
    /// Position of the last key that a row sees, negative for none.
    pub high: BufferId,
    /// A row sees keys behind this position only, where there is a window.
    pub low: BufferId,
    scores: BufferId,
    sums: BufferId,
    largest: BufferId,
    base: BufferId,
    decay: BufferId,
    totals: BufferId,
    numbers: BufferId,
}

fn binary(function: Function, a: Expr, b: Expr) -> Expr {
    Expr::call(function, vec![a, b])
}

fn number(value: f64) -> Expr {
    Expr::constant(DType::F32, value)
}

fn set(buffer: BufferId, index: Expr, value: Expr) -> Stmt {
    Stmt::Store { buffer, index, value, valid: None }
}

fn multiply_add(a: Expr, b: Expr, c: Expr) -> Expr {
    Expr::Fma(Box::new(a), Box::new(b), Box::new(c))
}

impl TileState {
    /// Declares the buffers.
    pub fn new(this: &mut Lowering, tile: &Tile, scores_of: Scores) -> TileState {
        let mut scratch = |name: &str, dtype: DType, count: i64| {
            this.kernel.buffer(name, dtype, Space::Scratch, Expr::index(count), Access::ReadWrite)
        };
        let rows = tile.rows;
        TileState {
            queries: scratch("queries", DType::F32, rows * tile.depth),
            high: scratch("high", DType::I64, rows),
            low: scratch("low", DType::I64, rows),
            scores: scratch("scores", DType::F32, rows * tile.keys()),
            sums: scratch("sums", DType::F32, rows * tile.sum_stride()),
            largest: scratch("largest", DType::F32, rows),
            base: scratch("base", DType::F32, rows),
            decay: scratch("decay", DType::F32, rows),
            totals: scratch("totals", DType::F32, rows * tile.lanes),
            numbers: scratch("numbers", DType::F32, tile.keys()),
            tile: tile.clone(),
            scores_of,
        }
    }

    /// No key seen yet: sums are zero, queries too, until they are set.
    pub fn start(&self, this: &mut Lowering) -> Vec<Stmt> {
        let tile = &self.tile;
        let lanes = tile.lanes as u16;
        let mut fill = |buffer: BufferId, count: i64, value: Expr| {
            this.vector_line(Expr::index(0), Expr::index(count), lanes, &mut |_, at| {
                vec![set(buffer, at, value.clone())]
            })
        };
        let mut stmts = fill(self.queries, tile.rows * tile.depth, number(0.0));
        stmts.extend(fill(self.sums, tile.rows * tile.sum_stride(), number(0.0)));
        stmts.extend(fill(self.totals, tile.rows * tile.lanes, number(0.0)));
        stmts.extend(fill(self.largest, tile.rows, number(f64::NEG_INFINITY)));
        stmts.push(this.for_loop("row", Expr::index(tile.rows), LoopKind::Serial, |_, row| {
            vec![set(self.high, row.clone(), Expr::index(-1)), set(self.low, row, Expr::index(-1))]
        }));
        stmts.push(this.for_loop("key", Expr::index(tile.keys()), LoopKind::Serial, |_, key| {
            vec![set(self.numbers, key.clone(), key.cast(DType::I64, DType::F32))]
        }));
        stmts
    }

    /// One block of keys for all rows.
    pub fn block(&self, this: &mut Lowering, block: Block<'_>) -> Vec<Stmt> {
        let Block { first, count, key, value_base, value, bias } = block;
        let tile = &self.tile;
        let mut stmts = vec![self.products(this, key)];
        stmts.push(this.for_loop("row", Expr::index(tile.rows), LoopKind::Serial, |this, row| {
            self.masked(this, &row, &first, bias)
        }));
        let exponential = |value: Expr| Expr::call(Function::Exp, vec![value]);
        let (base, decay) = (self.base, self.decay);
        stmts.extend(this.vector_line(
            Expr::index(0),
            Expr::index(tile.rows),
            tile.lanes as u16,
            &mut |_, row| {
                let old = Expr::load(decay, row.clone());
                let value = exponential(binary(Function::Sub, old, Expr::load(base, row.clone())));
                vec![set(decay, row, value)]
            },
        ));
        stmts.push(
            this.for_loop("row", Expr::index(tile.rows), LoopKind::Serial, |this, row| {
                self.weights(this, &row)
            }),
        );
        for (channel, vectors) in tile.columns() {
            stmts.push(self.weighted(this, &count, channel, vectors, value_base, value));
        }
        stmts
    }

    /// Products of all rows with the keys of the block.
    fn products(&self, this: &mut Lowering, key: &mut Element<'_>) -> Stmt {
        let Tile { rows, row_tile, vectors, lanes, depth, .. } = self.tile;
        let count = Expr::index(row_tile * vectors * lanes);
        let sums = this.kernel.buffer("products", DType::F32, Space::Register, count, Access::ReadWrite);
        let place = |row: &Expr, vector: &Expr, lane: &Expr| {
            let vector = row.clone().times(Expr::index(vectors)).plus(vector.clone());
            vector.times(Expr::index(lanes)).plus(lane.clone())
        };
        this.for_loop("rows", Expr::index(rows / row_tile), LoopKind::Serial, |this, tile_number| {
            let first_row = tile_number.times(Expr::index(row_tile));
            let clear = self.each(this, vectors, &mut |this, vector, lane| {
                vec![this.for_loop("r", Expr::index(row_tile), LoopKind::Unroll, |_, row| {
                    vec![set(sums, place(&row, vector, lane), number(0.0))]
                })]
            });
            let multiply = this.for_loop("channel", Expr::index(depth), LoopKind::Serial, |this, channel| {
                vec![self.each(this, vectors, &mut |this, vector, lane| {
                    let value = key(this, &[vector.clone(), channel.clone(), lane.clone()]);
                    let (value, assign) = this.assign("key", value);
                    let rows = this.for_loop("r", Expr::index(row_tile), LoopKind::Unroll, |_, row| {
                        let query = first_row.clone().plus(row.clone()).times(Expr::index(depth));
                        let query = Expr::load(self.queries, query.plus(channel.clone()));
                        let at = place(&row, vector, lane);
                        let sum = multiply_add(query, Expr::Var(value), Expr::load(sums, at.clone()));
                        vec![set(sums, at, sum)]
                    });
                    vec![assign, rows]
                })]
            });
            let keep = self.each(this, vectors, &mut |this, vector, lane| {
                vec![this.for_loop("r", Expr::index(row_tile), LoopKind::Unroll, |_, row| {
                    let to =
                        first_row.clone().plus(row.clone()).times(Expr::index(vectors)).plus(vector.clone());
                    let to = to.times(Expr::index(lanes)).plus(lane.clone());
                    vec![set(self.scores, to, Expr::load(sums, place(&row, vector, lane)))]
                })]
            });
            vec![clear, multiply, keep]
        })
    }

    /// A loop over so many vectors, written out, with the lanes inside.
    fn each(
        &self,
        this: &mut Lowering,
        vectors: i64,
        body: &mut dyn FnMut(&mut Lowering, &Expr, &Expr) -> Vec<Stmt>,
    ) -> Stmt {
        let lanes = self.tile.lanes;
        this.for_loop("vector", Expr::index(vectors), LoopKind::Unroll, |this, vector| {
            vec![this.for_loop("lane", Expr::index(lanes), LoopKind::Vector, |this, lane| {
                body(this, &vector, &lane)
            })]
        })
    }

    /// Caps and masks the scores of a row and finds its new largest one; leaves the old one in `decay`.
    fn masked(
        &self,
        this: &mut Lowering,
        row: &Expr,
        first: &Expr,
        mut bias: Option<&mut Element<'_>>,
    ) -> Vec<Stmt> {
        let Tile { vectors, lanes, .. } = self.tile;
        let relative = |this: &mut Lowering, name: &str, bound: Expr| {
            this.assign(name, bound.minus(first.clone()).cast(DType::I64, DType::F32))
        };
        let (high, set_high) = relative(this, "last", Expr::load(self.high, row.clone()));
        let mut stmts = vec![set_high];
        let mut window = None;
        if self.scores_of.windowed {
            let (low, set_low) = relative(this, "behind", Expr::load(self.low, row.clone()));
            let (sinks, set_sinks) = relative(this, "sinks", Expr::index(self.scores_of.sinks));
            stmts.extend([set_low, set_sinks]);
            window = Some((low, sinks));
        }
        let best =
            this.kernel.buffer("best", DType::F32, Space::Register, Expr::index(lanes), Access::ReadWrite);
        stmts.push(this.for_loop("lane", Expr::index(lanes), LoopKind::Vector, |_, lane| {
            vec![set(best, lane, number(f64::NEG_INFINITY))]
        }));
        stmts.push(self.each(this, vectors, &mut |this, vector, lane| {
            let key = vector.clone().times(Expr::index(lanes)).plus(lane.clone());
            let at = row.clone().times(Expr::index(vectors * lanes)).plus(key.clone());
            let mut score = Expr::load(self.scores, at.clone());
            if self.scores_of.softcap != 0.0 {
                let inner = binary(Function::Mul, score, number(1.0 / self.scores_of.softcap));
                let inner = Expr::call(Function::Tanh, vec![inner]);
                score = binary(Function::Mul, inner, number(self.scores_of.softcap));
            }
            if let Some(bias) = bias.as_deref_mut() {
                let bias = bias(this, &[row.clone(), key.clone()]);
                score = binary(Function::Add, score, bias);
            }
            let place = Expr::load(self.numbers, key);
            let mut seen = place.clone().less_equal(Expr::Var(high));
            if let Some((low, sinks)) = window {
                let inside = Expr::Var(low).less(place.clone());
                let sink = place.less(Expr::Var(sinks));
                let inside = match self.scores_of.sinks {
                    0 => inside,
                    _ => Expr::call(Function::Or, vec![inside, sink]),
                };
                seen = seen.both(inside);
            }
            let (score, assign) = this.assign("score", seen.choose(score, number(f64::NEG_INFINITY)));
            let larger = binary(Function::Max, Expr::load(best, lane.clone()), Expr::Var(score));
            vec![assign, set(self.scores, at, Expr::Var(score)), set(best, lane.clone(), larger)]
        }));
        let old = Expr::load(self.largest, row.clone());
        let (next, set_next) = this.assign(
            "next",
            binary(Function::Max, old.clone(), self.across(ReduceKind::Max, best, Expr::index(0))),
        );
        // A row that has seen only minus infinity keeps weights of zero instead of NaN.
        let finite = number(f64::NEG_INFINITY).less(Expr::Var(next));
        stmts.extend([
            set_next,
            set(self.decay, row.clone(), old),
            set(self.base, row.clone(), finite.choose(Expr::Var(next), number(0.0))),
            set(self.largest, row.clone(), Expr::Var(next)),
        ]);
        stmts
    }

    /// One number from the lanes of a vector in memory.
    fn across(&self, kind: ReduceKind, buffer: BufferId, index: Expr) -> Expr {
        let lanes = self.tile.lanes as u16;
        let vector = Expr::Load { buffer, index: Box::new(index), lanes, valid: None };
        if lanes == 1 { vector } else { Expr::ReduceLanes(kind, Box::new(vector)) }
    }

    /// Scores of a row become weights; their sum joins the row's total, lane by lane.
    fn weights(&self, this: &mut Lowering, row: &Expr) -> Vec<Stmt> {
        let Tile { vectors, lanes, .. } = self.tile;
        let (base, set_base) = this.assign("base", Expr::load(self.base, row.clone()));
        let total =
            this.kernel.buffer("total", DType::F32, Space::Register, Expr::index(lanes), Access::ReadWrite);
        let at_lane = |lane: &Expr| row.clone().times(Expr::index(lanes)).plus(lane.clone());
        let start = this.for_loop("lane", Expr::index(lanes), LoopKind::Vector, |_, lane| {
            let old = Expr::load(self.totals, at_lane(&lane));
            vec![set(total, lane, binary(Function::Mul, old, Expr::load(self.decay, row.clone())))]
        });
        let add = self.each(this, vectors, &mut |this, vector, lane| {
            let key = vector.clone().times(Expr::index(lanes)).plus(lane.clone());
            let at = row.clone().times(Expr::index(vectors * lanes)).plus(key);
            let score = binary(Function::Sub, Expr::load(self.scores, at.clone()), Expr::Var(base));
            let (weight, assign) = this.assign("weight", Expr::call(Function::Exp, vec![score]));
            let sum = binary(Function::Add, Expr::load(total, lane.clone()), Expr::Var(weight));
            vec![assign, set(self.scores, at, Expr::Var(weight)), set(total, lane.clone(), sum)]
        });
        let keep = this.for_loop("lane", Expr::index(lanes), LoopKind::Vector, |_, lane| {
            vec![set(self.totals, at_lane(&lane), Expr::load(total, lane))]
        });
        vec![set_base, start, add, keep]
    }

    /// Adds the weighted values of `vectors` vectors of channels to the sums of all rows, after the decay of these.
    fn weighted(
        &self,
        this: &mut Lowering,
        count: &Expr,
        channel: i64,
        vectors: i64,
        value_base: &mut Element<'_>,
        value: &mut Element<'_>,
    ) -> Stmt {
        let Tile { rows, row_tile, lanes, .. } = self.tile;
        let (stride, keys) = (self.tile.sum_stride(), self.tile.keys());
        let size = Expr::index(row_tile * vectors * lanes);
        let sums = this.kernel.buffer("weighted", DType::F32, Space::Register, size, Access::ReadWrite);
        let place = |row: &Expr, vector: &Expr, lane: &Expr| {
            let vector = row.clone().times(Expr::index(vectors)).plus(vector.clone());
            vector.times(Expr::index(lanes)).plus(lane.clone())
        };
        let column = |vector: &Expr, lane: &Expr| {
            Expr::index(channel).plus(vector.clone().times(Expr::index(lanes))).plus(lane.clone())
        };
        this.for_loop("rows", Expr::index(rows / row_tile), LoopKind::Serial, |this, tile_number| {
            let first_row = tile_number.times(Expr::index(row_tile));
            let row_of = |row: &Expr| first_row.clone().plus(row.clone());
            let start = self.each(this, vectors, &mut |this, vector, lane| {
                vec![this.for_loop("r", Expr::index(row_tile), LoopKind::Unroll, |_, row| {
                    let from = row_of(&row).times(Expr::index(stride)).plus(column(vector, lane));
                    let decay = Expr::load(self.decay, row_of(&row));
                    let value = binary(Function::Mul, Expr::load(self.sums, from), decay);
                    vec![set(sums, place(&row, vector, lane), value)]
                })]
            });
            let full = count.clone().over_up(Expr::index(lanes));
            let add = this.for_loop("keys", full, LoopKind::Serial, |this, group| {
                let base = value_base(this, std::slice::from_ref(&group));
                let (base, set_base) = this.assign("values", base);
                let first_key = group.times(Expr::index(lanes));
                let here = count.clone().minus(first_key.clone()).at_most(Expr::index(lanes));
                let add = this.for_loop("key", here, LoopKind::Serial, |this, key| {
                    vec![self.each(this, vectors, &mut |this, vector, lane| {
                        let at = [Expr::Var(base), key.clone(), column(vector, lane)];
                        let loaded = value(this, &at);
                        let (loaded, assign) = this.assign("value", loaded);
                        let rows = this.for_loop("r", Expr::index(row_tile), LoopKind::Unroll, |_, row| {
                            let weight = row_of(&row).times(Expr::index(keys));
                            let weight = weight.plus(first_key.clone()).plus(key.clone());
                            let weight = Expr::load(self.scores, weight);
                            let at = place(&row, vector, lane);
                            let sum = multiply_add(weight, Expr::Var(loaded), Expr::load(sums, at.clone()));
                            vec![set(sums, at, sum)]
                        });
                        vec![assign, rows]
                    })]
                });
                vec![set_base, add]
            });
            let keep = self.each(this, vectors, &mut |this, vector, lane| {
                vec![this.for_loop("r", Expr::index(row_tile), LoopKind::Unroll, |_, row| {
                    let to = row_of(&row).times(Expr::index(stride)).plus(column(vector, lane));
                    vec![set(self.sums, to, Expr::load(sums, place(&row, vector, lane)))]
                })]
            });
            vec![start, add, keep]
        })
    }

    /// The largest score and the sum of weights of a row.
    pub fn statistics(&self, row: &Expr) -> (Expr, Expr) {
        let total =
            self.across(ReduceKind::Sum, self.totals, row.clone().times(Expr::index(self.tile.lanes)));
        (Expr::load(self.largest, row.clone()), total)
    }

    /// The weighted sums of a row times `factor`, handed to `store` channel by channel.
    pub fn results(
        &self,
        this: &mut Lowering,
        row: &Expr,
        factor: Option<Expr>,
        store: &mut dyn FnMut(&mut Lowering, Expr, Expr) -> Stmt,
    ) -> Vec<Stmt> {
        let (stride, lanes) = (self.tile.sum_stride(), self.tile.lanes as u16);
        this.vector_line(Expr::index(0), Expr::index(self.tile.value_depth), lanes, &mut |this, channel| {
            let at = row.clone().times(Expr::index(stride)).plus(channel.clone());
            let sum = Expr::load(self.sums, at);
            let value = match &factor {
                Some(factor) => binary(Function::Mul, sum, factor.clone()),
                None => sum,
            };
            vec![store(this, channel, value)]
        })
    }
}

/// `1 / total`, or 0 for a row that has seen nothing.
pub fn inverse(total: Expr) -> Expr {
    let seen = number(0.0).less(total.clone());
    seen.choose(binary(Function::Div, number(1.0), total), number(0.0))
}
