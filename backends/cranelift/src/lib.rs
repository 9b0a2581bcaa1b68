//! Kernel IR to machine code through Cranelift: milliseconds to compile, no LLVM needed.
//!
//! [`compile`] makes a relocatable object of finished kernels, [`Jit`] makes functions of this process. Both lower kernels
//! the same way (`lower`) and differ only in where the code goes. Each kernel becomes
//! `void NAME(void *const *buffers, const int64_t *dims, void *scratch, int64_t begin, int64_t end)` in the C calling
//! convention of the target.
//!
//! # Vectors
//!
//! Cranelift has 128-bit vectors. A value of the kernel IR with more than one lane is a list of 128-bit registers
//! (`lower::lanes`); the last may be partly used, and what its other lanes hold is arbitrary. So every operation is either
//! lane by lane without traps, or looks at the lanes in use only.
//!
//! # Faults
//!
//! Generated code never traps where the kernel keeps its contract (indices inside buffers). A kernel that is not well
//! formed is an [`Error`], found by [`tcc_kernel::verify`] and by `lower::supported` before code generation.

mod error;
mod jit;
mod lower;
mod object;
mod target;

pub use error::Error;
pub use jit::Jit;
pub use object::{Object, compile};
pub use target::Target;

#[cfg(test)]
mod tests;
