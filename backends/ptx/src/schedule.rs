//! Maps the loops of a kernel to the blocks and threads of a GPU.
//!
//! A finished CPU kernel has one parallel loop over independent tasks. Its domain is cut into blocks of threads:
//!
//! ```text
//! parallel i in 0..n { f(i) }
//! ->
//! grid b in 0..ceil(n / 128) { thread t in 0..min(n - b * 128, 128) { f(b * 128 + t) } }
//! ```
//!
//! The extent of the thread loop is the bounds guard: threads from it on do nothing. A kernel without a parallel loop runs in
//! one thread.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Expr, Kernel, LoopKind, Stmt, Var};
use tcc_kernel::lower::{Gpu, Tuning};
use tcc_kernel::machine::{DotForms, Machine};
use tcc_kernel::passes::finalize_gpu;
use tcc_kernel::steps::Tail;

use crate::error::Error;
use crate::target::Target;

/// Threads of a block where nothing says otherwise: four warps.
pub const BLOCK: u32 = 128;

/// What kernels are made ready for: accesses of 16 bytes, fused multiply-add, f16 in memory.
pub const MACHINE: Machine = Machine {
    vector_bits: 128,
    fma: true,
    f16_convert: true,
    masked: false,
    dot: DotForms { unsigned_signed: false, signed_signed: false, unsigned_unsigned: false },
};

/// The tuning with which operators are lowered for a GPU: products in tiles of a block, everything else with vectors as wide
/// as an access to memory in each thread.
pub fn tuning(target: &Target) -> Tuning {
    Tuning {
        vector_bits: 128,
        vector_registers: 32,
        l1_bytes: 32 << 10,
        l2_bytes: 512 << 10,
        dot: false,
        gpu: Some(Gpu {
            multiprocessors: target.architecture().multiprocessors,
            shared_bytes: target.shared,
            multiprocessor_shared: target.architecture().shared,
            tensor_cores: target.tensor_cores(),
            matrix_cycles: target.architecture().matrix_cycles(),
        }),
    }
}

/// True where the kernel has loops over blocks or threads.
pub fn is_scheduled(kernel: &Kernel) -> bool {
    fn any(stmts: &[Stmt]) -> bool {
        stmts.iter().any(|stmt| match stmt {
            Stmt::For { kind: LoopKind::Grid(_) | LoopKind::Thread(_), .. } => true,
            Stmt::For { body, .. } => any(body),
            Stmt::If { then, otherwise, .. } => any(then) || any(otherwise),
            _ => false,
        })
    }
    any(&kernel.body)
}

/// Makes a lowered kernel ready: vectors are at most 16 bytes wide, the core functions remain.
pub fn prepare(kernel: &mut Kernel) -> Result<(), Error> {
    Ok(finalize_gpu(kernel, &MACHINE)?)
}

/// Makes a lowered kernel ready and maps it to blocks of `block` threads.
pub fn schedule(kernel: &mut Kernel, block: u32) -> Result<(), Error> {
    prepare(kernel)?;
    let Some(task) = take_parallel(kernel) else { return Ok(()) };
    let (grid, thread) = kernel.split(task, i64::from(block.max(1)), Tail::Short)?;
    set_kind(&mut kernel.body, grid, LoopKind::Grid(0));
    set_kind(&mut kernel.body, thread, LoopKind::Thread(0));
    Ok(())
}

/// The counter of the parallel loop, which becomes a serial one so that steps take it.
fn take_parallel(kernel: &mut Kernel) -> Option<Var> {
    match &mut kernel.body[..] {
        [Stmt::For { var, kind: kind @ LoopKind::Parallel, .. }] => {
            *kind = LoopKind::Serial;
            Some(*var)
        }
        _ => None,
    }
}

fn set_kind(stmts: &mut [Stmt], target: Var, to: LoopKind) {
    for stmt in stmts {
        if let Stmt::For { var, kind, body, .. } = stmt {
            if *var == target {
                *kind = to;
            }
            set_kind(body, target, to);
        }
    }
}

/// The threads of a block along each dimension: the largest extent of its thread loops, which must be bounded by a constant.
pub fn block_of(kernel: &Kernel) -> Result<[u64; 3], Error> {
    let mut block = [1; 3];
    threads(kernel, &kernel.body, &mut block)?;
    Ok(block)
}

fn threads(kernel: &Kernel, stmts: &[Stmt], block: &mut [u64; 3]) -> Result<(), Error> {
    for stmt in stmts {
        match stmt {
            Stmt::For { extent, kind, body, .. } => {
                if let LoopKind::Thread(axis) = kind {
                    let (Some(limit), Some(size)) = (bound(extent), block.get_mut(usize::from(*axis))) else {
                        return Err(Error::Unsupported {
                            kernel: kernel.name.clone(),
                            what: "a thread loop whose extent no constant bounds".into(),
                        });
                    };
                    *size = (*size).max(limit.max(1) as u64);
                }
                threads(kernel, body, block)?;
            }
            Stmt::If { then, otherwise, .. } => {
                threads(kernel, then, block)?;
                threads(kernel, otherwise, block)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A constant that the index never exceeds.
fn bound(extent: &Expr) -> Option<i64> {
    match extent {
        Expr::Const(scalar) if scalar.dtype == DType::I64 => Some(scalar.as_i64()),
        Expr::Call(ScalarOp::Call(Function::Min), args) => args.iter().filter_map(bound).min(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcc_kernel::ir::Access;

    fn copy(extent: Expr) -> Kernel {
        let mut kernel = Kernel::new("copy");
        kernel.dims.push("n".into());
        let x = kernel.argument("x", DType::F32, extent.clone(), Access::Read);
        let y = kernel.argument("y", DType::F32, extent.clone(), Access::Write);
        let i = kernel.counter("i");
        let store = Stmt::Store { buffer: y, index: i.into(), value: Expr::load(x, i.into()), valid: None };
        kernel.body = vec![Stmt::For { var: i, extent, kind: LoopKind::Parallel, body: vec![store] }];
        kernel
    }

    #[test]
    fn the_parallel_loop_becomes_blocks_of_threads() {
        for extent in [Expr::Dim(0), Expr::index(256), Expr::index(7)] {
            let mut kernel = copy(extent);
            schedule(&mut kernel, 64).unwrap();
            let [Stmt::For { kind: LoopKind::Grid(0), body, .. }] = &kernel.body[..] else {
                panic!("{kernel}");
            };
            assert!(matches!(body[..], [Stmt::For { kind: LoopKind::Thread(0), .. }]), "{kernel}");
            assert_eq!(block_of(&kernel).unwrap(), [64, 1, 1]);
        }
    }
}
