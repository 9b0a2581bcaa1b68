//! The entry points: kernels in, object or text out.

use inkwell::context::Context as LlvmContext;
use inkwell::targets::FileType;
use melior::ir::Module;
use melior::ir::operation::OperationLike;

use crate::context::Session;
use crate::error::Error;
use crate::pipeline;
use crate::target::Target;

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

/// A relocatable object with the kernels of one call to [`crate::compile`].
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

/// What [`crate::emit_text`] prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// MLIR as it is built from the kernel IR.
    Mlir,
    /// LLVM IR after optimization.
    LlvmIr,
    /// Assembly of the target.
    Assembly,
}

/// Takes a verified module to an object.
pub(crate) fn module_to_object(
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
pub(crate) fn module_to_text(
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
