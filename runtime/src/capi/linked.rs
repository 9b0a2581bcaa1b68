//! Programs that a linker put into this process: the kernels are functions of the program, manifest and weights are
//! its constants, and nothing is loaded. `tcc compile --emit staticlib` writes them.

use super::{CExecutable, Status, argument, borrow, give, guard};
use crate::bundle::parse_manifest;
use crate::error::{Error, Result};
use crate::manifest::KernelFn;
use crate::program::{Executable, Program, WeightData};

/// Version of [`LinkedProgram`] that this crate reads.
pub const LINKED_VERSION: usize = 1;

/// Bytes of a linked program, which live as long as the process.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LinkedBytes {
    /// Start; any address where `bytes` is 0.
    pub data: *const u8,
    /// Length.
    pub bytes: usize,
}

/// `tcc_linked_program`: constants of the program that link its parts together. Every field is one machine word, so
/// the writer of an object file needs to know no more of the layout than the order.
#[derive(Debug)]
#[repr(C)]
pub struct LinkedProgram {
    /// [`LINKED_VERSION`] of the writer.
    pub version: usize,
    /// The manifest as JSON.
    pub manifest: LinkedBytes,
    /// One function for each of the manifest's kernels.
    pub kernels: *const KernelFn,
    /// Length of `kernels`.
    pub kernel_count: usize,
    /// Data of each of the manifest's weights.
    pub weights: *const LinkedBytes,
    /// Length of `weights`.
    pub weight_count: usize,
}

impl LinkedBytes {
    /// The bytes.
    ///
    /// # Safety
    ///
    /// They live and stay as they are until the end of the process.
    unsafe fn get(self) -> &'static [u8] {
        match self.bytes {
            0 => &[],
            // SAFETY: as the caller promises.
            bytes => unsafe { std::slice::from_raw_parts(self.data, bytes) },
        }
    }
}

/// # Safety
///
/// The tables of the program hold as many elements as it says, and all that they point to lives until the end of the
/// process.
unsafe fn load(program: &'static LinkedProgram) -> Result<Executable> {
    if program.version != LINKED_VERSION {
        let (found, supported) = (program.version as u32, LINKED_VERSION as u32);
        return Err(Error::Version { what: "linked program", found, supported });
    }
    // SAFETY: as the caller promises.
    let manifest = parse_manifest(unsafe { program.manifest.get() })?;
    let kernels = match program.kernel_count {
        0 => Vec::new(),
        // SAFETY: as the caller promises.
        count => unsafe { std::slice::from_raw_parts(program.kernels, count) }.to_vec(),
    };
    let blobs = match program.weight_count {
        0 => &[],
        // SAFETY: as the caller promises.
        count => unsafe { std::slice::from_raw_parts(program.weights, count) },
    };
    // SAFETY: as the caller promises.
    let weights = blobs.iter().map(|blob| WeightData::from(unsafe { blob.get() })).collect();
    let program = Program { manifest, kernels, weights, code: Box::new(()) };
    // SAFETY: the compiler wrote manifest and kernels together, its kernels keep the contract, and functions of the
    // process itself are never unloaded.
    unsafe { Executable::from_program(program) }
}

/// `tcc_load_linked`
///
/// # Safety
///
/// `program` is null or a program that the compiler wrote, linked with its kernels; `executable` is null or valid for
/// writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_load_linked(
    program: *const LinkedProgram,
    executable: *mut *mut CExecutable,
) -> Status {
    guard(|| {
        if !program.is_aligned() {
            return Err(argument("program", "is not aligned"));
        }
        // SAFETY: as the caller promises; constants of the process live as long as it does.
        let program: &'static LinkedProgram = unsafe { borrow(program, "program")? };
        // SAFETY: as the caller promises.
        unsafe { give(executable, "executable", || load(program).map(CExecutable::new)) }
    })
}
