//! tcc as a library: read a model, compile it for a target, run it.
//!
//! ```no_run,standalone_crate
//! use tcc::{CompileOptions, Model, Target, compile};
//!
//! let model = Model::open("model.onnx".as_ref())?;
//! let compiled = compile(&model, &CompileOptions::new(Target::named("cpu")?))?;
//! compiled.write_bundle("model.tcc".as_ref())?;
//! let mut session = tcc::runtime::Session::new(&compiled.executable()?, 1)?;
//! # Ok::<(), tcc::Error>(())
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | model files and their import |
//! | [`target`] | target names and what they stand for |
//! | [`compile`](mod@compile) | the way from a module to code |
//! | [`device`] | where programs run: this process, a GPU, its simulator |
//! | [`generate`] | text from language models |
//! | [`gpu_limits`] | GPUs as machine models, for the least time of a step |
//! | [`hardware`] | HLS projects |
//! | [`measure`](mod@measure) | peak rates and bandwidths of this machine |
//! | [`inputs`] | input values from files and at random |
//! | [`profile`](mod@profile), [`report`](mod@report) | time of each step beside the machine's limits, and a page about it |
//! | [`verify`] | compiled results against the reference interpreter |
//! | [`output`] | files written all at once |
//! | [`npz`] | NumPy files |
//! | [`sizes`] | sizes of dimensions that nobody gave |
//! | [`staticlib`] | static libraries for C programs |

pub mod compile;
pub mod device;
pub mod error;
pub mod generate;
pub mod gpu_limits;
pub mod hardware;
pub mod inputs;
pub mod measure;
pub mod model;
pub mod npz;
pub mod output;
pub mod profile;
pub mod report;
pub mod sizes;
mod split_mix;
pub mod staticlib;
pub mod target;
pub mod verify;

pub use compile::{CompileOptions, Compiled, compile};
pub use device::Device;
pub use error::Error;
pub use model::Model;
pub use target::Target;
pub use tcc_ir as ir;
pub use tcc_passes as passes;
pub use tcc_runtime as runtime;
