//! Shared libraries: what a static library has inside, linked by the C compiler of the system into `libNAME.so`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::StaticLibraryError;
use super::name::LibraryName;
use crate::error::Error;

/// The compiler that links: `$CC`, else `cc`.
fn compiler() -> String {
    std::env::var("CC").ok().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "cc".to_string())
}

/// Links an archive into a shared library and returns its bytes. What programs see of it are the functions of the runtime
/// and the model.
pub(super) fn link(archive: &[u8], name: &LibraryName) -> Result<Vec<u8>, Error> {
    let fail = |reason: String| Error::from(StaticLibraryError::Link(reason));
    let folder = tempfile::tempdir().map_err(|error| fail(format!("a temporary folder: {error}")))?;
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).map_err(|source| io(path, source));
    let (input, exports, output) = (file("model.a"), file("exports"), file("model.so"));
    write(&input, archive)?;
    let prefix = name.prefix();
    write(&exports, format!("{{ global: tcc_*; {prefix}_program; local: *; }};\n").as_bytes())?;
    let program = compiler();
    let linked = Command::new(&program)
        .arg("-shared")
        .arg("-o")
        .arg(&output)
        .args(["-Wl,--whole-archive"])
        .arg(&input)
        .arg("-Wl,--no-whole-archive")
        .arg(format!("-Wl,--version-script={}", exports.display()))
        .arg(format!("-Wl,-soname,lib{}.so", name.stem()))
        .args(["-Wl,--gc-sections", "-Wl,-Bsymbolic", "-Wl,--build-id=none", "-Wl,-z,noexecstack"])
        .args(["-lm", "-lpthread", "-ldl"])
        .output()
        .map_err(|error| fail(format!("the C compiler {program} that links it does not start: {error}")))?;
    if !linked.status.success() {
        let message = String::from_utf8_lossy(&linked.stderr);
        return Err(fail(format!("{program} does not link it: {}", message.trim())));
    }
    std::fs::read(&output).map_err(|source| io(&output, source))
}
