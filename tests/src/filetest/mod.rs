//! Tests written as text IR.
//!
//! A file under `filetests/` begins with directives, goes on with a module, and may end with the text that is expected:
//!
//! ```text
//! // test: pass=simplify
//! // run: @double(f32[3] 1 2 3) == f32[3] 2 4 6
//! // run: @double(f32[n] uniform(-1,1)) with n=7
//! // skip: cranelift: no 16-bit floats yet
//! "builtin.module"() ({
//!   ...
//! }) : () -> ()
//! // expect:
//! "builtin.module"() ({
//!   ...
//! ```
//!
//! | directive | meaning |
//! |---|---|
//! | `test: pass=a,b` | the passes turn the module into the expected text; several such lines are one sequence |
//! | `test: round-trip` | the module prints as the expected text, which prints as itself |
//! | `test: error` | reading or verifying the module fails, with the expected text as message |
//! | `run: @f(ARGUMENTS) == RESULTS` | every executor computes these results; `within TOLERANCE` may follow |
//! | `run: @f(ARGUMENTS)` | every executor computes what the reference executor does |
//! | `skip: EXECUTOR: REASON` | this executor does not run this file |
//!
//! Arguments and results are separated by `;` and written as `TYPE[SHAPE] VALUE...` or `TYPE[SHAPE] GENERATOR` (see
//! [`crate::inputs`]); names in them get values after `with`. A file may have several `run` lines and both kinds of test.
//! With `pass`, `run` lines run the module before and after the passes.
//!
//! `TCC_BLESS=1` writes the expected text anew.

mod directive;
mod file;

pub use directive::{Directive, DirectiveError, RunLine, TestKind};
pub use file::{Failure, FileTest, Outcome, collect, diff};

use tcc_ir::data::Data;

/// Reading, printing and rewriting modules, as the compiler does it.
pub trait Transform {
    /// Reads and verifies a module, applies the passes in order, and prints what comes out. No passes: only prints.
    ///
    /// # Errors
    /// The message that a user would see.
    fn transform(&self, module: &str, passes: &[String]) -> Result<String, String>;
}

/// Something that runs functions of a module: the interpreter or a backend.
pub trait Executor {
    /// The name that `skip:` lines use.
    fn name(&self) -> &str;

    /// Runs `function` of a module in text form.
    ///
    /// # Errors
    /// The message that a user would see.
    fn execute(&self, module: &str, function: &str, arguments: &[Data]) -> Result<Vec<Data>, String>;
}

/// What file tests are run with.
pub struct Hooks<'a> {
    /// The compiler's front half.
    pub transform: &'a dyn Transform,
    /// The oracle; it runs every `run` line.
    pub reference: &'a dyn Executor,
    /// All others.
    pub executors: Vec<&'a dyn Executor>,
}
