//! Bundles: a compiled program in one file.
//!
//! A bundle holds the manifest, the kernels as relocatable ELF objects (see [`crate::code`]; no linker and no dynamic
//! loader takes part), and the weights at addresses that can be mapped. Loading checks the hash of everything that
//! it reads, maps the weights and copies nothing of them. A bundle is native code: the hashes guard against damage,
//! not against malice, so load only what you would run as a program. The file must stay as it is while it is in use.
//!
//! A bundle may hold several entries, each with a manifest and code of its own, over one set of weights: blobs of equal
//! contents are stored once, whichever entries use them.

pub mod format;
mod writer;

use crate::error::{Error, Result};
use crate::host::Registry;
use crate::manifest::Manifest;
use crate::program::{Executable, Program, WeightData, cpu};
use format::{Section, SectionKind};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
pub use writer::BundleWriter;

/// How to load a bundle.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Reads all weights and checks their hashes, too. Without this a changed weight goes unnoticed.
    pub verify_weights: bool,
    /// Host functions; the built-in ones when absent.
    pub registry: Option<Registry>,
}

/// The bytes of a bundle, shared with the weights.
type Source = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One program of a bundle.
pub struct Entry {
    manifest: Manifest,
    code: Vec<Vec<u8>>,
    weights: Vec<WeightData>,
}

impl Entry {
    /// What the program is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The objects with kernels.
    pub fn code(&self) -> &[Vec<u8>] {
        &self.code
    }

    /// The data of each of the manifest's weights.
    pub fn weights(&self) -> &[WeightData] {
        &self.weights
    }

    /// Reads all weights and compares their hashes.
    fn verify_weights(&self) -> Result<()> {
        for (index, (blob, data)) in self.manifest.weights.iter().zip(&self.weights).enumerate() {
            let field = || format!("weights[{index}] (`{}`)", blob.name);
            let Some(expected) = &blob.hash else {
                return Err(Error::damaged(field(), "it has no hash"));
            };
            if blake3::hash(data.bytes()).to_hex().as_str() != expected {
                return Err(Error::damaged(field(), "its hash does not match"));
            }
        }
        Ok(())
    }

    /// Loads the code, for this machine only.
    pub fn load(&self, options: &LoadOptions) -> Result<Executable> {
        cpu::check(&self.manifest.target)?;
        if options.verify_weights {
            self.verify_weights()?;
        }
        let registry = options.registry.clone().unwrap_or_default();
        let program = Program::link(self.manifest.clone(), &self.code, self.weights.clone())?;
        // SAFETY: the compiler wrote manifest and code together, which their hashes confirm, and its kernels keep the
        // contract; the program owns the images that the kernels are in.
        unsafe { Executable::from_program_with(program, &registry) }
    }
}

/// A bundle that was read and checked, whose code has not been loaded.
pub struct Bundle {
    /// At least one.
    entries: Vec<Entry>,
    sections: Vec<Section>,
    source: Source,
}

impl Bundle {
    /// Maps a file and checks it. Works for programs of any machine.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(Error::NotABundle { reason: "it is not a regular file".into() });
        }
        if metadata.len() == 0 {
            return Err(Error::NotABundle { reason: "the file is empty".into() });
        }
        // SAFETY: that the file stays as it is while it is in use is a documented condition; what decides about code
        // and sizes is copied before it is checked.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        Self::from_source(Arc::new(map))
    }

    /// Reads a bundle in memory. The weights are used where they are.
    pub fn from_source(source: Source) -> Result<Self> {
        let bytes = (*source).as_ref();
        let sections = format::decode(bytes)?;
        let count = |kind| sections.iter().filter(|section: &&Section| section.kind == kind).count();
        for kind in [SectionKind::Weights, SectionKind::Library, SectionKind::Metadata] {
            if count(kind) > 1 {
                return Err(Error::damaged(
                    "section table",
                    format!("{} sections `{}`", count(kind), kind.name()),
                ));
            }
        }
        let number = count(SectionKind::Manifest);
        let in_order = sections.iter().filter(|section| section.kind == SectionKind::Manifest);
        let in_order = in_order.zip(0..).all(|(section, expected)| section.entry == expected);
        if number == 0 || !in_order || sections.iter().any(|section| section.entry as usize >= number) {
            return Err(Error::damaged(
                "section table",
                format!("{number} manifests that do not fit the entries"),
            ));
        }
        let mut entries = Vec::with_capacity(number);
        for entry in 0..number as u32 {
            entries.push(read_entry(&source, &sections, entry)?);
        }
        check_names(entries.iter().map(|entry: &Entry| &entry.manifest))?;
        Ok(Bundle { entries, sections, source })
    }

    /// The programs, at least one.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The program of this name.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.iter().find(|entry| entry.manifest.entry == name).ok_or_else(|| {
            let names: Vec<&str> = self.entries.iter().map(|entry| entry.manifest.entry.as_str()).collect();
            Error::NoEntry { entry: name.to_owned(), names: names.join(", ") }
        })
    }

    /// What the first program is.
    pub fn manifest(&self) -> &Manifest {
        &self.entries[0].manifest
    }

    /// The section table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The objects with kernels of the first program.
    pub fn code(&self) -> &[Vec<u8>] {
        &self.entries[0].code
    }

    /// The data of each weight of the first program.
    pub fn weights(&self) -> &[WeightData] {
        &self.entries[0].weights
    }

    /// The object for linking into another program, after a check of its hash.
    pub fn library(&self) -> Result<Option<&[u8]>> {
        self.extra(SectionKind::Library)
    }

    /// What the writer wanted to find again, after a check of its hash.
    pub fn metadata(&self) -> Result<Option<&[u8]>> {
        self.extra(SectionKind::Metadata)
    }

    /// The contents of a section that loading does not read.
    fn extra(&self, kind: SectionKind) -> Result<Option<&[u8]>> {
        let Some(section) = self.sections.iter().find(|section| section.kind == kind) else {
            return Ok(None);
        };
        let bytes = &(*self.source).as_ref()[section.range.start as usize..section.range.end as usize];
        section.check(bytes)?;
        Ok(Some(bytes))
    }

    /// Reads all weights of all programs and compares their hashes.
    pub fn verify_weights(&self) -> Result<()> {
        self.entries.iter().try_for_each(Entry::verify_weights)
    }

    /// Loads the code of the first program, for this machine only.
    pub fn load(self, options: &LoadOptions) -> Result<Executable> {
        self.entries[0].load(options)
    }

    /// Loads the code of the program of this name, for this machine only.
    pub fn load_entry(&self, name: &str, options: &LoadOptions) -> Result<Executable> {
        self.entry(name)?.load(options)
    }
}

/// Reads and checks the sections of one entry.
fn read_entry(source: &Source, sections: &[Section], entry: u32) -> Result<Entry> {
    let bytes = (**source).as_ref();
    let of_kind =
        |kind| sections.iter().filter(move |section| section.kind == kind && section.entry == entry);
    let checked = |section: &Section| -> Result<Vec<u8>> {
        let copy = bytes[section.range.start as usize..section.range.end as usize].to_vec();
        section.check(&copy)?;
        Ok(copy)
    };
    let manifest = of_kind(SectionKind::Manifest).next();
    let manifest = manifest.ok_or_else(|| Error::damaged("section table", "no manifest"))?;
    let manifest = parse_manifest(&checked(manifest)?)?;
    let code = of_kind(SectionKind::Code).map(checked).collect::<Result<Vec<_>>>()?;
    check_code_hash(&manifest, &code)?;
    let weights_range = sections.iter().find(|section| section.kind == SectionKind::Weights);
    let weights_range = weights_range.map_or(0..0, |section| section.range.clone());
    let mut weights = Vec::with_capacity(manifest.weights.len());
    for (index, blob) in manifest.weights.iter().enumerate() {
        let start = weights_range.start.checked_add(blob.offset);
        let end = start
            .and_then(|start| start.checked_add(blob.stored_bytes()))
            .filter(|end| *end <= weights_range.end);
        let data = match (start, end) {
            (Some(start), Some(end)) => WeightData::new(Arc::clone(source), start as usize..end as usize),
            _ => None,
        };
        weights.push(data.ok_or_else(|| {
            let field = format!("weights[{index}] (`{}`)", blob.name);
            Error::damaged(
                field,
                format!("{} bytes at {} leave the weights", blob.stored_bytes(), blob.offset),
            )
        })?);
    }
    manifest.validate()?;
    Ok(Entry { manifest, code, weights })
}

/// Entries have different names.
fn check_names<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Result<()> {
    let mut names = std::collections::BTreeSet::new();
    for manifest in manifests {
        if !names.insert(&manifest.entry) {
            return Err(Error::manifest("entry", format!("two programs are entry `{}`", manifest.entry)));
        }
    }
    Ok(())
}

impl Executable {
    /// Loads a bundle from a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(path, &LoadOptions::default())
    }

    /// Loads a bundle from a file.
    pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Bundle::open(path)?.load(options)
    }
}

/// A manifest from JSON, not yet validated.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    // The version decides how the rest is to be understood, so it is looked at alone first.
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let fail = |error: serde_json::Error| Error::manifest("JSON", error.to_string());
    let Version { format } = serde_json::from_slice(bytes).map_err(fail)?;
    if format != crate::manifest::FORMAT_VERSION {
        let supported = crate::manifest::FORMAT_VERSION;
        return Err(Error::Version { what: "manifest", found: format, supported });
    }
    serde_json::from_slice(bytes).map_err(fail)
}

/// Hash of all code sections one after the other.
fn code_hash(code: &[Vec<u8>]) -> String {
    let mut hasher = blake3::Hasher::new();
    code.iter().for_each(|object| {
        hasher.update(object);
    });
    hasher.finalize().to_hex().to_string()
}

fn check_code_hash(manifest: &Manifest, code: &[Vec<u8>]) -> Result<()> {
    if manifest.hashes.code.as_deref() != Some(&code_hash(code)) {
        return Err(Error::damaged("code", "it is not the code that the manifest describes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
