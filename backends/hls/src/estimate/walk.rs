//! When values are ready: the depth of a pipeline, and the path from one iteration to the next.

use std::collections::{HashMap, HashSet};

use tcc_kernel::ir::{BufferId, Expr, Kernel, Space, Stmt, Var};

use super::{is_spatial, operators};
use crate::numbers::Types;

/// Cycles that reading a memory takes.
const READ: u64 = 2;

/// Copies of an unrolled loop that are followed one by one; longer chains are extrapolated.
const COPIES: i64 = 64;

/// A value that statements hand on: a variable or the contents of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Item {
    Variable(Var),
    Buffer(BufferId),
}

/// The cycle in which each value is ready; none where it does not come from the start.
pub struct Times<'k> {
    kernel: &'k Kernel,
    types: &'k Types,
    ready: HashMap<Item, Option<u64>>,
    /// What loads and constants that no statement wrote are: ready at once, or not on the path.
    source: Option<u64>,
    latest: u64,
}

impl<'k> Times<'k> {
    /// Times from the first load.
    pub fn depth(kernel: &'k Kernel, types: &'k Types) -> Times<'k> {
        Times { kernel, types, ready: HashMap::new(), source: Some(0), latest: 0 }
    }

    /// The largest time.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// The longest path from a value that an iteration takes over to the value that it hands on.
    pub fn carried(kernel: &'k Kernel, types: &'k Types, counter: Var, body: &[Stmt]) -> u64 {
        let mut finder = Carried { kernel, counter, written: HashSet::new(), taken: HashSet::new() };
        finder.block(body);
        let items: Vec<Item> = finder.taken.intersection(&finder.written).copied().collect();
        let mut longest = 0;
        for item in items {
            let mut times = Times { kernel, types, ready: HashMap::new(), source: None, latest: 0 };
            times.ready.insert(item, Some(0));
            times.block(body);
            longest = longest.max(times.ready.get(&item).copied().flatten().unwrap_or(0));
        }
        longest
    }

    /// Follows the statements in order.
    pub fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::Assign { var, value } => {
                    let time = self.expr(value);
                    self.ready.insert(Item::Variable(*var), time);
                }
                Stmt::Store { buffer, index, value, .. } => {
                    let time = self.expr(value).max(self.expr(index));
                    let register = self.is_register(*buffer);
                    let time = time.map(|time| if register { time } else { time + 1 });
                    self.latest = self.latest.max(time.unwrap_or(0));
                    let before = self.ready.get(&Item::Buffer(*buffer)).copied().flatten();
                    // Another element may be the later one.
                    let time = if register { time } else { time.max(before) };
                    self.ready.insert(Item::Buffer(*buffer), time);
                }
                Stmt::For { var, extent, kind, body } if is_spatial(*kind) => {
                    self.unrolled(*var, extent.as_index().unwrap_or(1), body);
                }
                Stmt::For { body, .. } => self.block(body),
                Stmt::If { condition, then, otherwise } => {
                    self.expr(condition);
                    self.block(then);
                    self.block(otherwise);
                }
                Stmt::Barrier | Stmt::Warp(_) => {}
            }
        }
    }

    /// Copies that share a value form a chain; those with elements of their own run side by side.
    fn unrolled(&mut self, counter: Var, extent: i64, body: &[Stmt]) {
        let mut finder =
            Carried { kernel: self.kernel, counter, written: HashSet::new(), taken: HashSet::new() };
        finder.block(body);
        let chained = finder.taken.intersection(&finder.written).next().is_some();
        let copies = if chained { extent.min(COPIES) } else { extent.min(1) };
        let start = self.ready.clone();
        let mut first = None;
        for copy in 0..copies {
            for (item, time) in &start {
                if !finder.taken.contains(item) {
                    self.ready.insert(*item, *time);
                }
            }
            self.block(body);
            if copy == 0 {
                first = Some(self.latest);
            }
        }
        if chained && extent > COPIES {
            let step = (self.latest - first.unwrap_or(0)) / (COPIES as u64 - 1);
            self.latest += step * (extent - COPIES) as u64;
        }
    }

    fn is_register(&self, buffer: BufferId) -> bool {
        self.kernel.buffer_of(buffer).space == Space::Register
    }

    fn expr(&mut self, expr: &Expr) -> Option<u64> {
        let time = match expr {
            Expr::Const(_) | Expr::Dim(_) => self.source,
            Expr::Var(var) => match self.ready.get(&Item::Variable(*var)) {
                Some(time) => *time,
                None => self.source,
            },
            Expr::Load { buffer, index, .. } => {
                let stored = match self.ready.get(&Item::Buffer(*buffer)) {
                    Some(time) => *time,
                    None => self.source,
                };
                let time = stored.max(self.expr(index));
                if self.is_register(*buffer) { time } else { time.map(|time| time + READ) }
            }
            // The product does not wait for the sum.
            Expr::Fma(a, b, c) => {
                let operators = operators::of(self.kernel, self.types, expr);
                let latency = |position: usize| operators.get(position).map_or(0, |unit| unit.cost().latency);
                let product = self.expr(a).max(self.expr(b)).map(|time| time + latency(0));
                product.max(self.expr(c)).map(|time| time + latency(1))
            }
            Expr::Call(_, args) => {
                let latency: u64 = operators::of(self.kernel, self.types, expr)
                    .iter()
                    .map(|operator| operator.cost().latency)
                    .sum();
                let start = args.iter().map(|arg| self.expr(arg)).max().unwrap_or(self.source);
                start.map(|time| time + latency)
            }
            Expr::Splat(value, _) | Expr::ReduceLanes(_, value) => self.expr(value),
            Expr::Ramp { base, .. } => self.expr(base),
            Expr::Dot { acc, a, b } => self.expr(acc).max(self.expr(a)).max(self.expr(b)),
            Expr::Shuffle(a, b, _) => self.expr(a).max(self.expr(b)),
        };
        self.latest = self.latest.max(time.unwrap_or(0));
        time
    }
}

/// Finds what an iteration reads before it writes it, and what it writes.
struct Carried<'k> {
    kernel: &'k Kernel,
    counter: Var,
    written: HashSet<Item>,
    taken: HashSet<Item>,
}

impl Carried<'_> {
    fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::For { extent, body, .. } => {
                    self.expr(extent);
                    self.block(body);
                }
                Stmt::Assign { var, value } => {
                    self.expr(value);
                    self.written.insert(Item::Variable(*var));
                }
                Stmt::Store { buffer, index, value, .. } => {
                    self.expr(index);
                    self.expr(value);
                    // Each iteration has an element of its own where the index follows the counter.
                    if !index.mentions(self.counter) {
                        self.written.insert(Item::Buffer(*buffer));
                    }
                }
                Stmt::If { condition, then, otherwise } => {
                    self.expr(condition);
                    self.block(then);
                    self.block(otherwise);
                }
                Stmt::Barrier | Stmt::Warp(_) => {}
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        expr.visit(&mut |part| {
            let item = match part {
                Expr::Var(var) => Item::Variable(*var),
                Expr::Load { buffer, index, .. } => {
                    let own = index.mentions(self.counter)
                        && self.kernel.buffer_of(*buffer).space == Space::Register;
                    if own {
                        return;
                    }
                    Item::Buffer(*buffer)
                }
                _ => return,
            };
            if !self.written.contains(&item) {
                self.taken.insert(item);
            }
        });
    }
}
