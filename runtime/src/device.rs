//! Devices with memory of their own, such as a GPU, that run the kernels of a program.
//!
//! A session on a device keeps every tensor in the device's memory. Host memory of the same layout holds inputs, outputs
//! and what host functions and control flow touch: it is copied just before and just after. So the steps, the arena and
//! the symbols of a program mean the same on every device, and only kernels and copies differ.

use crate::error::Result;
use crate::manifest::{Access, KernelId};
use std::sync::Arc;

/// A device with the kernels of one program, shared by sessions.
pub trait Device: Send + Sync {
    /// What it is, for messages.
    fn name(&self) -> String;

    /// The number of kernels that it has.
    fn kernels(&self) -> usize;

    /// Memory and a queue for one session.
    fn open(self: Arc<Self>) -> Result<Box<dyn DeviceQueue>>;
}

/// A tensor in device memory, as an argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBuffer {
    /// Address of the first byte.
    pub address: u64,
    /// Size of the tensor.
    pub bytes: u64,
    /// What the kernel does with it.
    pub access: Access,
}

/// Memory of a device and the work on it, in order.
pub trait DeviceQueue: Send {
    /// New memory, aligned to at least 256 bytes, with any contents.
    fn allocate(&mut self, bytes: usize) -> Result<u64>;

    /// Gives memory back.
    fn free(&mut self, address: u64);

    /// Copies from the host.
    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<()>;

    /// Copies to the host, after everything before it is done.
    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Copies within the device; the ranges may be the same, and do not overlap otherwise.
    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Runs a kernel of the program. `dims` are the values of its dimensions.
    fn launch(&mut self, kernel: KernelId, buffers: &[DeviceBuffer], dims: &[i64]) -> Result<()>;
}
