//! From an optimized function to a program: kernels, weights and the manifest of steps that the runtime executes.
//!
//! Each operation becomes a view (reshape), a host step, control flow, or the kernels that `tcc_kernel::lower` writes for
//! it; equal kernels are shared. Tensors get storage and live ranges, and with known shapes their arena offsets, so that
//! the peak is known at compile time.

mod dims;
mod grain;
mod kernels;
mod requirements;
mod steps;
mod tensors;
#[cfg(test)]
mod tests;
mod uses;
mod work;

use bytes::Bytes;
use tcc_ir::module::{Function, Module};
use tcc_kernel::Kernel;
use tcc_kernel::lower::{LowerError, Tuning};
use tcc_runtime::manifest::{Manifest, Storage};
use tcc_runtime::memory::plan::{Request, plan};

pub use dims::{Symbols, element_type};

/// A compiled program before code generation.
#[derive(Clone, Debug)]
pub struct Program {
    /// Everything but code and weights.
    pub manifest: Manifest,
    /// One kernel for each entry of the manifest's kernel table, not finalized.
    pub kernels: Vec<Kernel>,
    /// One buffer for each entry of the manifest's weight table; shared with the model file where nothing was rearranged.
    pub weights: Vec<Bytes>,
}

/// What the program is built for.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    /// Schedule parameters of the target.
    pub tuning: Tuning,
    /// Model name for messages.
    pub name: String,
    /// The machine that the code needs.
    pub target: tcc_runtime::manifest::Target,
}

/// Why a module has no program.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ProgramError {
    /// The module has no function.
    #[error("the module has no function")]
    Empty,
    /// An operation has no kernel.
    #[error("node '{location}': {source}")]
    Lower {
        /// Source node.
        location: String,
        /// What is missing.
        source: LowerError,
    },
    /// An operation cannot be executed on this target.
    #[error("node '{location}': {reason}")]
    Unsupported {
        /// Source node.
        location: String,
        /// What is missing.
        reason: String,
    },
    /// A dimension depends on a symbol that nothing binds.
    #[error("dimension '{0}' is bound by no input and no operation; give it with --dim")]
    Unbound(String),
    /// The arena does not fit 64 bits.
    #[error("memory plan: {0}")]
    Plan(String),
}

/// Builds the program of the module's entry function.
pub fn build(module: &Module, options: &ProgramOptions) -> Result<Program, ProgramError> {
    let function = module.entry().ok_or(ProgramError::Empty)?;
    let mut builder = steps::ProgramBuilder::new(function, options)?;
    builder.declare_inputs()?;
    let steps = builder.region(&function.body)?;
    builder.declare_outputs();
    let mut program = builder.finish(steps);
    place_tensors(&mut program.manifest)?;
    Ok(program)
}

/// Plans arena offsets where all sizes are known.
fn place_tensors(manifest: &mut Manifest) -> Result<(), ProgramError> {
    let mut requests = Vec::new();
    let mut owners = Vec::new();
    for (index, tensor) in manifest.tensors.iter().enumerate() {
        let Storage::Arena { first_step, last_step, .. } = tensor.storage else { continue };
        let count = tensor.shape.iter().try_fold(1u64, |product, dim| {
            dim.as_const().and_then(|dim| u64::try_from(dim).ok()).and_then(|dim| product.checked_mul(dim))
        });
        let Some(bytes) = count.and_then(|count| tensor.dtype.bytes_for(count)) else { return Ok(()) };
        requests.push(Request { bytes, first_step, last_step });
        owners.push(index);
    }
    let placed = plan(&requests).map_err(|error| ProgramError::Plan(error.to_string()))?;
    for (index, place) in owners.into_iter().zip(&placed.offsets) {
        if let Storage::Arena { offset, .. } = &mut manifest.tensors[index].storage {
            *offset = Some(*place);
        }
    }
    manifest.arena_bytes = Some(placed.bytes);
    Ok(())
}

/// Number of values of a function, for tables indexed by value.
fn value_count(function: &Function) -> usize {
    function.types.len()
}
