//! The JSON header.

use super::error::SafetensorsError;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Name of the entry that is no tensor.
const METADATA: &str = "__metadata__";

/// One tensor as the header describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    /// First byte and the one behind the last, from the end of the header.
    pub(super) data_offsets: [u64; 2],
}

#[derive(Default)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: IndexMap<String, Entry>,
}

/// Reads a header; what it declares is bounded by its own length.
pub(super) fn read(bytes: &[u8]) -> Result<Header, SafetensorsError> {
    serde_json::from_slice(bytes).map_err(|error| SafetensorsError::Json(error.to_string()))
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Collects entries and refuses names that occur twice, of which a plain map would keep the last one.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                header.metadata = map.next_value()?;
                continue;
            }
            let entry = map.next_value()?;
            if header.tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("two tensors are called '{name}'")));
            }
            header.tensors.insert(name, entry);
        }
        Ok(header)
    }
}
