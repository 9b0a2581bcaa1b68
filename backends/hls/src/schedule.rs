//! From a lowered kernel to one with pipelines: innermost loops start an iteration every few cycles.
//!
//! ```text
//! for k in 0..64 { sum = sum + x[k] * w[k] }   =>   for k in 0..64 pipeline(II) { ... }
//! ```

use tcc_kernel::ir::{Kernel, LoopKind, Stmt};
use tcc_kernel::lower::Tuning;
use tcc_kernel::simplify::simplify;
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
pub fn schedule(kernel: &Kernel, types: &Types) -> Result<Scheduled, Error> {
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
    let partitions = partitions(&kernel);
    let mut body = std::mem::take(&mut kernel.body);
    pipeline(&mut body, &Estimator::new(&kernel, types, &partitions));
    kernel.body = body;
    let estimate = Estimator::new(&kernel, types, &partitions).kernel();
    Ok(Scheduled { kernel, partitions, estimate })
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
