//! Data movement: broadcast, transpose, slice, concatenation, padding.

use tcc_ir::dim::Dim;
use tcc_ir::scalar::Function;
use tcc_ir::words::PadKind;

use super::{Argument, LowerError, Lowering};
use crate::ir::{BufferId, Expr, LoopKind, Stmt};

/// A copy in row-major order.
pub fn copy(lowering: &mut Lowering) -> Result<(), LowerError> {
    let count = lowering.results[0].count();
    let lanes = lowering.tuning.lanes(lowering.results[0].dtype());
    let stmts = lowering.parallel_nest(&[count], lanes, &mut |this, at| {
        let (from, to) = (this.buffer(Argument::Operand(0)), this.buffer(Argument::Result(0)));
        vec![Stmt::Store {
            buffer: to,
            index: at[0].clone(),
            value: Expr::load(from, at[0].clone()),
            valid: None,
        }]
    });
    lowering.launch(stmts, true);
    Ok(())
}

/// Repeats along axes of extent 1 and new leading axes.
pub fn broadcast(lowering: &mut Lowering) -> Result<(), LowerError> {
    super::pointwise::map(lowering, &tcc_ir::scalar::ScalarExpr::identity())?;
    Ok(())
}

/// A strided box.
pub fn slice(lowering: &mut Lowering, starts: &[Dim], steps: &[i64]) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let source = lowering.operands[0].clone();
    // Trailing axes that are taken whole move as one with the axis before them.
    let whole =
        |axis: usize| starts[axis].is(0) && steps[axis] == 1 && source.shape[axis] == result.shape[axis];
    let mut kept = result.rank();
    while kept > 1 && whole(kept - 1) && steps[kept - 2] == 1 {
        kept -= 1;
    }
    let tail = Dim::product(&result.shape[kept..]);
    let join = |shape: &[Dim]| -> Vec<Dim> {
        let mut shape = shape[..kept].to_vec();
        if let Some(last) = shape.last_mut() {
            *last = last.clone() * tail.clone();
        }
        shape
    };
    let (to_shape, from_shape) = (join(&result.shape), join(&source.shape));
    let mut starts = starts[..kept].to_vec();
    if let Some(last) = starts.last_mut() {
        *last = last.clone() * tail.clone();
    }
    let lanes = lowering.tuning.lanes(result.dtype());
    let stmts = lowering.parallel_nest(&to_shape, lanes, &mut |this, at| {
        let read_at: Vec<Expr> = starts
            .iter()
            .enumerate()
            .map(|(axis, start)| this.dim(start).plus(at[axis].clone().times(Expr::index(steps[axis]))))
            .collect();
        let (from, to) = (this.buffer(Argument::Operand(0)), this.buffer(Argument::Result(0)));
        let value = Expr::load(from, this.linear(&from_shape, &read_at));
        let at = if kept == 0 { &[][..] } else { at };
        vec![Stmt::Store { buffer: to, index: this.linear(&to_shape, at), value, valid: None }]
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Joins along an axis: one copy an operand.
pub fn concat(lowering: &mut Lowering, axis: usize) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let lanes = lowering.tuning.lanes(result.dtype());
    let outer = Dim::product(&result.shape[..axis]);
    let total = Dim::product(&result.shape[axis..]);
    let mut offset = Dim::Const(0);
    for index in 0..lowering.operands.len() {
        let inner = Dim::product(&lowering.operands[index].shape[axis..]);
        let stmts = lowering.parallel_nest(&[outer.clone(), inner.clone()], lanes, &mut |this, at| {
            let (from, to) = (this.buffer(Argument::Operand(index)), this.buffer(Argument::Result(0)));
            let value = Expr::load(from, this.linear(&[outer.clone(), inner.clone()], at));
            let base = this.dim(&offset);
            let index = this.linear(&[outer.clone(), total.clone()], at).plus(base);
            vec![Stmt::Store { buffer: to, index, value, valid: None }]
        });
        lowering.launch(stmts, false);
        offset = offset + inner;
    }
    Ok(())
}

/// Adds or crops elements around each axis.
pub fn pad(lowering: &mut Lowering, kind: PadKind, low: &[Dim]) -> Result<(), LowerError> {
    let value = lowering.load(Argument::Operand(1), &[]);
    if lowering.results[0].rank() == 0 {
        return copy(lowering);
    }
    pad_into(lowering, Argument::Operand(0), Argument::Result(0), kind, value, low)
}

/// Launches a kernel that writes `from` surrounded by padding into `to`; `low` gives the amount before each axis.
pub fn pad_into(
    lowering: &mut Lowering,
    from: Argument,
    to: Argument,
    kind: PadKind,
    value: Expr,
    low: &[Dim],
) -> Result<(), LowerError> {
    let (source, result) = (lowering.type_of(from), lowering.type_of(to));
    let lanes = lowering.tuning.lanes(result.dtype());
    if kind != PadKind::Constant {
        let stmts = lowering.parallel_nest(&result.shape, 1, &mut |this, at| {
            let read_at: Vec<Expr> = (0..at.len())
                .map(|axis| {
                    let extent = this.dim(&source.shape[axis]);
                    let position = at[axis].clone().minus(this.dim(&low[axis]));
                    outside(kind, position, extent)
                })
                .collect();
            let value = this.load(from, &read_at);
            vec![this.store(to, at, value)]
        });
        lowering.launch(stmts, false);
        return Ok(());
    }
    // Trailing axes without padding move as one with the last padded axis.
    let mut kept = result.rank();
    while kept > 1 && low[kept - 1].is(0) && source.shape[kept - 1] == result.shape[kept - 1] {
        kept -= 1;
    }
    let tail = Dim::product(&result.shape[kept..]);
    let line = kept - 1;
    let outer_shape = result.shape[..line].to_vec();
    let tasks = Dim::product(&outer_shape);
    let tasks = lowering.dim(&tasks);
    let out_line = lowering.dim(&(result.shape[line].clone() * tail.clone()));
    let in_line = lowering.dim(&(source.shape[line].clone() * tail.clone()));
    let before = lowering.dim(&(low[line].clone() * tail.clone()));
    let source_outer = source.shape[..line].to_vec();
    let body = lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let outer = this.decode(task.clone(), &outer_shape);
        let mut conditions = Vec::new();
        let mut read_row = Expr::index(0);
        for axis in 0..line {
            let extent = this.dim(&source_outer[axis]);
            let position = outer[axis].clone().minus(this.dim(&low[axis]));
            if !(low[axis].is(0) && source.shape[axis] == result.shape[axis]) {
                conditions.push(Expr::index(0).less_equal(position.clone()));
                conditions.push(position.clone().less(extent.clone()));
            }
            read_row = read_row.times(extent).plus(position);
        }
        let line = PaddedLine {
            read: this.buffer(from),
            from: read_row.times(in_line.clone()),
            length: in_line.clone(),
            write: this.buffer(to),
            to: task.times(out_line.clone()),
            padded: out_line.clone(),
            before: before.clone(),
            value: value.clone(),
            lanes,
        };
        line.copy(this, conditions.into_iter().reduce(Expr::both))
    });
    lowering.launch(vec![body], false);
    Ok(())
}

/// A line of a source, written with padding before and after it.
pub struct PaddedLine {
    /// Where the source is.
    pub read: BufferId,
    /// Its first element.
    pub from: Expr,
    /// Its elements.
    pub length: Expr,
    /// Where the line goes.
    pub write: BufferId,
    /// Its first element there.
    pub to: Expr,
    /// Elements there.
    pub padded: Expr,
    /// Padding before it; negative where elements of the source are left out.
    pub before: Expr,
    /// What the padding is.
    pub value: Expr,
    /// Lanes of the vectors that move.
    pub lanes: u16,
}

impl PaddedLine {
    /// Writes the line; nothing but padding where `inside` does not hold.
    pub fn copy(&self, this: &mut Lowering, inside: Option<Expr>) -> Vec<Stmt> {
        // Padding, then source elements from `skip` on, then padding.
        let first = self.before.clone().at_least(Expr::index(0)).at_most(self.padded.clone());
        let skip = first.clone().minus(self.before.clone());
        let room = self.padded.clone().minus(first.clone());
        let count = self.length.clone().minus(skip.clone()).at_most(room).at_least(Expr::index(0));
        let mut stmts = self.fill(this, Expr::index(0), first.clone());
        let offset = self.from.clone().plus(skip).minus(first.clone()).minus(self.to.clone());
        let start = self.to.clone().plus(first.clone());
        stmts.extend(this.vector_line(start, count.clone(), self.lanes, &mut |_, index| {
            let value = Expr::load(self.read, index.clone().plus(offset.clone()));
            vec![Stmt::Store { buffer: self.write, index, value, valid: None }]
        }));
        let end = first.plus(count);
        stmts.extend(self.fill(this, end.clone(), self.padded.clone().minus(end)));
        match inside {
            Some(condition) => {
                let otherwise = self.fill(this, Expr::index(0), self.padded.clone());
                vec![Stmt::If { condition, then: stmts, otherwise }]
            }
            None => stmts,
        }
    }

    fn fill(&self, this: &mut Lowering, start: Expr, count: Expr) -> Vec<Stmt> {
        this.vector_line(self.to.clone().plus(start), count, self.lanes, &mut |_, index| {
            vec![Stmt::Store { buffer: self.write, index, value: self.value.clone(), valid: None }]
        })
    }
}

/// The source position that padding of this kind repeats for a position that may lie outside.
pub fn outside(kind: PadKind, position: Expr, extent: Expr) -> Expr {
    let one = Expr::index(1);
    let last = extent.clone().minus(one.clone());
    match kind {
        PadKind::Constant => position,
        PadKind::Edge => position.at_least(Expr::index(0)).at_most(last),
        PadKind::Wrap => Expr::call(Function::Mod, vec![position, extent]),
        PadKind::Reflect => {
            // The mirror image has period 2 * (extent - 1).
            let period = last.clone().times(Expr::index(2)).at_least(one);
            let phase = Expr::call(Function::Mod, vec![position, period.clone()]);
            phase.clone().at_most(period.minus(phase)).at_least(Expr::index(0))
        }
    }
}
