//! From a module of mixed dialects to LLVM IR, and from there to code.
//!
//! Kernels arrive scheduled: tiled, vectorized and unrolled. LLVM therefore runs a short list of scalar clean-ups and no
//! vectorizer or unroller, which would only undo the schedule.

use inkwell::context::Context as LlvmContext;
use inkwell::module::Module as LlvmModule;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{FileType, TargetMachine};
use llvm_sys::prelude::{LLVMContextRef, LLVMModuleRef};
use melior::ir::Module;
use melior::pass::{PassManager, conversion};
use mlir_sys::mlirTranslateModuleToLLVMIR;

use crate::context::Session;
use crate::error::Error;

/// Lowers structured control flow, arithmetic, math and vector operations to the LLVM dialect, in place.
///
/// Math goes to LLVM intrinsics before anything may become a library call: a fused multiply-add must stay one.
pub(crate) fn lower_to_llvm_dialect(session: &Session, module: &mut Module) -> Result<(), Error> {
    let manager = PassManager::new(session.context());
    // The builder's output has been verified, and translation verifies the result again.
    manager.enable_verifier(false);
    manager.add_pass(conversion::create_scf_to_control_flow());
    manager.add_pass(conversion::create_math_to_llvm());
    manager.add_pass(conversion::create_vector_to_llvm());
    manager.add_pass(conversion::create_arith_to_llvm());
    manager.add_pass(conversion::create_control_flow_to_llvm());
    manager.add_pass(conversion::create_reconcile_unrealized_casts());
    manager.run(module).map_err(|_| session.error("conversion to the LLVM dialect"))
}

/// Translates a module of the LLVM dialect into LLVM IR owned by `context`.
pub(crate) fn translate<'l>(
    session: &Session,
    module: &Module,
    context: &'l LlvmContext,
    machine: &TargetMachine,
) -> Result<LlvmModule<'l>, Error> {
    let operation = module.as_operation();
    // SAFETY: both handles are live, and both libraries are linked against the one shared libLLVM, so that a context made
    // by inkwell is a context for MLIR.
    let raw: LLVMModuleRef = unsafe {
        let context: LLVMContextRef = context.raw();
        mlirTranslateModuleToLLVMIR(operation.to_raw(), context.cast()).cast()
    };
    if raw.is_null() {
        return Err(session.error("translation to LLVM IR"));
    }
    // SAFETY: the module is not null, lives in `context`, and nobody else owns it.
    let module = unsafe { LlvmModule::new(raw) };
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    Ok(module)
}

/// Runs LLVM's passes over the module, by optimization level 0 to 3.
pub(crate) fn optimize(module: &LlvmModule, machine: &TargetMachine, level: u8) -> Result<(), Error> {
    let passes = match level {
        0 => "function(sroa)",
        1 => "function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg)",
        _ => {
            "function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(loop-rotate,licm),\
             early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg)"
        }
    };
    module
        .run_passes(passes, machine, PassBuilderOptions::create())
        .map_err(|error| Error::Llvm { stage: "optimization", message: error.to_string() })
}

/// Emits the module as a relocatable object or as assembly text.
pub(crate) fn emit(module: &LlvmModule, machine: &TargetMachine, kind: FileType) -> Result<Vec<u8>, Error> {
    let buffer = machine
        .write_to_memory_buffer(module, kind)
        .map_err(|error| Error::Llvm { stage: "code generation", message: error.to_string() })?;
    Ok(buffer.as_slice().to_vec())
}
