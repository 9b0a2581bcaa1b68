//! From scheduled kernels to what a backend takes.
//!
//! [`finalize`] is the whole pipeline; each pass is also callable alone, for tests and dumps.

pub mod dot;
pub mod functions;
pub mod legalize;
pub mod registers;
pub mod unroll;
pub mod vectorize;

use thiserror::Error;

use crate::ir::Kernel;
use crate::machine::Machine;
use crate::simplify::simplify;
use crate::verify::{VerifyError, verify, verify_final};

/// Why a kernel cannot be made ready for a backend.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum Error {
    /// The kernel is not well formed, before or after the passes.
    #[error("kernel {kernel}: {source}")]
    Verify {
        /// Name of the kernel.
        kernel: String,
        /// What is wrong.
        source: VerifyError,
    },
    /// The lanes of a vector loop write different values to one place.
    #[error("kernel {kernel}: all lanes of vector loop '{counter}' write the same element of '{buffer}'")]
    Race {
        /// Name of the kernel.
        kernel: String,
        /// Counter of the loop.
        counter: String,
        /// The buffer.
        buffer: String,
    },
    /// Writing out the unrolled loops would take too much text.
    #[error("kernel {kernel}: unrolled loops exceed {limit} statements")]
    TooLarge {
        /// Name of the kernel.
        kernel: String,
        /// The limit.
        limit: usize,
    },
    /// An operation that no pass turns into core functions.
    #[error("kernel {kernel}: no lowering for {text}")]
    Unsupported {
        /// Name of the kernel.
        kernel: String,
        /// The expression.
        text: String,
    },
}

/// Makes a scheduled kernel ready for a backend of the machine: see "What a CPU backend receives" in [`crate::ir`].
pub fn finalize(kernel: &mut Kernel, machine: &Machine) -> Result<(), Error> {
    lower_to_core(kernel, machine)?;
    checked(kernel, verify_final(kernel, machine))
}

/// As [`finalize`] for a GPU, whose kernels may keep loops over blocks and threads, shared memory and barriers.
pub fn finalize_gpu(kernel: &mut Kernel, machine: &Machine) -> Result<(), Error> {
    lower_to_core(kernel, machine)?;
    checked(kernel, verify(kernel))
}

fn lower_to_core(kernel: &mut Kernel, machine: &Machine) -> Result<(), Error> {
    checked(kernel, verify(kernel))?;
    simplify(kernel);
    vectorize::vectorize(kernel, machine)?;
    legalize::legalize(kernel, machine);
    dot::expand(kernel, machine);
    functions::expand(kernel, machine);
    unroll::unroll(kernel)?;
    registers::promote(kernel);
    simplify(kernel);
    Ok(())
}

fn checked(kernel: &Kernel, result: Result<(), VerifyError>) -> Result<(), Error> {
    result.map_err(|source| Error::Verify { kernel: kernel.name.clone(), source })
}

#[cfg(test)]
mod tests;
