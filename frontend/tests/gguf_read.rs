//! GGUF files: what is read, and what is refused by name.

mod tiny;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tcc_frontend::gguf::{Encoding, Gguf, Value};
use tcc_frontend::language_model::LanguageModel;
use tcc_ir::dtype::DType;
use tiny::{Case, Tensor, gguf_text, write_gguf};

fn parse(bytes: Vec<u8>) -> Result<Gguf, String> {
    Gguf::parse(bytes.into()).map_err(|error| error.to_string())
}

fn refused(bytes: Vec<u8>, part: &str) {
    let error = parse(bytes).unwrap_err();
    assert!(error.contains(part), "{error}");
}

/// A file with one tensor `w` of 2 x 3, and these entries.
fn file(metadata: &[(&str, Json)]) -> Vec<u8> {
    let metadata: Vec<(String, Json)> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let tensor = Tensor { shape: vec![2, 3], values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] };
    write_gguf(&metadata, &[("w".into(), tensor)])
}

/// A file header with these counts, and what follows it.
fn header(tensors: u64, metadata: u64, rest: &[u8]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(tensors.to_le_bytes());
    out.extend(metadata.to_le_bytes());
    out.extend(rest);
    out
}

/// An entry of the tensor table, extents innermost first.
fn entry(name: &str, shape: &[u64], code: u32, offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    gguf_text(&mut out, name);
    out.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|extent| out.extend(extent.to_le_bytes()));
    out.extend(code.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// A file with these entries and so many bytes of data.
fn table(entries: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut out = header(entries.len() as u64, 0, &entries.concat());
    out.resize(out.len().next_multiple_of(32) + data, 0);
    out
}

/// A metadata entry with a type number and bytes.
fn raw(key: &[u8], code: u32, value: &[u8]) -> Vec<u8> {
    let mut out = (key.len() as u64).to_le_bytes().to_vec();
    out.extend(key);
    out.extend(code.to_le_bytes());
    out.extend(value);
    out
}

#[test]
fn values_and_tensors_are_read() {
    let read = parse(file(&[
        ("a.count", json!(7)),
        ("a.ratio", json!(0.5)),
        ("a.flag", json!(true)),
        ("a.name", json!("name")),
        ("a.words", json!(["one", "", "drei"])),
    ]))
    .unwrap();
    assert_eq!(read.version, 3);
    assert_eq!(read.value("a.count").and_then(Value::unsigned), Some(7));
    assert_eq!(read.value("a.ratio").and_then(Value::number), Some(0.5));
    assert_eq!(read.value("a.flag").and_then(Value::truth), Some(true));
    assert_eq!(read.value("a.name").and_then(Value::text), Some("name"));
    let words = read.value("a.words").and_then(Value::array).unwrap();
    assert_eq!(words.texts().unwrap().collect::<Vec<_>>(), ["one", "", "drei"]);
    assert!(words.values().is_none());
    let tensor = &read.tensors["w"];
    assert_eq!((&tensor.shape[..], tensor.encoding), (&[2, 3][..], Encoding::Plain(DType::F32)));
    assert_eq!(tensor.data().unwrap().to_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn numbers_of_every_width_are_read() {
    let entries = [
        raw(b"u8", 0, &[200]),
        raw(b"i8", 1, &[200]),
        raw(b"u16", 2, &60000u16.to_le_bytes()),
        raw(b"i16", 3, &(-2i16).to_le_bytes()),
        raw(b"i32", 5, &(-3i32).to_le_bytes()),
        raw(b"u64", 10, &u64::MAX.to_le_bytes()),
        raw(b"i64", 11, &i64::MIN.to_le_bytes()),
        raw(b"f64", 12, &0.1f64.to_le_bytes()),
        raw(
            b"list",
            9,
            &[&3u32.to_le_bytes()[..], &2u64.to_le_bytes(), &(-1i16).to_le_bytes(), &[5, 0]].concat(),
        ),
    ];
    let read = parse(header(0, entries.len() as u64, &entries.concat())).unwrap();
    let expected = [
        ("u8", Value::Unsigned(200)),
        ("i8", Value::Signed(-56)),
        ("u16", Value::Unsigned(60000)),
        ("i16", Value::Signed(-2)),
        ("i32", Value::Signed(-3)),
        ("u64", Value::Unsigned(u64::MAX)),
        ("i64", Value::Signed(i64::MIN)),
        ("f64", Value::Float(0.1)),
    ];
    for (key, value) in expected {
        assert_eq!(read.value(key), Some(&value));
    }
    let list = read.value("list").and_then(Value::array).unwrap();
    assert_eq!(list.values().unwrap().collect::<Vec<_>>(), [Value::Signed(-1), Value::Signed(5)]);
}

#[test]
fn headers_are_checked() {
    refused(b"GGML".to_vec(), "does not start with 'GGUF'");
    refused(b"GG".to_vec(), "does not start with 'GGUF'");
    refused([b"GGUF", &1u32.to_le_bytes()[..]].concat(), "version 1");
    refused([b"GGUF", &3u32.to_be_bytes()[..]].concat(), "big-endian");
    refused(header(u64::MAX, 0, &[]), "tensors, and has room for 0");
    refused(header(0, 1 << 40, &[]), "metadata entries, and has room for 0");
    let whole = file(&[("a", json!("text")), ("b", json!(["x", "yz"]))]);
    // The last 8 bytes are padding behind the tensor.
    for length in 0..whole.len() - 8 {
        assert!(parse(whole[..length].to_vec()).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn metadata_is_checked() {
    let one = |entry: Vec<u8>| header(0, 1, &entry);
    refused(one(raw(&[0xff, 0xfe], 0, &[1])), "is not UTF-8");
    refused(one(raw(b"k", 13, &[1; 8])), "unknown type number 13");
    refused(one(raw(b"k", 7, &[2])), "neither 0 nor 1");
    refused(one(raw(b"k", 9, &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])), "array of arrays");
    let long = [&8u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat();
    refused(one(raw(b"k", 9, &long)), "room for 0");
    refused(one(raw(b"k", 8, &u64::MAX.to_le_bytes())), "truncated");
    refused(one(raw(&vec![b'k'; 70_000], 0, &[1])), "bytes of a metadata key");
    let twice = [raw(b"k", 0, &[1]), raw(b"k", 0, &[1])].concat();
    refused(header(0, 2, &twice), "'k' occurs twice");
    for alignment in [json!(0), json!(24), json!(-1.0), json!("x"), json!(1u32 << 31)] {
        refused(file(&[("general.alignment", alignment)]), "general.alignment");
    }
}

#[test]
fn tensors_are_checked() {
    refused(table(&[entry("w", &[], 0, 0)], 0), "'w' has 0 dimensions");
    refused(table(&[entry("w", &[1; 5], 0, 0)], 0), "'w' has 5 dimensions");
    refused(table(&[entry("w", &[u64::MAX, 3], 0, 0)], 0), "too large");
    refused(table(&[entry("w", &[1 << 62, 1 << 62], 24, 0)], 0), "too large");
    refused(table(&[entry("w", &[8], 16, 0)], 64), "'w' has the encoding IQ2_XXS");
    refused(table(&[entry("w", &[8], 99, 0)], 64), "number 99");
    refused(table(&[entry("w", &[40], 2, 0)], 64), "no whole blocks of 32");
    refused(table(&[entry("w", &[8], 0, 4)], 64), "no multiple of the alignment");
    refused(table(&[entry("w", &[8], 0, 64)], 64), "takes 32 bytes from offset 64");
    refused(table(&[entry("w", &[8], 0, u64::MAX - 31)], 64), "takes 32 bytes");
    refused(table(&[entry("w", &[1 << 40], 0, 0)], 64), "takes 4398046511104 bytes");
    refused(table(&[entry("w", &[8], 0, 0), entry("w", &[8], 0, 32)], 64), "two tensors are called 'w'");
    refused(table(&[entry("a", &[16], 0, 0), entry("b", &[8], 0, 32)], 64), "'a' and 'b' overlap");
    let read = parse(table(&[entry("w", &[64, 2], 2, 0), entry("empty", &[0], 0, 0)], 96)).unwrap();
    assert_eq!(read.tensors["w"].data().unwrap().shape(), [2, 36]);
    assert_eq!(read.tensors["empty"].data().unwrap().shape(), [0]);
}

/// A change of metadata and tensors.
type Change<'c> = dyn Fn(&mut Vec<(String, Json)>, &mut Vec<(String, Tensor)>) + 'c;

#[test]
fn models_that_disagree_are_refused() {
    let case = Case::read("llama");
    let gguf = &case.json["gguf"];
    let build = |change: &Change<'_>| {
        let read = parse(case.gguf().unwrap()).unwrap();
        let mut metadata = vec![("general.architecture".to_owned(), json!("llama"))];
        for (key, value) in gguf["metadata"].as_object().unwrap() {
            metadata.push((format!("llama.{key}"), value.clone()));
        }
        let tensor = |tensor: &tcc_frontend::gguf::Tensor| Tensor {
            shape: tensor.shape.clone(),
            values: tensor.data().unwrap().to_f32().unwrap(),
        };
        let mut tensors: Vec<(String, Tensor)> =
            read.tensors.iter().map(|(name, stored)| (name.clone(), tensor(stored))).collect();
        change(&mut metadata, &mut tensors);
        let file = parse(write_gguf(&metadata, &tensors)).unwrap();
        let model = LanguageModel::from_gguf(&file);
        model.and_then(|model| model.import(&Default::default())).map_err(|error| error.to_string())
    };
    build(&|_, _| {}).unwrap();
    let set = |key: &'static str, value: Json| {
        build(&move |metadata, _| {
            metadata.retain(|(known, _)| known != key);
            if !value.is_null() {
                metadata.push((key.into(), value.clone()));
            }
        })
        .unwrap_err()
    };
    let refused = |error: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(
        set("general.architecture", json!("mamba")),
        &["'mamba' is not supported", "qwen3-moe", "gpt-neox"],
    );
    refused(set("general.architecture", Json::Null), &["general.architecture"]);
    refused(set("llama.block_count", json!(1)), &["'blk.1.attn_", "does not use"]);
    refused(set("llama.block_count", json!(4_000_000)), &["4000000", "tensors"]);
    refused(set("llama.block_count", json!(3)), &["'blk.2.attn_norm.weight'"]);
    refused(set("llama.attention.head_count", json!(3)), &["3", "do not divide the width 16"]);
    refused(
        set("llama.attention.head_count_kv", json!(4)),
        &["'blk.0.attn_k.weight'", "[8, 16]", "[16, 16]"],
    );
    refused(set("llama.attention.head_count_kv", json!(3)), &["4 query heads", "3 key heads"]);
    refused(set("llama.embedding_length", json!(32)), &["[24, 16]", "[24, 32]"]);
    refused(set("llama.feed_forward_length", json!(0)), &["expected an integer from 1"]);
    refused(set("llama.context_length", Json::Null), &["context_length"]);
    refused(set("llama.context_length", json!(1u32 << 30)), &["at most"]);
    refused(set("llama.rope.dimension_count", json!(3)), &["even number"]);
    refused(set("llama.attention.layer_norm_rms_epsilon", json!(-1.0)), &["more than 0"]);
    refused(set("tokenizer.ggml.tokens", json!(["a", "b"])), &["2 tokens", "24 rows"]);
    let error = build(&|_, tensors| tensors.retain(|(name, _)| name != "blk.1.ffn_up.weight")).unwrap_err();
    refused(error, &["'blk.1.ffn_up.weight'", "llama"]);
    let extra = Tensor { shape: vec![4], values: vec![0.0; 4] };
    let error =
        build(&|_, tensors| tensors.push(("blk.0.attn_q_norm.weight".into(), extra.clone()))).unwrap_err();
    refused(error, &["'blk.0.attn_q_norm.weight'", "does not use"]);
}

#[test]
fn models_in_several_files_are_read() {
    let case = Case::read("llama");
    let whole = parse(case.gguf().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tensors: Vec<(String, Tensor)> = whole
        .tensors
        .iter()
        .map(|(name, stored)| {
            let values = stored.data().unwrap().to_f32().unwrap();
            (name.clone(), Tensor { shape: stored.shape.clone(), values })
        })
        .collect();
    let write = |number: usize, says: usize, tensors: &[(String, Tensor)]| {
        let mut metadata = vec![("split.no".to_owned(), json!(says)), ("split.count".to_owned(), json!(2))];
        if number == 0 {
            metadata.push(("general.architecture".to_owned(), json!("llama")));
            for (key, value) in case.json["gguf"]["metadata"].as_object().unwrap() {
                metadata.push((format!("llama.{key}"), value.clone()));
            }
        }
        let path = folder.path().join(format!("tiny-{:05}-of-00002.gguf", number + 1));
        std::fs::write(&path, write_gguf(&metadata, tensors)).unwrap();
        path
    };
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let paths = [write(0, 0, first), write(1, 1, second)];
    for path in &paths {
        let model = LanguageModel::open(path).unwrap();
        model.import(&Default::default()).unwrap();
    }
    let refused = |path: &std::path::Path, part: &str| {
        let error = LanguageModel::open(path).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    write(1, 0, second);
    refused(&paths[0], "says that it is another one");
    refused(&paths[1], "does not end in '-00001-of-00002.gguf'");
    write(1, 1, first);
    refused(&paths[0], "two tensors are called");
    std::fs::remove_file(&paths[1]).unwrap();
    refused(&paths[0], "part 'tiny-00002-of-00002.gguf'");
    std::fs::rename(&paths[0], folder.path().join("tiny.gguf")).unwrap();
    refused(&folder.path().join("tiny.gguf"), "part 1 of 2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever bytes change, reading ends with a file or an error, and a model is imported or refused.
    #[test]
    fn changed_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = Case::read("llama-linear").gguf().unwrap();
        // Most of a file is weights, whose bytes may be anything: changes go to the head.
        let head = bytes.len().min(2600);
        for (index, value) in changes {
            let index = index.index(head);
            bytes[index] = value;
        }
        if let Ok(file) = Gguf::parse(bytes.into())
            && let Ok(model) = LanguageModel::from_gguf(&file)
            && let Ok(module) = model.import(&Default::default())
        {
            tcc_ir::verify::verify(&module).unwrap();
        }
    }
}
