//! Fuzzing of everything that reads a file. What a file says must never panic, hang or take memory that the file does not
//! justify; being refused is fine.
//!
//! A format is a [`Reader`] in a file of its own: seeds, a mutation that knows the structure, and what reads the result.
//! Two things drive it:
//!
//! - `TCC_FUZZ=3000 cargo test -p tcc-tests --test fuzz` runs as many mutated seeds of every reader, the same each time;
//! - `tests/fuzz` has a libFuzzer target for each reader, for nightly Rust and cargo-fuzz: `cargo fuzz run onnx`.
//!
//! A new format is one such file, its line in [`READERS`], and a target of three lines.

mod bundle;
mod gguf;
mod mutate;
mod onnx;
mod safetensors;
mod tir;

use arbitrary::{Result, Unstructured};

pub use mutate::{bytes, splice};

/// A format and what reads it.
pub struct Reader {
    /// Name of the format.
    pub name: &'static str,
    /// Files that are worth changing.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Changes a file in a way that keeps most of its structure.
    pub mutate: fn(&[u8], &mut Unstructured) -> Result<Vec<u8>>,
    /// Reads a file as far as it goes. Panics where a promise is broken.
    pub read: fn(&[u8]),
}

/// Every reader.
pub const READERS: &[Reader] =
    &[onnx::READER, gguf::READER, safetensors::READER, bundle::READER, tir::READER];

/// The most changes to one seed.
const MOST_CHANGES: usize = 4;

impl Reader {
    /// The reader of this name.
    ///
    /// # Panics
    ///
    /// If there is none: a fuzz target names one that does not exist.
    pub fn named(name: &str) -> &'static Reader {
        READERS.iter().find(|reader| reader.name == name).expect("a reader of this name")
    }

    /// The file that `choices` make of the seeds: most of the time one whose structure was changed, else one whose bytes were.
    pub fn file(&self, seeds: &[Vec<u8>], choices: &[u8]) -> Vec<u8> {
        let mut source = Unstructured::new(choices);
        self.changed(seeds, &mut source).unwrap_or_default()
    }

    fn changed(&self, seeds: &[Vec<u8>], source: &mut Unstructured) -> Result<Vec<u8>> {
        let mut file = source.choose(seeds)?.clone();
        for _ in 0..source.int_in_range(1..=MOST_CHANGES)? {
            file = match source.int_in_range(0..=7u8)? {
                0 => splice(&file, source.choose(seeds)?, source)?,
                1 | 2 => bytes(&file, source)?,
                _ => (self.mutate)(&file, source)?,
            };
            if source.is_empty() {
                break;
            }
        }
        Ok(file)
    }
}
