//! The bytes of a bundle. All integers are little-endian.
//!
//! ```text
//! header, 64 bytes             section table, 64 bytes each       sections
//!   0  magic                     0  kind                             at multiples of 64, weights of 4096,
//!   8  version                   4  entry                            in the order of the table,
//!  12  number of sections        8  offset in the file               zeros between them,
//!  16  length of the file       16  length                           the last one ends the file
//!  24  zero                     24  zero
//!  32  BLAKE3 of header and     32  BLAKE3 of the section
//!      table, these 32 bytes
//!      taken as zeros
//! ```

use crate::error::{Error, Result};
use std::ops::Range;

/// First bytes of every bundle. The line end shows transfers in text mode.
pub const MAGIC: [u8; 8] = *b"tccBNDL\n";

/// Version of the layout above.
pub const BUNDLE_VERSION: u32 = 2;

/// Size of the header and of each entry of the table.
pub const ENTRY_BYTES: usize = 64;

/// Most sections that a bundle can have.
pub const MAX_SECTIONS: usize = 256;

const HASH_AT: usize = 32;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// The manifest of an entry as JSON; exactly one for each entry.
    Manifest = 1,
    /// A relocatable ELF object with kernels of an entry.
    Code = 2,
    /// The weights of all entries, each at its offset; at most one.
    Weights = 3,
    /// A relocatable ELF object to be linked into another program; never loaded; at most one.
    Library = 4,
    /// Whatever the program that wrote the bundle wants to find in it again, such as a tokenizer; at most one.
    Metadata = 5,
}

impl SectionKind {
    fn from_code(code: u32) -> Option<Self> {
        [
            SectionKind::Manifest,
            SectionKind::Code,
            SectionKind::Weights,
            SectionKind::Library,
            SectionKind::Metadata,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == code)
    }

    /// Name for messages.
    pub fn name(self) -> &'static str {
        match self {
            SectionKind::Manifest => "manifest",
            SectionKind::Code => "code",
            SectionKind::Weights => "weights",
            SectionKind::Library => "library",
            SectionKind::Metadata => "metadata",
        }
    }

    /// Alignment of the section in the file.
    pub fn alignment(self) -> u64 {
        if self == SectionKind::Weights { 4096 } else { ENTRY_BYTES as u64 }
    }
}

/// An entry of the section table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// The entry that it belongs to, counted from 0; 0 for what all share.
    pub entry: u32,
    /// Where it is in the file.
    pub range: Range<u64>,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

impl Section {
    /// Refuses bytes other than those that were written.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        if blake3::hash(bytes) != self.hash {
            return Err(Error::damaged(format!("section `{}`", self.kind.name()), "its hash does not match"));
        }
        Ok(())
    }
}

/// Lays out sections of these kinds and lengths one after the other. Returns where each starts and the length of the
/// file.
pub fn lay_out(sections: &[(SectionKind, u64)]) -> (Vec<u64>, u64) {
    let mut end = (ENTRY_BYTES * (1 + sections.len())) as u64;
    let mut starts = Vec::with_capacity(sections.len());
    for (kind, length) in sections {
        let start = end.next_multiple_of(kind.alignment());
        starts.push(start);
        end = start + length;
    }
    (starts, end)
}

/// The header and the table.
pub fn encode(sections: &[Section], file_length: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRY_BYTES * (1 + sections.len()));
    bytes.extend(MAGIC);
    bytes.extend(BUNDLE_VERSION.to_le_bytes());
    bytes.extend((sections.len() as u32).to_le_bytes());
    bytes.extend(file_length.to_le_bytes());
    bytes.resize(ENTRY_BYTES, 0);
    for section in sections {
        bytes.extend((section.kind as u32).to_le_bytes());
        bytes.extend(section.entry.to_le_bytes());
        bytes.extend(section.range.start.to_le_bytes());
        bytes.extend((section.range.end - section.range.start).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(section.hash);
    }
    let hash = blake3::hash(&bytes);
    bytes[HASH_AT..ENTRY_BYTES].copy_from_slice(hash.as_bytes());
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Reads and checks header and table of a file.
pub fn decode(file: &[u8]) -> Result<Vec<Section>> {
    if file.is_empty() {
        return Err(Error::NotABundle { reason: "the file is empty".into() });
    }
    if !file.starts_with(&MAGIC[..MAGIC.len().min(file.len())]) {
        return Err(Error::NotABundle { reason: "it does not start with the bundle's magic bytes".into() });
    }
    let Some(header) = file.get(..ENTRY_BYTES) else {
        return Err(Error::damaged("header", format!("{} bytes are left of {ENTRY_BYTES}", file.len())));
    };
    let (version, count) = (u32_at(header, 8), u32_at(header, 12) as usize);
    if version != BUNDLE_VERSION {
        return Err(Error::Version { what: "bundle", found: version, supported: BUNDLE_VERSION });
    }
    let length = u64_at(header, 16);
    if length != file.len() as u64 {
        return Err(Error::damaged(
            "header",
            format!("it declares {length} bytes, the file has {}", file.len()),
        ));
    }
    if count > MAX_SECTIONS {
        return Err(Error::damaged("header", format!("{count} sections, the limit is {MAX_SECTIONS}")));
    }
    let Some(head) = file.get(..ENTRY_BYTES * (1 + count)) else {
        return Err(Error::damaged("section table", "is truncated"));
    };
    // A copy, so that what is checked is what is used.
    let mut head = head.to_vec();
    let mut expected = [0; 32];
    expected.copy_from_slice(&head[HASH_AT..ENTRY_BYTES]);
    head[HASH_AT..ENTRY_BYTES].fill(0);
    if blake3::hash(&head) != expected {
        return Err(Error::damaged("header", "its hash does not match"));
    }
    let mut sections = Vec::with_capacity(count);
    let mut end = head.len() as u64;
    for (index, entry) in head[ENTRY_BYTES..].chunks_exact(ENTRY_BYTES).enumerate() {
        let field = || format!("section {index}");
        let Some(kind) = SectionKind::from_code(u32_at(entry, 0)) else {
            return Err(Error::damaged(field(), format!("kind {} is not known", u32_at(entry, 0))));
        };
        let (start, length) = (u64_at(entry, 8), u64_at(entry, 16));
        let Some(next) = start.checked_add(length).filter(|next| *next <= file.len() as u64) else {
            return Err(Error::damaged(field(), format!("{length} bytes at {start} leave the file")));
        };
        if start != end.next_multiple_of(kind.alignment()) {
            return Err(Error::damaged(field(), format!("it starts at {start}, not behind the one before")));
        }
        if file[end as usize..start as usize].iter().any(|&byte| byte != 0) {
            return Err(Error::damaged(field(), "the bytes before it are not zero"));
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(&entry[32..]);
        sections.push(Section { kind, entry: u32_at(entry, 4), range: start..next, hash });
        end = next;
    }
    if end != file.len() as u64 {
        return Err(Error::damaged(
            "section table",
            format!("{} bytes belong to no section", file.len() as u64 - end),
        ));
    }
    Ok(sections)
}
