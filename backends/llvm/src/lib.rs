//! Kernel IR to MLIR, LLVM IR, object code and a JIT.

mod builder;
mod compile;
mod context;
mod error;
mod jit;
mod pipeline;
mod target;

pub use compile::{Object, Options, Text};
pub use error::Error;
pub use jit::Jit;
pub use target::Target;

#[cfg(test)]
mod prototype;
