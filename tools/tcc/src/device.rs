//! Where programs run: in this process, on a GPU, in the simulator of one, or as an FPGA design in C simulation.

#[cfg(feature = "cuda")]
mod cuda;
mod simulator;

use std::str::FromStr;
use std::sync::Arc;

use tcc_ptx::PtxModule;
use tcc_runtime::device::Device as RuntimeDevice;
use tcc_runtime::manifest::Manifest;

use crate::error::Error;
use crate::target::{Backend, Target};

pub use simulator::Simulator;

/// What to do where a GPU is needed and there is none.
#[cfg(feature = "cuda")]
const NO_GPU: &str = "no CUDA driver and GPU here; run with --device sim, or compile with tcc compile";

/// A place to run a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// This process.
    Cpu,
    /// A GPU, through the driver.
    Cuda,
    /// The simulator of PTX, which checks every access.
    Sim,
    /// C simulation of an FPGA design, whole: it takes no single kernels.
    Csim,
}

impl Device {
    /// The device of a target where nothing else is asked for.
    pub fn of(target: &Target) -> Device {
        match target.backend {
            Backend::Ptx(_) => Device::Cuda,
            _ => Device::Cpu,
        }
    }

    /// Refuses devices that do not take code for a target.
    pub fn check(self, target: &Target) -> Result<(), Error> {
        let takes_ptx = self != Device::Cpu;
        if self != Device::Csim && takes_ptx == matches!(target.backend, Backend::Ptx(_)) {
            return Ok(());
        }
        let reason = match self {
            Device::Cpu => "its code does not run on the device cpu; use --device cuda or sim",
            Device::Cuda => "its code does not run on the device cuda; use a target such as ptx:sm_80",
            Device::Csim => "its code does not run on the device csim; use a target such as hls:zcu104",
            Device::Sim => "its code does not run on the device sim; use a target such as ptx:sm_80",
        };
        Err(Error::Target { name: target.name.clone(), reason: reason.into() })
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Device, String> {
        match name {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda),
            "sim" => Ok(Device::Sim),
            "csim" => Ok(Device::Csim),
            _ => Err("unknown device; known are cpu, cuda, sim, csim".into()),
        }
    }
}

/// Hands the kernels of a program to a device.
pub fn open(
    device: Device,
    ptx: &Arc<PtxModule>,
    manifest: &Manifest,
) -> Result<Arc<dyn RuntimeDevice>, Error> {
    match device {
        Device::Sim => Ok(Arc::new(Simulator::new(ptx, manifest, 0)?)),
        #[cfg(feature = "cuda")]
        Device::Cuda => cuda::open(ptx, manifest),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => Err(Error::Target {
            name: format!("ptx:{}", manifest.target.arch),
            reason: "this build has no CUDA; run with --device sim".into(),
        }),
        Device::Cpu | Device::Csim => Err(Error::Target {
            name: manifest.target.arch.clone(),
            reason: "its code runs on the devices cuda and sim".into(),
        }),
    }
}

/// Position in the module of each kernel of a manifest.
fn kernels(ptx: &PtxModule, manifest: &Manifest) -> Result<Vec<usize>, Error> {
    let position = |symbol: &String| ptx.launch.iter().position(|launch| launch.kernel == *symbol);
    let missing = |symbol: &String| Error::Codegen(format!("kernel {symbol} is not in the module"));
    let symbols = manifest.kernels.iter().map(|kernel| &kernel.symbol);
    symbols.map(|symbol| position(symbol).ok_or_else(|| missing(symbol))).collect()
}
