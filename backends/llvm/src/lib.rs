//! Kernel IR to MLIR, LLVM IR, object code and a JIT.
//!
//! ```text
//! kernel IR -- lower ------> MLIR: llvm functions with scf, arith, math and vector inside
//!           -- pipeline ---> MLIR llvm dialect -> LLVM IR -> scalar clean-ups
//!           -- target -----> object, assembly
//!           -- jit --------> addresses in this process
//! ```
//!
//! [`compile`] may be called from several threads at once: every call has contexts of its own. Its output depends on its
//! arguments only.

mod builder;
mod cast;
mod compile;
mod context;
mod dot;
mod error;
mod expr;
mod function;
mod half;
mod jit;
mod lower;
mod memory;
mod pipeline;
mod stmt;
mod strided;
mod target;

pub use compile::{Object, Options, Text, compile, compile_parallel, emit_text};
pub use error::Error;
pub use jit::Jit;
pub use target::Target;
