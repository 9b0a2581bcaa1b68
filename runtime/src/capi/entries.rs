//! The C interface to bundles of several entries and to state that they share.

use super::{CExecutable, CSession, Status, argument, borrow, give, guard};
use crate::bundle::{Bundle, LoadOptions};
use crate::error::Result;
use crate::session::{Session, SessionOptions};
use crate::state::State;
use std::ffi::{CStr, c_char};
use std::sync::Arc;

/// `tcc_state`.
pub struct CState {
    state: Arc<State>,
}

/// Text of the caller.
///
/// # Safety
///
/// The pointer is null or a zero-terminated string that lives long enough.
unsafe fn text_of<'a>(pointer: *const c_char, name: &'static str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(argument(name, "is null"));
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_str().map_err(|_| argument(name, "is not UTF-8"))
}

/// A list of the caller; a null pointer is an empty one.
///
/// # Safety
///
/// The pointer is null or has `count` elements that live long enough.
unsafe fn list_of<'a, T>(pointer: *const T, count: usize, name: &'static str) -> Result<&'a [T]> {
    if count > isize::MAX as usize / size_of::<T>().max(1) || (pointer.is_null() && count > 0) {
        return Err(argument(name, "is null or too long"));
    }
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// `tcc_load_entry`
///
/// # Safety
///
/// `path` and `entry` are null or zero-terminated strings, `executable` null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_load_entry(
    path: *const c_char,
    entry: *const c_char,
    executable: *mut *mut CExecutable,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let (path, entry) = unsafe { (text_of(path, "path")?, text_of(entry, "entry")?) };
        let load = || Bundle::open(path)?.load_entry(entry, &LoadOptions::default()).map(CExecutable::new);
        // SAFETY: as the caller promises.
        unsafe { give(executable, "executable", load) }
    })
}

/// `tcc_state_create`
///
/// # Safety
///
/// `executables` is an array of `executable_count` programs, `names` and `values` are arrays of `symbol_count` strings
/// and numbers; `state` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_state_create(
    executables: *const *const CExecutable,
    executable_count: usize,
    names: *const *const c_char,
    values: *const i64,
    symbol_count: usize,
    state: *mut *mut CState,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let (executables, names, values) = unsafe {
            (
                list_of(executables, executable_count, "executables")?,
                list_of(names, symbol_count, "names")?,
                list_of(values, symbol_count, "values")?,
            )
        };
        let mut manifests = Vec::with_capacity(executables.len());
        for executable in executables {
            // SAFETY: as the caller promises.
            let executable: &CExecutable = unsafe { borrow(*executable, "executables")? };
            manifests.push(executable.executable.manifest());
        }
        let mut symbols = Vec::with_capacity(names.len());
        for (name, value) in names.iter().zip(values) {
            // SAFETY: as the caller promises.
            symbols.push((unsafe { text_of(*name, "names")? }, *value));
        }
        let make = || State::new(&manifests, &symbols, None).map(|state| CState { state });
        // SAFETY: as the caller promises.
        unsafe { give(state, "state", make) }
    })
}

/// `tcc_state_bytes`
///
/// # Safety
///
/// `state` is null or came from `tcc_state_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_state_bytes(state: *const CState) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { state.as_ref() }.map_or(0, |state| state.state.bytes())
}

/// `tcc_state_reset`
///
/// # Safety
///
/// `state` is null or came from `tcc_state_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_state_reset(state: *const CState) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        unsafe { borrow(state, "state")? }.state.reset();
        Ok(())
    })
}

/// `tcc_state_free`
///
/// # Safety
///
/// `state` is null or came from `tcc_state_create` and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_state_free(state: *mut CState) {
    if !state.is_null() {
        guard(|| {
            // SAFETY: as the caller promises.
            drop(unsafe { Box::from_raw(state) });
            Ok(())
        });
    }
}

/// `tcc_session_create_on`
///
/// # Safety
///
/// `executable` and `state` are null or came from this library, `session` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcc_session_create_on(
    executable: *const CExecutable,
    state: *const CState,
    threads: usize,
    session: *mut *mut CSession,
) -> Status {
    guard(|| {
        // SAFETY: as the caller promises.
        let (executable, state) = unsafe { (borrow(executable, "executable")?, borrow(state, "state")?) };
        let make = || {
            let state = Some(Arc::clone(&state.state));
            let options = SessionOptions { threads, state, ..SessionOptions::default() };
            let session = Session::with_options(&executable.executable, &options)?;
            Ok(CSession { session, results: Vec::new(), strings: Vec::new() })
        };
        // SAFETY: as the caller promises.
        unsafe { give(session, "session", make) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::{null, null_mut};

    #[test]
    fn wrong_arguments_are_refused() {
        let mut executable = null_mut();
        let mut state = null_mut();
        let mut session = null_mut();
        // SAFETY: null pointers are allowed, and refused where something is needed.
        unsafe {
            assert_eq!(tcc_load_entry(null(), c"decode".as_ptr(), &mut executable), Status::Argument);
            assert_eq!(tcc_load_entry(c"/missing".as_ptr(), c"".as_ptr(), &mut executable), Status::Io);
            assert_eq!(tcc_state_create(null(), 1, null(), null(), 0, &mut state), Status::Argument);
            assert_eq!(tcc_state_create(null(), 0, null(), null(), 0, &mut state), Status::Ok);
            assert_eq!(tcc_state_bytes(state), 0);
            assert_eq!(tcc_state_reset(state), Status::Ok);
            assert_eq!(tcc_session_create_on(null(), state, 1, &mut session), Status::Argument);
            assert_eq!(tcc_state_reset(null()), Status::Argument);
            tcc_state_free(state);
            tcc_state_free(null_mut());
        }
    }
}
