//! Attention of whole tensors with an online softmax, and rotary embedding.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::types::TensorType;
use tcc_ir::words::ReduceKind;

use super::rows::Line;
use super::tiled_attention::{Block, Scores, Tile, TileState, inverse};
use super::{Argument, LowerError, Lowering};
use crate::ir::{Access, Expr, LoopKind, Space, Stmt};

/// Query rows of a tile.
const TILE_ROWS: i64 = 48;

/// Attention of whole tensors: on a GPU's tensor cores where it has them for the type, by tiles where the shapes of a head are known and vectors are worth it, else row by row.
pub fn attention(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    if let Some(gpu) = lowering.tuning.gpu
        && super::gpu::attention(lowering, &gpu, operator)
    {
        return Ok(());
    }
    match Tiled::of(lowering, operator) {
        Some(tiled) => tiled.lower(lowering),
        None => by_rows(lowering, operator),
    }
}

/// What attention by tiles needs to know at compile time.
struct Tiled {
    scale: f64,
    scores: Scores,
    causal: bool,
    window: i64,
    /// Query heads of a key head.
    group: i64,
    /// Queries of a tile.
    queries: i64,
    tile: Tile,
}

impl Tiled {
    fn of(lowering: &Lowering, operator: &Operator) -> Option<Tiled> {
        let Operator::Attention { scale, softcap, causal, window } = operator else { return None };
        let (q, k, v) = (&lowering.operands[0], &lowering.operands[1], &lowering.operands[2]);
        let extent = |dim: &Dim| dim.as_const().filter(|extent| *extent > 0);
        let (depth, value_depth) = (extent(&q.shape[3])?, extent(&v.shape[3])?);
        let (heads, shared) = (extent(&q.shape[1])?, extent(&k.shape[1])?);
        let wide = lowering.tuning.lanes(DType::F32) >= 4 && lowering.tuning.gpu.is_none();
        // Vectors that are mostly empty gain nothing.
        let lanes = i64::from(lowering.tuning.lanes(DType::F32));
        if !wide || q.dtype().bits() > 32 || value_depth * 2 < lanes {
            return None;
        }
        let group = heads / shared;
        let queries = (TILE_ROWS / group).max(1).min(extent(&q.shape[2]).unwrap_or(i64::MAX));
        Some(Tiled {
            scale: scale.get(),
            scores: Scores { softcap: softcap.get(), windowed: *window > 0, sinks: 0 },
            causal: *causal,
            window: *window as i64,
            group,
            queries,
            tile: Tile::choose(queries * group, depth, value_depth, lowering.tuning),
        })
    }

    fn lower(&self, lowering: &mut Lowering) -> Result<(), LowerError> {
        let (q, k) = (lowering.operands[0].clone(), lowering.operands[1].clone());
        // Lanes are keys, so the channels of a key must not lie side by side.
        let perm = [0, 1, 3, 2];
        let shape = perm.iter().map(|axis| k.shape[*axis].clone()).collect();
        let keys = lowering.temporary(TensorType::new(k.dtype(), shape));
        super::transposition::transpose_into(lowering, Argument::Operand(1), keys, &perm)?;
        let tiles = q.shape[2].ceil_div(&Dim::Const(self.queries));
        let domain = [q.shape[0].clone(), k.shape[1].clone(), tiles];
        let body = lowering.parallel_rows(&domain, &mut |this, at| self.task(this, keys, at));
        lowering.launch(body, false);
        Ok(())
    }

    /// One tile of queries of one key head.
    fn task(&self, this: &mut Lowering, keys: Argument, at: &[Expr]) -> Vec<Stmt> {
        let (batch, head) = (&at[0], &at[1]);
        let (q_shape, k_shape) = (this.operands[0].shape.clone(), this.operands[1].shape.clone());
        let (q_len, kv_len) = (this.dim(&q_shape[2]), this.dim(&k_shape[2]));
        let dtype = this.operands[0].dtype();
        let state = TileState::new(this, &self.tile, self.scores);
        let first_query = at[2].clone().times(Expr::index(self.queries));
        let here = q_len.clone().minus(first_query.clone()).at_most(Expr::index(self.queries));
        let mut stmts = state.start(this);
        let lanes = this.tuning.lanes(DType::F32);
        let scale = Expr::constant(DType::F32, self.scale);
        let last = kv_len.clone().minus(Expr::index(1));
        // The last key that query `i` sees.
        let high = |query: Expr| match self.causal {
            true => query
                .plus(kv_len.clone())
                .minus(q_len.clone())
                .at_most(last.clone())
                .at_least(Expr::index(-1)),
            false => last.clone(),
        };
        // It sees keys behind this one only.
        let low = |query: Expr| {
            query
                .plus(kv_len.clone())
                .minus(q_len.clone())
                .minus(Expr::index(self.window))
                .at_least(Expr::index(-1))
        };
        let row_of = |query: &Expr, g: &Expr| query.clone().times(Expr::index(self.group)).plus(g.clone());
        let head_of = |g: &Expr| head.clone().times(Expr::index(self.group)).plus(g.clone());
        stmts.push(this.for_loop("query", here.clone(), LoopKind::Serial, |this, query| {
            vec![this.for_loop("g", Expr::index(self.group), LoopKind::Serial, |this, g| {
                let row = row_of(&query, &g);
                let position = first_query.clone().plus(query.clone());
                let store = |buffer, value| Stmt::Store { buffer, index: row.clone(), value, valid: None };
                let mut stmts = vec![store(state.high, high(position.clone()))];
                if self.scores.windowed {
                    stmts.push(store(state.low, low(position.clone())));
                }
                let depth = Expr::index(self.tile.depth);
                stmts.extend(this.vector_line(Expr::index(0), depth.clone(), lanes, &mut |this, channel| {
                    let at = [batch.clone(), head_of(&g), position.clone(), channel.clone()];
                    let value = this.load(Argument::Operand(0), &at).cast(dtype, DType::F32);
                    let value = Expr::call(Function::Mul, vec![value, scale.clone()]);
                    let index = row.clone().times(depth.clone()).plus(channel);
                    vec![Stmt::Store { buffer: state.queries, index, value, valid: None }]
                }));
                stmts
            })]
        }));
        let width = Expr::index(self.tile.keys());
        let last_query = first_query.clone().plus(here.clone()).minus(Expr::index(1));
        let (end, set_end) = this.assign("end", high(last_query).plus(Expr::index(1)));
        let start = match self.window {
            0 => Expr::index(0),
            _ => low(first_query.clone()).plus(Expr::index(1)).over(width.clone()).times(width.clone()),
        };
        let (start, set_start) = this.assign("start", start);
        stmts.extend([set_end, set_start]);
        let blocks = Expr::Var(end).minus(Expr::Var(start)).at_least(Expr::index(0)).over_up(width.clone());
        stmts.push(this.for_loop("block", blocks, LoopKind::Serial, |this, block| {
            let (first, set_first) = this.assign("first", Expr::Var(start).plus(block.times(width.clone())));
            let count = Expr::Var(end).minus(Expr::Var(first)).at_most(width.clone());
            let (count, set_count) = this.assign("count", count);
            let first = Expr::Var(first);
            let lane_count = Expr::index(self.tile.lanes);
            let whole = k_shape[2].as_const().is_some_and(|length| length % self.tile.keys() == 0);
            let mut key = |this: &mut Lowering, at: &[Expr]| {
                let own = first.clone().plus(at[0].clone().times(lane_count.clone())).plus(at[2].clone());
                let rest = (!whole).then(|| kv_len.clone().minus(own.clone()));
                let loaded = this.load(keys, &[batch.clone(), head.clone(), at[1].clone(), own]);
                limited(loaded, rest).cast(dtype, DType::F32)
            };
            let mut value_base =
                |_: &mut Lowering, at: &[Expr]| first.clone().plus(at[0].clone().times(lane_count.clone()));
            let mut value = |this: &mut Lowering, at: &[Expr]| {
                let own = [batch.clone(), head.clone(), at[0].clone().plus(at[1].clone()), at[2].clone()];
                let depth = self.tile.value_depth;
                let rest = (depth % self.tile.lanes != 0).then(|| Expr::index(depth).minus(at[2].clone()));
                limited(this.load(Argument::Operand(2), &own), rest).cast(dtype, DType::F32)
            };
            let mut bias = |this: &mut Lowering, at: &[Expr]| {
                let group = Expr::index(self.group);
                let (query, g) = (at[0].clone().over(group.clone()), at[0].clone().remainder(group));
                // Rows that only fill up the tile take the mask of the last query.
                let query = first_query.clone().plus(query).at_most(q_len.clone().minus(Expr::index(1)));
                let own = first.clone().plus(at[1].clone());
                let mask = this.operands[3].clone();
                let spread = mask.shape.last().is_some_and(|dim| !dim.is(1)) && !whole;
                let rest = spread.then(|| kv_len.clone().minus(own.clone()));
                let position = [batch.clone(), head_of(&g), query, own];
                limited(this.load_broadcast(Argument::Operand(3), &position), rest)
                    .cast(mask.dtype(), DType::F32)
            };
            let masked = this.operands.len() > 3;
            let block = Block {
                first: first.clone(),
                count: Expr::Var(count),
                key: &mut key,
                value_base: &mut value_base,
                value: &mut value,
                bias: if masked { Some(&mut bias) } else { None },
            };
            let mut stmts = vec![set_first, set_count];
            stmts.extend(state.block(this, block));
            stmts
        }));
        stmts.push(this.for_loop("query", here, LoopKind::Serial, |this, query| {
            vec![this.for_loop("g", Expr::index(self.group), LoopKind::Serial, |this, g| {
                let row = row_of(&query, &g);
                let (total, set_total) = this.assign("total", state.statistics(&row).1);
                let (factor, set_factor) = this.assign("factor", inverse(Expr::Var(total)));
                let position = first_query.clone().plus(query.clone());
                let mut stmts = vec![set_total, set_factor];
                stmts.extend(state.results(
                    this,
                    &row,
                    Some(Expr::Var(factor)),
                    &mut |this, channel, value| {
                        let at = [batch.clone(), head_of(&g), position.clone(), channel];
                        this.store(Argument::Result(0), &at, value.cast(DType::F32, dtype))
                    },
                ));
                stmts
            })]
        }));
        stmts
    }
}

/// A load of which only elements with a positive `rest` are read.
fn limited(load: Expr, rest: Option<Expr>) -> Expr {
    match (load, rest) {
        (Expr::Load { buffer, index, lanes, .. }, Some(rest)) => {
            Expr::Load { buffer, index, lanes, valid: Some(Box::new(rest)) }
        }
        (load, _) => load,
    }
}

/// One task a query row: scores of a key at a time with a running maximum and sum, so that no score matrix exists
/// (FlashAttention's online softmax).
fn by_rows(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let Operator::Attention { scale, softcap, causal, window } = operator else {
        return Err(lowering.malformed("not attention"));
    };
    let (q, k, v) =
        (lowering.operands[0].clone(), lowering.operands[1].clone(), lowering.operands[2].clone());
    let dtype = q.dtype();
    let compute = if dtype.bits() < 32 { DType::F32 } else { dtype };
    let lanes = lowering.tuning.lanes(compute);
    let masked = lowering.operands.len() > 3;
    let (q_heads, kv_heads) = (lowering.dim(&q.shape[1]), lowering.dim(&k.shape[1]));
    let (q_len, kv_len) = (lowering.dim(&q.shape[2]), lowering.dim(&k.shape[2]));
    let (depth, value_depth) = (lowering.dim(&q.shape[3]), lowering.dim(&v.shape[3]));
    let sums =
        lowering.kernel.buffer("values", compute, Space::Scratch, value_depth.clone(), Access::ReadWrite);
    let constant = |value: f64| Expr::constant(compute, value);
    let binary = |function: Function, a: Expr, b: Expr| Expr::call(function, vec![a, b]);
    let stmts = lowering.parallel_rows(&q.shape[..3], &mut |this, at| {
        let (batch, head, row) = (at[0].clone(), at[1].clone(), at[2].clone());
        let kv_head = head.clone().times(kv_heads.clone()).over(q_heads.clone());
        let values = Line { extent: value_depth.clone(), lanes, warp: None };
        let (largest, set_largest) = this.assign("largest", constant(f64::NEG_INFINITY));
        let (total, set_total) = this.assign("total", constant(0.0));
        let mut stmts = vec![set_largest, set_total];
        stmts.extend(values.for_each(this, &mut |_, index| {
            vec![Stmt::Store { buffer: sums, index, value: constant(0.0), valid: None }]
        }));
        // Keys that the row sees: `first..end`.
        let shift = kv_len.clone().minus(q_len.clone());
        let end = match causal {
            true => row
                .clone()
                .plus(shift.clone())
                .plus(Expr::index(1))
                .at_least(Expr::index(0))
                .at_most(kv_len.clone()),
            false => kv_len.clone(),
        };
        let first = match window {
            0 => Expr::index(0),
            window => row.clone().plus(shift).plus(Expr::index(1 - *window as i64)).at_least(Expr::index(0)),
        };
        let count = end.minus(first.clone()).at_least(Expr::index(0));
        stmts.push(this.for_loop("key", count, LoopKind::Serial, |this, key| {
            let key = first.plus(key);
            let line = Line { extent: depth.clone(), lanes, warp: None };
            let (mut stmts, dot) = line.reduce(this, ReduceKind::Sum, compute, &mut |this, channel| {
                let a = this
                    .load(Argument::Operand(0), &[batch.clone(), head.clone(), row.clone(), channel.clone()]);
                let b =
                    this.load(Argument::Operand(1), &[batch.clone(), kv_head.clone(), key.clone(), channel]);
                (vec![], binary(Function::Mul, a.cast(dtype, compute), b.cast(dtype, compute)))
            });
            let mut score = binary(Function::Mul, Expr::Var(dot), constant(scale.get()));
            if softcap.get() != 0.0 {
                let cap = constant(softcap.get());
                let inner = Expr::call(Function::Tanh, vec![binary(Function::Div, score, cap.clone())]);
                score = binary(Function::Mul, inner, cap);
            }
            if masked {
                let mask_type = this.operands[3].dtype();
                let position = [batch.clone(), head.clone(), row.clone(), key.clone()];
                let mask = this.load_broadcast(Argument::Operand(3), &position).cast(mask_type, compute);
                score = binary(Function::Add, score, mask);
            }
            let (score, set_score) = this.assign("score", score);
            stmts.push(set_score);
            // A row that has seen only minus infinity keeps weights of zero instead of NaN.
            let next = binary(Function::Max, Expr::Var(largest), Expr::Var(score));
            let (next, set_next) = this.assign("next", next);
            let finite = constant(f64::NEG_INFINITY).less(Expr::Var(next));
            let (base, set_base) = this.assign("base", finite.choose(Expr::Var(next), constant(0.0)));
            let exponential =
                |value: Expr| Expr::call(Function::Exp, vec![binary(Function::Sub, value, Expr::Var(base))]);
            let (decay, set_decay) = this.assign("decay", exponential(Expr::Var(largest)));
            let (weight, set_weight) = this.assign("weight", exponential(Expr::Var(score)));
            let sum = Expr::Fma(
                Box::new(Expr::Var(total)),
                Box::new(Expr::Var(decay)),
                Box::new(Expr::Var(weight)),
            );
            stmts.extend([
                set_next,
                set_base,
                set_decay,
                set_weight,
                Stmt::Assign { var: total, value: sum },
                Stmt::Assign { var: largest, value: Expr::Var(next) },
            ]);
            stmts.extend(values.for_each(this, &mut |this, index| {
                let at = [batch.clone(), kv_head.clone(), key.clone(), index.clone()];
                let value = this.load(Argument::Operand(2), &at).cast(dtype, compute);
                let scaled = binary(Function::Mul, Expr::load(sums, index.clone()), Expr::Var(decay));
                let value = Expr::Fma(Box::new(value), Box::new(Expr::Var(weight)), Box::new(scaled));
                vec![Stmt::Store { buffer: sums, index, value, valid: None }]
            }));
            stmts
        }));
        // A row that sees nothing is zero.
        let seen = constant(0.0).less(Expr::Var(total));
        let inverse = binary(Function::Div, constant(1.0), Expr::Var(total));
        let (inverse, set_inverse) = this.assign("inverse", seen.choose(inverse, constant(0.0)));
        stmts.push(set_inverse);
        stmts.extend(values.for_each(this, &mut |this, index| {
            let value = binary(Function::Mul, Expr::load(sums, index.clone()), Expr::Var(inverse));
            let at = [batch.clone(), head.clone(), row.clone(), index];
            vec![this.store(Argument::Result(0), &at, value.cast(compute, dtype))]
        }));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Rotary position embedding.
pub fn rope(lowering: &mut Lowering, interleaved: bool) -> Result<(), LowerError> {
    let x = lowering.operands[0].clone();
    let dtype = x.dtype();
    let compute = if dtype.bits() < 32 { DType::F32 } else { dtype };
    let last = x.rank() - 1;
    let half = x.shape[last].floor_div(&tcc_ir::dim::Dim::Const(2));
    let mut domain = x.shape.clone();
    domain[last] = half.clone();
    let lanes = if interleaved { 1 } else { lowering.tuning.lanes(compute) };
    let half = lowering.dim(&half);
    let stmts = lowering.parallel_nest(&domain, lanes, &mut |this, at| {
        let (mut low, mut high) = (at.to_vec(), at.to_vec());
        if interleaved {
            low[last] = at[last].clone().times(Expr::index(2));
            high[last] = low[last].clone().plus(Expr::index(1));
        } else {
            high[last] = at[last].clone().plus(half.clone());
        }
        let read = |this: &mut Lowering, operand: usize, at: &[Expr]| {
            let from = this.operands[operand].dtype();
            this.load_broadcast(Argument::Operand(operand), at).cast(from, compute)
        };
        let (a, b) = (read(this, 0, &low), read(this, 0, &high));
        let (cos, sin) = (read(this, 1, at), read(this, 2, at));
        let product = |x: &Expr, y: &Expr| Expr::call(Function::Mul, vec![x.clone(), y.clone()]);
        let first = Expr::call(Function::Sub, vec![product(&a, &cos), product(&b, &sin)]);
        let second = Expr::call(Function::Add, vec![product(&b, &cos), product(&a, &sin)]);
        let (first, set_first) = this.assign("first", first.cast(compute, dtype));
        let (second, set_second) = this.assign("second", second.cast(compute, dtype));
        let store_first = this.store(Argument::Result(0), &low, Expr::Var(first));
        let store_second = this.store(Argument::Result(0), &high, Expr::Var(second));
        vec![set_first, set_second, store_first, store_second]
    });
    lowering.launch(stmts, false);
    Ok(())
}
