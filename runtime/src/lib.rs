//! Loads and runs what tcc compiles: bundle reader, arena, thread pool, host functions, C ABI.
//!
//! The crate stands alone: it knows no compiler crate, and whoever produces a [`manifest::Manifest`] with kernels
//! and weights can run it.

pub mod dim;
pub mod dtype;
pub mod manifest;

pub use dim::{DimExpr, SymbolId};
pub use dtype::DType;
pub use manifest::Manifest;
