//! Where fetched models and reference outputs lie on this machine.
//!
//! `tools/fetch-models` fills the cache from `models.toml`. Nothing here downloads: a test whose model is absent says so
//! and passes, so that the suite runs on a machine without a network.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One entry of `models.toml`, as far as tests read it.
#[derive(Deserialize, Clone, Debug)]
pub struct Entry {
    /// `cnn`, `encoder`, `audio`, `tiny`, `quant`, `llm`, `suite` or `data`.
    pub kind: String,
    /// Hash over all files, which names the folder.
    pub tree: String,
    /// SHA-256 of each file; empty for suites.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// The folder of this crate in the repository.
pub fn tests_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `$TCC_CACHE_DIR`, or `tcc` in the user's cache folder.
pub fn cache_folder() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TCC_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("tcc")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/tcc")))
        .unwrap_or_else(|| env::temp_dir().join("tcc"))
}

/// The table of models.
///
/// # Errors
/// `models.toml` is missing or damaged.
pub fn entries() -> Result<BTreeMap<String, Entry>, String> {
    let text =
        std::fs::read_to_string(tests_folder().join("models.toml")).map_err(|error| error.to_string())?;
    toml::from_str(&text).map_err(|error| format!("models.toml: {error}"))
}

/// The cached folder of the entry `name`.
///
/// # Errors
/// No entry has this name, or it was not fetched; the message is what a skipped test prints.
pub fn folder(name: &str) -> Result<PathBuf, String> {
    let entries = entries()?;
    let entry = entries.get(name).ok_or_else(|| format!("models.toml has no entry {name}"))?;
    let key =
        entry.tree.get(..12).ok_or_else(|| format!("models.toml: the tree hash of {name} is too short"))?;
    let folder = cache_folder().join("models").join(format!("{name}-{key}"));
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(format!("{name} was not fetched: run tools/fetch-models {name}"))
    }
}

/// The path of `ENTRY/FILE`, where `derived` stands for the models that `tools/ort-reference` writes.
///
/// # Errors
/// As [`folder`], and where the file is missing.
pub fn file(name: &str) -> Result<PathBuf, String> {
    let (entry, rest) = name.split_once('/').ok_or_else(|| format!("{name} is not ENTRY/FILE"))?;
    if entry == "derived" {
        let path = cache_folder().join("models/derived").join(rest);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("{name} is absent: run tools/ort-reference --derive"))
        };
    }
    let path = folder(entry)?.join(rest);
    if path.is_file() { Ok(path) } else { Err(format!("{entry} has no file {rest}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_names_a_folder() {
        for (name, entry) in entries().unwrap() {
            assert_eq!(entry.tree.len(), 64, "{name}");
            assert!(entry.files.values().all(|hash| hash.len() == 64), "{name}");
        }
    }

    #[test]
    fn what_is_absent_says_how_to_get_it() {
        assert!(folder("no-such-model").unwrap_err().contains("no-such-model"));
        assert!(file("derived/none.onnx").unwrap_err().contains("ort-reference"));
    }
}
