//! Makes `-lMLIR-C` resolvable.
//!
//! Debian and Ubuntu ship the C API of MLIR only as static archives (`libMLIRCAPI*.a`), while `mlir-sys` asks the
//! linker for a shared `libMLIR-C`. A linker script of that name groups the archives with the shared `libMLIR` and
//! `libLLVM`, so that the whole process has one copy of LLVM. Where a real `libMLIR-C` exists nothing is written.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MLIR_SYS_220_PREFIX");
    let prefix =
        env::var_os("MLIR_SYS_220_PREFIX").map_or_else(|| PathBuf::from("/usr/lib/llvm-22"), PathBuf::from);
    let libraries = prefix.join("lib");
    if let Err(message) = write_linker_script(&libraries) {
        println!("cargo:warning={message}");
    }
}

fn write_linker_script(libraries: &Path) -> Result<(), String> {
    if libraries.join("libMLIR-C.so").exists() || libraries.join("libMLIR-C.dylib").exists() {
        return Ok(());
    }
    let entries = fs::read_dir(libraries).map_err(|error| {
        format!("{}: {error}; run tools/setup, or build with --no-default-features", libraries.display())
    })?;
    let mut archives: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("libMLIRCAPI") && name.ends_with(".a"))
        })
        .collect();
    if archives.is_empty() {
        return Err(format!("no libMLIRCAPI*.a in {}; run tools/setup", libraries.display()));
    }
    // The order of a directory listing is not stable; the linker's input must be.
    archives.sort();
    let mut script = String::from("GROUP (\n");
    for archive in &archives {
        script.push_str(&format!("  {}\n", archive.display()));
    }
    for shared in ["libMLIR.so", "libLLVM.so"] {
        script.push_str(&format!("  {}\n", libraries.join(shared).display()));
    }
    script.push_str(")\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("libMLIR-C.so"), script).map_err(|error| format!("{}: {error}", out.display()))?;
    println!("cargo:rustc-link-search=native={}", out.display());
    Ok(())
}
