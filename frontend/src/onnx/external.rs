//! External tensor data, confined to the folder of the model.

use super::error::ExternalError;
use super::proto::StringStringEntryProto;
use crate::map::map_file;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The files beside a model, each mapped once.
#[derive(Debug, Default)]
pub struct ExternalFiles {
    /// Canonical path of the model's folder; `None` when the model came from memory.
    folder: Option<PathBuf>,
    maps: RefCell<HashMap<String, Bytes>>,
}

impl ExternalFiles {
    /// Files of the given folder.
    ///
    /// # Errors
    /// The folder cannot be resolved.
    pub fn in_folder(folder: &Path) -> std::io::Result<Self> {
        Ok(ExternalFiles { folder: Some(folder.canonicalize()?), maps: RefCell::default() })
    }

    /// The bytes that the `external_data` entries of a tensor name, and how many are expected where the entries
    /// do not say. An optional SHA-1 `checksum` is not verified.
    ///
    /// # Errors
    /// The location leaves the folder (`..`, absolute, through a symbolic link), the file is unreadable, or the
    /// range is not inside the file.
    pub fn read(&self, entries: &[StringStringEntryProto], expected: u64) -> Result<Bytes, ExternalError> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key() == key).map(|entry| entry.value());
        let number = |key: &'static str, default: u64| match entry(key) {
            None => Ok(default),
            Some(text) => {
                text.trim().parse().map_err(|_| ExternalError::Number { key, text: text.to_owned() })
            }
        };
        let location = entry("location").ok_or(ExternalError::NoLocation)?;
        let offset = number("offset", 0)?;
        let length = number("length", expected)?;
        let file = self.map(location)?;
        let file_length = file.len() as u64;
        match offset.checked_add(length) {
            Some(end) if end <= file_length => Ok(file.slice(offset as usize..end as usize)),
            _ => Err(ExternalError::Range { location: location.to_owned(), offset, length, file_length }),
        }
    }

    fn map(&self, location: &str) -> Result<Bytes, ExternalError> {
        if let Some(map) = self.maps.borrow().get(location) {
            return Ok(map.clone());
        }
        let folder = self.folder.as_ref().ok_or(ExternalError::NoFolder)?;
        let outside = || ExternalError::Outside { location: location.to_owned() };
        let relative = Path::new(location);
        let confined =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !confined || location.is_empty() {
            return Err(outside());
        }
        let refused = |source| ExternalError::Read { location: location.to_owned(), source };
        // The canonical path has no links left, so a prefix test on it is a test of where the bytes are.
        let path = folder.join(relative).canonicalize().map_err(refused)?;
        if !path.starts_with(folder) {
            return Err(outside());
        }
        let map = map_file(&path).map_err(refused)?;
        self.maps.borrow_mut().insert(location.to_owned(), map.clone());
        Ok(map)
    }
}
