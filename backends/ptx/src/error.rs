//! Why a kernel has no PTX.

use thiserror::Error;

/// What keeps a kernel from becoming PTX for a target.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum Error {
    /// No entry of the target table has this name.
    #[error("unknown PTX target '{name}'; known: {known}")]
    Target {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The target has no instructions for an element type.
    #[error("kernel {kernel}: {target} does not support {what}")]
    Type {
        /// Name of the kernel.
        kernel: String,
        /// Name of the target.
        target: &'static str,
        /// The type or conversion.
        what: String,
    },
    /// The kernel needs more of a resource than the target has.
    #[error("kernel {kernel} needs {needed} {resource}, {target} has {limit}")]
    Limit {
        /// Name of the kernel.
        kernel: String,
        /// The resource with its unit.
        resource: &'static str,
        /// How much the kernel needs.
        needed: u64,
        /// Name of the target.
        target: &'static str,
        /// How much there is.
        limit: u64,
    },
    /// Something of the kernel IR that GPU code is not written for.
    #[error("kernel {kernel}: no PTX for {what}")]
    Unsupported {
        /// Name of the kernel.
        kernel: String,
        /// The construct.
        what: String,
    },
    /// A scheduling step did not apply.
    #[error("schedule: {0}")]
    Step(#[from] tcc_kernel::steps::StepError),
    /// The kernel could not be made ready.
    #[error(transparent)]
    Passes(#[from] tcc_kernel::passes::Error),
}
