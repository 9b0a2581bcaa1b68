//! Attention on tensor cores with an online softmax (FlashAttention-2): a block has 64 queries of a head, a warp 16 of them.
//!
//! ```text
//! grid g in tiles of queries { thread t in 128 {
//!   copy the queries and the keys and values of tile 0
//!   for tile of 64 keys {
//!     wait; barrier; start the copies of the next tile
//!     scores = queries * keys; largest = max(largest, scores); weights = exp(scores - largest)
//!     sums = sums * exp(old largest - largest) + weights * values
//!   }
//!   y = sums / total
//! } }
//! ```
//!
//! Scores and weights stay in registers: the fragments of results of one product are those of the left operand of the next. Weights are
//! rounded to the type of the values; maxima, totals and sums are f32.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use super::Gpu;
use super::matrix::{CHUNK, fragment, place, warp_and_lane};
use super::product::assigned;
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Ty, Var};
use crate::lower::{Argument, Lowering};
use crate::warp::{Fragment, WarpOp};

/// Warps of a block.
const WARPS: i64 = 4;

/// Queries of a warp.
const ROWS: i64 = 16;

/// Keys of a tile.
const KEYS: i64 = 64;

/// Results of an instruction along its columns.
const COLUMNS: i64 = 8;

/// The largest extent of a head, whose sums stay in registers.
const LARGEST: i64 = 128;

/// One attention.
struct Flash {
    fragment: Fragment,
    dtype: DType,
    scale: f64,
    softcap: f64,
    causal: bool,
    window: i64,
    /// Query heads of a key head.
    group: i64,
    depth: i64,
    value_depth: i64,
}

/// Shared memory in words: queries, then two stages of keys and values.
struct Places {
    buffer: BufferId,
    keys: i64,
    values: i64,
    stage: i64,
}

/// What a thread knows of its block.
struct Block<'b> {
    thread: Var,
    warp: &'b Expr,
    lane: &'b Expr,
    batch: Expr,
    head: Expr,
    first_query: Expr,
    q_len: Expr,
    kv_len: Expr,
}

fn index(value: i64) -> Expr {
    Expr::index(value)
}

fn single(value: f64) -> Expr {
    Expr::constant(DType::F32, value)
}

fn call(function: Function, a: Expr, b: Expr) -> Expr {
    Expr::call(function, vec![a, b])
}

fn element(vector: Var, number: i64) -> Expr {
    Expr::Shuffle(Box::new(vector.into()), Box::new(vector.into()), vec![number as u16])
}

/// Lowers an attention of 16-bit floats whose heads are whole steps of the instruction; false where it is none.
pub fn attention(lowering: &mut Lowering, gpu: &Gpu, operator: &Operator) -> bool {
    let Some(flash) = Flash::of(lowering, gpu, operator) else { return false };
    let grid = flash.kernel(lowering);
    lowering.launch(vec![grid], false);
    true
}

impl Flash {
    fn of(lowering: &Lowering, gpu: &Gpu, operator: &Operator) -> Option<Flash> {
        let Operator::Attention { scale, softcap, causal, window } = operator else { return None };
        let [q, k, v] = lowering.operands else { return None };
        let known = |dim: &Dim| dim.as_const().filter(|extent| *extent > 0);
        let whole = |dim: &Dim| known(dim).filter(|extent| extent % 16 == 0 && *extent <= LARGEST);
        let fragment = fragment(q.dtype(), k.dtype(), DType::F32)?;
        let flash = Flash {
            fragment,
            dtype: q.dtype(),
            scale: scale.get(),
            softcap: softcap.get(),
            causal: *causal,
            window: *window as i64,
            group: known(&q.shape[1])? / known(&k.shape[1])?,
            depth: whole(&q.shape[3])?,
            value_depth: whole(&v.shape[3])?,
        };
        let same = v.dtype() == flash.dtype && lowering.results[0].dtype() == flash.dtype;
        let words = flash.places(BufferId(0)).1;
        (gpu.tensor_cores && same && 4 * words as u64 <= gpu.shared_bytes).then_some(flash)
    }

    /// Places in a buffer, and its words.
    fn places(&self, buffer: BufferId) -> (Places, i64) {
        let words = |rows: i64, extent: i64| rows * extent / 2;
        let keys = words(WARPS * ROWS, self.depth);
        let values = words(KEYS, self.depth);
        let stage = values + words(KEYS, self.value_depth);
        (Places { buffer, keys, values, stage }, keys + 2 * stage)
    }

    fn kernel(&self, lowering: &mut Lowering) -> Stmt {
        let (_, words) = self.places(BufferId(0));
        let buffer =
            lowering.kernel.buffer("tiles", DType::U32, Space::Shared, index(words), Access::ReadWrite);
        let (places, _) = self.places(buffer);
        let shape = lowering.operands[0].shape.clone();
        let [q_len, kv_len] = [0, 1].map(|operand: usize| {
            let extent = lowering.operands[operand].shape[2].clone();
            lowering.dim(&extent)
        });
        let tiles = shape[2].ceil_div(&Dim::Const(WARPS * ROWS));
        let domain = [shape[0].clone(), shape[1].clone(), tiles];
        let blocks = lowering.dim(&Dim::product(&domain));
        lowering.for_loop("block", blocks, LoopKind::Grid(0), |this, block| {
            let thread = this.kernel.counter("thread");
            let mut body = Vec::new();
            let at: Vec<Expr> = this
                .decode(block, &domain)
                .into_iter()
                .map(|value| assigned(this, &mut body, "at", value))
                .collect();
            let [warp, lane] = warp_and_lane(this, &mut body, thread);
            let first_query = at[2].clone().times(index(WARPS * ROWS));
            let block = Block {
                thread,
                warp: &warp,
                lane: &lane,
                batch: at[0].clone(),
                head: at[1].clone(),
                first_query,
                q_len,
                kv_len,
            };
            self.block(this, &mut body, &places, &block);
            let extent = index(WARPS * 32);
            vec![Stmt::For { var: thread, extent, kind: LoopKind::Thread(0), body }]
        })
    }

    /// The last key that a query sees, and the last that it does not see any more.
    fn sight(&self, block: &Block, query: Expr) -> [Expr; 2] {
        let last = block.kv_len.clone().minus(index(1));
        let own = query.plus(block.kv_len.clone()).minus(block.q_len.clone());
        let high = if self.causal { own.clone().at_most(last) } else { last };
        let low = if self.window > 0 { own.minus(index(self.window)) } else { index(-1) };
        [high, low]
    }

    fn block(&self, this: &mut Lowering, body: &mut Vec<Stmt>, places: &Places, block: &Block) {
        let last_query = block.first_query.clone().plus(index(WARPS * ROWS - 1));
        let last_query = last_query.at_most(block.q_len.clone().minus(index(1)));
        let [high, _] = self.sight(block, last_query);
        let [_, low] = self.sight(block, block.first_query.clone());
        let start = low.plus(index(1)).at_least(index(0)).over(index(KEYS));
        let start = assigned(this, body, "start", start);
        let end = assigned(this, body, "end", high.plus(index(1)).at_least(index(0)).over_up(index(KEYS)));
        let count = assigned(this, body, "count", end.clone().minus(start.clone()).at_least(index(0)));

        self.copy_queries(this, body, places, block);
        self.copy_tile(this, body, (places, &index(0)), block, (&start, &end));
        let state = State::new(this, body, self.value_depth / COLUMNS);
        let group = assigned(this, body, "group", block.lane.clone().over(index(4)));
        let pair = assigned(this, body, "pair", block.lane.clone().remainder(index(4)));
        let first_row = block.first_query.clone().plus(block.warp.clone().times(index(ROWS)));
        let rows = [0, 8].map(|offset| {
            assigned(this, body, "row", first_row.clone().plus(group.clone()).plus(index(offset)))
        });
        let sights: Vec<[Expr; 2]> = rows
            .iter()
            .map(|row| {
                self.sight(block, row.clone()).map(|sight| {
                    let beside = sight.minus(pair.clone().times(index(2)));
                    assigned(this, body, "sight", beside)
                })
            })
            .collect();
        let lanes = Lanes::new(this, body, self, block);
        let (turn, set) = this.assign("stage", index(0));
        body.push(set);
        let step = this.for_loop("tile", count, LoopKind::Serial, |this, tile| {
            let mut inner = vec![Stmt::Warp(WarpOp::CopyWait(0)), Stmt::Barrier];
            let tile = assigned(this, &mut inner, "tile", start.clone().plus(tile));
            let other = assigned(this, &mut inner, "other", index(places.stage).minus(turn.into()));
            let next = tile.clone().plus(index(1));
            self.copy_tile(this, &mut inner, (places, &other), block, (&next, &end));
            let scores = self.scores(this, &mut inner, places, &lanes, &turn.into());
            let first_key = tile.times(index(KEYS));
            let weights = self.weights(this, &mut inner, &state, &scores, &first_key, &sights);
            self.add_values(this, &mut inner, (places, &lanes, &turn.into()), &state, &weights);
            inner.push(Stmt::Assign { var: turn, value: other });
            inner
        });
        body.push(step);
        body.push(Stmt::Warp(WarpOp::CopyWait(0)));
        self.results(this, body, &state, block, (&rows, &pair));
    }

    /// Starts copies of rows of an operand, `rows` of them from `first` on; rows beyond the last are that one again.
    #[allow(clippy::too_many_arguments, reason = "a piece of an operand and its place in shared memory")]
    fn copy(
        &self,
        this: &mut Lowering,
        body: &mut Vec<Stmt>,
        block: &Block,
        (operand, head, extent): (usize, &Expr, i64),
        (first, length, rows): (&Expr, &Expr, i64),
        (buffer, to): (BufferId, &Expr),
        valid: &Expr,
    ) {
        let chunks = extent * 2 / CHUNK;
        let threads = WARPS * 32;
        for turn in 0..(rows * chunks + threads - 1) / threads {
            let number = Expr::Var(block.thread).plus(index(turn * threads));
            let row = assigned(this, body, "own", number.clone().over(index(chunks)));
            let chunk = assigned(this, body, "chunk", number.remainder(index(chunks)));
            let position = first.clone().plus(row.clone()).at_most(length.clone().minus(index(1)));
            let shape = this.operands[operand].shape.clone();
            let at = [block.batch.clone(), head.clone(), position, chunk.clone().times(index(CHUNK / 2))];
            let from_index = this.linear(&shape, &at);
            let from = this.buffer(Argument::Operand(operand));
            let to_index = to.clone().plus(place(row, chunk, chunks));
            let copy = WarpOp::CopyAsync { to: buffer, to_index, from, from_index, valid: valid.clone() };
            body.push(Stmt::Warp(copy));
        }
    }

    fn copy_queries(&self, this: &mut Lowering, body: &mut Vec<Stmt>, places: &Places, block: &Block) {
        let valid = Expr::Const(Scalar::integer(DType::Bool, 1));
        let rows = (&block.first_query, &block.q_len, WARPS * ROWS);
        let to = (places.buffer, &index(0));
        self.copy(this, body, block, (0, &block.head, self.depth), rows, to, &valid);
    }

    /// Starts the copies of the keys and values of a tile, of zeros from tile `end` on.
    fn copy_tile(
        &self,
        this: &mut Lowering,
        body: &mut Vec<Stmt>,
        (places, stage): (&Places, &Expr),
        block: &Block,
        (tile, end): (&Expr, &Expr),
    ) {
        let head = assigned(this, body, "head", block.head.clone().over(index(self.group)));
        let valid = assigned(this, body, "valid", tile.clone().less(end.clone()));
        let first = assigned(this, body, "first", tile.clone().times(index(KEYS)));
        let rows = (&first, &block.kv_len, KEYS);
        let keys = stage.clone().plus(index(places.keys));
        self.copy(this, body, block, (1, &head, self.depth), rows, (places.buffer, &keys), &valid);
        let values = stage.clone().plus(index(places.keys + places.values));
        self.copy(this, body, block, (2, &head, self.value_depth), rows, (places.buffer, &values), &valid);
        body.push(Stmt::Warp(WarpOp::CopyCommit));
    }

    /// The products of a warp's queries with the keys of a tile: eight columns each.
    fn scores(
        &self,
        this: &mut Lowering,
        body: &mut Vec<Stmt>,
        places: &Places,
        lanes: &Lanes,
        stage: &Expr,
    ) -> Vec<Var> {
        let zero = Expr::Splat(Box::new(single(0.0)), 4);
        let scores: Vec<Var> = (0..KEYS / COLUMNS)
            .map(|_| {
                let score = this.kernel.variable("score", Ty::vector(DType::F32, 4));
                body.push(Stmt::Assign { var: score, value: zero.clone() });
                score
            })
            .collect();
        let row = self.depth / 2;
        for step in 0..self.depth / 16 {
            let load = |this: &mut Lowering, at: Expr| {
                let into = this.kernel.variable("fragment", Ty::vector(DType::U32, 4));
                let buffer = places.buffer;
                (into, Stmt::Warp(WarpOp::LoadMatrices { into, buffer, index: at, transposed: false }))
            };
            let (a, stmt) = load(this, lanes.queries[step as usize].clone());
            body.push(stmt);
            for part in 0..KEYS / 16 {
                let at = stage.clone().plus(lanes.keys[step as usize].clone());
                let (b, stmt) = load(this, at.plus(index(places.keys + part * 16 * row)));
                body.push(stmt);
                for half in 0..2 {
                    let sum = scores[(2 * part + half) as usize];
                    body.push(self.multiply(sum, a.into(), columns(b, half)));
                }
            }
        }
        scores
    }

    fn multiply(&self, sum: Var, a: Expr, b: Expr) -> Stmt {
        Stmt::Warp(WarpOp::Multiply { sum, fragment: self.fragment, a, b })
    }

    /// Updates the largest scores and totals of both rows of a lane, and gives the weights as elements of the scores' fragments.
    fn weights(
        &self,
        this: &mut Lowering,
        body: &mut Vec<Stmt>,
        state: &State,
        scores: &[Var],
        first_key: &Expr,
        sights: &[[Expr; 2]],
    ) -> Vec<Vec<Var>> {
        let narrow = |this: &mut Lowering, body: &mut Vec<Stmt>, value: Expr| {
            // Beyond a tile on either side all is as at its ends.
            let value = value.minus(first_key.clone()).at_most(index(2 * KEYS)).at_least(index(-2));
            assigned(this, body, "bound", value.cast(DType::I64, DType::I32))
        };
        let none = single(f64::NEG_INFINITY);
        let mut weights: Vec<Vec<Var>> = vec![Vec::new(); scores.len()];
        let mut alphas = Vec::new();
        for (row, sight) in sights.iter().enumerate() {
            let high = narrow(this, body, sight[0].clone());
            let low = (self.window > 0).then(|| narrow(this, body, sight[1].clone()));
            let mut largest = Expr::Var(state.largest[row]);
            let mut values: Vec<[Var; 2]> = Vec::new();
            for (number, score) in scores.iter().enumerate() {
                let own = [0, 1].map(|beside| {
                    let column = COLUMNS * number as i64 + beside;
                    let column = Expr::Const(Scalar::integer(DType::I32, column));
                    let mut seen = column.clone().less_equal(high.clone());
                    if let Some(low) = &low {
                        seen = seen.both(low.clone().less(column));
                    }
                    let mut value =
                        call(Function::Mul, element(*score, 2 * row as i64 + beside), single(self.scale));
                    if self.softcap > 0.0 {
                        let inner = call(Function::Div, value, single(self.softcap));
                        let bent = Expr::call(Function::Tanh, vec![inner]);
                        value = call(Function::Mul, bent, single(self.softcap));
                    }
                    let (value, set) = this.assign("value", seen.choose(value, none.clone()));
                    body.push(set);
                    value
                });
                for value in own {
                    largest = call(Function::Max, largest, value.into());
                }
                values.push(own);
            }
            let (all, set) = this.assign("largest", largest);
            body.push(set);
            combine(this, body, all, Function::Max);
            // A row that has seen nothing yet has no largest score.
            let nothing = call(Function::Equal, all.into(), none.clone());
            let shift = assigned(this, body, "shift", nothing.choose(single(0.0), all.into()));
            let old = call(Function::Sub, state.largest[row].into(), shift.clone());
            let alpha = assigned(this, body, "alpha", Expr::call(Function::Exp, vec![old]));
            body.push(Stmt::Assign { var: state.largest[row], value: all.into() });
            let mut total = call(Function::Mul, state.total[row].into(), alpha.clone());
            for (value, weights) in values.iter().zip(&mut weights) {
                for own in value {
                    let shifted = call(Function::Sub, (*own).into(), shift.clone());
                    let (weight, set) = this.assign("weight", Expr::call(Function::Exp, vec![shifted]));
                    body.push(set);
                    total = call(Function::Add, total, weight.into());
                    weights.push(weight);
                }
            }
            body.push(Stmt::Assign { var: state.total[row], value: total });
            alphas.push(alpha);
        }
        let factors =
            Expr::Shuffle(Box::new(alphas[0].clone()), Box::new(alphas[1].clone()), vec![0, 0, 1, 1]);
        for sum in &state.sums {
            let value = call(Function::Mul, Expr::Var(*sum), factors.clone());
            body.push(Stmt::Assign { var: *sum, value });
        }
        weights
    }

    /// Adds the products of the weights with the values of a tile.
    fn add_values(
        &self,
        this: &mut Lowering,
        body: &mut Vec<Stmt>,
        (places, lanes, stage): (&Places, &Lanes, &Expr),
        state: &State,
        weights: &[Vec<Var>],
    ) {
        let row = self.value_depth / 2;
        for step in 0..KEYS / 16 {
            // Two neighbours of a row in a word: those of the first eight keys, then of the others.
            let mut words = Vec::new();
            for part in 0..2 {
                for upper in 0..2 {
                    let [low, high] =
                        [0, 1].map(|beside: usize| weights[(2 * step + part) as usize][2 * upper + beside]);
                    words.push(self.word(this, body, low, high));
                }
            }
            let pair =
                |a: &Expr, b: &Expr| Expr::Shuffle(Box::new(a.clone()), Box::new(b.clone()), vec![0, 1]);
            let (first, second) = (pair(&words[0], &words[1]), pair(&words[2], &words[3]));
            let a = Expr::Shuffle(Box::new(first), Box::new(second), vec![0, 1, 2, 3]);
            for part in 0..self.value_depth / 16 {
                let at = stage.clone().plus(lanes.values[part as usize].clone());
                let at = at.plus(index(places.keys + places.values + step * 16 * row));
                let into = this.kernel.variable("fragment", Ty::vector(DType::U32, 4));
                let buffer = places.buffer;
                body.push(Stmt::Warp(WarpOp::LoadMatrices { into, buffer, index: at, transposed: true }));
                for half in 0..2 {
                    let sum = state.sums[(2 * part + half) as usize];
                    body.push(self.multiply(sum, a.clone(), columns(into, half)));
                }
            }
        }
    }

    /// Two weights as 16-bit floats in a word.
    fn word(&self, this: &mut Lowering, body: &mut Vec<Stmt>, low: Var, high: Var) -> Expr {
        let [low, high] = [low, high].map(|value| {
            let short = Expr::Var(value).cast(DType::F32, self.dtype);
            let code = Expr::Call(ScalarOp::Bitcast(DType::U16), vec![short]);
            code.cast(DType::U16, DType::U32)
        });
        let sixteen = Expr::Const(Scalar::integer(DType::U32, 16));
        let value = call(Function::BitOr, low, call(Function::ShiftLeft, high, sixteen));
        assigned(this, body, "word", value)
    }

    /// Writes the rows of a lane that are inside.
    fn results(
        &self,
        this: &mut Lowering,
        body: &mut Vec<Stmt>,
        state: &State,
        block: &Block,
        (rows, pair): (&[Expr; 2], &Expr),
    ) {
        for (row, position) in rows.iter().enumerate() {
            combine(this, body, state.total[row], Function::Add);
            let total = Expr::Var(state.total[row]);
            let empty = call(Function::Equal, total.clone(), single(0.0));
            let factor = empty.choose(single(0.0), call(Function::Div, single(1.0), total));
            let factor = assigned(this, body, "factor", factor);
            let mut then = Vec::new();
            for (number, sum) in state.sums.iter().enumerate() {
                let channel = index(COLUMNS * number as i64).plus(pair.clone().times(index(2)));
                let at = [block.batch.clone(), block.head.clone(), position.clone(), channel];
                let picks = vec![2 * row as u16, 2 * row as u16 + 1];
                let two = Expr::Shuffle(Box::new((*sum).into()), Box::new((*sum).into()), picks);
                let value = call(Function::Mul, two, Expr::Splat(Box::new(factor.clone()), 2));
                then.push(this.store(Argument::Result(0), &at, value.cast(DType::F32, self.dtype)));
            }
            let condition = position.clone().less(block.q_len.clone());
            body.push(Stmt::If { condition, then, otherwise: Vec::new() });
        }
    }
}

/// The right fragment of one of the two times eight columns that a load gives.
fn columns(pair: Var, half: i64) -> Expr {
    let first = 2 * half as u16;
    Expr::Shuffle(Box::new(pair.into()), Box::new(pair.into()), vec![first, first + 1])
}

/// Combines a value over the four lanes of a row.
fn combine(this: &mut Lowering, body: &mut Vec<Stmt>, value: Var, function: Function) {
    for mask in [1, 2] {
        let other = this.kernel.variable("other", Ty::scalar(DType::F32));
        body.push(Stmt::Warp(WarpOp::Exchange { into: other, value: value.into(), mask }));
        body.push(Stmt::Assign { var: value, value: call(function, value.into(), other.into()) });
    }
}

/// The running softmax of both rows of a lane.
struct State {
    largest: [Var; 2],
    total: [Var; 2],
    /// Weighted sums, eight channels each.
    sums: Vec<Var>,
}

impl State {
    fn new(this: &mut Lowering, body: &mut Vec<Stmt>, columns: i64) -> State {
        let mut start = |name: &str, value: f64| {
            let (var, set) = this.assign(name, single(value));
            body.push(set);
            var
        };
        let largest = [start("largest", f64::NEG_INFINITY), start("largest", f64::NEG_INFINITY)];
        let total = [start("total", 0.0), start("total", 0.0)];
        let sums = (0..columns)
            .map(|_| {
                let sum = this.kernel.variable("sum", Ty::vector(DType::F32, 4));
                body.push(Stmt::Assign { var: sum, value: Expr::Splat(Box::new(single(0.0)), 4) });
                sum
            })
            .collect();
        State { largest, total, sums }
    }
}

/// Where a lane's rows of matrices lie, by step along the depth or pair of matrices along the channels.
struct Lanes {
    queries: Vec<Expr>,
    keys: Vec<Expr>,
    values: Vec<Expr>,
}

impl Lanes {
    fn new(this: &mut Lowering, body: &mut Vec<Stmt>, flash: &Flash, block: &Block) -> Lanes {
        let lane = block.lane;
        let eight = assigned(this, body, "eight", lane.clone().remainder(index(8)));
        let odd = assigned(this, body, "odd", lane.clone().over(index(8)).remainder(index(2)));
        let upper = assigned(this, body, "upper", lane.clone().over(index(16)));
        let (chunks, value_chunks) = (flash.depth * 2 / CHUNK, flash.value_depth * 2 / CHUNK);
        let mut at =
            |row: Expr, chunk: Expr, chunks: i64| assigned(this, body, "matrices", place(row, chunk, chunks));
        let own = block.warp.clone().times(index(ROWS));
        let low = eight.clone().plus(odd.clone().times(index(8)));
        let high = eight.plus(upper.clone().times(index(8)));
        // Rows, rows + 8, then the same a chunk on; keys and a chunk on, then keys + 8; keys, keys + 8, then a chunk on.
        let steps = 0..flash.depth / 16;
        let queries = steps
            .clone()
            .map(|step| at(own.clone().plus(low.clone()), upper.clone().plus(index(2 * step)), chunks));
        let queries = queries.collect();
        let keys = steps.map(|step| at(high.clone(), odd.clone().plus(index(2 * step)), chunks)).collect();
        let values = (0..flash.value_depth / 16)
            .map(|part| at(low.clone(), upper.clone().plus(index(2 * part)), value_chunks))
            .collect();
        Lanes { queries, keys, values }
    }
}
