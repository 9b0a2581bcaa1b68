//! Kernel IR to PTX for NVIDIA GPUs, and a simulator that executes the PTX text.
//!
//! - [`schedule`] maps the parallel loop of a kernel to blocks and threads;
//! - [`emit`] writes a scheduled kernel as PTX for a [`target`];
//! - [`architecture`] says what the generations have and how long work takes on them by a model;
//! - [`mod@module`] joins kernels into one PTX module and describes how each is launched ([`launch`]);
//! - [`sim`] parses PTX text and executes it, thread by thread, with checks that a GPU does not make.

pub mod architecture;
pub mod emit;
pub mod error;
pub mod launch;
pub mod module;
pub mod schedule;
pub mod sim;
pub mod target;

pub use error::Error;
pub use module::{PtxModule, module};
pub use target::Target;
