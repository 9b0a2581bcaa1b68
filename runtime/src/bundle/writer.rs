//! Writes bundles.

use super::code_hash;
use super::format::{Section, SectionKind, encode, lay_out};
use crate::error::{Error, Result};
use crate::manifest::{ALIGNMENT, Manifest};
use crate::program::WeightData;
use std::io::Write;
use std::path::Path;

/// Collects the parts of a bundle and writes them. The same parts give the same bytes.
#[derive(Debug)]
pub struct BundleWriter {
    manifest: Manifest,
    code: Vec<Vec<u8>>,
    library: Option<Vec<u8>>,
    weights: Vec<WeightData>,
}

impl BundleWriter {
    /// A bundle of this manifest, whose weight offsets and hashes are filled in by the writer.
    pub fn new(manifest: Manifest) -> Self {
        BundleWriter { manifest, code: Vec::new(), library: None, weights: Vec::new() }
    }

    /// Adds a relocatable object that defines kernels. Kernels of several objects may not call each other.
    pub fn code(mut self, object: Vec<u8>) -> Self {
        self.code.push(object);
        self
    }

    /// Adds the relocatable object for linking into other programs.
    pub fn library(mut self, object: Vec<u8>) -> Self {
        self.library = Some(object);
        self
    }

    /// Adds the data of the next weight of the manifest.
    pub fn weight(mut self, data: impl Into<WeightData>) -> Self {
        self.weights.push(data.into());
        self
    }

    /// Writes the bundle: first under another name in the same folder, which then takes the place of `path` all at
    /// once. When anything fails, what was at `path` stays, and nothing else is left behind.
    pub fn write(self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let fail = |source| Error::Io { action: "write", path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".tcc-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What a plain new file gets: the user's mask applies.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(folder).map_err(fail)?;
        self.write_to(&mut std::io::BufWriter::with_capacity(1 << 20, file.as_file_mut()), fail)?;
        // A file system may report a full disk only now.
        file.as_file().sync_all().map_err(fail)?;
        file.persist(path).map_err(|error| fail(error.error))?;
        Ok(())
    }

    /// The bundle in memory.
    pub fn to_bytes(self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes, |source| Error::Io { action: "write", path: "memory".into(), source })?;
        Ok(bytes)
    }

    fn write_to(mut self, out: &mut impl Write, fail: impl Fn(std::io::Error) -> Error) -> Result<()> {
        let weights_bytes = self.describe_weights()?;
        self.manifest.hashes.code = Some(code_hash(&self.code));
        self.manifest.validate()?;
        let manifest = serde_json::to_vec(&self.manifest)
            .map_err(|error| Error::manifest("JSON", format!("cannot be written: {error}")))?;

        let mut parts = vec![(SectionKind::Manifest, manifest.len() as u64)];
        parts.extend(self.code.iter().map(|object| (SectionKind::Code, object.len() as u64)));
        parts.extend(self.library.iter().map(|object| (SectionKind::Library, object.len() as u64)));
        if !self.weights.is_empty() {
            parts.push((SectionKind::Weights, weights_bytes));
        }
        if parts.len() > super::format::MAX_SECTIONS {
            return Err(Error::manifest("code", format!("{} objects are too many", self.code.len())));
        }
        let (starts, file_length) = lay_out(&parts);
        let mut sections = Vec::with_capacity(parts.len());
        let contents = std::iter::once(&manifest).chain(&self.code).chain(&self.library);
        let mut hashes = contents.clone().map(|bytes| blake3::hash(bytes));
        for (&(kind, length), &start) in parts.iter().zip(&starts) {
            let hash = hashes.next().unwrap_or_else(|| self.weights_hash());
            sections.push(Section { kind, range: start..start + length, hash: *hash.as_bytes() });
        }

        let mut out = Counted { out, position: 0 };
        out.write_all(&encode(&sections, file_length)).map_err(&fail)?;
        for (bytes, section) in contents.zip(&sections) {
            out.pad_to(section.range.start).map_err(&fail)?;
            out.write_all(bytes).map_err(&fail)?;
        }
        if let Some(section) = sections.iter().find(|section| section.kind == SectionKind::Weights) {
            out.pad_to(section.range.start).map_err(&fail)?;
            self.weights_pieces(|piece| out.write_all(piece)).map_err(&fail)?;
        }
        out.flush().map_err(&fail)
    }

    /// Gives every weight its offset and hash, and returns the length of the section.
    fn describe_weights(&mut self) -> Result<u64> {
        if self.weights.len() != self.manifest.weights.len() {
            let reason =
                format!("lists {} weights, {} were given", self.manifest.weights.len(), self.weights.len());
            return Err(Error::manifest("weights", reason));
        }
        let mut end = 0u64;
        for (index, (blob, data)) in self.manifest.weights.iter_mut().zip(&self.weights).enumerate() {
            if data.bytes().len() as u64 != blob.bytes {
                let field = format!("weights[{index}] (`{}`)", blob.name);
                let reason = format!("has {} bytes, {} were given", blob.bytes, data.bytes().len());
                return Err(Error::manifest(field, reason));
            }
            blob.offset = end.next_multiple_of(u64::from(blob.alignment).max(ALIGNMENT));
            blob.hash = Some(blake3::hash(data.bytes()).to_hex().to_string());
            end = blob.offset + blob.bytes;
        }
        Ok(end)
    }

    /// Calls `write` with the bytes of the weights section, piece by piece.
    fn weights_pieces<E>(&self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut end = 0;
        for (blob, data) in self.manifest.weights.iter().zip(&self.weights) {
            // No alignment exceeds a page, so neither does the gap.
            write(&ZEROS[..(blob.offset - end) as usize])?;
            write(data.bytes())?;
            end = blob.offset + blob.bytes;
        }
        Ok(())
    }

    fn weights_hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let done: Result<(), std::convert::Infallible> = self.weights_pieces(|piece| {
            hasher.update(piece);
            Ok(())
        });
        match done {
            Ok(()) => hasher.finalize(),
        }
    }
}

/// A writer that knows how far it is.
struct Counted<'a, W> {
    out: &'a mut W,
    position: u64,
}

impl<W: Write> Counted<'_, W> {
    fn pad_to(&mut self, position: u64) -> std::io::Result<()> {
        let gap = position.saturating_sub(self.position) as usize;
        self.write_all(&vec![0; gap])
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
