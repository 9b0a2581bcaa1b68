//! Reductions over one line of memory inside a larger kernel: what softmax, normalization and attention share.

use tcc_ir::dtype::DType;
use tcc_ir::words::ReduceKind;

use super::Lowering;
use super::reduce::{combine, neutral};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Var};

/// What gives the value at a position, with the statements that it needs.
pub type Element<'e> = dyn FnMut(&mut Lowering, Expr) -> (Vec<Stmt>, Expr) + 'e;

/// The elements of a line and how they are visited.
pub struct Line {
    /// Number of elements.
    pub extent: Expr,
    /// Lanes of the vectors over them; 1 where the elements are not consecutive.
    pub lanes: u16,
    /// The lane of a GPU warp that shares the line.
    pub warp: Option<Expr>,
}

impl Line {
    /// A line that a warp shares where it is given. Lines that begin anywhere have no accesses of several elements: then
    /// neighbours go to neighbouring lanes of the warp.
    pub fn shared(extent: Expr, lanes: u16, warp: Option<Expr>) -> Line {
        let aligned = extent.as_index().is_some_and(|extent| extent % i64::from(lanes) == 0);
        let lanes = if warp.is_none() || aligned { lanes } else { 1 };
        Line { extent, lanes, warp }
    }

    /// Visits every element without a result.
    pub fn for_each(
        &self,
        this: &mut Lowering,
        body: &mut dyn FnMut(&mut Lowering, Expr) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let Some(lane) = &self.warp else {
            return this.vector_line(Expr::index(0), self.extent.clone(), self.lanes, body);
        };
        // Vectors and the rest are visited alike; both closures need the body.
        let body = std::cell::RefCell::new(body);
        this.lane_line(
            lane,
            &self.extent,
            self.lanes,
            &mut |this, position, _| (body.borrow_mut())(this, position),
            &mut |this, position| (body.borrow_mut())(this, position),
        )
    }

    /// Reduces the values that `element` gives, as type `dtype`; the partial results of `lanes` lanes are combined last, in
    /// an order that depends on the extent only. Returns the variable that holds the result.
    pub fn reduce(
        &self,
        this: &mut Lowering,
        kind: ReduceKind,
        dtype: DType,
        element: &mut Element,
    ) -> (Vec<Stmt>, Var) {
        let (tail, start) = this.assign("tail", neutral(kind, dtype));
        let mut stmts = vec![start];
        if self.lanes == 1 && self.warp.is_none() {
            stmts.push(this.for_loop("s", self.extent.clone(), LoopKind::Serial, |this, at| {
                let (mut stmts, value) = element(this, at);
                let value = Expr::call(combine(kind), vec![Expr::Var(tail), value]);
                stmts.push(Stmt::Assign { var: tail, value });
                stmts
            }));
            return (stmts, tail);
        }
        let width = Expr::index(i64::from(self.lanes));
        let chains = if self.warp.is_some() { 1 } else { CHAINS };
        let all = Expr::index(i64::from(self.lanes) * chains);
        let partial = this.kernel.buffer("partial", dtype, Space::Register, all.clone(), Access::ReadWrite);
        stmts.push(fill(this, partial, all.clone(), neutral(kind, dtype)));
        if let Some(lane) = &self.warp {
            let element = std::cell::RefCell::new(element);
            stmts.extend(this.lane_line(
                lane,
                &self.extent,
                self.lanes,
                &mut |this, position, number| {
                    let (mut stmts, value) = (element.borrow_mut())(this, position);
                    let value = Expr::call(combine(kind), vec![Expr::load(partial, number.clone()), value]);
                    stmts.push(Stmt::Store { buffer: partial, index: number, value, valid: None });
                    stmts
                },
                &mut |this, position| {
                    let (mut stmts, value) = (element.borrow_mut())(this, position);
                    let value = Expr::call(combine(kind), vec![Expr::Var(tail), value]);
                    stmts.push(Stmt::Assign { var: tail, value });
                    stmts
                },
            ));
            let total = self.total(this, kind, partial, tail, &mut stmts);
            stmts.extend(this.combine_lanes(kind, dtype, total));
            return (stmts, total);
        }
        // Vectors in groups, so that no vector waits for the one before, then single ones.
        let mut done = Expr::index(0);
        for step in [all, width.clone()] {
            let start = done.clone();
            let vectors = self.extent.clone().minus(start.clone()).over(step.clone());
            if vectors.as_index() == Some(0) {
                continue;
            }
            stmts.push(this.for_loop("v", vectors.clone(), LoopKind::Serial, |this, vector| {
                vec![this.for_loop("lane", step.clone(), LoopKind::Vector, |this, lane| {
                    let position = start.plus(vector.times(step.clone())).plus(lane.clone());
                    let (mut stmts, value) = element(this, position);
                    let value = Expr::call(combine(kind), vec![Expr::load(partial, lane.clone()), value]);
                    stmts.push(Stmt::Store { buffer: partial, index: lane, value, valid: None });
                    stmts
                })]
            }));
            done = done.plus(vectors.times(step));
        }
        stmts.push(gather_chains(this, kind, partial, self.lanes, CHAINS));
        let rest = self.extent.clone().minus(done.clone());
        stmts.push(this.for_loop("s", rest, LoopKind::Serial, |this, offset| {
            let (mut stmts, value) = element(this, done.plus(offset));
            let value = Expr::call(combine(kind), vec![Expr::Var(tail), value]);
            stmts.push(Stmt::Assign { var: tail, value });
            stmts
        }));
        let total = self.total(this, kind, partial, tail, &mut stmts);
        (stmts, total)
    }

    /// Combines the lanes of a vector and what is left.
    fn total(
        &self,
        this: &mut Lowering,
        kind: ReduceKind,
        partial: BufferId,
        tail: Var,
        stmts: &mut Vec<Stmt>,
    ) -> Var {
        let all =
            Expr::Load { buffer: partial, index: Box::new(Expr::index(0)), lanes: self.lanes, valid: None };
        let lanes = if self.lanes == 1 { all } else { Expr::ReduceLanes(kind, Box::new(all)) };
        let (total, stmt) = this.assign("total", Expr::call(combine(kind), vec![lanes, Expr::Var(tail)]));
        stmts.push(stmt);
        total
    }
}

/// Vectors that a reduction has under way, so that none waits for the one before.
pub const CHAINS: i64 = 4;

/// Combines the vectors of a register array into its first one.
pub fn gather_chains(
    this: &mut Lowering,
    kind: ReduceKind,
    partial: BufferId,
    lanes: u16,
    chains: i64,
) -> Stmt {
    let width = Expr::index(i64::from(lanes));
    this.for_loop("lane", width, LoopKind::Vector, |_, lane| {
        let at = |chain: i64| Expr::load(partial, lane.clone().plus(Expr::index(chain * i64::from(lanes))));
        let value = (1..chains).fold(at(0), |sum, chain| Expr::call(combine(kind), vec![sum, at(chain)]));
        vec![Stmt::Store { buffer: partial, index: lane.clone(), value, valid: None }]
    })
}

/// Sets every element of a register array.
fn fill(this: &mut Lowering, buffer: BufferId, width: Expr, value: Expr) -> Stmt {
    this.for_loop("lane", width, LoopKind::Vector, |_, lane| {
        vec![Stmt::Store { buffer, index: lane, value, valid: None }]
    })
}
