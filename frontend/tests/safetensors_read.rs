//! safetensors files and folders: what is read, and what is refused by name.

mod tiny;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tcc_frontend::language_model::LanguageModel;
use tcc_frontend::safetensors::{Folder, Safetensors};
use tcc_ir::dtype::DType;
use tiny::{Case, Stored, float, safetensors};

fn parse(bytes: Vec<u8>) -> Result<Safetensors, String> {
    Safetensors::parse(bytes.into()).map_err(|error| error.to_string())
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.bytes());
    out.extend(vec![0; data]);
    out
}

fn refused(header: &str, data: usize, part: &str) {
    let error = parse(file(header, data)).unwrap_err();
    assert!(error.contains(part), "{error}");
}

#[test]
fn tensors_are_read() {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [12, 20]},
        "c": {"dtype": "F8_E4M3", "shape": [0, 4], "data_offsets": [20, 20]},
    });
    let read = parse(file(&header.to_string(), 20)).unwrap();
    assert_eq!(read.metadata["format"], "pt");
    assert_eq!((read.tensors["a"].dtype(), read.tensors["a"].shape()), (DType::BF16, &[2, 3][..]));
    assert_eq!(read.tensors["b"].to_integers().unwrap(), [0]);
    assert_eq!(read.tensors["c"].count(), 0);
}

#[test]
fn headers_and_ranges_are_checked() {
    let error = |bytes: &[u8]| parse(bytes.to_vec()).unwrap_err();
    assert!(error(&[1, 2, 3]).contains("3 are there"));
    assert!(error(&100u64.to_le_bytes()).contains("takes 100 bytes and 0"));
    assert!(error(&u64::MAX.to_le_bytes()).contains("takes 18446744073709551615 bytes"));
    refused("{", 0, "header is damaged");
    refused("[]", 0, "header is damaged");
    let one = |entry: &str| format!("{{\"w\": {entry}}}");
    refused(&one(r#"{"dtype": "F32", "shape": [2]}"#), 8, "data_offsets");
    refused(&one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 1}"#), 8, "unknown field");
    refused(&one(r#"{"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}"#), 8, "damaged");
    refused(&one(r#"{"dtype": "F7", "shape": [2], "data_offsets": [0, 8]}"#), 8, "element type 'F7'");
    refused(&one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}"#), 8, "bytes 0..12");
    refused(&one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}"#), 8, "bytes 8..0");
    refused(&one(r#"{"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}"#), 8, "has 8 bytes");
    let huge = r#"{"dtype": "F32", "shape": [9223372036854775807, 8], "data_offsets": [0, 8]}"#;
    refused(&one(huge), 8, "has 8 bytes");
    let entry = |range: &str| format!(r#"{{"dtype": "U8", "shape": [4], "data_offsets": {range}}}"#);
    let two = |a: &str, b: &str| format!("{{\"a\": {}, \"{b}\": {}}}", entry("[0, 4]"), entry(a));
    refused(&two("[2, 6]", "b"), 8, "'a' and 'b' overlap");
    refused(&two("[4, 8]", "a"), 8, "two tensors are called 'a'");
}

/// A folder of the case with its weights in two files.
fn sharded(case: &Case, change: impl Fn(&mut Json)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), case.json["config"].to_string()).unwrap();
    let tensors: Vec<Stored> = case.tensors.iter().map(|(name, tensor)| float(name, tensor)).collect();
    let mut map = serde_json::Map::new();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let file = format!("model-{number}.safetensors");
        std::fs::write(folder.path().join(&file), safetensors(part)).unwrap();
        part.iter().for_each(|(name, ..)| drop(map.insert(name.clone(), json!(file))));
    }
    let mut index = json!({"metadata": {}, "weight_map": map});
    change(&mut index);
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    folder
}

#[test]
fn sharded_folders_are_read() {
    let case = Case::read("llama");
    let folder = sharded(&case, |_| {});
    let model = LanguageModel::open(folder.path()).unwrap();
    model.import(&Default::default()).unwrap();
    let tensors = Folder::open(folder.path()).unwrap().tensors;
    assert_eq!(tensors.len(), case.tensors.len());

    let refused = |change: &dyn Fn(&mut Json), part: &str| {
        let folder = sharded(&case, change);
        let error = LanguageModel::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(
        &|index| index["weight_map"]["model.norm.weight"] = json!("../model-0.safetensors"),
        "plain file name",
    );
    refused(&|index| index["weight_map"]["model.norm.weight"] = json!("/etc/passwd"), "plain file name");
    refused(
        &|index| index["weight_map"]["model.norm.weight"] = json!("none.safetensors"),
        "none.safetensors",
    );
    refused(&|index| index["weight_map"]["extra"] = json!("model-0.safetensors"), "does not have it");
    refused(&|index| index["weight_map"]["extra"] = json!(3), "the file of 'extra'");
    refused(&|index| *index = json!({}), "'weight_map' is missing");
}

/// Opens the case with a changed configuration.
fn with(name: &str, change: impl Fn(&mut Json)) -> Result<(), String> {
    let mut case = Case::read(name);
    change(&mut case.json["config"]);
    let folder = tempfile::tempdir().unwrap();
    case.write_folder(folder.path());
    let model = LanguageModel::open(folder.path());
    model.and_then(|model| model.import(&Default::default())).map(drop).map_err(|error| error.to_string())
}

#[test]
fn configurations_that_disagree_are_refused() {
    let set = |name: &str, key: &'static str, value: Json, parts: &[&str]| {
        let error = with(name, |config| config[key] = value.clone()).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{name} {key}: {error}");
    };
    set("llama", "model_type", json!("rwkv"), &["'rwkv' is not supported", "starcoder2"]);
    set("llama", "model_type", Json::Null, &["config.json does not have 'model_type'"]);
    set("llama", "hidden_size", json!("wide"), &["hidden_size", "wide"]);
    set("llama", "hidden_size", json!(32), &["'model.embed_tokens.weight'", "[24, 16]", "[24, 32]"]);
    set("llama", "vocab_size", json!(25), &["[24, 16]", "[25, 16]"]);
    set("llama", "num_hidden_layers", json!(1u64 << 40), &["num_hidden_layers"]);
    set("llama", "num_hidden_layers", json!(1), &["'model.layers.1.", "does not use"]);
    set(
        "llama",
        "attention_bias",
        json!(true),
        &["'model.layers.0.self_attn.q_proj.bias'", "says that there are biases"],
    );
    set("llama-biases", "attention_bias", json!(false), &["self_attn.q_proj.bias'", "does not use"]);
    set("llama", "tie_word_embeddings", json!("yes"), &["tie_word_embeddings"]);
    set("llama-biases", "tie_word_embeddings", json!(false), &["'lm_head.weight'"]);
    set("llama", "hidden_act", json!("mish"), &["'mish'"]);
    set("llama", "rms_norm_eps", Json::Null, &["rms_norm_eps"]);
    set("llama", "model_type", json!("qwen3"), &["'model.layers.0.self_attn.q_norm.weight'"]);
    set("qwen3", "model_type", json!("qwen2"), &["q_norm.weight'", "does not use"]);
    set("llama", "rope_scaling", json!({"rope_type": "spiral"}), &["'spiral'", "longrope"]);
    set("llama", "rope_scaling", json!({"rope_type": "linear"}), &["'factor'"]);
    set(
        "phi3-long",
        "rope_scaling",
        json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
        &["short_factor"],
    );
    set("mixtral", "num_experts_per_tok", json!(9), &["9 used of 4"]);
    set("mixtral", "num_local_experts", json!(3), &["[4, 16]", "[3, 16]"]);
    set("mixtral", "num_local_experts", json!(5), &["[5, 16]"]);
    set("smollm3", "no_rope_layers", json!([1, 1]), &["no_rope_layers", "2 values for 4 layers"]);
    set("gemma3", "layer_types", json!(vec!["chunked_attention"; 6]), &["chunked_attention"]);
    set("llama", "quantization_config", json!({"quant_method": "hqq"}), &["'hqq'", "gptq"]);
    set("stablelm", "qk_layernorm", json!(true), &["q_layernorm"]);
}

#[test]
fn newer_spellings_mean_the_same() {
    with("gemma3", |config| {
        config["layer_types"] = json!([
            "sliding_attention",
            "sliding_attention",
            "sliding_attention",
            "sliding_attention",
            "sliding_attention",
            "full_attention"
        ]);
        config["rope_parameters"] = json!({
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}
        });
    })
    .unwrap();
    let describe = |name: &str, change: &dyn Fn(&mut Json)| {
        let mut case = Case::read(name);
        change(&mut case.json["config"]);
        let folder = tempfile::tempdir().unwrap();
        case.write_folder(folder.path());
        LanguageModel::open(folder.path()).unwrap().decoder
    };
    let old = describe("gemma3", &|_| {});
    let new = describe("gemma3", &|config| {
        config["rope_parameters"] = json!({
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}
        });
        for key in ["rope_theta", "rope_scaling", "rope_local_base_freq"] {
            config.as_object_mut().unwrap().remove(key);
        }
    });
    assert_eq!(old, new);
    let nested = describe("gemma3", &|config| {
        let mut text = config.clone();
        text.as_object_mut().unwrap().remove("tie_word_embeddings");
        *config = json!({"model_type": "gemma3", "text_config": text});
    });
    assert_eq!(old, nested);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever bytes change, reading ends with a file or an error, and a model is imported or refused.
    #[test]
    fn changed_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        config in any::<bool>(),
    ) {
        let case = Case::read("qwen3-moe");
        let folder = tempfile::tempdir().unwrap();
        case.write_folder(folder.path());
        let path = folder.path().join(if config { "config.json" } else { "model.safetensors" });
        let mut bytes = std::fs::read(&path).unwrap();
        // Most of a file is weights, whose bytes may be anything: changes go to the head.
        let head = bytes.len().min(4000);
        for (index, value) in changes {
            let index = index.index(head);
            bytes[index] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(model) = LanguageModel::open(folder.path())
            && let Ok(module) = model.import(&Default::default())
        {
            tcc_ir::verify::verify(&module).unwrap();
        }
    }
}
