//! From one tensor IR operation to the kernels that compute it.
//!
//! Every operator that is a loop nest has a lowering here, one topic a file. A lowering writes the nest with symbolic
//! extents, so one kernel serves every size, and applies the scheduling steps that the [`Tuning`] asks for. Control flow,
//! host functions and views (a reshape is an alias) are not kernels; the program builder treats them.

mod attention;
mod block_contract;
mod block_packing;
mod blocks;
mod cache;
mod context;
mod contract;
mod convolve;
mod gather;
mod gpu;
mod halo;
mod movement;
mod normalize;
mod packing;
mod pointwise;
mod quantize;
mod quantize_rows;
mod recurrent;
mod reduce;
mod resize;
mod rows;
mod sample;
mod scan;
mod scatter;
mod softmax;
mod tiled_attention;
mod transposed;
mod transposition;
mod window;
mod winograd;

use std::ops::Range;

use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;

use crate::ir::Kernel;

pub use block_packing::{BlockPacking, BlockPart, Coding, Offset, Scale};
pub use context::{Lowering, Tuning};
pub use gpu::Gpu;
pub use packing::{PackedLayout, Packing};

/// What a kernel argument stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Argument {
    /// Operand of the operation.
    Operand(usize),
    /// Result of the operation.
    Result(usize),
    /// Intermediate buffer of the lowering.
    Temporary(usize),
    /// The memory of an operand as elements of another type.
    View(usize, DType),
    /// Operand rearranged at compile time: index into [`Lowered::packings`].
    Packed(usize),
    /// One array of packed weights: index into [`Lowered::blocks`].
    Block(usize),
}

/// One kernel and what it is called with.
#[derive(Clone, PartialEq, Debug)]
pub struct Launch {
    /// The code.
    pub kernel: Kernel,
    /// One entry for each kernel argument.
    pub arguments: Vec<Argument>,
    /// Operands whose memory the result may take where they are as large: element `i` of them is read before element `i` of
    /// the result is written and not after, and nothing else is read with it.
    pub in_place: Range<usize>,
}

/// Kernels of one operation, in the order in which they run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lowered {
    /// Kernels.
    pub launches: Vec<Launch>,
    /// Types of the intermediate buffers.
    pub temporaries: Vec<TensorType>,
    /// Constant operands that the kernels read in another order.
    pub packings: Vec<Packing>,
    /// Arrays that block-quantized weights are packed into.
    pub blocks: Vec<BlockPacking>,
}

/// Why an operation has no kernel.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum LowerError {
    /// No kernel is written for this operator with these attributes or types.
    #[error("no kernel for tir.{operator}: {reason}")]
    Unsupported {
        /// Operator name.
        operator: &'static str,
        /// What about it.
        reason: String,
    },
    /// The operation breaks an invariant of the IR; the verifier should have refused it.
    #[error("tir.{operator} is malformed: {reason}")]
    Malformed {
        /// Operator name.
        operator: &'static str,
        /// What about it.
        reason: String,
    },
    /// A scheduling step did not apply.
    #[error("schedule: {0}")]
    Step(#[from] crate::steps::StepError),
}

/// Lowers an operation whose operands and results have these types. `constant` says which operands are known at compile
/// time, so that they may be packed.
pub fn lower(
    operator: &Operator,
    operands: &[TensorType],
    results: &[TensorType],
    constant: &[bool],
    name: &str,
    tuning: &Tuning,
) -> Result<Lowered, LowerError> {
    if let Some(operands) = cache::memory_types(operator, operands) {
        let mut lowering = Lowering::new(operator.name(), name, &operands, results, constant, tuning);
        cache::lower(&mut lowering, operator)?;
        return Ok(lowering.finish());
    }
    let mut lowering = Lowering::new(operator.name(), name, operands, results, constant, tuning);
    match operator {
        Operator::Map { body } => pointwise::map(&mut lowering, body)?,
        Operator::Iota { axis, .. } => pointwise::iota(&mut lowering, *axis)?,
        Operator::Dims { dims } => pointwise::dims(&mut lowering, dims)?,
        Operator::Broadcast { .. } => movement::broadcast(&mut lowering)?,
        Operator::Reshape { .. } => movement::copy(&mut lowering)?,
        Operator::Transpose { perm } => transposition::transpose(&mut lowering, perm)?,
        Operator::Slice { starts, steps, .. } => movement::slice(&mut lowering, starts, steps)?,
        Operator::Concat { axis } => movement::concat(&mut lowering, *axis)?,
        Operator::Pad { kind, low, .. } => movement::pad(&mut lowering, *kind, low)?,
        Operator::Reduce { kind, axes, prologue, epilogue, .. } => {
            reduce::reduce(&mut lowering, *kind, axes, prologue, epilogue)?
        }
        Operator::ArgReduce { kind, axis, last, .. } => {
            reduce::arg_reduce(&mut lowering, *kind, *axis, *last)?
        }
        Operator::Scan { kind, axis, exclusive, reverse } => {
            scan::scan(&mut lowering, *kind, *axis, *exclusive, *reverse)?
        }
        Operator::Contract { spec, accumulator, epilogue } => {
            let tiled = match &tuning.gpu {
                Some(gpu) => gpu::contract(&mut lowering, gpu, spec, *accumulator, epilogue)?,
                None => false,
            };
            if !tiled {
                contract::contract(&mut lowering, spec, *accumulator, epilogue)?;
            }
        }
        Operator::Convolve { .. } => convolve::convolve(&mut lowering, operator)?,
        Operator::ConvolveTranspose { .. } => transposed::convolve_transpose(&mut lowering, operator)?,
        Operator::Window { .. } => window::window(&mut lowering, operator)?,
        Operator::WindowArgMax { .. } => window::window_arg_max(&mut lowering, operator)?,
        Operator::Softmax { axis, log } => softmax::softmax(&mut lowering, *axis, *log)?,
        Operator::Normalize { axes, epsilon, centered, epilogue } => {
            normalize::normalize(&mut lowering, axes, epsilon.get(), *centered, epilogue)?
        }
        Operator::Attention { .. } => attention::attention(&mut lowering, operator)?,
        Operator::Rope { interleaved } => attention::rope(&mut lowering, *interleaved)?,
        Operator::Recurrent { .. } => recurrent::recurrent(&mut lowering, operator)?,
        Operator::Gather { axis } => gather::gather(&mut lowering, *axis)?,
        Operator::GatherElements { axis } => gather::gather_elements(&mut lowering, *axis)?,
        Operator::GatherNd { batch_dims } => gather::gather_nd(&mut lowering, *batch_dims)?,
        Operator::ScatterElements { axis, kind } => scatter::scatter_elements(&mut lowering, *axis, *kind)?,
        Operator::ScatterNd { kind } => scatter::scatter_nd(&mut lowering, *kind)?,
        Operator::Resize { .. } => resize::resize(&mut lowering, operator)?,
        Operator::GridSample { kind, outside, align_corners } => {
            sample::grid_sample(&mut lowering, *kind, *outside, *align_corners)?
        }
        Operator::Quantize { dtype, axis, block, saturate } => {
            quantize::quantize(&mut lowering, *dtype, *axis, *block, *saturate)?
        }
        Operator::Dequantize { dtype, axis, block } => {
            quantize::dequantize(&mut lowering, *dtype, *axis, *block)?
        }
        Operator::DecodeBlocks { format, dtype } => blocks::decode_blocks(&mut lowering, *format, *dtype)?,
        Operator::QuantizeRows { group, sum, rows } => {
            quantize_rows::quantize_rows(&mut lowering, *group, *sum, *rows)?
        }
        Operator::BlockContract { weights, rows, experts, epilogue } => {
            block_contract::block_contract(&mut lowering, *weights, *rows, *experts, epilogue)?
        }
        Operator::Constant { .. }
        | Operator::Bind { .. }
        | Operator::TopK { .. }
        | Operator::Host { .. }
        | Operator::Random { .. }
        | Operator::KvState { .. }
        | Operator::KvAppend { .. }
        | Operator::KvAttend { .. }
        | Operator::If {}
        | Operator::Loop { .. }
        | Operator::Call { .. } => {
            return Err(lowering.unsupported("it is not a loop nest; the runtime executes it"));
        }
    }
    Ok(lowering.finish())
}
