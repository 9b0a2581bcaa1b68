//! Tiny random language models, as files: made from the cases that `tools/language-model-reference` writes.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::Path;

use serde_json::{Value as Json, json};

/// A tensor in memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A model, with the logits that it has.
pub struct Case {
    pub json: Json,
    pub tensors: Vec<(String, Tensor)>,
}

/// Weights of a tensor: SplitMix64 on the FNV-1a hash of its name, 16 bits each; scale and shift by its kind.
fn values(name: &str, count: usize, kind: &str) -> Vec<f32> {
    let (scale, shift) = match kind {
        "linear" => (1.0, -0.5),
        "norm" => (0.5, 0.75),
        "norm0" | "bias" => (0.5, -0.25),
        _ => (2.0, -1.0),
    };
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (1..=count as u64)
        .map(|index| {
            let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ z >> 31) >> 48) as f32 / 65536.0 * scale + shift
        })
        .collect()
}

pub fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn sizes(json: &Json) -> Vec<usize> {
    json.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

impl Case {
    /// The names of all cases.
    pub fn names() -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language_models");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub fn read(name: &str) -> Case {
        let path = format!("{}/tests/language_models/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let json: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let tensors = json["tensors"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, entry)| {
                let shape = sizes(&entry[0]);
                let values = values(name, shape.iter().product(), entry[1].as_str().unwrap());
                (name.clone(), Tensor { shape, values })
            })
            .collect();
        Case { json, tensors }
    }

    pub fn tokens(&self) -> Vec<i64> {
        numbers(&self.json["tokens"]).into_iter().map(|token| token as i64).collect()
    }

    pub fn logits(&self) -> Vec<Vec<f64>> {
        self.json["logits"].as_array().unwrap().iter().map(numbers).collect()
    }

    pub fn context(&self) -> usize {
        self.json["context"].as_u64().unwrap() as usize
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.tensors.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// Writes `config.json` and `model.safetensors`.
    pub fn write_folder(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.json["config"].to_string()).unwrap();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| float(name, tensor)).collect();
        std::fs::write(folder.join("model.safetensors"), safetensors(&tensors)).unwrap();
    }

    /// The bytes of the GGUF file, where there is one.
    pub fn gguf(&self) -> Option<Vec<u8>> {
        let gguf = self.json.get("gguf")?;
        let architecture = gguf["architecture"].as_str().unwrap();
        let mut metadata = vec![("general.architecture".to_owned(), json!(architecture))];
        for (key, value) in gguf["metadata"].as_object().unwrap() {
            metadata.push((format!("{architecture}.{key}"), value.clone()));
        }
        let tensors: Vec<(String, Tensor)> = gguf["tensors"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, recipe)| (name.clone(), self.cook(recipe)))
            .collect();
        Some(write_gguf(&metadata, &tensors))
    }

    /// A tensor of the GGUF file out of those of the folder.
    fn cook(&self, recipe: &Json) -> Tensor {
        if let Some(values) = recipe.get("values") {
            let values: Vec<f32> = numbers(values).into_iter().map(|value| value as f32).collect();
            return Tensor { shape: vec![values.len()], values };
        }
        let sources: Vec<&Tensor> = recipe["sources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| self.tensor(name.as_str().unwrap()))
            .collect();
        let mut tensor = sources[0].clone();
        if recipe.get("stack").is_some() {
            tensor.values = sources.iter().flat_map(|source| source.values.clone()).collect();
            tensor.shape.insert(0, sources.len());
        }
        if let Some(rows) = recipe.get("rows") {
            let width = tensor.values.len() / tensor.shape[0];
            let row = |row: usize| tensor.values[row * width..(row + 1) * width].to_vec();
            tensor.values = sizes(rows).into_iter().flat_map(row).collect();
        }
        if recipe.get("transpose").is_some() {
            let [rows, columns] = tensor.shape[..] else { panic!("a matrix") };
            let old = &tensor.values;
            tensor.values = (0..columns).flat_map(|c| (0..rows).map(move |r| old[r * columns + c])).collect();
            tensor.shape = vec![columns, rows];
        }
        if let Some(add) = recipe.get("add") {
            tensor.values.iter_mut().for_each(|value| *value += add.as_f64().unwrap() as f32);
        }
        tensor
    }
}

/// A tensor of a safetensors file: name, element type, shape, bytes.
pub type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

/// A tensor of `f32`.
pub fn float(name: &str, tensor: &Tensor) -> Stored {
    let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (name.to_owned(), "F32", tensor.shape.clone(), bytes)
}

/// The bytes of a safetensors file.
pub fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = Json::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

/// A length and a text.
pub fn gguf_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

/// Type number and value: integers as `u32`, other numbers as `f32`, lists of texts.
pub fn gguf_value(out: &mut Vec<u8>, value: &Json) {
    match value {
        Json::Bool(value) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*value));
        }
        Json::String(text) => {
            out.extend(8u32.to_le_bytes());
            gguf_text(out, text);
        }
        Json::Array(texts) => {
            out.extend(9u32.to_le_bytes());
            out.extend(8u32.to_le_bytes());
            out.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| gguf_text(out, text.as_str().unwrap()));
        }
        number => match number.as_u64() {
            Some(number) => {
                out.extend(4u32.to_le_bytes());
                out.extend((number as u32).to_le_bytes());
            }
            None => {
                out.extend(6u32.to_le_bytes());
                out.extend((number.as_f64().unwrap() as f32).to_le_bytes());
            }
        },
    }
}

/// The bytes of a GGUF file, version 3, tensors in `f32`.
pub fn write_gguf(metadata: &[(String, Json)], tensors: &[(String, Tensor)]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        gguf_text(&mut file, key);
        gguf_value(&mut file, value);
    }
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        gguf_text(&mut file, name);
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|extent| file.extend((*extent as u64).to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}
