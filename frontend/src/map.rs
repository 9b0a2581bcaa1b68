//! Read-only memory maps of model files.

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::path::Path;

/// Maps a regular file into memory; slices of the result share the map and keep it alive.
///
/// # Errors
/// The path does not exist, is unreadable, or is no regular file (a pipe or a device has no length to check
/// declared sizes against, and could block for ever).
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is private and read-only. Another process may still change or truncate the file under it;
    // like every reader that maps its weights, we rely on model files to be left alone while they are in use.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file)? };
    Ok(Bytes::from_owner(map))
}
