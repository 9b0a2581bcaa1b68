//! Why a static library cannot be written.

use std::path::PathBuf;

use super::LARGEST_WEIGHTS;

/// Why a static library cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StaticLibraryError {
    /// The file name gives no names for C.
    #[error("library '{name}': {reason}")]
    Name {
        /// The file name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A target whose programs are not linked as ELF objects.
    #[error("--emit staticlib: no static libraries for {arch}; known are x86_64, aarch64 and riscv64")]
    Machine {
        /// Architecture of the target.
        arch: String,
    },
    /// More weights than a linked program can reach.
    #[error(
        "--emit staticlib: {bytes} bytes of weights are more than the {LARGEST_WEIGHTS} that fit into a program; \
         write a bundle and load it with tcc_load"
    )]
    Weights {
        /// Size of all weights.
        bytes: u64,
    },
    /// The runtime as a C library is nowhere.
    #[error(
        "--emit staticlib needs the runtime as a C library, and libtcc_runtime_c.a is in none of {}; \
         build it with `cargo build --release -p tcc-runtime-c`, or name it with --runtime-library FILE",
        folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    RuntimeMissing {
        /// Where it could have been.
        folders: Vec<PathBuf>,
    },
    /// The file is not the runtime for this target.
    #[error("runtime library {}: {reason}", path.display())]
    Runtime {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Generated code that cannot be linked: a bug of tcc.
    #[error("static library: kernel object: {0}")]
    Object(String),
    /// A shared library cannot be linked.
    #[error("--emit so: {0}")]
    Link(String),
    /// The archive cannot be put together.
    #[error("static library: archive: {0}")]
    Archive(String),
}

impl StaticLibraryError {
    /// True where tcc itself is at fault.
    pub fn is_bug(&self) -> bool {
        matches!(self, StaticLibraryError::Object(_) | StaticLibraryError::Archive(_))
    }
}
