//! Loads compiled objects into this process, through LLVM's ORC.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use inkwell::memory_buffer::MemoryBuffer;
use llvm_sys::error::{LLVMDisposeErrorMessage, LLVMErrorRef, LLVMGetErrorMessage};
use llvm_sys::orc2::lljit::{
    LLVMOrcCreateLLJIT, LLVMOrcDisposeLLJIT, LLVMOrcLLJITAddObjectFile, LLVMOrcLLJITGetGlobalPrefix,
    LLVMOrcLLJITGetMainJITDylib, LLVMOrcLLJITLookup, LLVMOrcLLJITRef,
};
use llvm_sys::orc2::{
    LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess, LLVMOrcExecutorAddress, LLVMOrcJITDylibAddGenerator,
};

use crate::compile::Object;
use crate::error::Error;
use crate::target::Target;

/// Objects linked into this process. Its code lives as long as the value.
///
/// Symbols are resolved when they are loaded; afterwards the value is only read, so it may be shared between threads.
pub struct Jit {
    engine: LLVMOrcLLJITRef,
    symbols: Vec<(String, *const ())>,
}

// SAFETY: after `load` nothing changes: `symbols` is plain data and `engine` is only touched again by `drop`, which has the
// value to itself. ORC has no thread affinity.
unsafe impl Send for Jit {}
// SAFETY: as above; no method takes `engine` through a shared reference.
unsafe impl Sync for Jit {}

impl Jit {
    /// Links one object.
    pub fn load(object: &Object) -> Result<Self, Error> {
        Self::load_all(std::slice::from_ref(object))
    }

    /// Links several objects together, as they come out of [`compile_parallel`](crate::compile_parallel).
    pub fn load_all(objects: &[Object]) -> Result<Self, Error> {
        for object in objects {
            if !object.target().is_native() {
                return Err(Error::Load(format!(
                    "the object is for {}, not for this machine",
                    object.target().triple()
                )));
            }
        }
        // The code generator of the host has to be registered before ORC asks for it.
        Target::host()?;
        let mut engine: LLVMOrcLLJITRef = ptr::null_mut();
        // SAFETY: a null builder asks for the defaults; the result is written before it is used.
        check(unsafe { LLVMOrcCreateLLJIT(&mut engine, ptr::null_mut()) })?;
        // From here on `drop` disposes of the engine whatever fails.
        let mut jit = Self { engine, symbols: Vec::new() };
        jit.resolve_from_process()?;
        for object in objects {
            let buffer = MemoryBuffer::create_from_memory_range_copy(object.bytes(), "object");
            let raw = buffer.as_mut_ptr();
            // ORC takes the buffer over, on failure too.
            std::mem::forget(buffer);
            // SAFETY: engine and library are live; the buffer is owned by nobody else.
            check(unsafe { LLVMOrcLLJITAddObjectFile(engine, LLVMOrcLLJITGetMainJITDylib(engine), raw) })?;
        }
        for name in objects.iter().flat_map(Object::symbols) {
            let mut address: LLVMOrcExecutorAddress = 0;
            let symbol =
                CString::new(name).map_err(|_| Error::Load(format!("symbol {name:?} has a zero byte")))?;
            // SAFETY: the engine is live and the name ends in a zero byte.
            check(unsafe { LLVMOrcLLJITLookup(engine, &mut address, symbol.as_ptr()) })?;
            jit.symbols.push((name.to_owned(), address as usize as *const ()));
        }
        jit.symbols.sort();
        Ok(jit)
    }

    /// Lets code call into libc and libm of this process.
    fn resolve_from_process(&mut self) -> Result<(), Error> {
        let mut generator = ptr::null_mut();
        // SAFETY: the engine is live; no filter is given, and the generator is handed to the library at once.
        unsafe {
            let prefix: c_char = LLVMOrcLLJITGetGlobalPrefix(self.engine);
            check(LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(
                &mut generator,
                prefix,
                None,
                ptr::null_mut(),
            ))?;
            LLVMOrcJITDylibAddGenerator(LLVMOrcLLJITGetMainJITDylib(self.engine), generator);
        }
        Ok(())
    }

    /// The address of a kernel. It is valid as long as this value lives.
    pub fn symbol(&self, name: &str) -> Option<*const ()> {
        let index = self.symbols.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(self.symbols[index].1)
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        // SAFETY: the engine was made by `load_all` and is disposed of once. An error at this point has no remedy.
        unsafe {
            let error = LLVMOrcDisposeLLJIT(self.engine);
            if !error.is_null() {
                LLVMDisposeErrorMessage(LLVMGetErrorMessage(error));
            }
        }
    }
}

fn check(error: LLVMErrorRef) -> Result<(), Error> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is not null; taking its message consumes it, and the message is copied before it is freed.
    unsafe {
        let message = LLVMGetErrorMessage(error);
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        LLVMDisposeErrorMessage(message);
        Err(Error::Load(text))
    }
}
