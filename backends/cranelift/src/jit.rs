//! Kernels as functions of this process.

use std::collections::BTreeMap;

use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::default_libcall_names;
use tcc_kernel::Kernel;

use crate::error::Error;
use crate::object::define;
use crate::target::Target;

/// Compiled kernels in executable memory, which is freed with this value.
pub struct Jit {
    /// Always present until the value is dropped.
    module: Option<JITModule>,
    addresses: BTreeMap<String, Address>,
}

/// Address of code that does not change.
struct Address(*const u8);

// SAFETY: the code behind the address is immutable from the moment on at which it is executable, and belongs to the `Jit`.
unsafe impl Send for Address {}
// SAFETY: as above: shared access only reads the address.
unsafe impl Sync for Address {}

impl Jit {
    /// Compiles finished kernels for the host.
    ///
    /// # Errors
    ///
    /// As [`crate::compile`].
    pub fn new(kernels: &[Kernel]) -> Result<Jit, Error> {
        Jit::for_target(kernels, &Target::host())
    }

    /// Compiles for a processor whose instructions the host has, too.
    ///
    /// # Errors
    ///
    /// As [`crate::compile`].
    pub(crate) fn for_target(kernels: &[Kernel], target: &Target) -> Result<Jit, Error> {
        let isa = target.isa(false)?;
        let mut module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
        let functions = define(&mut module, kernels)?;
        module.finalize_definitions().map_err(|error| Error::cranelift("executable memory", error))?;
        let addresses = kernels
            .iter()
            .zip(functions)
            .map(|(kernel, id)| (kernel.name.clone(), Address(module.get_finalized_function(id))))
            .collect();
        Ok(Jit { module: Some(module), addresses })
    }

    /// The function of a kernel by name, with the signature that the crate's documentation gives. It is valid as long as
    /// this value lives.
    pub fn symbol(&self, name: &str) -> Option<*const u8> {
        self.addresses.get(name).map(|address| address.0)
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: `symbol` gives pointers for as long as this value lives, and it ends here.
            unsafe { module.free_memory() };
        }
    }
}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.addresses.keys()).finish()
    }
}
