//! Kernels as a relocatable object.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, UserFuncName};
use cranelift_codegen::{Context, isa::TargetIsa};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use tcc_kernel::Kernel;

use crate::error::Error;
use crate::lower::{self, Processor};
use crate::target::{Target, has_fma, is_on};

/// A relocatable object with the kernels of one call to [`compile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    bytes: Vec<u8>,
    symbols: Vec<String>,
    target: Target,
}

impl Object {
    /// The object file, in the format of the target's operating system. It needs no symbol from elsewhere.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The names of the kernels in it, in the order in which they were given.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(String::as_str)
    }

    /// The target that the code is for.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// Compiles finished kernels to an object. The same kernels and target give the same bytes.
///
/// # Errors
///
/// [`Error::Target`] where the target cannot be used; every other error means that a kernel is not what
/// [`tcc_kernel::ir`] says a CPU backend receives.
pub fn compile(kernels: &[Kernel], target: &Target) -> Result<Object, Error> {
    let isa = target.isa(true)?;
    let builder = ObjectBuilder::new(isa, "kernels", default_libcall_names())
        .map_err(|error| Error::cranelift("object", error))?;
    let mut module = ObjectModule::new(builder);
    define(&mut module, kernels)?;
    let bytes = module.finish().emit().map_err(|error| Error::cranelift("object", error))?;
    let symbols = kernels.iter().map(|kernel| kernel.name.clone()).collect();
    Ok(Object { bytes, symbols, target: target.clone() })
}

/// Name of the function that multiplies and adds doubles; no kernel's, as it is not an identifier.
const FMA_DOUBLE: &str = "kernels.fma_double";

/// Adds each kernel to a module as an exported function; returns them in order.
pub(crate) fn define(module: &mut dyn Module, kernels: &[Kernel]) -> Result<Vec<FuncId>, Error> {
    check(kernels)?;
    let config = module.target_config();
    let call_conv = config.default_call_conv;
    let processor = processor(module.isa());
    let mut frontend = FunctionBuilderContext::new();
    let mut context = Context::new();

    let fma_double = if !processor.fma && kernels.iter().any(lower::needs_fma_double) {
        let signature = lower::fma_double_signature(call_conv);
        let id = module
            .declare_function(FMA_DOUBLE, Linkage::Local, &signature)
            .map_err(|error| Error::cranelift(FMA_DOUBLE, error))?;
        context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature);
        lower::fma_double(config, &mut context.func, &mut frontend);
        finish(module, id, &mut context, FMA_DOUBLE)?;
        Some(id)
    } else {
        None
    };

    let mut functions = Vec::with_capacity(kernels.len());
    for kernel in kernels {
        let signature = lower::signature(call_conv);
        let id = module
            .declare_function(&kernel.name, Linkage::Export, &signature)
            .map_err(|error| Error::cranelift(&kernel.name, error))?;
        context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature);
        let fma_double = fma_double
            .filter(|_| lower::needs_fma_double(kernel))
            .map(|id| module.declare_func_in_func(id, &mut context.func));
        lower::lower(kernel, processor, config, &mut context.func, &mut frontend, fma_double);
        finish(module, id, &mut context, &kernel.name)?;
        functions.push(id);
    }
    Ok(functions)
}

fn finish(module: &mut dyn Module, id: FuncId, context: &mut Context, name: &str) -> Result<(), Error> {
    module
        .define_function_with_control_plane(id, context, &mut ControlPlane::default())
        .map_err(|error| Error::cranelift(name, error))?;
    context.clear();
    Ok(())
}

/// Every kernel keeps the rules of the kernel IR, is supported, and has a name of its own.
fn check(kernels: &[Kernel]) -> Result<(), Error> {
    let mut names = std::collections::BTreeSet::new();
    for kernel in kernels {
        let name = &kernel.name;
        let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let continues = name.chars().all(|next| next.is_ascii_alphanumeric() || next == '_');
        if !starts || !continues || !names.insert(name) {
            return Err(Error::Symbol(name.clone()));
        }
        tcc_kernel::verify::verify(kernel)
            .map_err(|source| Error::Malformed { kernel: name.clone(), source })?;
        lower::supported::check(kernel)
            .map_err(|construct| Error::Unsupported { kernel: name.clone(), construct })?;
    }
    Ok(())
}

fn processor(isa: &dyn TargetIsa) -> Processor {
    let x64 = isa.name() == "x64";
    Processor {
        fma: has_fma(isa),
        mixed_dot: x64
            && is_on(isa, "has_avx")
            && (is_on(isa, "has_avx_vnni") || is_on(isa, "has_avx512vnni") && is_on(isa, "has_avx512vl")),
        signed_dot: isa.name() == "aarch64" && is_on(isa, "has_dotprod"),
    }
}
