//! Loads and runs what tcc compiles: bundle reader, arena, thread pool, host functions, C ABI.
//!
//! The crate stands alone: it knows no compiler crate, and whoever produces a [`manifest::Manifest`] with kernels
//! and weights can run it.

pub mod bundle;
pub mod capi;
pub mod code;
pub mod dim;
pub mod dtype;
pub mod error;
pub mod host;
pub mod manifest;
pub mod memory;
pub mod pool;
pub mod program;
pub mod session;
pub mod tensor;

pub use bundle::{Bundle, BundleWriter, LoadOptions};
pub use dim::{DimExpr, SymbolId};
pub use dtype::DType;
pub use error::{Error, Result};
pub use manifest::Manifest;
pub use pool::ThreadPool;
pub use program::{Executable, Program, WeightData};
pub use session::{MemoryUse, Session, SessionOptions, StepTime};
pub use tensor::{Element, Shape, Tensor, TensorMut, TensorRef};
