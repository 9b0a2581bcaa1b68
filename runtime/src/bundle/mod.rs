//! Bundles: a compiled program in one file.
//!
//! A bundle holds the manifest, the kernels as relocatable ELF objects (see [`crate::code`]; no linker and no dynamic
//! loader takes part), and the weights at addresses that can be mapped. Loading checks the hash of everything that
//! it reads, maps the weights and copies nothing of them. A bundle is native code: the hashes guard against damage,
//! not against malice, so load only what you would run as a program. The file must stay as it is while it is in use.

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

/// A bundle that was read and checked, whose code has not been loaded.
pub struct Bundle {
    manifest: Manifest,
    sections: Vec<Section>,
    code: Vec<Vec<u8>>,
    weights: Vec<WeightData>,
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
        let of_kind = |kind| sections.iter().filter(move |section| section.kind == kind);
        let content = |section: &Section| &bytes[section.range.start as usize..section.range.end as usize];
        for kind in [SectionKind::Manifest, SectionKind::Weights, SectionKind::Library] {
            let count = of_kind(kind).count();
            if count > 1 || (count == 0 && kind == SectionKind::Manifest) {
                return Err(Error::damaged("section table", format!("{count} sections `{}`", kind.name())));
            }
        }
        let checked = |section: &Section| -> Result<Vec<u8>> {
            let copy = content(section).to_vec();
            section.check(&copy)?;
            Ok(copy)
        };
        let mut manifest = None;
        for section in of_kind(SectionKind::Manifest) {
            manifest = Some(parse_manifest(&checked(section)?)?);
        }
        let manifest = manifest.ok_or_else(|| Error::damaged("section table", "no manifest"))?;
        let code = of_kind(SectionKind::Code).map(checked).collect::<Result<Vec<_>>>()?;
        check_code_hash(&manifest, &code)?;
        let weights_range =
            of_kind(SectionKind::Weights).map(|section| section.range.clone()).next().unwrap_or(0..0);
        let mut weights = Vec::with_capacity(manifest.weights.len());
        for (index, blob) in manifest.weights.iter().enumerate() {
            let start = weights_range.start.checked_add(blob.offset);
            let end =
                start.and_then(|start| start.checked_add(blob.bytes)).filter(|end| *end <= weights_range.end);
            let data = match (start, end) {
                (Some(start), Some(end)) => {
                    WeightData::new(Arc::clone(&source), start as usize..end as usize)
                }
                _ => None,
            };
            weights.push(data.ok_or_else(|| {
                let field = format!("weights[{index}] (`{}`)", blob.name);
                Error::damaged(field, format!("{} bytes at {} leave the weights", blob.bytes, blob.offset))
            })?);
        }
        manifest.validate()?;
        Ok(Bundle { manifest, sections, code, weights, source })
    }

    /// What the program is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The section table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The objects with kernels.
    pub fn code(&self) -> &[Vec<u8>] {
        &self.code
    }

    /// The data of each of the manifest's weights.
    pub fn weights(&self) -> &[WeightData] {
        &self.weights
    }

    /// The object for linking into another program, after a check of its hash.
    pub fn library(&self) -> Result<Option<&[u8]>> {
        let Some(section) = self.sections.iter().find(|section| section.kind == SectionKind::Library) else {
            return Ok(None);
        };
        let bytes = &(*self.source).as_ref()[section.range.start as usize..section.range.end as usize];
        section.check(bytes)?;
        Ok(Some(bytes))
    }

    /// Reads all weights and compares their hashes.
    pub fn verify_weights(&self) -> Result<()> {
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
    pub fn load(self, options: &LoadOptions) -> Result<Executable> {
        cpu::check(&self.manifest.target)?;
        if options.verify_weights {
            self.verify_weights()?;
        }
        let registry = options.registry.clone().unwrap_or_default();
        let program = Program::link(self.manifest, &self.code, self.weights)?;
        // SAFETY: the compiler wrote manifest and code together, which their hashes confirm, and its kernels keep the
        // contract; the program owns the images that the kernels are in.
        unsafe { Executable::from_program_with(program, &registry) }
    }
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
