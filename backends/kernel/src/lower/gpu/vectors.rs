//! Nests over elements: each vector is a task of its own, so that the threads of a warp touch neighbours.

use tcc_ir::dim::Dim;

use crate::ir::{Expr, LoopKind, Stmt};
use crate::lower::Lowering;

impl Lowering<'_> {
    /// A parallel loop over the vectors of `lanes` elements along the innermost axis of `shape`. Where the axis ends within a vector,
    /// its elements come one by one.
    pub fn vector_tasks(
        &mut self,
        shape: &[Dim],
        lanes: u16,
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let Some((last, outer)) = shape.split_last() else { return body(self, &[]) };
        let extent = self.dim(last);
        let width = Expr::index(i64::from(lanes));
        let vectors = extent.clone().over_up(width.clone());
        let tasks = self.dim(&Dim::product(outer)).times(vectors.clone());
        vec![self.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
            let (line, vector) = match outer {
                [] => (Expr::index(0), task),
                _ => (task.clone().over(vectors.clone()), task.remainder(vectors)),
            };
            let at = this.decode(line, outer);
            let first = vector.times(width.clone());
            let mut element = |this: &mut Self, position: Expr| {
                let mut coordinates = at.clone();
                coordinates.push(position);
                body(this, &coordinates)
            };
            let whole = this.for_loop("lane", width.clone(), LoopKind::Vector, |this, lane| {
                element(this, first.clone().plus(lane))
            });
            if last.as_const().is_some_and(|extent| extent % i64::from(lanes) == 0) {
                return vec![whole];
            }
            let rest = extent.clone().minus(first.clone());
            let tail = this.for_loop("rest", rest, LoopKind::Serial, |this, offset| {
                element(this, first.clone().plus(offset))
            });
            let condition = first.clone().plus(width.clone()).less_equal(extent.clone());
            vec![Stmt::If { condition, then: vec![whole], otherwise: vec![tail] }]
        })]
    }
}
