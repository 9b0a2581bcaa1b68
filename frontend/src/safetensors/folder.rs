//! Weights of a Hugging Face folder: one file, or several with an index.

use super::{Safetensors, SafetensorsError};
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Component, Path};
use tcc_ir::data::Data;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a folder.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Tensors by name.
    pub tensors: IndexMap<String, Data>,
}

impl Folder {
    /// Reads `model.safetensors`, or the files that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// Neither is there, the index leaves the folder or promises what its files do not have, or a file is refused.
    pub fn open(folder: &Path) -> Result<Folder, SafetensorsError> {
        if folder.join(SINGLE).is_file() {
            return Ok(Folder { tensors: file(folder, SINGLE)?.tensors });
        }
        if !folder.join(INDEX).is_file() {
            return Err(SafetensorsError::NoWeights);
        }
        let text = std::fs::read(folder.join(INDEX)).map_err(SafetensorsError::Io)?;
        let index: Value =
            serde_json::from_slice(&text).map_err(|error| SafetensorsError::Index(error.to_string()))?;
        let map = index.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| SafetensorsError::Index("'weight_map' is missing".into()))?;
        let mut places = Vec::with_capacity(map.len());
        for (name, shard) in map {
            let shard = shard.as_str();
            places
                .push((name, shard.ok_or_else(|| SafetensorsError::Index(format!("the file of '{name}'")))?));
        }
        let mut shards: IndexMap<&str, IndexMap<String, Data>> = IndexMap::new();
        for shard in places.iter().map(|(_, shard)| *shard).collect::<BTreeSet<_>>() {
            // A single normal component is a file name: no folder, no root, no `..`.
            let mut parts = Path::new(shard).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(SafetensorsError::Shard(shard.to_owned()));
            }
            shards.insert(shard, file(folder, shard)?.tensors);
        }
        let mut tensors = IndexMap::with_capacity(places.len());
        for (name, shard) in places {
            let missing = || SafetensorsError::Missing { name: name.clone(), file: shard.to_owned() };
            let tensor = shards.get(shard).and_then(|shard| shard.get(name)).ok_or_else(missing)?;
            tensors.insert(name.clone(), tensor.clone());
        }
        Ok(Folder { tensors })
    }
}

fn file(folder: &Path, name: &str) -> Result<Safetensors, SafetensorsError> {
    let path = folder.join(name);
    Safetensors::open(&path).map_err(|source| SafetensorsError::File { path, source: Box::new(source) })
}
