//! Static libraries: `libNAME.a` and `NAME.h`, which a C program links with libc, libm and pthread and nothing else.
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
mod name;
mod runtime_library;
mod symbols;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use ar_archive_writer::{ArchiveKind, DEFAULT_OBJECT_READER, NewArchiveMember, write_archive_to_stream};

use crate::compile::Compiled;
use crate::error::Error;
pub use error::StaticLibraryError;
use linked::Machine;
pub use name::LibraryName;
pub use runtime_library::RuntimeLibrary;

/// Weights beyond this do not go into a static library: code and constants of a program have to reach each other
/// within 2 GiB.
pub const LARGEST_WEIGHTS: u64 = 1 << 30;

/// What was written.
#[derive(Clone, Debug)]
pub struct StaticLibrary {
    /// The archive.
    pub library: PathBuf,
    /// The header beside it.
    pub header: PathBuf,
}

impl Compiled {
    /// Writes a static library to `path` and its header beside it, each all at once or not at all. `runtime` is the
    /// runtime as a C library for the target of this model.
    pub fn write_static_library(
        &self,
        path: &Path,
        runtime: &RuntimeLibrary,
    ) -> Result<StaticLibrary, Error> {
        let name = LibraryName::of(path)?;
        let archive = self.static_library(&name, runtime)?;
        let header = header::text(&self.manifest, &name);
        let written =
            StaticLibrary { library: path.to_owned(), header: path.with_file_name(name.header_file()) };
        replace(&written.header, header.as_bytes())?;
        replace(&written.library, &archive)?;
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

/// Writes a file under another name in the same folder, which then takes the place of `path`.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fail = |source| Error::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tcc-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What a plain new file gets: the user's mask applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    // A file system may report a full disk only now.
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}
