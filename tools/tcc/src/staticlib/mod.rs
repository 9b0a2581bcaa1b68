//! Static libraries: `libNAME.a` and `NAME.h`, which a C program links with libc, libm and pthread and nothing else; the
//! same as a shared library (`shared`); and `NAME.rs`, with which a Rust program calls either (`module`).
//!
//! The archive holds
//!
//! 1. the objects with the kernels, whose symbols get the name of the library in front and are hidden, so that several
//!    models fit into one program (`symbols`);
//! 2. one object with the manifest, the weights and the table that binds them to the kernels (`linked`);
//! 3. the members of the runtime as a C library (`runtime_library`).
//!
//! Nothing is loaded or made executable when the program runs: the linker has done it. The same model gives the same
//! bytes.

mod error;
mod header;
mod linked;
mod module;
mod name;
mod runtime_library;
mod shared;
mod symbols;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use ar_archive_writer::{ArchiveKind, DEFAULT_OBJECT_READER, NewArchiveMember, write_archive_to_stream};

use crate::compile::Compiled;
use crate::error::Error;
use crate::output::write;
pub use error::StaticLibraryError;
use linked::Machine;
pub use name::LibraryName;
pub use runtime_library::RuntimeLibrary;

/// Weights beyond this do not go into a static library: code and constants of a program have to reach each other
/// within 2 GiB.
pub const LARGEST_WEIGHTS: u64 = 1 << 30;

/// What was written.
#[derive(Clone, Debug)]
pub struct Library {
    /// The archive or shared library.
    pub library: PathBuf,
    /// The header for C beside it.
    pub header: PathBuf,
    /// The module for Rust beside it.
    pub module: PathBuf,
}

impl Compiled {
    /// Writes a static library, or a shared one where `path` ends in `.so`, and beside it the header for C and the module
    /// for Rust, each all at once or not at all. `runtime` is the runtime as a C library for the target of this model.
    pub fn write_library(&self, path: &Path, runtime: &RuntimeLibrary) -> Result<Library, Error> {
        let name = LibraryName::of(path)?;
        let mut library = self.static_library(&name, runtime)?;
        if name.is_shared() {
            library = shared::link(&library, &name)?;
        }
        let written = Library {
            library: path.to_owned(),
            header: path.with_file_name(name.header_file()),
            module: path.with_file_name(name.module_file()),
        };
        write(&written.header, header::text(&self.manifest, &name).as_bytes())?;
        write(&written.module, module::text(&self.manifest, &name).as_bytes())?;
        write(&written.library, &library)?;
        Ok(written)
    }

    /// The bytes of the archive.
    fn static_library(
        &self,
        name: &LibraryName,
        runtime: &RuntimeLibrary,
    ) -> Result<Vec<u8>, StaticLibraryError> {
        let arch = &self.manifest.target.arch;
        runtime.check(arch)?;
        let machine = Machine::of(arch)?;
        let bytes: u64 = self.weights.iter().map(|weight| weight.len() as u64).sum();
        if bytes > LARGEST_WEIGHTS {
            return Err(StaticLibraryError::Weights { bytes });
        }

        let mut members = Vec::new();
        let mut add = |member: String, bytes: Vec<u8>| {
            members.push(NewArchiveMember::new(bytes, &DEFAULT_OBJECT_READER, member));
        };
        let mut kernels = symbols::Kernels::new(name.prefix());
        for (index, object) in self.objects.iter().enumerate() {
            let object = kernels.add(object, machine)?;
            add(format!("{}.kernels.{index}.o", name.prefix()), object);
        }
        let functions = self
            .manifest
            .kernels
            .iter()
            .map(|kernel| kernels.linked(&kernel.symbol))
            .collect::<Result<Vec<_>, _>>()?;
        let program = linked::object(&self.manifest, &self.weights, &functions, name.prefix(), machine)?;
        add(format!("{}.program.o", name.prefix()), program);
        for (member, bytes) in runtime.members()? {
            add(member, bytes.to_vec());
        }

        let mut archive = Cursor::new(Vec::new());
        write_archive_to_stream(&mut archive, &members, ArchiveKind::Gnu, false, None)
            .map_err(|error| StaticLibraryError::Archive(error.to_string()))?;
        Ok(archive.into_inner())
    }
}
