//! One PTX module with many kernels.

use tcc_ir::dtype::DType;
use tcc_kernel::ir::Kernel;

use crate::emit::emit;
use crate::error::Error;
use crate::launch::LaunchDescription;
use crate::schedule::{BLOCK, is_scheduled, prepare, schedule};
use crate::target::Target;

/// PTX text and how its kernels are launched.
#[derive(Clone, PartialEq, Debug)]
pub struct PtxModule {
    /// The module.
    pub text: String,
    /// One entry for each kernel, in their order.
    pub launch: Vec<LaunchDescription>,
}

impl PtxModule {
    /// The launch descriptions as JSON.
    pub fn launch_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&self.launch)
    }
}

/// Writes kernels as one module. Kernels whose loops name blocks and threads are taken as they are, others are made ready
/// and mapped by [`schedule`].
pub fn module(kernels: &[Kernel], target: &Target) -> Result<PtxModule, Error> {
    let mut text = format!(".version {}\n.target {}\n.address_size 64\n", target.version, target.name);
    let mut launch = Vec::with_capacity(kernels.len());
    for kernel in kernels {
        check_types(kernel, target)?;
        check_name(kernel, &launch)?;
        let mut kernel = kernel.clone();
        if is_scheduled(&kernel) {
            prepare(&mut kernel)?;
        } else {
            schedule(&mut kernel, BLOCK)?;
        }
        text.push('\n');
        text.push_str(&emit(&kernel, target)?);
        launch.push(LaunchDescription::of(&kernel)?);
    }
    Ok(PtxModule { text, launch })
}

/// A name becomes part of identifiers, of which PTX asks to start with a letter and to be different.
fn check_name(kernel: &Kernel, earlier: &[LaunchDescription]) -> Result<(), Error> {
    let fail = |what: &str| Err(Error::Unsupported { kernel: kernel.name.clone(), what: what.into() });
    let identifier = kernel.name.starts_with(|first: char| first.is_ascii_alphabetic())
        && kernel.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !identifier {
        return fail("a name that is no identifier");
    }
    if earlier.iter().any(|launch| launch.kernel == kernel.name) {
        return fail("a second kernel of that name");
    }
    Ok(())
}

/// Types that the generation lacks are refused, although code for them could be emulated.
fn check_types(kernel: &Kernel, target: &Target) -> Result<(), Error> {
    let types = kernel.buffers.iter().map(|buffer| buffer.dtype);
    let mut types = types.chain(kernel.variables.iter().map(|variable| variable.ty.dtype));
    match types.find(|dtype| *dtype == DType::BF16 && !target.bfloat16()) {
        Some(dtype) => {
            Err(Error::Type { kernel: kernel.name.clone(), target: target.name, what: dtype.to_string() })
        }
        None => Ok(()),
    }
}
