//! The MLIR context: dialects, translations and the collection of diagnostics.

use std::cell::RefCell;
use std::rc::Rc;

use melior::Context;
use melior::dialect::DialectRegistry;
use melior::ir::Module;
use melior::ir::operation::OperationLike;
use melior::utility::{register_all_dialects, register_all_llvm_translations};

use crate::error::Error;

/// An MLIR context with the dialects that kernels are lowered through. It stays on the thread that made it.
pub(crate) struct Session {
    context: Context,
    diagnostics: Rc<RefCell<Vec<String>>>,
}

impl Session {
    /// A fresh context. MLIR's own threads are off: kernels are compiled in parallel by giving each thread a session.
    pub(crate) fn new() -> Self {
        let context = Context::new_with_threading(false);
        let registry = DialectRegistry::new();
        register_all_dialects(&registry);
        context.append_dialect_registry(&registry);
        register_all_llvm_translations(&context);
        for dialect in ["arith", "cf", "llvm", "math", "scf", "vector"] {
            context.get_or_load_dialect(dialect);
        }
        let diagnostics = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&diagnostics);
        context.attach_diagnostic_handler(move |diagnostic| {
            sink.borrow_mut().push(diagnostic.to_string());
            true
        });
        Self { context, diagnostics }
    }

    /// The MLIR context.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Checks the module; the operation builder accepts invalid operations.
    pub(crate) fn verify(&self, module: &Module) -> Result<(), Error> {
        if module.as_operation().verify() { Ok(()) } else { Err(self.error("verification")) }
    }

    /// The error of a failed step, with the diagnostics gathered so far.
    pub(crate) fn error(&self, stage: &'static str) -> Error {
        let message = self.diagnostics.borrow_mut().drain(..).collect::<Vec<_>>().join("; ");
        Error::Mlir {
            stage,
            message: if message.is_empty() { "failed without a message".to_owned() } else { message },
        }
    }
}
