//! A GPU, through the driver.

use std::sync::Arc;

use tcc_ptx::PtxModule;
use tcc_runtime::device::Device;
use tcc_runtime::manifest::Manifest;

use crate::error::Error;

/// The first GPU, with the kernels of a program.
pub fn open(_: &Arc<PtxModule>, manifest: &Manifest) -> Result<Arc<dyn Device>, Error> {
    Err(Error::Target {
        name: format!("ptx:{}", manifest.target.arch),
        reason: "no CUDA driver and GPU here; run with --device sim, or compile with tcc compile".into(),
    })
}
