//! The runtime as a static and a shared library for C. The functions are those of [`tcc_runtime::capi`], declared in
//! `runtime/include/tcc.h`. A crate of its own keeps Rust programs from building libraries that they do not need.

pub use tcc_runtime::capi::*;
