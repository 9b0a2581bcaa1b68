//! Kernels for the blocks of a GPU: products in tiles that the threads of a block share.
//!
//! What has no lowering here is lowered as for a processor, and its parallel loop is cut into blocks of threads.

mod contract;
mod convolve;
mod matrix;
mod product;
mod rows;
mod vectors;

pub use contract::contract;
pub use convolve::{Convolution, convolve};

/// What schedules need to know of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gpu {
    /// Shared memory that a block declares at most, in bytes.
    pub shared_bytes: u64,
    /// True where warps multiply matrices of 16-bit floats and bytes, and copies go past the registers.
    pub tensor_cores: bool,
}
