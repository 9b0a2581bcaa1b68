//! Scheduling steps: each rewrites the loop nest of a kernel and keeps what it computes.
//!
//! A step names loops by their counter. It checks what it can see (shape of the nest, constant factors) and refuses with
//! a [`StepError`] otherwise; that iterations are independent, where a step needs it, follows from the lowering, which
//! writes each result element in its own iteration.

mod pack;
mod tensorize;

use crate::ir::{BufferId, Expr, Kernel, LoopKind, Space, Stmt, Var};

pub use tensorize::DOT_GROUP;

/// Why a step does not apply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StepError {
    /// No loop has this counter.
    #[error("there is no loop over '{0}'")]
    NoLoop(String),
    /// The loop does not have the form that the step takes.
    #[error("{step} of '{counter}': {reason}")]
    Form {
        /// The step.
        step: &'static str,
        /// Name of the loop counter.
        counter: String,
        /// What does not fit.
        reason: &'static str,
    },
}

/// How a split treats an extent that its factor does not divide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// The factor divides; checked where both are known.
    Exact,
    /// The last inner loop is shorter.
    Short,
    /// The last tile moves back so that it ends with the extent, and some iterations run twice. The extent is at least the
    /// factor, and an iteration gives the same result when it runs again.
    Shift,
    /// The inner loop always runs in full; accesses of single elements of arguments outside the extent are predicated off.
    Predicate,
}

/// What a step makes of the loop it found.
type Change<'c> = dyn FnMut(&mut Kernel, Stmt) -> Result<Vec<Stmt>, StepError> + 'c;

impl Kernel {
    fn counter_name(&self, var: Var) -> String {
        self.variables[var.0 as usize].name.clone()
    }

    fn form(&self, step: &'static str, var: Var, reason: &'static str) -> StepError {
        StepError::Form { step, counter: self.counter_name(var), reason }
    }

    /// Applies `change` to the loop over `var`, giving it the kernel's variables too.
    fn at_loop(&mut self, var: Var, change: &mut Change<'_>) -> Result<(), StepError> {
        let mut body = std::mem::take(&mut self.body);
        let found = replace_loop(self, &mut body, var, change);
        self.body = body;
        if found? { Ok(()) } else { Err(StepError::NoLoop(self.counter_name(var))) }
    }

    fn set_kind(
        &mut self,
        step: &'static str,
        var: Var,
        kind: LoopKind,
        constant: bool,
    ) -> Result<(), StepError> {
        self.at_loop(var, &mut |kernel, stmt| match stmt {
            Stmt::For { var, extent, body, .. } if !constant || extent.as_index().is_some() => {
                Ok(vec![Stmt::For { var, extent, kind, body }])
            }
            _ => Err(kernel.form(step, var, "the extent is not a constant")),
        })
    }

    /// Runs the iterations of a loop one a lane.
    ///
    /// ```text
    /// for i in 0..16 { y[i] = x[i] }   ->   y[0..16] = x[0..16]
    /// ```
    pub fn vectorize(&mut self, var: Var) -> Result<(), StepError> {
        self.set_kind("vectorize", var, LoopKind::Vector, true)
    }

    /// Writes the iterations of a loop out.
    ///
    /// ```text
    /// for i in 0..2 { f(i) }   ->   f(0); f(1)
    /// ```
    pub fn unroll(&mut self, var: Var) -> Result<(), StepError> {
        self.set_kind("unroll", var, LoopKind::Unroll, true)
    }

    /// Gives slices of a top-level loop to threads.
    pub fn parallel(&mut self, var: Var) -> Result<(), StepError> {
        if !self.body.iter().any(|stmt| matches!(stmt, Stmt::For { var: top, .. } if *top == var)) {
            return Err(self.form("parallel", var, "the loop is not outermost"));
        }
        self.set_kind("parallel", var, LoopKind::Parallel, false)
    }

    /// Cuts a loop into tiles of `factor` iterations and returns the counters of the tile and within the tile.
    ///
    /// ```text
    /// for i in 0..n { f(i) }   ->   for o in 0..ceil(n / factor) { for j in 0..factor { f(o * factor + j) } }
    /// ```
    pub fn split(&mut self, var: Var, factor: i64, tail: Tail) -> Result<(Var, Var), StepError> {
        let name = self.counter_name(var);
        let (outer, inner) = (self.counter(&format!("{name}_o")), self.counter(&format!("{name}_i")));
        self.at_loop(var, &mut |kernel, stmt| {
            let Stmt::For { extent, kind, mut body, .. } = stmt else {
                return Err(kernel.form("split", var, "not a loop"));
            };
            if factor < 1 || kind != LoopKind::Serial {
                return Err(kernel.form(
                    "split",
                    var,
                    "the factor is not positive or the loop is scheduled already",
                ));
            }
            let step = Expr::index(factor);
            if let Some(known) = extent.as_index() {
                if tail == Tail::Exact && known % factor != 0 {
                    return Err(kernel.form("split", var, "the factor does not divide the extent"));
                }
                if tail == Tail::Shift && known < factor {
                    return Err(kernel.form("split", var, "the extent is shorter than the tile"));
                }
            }
            let base = Expr::Var(outer).times(step.clone());
            let divides = extent.as_index().is_some_and(|known| known % factor == 0);
            let (start, inner_extent) = match tail {
                _ if divides => (base, step.clone()),
                Tail::Exact | Tail::Predicate => (base, step.clone()),
                Tail::Short => (base.clone(), extent.clone().minus(base).at_most(step.clone())),
                Tail::Shift => (base.at_most(extent.clone().minus(step.clone())), step.clone()),
            };
            let position = start.plus(Expr::Var(inner));
            if tail == Tail::Predicate && !divides {
                predicate_accesses(kernel, &mut body, var, &extent);
            }
            substitute(&mut body, var, &position);
            let tiles = if tail == Tail::Exact { extent.over(step) } else { extent.over_up(step) };
            let inner = Stmt::For { var: inner, extent: inner_extent, kind: LoopKind::Serial, body };
            Ok(vec![Stmt::For { var: outer, extent: tiles, kind: LoopKind::Serial, body: vec![inner] }])
        })?;
        Ok((outer, inner))
    }

    /// As [`Kernel::split`] with [`Tail::Shift`] for an extent that may be shorter than the factor: then a loop over what
    /// there is runs instead. Returns the counters of the tile and within a full tile.
    ///
    /// ```text
    /// for i in 0..n { f(i) }
    /// ->
    /// for o in 0..ceil(n / factor) {
    ///   if factor <= n { for j in 0..factor { f(min(o * factor, n - factor) + j) } } else { for j in 0..n { f(j) } }
    /// }
    /// ```
    pub fn split_or_rest(&mut self, var: Var, factor: i64) -> Result<(Var, Var), StepError> {
        let name = self.counter_name(var);
        let (outer, inner) = (self.counter(&format!("{name}_o")), self.counter(&format!("{name}_i")));
        let rest = self.counter(&format!("{name}_r"));
        self.at_loop(var, &mut |kernel, stmt| {
            let Stmt::For { extent, kind: LoopKind::Serial, body, .. } = stmt else {
                return Err(kernel.form("split_or_rest", var, "the loop is scheduled already"));
            };
            let step = Expr::index(factor);
            let start = Expr::Var(outer).times(step.clone()).at_most(extent.clone().minus(step.clone()));
            let (mut full, mut short) = (body.clone(), body);
            substitute(&mut full, var, &start.plus(Expr::Var(inner)));
            substitute(&mut short, var, &Expr::Var(rest));
            let full = Stmt::For { var: inner, extent: step.clone(), kind: LoopKind::Serial, body: full };
            let short = Stmt::For { var: rest, extent: extent.clone(), kind: LoopKind::Serial, body: short };
            let condition = step.clone().less_equal(extent.clone());
            let choice = Stmt::If { condition, then: vec![full], otherwise: vec![short] };
            let extent = extent.over_up(step);
            Ok(vec![Stmt::For { var: outer, extent, kind: LoopKind::Serial, body: vec![choice] }])
        })?;
        Ok((outer, inner))
    }

    /// Exchanges a loop with the one directly inside it.
    ///
    /// ```text
    /// for i { for j { f } }   ->   for j { for i { f } }
    /// ```
    pub fn interchange(&mut self, var: Var) -> Result<(), StepError> {
        self.at_loop(var, &mut |kernel, stmt| {
            let Stmt::For { var: outer, extent, kind, mut body } = stmt else {
                return Err(kernel.form("interchange", var, "not a loop"));
            };
            match (body.pop(), body.is_empty()) {
                (
                    Some(Stmt::For { var: inner, extent: inner_extent, kind: inner_kind, body: nest }),
                    true,
                ) if !inner_extent.mentions(outer) => {
                    let moved = Stmt::For { var: outer, extent, kind, body: nest };
                    Ok(vec![Stmt::For {
                        var: inner,
                        extent: inner_extent,
                        kind: inner_kind,
                        body: vec![moved],
                    }])
                }
                _ => Err(kernel.form(
                    "interchange",
                    var,
                    "no perfectly nested loop with an extent of its own inside",
                )),
            }
        })
    }

    /// Moves a loop inwards past the loops over `past`, which must be directly nested in that order.
    pub fn sink(&mut self, var: Var, past: usize) -> Result<(), StepError> {
        (0..past).try_for_each(|_| self.interchange(var))
    }

    /// Joins a loop with the one directly inside it and returns the counter of the joint domain.
    ///
    /// ```text
    /// for i in 0..n { for j in 0..m { f(i, j) } }   ->   for t in 0..n * m { f(t / m, t % m) }
    /// ```
    pub fn fuse(&mut self, var: Var) -> Result<Var, StepError> {
        let joint = self.counter("task");
        self.at_loop(var, &mut |kernel, stmt| {
            let Stmt::For { var: outer, extent, kind, mut body } = stmt else {
                return Err(kernel.form("fuse", var, "not a loop"));
            };
            match (body.pop(), body.is_empty()) {
                (Some(Stmt::For { var: inner, extent: inner_extent, body: mut nest, .. }), true)
                    if !inner_extent.mentions(outer) =>
                {
                    substitute(&mut nest, outer, &Expr::Var(joint).over(inner_extent.clone()));
                    substitute(&mut nest, inner, &Expr::Var(joint).remainder(inner_extent.clone()));
                    Ok(vec![Stmt::For { var: joint, extent: extent.times(inner_extent), kind, body: nest }])
                }
                _ => {
                    Err(kernel.form("fuse", var, "no perfectly nested loop with an extent of its own inside"))
                }
            }
        })?;
        Ok(joint)
    }

    /// Widens the register buffer `array` by a loop and distributes the loop over the statements of its body, past any
    /// serial loops among them, so that the array holds a value for each iteration while a reduction runs outside.
    ///
    /// ```text
    /// for i in 0..4 {                      for i { acc[i] = 0 }
    ///   acc[0] = 0                         for k { for i { acc[i] += a[k] * b[k, i] } }
    ///   for k { acc[0] += a[k] * b[k, i] } for i { y[i] = acc[i] }
    ///   y[i] = acc[0]
    /// }                               ->
    /// ```
    ///
    /// The extent is a constant. Variables that the body assigns are used only inside the statement group that assigns
    /// them; iterations are independent but for `array`.
    pub fn stage(&mut self, var: Var, array: BufferId) -> Result<(), StepError> {
        let Some(width) = self.buffer_of(array).count.as_index() else {
            return Err(self.form("stage", var, "the array has no constant extent"));
        };
        let mut widened = 0;
        self.at_loop(var, &mut |kernel, stmt| {
            let Stmt::For { var, extent, kind, body } = stmt else {
                return Err(kernel.form("stage", var, "not a loop"));
            };
            let Some(iterations) = extent.as_index() else {
                return Err(kernel.form("stage", var, "the extent is not a constant"));
            };
            widened = iterations * width;
            let shift = Expr::Var(var).times(Expr::index(width));
            let mut nest = body;
            nest.iter_mut().for_each(|stmt| shift_accesses(stmt, array, &shift));
            Ok(distribute(kernel, var, iterations, kind, nest))
        })?;
        let buffer = &mut self.buffers[array.0 as usize];
        (buffer.space, buffer.count) = (Space::Register, Expr::index(widened));
        Ok(())
    }
}

fn replace_loop(
    kernel: &mut Kernel,
    stmts: &mut Vec<Stmt>,
    target: Var,
    change: &mut Change<'_>,
) -> Result<bool, StepError> {
    let mut found = false;
    for stmt in std::mem::take(stmts) {
        match stmt {
            Stmt::For { var, .. } if var == target => {
                found = true;
                stmts.extend(change(kernel, stmt)?);
            }
            Stmt::For { var, extent, kind, mut body } => {
                found |= replace_loop(kernel, &mut body, target, change)?;
                stmts.push(Stmt::For { var, extent, kind, body });
            }
            Stmt::If { condition, mut then, mut otherwise } => {
                found |= replace_loop(kernel, &mut then, target, change)?;
                found |= replace_loop(kernel, &mut otherwise, target, change)?;
                stmts.push(Stmt::If { condition, then, otherwise });
            }
            other => stmts.push(other),
        }
    }
    Ok(found)
}

/// Replaces a variable in all expressions of the statements.
pub fn substitute(stmts: &mut [Stmt], var: Var, value: &Expr) {
    for stmt in stmts {
        stmt.map_exprs(&mut |expr| expr.substitute(&|candidate| (candidate == var).then(|| value.clone())));
    }
}

/// Predicates loads and stores of arguments whose index depends on `var` with `var < extent`, where they are not padded.
pub(crate) fn predicate_accesses(kernel: &Kernel, stmts: &mut [Stmt], var: Var, extent: &Expr) {
    let is_argument = |buffer: BufferId| {
        let buffer = kernel.buffer_of(buffer);
        matches!(buffer.space, Space::Argument(_)) && !buffer.padded
    };
    let rest = extent.clone().minus(Expr::Var(var));
    for stmt in stmts.iter_mut() {
        stmt.map_exprs(&mut |expr| {
            expr.rewrite(&mut |part| match part {
                Expr::Load { buffer, index, lanes: 1, valid: None }
                    if is_argument(buffer) && index.mentions(var) =>
                {
                    Expr::Load { buffer, index, lanes: 1, valid: Some(Box::new(rest.clone())) }
                }
                other => other,
            })
        });
        predicate_stores(stmt, &is_argument, var, &rest);
    }
}

fn predicate_stores(stmt: &mut Stmt, is_argument: &dyn Fn(BufferId) -> bool, var: Var, rest: &Expr) {
    match stmt {
        Stmt::Store { buffer, index, valid, .. }
            if is_argument(*buffer) && valid.is_none() && index.mentions(var) =>
        {
            *valid = Some(rest.clone());
        }
        Stmt::For { body, .. } => {
            body.iter_mut().for_each(|stmt| predicate_stores(stmt, is_argument, var, rest))
        }
        Stmt::If { then, otherwise, .. } => {
            then.iter_mut().chain(otherwise).for_each(|stmt| predicate_stores(stmt, is_argument, var, rest));
        }
        _ => {}
    }
}

/// Adds `shift` to the index of every access of `array`.
fn shift_accesses(stmt: &mut Stmt, array: BufferId, shift: &Expr) {
    stmt.map_exprs(&mut |expr| {
        expr.rewrite(&mut |part| match part {
            Expr::Load { buffer, index, lanes, valid } if buffer == array => {
                Expr::Load { buffer, index: Box::new(index.plus(shift.clone())), lanes, valid }
            }
            other => other,
        })
    });
    fn shift_stores(stmt: &mut Stmt, array: BufferId, shift: &Expr) {
        match stmt {
            Stmt::Store { buffer, index, .. } if *buffer == array => {
                *index = index.clone().plus(shift.clone())
            }
            Stmt::For { body, .. } => body.iter_mut().for_each(|stmt| shift_stores(stmt, array, shift)),
            Stmt::If { then, otherwise, .. } => {
                then.iter_mut().chain(otherwise).for_each(|stmt| shift_stores(stmt, array, shift));
            }
            _ => {}
        }
    }
    shift_stores(stmt, array, shift);
}

/// Distributes a loop over statements: runs of plain statements share one copy of it, loops that do not depend on it
/// stay outside of theirs.
fn distribute(kernel: &mut Kernel, var: Var, iterations: i64, kind: LoopKind, body: Vec<Stmt>) -> Vec<Stmt> {
    let mut result = Vec::new();
    let mut run: Vec<Stmt> = Vec::new();
    let wrap = |kernel: &mut Kernel, result: &mut Vec<Stmt>, mut stmts: Vec<Stmt>| {
        if stmts.is_empty() {
            return;
        }
        let fresh = kernel.counter(&kernel.counter_name(var));
        substitute(&mut stmts, var, &Expr::Var(fresh));
        result.push(Stmt::For { var: fresh, extent: Expr::index(iterations), kind, body: stmts });
    };
    for stmt in body {
        match stmt {
            Stmt::For { var: inner, extent, kind: LoopKind::Serial, body } if !extent.mentions(var) => {
                wrap(kernel, &mut result, std::mem::take(&mut run));
                let body = distribute(kernel, var, iterations, kind, body);
                result.push(Stmt::For { var: inner, extent, kind: LoopKind::Serial, body });
            }
            other => run.push(other),
        }
    }
    wrap(kernel, &mut result, run);
    result
}
