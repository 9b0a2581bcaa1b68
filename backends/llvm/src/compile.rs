//! The entry points: kernels in, object or text out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use inkwell::context::Context as LlvmContext;
use inkwell::targets::FileType;
use melior::ir::{BlockLike, Location, Module};
use tcc_kernel::Kernel;

use crate::context::Session;
use crate::error::Error;
use crate::target::Target;
use crate::{lower, pipeline};

/// Kernels in one object of [`compile_parallel`]: enough to spread the fixed cost of a module, few enough to balance.
const PART: usize = 8;

/// Stack of a compiling thread in bytes: expressions are walked recursively, here and in LLVM.
const STACK: usize = 16 << 20;

/// How code is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// 0 to 3: how hard LLVM tries. Kernels are scheduled before they arrive, so little is gained above 2.
    pub level: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: 2 }
    }
}

/// A relocatable object with the kernels of one call to [`compile()`](crate::compile()).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    bytes: Vec<u8>,
    symbols: Vec<String>,
    target: Target,
}

impl Object {
    /// The object file: ELF, or a WebAssembly object for `wasm32`.
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

/// What [`emit_text`] prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// MLIR as it is built from the kernel IR.
    Mlir,
    /// LLVM IR after optimization.
    LlvmIr,
    /// Assembly of the target.
    Assembly,
}

/// Compiles kernels to one relocatable object. The same kernels, target and options give the same bytes.
pub fn compile(kernels: &[Kernel], target: &Target, options: Options) -> Result<Object, Error> {
    let session = Session::new();
    let module = build(&session, kernels, target)?;
    let symbols = kernels.iter().map(|kernel| kernel.name.clone()).collect();
    module_to_object(&session, module, symbols, target, options)
}

/// Compiles kernels on up to `threads` threads, one object for each consecutive part of the list.
///
/// The parts depend on the number and size of the kernels only, so that the objects do not change with `threads`.
pub fn compile_parallel(
    kernels: &[Kernel],
    target: &Target,
    options: Options,
    threads: usize,
) -> Result<Vec<Object>, Error> {
    let parts: Vec<&[Kernel]> = kernels.chunks(PART).collect();
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<Result<Object, Error>>> = parts.iter().map(|_| OnceLock::new()).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(part), Some(result)) = (parts.get(index), results.get(index)) else { break };
            // Each index is taken by one thread, so the cell is empty.
            let _ = result.set(compile(part, target, options));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(parts.len()) {
            // Where no further thread can be had the others do its share.
            let _ = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        }
        work();
    });
    let missing = || Err(Error::Llvm { stage: "compilation", message: "a part was not compiled".to_owned() });
    results.into_iter().map(|result| result.into_inner().unwrap_or_else(missing)).collect()
}

/// Prints kernels at one stage of compilation.
pub fn emit_text(kernels: &[Kernel], kind: Text, target: &Target, options: Options) -> Result<String, Error> {
    let session = Session::new();
    let module = build(&session, kernels, target)?;
    module_to_text(&session, module, kind, target, options)
}

/// Lowers kernels to a verified MLIR module.
fn build<'c>(session: &'c Session, kernels: &[Kernel], target: &Target) -> Result<Module<'c>, Error> {
    let context = session.context();
    let module = Module::new(Location::unknown(context));
    for kernel in kernels {
        module.body().append_operation(lower::kernel(context, kernel, target)?);
    }
    session.verify(&module)?;
    Ok(module)
}

/// Takes a verified module to an object.
fn module_to_object(
    session: &Session,
    mut module: Module,
    symbols: Vec<String>,
    target: &Target,
    options: Options,
) -> Result<Object, Error> {
    let machine = target.machine(options.level)?;
    pipeline::lower_to_llvm_dialect(session, &mut module)?;
    let context = LlvmContext::create();
    let lowered = pipeline::translate(session, &module, &context, &machine)?;
    pipeline::optimize(&lowered, &machine, options.level)?;
    let bytes = pipeline::emit(&lowered, &machine, FileType::Object)?;
    Ok(Object { bytes, symbols, target: target.clone() })
}

/// Takes a verified module to text.
fn module_to_text(
    session: &Session,
    mut module: Module,
    kind: Text,
    target: &Target,
    options: Options,
) -> Result<String, Error> {
    if kind == Text::Mlir {
        return Ok(module.as_operation().to_string());
    }
    let machine = target.machine(options.level)?;
    pipeline::lower_to_llvm_dialect(session, &mut module)?;
    let context = LlvmContext::create();
    let lowered = pipeline::translate(session, &module, &context, &machine)?;
    pipeline::optimize(&lowered, &machine, options.level)?;
    if kind == Text::LlvmIr {
        return Ok(lowered.print_to_string().to_string());
    }
    let text = pipeline::emit(&lowered, &machine, FileType::Assembly)?;
    String::from_utf8(text).map_err(|error| Error::Llvm { stage: "assembly", message: error.to_string() })
}
