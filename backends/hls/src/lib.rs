//! Kernel IR to HLS C++ projects for FPGAs.
//!
//! [`project()`] makes a Vitis-HLS-style project of a program whose kernels were lowered with [`tuning`]: one C++ function a
//! kernel, a top function that calls them on arrays on the chip, weights in headers, a testbench that any C++ compiler
//! builds, and a report of estimated cycles and resources for a [`Part`].
//!
//! ```text
//! program -> schedule (pipelines) -> emit (C++) -> design (arrays, calls) -> report (budget) -> project (files)
//! ```

pub mod csim;
pub mod design;
pub mod emit;
pub mod error;
pub mod estimate;
pub mod explore;
pub mod flow;
pub mod formats;
pub mod names;
pub mod numbers;
pub mod part;
pub mod project;
pub mod range;
pub mod reference;
pub mod report;
pub mod schedule;
pub mod stream;
pub mod tables;
mod testbench;
mod weights;

pub use csim::Simulation;
pub use design::{Architecture, Plan};
pub use emit::{Emitted, emit};
pub use error::Error;
pub use explore::Objective;
pub use formats::ProgramFormats;
pub use numbers::Numbers;
pub use part::{Part, Resources};
pub use project::{Choice, Options, Project, project};
pub use reference::Vector;
pub use schedule::{Scheduled, schedule, tuning};
pub use tcc_kernel::fixed::Fixed;
