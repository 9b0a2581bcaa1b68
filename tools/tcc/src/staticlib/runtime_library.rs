//! The runtime as a C library, `libtcc_runtime_c.a`, whose members go into every static library.

use std::path::{Path, PathBuf};

use object::LittleEndian as LE;
use object::elf::FileHeader64;
use object::read::archive::ArchiveFile;
use object::read::elf::FileHeader;

use super::StaticLibraryError;
use super::linked::Machine;
use crate::error::Error;

/// File name of the runtime as a C library, as Cargo writes it.
const FILE_NAME: &str = "libtcc_runtime_c.a";

/// The function of the runtime that a static library calls.
const ENTRY: &[u8] = b"tcc_load_linked";

/// The runtime as a C library.
#[derive(Debug)]
pub struct RuntimeLibrary {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl RuntimeLibrary {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<RuntimeLibrary, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(RuntimeLibrary { path: path.to_owned(), bytes })
    }

    /// Finds the library of this installation: beside the running program, in `../lib` of its folder, or, in a build
    /// folder of Cargo, in `deps` below or in the folder above.
    pub fn find() -> Result<RuntimeLibrary, Error> {
        let program = std::env::current_exe()
            .map_err(|source| Error::Io { path: PathBuf::from("the running program"), source })?;
        let folder = program.parent().unwrap_or(Path::new(".")).to_owned();
        let mut folders = vec![folder.clone(), folder.join("deps")];
        if let Some(above) = folder.parent() {
            folders.extend([above.join("lib"), above.to_owned()]);
        }
        match folders.iter().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file()) {
            Some(path) => RuntimeLibrary::open(&path),
            None => Err(StaticLibraryError::RuntimeMissing { folders }.into()),
        }
    }

    fn fail(&self, reason: impl Into<String>) -> StaticLibraryError {
        StaticLibraryError::Runtime { path: self.path.clone(), reason: reason.into() }
    }

    fn archive(&self) -> Result<ArchiveFile<'_>, StaticLibraryError> {
        let archive = ArchiveFile::parse(&*self.bytes).map_err(|error| self.fail(error.to_string()))?;
        if archive.is_thin() {
            return Err(self.fail("is a thin archive, whose members are elsewhere"));
        }
        Ok(archive)
    }

    /// Names and contents of all members.
    pub(super) fn members(&self) -> Result<Vec<(String, &[u8])>, StaticLibraryError> {
        let mut members = Vec::new();
        for member in self.archive()?.members() {
            let member = member.map_err(|error| self.fail(error.to_string()))?;
            let bytes = member.data(&*self.bytes).map_err(|error| self.fail(error.to_string()))?;
            members.push((String::from_utf8_lossy(member.name()).into_owned(), bytes));
        }
        Ok(members)
    }

    /// Checks that it is the runtime, new enough and for this architecture, `x86_64` or another that Rust names.
    pub fn check(&self, arch: &str) -> Result<(), StaticLibraryError> {
        let machine = Machine::of(arch)?;
        let symbols = self.archive()?.symbols().map_err(|error| self.fail(error.to_string()))?;
        let found = symbols.is_some_and(|mut symbols| {
            symbols.any(|symbol| symbol.is_ok_and(|symbol| symbol.name() == ENTRY))
        });
        if !found {
            let entry = String::from_utf8_lossy(ENTRY);
            return Err(self.fail(format!("has no {entry}: not the runtime of this version")));
        }
        for (member, bytes) in self.members()? {
            let header = FileHeader64::<LE>::parse(bytes)
                .map_err(|_| self.fail(format!("member {member} is not an ELF object of 64 bits")))?;
            if header.e_machine(LE) != machine.elf() {
                let needed = machine.name();
                let reason = format!("is not for {needed}; name one that is with --runtime-library FILE");
                return Err(self.fail(reason));
            }
        }
        Ok(())
    }
}
