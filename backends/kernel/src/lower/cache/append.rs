//! Rows written into a cache in place, rounded to its format.

use tcc_ir::cache::{CacheFormat, CacheStorage, SCALE_GROUP};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

use super::memory::{Cache, Channel, Place};
use crate::ir::{Expr, LoopKind, Stmt};
use crate::lower::rows::Line;
use crate::lower::{Argument, LowerError, Lowering};

/// Writes rows into the cache in place. A task is a head, so that of equal slots the last one wins.
pub(super) fn append(lowering: &mut Lowering, storage: &CacheStorage) -> Result<(), LowerError> {
    let x = lowering.operands[1].clone();
    let cache = Cache::of(lowering, 0, storage, &x.shape[2])?;
    let count = lowering.dim(&x.shape[0]);
    let slot_type = lowering.operands[2].dtype();
    lowering.read_write(Argument::Operand(0));
    let heads = Expr::index(cache.heads);
    let body = lowering.for_loop("head", heads, LoopKind::Parallel, |this, head| {
        let slots = cache.slots(this);
        vec![this.for_loop("row", count, LoopKind::Serial, |this, row| {
            let slot = this.load(Argument::Operand(2), std::slice::from_ref(&row));
            let (slot, assign) = this.assign("slot", slot.cast(slot_type, DType::I64));
            let slot = Expr::Var(slot);
            let inside = Expr::index(0).less_equal(slot.clone()).both(slot.clone().less(slots));
            let place = cache.place(&slot, &head);
            let then = append_row(this, &cache, &place, &row, &head);
            vec![assign, Stmt::If { condition: inside, then, otherwise: vec![] }]
        })]
    });
    lowering.launch(vec![body], false);
    Ok(())
}

fn append_row(this: &mut Lowering, cache: &Cache, place: &Place, row: &Expr, head: &Expr) -> Vec<Stmt> {
    let from = this.operands[1].dtype();
    let value = |this: &mut Lowering, channel: Expr| {
        this.load(Argument::Operand(1), &[row.clone(), head.clone(), channel]).cast(from, DType::F32)
    };
    let memory = this.buffer(Argument::Operand(0));
    let Some(largest_code) = cache.storage.format.largest_code() else {
        let dtype = cache.dtype(this);
        return cache.channels(this, place, &mut |this, channel, _| {
            let stored = value(this, channel.index.clone()).cast(DType::F32, dtype);
            vec![Stmt::Store {
                buffer: memory,
                index: cache.code_index(place, channel),
                value: stored,
                valid: None,
            }]
        });
    };
    let limit = |sign: f64| Expr::constant(DType::F32, sign * largest_code as f64);
    let scales = this.read_write(Argument::View(0, DType::F16));
    let groups = Expr::index(cache.depth / SCALE_GROUP);
    vec![this.for_loop("group", groups, LoopKind::Serial, |this, group| {
        let start = group.clone().times(Expr::index(SCALE_GROUP));
        let lanes = this.tuning.lanes(DType::F32);
        let line = Line { extent: Expr::index(SCALE_GROUP), lanes, warp: None };
        let (mut stmts, largest) = line.reduce(this, ReduceKind::Max, DType::F32, &mut |this, at| {
            (vec![], Expr::call(Function::Abs, vec![value(this, start.clone().plus(at))]))
        });
        let scale = Expr::call(Function::Div, vec![Expr::Var(largest), limit(1.0)]);
        let (stored, set_stored) = this.assign("stored", scale.cast(DType::F32, DType::F16));
        let (scale, set_scale) = this.assign("scale", Expr::Var(stored).cast(DType::F16, DType::F32));
        stmts.extend([
            set_stored,
            set_scale,
            Stmt::Store {
                buffer: scales,
                index: cache.scale_index(place, &group),
                value: Expr::Var(stored),
                valid: None,
            },
        ]);
        // A group of zeros has the scale 0: any divisor gives codes of 0.
        let some = Expr::constant(DType::F32, 0.0).less(Expr::Var(scale));
        let divisor = some.choose(Expr::Var(scale), Expr::constant(DType::F32, f64::INFINITY));
        let (divisor, set_divisor) = this.assign("divisor", divisor);
        stmts.push(set_divisor);
        let code = |this: &mut Lowering, channel: &Channel| {
            let x = value(this, channel.number(cache.storage.format));
            let x = Expr::call(Function::Div, vec![x, Expr::Var(divisor)]);
            let x = Expr::call(Function::Round, vec![x]);
            let x = Expr::call(Function::Min, vec![x, limit(1.0)]);
            Expr::call(Function::Max, vec![x, limit(-1.0)]).cast(DType::F32, DType::I32)
        };
        let halves = if cache.storage.format == CacheFormat::I4 { 1 } else { 2 };
        stmts.push(this.for_loop("half", Expr::index(halves), LoopKind::Unroll, |this, half| {
            let part = Expr::index(SCALE_GROUP / 2);
            vec![this.for_loop("index", part, LoopKind::Vector, |this, index| {
                let channel = Channel { group: group.clone(), half: half.clone(), index };
                let stored = if cache.storage.format == CacheFormat::I4 {
                    let upper = Channel { half: Expr::index(1), ..channel.clone() };
                    let eight = Expr::constant(DType::I32, 8.0);
                    let mut biased = |channel: &Channel| {
                        Expr::call(Function::Add, vec![code(this, channel), eight.clone()])
                    };
                    let (low, high) = (biased(&channel), biased(&upper));
                    let high = Expr::call(Function::ShiftLeft, vec![high, Expr::constant(DType::I32, 4.0)]);
                    Expr::call(Function::BitOr, vec![low, high]).cast(DType::I32, DType::U8)
                } else {
                    code(this, &channel).cast(DType::I32, DType::I8)
                };
                let index = cache.code_index(place, &channel);
                vec![Stmt::Store { buffer: memory, index, value: stored, valid: None }]
            })]
        }));
        stmts
    })]
}
