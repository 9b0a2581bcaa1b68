//! The node cases of the ONNX backend suite: one small model a case, with inputs and outputs as files.
//!
//! Cases run in worker processes (`conformance-worker`), so that a crash, a hang or an exhausted memory limit costs one
//! case and names it. What passes is kept as a [`table`] a runner under `conformance/`; a case that regresses fails the
//! test, and so does one that newly passes until the table says so (`TCC_BLESS=1`).

pub mod case;
pub mod coverage;
pub mod supervise;
pub mod table;

use std::collections::BTreeMap;
use std::path::Path;

use crate::value::Value;

/// Why a runner gave no outputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunError {
    /// The model was refused by name before any work.
    Refused(String),
    /// Something else went wrong.
    Failed(String),
}

/// Something that runs ONNX models: the interpreter or a compiled target.
pub trait Runner {
    /// Loads a model and runs it once; the outputs come back under their ONNX names.
    ///
    /// # Errors
    /// See [`RunError`]; panics are caught by the worker.
    fn run(&self, model: &Path, inputs: &[(String, Value)]) -> Result<BTreeMap<String, Value>, RunError>;
}
