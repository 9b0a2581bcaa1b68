//! Attention with an online softmax, and rotary embedding.

use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

use super::rows::Line;
use super::{Argument, LowerError, Lowering};
use crate::ir::{Access, Expr, LoopKind, Space, Stmt};

/// One task a query row: scores of a key at a time with a running maximum and sum, so that no score matrix exists
/// (FlashAttention's online softmax).
pub fn attention(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
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
        let values = Line { extent: value_depth.clone(), lanes };
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
            let line = Line { extent: depth.clone(), lanes };
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
