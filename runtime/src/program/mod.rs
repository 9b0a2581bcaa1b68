//! A loaded program: validated manifest, kernels, host functions and weights, shared by any number of sessions.

mod analysis;
pub mod cpu;
mod validate;
mod validate_steps;

use crate::code::CodeImage;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::host::{HostFunction, Registry};
use crate::manifest::{ALIGNMENT, KernelFn, Manifest, Step};
use crate::memory::aligned::AlignedBytes;
pub(crate) use analysis::{Analysis, KernelSlots};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
pub use validate::MAX_ALIAS_DEPTH;

/// Bytes that stay where they are as long as this value or a clone of it lives.
#[derive(Clone)]
pub struct WeightData {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl WeightData {
    /// A part of the bytes of `owner`, `None` when it is not inside. `owner` must return the same slice every time.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(WeightData { owner, range })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl From<Vec<u8>> for WeightData {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        WeightData { owner: Arc::new(bytes), range }
    }
}

impl From<&'static [u8]> for WeightData {
    fn from(bytes: &'static [u8]) -> Self {
        WeightData { owner: Arc::new(bytes), range: 0..bytes.len() }
    }
}

impl std::fmt::Debug for WeightData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WeightData({} bytes)", self.range.len())
    }
}

/// A compiled program in memory.
pub struct Program {
    /// What it is.
    pub manifest: Manifest,
    /// One function for each of the manifest's kernels.
    pub kernels: Vec<KernelFn>,
    /// Data for each of the manifest's weights.
    pub weights: Vec<WeightData>,
    /// Whatever owns the memory that `kernels` point into.
    pub code: Box<dyn Any + Send + Sync>,
}

impl Program {
    /// A program whose kernels are found by their symbols in relocatable ELF objects, which are loaded. Nothing of them
    /// runs before [`Executable::from_program`].
    pub fn link<T: AsRef<[u8]>>(manifest: Manifest, objects: &[T], weights: Vec<WeightData>) -> Result<Self> {
        let images =
            objects.iter().map(|object| CodeImage::load(object.as_ref())).collect::<Result<Vec<_>>>()?;
        let mut kernels = Vec::with_capacity(manifest.kernels.len());
        for kernel in &manifest.kernels {
            let Some(address) = images.iter().find_map(|image| image.function(&kernel.symbol)) else {
                return Err(Error::code(format!("kernel `{}`", kernel.symbol), "is not in the code"));
            };
            // SAFETY: the address is not null; that the function has this type is a condition of whoever runs it.
            kernels.push(unsafe { std::mem::transmute::<*const u8, KernelFn>(address) });
        }
        Ok(Program { manifest, kernels, weights, code: Box::new(images) })
    }
}

/// A program that is ready to run, shared by its sessions through an `Arc`.
pub struct Executable {
    pub(crate) manifest: Manifest,
    pub(crate) kernels: Vec<KernelFn>,
    /// Start of each blob; the memory belongs to `owners`.
    pub(crate) weights: Vec<Address>,
    /// Host function of each step, by number.
    pub(crate) host: Vec<Option<Box<dyn HostFunction>>>,
    pub(crate) analysis: Analysis,
    /// What runs the kernels; without one they are functions of this process.
    pub(crate) device: Option<Arc<dyn Device>>,
    owners: Vec<WeightData>,
    _code: Box<dyn Any + Send + Sync>,
}

/// An address in memory that this executable keeps alive and nobody writes.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) *const u8);

// SAFETY: the memory behind it is only read, from any thread.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Executable {
    /// Makes a program in memory ready to run, with the built-in host functions.
    ///
    /// # Safety
    ///
    /// Every kernel must follow the contract of [`KernelFn`]: it accesses its buffers only as the manifest's
    /// `Access` says and within the size of the step's tensors, and scratch within the step's size, for all values of
    /// the symbols within their ranges; it does not unwind; its address stays valid as long as `program.code`.
    pub unsafe fn from_program(program: Program) -> Result<Self> {
        // SAFETY: passed on to the caller.
        unsafe { Self::from_program_with(program, &Registry::builtin()) }
    }

    /// As [`from_program`](Self::from_program) with host functions from `registry`.
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn from_program_with(program: Program, registry: &Registry) -> Result<Self> {
        cpu::check(&program.manifest.target)?;
        Self::assemble(program, None, registry)
    }

    /// Makes a program ready to run on a device that has its kernels, with the built-in host functions.
    pub fn on_device(manifest: Manifest, weights: Vec<WeightData>, device: Arc<dyn Device>) -> Result<Self> {
        let program = Program { manifest, kernels: Vec::new(), weights, code: Box::new(()) };
        Self::assemble(program, Some(device), &Registry::builtin())
    }

    fn assemble(program: Program, device: Option<Arc<dyn Device>>, registry: &Registry) -> Result<Self> {
        let Program { manifest, kernels, weights, code } = program;
        manifest.validate()?;
        let found = device.as_ref().map_or(kernels.len(), |device| device.kernels());
        if found != manifest.kernels.len() {
            let reason = format!("lists {} kernels, {found} functions were given", manifest.kernels.len());
            return Err(Error::manifest("kernels", reason));
        }
        if weights.len() != manifest.weights.len() {
            let reason = format!("lists {} weights, {} were given", manifest.weights.len(), weights.len());
            return Err(Error::manifest("weights", reason));
        }
        let mut owners = Vec::with_capacity(weights.len());
        for (index, (blob, data)) in manifest.weights.iter().zip(weights).enumerate() {
            let found = data.bytes().len();
            if found as u64 != blob.stored_bytes() {
                let field = format!("weights[{index}] (`{}`)", blob.name);
                let reason = format!("has {} bytes, {found} were given", blob.stored_bytes());
                return Err(Error::manifest(field, reason));
            }
            let data = match &blob.fill {
                Some(element) => filled(element, blob.bytes)?,
                None => data,
            };
            owners.push(align(data, blob.alignment as usize)?);
        }
        let analysis = Analysis::new(&manifest);
        let mut host = Vec::with_capacity(manifest.step_count() as usize);
        build_host_functions(&manifest, "steps", &manifest.steps, registry, &mut host)?;
        let weights = owners.iter().map(|data| Address(data.bytes().as_ptr())).collect();
        Ok(Executable { manifest, kernels, weights, host, analysis, device, owners, _code: code })
    }

    /// The contents of a blob.
    pub(crate) fn weight(&self, blob: usize) -> &[u8] {
        self.owners[blob].bytes()
    }

    /// What the program is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Position of the input of this name.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.manifest.inputs.iter().position(|port| port.name == name)
    }

    /// Position of the output of this name.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.manifest.outputs.iter().position(|port| port.name == name)
    }
}

impl std::fmt::Debug for Executable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Executable(`{}`, {} kernels)", self.manifest.name, self.kernels.len())
    }
}

/// Repetitions of an element.
fn filled(element: &[u8], bytes: u64) -> Result<WeightData> {
    let what = "weights that are filled in";
    let length = usize::try_from(bytes).map_err(|_| Error::OutOfMemory { what: what.to_owned(), bytes })?;
    let mut all = AlignedBytes::zeroed(length, what)?;
    if element.iter().any(|byte| *byte != 0) {
        // Of one block in cache, the memory is filled as fast as it goes.
        let block = element.repeat((1 << 14) / element.len());
        for chunk in all.chunks_mut(block.len()) {
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
    Ok(WeightData { owner: Arc::new(all), range: 0..length })
}

/// The data itself where it is aligned as kernels need it, a copy otherwise.
fn align(data: WeightData, alignment: usize) -> Result<WeightData> {
    let bytes = data.bytes();
    if bytes.is_empty() || (bytes.as_ptr() as usize).is_multiple_of(alignment) {
        return Ok(data);
    }
    // Owned memory starts at multiples of `ALIGNMENT`; the copy starts at the first larger multiple inside.
    let length = bytes.len();
    let slack = alignment.saturating_sub(ALIGNMENT as usize);
    let mut copy = AlignedBytes::zeroed(length + slack, "weights")?;
    let start = (copy.as_ptr() as usize).next_multiple_of(alignment) - copy.as_ptr() as usize;
    copy[start..start + length].copy_from_slice(bytes);
    Ok(WeightData { owner: Arc::new(copy), range: start..start + length })
}

/// Builds the host function of every step, `None` for steps of other kinds, in the order of their numbers.
fn build_host_functions(
    manifest: &Manifest,
    path: &str,
    steps: &[Step],
    registry: &Registry,
    all: &mut Vec<Option<Box<dyn HostFunction>>>,
) -> Result<()> {
    for (index, step) in steps.iter().enumerate() {
        let field = format!("{path}[{index}]");
        all.push(match step {
            Step::Host(step) => Some(registry.build(manifest, &field, step)?),
            _ => None,
        });
        match step {
            Step::If(step) => {
                let (then, otherwise) = (&step.then.steps, &step.otherwise.steps);
                build_host_functions(manifest, &format!("{field}.then.steps"), then, registry, all)?;
                build_host_functions(
                    manifest,
                    &format!("{field}.otherwise.steps"),
                    otherwise,
                    registry,
                    all,
                )?;
            }
            Step::Loop(step) => {
                build_host_functions(manifest, &format!("{field}.body"), &step.body, registry, all)?;
            }
            _ => {}
        }
    }
    Ok(())
}
