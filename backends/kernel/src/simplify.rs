//! Simplification of kernels with the ranges of loop counters.
//!
//! Index arithmetic (scalar `i64`) is brought into a canonical sum of products, so that equal addresses are equal
//! expressions; quotients, remainders, minima, maxima and comparisons are decided where the loop extents allow it:
//! `(16*i + j) / 16 => i` for `j < 16`. Conditions that are decided choose their branch, loops without iterations go away, and
//! loops of one iteration become their body. Other arithmetic is touched only by rules that keep every bit.
//!
//! Address arithmetic (counters and dimensions) is taken not to overflow; dimensions are not negative. Arithmetic on `i64`
//! data is only reordered, which wrapping allows.

mod index;
mod range;
mod rules;
pub mod sum;

use std::collections::HashMap;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Rule, Scalar, ScalarOp};

use crate::ir::{BufferId, Expr, Kernel, LoopKind, Stmt, Ty, Var};
use range::Shape;
use sum::{Atom, Sum};

/// Simplifies a kernel in place.
pub fn simplify(kernel: &mut Kernel) {
    Simplifier::new(kernel).run(kernel);
}

/// Writes out `Unroll` loops, simplifying each copy with the value that its counter has; simplifies everything else too.
///
/// ```text
/// for i in 0..2 unroll { x[i * 4] = f(i) }   =>   x[0] = f(0); x[4] = f(1)
/// ```
///
/// Stops when the text would exceed `limit` statements; the rest of the kernel is then left as it was and false is returned.
pub fn simplify_unrolled(kernel: &mut Kernel, limit: usize) -> bool {
    let mut simplifier = Simplifier::new(kernel);
    simplifier.unroll = Some(limit);
    simplifier.run(kernel);
    simplifier.unroll.is_some()
}

struct OpaqueEntry {
    expr: Expr,
    shape: Shape,
}

struct LoopEntry {
    var: Var,
    extent: Sum,
    last: i128,
    /// Lower bounds of dimensions before the loop taught more.
    dim_lows: HashMap<u32, i64>,
}

/// The simplifier's knowledge at one place of a kernel.
pub struct Simplifier {
    variables: Vec<Ty>,
    buffers: Vec<DType>,
    loops: Vec<LoopEntry>,
    /// Position in `loops` by variable.
    open: HashMap<Var, usize>,
    bound: HashMap<Var, Sum>,
    dim_lows: HashMap<u32, i64>,
    /// Sums that are at most 0, from the conditions of branches.
    facts: Vec<Sum>,
    /// Number of facts and bounds of dimensions before each open branch.
    branches: Vec<(usize, HashMap<u32, i64>)>,
    opaque: Vec<OpaqueEntry>,
    interned: HashMap<Expr, u32>,
    /// Statements that unrolling may still write; `None` where it is off.
    unroll: Option<usize>,
}

impl Simplifier {
    /// A simplifier that knows the declarations of a kernel and is outside of all loops.
    pub fn new(kernel: &Kernel) -> Simplifier {
        Simplifier {
            variables: kernel.variables.iter().map(|variable| variable.ty).collect(),
            buffers: kernel.buffers.iter().map(|buffer| buffer.dtype).collect(),
            loops: Vec::new(),
            open: HashMap::new(),
            bound: HashMap::new(),
            dim_lows: HashMap::new(),
            facts: Vec::new(),
            branches: Vec::new(),
            opaque: Vec::new(),
            interned: HashMap::new(),
            unroll: None,
        }
    }

    fn run(&mut self, kernel: &mut Kernel) {
        for buffer in &mut kernel.buffers {
            buffer.count = self.expr(&buffer.count);
        }
        let body = std::mem::take(&mut kernel.body);
        self.block(body, &mut kernel.body);
    }

    /// Makes a variable known that was declared after the simplifier was made.
    pub fn declare(&mut self, var: Var, ty: Ty) {
        let needed = var.0 as usize + 1;
        if self.variables.len() < needed {
            self.variables.resize(needed, ty);
        }
        self.variables[var.0 as usize] = ty;
    }

    /// Enters a loop: its counter runs from 0 to the extent, which is at least 1 inside.
    pub fn enter(&mut self, var: Var, extent: &Expr) {
        let extent = self.sum(extent);
        let last = (self.interval(&extent).high - 1).max(0);
        let dim_lows = self.dim_lows.clone();
        self.learn_at_least(&extent, 1);
        self.open.insert(var, self.loops.len());
        self.loops.push(LoopEntry { var, extent, last, dim_lows });
    }

    /// Leaves the innermost loop.
    pub fn leave(&mut self) {
        if let Some(entry) = self.loops.pop() {
            self.open.remove(&entry.var);
            self.dim_lows = entry.dim_lows;
        }
    }

    /// Enters a branch, taken where the condition has this truth value.
    pub fn enter_branch(&mut self, condition: &Expr, truth: bool) {
        self.branches.push((self.facts.len(), self.dim_lows.clone()));
        self.learn(condition, truth);
    }

    /// Leaves the innermost branch.
    pub fn leave_branch(&mut self) {
        if let Some((facts, dim_lows)) = self.branches.pop() {
            self.facts.truncate(facts);
            self.dim_lows = dim_lows;
        }
    }

    fn learn(&mut self, condition: &Expr, truth: bool) {
        let Expr::Call(ScalarOp::Call(function), args) = condition else { return };
        match (function, &args[..], truth) {
            (Function::And, [a, b], true) | (Function::Or, [a, b], false) => {
                self.learn(a, truth);
                self.learn(b, truth);
            }
            (Function::Not, [a], _) => self.learn(a, !truth),
            (Function::Less | Function::LessEqual, [a, b], _) if self.is_index(a) => {
                let (a, b) = (self.sum(a), self.sum(b));
                if !self.is_address(&a) || !self.is_address(&b) {
                    return;
                }
                // a < b, a <= b, b <= a and b < a as sums that are at most 0.
                let (low, high) = if truth { (a, b) } else { (b, a) };
                let strict = (*function == Function::Less) == truth;
                let fact = low.minus(&high).plus(&Sum::constant(strict.into()));
                self.learn_at_least(&fact.scaled(-1), 0);
                self.facts.push(fact);
            }
            _ => {}
        }
    }

    /// Lets a variable stand for an expression from here on.
    pub fn bind(&mut self, var: Var, value: &Expr) {
        let value = self.sum(value);
        self.bound.insert(var, value);
    }

    /// Ends what [`Simplifier::bind`] began.
    pub fn unbind(&mut self, var: Var) {
        self.bound.remove(&var);
    }

    fn loop_of(&self, var: Var) -> Option<&LoopEntry> {
        self.open.get(&var).map(|position| &self.loops[*position])
    }

    fn dim_low(&self, number: u32) -> i64 {
        self.dim_lows.get(&number).copied().unwrap_or(0)
    }

    /// Draws conclusions on dimensions from `sum >= least`.
    fn learn_at_least(&mut self, sum: &Sum, least: i64) {
        match &sum.terms[..] {
            [(monomial, coefficient)] if *coefficient > 0 => {
                let Some(rest) = least.checked_sub(sum.constant) else { return };
                // Rounded up.
                let bound = rest.div_euclid(*coefficient) + i64::from(rest.rem_euclid(*coefficient) != 0);
                match monomial[..] {
                    [Atom::Dim(number)] => {
                        let low = self.dim_low(number).max(bound);
                        self.dim_lows.insert(number, low);
                    }
                    [Atom::Opaque(number)] => {
                        if let Shape::Quotient(a, b) = self.opaque[number as usize].shape.clone()
                            && let Some(divisor) = b.as_constant().filter(|divisor| *divisor > 0)
                            && let Some(product) = divisor.checked_mul(bound)
                            && bound > 0
                        {
                            self.learn_at_least(&a, product);
                        }
                    }
                    _ if bound > 0 => {
                        for atom in monomial.iter() {
                            if let Atom::Dim(number) = atom {
                                let low = self.dim_low(*number).max(1);
                                self.dim_lows.insert(*number, low);
                            }
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    // Statements.

    fn block(&mut self, block: Vec<Stmt>, out: &mut Vec<Stmt>) {
        for stmt in block {
            self.stmt(stmt, out);
        }
    }

    fn stmt(&mut self, stmt: Stmt, out: &mut Vec<Stmt>) {
        if let Some(left) = self.unroll.as_mut() {
            if *left == 0 {
                self.unroll = None;
            } else {
                *left -= 1;
            }
        }
        match stmt {
            Stmt::For { var, extent, kind, body } => self.for_loop(var, extent, kind, body, out),
            Stmt::Assign { var, value } => out.push(Stmt::Assign { var, value: self.expr(&value) }),
            Stmt::Store { buffer, index, value, valid } => {
                let value = self.expr(&value);
                let index = self.expr(&index);
                match self.valid(valid.as_ref(), self.ty(&value).lanes) {
                    Valid::All => out.push(Stmt::Store { buffer, index, value, valid: None }),
                    Valid::Some(valid) => out.push(Stmt::Store { buffer, index, value, valid: Some(valid) }),
                    Valid::None => {}
                }
            }
            Stmt::If { condition, then, otherwise } => {
                let condition = self.expr(&condition);
                match rules::truth(&condition) {
                    Some(true) => self.block(then, out),
                    Some(false) => self.block(otherwise, out),
                    None => {
                        let (mut yes, mut no) = (Vec::new(), Vec::new());
                        self.enter_branch(&condition, true);
                        self.block(then, &mut yes);
                        self.leave_branch();
                        self.enter_branch(&condition, false);
                        self.block(otherwise, &mut no);
                        self.leave_branch();
                        if yes.is_empty() && !no.is_empty() {
                            let condition = rules::not(condition);
                            out.push(Stmt::If { condition, then: no, otherwise: yes });
                        } else if !yes.is_empty() {
                            out.push(Stmt::If { condition, then: yes, otherwise: no });
                        }
                    }
                }
            }
            Stmt::Barrier => out.push(Stmt::Barrier),
            Stmt::Warp(mut op) => {
                op.exprs_mut().into_iter().for_each(|expr| *expr = self.expr(expr));
                out.push(Stmt::Warp(op));
            }
        }
    }

    fn for_loop(&mut self, var: Var, extent: Expr, kind: LoopKind, body: Vec<Stmt>, out: &mut Vec<Stmt>) {
        let extent = self.expr(&extent);
        let range = self.sum(&extent);
        if kind != LoopKind::Parallel && self.interval(&range).high <= 0 {
            return;
        }
        let once =
            matches!(kind, LoopKind::Serial | LoopKind::Vector | LoopKind::Unroll) && extent.is_index(1);
        let copies = match (kind, self.unroll, extent.as_index()) {
            _ if once => Some(1),
            (LoopKind::Unroll, Some(_), Some(extent)) => Some(extent),
            _ => None,
        };
        if let Some(copies) = copies {
            for value in 0..copies {
                if kind == LoopKind::Unroll && !once && self.unroll.is_none() {
                    return;
                }
                self.bind(var, &Expr::index(value));
                self.block(body.clone(), out);
                self.unbind(var);
            }
            return;
        }
        self.enter(var, &extent);
        let mut inner = Vec::new();
        self.block(body, &mut inner);
        self.leave();
        if !inner.is_empty() || kind == LoopKind::Parallel {
            out.push(Stmt::For { var, extent, kind, body: inner });
        }
    }

    fn valid(&mut self, valid: Option<&Expr>, lanes: u16) -> Valid {
        let Some(valid) = valid else { return Valid::All };
        let valid = self.sum(valid);
        if self.never_positive(&valid) {
            Valid::None
        } else if self.never_negative(&valid.clone().plus(&Sum::constant(-i64::from(lanes)))) {
            Valid::All
        } else {
            Valid::Some(self.rebuild(&valid))
        }
    }

    // Expressions.

    /// An equal expression, simplified.
    pub fn expr(&mut self, expr: &Expr) -> Expr {
        if self.is_index(expr) && !matches!(expr, Expr::Load { .. }) {
            let sum = self.sum(expr);
            return self.rebuild(&sum);
        }
        match expr {
            Expr::Const(scalar) => Expr::Const(crate::fold::canonical(*scalar)),
            Expr::Var(_) | Expr::Dim(_) => expr.clone(),
            Expr::Load { buffer, index, lanes, valid } => self.load(*buffer, index, *lanes, valid.as_deref()),
            Expr::Call(op, args) => {
                if let ScalarOp::Call(function @ (Function::Less | Function::LessEqual | Function::Equal)) =
                    op
                    && args.len() == 2
                    && self.is_index(&args[0])
                {
                    return self.comparison(*function, &args[0], &args[1]);
                }
                let args: Vec<Expr> = args.iter().map(|arg| self.expr(arg)).collect();
                let lanes = args.iter().map(|arg| self.ty(arg).lanes).max().unwrap_or(1);
                rules::call(*op, args, lanes)
            }
            Expr::Splat(value, lanes) => {
                let value = self.expr(value);
                if *lanes == 1 { value } else { Expr::Splat(Box::new(value), *lanes) }
            }
            Expr::Ramp { base, stride, lanes } => {
                let base = self.expr(base);
                if *stride == 0 {
                    Expr::Splat(Box::new(base), *lanes)
                } else {
                    Expr::Ramp { base: Box::new(base), stride: *stride, lanes: *lanes }
                }
            }
            Expr::Fma(a, b, c) => {
                Expr::Fma(Box::new(self.expr(a)), Box::new(self.expr(b)), Box::new(self.expr(c)))
            }
            Expr::Dot { acc, a, b } => Expr::Dot {
                acc: Box::new(self.expr(acc)),
                a: Box::new(self.expr(a)),
                b: Box::new(self.expr(b)),
            },
            Expr::ReduceLanes(kind, value) => {
                let value = self.expr(value);
                if self.ty(&value).lanes == 1 { value } else { Expr::ReduceLanes(*kind, Box::new(value)) }
            }
            Expr::Shuffle(a, b, picks) => {
                Expr::Shuffle(Box::new(self.expr(a)), Box::new(self.expr(b)), picks.clone())
            }
        }
    }

    fn load(&mut self, buffer: BufferId, index: &Expr, lanes: u16, valid: Option<&Expr>) -> Expr {
        let index = Box::new(self.expr(index));
        match self.valid(valid, lanes) {
            Valid::All => Expr::Load { buffer, index, lanes, valid: None },
            Valid::Some(valid) => Expr::Load { buffer, index, lanes, valid: Some(Box::new(valid)) },
            Valid::None => {
                let dtype = self.buffers.get(buffer.0 as usize).copied().unwrap_or(DType::I64);
                rules::splat(Scalar { dtype, bits: 0 }, lanes)
            }
        }
    }

    fn comparison(&mut self, function: Function, a: &Expr, b: &Expr) -> Expr {
        let (a, b) = (self.sum(a), self.sum(b));
        let address = self.is_address(&a) && self.is_address(&b);
        let decided = match function {
            Function::Equal | Function::LessEqual if a == b => Some(true),
            Function::Less if a == b => Some(false),
            _ if !address => None,
            Function::Less if self.always_less(&a, &b) => Some(true),
            Function::Less if self.never_negative(&a.clone().minus(&b)) => Some(false),
            Function::LessEqual if self.never_positive(&a.clone().minus(&b)) => Some(true),
            Function::LessEqual if self.always_less(&b, &a) => Some(false),
            Function::Equal if self.always_less(&a, &b) || self.always_less(&b, &a) => Some(false),
            _ => None,
        };
        match decided {
            Some(truth) => Expr::Const(Scalar::integer(DType::Bool, truth.into())),
            None => Expr::call(function, vec![self.rebuild(&a), self.rebuild(&b)]),
        }
    }

    /// True for scalar `i64`, found without looking at more than one path of the expression.
    pub fn is_index(&self, expr: &Expr) -> bool {
        self.ty(expr) == Ty::INDEX
    }

    fn ty(&self, expr: &Expr) -> Ty {
        match expr {
            Expr::Const(scalar) => Ty::scalar(scalar.dtype),
            Expr::Var(var) => self.variables.get(var.0 as usize).copied().unwrap_or(Ty::INDEX),
            Expr::Dim(_) => Ty::INDEX,
            Expr::Load { buffer, lanes, .. } => {
                Ty::vector(self.buffers.get(buffer.0 as usize).copied().unwrap_or(DType::I64), *lanes)
            }
            Expr::Call(ScalarOp::Call(function), args) => {
                let Some(first) = args.last().map(|arg| self.ty(arg)) else { return Ty::INDEX };
                match function.rule() {
                    Rule::Compare | Rule::Test | Rule::Logic => first.with(DType::Bool),
                    _ => first,
                }
            }
            Expr::Call(ScalarOp::Cast(to) | ScalarOp::CastAlternate(to) | ScalarOp::Bitcast(to), args) => {
                args.first().map_or(Ty::INDEX, |arg| self.ty(arg)).with(*to)
            }
            Expr::Splat(value, lanes) => Ty::vector(self.ty(value).dtype, *lanes),
            Expr::Ramp { lanes, .. } => Ty::vector(DType::I64, *lanes),
            Expr::Fma(a, _, _) | Expr::Dot { acc: a, .. } => self.ty(a),
            Expr::ReduceLanes(_, value) => Ty::scalar(self.ty(value).dtype),
            Expr::Shuffle(a, _, picks) => Ty::vector(self.ty(a).dtype, picks.len() as u16),
        }
    }
}

enum Valid {
    All,
    Some(Expr),
    None,
}

#[cfg(test)]
mod tests;
