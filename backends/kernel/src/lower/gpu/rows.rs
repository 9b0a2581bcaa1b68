//! Rows that a warp shares: its lanes take vectors in turn, and combine what they have found by exchanging it.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::words::ReduceKind;

use crate::ir::{Expr, LoopKind, Stmt, Ty, Var};
use crate::lower::Lowering;
use crate::lower::reduce::combine;
use crate::warp::WarpOp;

/// Lanes of a warp.
pub const WARP: i64 = 32;

/// Warps of a block.
const WARPS: i64 = 4;

/// Elements of a row below which one thread is enough.
const SMALL: i64 = 64;

/// Computes a row from its coordinates and, in a warp, the number of the lane.
type Row<'r, 'l> = dyn FnMut(&mut Lowering<'l>, &[Expr], Option<Expr>) -> Vec<Stmt> + 'r;

/// Computes a task from its number and, in a warp, the number of the lane.
type Task<'t, 'l> = dyn FnMut(&mut Lowering<'l>, Expr, Option<Expr>) -> Vec<Stmt> + 't;

impl<'l> Lowering<'l> {
    /// A nest over rows of consecutive elements that are worth a warp each on a GPU and a task each elsewhere.
    pub fn rows(
        &mut self,
        shape: &[Dim],
        (length, compute): (&Dim, DType),
        body: &mut Row<'_, 'l>,
    ) -> Vec<Stmt> {
        let short = length.as_const().is_some_and(|length| length < SMALL);
        if self.tuning.gpu.is_none() || short || compute.bits() != 32 {
            return self.parallel_rows(shape, &mut |this, at| body(this, at, None));
        }
        let tasks = self.dim(&Dim::product(shape));
        vec![self.warps("row", tasks, &mut |this, row, lane| {
            let at = this.decode(row, shape);
            body(this, &at, Some(lane))
        })]
    }

    /// A loop over tasks that are worth a warp each on a GPU, whose body gets the lane, and run in parallel elsewhere.
    pub fn shared_tasks(&mut self, name: &str, tasks: Expr, body: &mut Task<'_, 'l>) -> Stmt {
        match self.tuning.gpu {
            Some(_) => self.warps(name, tasks, &mut |this, task, lane| body(this, task, Some(lane))),
            None => self.for_loop(name, tasks, LoopKind::Parallel, |this, task| body(this, task, None)),
        }
    }

    /// A warp for each task, with its lane.
    pub fn warps(
        &mut self,
        name: &str,
        tasks: Expr,
        body: &mut dyn FnMut(&mut Lowering<'l>, Expr, Expr) -> Vec<Stmt>,
    ) -> Stmt {
        let blocks = tasks.clone().over_up(Expr::index(WARPS));
        self.for_loop("block", blocks, LoopKind::Grid(0), |this, block| {
            vec![this.for_loop("thread", Expr::index(WARP * WARPS), LoopKind::Thread(0), |this, thread| {
                let task = block.times(Expr::index(WARPS)).plus(thread.clone().over(Expr::index(WARP)));
                let (task, assign) = this.assign(name, task);
                let (lane, assign_lane) = this.assign("lane", thread.remainder(Expr::index(WARP)));
                // All lanes of a warp have one task.
                let condition = Expr::Var(task).less(tasks.clone());
                let then = body(this, task.into(), lane.into());
                vec![assign, assign_lane, Stmt::If { condition, then, otherwise: Vec::new() }]
            })]
        })
    }

    /// Visits the elements of a row that belong to a lane: vectors of `lanes` in turn, and of the rest one a lane.
    pub fn lane_line(
        &mut self,
        lane: &Expr,
        extent: &Expr,
        lanes: u16,
        vector: &mut dyn FnMut(&mut Self, Expr, Expr) -> Vec<Stmt>,
        rest: &mut dyn FnMut(&mut Self, Expr) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let width = Expr::index(i64::from(lanes));
        let vectors = extent.clone().over(width.clone());
        let own = vectors.clone().plus(Expr::index(WARP - 1)).minus(lane.clone()).over(Expr::index(WARP));
        let mut stmts = vec![self.for_loop("v", own, LoopKind::Serial, |this, turn| {
            let first = turn.times(Expr::index(WARP)).plus(lane.clone()).times(width.clone());
            vec![this.for_loop("element", width.clone(), LoopKind::Vector, |this, element| {
                vector(this, first.plus(element.clone()), element)
            })]
        })];
        let done = vectors.times(width);
        let left = extent.clone().minus(done.clone());
        if !left.is_index(0) {
            let condition = lane.clone().less(left);
            let then = rest(self, done.plus(lane.clone()));
            stmts.push(Stmt::If { condition, then, otherwise: Vec::new() });
        }
        stmts
    }

    /// Combines a value of each lane of a warp; every lane gets the result.
    pub fn combine_lanes(&mut self, kind: ReduceKind, dtype: DType, value: Var) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let mut mask = WARP as u32 / 2;
        while mask > 0 {
            let other = self.kernel.variable("other", Ty::scalar(dtype));
            stmts.push(Stmt::Warp(WarpOp::Exchange { into: other, value: value.into(), mask }));
            let both = Expr::call(combine(kind), vec![value.into(), other.into()]);
            stmts.push(Stmt::Assign { var: value, value: both });
            mask /= 2;
        }
        stmts
    }

    /// The sum over the lanes of a warp of each element of a vector of f32; every lane gets the result.
    pub fn combine_vectors(&mut self, value: &Expr) -> (Vec<Stmt>, Expr) {
        let count = self.kernel.type_of(value).lanes;
        let mut stmts = Vec::new();
        let mut sums: Option<Expr> = None;
        for element in 0..count {
            let part = Expr::Shuffle(Box::new(value.clone()), Box::new(value.clone()), vec![element]);
            let (part, stmt) = self.assign("part", part);
            stmts.push(stmt);
            stmts.extend(self.combine_lanes(ReduceKind::Sum, DType::F32, part));
            sums = Some(match sums {
                Some(sums) => Expr::Shuffle(Box::new(sums), Box::new(part.into()), (0..=element).collect()),
                None => part.into(),
            });
        }
        (stmts, sums.unwrap_or_else(|| value.clone()))
    }
}
