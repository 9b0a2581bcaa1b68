//! Writes bundles.

use super::format::{Section, SectionKind, encode, lay_out};
use super::{check_names, code_hash};
use crate::error::{Error, Result};
use crate::manifest::{ALIGNMENT, Manifest};
use crate::program::WeightData;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// Collects the parts of a bundle and writes them. The same parts give the same bytes.
#[derive(Debug)]
pub struct BundleWriter {
    /// Finished entries, then the one that parts are added to.
    entries: Vec<Parts>,
    library: Option<Vec<u8>>,
    metadata: Option<Vec<u8>>,
}

/// What belongs to one entry.
#[derive(Debug)]
struct Parts {
    manifest: Manifest,
    code: Vec<Vec<u8>>,
    weights: Vec<WeightData>,
}

impl Parts {
    fn new(manifest: Manifest) -> Self {
        Parts { manifest, code: Vec::new(), weights: Vec::new() }
    }
}

/// A blob of the weights section.
struct Blob {
    data: WeightData,
    offset: u64,
}

impl BundleWriter {
    /// A bundle of this manifest, whose weight offsets and hashes are filled in by the writer.
    pub fn new(manifest: Manifest) -> Self {
        BundleWriter { entries: vec![Parts::new(manifest)], library: None, metadata: None }
    }

    /// Starts a further entry, to which what is added next belongs. Entries have different names.
    pub fn entry(mut self, manifest: Manifest) -> Self {
        self.entries.push(Parts::new(manifest));
        self
    }

    /// Adds a relocatable object that defines kernels. Kernels of several objects may not call each other.
    pub fn code(mut self, object: Vec<u8>) -> Self {
        self.current().code.push(object);
        self
    }

    /// Adds what the caller wants to find again with [`Bundle::metadata`](super::Bundle::metadata).
    pub fn metadata(mut self, bytes: Vec<u8>) -> Self {
        self.metadata = Some(bytes);
        self
    }

    /// Adds the relocatable object for linking into other programs.
    pub fn library(mut self, object: Vec<u8>) -> Self {
        self.library = Some(object);
        self
    }

    /// Adds the data of the next weight of the manifest.
    pub fn weight(mut self, data: impl Into<WeightData>) -> Self {
        self.current().weights.push(data.into());
        self
    }

    fn current(&mut self) -> &mut Parts {
        let last = self.entries.len() - 1;
        &mut self.entries[last]
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
        check_names(self.entries.iter().map(|entry| &entry.manifest))?;
        let (blobs, weights_bytes) = self.place_weights()?;
        // Every section but the weights: kind, entry and contents.
        let mut parts: Vec<(SectionKind, u32, Vec<u8>)> = Vec::new();
        for (number, entry) in (0u32..).zip(&mut self.entries) {
            entry.manifest.hashes.code = Some(code_hash(&entry.code));
            entry.manifest.validate()?;
            let manifest = serde_json::to_vec(&entry.manifest)
                .map_err(|error| Error::manifest("JSON", format!("cannot be written: {error}")))?;
            parts.push((SectionKind::Manifest, number, manifest));
            let code = std::mem::take(&mut entry.code).into_iter();
            parts.extend(code.map(|object| (SectionKind::Code, number, object)));
        }
        parts.extend(self.library.take().map(|object| (SectionKind::Library, 0, object)));
        parts.extend(self.metadata.take().map(|bytes| (SectionKind::Metadata, 0, bytes)));
        let mut lengths: Vec<(SectionKind, u64)> =
            parts.iter().map(|(kind, _, bytes)| (*kind, bytes.len() as u64)).collect();
        if !blobs.is_empty() {
            lengths.push((SectionKind::Weights, weights_bytes));
        }
        if lengths.len() > super::format::MAX_SECTIONS {
            return Err(Error::manifest("code", format!("{} sections are too many", lengths.len())));
        }
        let (starts, file_length) = lay_out(&lengths);
        let mut sections = Vec::with_capacity(lengths.len());
        let mut described = parts.iter().map(|(_, entry, bytes)| (*entry, blake3::hash(bytes)));
        for (&(kind, length), &start) in lengths.iter().zip(&starts) {
            let (entry, hash) = described.next().unwrap_or_else(|| (0, weights_hash(&blobs)));
            sections.push(Section { kind, entry, range: start..start + length, hash: *hash.as_bytes() });
        }

        let mut out = Counted { out, position: 0 };
        out.write_all(&encode(&sections, file_length)).map_err(&fail)?;
        for ((_, _, bytes), section) in parts.iter().zip(&sections) {
            out.pad_to(section.range.start).map_err(&fail)?;
            out.write_all(bytes).map_err(&fail)?;
        }
        if let Some(section) = sections.iter().find(|section| section.kind == SectionKind::Weights) {
            out.pad_to(section.range.start).map_err(&fail)?;
            weights_pieces(&blobs, |piece| out.write_all(piece)).map_err(&fail)?;
        }
        out.flush().map_err(&fail)
    }

    /// Gives every weight its offset and hash. Returns the blobs of the section, those of equal contents once, and the
    /// length of the section.
    fn place_weights(&mut self) -> Result<(Vec<Blob>, u64)> {
        let mut blobs: Vec<Blob> = Vec::new();
        let mut known: HashMap<blake3::Hash, usize> = HashMap::new();
        // A shared blob is aligned for the one that needs most.
        let mut alignments: Vec<u64> = Vec::new();
        let mut numbers = Vec::new();
        for entry in &mut self.entries {
            let (listed, given) = (entry.manifest.weights.len(), entry.weights.len());
            if listed != given {
                return Err(Error::manifest(
                    "weights",
                    format!("lists {listed} weights, {given} were given"),
                ));
            }
            for (index, (blob, data)) in entry.manifest.weights.iter_mut().zip(&entry.weights).enumerate() {
                if data.bytes().len() as u64 != blob.stored_bytes() {
                    let field = format!("weights[{index}] (`{}`)", blob.name);
                    let reason =
                        format!("has {} bytes, {} were given", blob.stored_bytes(), data.bytes().len());
                    return Err(Error::manifest(field, reason));
                }
                let hash = blake3::hash(data.bytes());
                blob.hash = Some(hash.to_hex().to_string());
                let number = *known.entry(hash).or_insert_with(|| {
                    blobs.push(Blob { data: data.clone(), offset: 0 });
                    alignments.push(ALIGNMENT);
                    blobs.len() - 1
                });
                alignments[number] = alignments[number].max(u64::from(blob.alignment));
                numbers.push(number);
            }
        }
        let mut end = 0u64;
        for (blob, alignment) in blobs.iter_mut().zip(alignments) {
            blob.offset = end.next_multiple_of(alignment.max(1));
            end = blob.offset + blob.data.bytes().len() as u64;
        }
        let described = self.entries.iter_mut().flat_map(|entry| &mut entry.manifest.weights);
        described.zip(numbers).for_each(|(blob, number)| blob.offset = blobs[number].offset);
        Ok((blobs, end))
    }
}

/// Calls `write` with the bytes of the weights section, piece by piece.
fn weights_pieces<E>(blobs: &[Blob], mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = 0;
    for blob in blobs {
        // No alignment exceeds a page, so neither does the gap.
        write(&ZEROS[..(blob.offset - end) as usize])?;
        write(blob.data.bytes())?;
        end = blob.offset + blob.data.bytes().len() as u64;
    }
    Ok(())
}

fn weights_hash(blobs: &[Blob]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let done: Result<(), std::convert::Infallible> = weights_pieces(blobs, |piece| {
        hasher.update(piece);
        Ok(())
    });
    match done {
        Ok(()) => hasher.finalize(),
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
