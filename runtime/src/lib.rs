//! Loads and runs what tcc compiles: bundle reader, arena, thread pool, host functions, C ABI.
//!
//! The crate stands alone: it knows no compiler crate, and whoever produces a [`manifest::Manifest`] with kernels and
//! weights can run it, in one of three ways:
//!
//! - a bundle file ([`bundle`]): [`Executable::load`];
//! - a [`Program`] in memory, of function pointers or of relocatable objects ([`Program::link`]):
//!   [`Executable::from_program`];
//! - from C: [`capi`], as `include/tcc.h` declares it; the crate `tcc-runtime-c` builds the libraries.
//!
//! An [`Executable`] is shared by any number of [`Session`]s, each of which owns the memory of a run:
//!
//! ```
//! use std::sync::Arc;
//! use tcc_runtime::manifest::{Access, Kernel, KernelStep, Manifest, Port, Step, Storage, Symbol, SymbolSource, TensorInfo};
//! use tcc_runtime::{DType, DimExpr, Executable, Program, Session, TensorRef};
//!
//! /// y[i] = x[i] * x[i]
//! unsafe extern "C" fn square(buffers: *const *mut u8, _: *const i64, _: *mut u8, begin: i64, end: i64) {
//!     let (x, y) = unsafe { ((*buffers).cast::<f32>(), (*buffers.add(1)).cast::<f32>()) };
//!     for i in begin as usize..end as usize {
//!         unsafe { *y.add(i) = *x.add(i) * *x.add(i) };
//!     }
//! }
//!
//! let mut manifest = Manifest::new("square", "example");
//! let source = SymbolSource::Input { input: 0, axis: 0 };
//! manifest.symbols = vec![Symbol { name: "n".into(), lo: 0, hi: i64::MAX, source }];
//! let tensor = |name: &str, storage| TensorInfo {
//!     name: name.into(),
//!     dtype: DType::F32,
//!     shape: vec![DimExpr::Symbol(0)],
//!     storage,
//! };
//! manifest.tensors = vec![tensor("x", Storage::Input(0)), tensor("y", Storage::Output(0))];
//! manifest.inputs = vec![Port { name: "x".into(), tensor: 0 }];
//! manifest.outputs = vec![Port { name: "y".into(), tensor: 1 }];
//! manifest.kernels = vec![Kernel { symbol: "square".into(), buffers: vec![Access::Read, Access::Write], dims: 0 }];
//! manifest.steps = vec![Step::Kernel(KernelStep {
//!     kernel: 0,
//!     buffers: vec![0, 1],
//!     dims: vec![],
//!     tasks: DimExpr::Symbol(0),
//!     grain: DimExpr::Const(1024),
//!     scratch_bytes: DimExpr::Const(0),
//! })];
//! let program = Program { manifest, kernels: vec![square], weights: vec![], code: Box::new(()) };
//! // SAFETY: `square` stays within its buffers.
//! let executable = Arc::new(unsafe { Executable::from_program(program) }?);
//! let mut session = Session::new(&executable, 2)?;
//! let outputs = session.run(&[TensorRef::from_slice(&[3], &[1f32, 2.0, 3.0])?])?;
//! assert_eq!(outputs[0].elements::<f32>(), Some([1.0, 4.0, 9.0].as_slice()));
//! # Ok::<(), tcc_runtime::Error>(())
//! ```

pub mod bundle;
pub mod capi;
pub mod code;
pub mod device;
pub mod dim;
pub mod dtype;
pub mod error;
pub mod host;
pub mod manifest;
pub mod memory;
pub mod pool;
pub mod program;
pub mod sequences;
pub mod session;
pub mod state;
pub mod tensor;

pub use bundle::{Bundle, BundleWriter, LoadOptions};
pub use dim::{DimExpr, SymbolId};
pub use dtype::DType;
pub use error::{Error, Result};
pub use manifest::Manifest;
pub use pool::ThreadPool;
pub use program::{Executable, Program, WeightData};
pub use sequences::{Batch, PageCopy, Part, SequenceError, SequenceId, Sequences, Wanted};
pub use session::{MemoryUse, Session, SessionOptions, StepTime};
pub use state::State;
pub use tensor::{Element, Shape, Tensor, TensorMut, TensorRef};
