//! Lowering of one kernel to one Cranelift function.

mod arithmetic;
mod cast;
mod expr;
mod fused;
mod half;
mod kernel;
pub(crate) mod lanes;
mod logic;
mod memory;
mod rearrange;
mod stmt;
pub(crate) mod supported;
mod width;

use cranelift_codegen::ir::{FuncRef, Type, Value};
use cranelift_frontend::{FunctionBuilder, Variable};
use smallvec::SmallVec;
use tcc_kernel::Kernel;
use tcc_kernel::ir::Var;

pub(crate) use fused::{fma_double, fma_double_signature, needs_fma_double};
pub(crate) use kernel::{lower, signature};

/// What lowering has to know of the processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    /// Has instructions that multiply and add with one rounding.
    pub fma: bool,
    /// Folds the tree of a four-way dot product of signed by unsigned bytes to one instruction.
    pub mixed_dot: bool,
    /// The same for signed by signed bytes.
    pub signed_dot: bool,
}

/// A variable of the kernel, declared at its first assignment.
#[derive(Clone, Debug)]
struct Slot {
    /// Lane type, which for vectors of truth values the first assignment decides.
    lane: Type,
    /// One variable a register.
    parts: SmallVec<[Variable; 4]>,
}

/// State of lowering one kernel.
struct Lowering<'k, 'f> {
    kernel: &'k Kernel,
    machine: Processor,
    builder: FunctionBuilder<'f>,
    /// The function that multiplies and adds in double precision, where the processor has no instruction.
    fma_double: Option<FuncRef>,
    /// The dims argument.
    dims: Value,
    /// Address of each buffer.
    buffers: Vec<Value>,
    variables: Vec<Option<Slot>>,
    /// Counter of the innermost loop, where that loop only accumulates and no branch inside it is being lowered.
    accumulating: Option<Var>,
}
