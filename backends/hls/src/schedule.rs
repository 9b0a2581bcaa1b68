//! From a lowered kernel to one with pipelines: innermost loops start an iteration every few cycles.
//!
//! ```text
//! for k in 0..64 { sum = sum + x[k] * w[k] }   =>   for k in 0..64 pipeline(II) { ... }
//! ```

use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Expr, Kernel, LoopKind, Stmt, Var};
use tcc_kernel::lower::Tuning;
use tcc_kernel::simplify::simplify;
use tcc_kernel::steps::Tail;
use tcc_kernel::verify::verify;

use crate::error::Error;
use crate::estimate::{Estimate, Estimator, has_loop, is_spatial, partitions};
use crate::numbers::Types;

/// Loops of at most so many iterations around nothing but straight code are written out.
const SHORT: i64 = 1;

/// A kernel whose loops are pipelined.
#[derive(Clone, PartialEq, Debug)]
pub struct Scheduled {
    /// The kernel.
    pub kernel: Kernel,
    /// Banks of each buffer; for arguments a wish that the caller meets.
    pub partitions: Vec<u32>,
    /// What it is expected to cost.
    pub estimate: Estimate,
}

/// Lowering parameters for designs: one lane, and tiles of sums that unrolled loops compute side by side.
pub fn tuning() -> Tuning {
    // One lane of any type; the caches do not exist, and matrices that fit on the chip are read in any order.
    Tuning {
        vector_bits: 8,
        vector_registers: 16,
        l1_bytes: 1 << 20,
        l2_bytes: 1 << 24,
        dot: false,
        gpu: None,
    }
}

/// Pipelines the innermost loops of a kernel, each as often as its dependences and memory ports allow. Loops that are
/// `Pipeline` already keep their interval.
///
/// Of each innermost loop as many iterations run side by side as `parallel`, or the largest divisor of the extent below it.
pub fn schedule(kernel: &Kernel, types: &Types, parallel: u32) -> Result<Scheduled, Error> {
    if let Some(dimension) = kernel.dims.first() {
        return Err(Error::OpenDimension {
            what: format!("kernel {}", kernel.name),
            dimension: dimension.clone(),
        });
    }
    verify(kernel)
        .map_err(|error| Error::Kernel { kernel: kernel.name.clone(), reason: error.to_string() })?;
    let mut kernel = kernel.clone();
    simplify(&mut kernel);
    let unrolled = if parallel > 1 { widen(&mut kernel, parallel)? } else { Vec::new() };
    // Before the counters of unrolled loops become constants.
    let partitions = partitions(&kernel);
    unrolled.into_iter().for_each(|(counter, factor)| gather(&mut kernel.body, counter, factor));
    let mut body = std::mem::take(&mut kernel.body);
    pipeline(&mut body, &Estimator::new(&kernel, types, &partitions));
    kernel.body = body;
    let estimate = Estimator::new(&kernel, types, &partitions).kernel();
    Ok(Scheduled { kernel, partitions, estimate })
}

/// Counters and extents of the innermost loops that run in time.
fn innermost(block: &[Stmt], found: &mut Vec<(Var, i64)>) {
    for stmt in block {
        match stmt {
            Stmt::For { var, extent, kind, body } if !is_spatial(*kind) && !has_loop(body) => {
                if let (LoopKind::Serial, Some(extent)) = (kind, extent.as_index()) {
                    found.push((*var, extent));
                }
            }
            Stmt::For { body, .. } => innermost(body, found),
            Stmt::If { then, otherwise, .. } => {
                innermost(then, found);
                innermost(otherwise, found);
            }
            _ => {}
        }
    }
}

/// Writes out iterations of the innermost loops; the counters of what is written out, and how often.
///
/// ```text
/// for k in 0..64 { f(k) }   =>   for o in 0..16 { for j in 0..4 unroll { f(4 * o + j) } }
/// ```
fn widen(kernel: &mut Kernel, parallel: u32) -> Result<Vec<(Var, i64)>, Error> {
    let mut unrolled = Vec::new();
    let mut loops = Vec::new();
    innermost(&kernel.body, &mut loops);
    for (var, extent) in loops {
        let factor = (2..=i64::from(parallel).min(extent)).rev().find(|factor| extent % factor == 0);
        let Some(factor) = factor else { continue };
        let failed = |error: tcc_kernel::steps::StepError| Error::Kernel {
            kernel: kernel.name.clone(),
            reason: error.to_string(),
        };
        let mut widened = kernel.clone();
        let (_, inner) = widened.split(var, factor, Tail::Exact).map_err(failed)?;
        widened.unroll(inner).map_err(failed)?;
        *kernel = widened;
        unrolled.push((inner, factor));
    }
    simplify(kernel);
    Ok(unrolled)
}

/// Turns a chain of additions over an unrolled loop into one addition of a tree, so that iterations do not wait for each other.
///
/// ```text
/// for j in 0..4 unroll { s = s + f(j) }   =>   s = s + ((f(0) + f(1)) + (f(2) + f(3)))
/// ```
fn gather(block: &mut [Stmt], counter: Var, factor: i64) {
    for stmt in block.iter_mut() {
        match stmt {
            Stmt::For { var, body, .. } if *var == counter => {
                if let Some(gathered) = gathered(body, counter, factor) {
                    *stmt = gathered;
                }
            }
            Stmt::For { body, .. } => gather(body, counter, factor),
            Stmt::If { then, otherwise, .. } => {
                gather(then, counter, factor);
                gather(otherwise, counter, factor);
            }
            _ => {}
        }
    }
}

/// The body of the loop as one statement that adds all iterations; none where it is no sum.
fn gathered(body: &[Stmt], counter: Var, factor: i64) -> Option<Stmt> {
    let [stmt] = body else { return None };
    let tree = |part: &Expr| {
        let at = |number: i64| part.substitute(&|var| (var == counter).then(|| Expr::index(number)));
        let mut terms: Vec<Expr> = (0..factor).map(at).collect();
        while terms.len() > 1 {
            let pairs = terms.chunks(2);
            terms = pairs
                .map(|pair| match pair {
                    [a, b] => Expr::call(Function::Add, vec![a.clone(), b.clone()]),
                    rest => rest[0].clone(),
                })
                .collect();
        }
        terms.pop()
    };
    match stmt {
        Stmt::For { var, extent, kind, body } if is_spatial(*kind) && !extent.mentions(counter) => {
            let inner = gathered(body, counter, factor)?;
            Some(Stmt::For { var: *var, extent: extent.clone(), kind: *kind, body: vec![inner] })
        }
        Stmt::Store { buffer, index, value, valid: None } if !index.mentions(counter) => {
            let own = Expr::load(*buffer, index.clone());
            let part = addend(value, &own)?;
            let sum = Expr::call(Function::Add, vec![own, tree(&part)?]);
            Some(Stmt::Store { buffer: *buffer, index: index.clone(), value: sum, valid: None })
        }
        Stmt::Assign { var, value } => {
            let own = Expr::Var(*var);
            let part = addend(value, &own)?;
            Some(Stmt::Assign { var: *var, value: Expr::call(Function::Add, vec![own, tree(&part)?]) })
        }
        _ => None,
    }
}

/// What is added to `own`; none where the value is another function of it.
fn addend(value: &Expr, own: &Expr) -> Option<Expr> {
    let contains = |expr: &Expr| {
        let mut found = false;
        expr.visit(&mut |part| found |= part == own);
        found
    };
    let part = match value {
        Expr::Fma(a, b, c) if **c == *own => Expr::call(Function::Mul, vec![(**a).clone(), (**b).clone()]),
        Expr::Call(ScalarOp::Call(Function::Add), args) => match &args[..] {
            [a, b] if a == own => b.clone(),
            [a, b] if b == own => a.clone(),
            _ => return None,
        },
        _ => return None,
    };
    (!contains(&part)).then_some(part)
}

fn pipeline(block: &mut [Stmt], estimator: &Estimator) {
    for stmt in block {
        match stmt {
            Stmt::For { var, extent, kind, body } => {
                let waits = matches!(kind, LoopKind::Serial | LoopKind::Parallel);
                let short = extent.as_index().is_some_and(|extent| extent <= SHORT);
                if has_loop(body) || is_spatial(*kind) {
                    pipeline(body, estimator);
                } else if waits && short {
                    *kind = LoopKind::Unroll;
                } else if waits {
                    *kind = LoopKind::Pipeline(estimator.interval(*var, body));
                }
            }
            Stmt::If { then, otherwise, .. } => {
                pipeline(then, estimator);
                pipeline(otherwise, estimator);
            }
            _ => {}
        }
    }
}
