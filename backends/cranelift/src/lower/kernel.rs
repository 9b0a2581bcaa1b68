//! The frame of a kernel's function: arguments, buffers, and which part of the domain runs.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, FuncRef, Function, InstBuilder, Signature, Value, types};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use tcc_kernel::Kernel;
use tcc_kernel::ir::{LoopKind, Space, Stmt};
use tcc_kernel::scratch::ScratchLayout;

use super::lanes::memory;
use super::{Lowering, Processor};

/// `void name(void *const *buffers, const int64_t *dims, void *scratch, int64_t begin, int64_t end)`.
pub(crate) fn signature(call_conv: CallConv) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params.extend([AbiParam::new(types::I64); 5]);
    signature
}

/// Fills in the body of a function with [`signature`]. The kernel has been verified and is supported.
pub(crate) fn lower(
    kernel: &Kernel,
    machine: Processor,
    config: TargetFrontendConfig,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
    fma_double: Option<FuncRef>,
) {
    let mut builder = FunctionBuilder::new(function, context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let [pointers, dims, scratch, begin, end] = *builder.block_params(entry) else {
        unreachable!("a kernel's function has five arguments");
    };
    let variables = vec![None; kernel.variables.len()];
    let mut lowering = Lowering {
        kernel,
        machine,
        builder,
        fma_double,
        dims,
        buffers: Vec::new(),
        variables,
        accumulating: None,
    };

    let (work, done) = (lowering.builder.create_block(), lowering.builder.create_block());
    let parallel = match &kernel.body[..] {
        [Stmt::For { var, extent, kind: LoopKind::Parallel, body }] => Some((*var, extent, body)),
        _ => None,
    };
    let runs = match parallel {
        Some(_) => lowering.builder.ins().icmp(IntCC::SignedLessThan, begin, end),
        None => {
            let first = lowering.builder.ins().icmp_imm_s(IntCC::Equal, begin, 0);
            let some = lowering.builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, end, 0);
            lowering.builder.ins().band(first, some)
        }
    };
    lowering.builder.ins().brif(runs, work, &[], done, &[]);
    lowering.builder.switch_to_block(work);
    lowering.builder.seal_block(work);
    lowering.locate_buffers(pointers, scratch);
    match parallel {
        Some((var, extent, body)) => {
            // The caller passes a slice of the domain; what lies outside is never run, whatever it passes.
            let extent = lowering.expr(extent).parts[0];
            let zero = lowering.int(types::I64, 0);
            let begin = lowering.builder.ins().smax(begin, zero);
            let end = lowering.builder.ins().smin(end, extent);
            lowering.count(var, begin, end, body);
        }
        None => lowering.block(&kernel.body),
    }
    lowering.builder.ins().jump(done, &[]);
    lowering.builder.switch_to_block(done);
    lowering.builder.seal_block(done);
    lowering.builder.ins().return_(&[]);
    lowering.builder.finalize(config);
}

impl Lowering<'_, '_> {
    fn locate_buffers(&mut self, pointers: Value, scratch: Value) {
        let kernel = self.kernel;
        let layout = ScratchLayout::of(kernel);
        for (buffer, offset) in kernel.buffers.iter().zip(&layout.offsets) {
            let address = match buffer.space {
                Space::Argument(position) => {
                    let offset = position as i32 * types::I64.bytes() as i32;
                    let flags = memory().with_readonly().with_can_move();
                    self.builder.ins().load(types::I64, flags, pointers, offset)
                }
                Space::Stack => {
                    let count = buffer.count.as_index().unwrap_or(0).max(0) as usize;
                    let slot = self.slot(count * buffer.dtype.size());
                    self.builder.ins().stack_addr(types::I64, slot, 0)
                }
                Space::Scratch => match offset {
                    Some(offset) => {
                        let offset = self.expr(offset).parts[0];
                        self.builder.ins().iadd(scratch, offset)
                    }
                    None => scratch,
                },
                // `supported` has refused these.
                Space::Register | Space::Shared | Space::OnChip => scratch,
            };
            self.buffers.push(address);
        }
    }
}
