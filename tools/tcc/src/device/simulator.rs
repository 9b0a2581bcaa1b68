//! The simulator as a device: executes the PTX text and fails on what a GPU would not notice.

use std::sync::{Arc, Mutex, PoisonError};

use tcc_ptx::PtxModule;
use tcc_ptx::sim::{self, Counts, Grid, Launch, Memory, Use, Window};
use tcc_runtime::Error as RuntimeError;
use tcc_runtime::device::{Device, DeviceBuffer, DeviceQueue};
use tcc_runtime::manifest::{Access, KernelId, Manifest};

use crate::error::Error;

/// A simulated GPU with the kernels of one program.
pub struct Simulator {
    ptx: Arc<PtxModule>,
    module: sim::Module,
    /// Position of each kernel in the module.
    kernels: Vec<usize>,
    seed: u64,
    counts: Mutex<Vec<Counts>>,
}

fn failure(reason: impl ToString) -> RuntimeError {
    RuntimeError::Device { device: "sim".into(), reason: reason.to_string() }
}

impl Simulator {
    /// A simulator whose warps interleave by `seed`.
    pub fn new(ptx: &Arc<PtxModule>, manifest: &Manifest, seed: u64) -> Result<Simulator, Error> {
        let module = sim::parse(&ptx.text).map_err(|error| Error::Codegen(error.to_string()))?;
        let kernels = super::kernels(ptx, manifest)?;
        let counts = Mutex::new(vec![Counts::default(); kernels.len()]);
        Ok(Simulator { ptx: Arc::clone(ptx), module, kernels, seed, counts })
    }

    /// What the launches of each kernel have cost, in the order of the manifest.
    pub fn counts(&self) -> Vec<Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Device for Simulator {
    fn name(&self) -> String {
        format!("simulator of {}", self.module.target)
    }

    fn kernels(&self) -> usize {
        self.kernels.len()
    }

    fn open(self: Arc<Self>) -> Result<Box<dyn DeviceQueue>, RuntimeError> {
        let launches = self.seed;
        Ok(Box::new(Queue { simulator: self, memory: Memory::new(), launches }))
    }
}

struct Queue {
    simulator: Arc<Simulator>,
    memory: Memory,
    /// Makes every launch interleave in another way.
    launches: u64,
}

impl Queue {
    fn outside(address: u64, bytes: usize) -> RuntimeError {
        failure(format!("{bytes} bytes at {address:#x} are not allocated"))
    }
}

impl DeviceQueue for Queue {
    fn allocate(&mut self, bytes: usize) -> Result<u64, RuntimeError> {
        Ok(self.memory.allocate(vec![0xa5; bytes]))
    }

    fn free(&mut self, address: u64) {
        self.memory.free(address);
    }

    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), RuntimeError> {
        let target = self.memory.bytes_mut(address, bytes.len());
        target.ok_or_else(|| Queue::outside(address, bytes.len()))?.copy_from_slice(bytes);
        Ok(())
    }

    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), RuntimeError> {
        let size = bytes.len();
        let source = self.memory.bytes(address, size);
        bytes.copy_from_slice(source.ok_or_else(|| Queue::outside(address, size))?);
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<(), RuntimeError> {
        let source = self.memory.bytes(from, bytes).ok_or_else(|| Queue::outside(from, bytes))?.to_vec();
        self.upload(to, &source)
    }

    fn launch(
        &mut self,
        kernel: KernelId,
        buffers: &[DeviceBuffer],
        dims: &[i64],
    ) -> Result<(), RuntimeError> {
        let simulator = Arc::clone(&self.simulator);
        let launch = &simulator.ptx.launch[simulator.kernels[kernel as usize]];
        let Some(resolved) = launch.resolve(dims).map_err(failure)? else { return Ok(()) };
        let window = |buffer: &DeviceBuffer| Window {
            address: buffer.address,
            bytes: buffer.bytes,
            usage: if buffer.access == Access::Read { Use::Read } else { Use::Write },
        };
        let mut windows: Vec<Window> = buffers.iter().map(window).collect();
        let bytes = resolved.scratch_bytes;
        let size = usize::try_from(bytes).map_err(failure)?;
        let scratch = self.memory.allocate(vec![0xa5; size]);
        windows.push(Window { address: scratch, bytes, usage: Use::Scratch });
        let addresses: Vec<u64> = buffers.iter().map(|buffer| buffer.address).collect();
        let arguments = launch.arguments(&addresses, scratch, dims);
        self.launches += 1;
        let run = Launch {
            kernel: &launch.kernel,
            grid: Grid { blocks: resolved.blocks, threads: resolved.threads },
            arguments: &arguments,
            shared_bytes: launch.dynamic_shared_bytes,
            windows: &windows,
            seed: self.launches,
        };
        let result = sim::run(&simulator.module, &run, &mut self.memory);
        self.memory.free(scratch);
        let counts = result.map_err(failure)?;
        let mut all = simulator.counts.lock().unwrap_or_else(PoisonError::into_inner);
        all[kernel as usize].add(&counts);
        Ok(())
    }
}
