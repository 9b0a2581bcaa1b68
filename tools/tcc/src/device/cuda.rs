//! The first GPU, through the CUDA driver. The driver's library is looked for when a program runs, not when tcc is built.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};
use tcc_ptx::PtxModule;
use tcc_runtime::Error as RuntimeError;
use tcc_runtime::device::{Device, DeviceBuffer, DeviceQueue};
use tcc_runtime::manifest::{KernelId, Manifest};

use crate::error::Error;

/// A GPU with the kernels of one program.
struct Gpu {
    context: sys::CUcontext,
    device: sys::CUdevice,
    module: sys::CUmodule,
    /// One function for each kernel of the manifest.
    functions: Vec<sys::CUfunction>,
    /// Position of each kernel in the module.
    kernels: Vec<usize>,
    ptx: Arc<PtxModule>,
    name: String,
}

// SAFETY: the driver's handles belong to no thread; every use makes the context current in its thread first.
unsafe impl Send for Gpu {}
// SAFETY: as above, and the driver takes calls from several threads.
unsafe impl Sync for Gpu {}

fn failure(reason: impl ToString) -> RuntimeError {
    RuntimeError::Device { device: "cuda".into(), reason: reason.to_string() }
}

/// The first GPU with the kernels of a program; an error where there is none, or one that is too old.
pub fn open(ptx: &Arc<PtxModule>, manifest: &Manifest) -> Result<Arc<dyn Device>, Error> {
    let target = manifest.target.arch.as_str();
    let fail = |reason: String| Error::Target { name: format!("ptx:{target}"), reason };
    // SAFETY: looks for a library by its usual names, and loads it if it is there.
    let found = unsafe { sys::is_culib_present() } && result::init().is_ok();
    if !found || !result::device::get_count().is_ok_and(|count| count > 0) {
        return Err(fail(super::NO_GPU.into()));
    }
    let known = tcc_ptx::Target::named(target).map_err(|error| fail(error.to_string()))?;
    let driver = |error: DriverError| fail(format!("the CUDA driver refuses it: {error}"));
    let device = result::device::get(0).map_err(driver)?;
    let name = result::device::get_name(device).map_err(driver)?;
    use sys::CUdevice_attribute_enum::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: the device is one that the driver gave.
    let (major, minor) = unsafe {
        let attribute = |attribute| result::device::get_attribute(device, attribute);
        (attribute(MAJOR).map_err(driver)?, attribute(MINOR).map_err(driver)?)
    };
    let capability = u32::try_from(10 * major + minor).unwrap_or(0);
    // Code with the features of one architecture runs on that one alone.
    let takes =
        if target.ends_with('a') { capability == known.capability } else { capability >= known.capability };
    if !takes {
        return Err(fail(format!("the GPU here, {name}, is sm_{capability}; compile for that")));
    }
    let text = CString::new(ptx.text.as_str()).map_err(|error| fail(error.to_string()))?;
    // SAFETY: the device is one that the driver gave, and the text is a string that ends with zero and outlives the call.
    let (context, module) = unsafe {
        let context = result::primary_ctx::retain(device).map_err(driver)?;
        result::ctx::set_current(context).map_err(driver)?;
        (context, result::module::load_data(text.as_ptr().cast::<c_void>()).map_err(driver)?)
    };
    let kernels = super::kernels(ptx, manifest)?;
    let mut gpu = Gpu { context, device, module, functions: Vec::new(), kernels, ptx: Arc::clone(ptx), name };
    for kernel in &gpu.kernels {
        let launch = &ptx.launch[*kernel];
        let name = CString::new(launch.kernel.as_str()).map_err(|error| fail(error.to_string()))?;
        // SAFETY: the module was loaded just now.
        let function = unsafe { result::module::get_function(module, name) }.map_err(driver)?;
        if launch.dynamic_shared_bytes > 0 {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
            let bytes =
                i32::try_from(launch.dynamic_shared_bytes).map_err(|error| fail(error.to_string()))?;
            // SAFETY: the function is one of the module.
            unsafe { result::function::set_function_attribute(function, SHARED, bytes) }.map_err(driver)?;
        }
        gpu.functions.push(function);
    }
    Ok(Arc::new(gpu))
}

impl Gpu {
    fn enter(&self) -> Result<(), RuntimeError> {
        // SAFETY: the context is retained as long as this value lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(failure)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // What fails here has no one to tell, and the process keeps what it had.
        if self.enter().is_ok() {
            // SAFETY: queues hold this value, so none is left, and neither module nor context is used again.
            unsafe {
                let _ = result::module::unload(self.module);
                let _ = result::primary_ctx::release(self.device);
            }
        }
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn kernels(&self) -> usize {
        self.kernels.len()
    }

    fn open(self: Arc<Self>) -> Result<Box<dyn DeviceQueue>, RuntimeError> {
        Ok(Box::new(Queue { gpu: self, scratch: None }))
    }
}

/// Memory and work of one session, in the order of the default stream.
struct Queue {
    gpu: Arc<Gpu>,
    /// Address and size of scratch memory.
    scratch: Option<(u64, u64)>,
}

impl Queue {
    fn scratch(&mut self, bytes: u64) -> Result<u64, RuntimeError> {
        match self.scratch {
            Some((address, size)) if size >= bytes => Ok(address),
            _ => {
                if let Some((address, _)) = self.scratch.take() {
                    self.free(address);
                }
                let address = self.allocate(usize::try_from(bytes).map_err(failure)?)?;
                self.scratch = Some((address, bytes));
                Ok(address)
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some((address, _)) = self.scratch.take() {
            self.free(address);
        }
    }
}

impl DeviceQueue for Queue {
    fn allocate(&mut self, bytes: usize) -> Result<u64, RuntimeError> {
        self.gpu.enter()?;
        // SAFETY: the context is current; the driver has no allocations of no bytes.
        unsafe { result::malloc_sync(bytes.max(1)) }.map_err(failure)
    }

    fn free(&mut self, address: u64) {
        if self.gpu.enter().is_ok() {
            // SAFETY: the address came from `allocate`, and what used it is done: the call waits.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.gpu.enter()?;
        // SAFETY: the session uploads within what it has allocated.
        unsafe { result::memcpy_htod_sync(address, bytes) }.map_err(failure)
    }

    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), RuntimeError> {
        self.gpu.enter()?;
        // SAFETY: the session downloads from what it has allocated.
        unsafe { result::memcpy_dtoh_sync(bytes, address) }.map_err(failure)
    }

    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<(), RuntimeError> {
        if from == to {
            return Ok(());
        }
        self.gpu.enter()?;
        // SAFETY: the session copies within what it has allocated.
        unsafe { result::memcpy_dtod_sync(to, from, bytes) }.map_err(failure)
    }

    fn launch(
        &mut self,
        kernel: KernelId,
        buffers: &[DeviceBuffer],
        dims: &[i64],
    ) -> Result<(), RuntimeError> {
        let gpu = Arc::clone(&self.gpu);
        let launch = &gpu.ptx.launch[gpu.kernels[kernel as usize]];
        let Some(resolved) = launch.resolve(dims).map_err(failure)? else { return Ok(()) };
        let scratch = match resolved.scratch_bytes {
            0 => 0,
            bytes => self.scratch(bytes)?,
        };
        let addresses: Vec<u64> = buffers.iter().map(|buffer| buffer.address).collect();
        let mut arguments = launch.arguments(&addresses, scratch, dims);
        let mut parameters: Vec<*mut c_void> =
            arguments.iter_mut().map(|argument| std::ptr::from_mut(argument).cast()).collect();
        let narrow = |sizes: [u64; 3]| -> Result<(u32, u32, u32), RuntimeError> {
            let [x, y, z] = sizes.map(u32::try_from);
            Ok((x.map_err(failure)?, y.map_err(failure)?, z.map_err(failure)?))
        };
        let (blocks, threads) = (narrow(resolved.blocks)?, narrow(resolved.threads)?);
        gpu.enter()?;
        let shared = u32::try_from(launch.dynamic_shared_bytes).map_err(failure)?;
        // SAFETY: the function takes these parameters, which its launch description was made from; its kernel stays within
        // the buffers, which the session has allocated.
        unsafe {
            let function = gpu.functions[kernel as usize];
            result::launch_kernel(function, blocks, threads, shared, std::ptr::null_mut(), &mut parameters)
        }
        .map_err(failure)
    }
}
