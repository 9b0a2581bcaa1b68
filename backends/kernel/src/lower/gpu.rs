//! Kernels for the blocks of a GPU: products in tiles that the threads of a block share.
//!
//! What has no lowering here is lowered as for a processor, and its parallel loop is cut into blocks of threads.

mod attention;
mod contract;
mod convolve;
mod matrix;
mod origin;
mod product;
mod rows;
mod vector;
mod vectors;

pub use attention::attention;
pub use contract::contract;
pub use convolve::{Convolution, convolve};
pub use rows::WARP;

/// What schedules need to know of a GPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gpu {
    /// Multiprocessors of a typical device.
    pub multiprocessors: u32,
    /// Shared memory that a block asks for at most, in bytes.
    pub shared_bytes: u64,
    /// Shared memory of a multiprocessor, in bytes.
    pub multiprocessor_shared: u64,
    /// True where warps multiply matrices of 16-bit floats and bytes, and copies go past the registers.
    pub tensor_cores: bool,
    /// Cycles for which a tensor core is busy with a matrix instruction on 32 bytes of the depth.
    pub matrix_cycles: f64,
}
