//! Checked access to the numbers of a configuration, whichever form it has.
//!
//! Sizes are bounded, so that products of a few of them cannot overflow, and positive; constants are finite.

use super::error::{LanguageModelError, Result};

/// The most that a single size may be.
const MAX_SIZE: u64 = 1 << 31;

/// One value of a configuration.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Entry {
    /// A number; the flag says that it is an integer.
    Number(f64, bool),
    /// A truth value.
    Truth(bool),
    /// Text.
    Text(String),
    /// Values.
    List(Vec<Entry>),
    /// An object, or something else that is no value.
    Other,
}

/// Looks a key up; `None` where it is missing or null.
type Lookup<'c> = dyn Fn(&str) -> Option<Entry> + 'c;

/// A configuration: values by key, and what messages call it.
pub(super) struct Values<'c> {
    /// `config.json`, or the metadata.
    pub(super) source_name: &'static str,
    /// The values.
    pub(super) get: Box<Lookup<'c>>,
}

impl Values<'_> {
    fn first(&self, keys: &[&str]) -> Option<(String, Entry)> {
        keys.iter().find_map(|key| Some(((*key).to_owned(), (self.get)(key)?)))
    }

    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> LanguageModelError {
        LanguageModelError::Value {
            source_name: self.source_name,
            key: key.to_owned(),
            reason: reason.into(),
        }
    }

    pub(super) fn missing(&self, keys: &[&str]) -> LanguageModelError {
        LanguageModelError::MissingValue { source_name: self.source_name, key: keys.join("' or '") }
    }

    fn entry_size(&self, key: &str, entry: &Entry, least: u64) -> Result<usize> {
        match entry {
            Entry::Number(value, true) if (least as f64..=MAX_SIZE as f64).contains(value) => {
                Ok(*value as usize)
            }
            other => {
                Err(self.refuse(key, format!("{other:?}, expected an integer from {least} to {MAX_SIZE}")))
            }
        }
    }

    /// A positive size under the first of these keys that is there.
    pub(super) fn size(&self, keys: &[&str]) -> Result<Option<usize>> {
        self.first(keys).map(|(key, entry)| self.entry_size(&key, &entry, 1)).transpose()
    }

    /// A count, which may be 0.
    pub(super) fn count(&self, keys: &[&str]) -> Result<Option<usize>> {
        self.first(keys).map(|(key, entry)| self.entry_size(&key, &entry, 0)).transpose()
    }

    /// A positive size that must be there.
    pub(super) fn required(&self, keys: &[&str]) -> Result<usize> {
        self.size(keys)?.ok_or_else(|| self.missing(keys))
    }

    /// A size for each of so many layers: a list of them, or one for all.
    pub(super) fn sizes(&self, keys: &[&str], layers: usize) -> Result<Option<Vec<usize>>> {
        let Some((key, entry)) = self.first(keys) else { return Ok(None) };
        match &entry {
            Entry::List(list) if list.len() == layers => {
                list.iter().map(|entry| self.entry_size(&key, entry, 1)).collect::<Result<_>>().map(Some)
            }
            Entry::List(list) => Err(self.refuse(&key, format!("{} values for {layers} layers", list.len()))),
            entry => Ok(Some(vec![self.entry_size(&key, entry, 1)?; layers])),
        }
    }

    /// A finite number.
    pub(super) fn number(&self, keys: &[&str]) -> Result<Option<f64>> {
        let Some((key, entry)) = self.first(keys) else { return Ok(None) };
        match entry {
            Entry::Number(value, _) if value.is_finite() => Ok(Some(value)),
            other => Err(self.refuse(&key, format!("{other:?}, expected a finite number"))),
        }
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, keys: &[&str]) -> Result<Option<f64>> {
        match self.number(keys)? {
            Some(value) if value <= 0.0 => {
                Err(self.refuse(&keys.join("' or '"), format!("{value}, expected more than 0")))
            }
            value => Ok(value),
        }
    }

    /// A truth value.
    pub(super) fn truth(&self, keys: &[&str]) -> Result<Option<bool>> {
        let Some((key, entry)) = self.first(keys) else { return Ok(None) };
        match entry {
            Entry::Truth(value) => Ok(Some(value)),
            other => Err(self.refuse(&key, format!("{other:?}, expected true or false"))),
        }
    }

    /// Text.
    pub(super) fn text(&self, keys: &[&str]) -> Result<Option<String>> {
        let Some((key, entry)) = self.first(keys) else { return Ok(None) };
        match entry {
            Entry::Text(value) => Ok(Some(value)),
            other => Err(self.refuse(&key, format!("{other:?}, expected text"))),
        }
    }

    /// A list.
    pub(super) fn list(&self, keys: &[&str]) -> Result<Option<Vec<Entry>>> {
        let Some((key, entry)) = self.first(keys) else { return Ok(None) };
        match entry {
            Entry::List(list) => Ok(Some(list)),
            other => Err(self.refuse(&key, format!("{other:?}, expected a list"))),
        }
    }

    /// A list of finite numbers.
    pub(super) fn numbers(&self, keys: &[&str]) -> Result<Option<Vec<f64>>> {
        let Some(list) = self.list(keys)? else { return Ok(None) };
        let numbers = list.iter().map(|entry| match entry {
            Entry::Number(value, _) if value.is_finite() => Ok(*value),
            other => Err(self.refuse(&keys.join("' or '"), format!("it holds {other:?}, expected numbers"))),
        });
        numbers.collect::<Result<_>>().map(Some)
    }
}
