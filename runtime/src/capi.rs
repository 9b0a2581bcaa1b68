//! The C interface declared in `include/tcc.h`, which documents each function.
//!
//! Null handles and counts are checked, panics are caught at the edge, errors become a status and a message for the
//! thread. What C promises and Rust cannot check (valid pointers, live memory) is the safety condition of each function.

pub mod entries;
pub mod linked;

use crate::bundle::{Bundle, LoadOptions};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{MAX_RANK, Manifest, Port};
use crate::program::Executable;
use crate::session::Session;
use crate::tensor::shape::{checked_bytes, elements};
use crate::tensor::{Shape, Tensor, TensorMut, TensorRef};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// `tcc_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // Documented in the header.
pub enum Status {
    Ok = 0,
    Argument = 1,
    Io = 2,
    Format = 3,
    Machine = 4,
    Input = 5,
    Output = 6,
    Memory = 7,
    Run = 8,
    Internal = 9,
}

/// `tcc_tensor`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct CTensor {
    pub dtype: i32,
    pub rank: i32,
    pub shape: [i64; MAX_RANK],
    pub data: *mut c_void,
    pub bytes: usize,
}

/// `tcc_tensor_info`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct CTensorInfo {
    pub name: *const c_char,
    pub shape_text: *const c_char,
    pub dtype: i32,
    pub rank: i32,
    pub shape: [i64; MAX_RANK],
}

/// An input or output with its texts for C.
struct PortText {
    name: CString,
    shape: CString,
}

/// `tcc_executable`.
pub struct CExecutable {
    executable: Arc<Executable>,
    inputs: Vec<PortText>,
    outputs: Vec<PortText>,
    description: CString,
}

/// `tcc_session`.
pub struct CSession {
    session: Session,
    /// Outputs of the last run that the caller may look at.
    results: Vec<Tensor>,
    strings: Vec<StringArray>,
}

/// Strings of an output as C sees them.
struct StringArray {
    _texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

impl Status {
    fn of(error: &Error) -> Self {
        match error {
            Error::Argument { .. } | Error::NoEntry { .. } => Status::Argument,
            Error::Io { .. } => Status::Io,
            Error::NotABundle { .. }
            | Error::Version { .. }
            | Error::Damaged { .. }
            | Error::Manifest { .. }
            | Error::Code { .. }
            | Error::UnknownHostFunction { .. }
            | Error::HostStep { .. } => Status::Format,
            Error::WrongArchitecture { .. } | Error::MissingCpuFeatures { .. } => Status::Machine,
            Error::InputCount { .. }
            | Error::InputType { .. }
            | Error::InputShape { .. }
            | Error::InputAlignment { .. }
            | Error::TensorData { .. }
            | Error::SymbolRange { .. }
            | Error::StateSymbol { .. }
            | Error::StateMismatch { .. }
            | Error::Constraint { .. } => Status::Input,
            Error::OutputCount { .. } | Error::OutputType { .. } | Error::OutputBuffer { .. } => {
                Status::Output
            }
            Error::OutOfMemory { .. }
            | Error::MemoryLimit { .. }
            | Error::StateMemory { .. }
            | Error::Threads { .. } => Status::Memory,
            Error::Host { .. } | Error::Dim { .. } | Error::Program { .. } | Error::Device { .. } => {
                Status::Run
            }
        }
    }
}

/// A string for C; what follows a zero byte is cut.
fn text(content: &str) -> CString {
    CString::new(content.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

fn remember(message: &str) {
    let message = text(message);
    // During the end of a thread there is nobody left to read the message.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = message);
}

/// Runs the body of a function of the interface.
fn guard(body: impl FnOnce() -> Result<()>) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(error)) => {
            remember(&error.to_string());
            Status::of(&error)
        }
        Err(payload) => {
            let reason = payload.downcast_ref::<&str>().map(|reason| (*reason).to_owned());
            let reason = reason.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            remember(&format!("internal error: {reason}; please report it"));
            Status::Internal
        }
    }
}

fn argument(argument: &'static str, reason: impl Into<String>) -> Error {
    Error::Argument { argument, reason: reason.into() }
}

/// A reference from a pointer of the caller.
///
/// # Safety
///
/// The pointer is null or valid for the lifetime.
unsafe fn borrow<'a, T>(pointer: *const T, name: &'static str) -> Result<&'a T> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_ref() }.ok_or_else(|| argument(name, "is null"))
}

/// As `borrow`, for writing.
///
/// # Safety
///
/// The pointer is null or valid and not otherwise used for the lifetime.
unsafe fn borrow_mut<'a, T>(pointer: *mut T, name: &'static str) -> Result<&'a mut T> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_mut() }.ok_or_else(|| argument(name, "is null"))
}

impl CExecutable {
    fn new(executable: Executable) -> Self {
        let manifest = executable.manifest();
        let texts = |ports: &[Port]| {
            ports
                .iter()
                .map(|port| PortText {
                    name: text(&port.name),
                    shape: text(&manifest.describe_shape(&manifest.tensors[port.tensor as usize].shape)),
                })
                .collect()
        };
        let describe = |ports: &[Port]| -> serde_json::Value {
            ports
                .iter()
                .map(|port| {
                    let tensor = &manifest.tensors[port.tensor as usize];
                    let shape: Vec<_> = tensor.shape.iter().map(|dim| manifest.describe_dim(dim)).collect();
                    serde_json::json!({ "name": port.name, "dtype": tensor.dtype, "shape": shape })
                })
                .collect()
        };
        let description = serde_json::json!({
            "name": manifest.name,
            "producer": manifest.producer,
            "target": manifest.target,
            "inputs": describe(&manifest.inputs),
            "outputs": describe(&manifest.outputs),
            "symbols": manifest.symbols,
            "metadata": manifest.metadata,
        });
        CExecutable {
            inputs: texts(&manifest.inputs),
            outputs: texts(&manifest.outputs),
            description: text(&description.to_string()),
            executable: Arc::new(executable),
        }
    }
}

/// Returns a new object through a pointer of the caller.
///
/// # Safety
///
/// `out` is null or valid for writing.
unsafe fn give<T>(out: *mut *mut T, name: &'static str, make: impl FnOnce() -> Result<T>) -> Result<()> {
    // SAFETY: as the caller promises.
    let out = unsafe { borrow_mut(out, name)? };
    *out = std::ptr::null_mut();
    *out = Box::into_raw(Box::new(make()?));
    Ok(())
}

/// `tcc_version`
#[unsafe(no_mangle)]
pub extern "C" fn tcc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// `tcc_last_error`
#[unsafe(no_mangle)]
pub extern "C" fn tcc_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// `tcc_dtype_name`
#[unsafe(no_mangle)]
pub extern "C" fn tcc_dtype_name(dtype: i32) -> *const c_char {
    // The names of the header without the prefix would differ from those of messages, so these come from there.
    static NAMES: std::sync::OnceLock<Vec<CString>> = std::sync::OnceLock::new();
    let names = NAMES.get_or_init(|| DType::ALL.iter().map(|dtype| text(dtype.name())).collect());
    usize::try_from(dtype)
        .ok()
        .and_then(|code| names.get(code))
        .map_or(std::ptr::null(), |name| name.as_ptr())
}

/// `tcc_load`
///
/// # Safety
///
/// `path` is null or a zero-terminated string, `executable` null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_load(path: *const c_char, executable: *mut *mut CExecutable) -> Status {
    guard(|| {
        if path.is_null() {
            return Err(argument("path", "is null"));
        }
        // SAFETY: as the caller promises.
        let path = unsafe { CStr::from_ptr(path) };
        let path = path.to_str().map_err(|_| argument("path", "is not UTF-8"))?;
        // SAFETY: as the caller promises.
        unsafe { give(executable, "executable", || Executable::load(path).map(CExecutable::new)) }
    })
}

/// `tcc_load_memory`
///
/// # Safety
///
/// `data` is null or valid for `bytes` bytes until the program and its sessions are freed; `executable` is null or
/// valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_load_memory(
    data: *const c_void,
    bytes: usize,
    executable: *mut *mut CExecutable,
) -> Status {
    guard(|| {
        if data.is_null() || bytes > isize::MAX as usize {
            return Err(argument("data", "is null or too large"));
        }
        // SAFETY: the caller promises that the memory outlives everything that is made from it.
        let source: &'static [u8] = unsafe { std::slice::from_raw_parts(data.cast(), bytes) };
        let load =
            || Bundle::from_source(Arc::new(source))?.load(&LoadOptions::default()).map(CExecutable::new);
        // SAFETY: as the caller promises.
        unsafe { give(executable, "executable", load) }
    })
}

/// `tcc_executable_free`
///
/// # Safety
///
/// `executable` is null or came from a load and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_executable_free(executable: *mut CExecutable) {
    if !executable.is_null() {
        guard(|| {
            // SAFETY: as the caller promises.
            drop(unsafe { Box::from_raw(executable) });
            Ok(())
        });
    }
}

/// `tcc_describe`
///
/// # Safety
///
/// `executable` is null or came from a load.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_describe(executable: *const CExecutable) -> *const c_char {
    // SAFETY: as the caller promises.
    unsafe { executable.as_ref() }.map_or(std::ptr::null(), |executable| executable.description.as_ptr())
}

/// `tcc_input_count`
///
/// # Safety
///
/// `executable` is null or came from a load.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_input_count(executable: *const CExecutable) -> usize {
    // SAFETY: as the caller promises.
    unsafe { executable.as_ref() }.map_or(0, |executable| executable.inputs.len())
}

/// `tcc_output_count`
///
/// # Safety
///
/// `executable` is null or came from a load.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_output_count(executable: *const CExecutable) -> usize {
    // SAFETY: as the caller promises.
    unsafe { executable.as_ref() }.map_or(0, |executable| executable.outputs.len())
}

fn port_info(manifest: &Manifest, ports: &[Port], texts: &[PortText], index: usize) -> Result<CTensorInfo> {
    let (Some(port), Some(text)) = (ports.get(index), texts.get(index)) else {
        return Err(argument("index", format!("is {index} of {}", ports.len())));
    };
    let tensor = &manifest.tensors[port.tensor as usize];
    let mut shape = [0; MAX_RANK];
    for (slot, dim) in shape.iter_mut().zip(&tensor.shape) {
        *slot = dim.as_const().unwrap_or(-1);
    }
    Ok(CTensorInfo {
        name: text.name.as_ptr(),
        shape_text: text.shape.as_ptr(),
        dtype: tensor.dtype as i32,
        rank: tensor.shape.len() as i32,
        shape,
    })
}

/// `tcc_input_info`
///
/// # Safety
///
/// `executable` is null or came from a load, `info` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_input_info(
    executable: *const CExecutable,
    index: usize,
    info: *mut CTensorInfo,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let (executable, info) = unsafe { (borrow(executable, "executable")?, borrow_mut(info, "info")?) };
        let manifest = executable.executable.manifest();
        *info = port_info(manifest, &manifest.inputs, &executable.inputs, index)?;
        Ok(())
    })
}

/// `tcc_output_info`
///
/// # Safety
///
/// `executable` is null or came from a load, `info` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_output_info(
    executable: *const CExecutable,
    index: usize,
    info: *mut CTensorInfo,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let (executable, info) = unsafe { (borrow(executable, "executable")?, borrow_mut(info, "info")?) };
        let manifest = executable.executable.manifest();
        *info = port_info(manifest, &manifest.outputs, &executable.outputs, index)?;
        Ok(())
    })
}

/// `tcc_session_create`
///
/// # Safety
///
/// `executable` is null or came from a load, `session` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_session_create(
    executable: *const CExecutable,
    threads: usize,
    session: *mut *mut CSession,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let executable = unsafe { borrow(executable, "executable")? };
        let make = || {
            let session = Session::new(&executable.executable, threads)?;
            Ok(CSession { session, results: Vec::new(), strings: Vec::new() })
        };
        // SAFETY: as the caller promises.
        unsafe { give(session, "session", make) }
    })
}

/// `tcc_session_free`
///
/// # Safety
///
/// `session` is null or came from `tcc_session_create` and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_session_free(session: *mut CSession) {
    if !session.is_null() {
        guard(|| {
            // SAFETY: as the caller promises.
            drop(unsafe { Box::from_raw(session) });
            Ok(())
        });
    }
}

fn dtype_of(tensor: &CTensor, name: &'static str, index: usize) -> Result<DType> {
    let dtype = usize::try_from(tensor.dtype).ok().and_then(|code| DType::ALL.get(code)).copied();
    dtype.ok_or_else(|| {
        argument(name, format!("element {index} has dtype {}, which does not exist", tensor.dtype))
    })
}

fn shape_of(tensor: &CTensor, index: usize) -> Result<Shape> {
    let rank = usize::try_from(tensor.rank).ok().filter(|rank| *rank <= MAX_RANK);
    let rank = rank.ok_or_else(|| argument("inputs", format!("element {index} has rank {}", tensor.rank)))?;
    let mut shape = Shape::SCALAR;
    for &dim in &tensor.shape[..rank] {
        let dim = usize::try_from(dim)
            .map_err(|_| argument("inputs", format!("element {index} has dimension {dim}")))?;
        shape.push(dim);
    }
    Ok(shape)
}

/// The strings of an input.
///
/// # Safety
///
/// `tensor.data` has as many pointers to zero-terminated strings as its shape says.
unsafe fn strings_of(tensor: &CTensor, shape: &Shape, index: usize) -> Result<Vec<String>> {
    let fail = |reason: &str| argument("inputs", format!("element {index} {reason}"));
    let count = elements(shape).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count <= isize::MAX as usize / size_of::<*const c_char>());
    let count = count.ok_or_else(|| fail("has an impossible shape"))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    if tensor.data.is_null() {
        return Err(fail("has no data"));
    }
    // SAFETY: as the caller promises.
    let pointers = unsafe { std::slice::from_raw_parts(tensor.data.cast::<*const c_char>(), count) };
    pointers
        .iter()
        .map(|&pointer| {
            if pointer.is_null() {
                return Err(fail("has a null string"));
            }
            // SAFETY: as the caller promises.
            let text = unsafe { CStr::from_ptr(pointer) };
            text.to_str().map(str::to_owned).map_err(|_| fail("has a string that is not UTF-8"))
        })
        .collect()
}

/// `tcc_run`
///
/// # Safety
///
/// `session` is null or came from `tcc_session_create` and is used by no other thread; `inputs` and `outputs` are
/// arrays of the lengths given, whose `data` is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_run(
    session: *mut CSession,
    inputs: *const CTensor,
    input_count: usize,
    outputs: *mut CTensor,
    output_count: usize,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let session = unsafe { borrow_mut(session, "session")? };
        let fits = |count: usize| count <= isize::MAX as usize / size_of::<CTensor>();
        if (inputs.is_null() && input_count > 0) || !fits(input_count) {
            return Err(argument("inputs", "is null or too long"));
        }
        if (outputs.is_null() && output_count > 0) || !fits(output_count) {
            return Err(argument("outputs", "is null or too long"));
        }
        // SAFETY: as the caller promises; an empty slice does not use the pointer.
        let (inputs, outputs) = unsafe {
            (
                if input_count == 0 { &[] } else { std::slice::from_raw_parts(inputs, input_count) },
                if output_count == 0 {
                    &mut []
                } else {
                    std::slice::from_raw_parts_mut(outputs, output_count)
                },
            )
        };
        // SAFETY: as the caller promises.
        unsafe { run(session, inputs, outputs) }
    })
}

/// # Safety
///
/// As for `tcc_run`.
unsafe fn run(session: &mut CSession, inputs: &[CTensor], outputs: &mut [CTensor]) -> Result<()> {
    let expected = session.session.executable().manifest().outputs.len();
    if outputs.len() != expected {
        return Err(Error::OutputCount { expected, found: outputs.len() });
    }
    let mut shapes = Vec::with_capacity(inputs.len());
    let mut strings = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        let shape = shape_of(input, index)?;
        strings.push(match dtype_of(input, "inputs", index)? {
            // SAFETY: as the caller promises.
            DType::String => unsafe { strings_of(input, &shape, index)? },
            _ => Vec::new(),
        });
        shapes.push(shape);
    }
    let mut tensors = Vec::with_capacity(inputs.len());
    for (index, ((input, shape), strings)) in inputs.iter().zip(&shapes).zip(&strings).enumerate() {
        tensors.push(match dtype_of(input, "inputs", index)? {
            DType::String => TensorRef::from_strings(shape, strings)?,
            dtype => {
                let needed = checked_bytes(dtype, shape)?;
                if needed > 0 && (input.data.is_null() || input.bytes < needed) {
                    let reason = format!("element {index} takes {needed} bytes, data is null or has fewer");
                    return Err(argument("inputs", reason));
                }
                let data = match needed {
                    0 => &[],
                    // SAFETY: the caller promises `bytes` bytes at `data`.
                    _ => unsafe { std::slice::from_raw_parts(input.data.cast::<u8>(), needed) },
                };
                TensorRef::new(dtype, shape, data)?
            }
        });
    }

    let lent = outputs.iter().all(|output| !output.data.is_null() && output.dtype != DType::String as i32);
    if lent {
        let mut buffers = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            let dtype = dtype_of(output, "outputs", index)?;
            // SAFETY: the caller promises `bytes` bytes at `data` that nothing else uses.
            let data = unsafe { std::slice::from_raw_parts_mut(output.data.cast::<u8>(), output.bytes) };
            buffers.push(TensorMut::new(dtype, data));
        }
        session.session.run_into(&tensors, &mut buffers)?;
        let written: Vec<_> = buffers.iter().map(|buffer| (buffer.dtype(), buffer.shape)).collect();
        for (output, (dtype, shape)) in outputs.iter_mut().zip(written) {
            set(output, dtype, &shape)?;
        }
        return Ok(());
    }

    let results = session.session.run(&tensors)?;
    for (index, (output, result)) in outputs.iter().zip(&results).enumerate() {
        if output.data.is_null() || result.dtype() == DType::String {
            continue;
        }
        let name = || session.session.executable().manifest().outputs[index].name.clone();
        let found = dtype_of(output, "outputs", index)?;
        if found != result.dtype() {
            return Err(Error::OutputType { output: name(), expected: result.dtype(), found });
        }
        if output.bytes < result.bytes().len() {
            let reason = format!("it takes {} bytes, the buffer has {}", result.bytes().len(), output.bytes);
            return Err(Error::OutputBuffer { output: name(), reason });
        }
    }
    session.results = results;
    session.strings.clear();
    for (output, result) in outputs.iter_mut().zip(&mut session.results) {
        set(output, result.dtype(), &Shape::new(result.shape()).unwrap_or(Shape::SCALAR))?;
        if let Some(strings) = result.strings() {
            let texts: Vec<_> = strings.iter().map(|string| text(string)).collect();
            let pointers = texts.iter().map(|text| text.as_ptr()).collect();
            let mut array = StringArray { _texts: texts, pointers };
            output.data = array.pointers.as_mut_ptr().cast();
            session.strings.push(array);
        } else if output.data.is_null() {
            output.data = result.bytes_mut().as_mut_ptr().cast();
        } else if !result.bytes().is_empty() {
            // SAFETY: the size was checked above, and the caller promises that the memory is its own.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    result.bytes().as_ptr(),
                    output.data.cast(),
                    result.bytes().len(),
                )
            };
        }
    }
    Ok(())
}

/// Tells the caller what an output is.
fn set(output: &mut CTensor, dtype: DType, shape: &Shape) -> Result<()> {
    output.dtype = dtype as i32;
    output.rank = shape.len() as i32;
    output.shape = [0; MAX_RANK];
    for (slot, &dim) in output.shape.iter_mut().zip(shape.iter()) {
        *slot = dim as i64;
    }
    output.bytes = if dtype == DType::String { 0 } else { checked_bytes(dtype, shape)? };
    Ok(())
}
