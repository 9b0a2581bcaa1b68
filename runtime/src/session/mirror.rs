//! A session's tensors in the memory of a device.
//!
//! The device's copy of a tensor is the valid one. Every hook here does nothing in a session without a device.

use super::Session;
use super::memory::SessionMemory;
use crate::device::{DeviceBuffer, DeviceQueue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{KernelStep, Storage, TensorId};
use crate::program::Executable;
use std::collections::HashMap;

/// Memory that belongs together: what a tensor that is no alias may lie in.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Region {
    Input(u32),
    Output(u32),
    Weight(u32),
    Arena,
    Own(TensorId),
}

/// Device memory of a region.
struct Block {
    address: u64,
    bytes: usize,
}

/// The device side of a session.
pub(super) struct Mirror {
    queue: Box<dyn DeviceQueue>,
    blocks: HashMap<Region, Block>,
    /// Arguments of the launch under way.
    buffers: Vec<DeviceBuffer>,
}

impl Mirror {
    pub fn new(queue: Box<dyn DeviceQueue>) -> Self {
        Mirror { queue, blocks: HashMap::new(), buffers: Vec::new() }
    }

    /// Device address of a byte at `host` in the memory of a tensor.
    fn place(&mut self, memory: &SessionMemory, id: TensorId, host: *const u8) -> Result<u64> {
        let executable = &memory.executable;
        let root = executable.analysis.roots[id as usize];
        let (region, base, bytes) = match &executable.manifest.tensors[root as usize].storage {
            Storage::Input(index) => {
                let lent = memory.inputs[*index as usize];
                (Region::Input(*index), lent.pointer.cast_const(), lent.bytes)
            }
            Storage::Output(index) => {
                let lent = memory.outputs[*index as usize];
                (Region::Output(*index), lent.pointer.cast_const(), lent.bytes)
            }
            Storage::Weight { blob, .. } => {
                let data = executable.weight(*blob as usize);
                (Region::Weight(*blob), data.as_ptr(), data.len())
            }
            Storage::Arena { .. } => (Region::Arena, memory.arena.raw().cast_const(), memory.arena.len()),
            Storage::State => {
                let (start, bytes) = memory.state[root as usize];
                (Region::Own(root), start.cast_const(), bytes)
            }
            Storage::Host | Storage::Alias { .. } => {
                let own = &memory.owned[root as usize].bytes;
                (Region::Own(root), own.raw().cast_const(), own.len())
            }
        };
        let block = self.blocks.get(&region).filter(|block| block.bytes >= bytes);
        let address = match block {
            Some(block) => block.address,
            None => {
                if let Some(small) = self.blocks.remove(&region) {
                    self.queue.free(small.address);
                }
                let address = self.queue.allocate(bytes)?;
                self.blocks.insert(region, Block { address, bytes });
                if let Region::Weight(blob) = region {
                    self.queue.upload(address, executable.weight(blob as usize))?;
                }
                address
            }
        };
        Ok(address + (host as u64 - base as u64))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        for block in self.blocks.values() {
            self.queue.free(block.address);
        }
    }
}

impl Session {
    /// Brings inputs and state to the device: between runs the state on the host is the valid one, as sessions share it.
    pub(super) fn start_device(&mut self) -> Result<()> {
        if self.mirror.is_none() {
            return Ok(());
        }
        let executable = std::sync::Arc::clone(&self.executable);
        for (id, tensor) in executable.manifest.tensors.iter().enumerate() {
            if matches!(tensor.storage, Storage::Input(_) | Storage::State) {
                self.store(id as TensorId)?;
            }
        }
        Ok(())
    }

    /// Brings outputs and state to the host.
    pub(super) fn finish_device(&mut self) -> Result<()> {
        if self.mirror.is_none() {
            return Ok(());
        }
        let executable = std::sync::Arc::clone(&self.executable);
        for (id, tensor) in executable.manifest.tensors.iter().enumerate() {
            if tensor.storage == Storage::State {
                self.fetch(id as TensorId)?;
            }
        }
        executable.manifest.outputs.iter().try_for_each(|port| self.fetch(port.tensor))
    }

    /// Brings a tensor that the host is about to read to it.
    pub(super) fn fetch(&mut self, id: TensorId) -> Result<()> {
        let Some(mirror) = &mut self.mirror else { return Ok(()) };
        let manifest = &self.executable.manifest;
        let root = self.executable.analysis.roots[id as usize];
        let constant =
            matches!(manifest.tensors[root as usize].storage, Storage::Input(_) | Storage::Weight { .. });
        if constant || manifest.tensors[id as usize].dtype == DType::String {
            return Ok(());
        }
        let (host, bytes) = self.memory.address(id)?;
        if bytes == 0 {
            return Ok(());
        }
        let address = mirror.place(&self.memory, id, host)?;
        // SAFETY: `address` checked that the bytes lie in the tensor's memory; nothing else uses it during the copy.
        mirror.queue.download(address, unsafe { std::slice::from_raw_parts_mut(host, bytes) })
    }

    /// Brings a tensor that the host has written to the device.
    pub(super) fn store(&mut self, id: TensorId) -> Result<()> {
        let Some(mirror) = &mut self.mirror else { return Ok(()) };
        if self.executable.manifest.tensors[id as usize].dtype == DType::String {
            return Ok(());
        }
        let (host, bytes) = self.memory.address(id)?;
        if bytes == 0 {
            return Ok(());
        }
        let address = mirror.place(&self.memory, id, host)?;
        // SAFETY: as in `fetch`, and nothing writes during the copy.
        mirror.queue.upload(address, unsafe { std::slice::from_raw_parts(host, bytes) })
    }

    /// Copies all elements of a tensor into another one, where they are.
    pub(super) fn copy(&mut self, from: TensorId, to: TensorId) -> Result<()> {
        let is_string = self.executable.manifest.tensors[to as usize].dtype == DType::String;
        let Some(mirror) = self.mirror.as_mut().filter(|_| !is_string && from != to) else {
            return self.memory.copy(from, to);
        };
        let (target, target_bytes) = self.memory.address_for_write(to)?;
        let (source, source_bytes) = self.memory.address(from)?;
        if source_bytes != target_bytes {
            let manifest = &self.executable.manifest;
            let field =
                format!("copy of tensor {} to {}", manifest.tensor_name(from), manifest.tensor_name(to));
            return Err(Error::program(field, format!("{source_bytes} bytes do not fit {target_bytes}")));
        }
        if source_bytes == 0 {
            return Ok(());
        }
        let source = mirror.place(&self.memory, from, source)?;
        let target = mirror.place(&self.memory, to, target)?;
        mirror.queue.copy(source, target, source_bytes)
    }

    /// Runs a kernel step on the device; false in a session without one.
    pub(super) fn launch(
        &mut self,
        executable: &Executable,
        step: &KernelStep,
        dims: &[i64],
    ) -> Result<bool> {
        let Some(mirror) = &mut self.mirror else { return Ok(false) };
        let kernel = &executable.manifest.kernels[step.kernel as usize];
        let mut buffers = std::mem::take(&mut mirror.buffers);
        buffers.clear();
        for (&id, &access) in step.buffers.iter().zip(&kernel.buffers) {
            let (host, bytes) = self.memory.address(id)?;
            let address = if bytes == 0 { 0 } else { mirror.place(&self.memory, id, host)? };
            buffers.push(DeviceBuffer { address, bytes: bytes as u64, access });
        }
        mirror.queue.launch(step.kernel, &buffers, dims)?;
        mirror.buffers = buffers;
        Ok(true)
    }
}
