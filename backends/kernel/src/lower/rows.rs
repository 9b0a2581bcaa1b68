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
}

impl Line {
    /// Visits every element without a result.
    pub fn for_each(
        &self,
        this: &mut Lowering,
        body: &mut dyn FnMut(&mut Lowering, Expr) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        this.vector_line(Expr::index(0), self.extent.clone(), self.lanes, body)
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
        if self.lanes == 1 {
            stmts.push(this.for_loop("s", self.extent.clone(), LoopKind::Serial, |this, at| {
                let (mut stmts, value) = element(this, at);
                let value = Expr::call(combine(kind), vec![Expr::Var(tail), value]);
                stmts.push(Stmt::Assign { var: tail, value });
                stmts
            }));
            return (stmts, tail);
        }
        let width = Expr::index(i64::from(self.lanes));
        let partial = this.kernel.buffer("partial", dtype, Space::Register, width.clone(), Access::ReadWrite);
        stmts.push(fill(this, partial, width.clone(), neutral(kind, dtype)));
        let vectors = self.extent.clone().over(width.clone());
        stmts.push(this.for_loop("v", vectors.clone(), LoopKind::Serial, |this, vector| {
            vec![this.for_loop("lane", width.clone(), LoopKind::Vector, |this, lane| {
                let (mut stmts, value) = element(this, vector.times(width.clone()).plus(lane.clone()));
                let value = Expr::call(combine(kind), vec![Expr::load(partial, lane.clone()), value]);
                stmts.push(Stmt::Store { buffer: partial, index: lane, value, valid: None });
                stmts
            })]
        }));
        let done = vectors.times(width);
        let rest = self.extent.clone().minus(done.clone());
        stmts.push(this.for_loop("s", rest, LoopKind::Serial, |this, offset| {
            let (mut stmts, value) = element(this, done.plus(offset));
            let value = Expr::call(combine(kind), vec![Expr::Var(tail), value]);
            stmts.push(Stmt::Assign { var: tail, value });
            stmts
        }));
        let all =
            Expr::Load { buffer: partial, index: Box::new(Expr::index(0)), lanes: self.lanes, valid: None };
        let lanes = Expr::ReduceLanes(kind, Box::new(all));
        let (total, stmt) = this.assign("total", Expr::call(combine(kind), vec![lanes, Expr::Var(tail)]));
        stmts.push(stmt);
        (stmts, total)
    }
}

/// Sets every element of a register array.
fn fill(this: &mut Lowering, buffer: BufferId, width: Expr, value: Expr) -> Stmt {
    this.for_loop("lane", width, LoopKind::Vector, |_, lane| {
        vec![Stmt::Store { buffer, index: lane, value, valid: None }]
    })
}
