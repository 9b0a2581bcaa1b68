//! Cycles and resources of a scheduled kernel, from its loops and operators.
//!
//! An estimate, not a synthesis result: a pipelined loop of `n` iterations takes `(n - 1) * II + depth + 2` cycles, other
//! loops the sum of their iterations; `II` is the larger of the latency of what one iteration hands to the next and of what
//! the memory ports allow. Operators that a pipelined loop needs every `II` cycles share units. Loops whose extent varies count
//! with their largest extent.

mod memory;
mod operators;
mod walk;

use std::collections::BTreeMap;

use tcc_kernel::ir::{BufferId, Expr, Kernel, LoopKind, Space, Stmt, Var};

use crate::numbers::Types;
use crate::part::Resources;
use crate::range::{Ranges, stride};

pub use memory::{Memory, memory};

use operators::Operator;
use walk::Times;

/// Control logic of a loop and of a function.
const LOOP: Resources = Resources { dsp: 0, lut: 60, ff: 40, bram18: 0, uram: 0 };
const FUNCTION: Resources = Resources { dsp: 0, lut: 120, ff: 150, bram18: 0, uram: 0 };

/// Cycles that entering and leaving a loop take.
const LOOP_CYCLES: u64 = 2;

/// Most banks of an array.
const LARGEST_PARTITION: u32 = 256;

/// Ports of a memory bank.
const PORTS: u64 = 2;

/// What a kernel is expected to cost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Estimate {
    /// Cycles of one call.
    pub cycles: u64,
    /// Largest initiation interval of a pipelined loop.
    pub interval: u32,
    /// Operators, control, and the kernel's own arrays.
    pub resources: Resources,
}

/// Estimator of one kernel.
pub struct Estimator<'k> {
    kernel: &'k Kernel,
    types: &'k Types,
    partitions: &'k [u32],
    ranges: Ranges,
}

/// True for loops whose iterations all exist in hardware.
pub fn is_spatial(kind: LoopKind) -> bool {
    matches!(kind, LoopKind::Unroll | LoopKind::Vector)
}

/// True where a loop runs in time inside the statements.
pub fn has_loop(block: &[Stmt]) -> bool {
    block.iter().any(|stmt| match stmt {
        Stmt::For { kind, body, .. } => !is_spatial(*kind) || has_loop(body),
        Stmt::If { then, otherwise, .. } => has_loop(then) || has_loop(otherwise),
        _ => false,
    })
}

/// Banks that each buffer should have, so that unrolled accesses to consecutive elements meet no port twice.
pub fn partitions(kernel: &Kernel) -> Vec<u32> {
    let mut factors = vec![1u32; kernel.buffers.len()];
    let mut visit = |expr_index: &Expr, buffer: usize, unrolled: &[(Var, u64)]| {
        let declared = &kernel.buffers[buffer];
        let Some((count, _)) = Ranges::default().of(&declared.count) else { return };
        // Loops whose steps add up to a run of consecutive elements count together.
        let mut steps: Vec<(i64, u64)> = unrolled
            .iter()
            .filter_map(|(counter, extent)| Some((stride(expr_index, *counter)?, *extent)))
            .filter(|(stride, extent)| *stride > 0 && *extent > 1)
            .collect();
        steps.sort_unstable();
        let mut run = 1u64;
        for (stride, extent) in steps {
            if u64::try_from(stride).is_ok_and(|stride| stride == run) {
                run = run.saturating_mul(extent);
            }
        }
        let factor = u32::try_from(run).unwrap_or(u32::MAX);
        if (2..=LARGEST_PARTITION).contains(&factor) && count % i128::from(factor) == 0 {
            factors[buffer] = factors[buffer].max(factor);
        }
    };
    visit_accesses(&kernel.body, &mut Vec::new(), &mut visit);
    for (factor, buffer) in factors.iter_mut().zip(&kernel.buffers) {
        if buffer.space == Space::Register {
            *factor = 1;
        }
    }
    factors
}

/// What is told of an access: its index, the number of its buffer, the unrolled loops around it with their extents.
type Visitor<'v> = dyn FnMut(&Expr, usize, &[(Var, u64)]) + 'v;

/// Calls `visit` on the index of each access with its buffer and the unrolled loops around it.
fn visit_accesses(block: &[Stmt], unrolled: &mut Vec<(Var, u64)>, visit: &mut Visitor) {
    for stmt in block {
        match stmt {
            Stmt::For { var, extent, kind, body } => {
                let spatial = is_spatial(*kind);
                if spatial {
                    unrolled.push((*var, extent.as_index().map_or(1, |extent| extent.max(1) as u64)));
                }
                visit_accesses(body, unrolled, visit);
                if spatial {
                    unrolled.pop();
                }
            }
            Stmt::If { then, otherwise, .. } => {
                visit_accesses(then, unrolled, visit);
                visit_accesses(otherwise, unrolled, visit);
            }
            stmt => {
                if let Stmt::Store { buffer, index, .. } = stmt {
                    visit(index, buffer.0 as usize, unrolled);
                }
                stmt.visit_exprs(&mut |expr| {
                    expr.visit(&mut |part| {
                        if let Expr::Load { buffer, index, .. } = part {
                            visit(index, buffer.0 as usize, unrolled);
                        }
                    });
                });
            }
        }
    }
}

impl<'k> Estimator<'k> {
    /// An estimator outside of all loops.
    pub fn new(kernel: &'k Kernel, types: &'k Types, partitions: &'k [u32]) -> Estimator<'k> {
        Estimator { kernel, types, partitions, ranges: Ranges::default() }
    }

    /// The estimate of the whole kernel, whose loops are scheduled.
    pub fn kernel(mut self) -> Estimate {
        let mut estimate = self.block(&self.kernel.body);
        estimate.resources = estimate.resources.plus(FUNCTION).plus(self.arrays());
        estimate
    }

    /// The kernel's own arrays.
    fn arrays(&self) -> Resources {
        let mut sum = Resources::default();
        for (number, (buffer, factor)) in self.kernel.buffers.iter().zip(self.partitions).enumerate() {
            let count = Ranges::default().of(&buffer.count).map_or(1, |(_, high)| high.max(1));
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            sum = sum.plus(match buffer.space {
                Space::Argument(_) => Resources::default(),
                Space::Register => {
                    let bits = count.saturating_mul(self.types.local_bits(buffer.dtype).into());
                    Resources { ff: bits, ..Resources::default() }
                }
                _ => {
                    let width = self.types.buffer_bits(self.kernel, BufferId(number as u32));
                    let memory = Memory { elements: count, width, banks: *factor, large: false };
                    memory.resources()
                }
            });
        }
        sum
    }

    fn block(&mut self, block: &[Stmt]) -> Estimate {
        let mut total = Estimate::default();
        let mut straight: Vec<Stmt> = Vec::new();
        for stmt in block {
            if !has_loop(std::slice::from_ref(stmt)) {
                straight.push(stmt.clone());
                continue;
            }
            self.straight(&mut straight, &mut total);
            let part = match stmt {
                Stmt::For { var, extent, kind, body } => self.iteration(*var, extent, *kind, body),
                Stmt::If { then, otherwise, .. } => {
                    let (a, b) = (self.block(then), self.block(otherwise));
                    Estimate {
                        cycles: a.cycles.max(b.cycles) + 1,
                        interval: a.interval.max(b.interval),
                        resources: a.resources.plus(b.resources),
                    }
                }
                _ => Estimate::default(),
            };
            total.cycles = total.cycles.saturating_add(part.cycles);
            total.interval = total.interval.max(part.interval);
            total.resources = total.resources.plus(part.resources);
        }
        self.straight(&mut straight, &mut total);
        total
    }

    /// Adds statements without loops and forgets them.
    fn straight(&self, stmts: &mut Vec<Stmt>, total: &mut Estimate) {
        if stmts.is_empty() {
            return;
        }
        total.cycles = total.cycles.saturating_add(self.depth(stmts));
        total.resources = total.resources.plus(self.operators(stmts, 1));
        stmts.clear();
    }

    fn iteration(&mut self, var: Var, extent: &Expr, kind: LoopKind, body: &[Stmt]) -> Estimate {
        let trips = self.ranges.enter(var, extent).map_or(1, |(_, high)| high);
        match kind {
            LoopKind::Pipeline(interval) => {
                let depth = self.depth(body);
                let cycles = trips.saturating_sub(1).saturating_mul(interval.into());
                Estimate {
                    cycles: if trips == 0 { 1 } else { cycles.saturating_add(depth + LOOP_CYCLES) },
                    interval,
                    resources: self.operators(body, interval.into()).plus(LOOP),
                }
            }
            kind if is_spatial(kind) => {
                let inner = self.block(body);
                Estimate { resources: inner.resources.times(trips), ..inner }
            }
            _ => {
                let inner = self.block(body);
                Estimate {
                    cycles: inner.cycles.saturating_add(1).saturating_mul(trips).saturating_add(LOOP_CYCLES),
                    interval: inner.interval,
                    resources: inner.resources.plus(LOOP),
                }
            }
        }
    }

    /// Cycles from the first load to the last result of statements without loops in time.
    fn depth(&self, block: &[Stmt]) -> u64 {
        let mut times = Times::depth(self.kernel, self.types);
        times.block(block);
        times.latest() + 1
    }

    /// Units for the operators of statements that start every `interval` cycles.
    fn operators(&self, block: &[Stmt], interval: u64) -> Resources {
        let mut counts: BTreeMap<Operator, u64> = BTreeMap::new();
        operators::count(self.kernel, self.types, block, 1, &mut counts);
        counts.into_iter().fold(Resources::default(), |sum, (operator, count)| {
            sum.plus(operator.cost().resources.times(count.div_ceil(interval.max(1))))
        })
    }

    /// The smallest initiation interval that dependences and memory ports allow a loop over `counter`.
    pub fn interval(&self, counter: Var, body: &[Stmt]) -> u32 {
        let carried = Times::carried(self.kernel, self.types, counter, body);
        let interval = carried.max(self.port_interval(body)).max(1);
        u32::try_from(interval).unwrap_or(u32::MAX)
    }

    fn port_interval(&self, body: &[Stmt]) -> u64 {
        let mut seen: Vec<Vec<Expr>> = vec![Vec::new(); self.kernel.buffers.len()];
        let mut counts = vec![0u64; self.kernel.buffers.len()];
        visit_accesses(body, &mut Vec::new(), &mut |index, buffer, unrolled| {
            if seen[buffer].contains(index) {
                return;
            }
            seen[buffer].push(index.clone());
            let copies = unrolled.iter().filter(|(counter, _)| index.mentions(*counter));
            counts[buffer] += copies.fold(1u64, |product, (_, extent)| product.saturating_mul(*extent));
        });
        let intervals =
            counts.iter().zip(self.partitions).zip(&self.kernel.buffers).map(|((count, factor), buffer)| {
                match buffer.space {
                    Space::Register => 1,
                    _ => count.div_ceil(PORTS * u64::from(*factor)),
                }
            });
        intervals.max().unwrap_or(1)
    }
}
