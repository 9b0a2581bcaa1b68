//! GGUF files of tiny language models: most changes are of the head, where all but the weights stands.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use tcc_frontend::gguf::Gguf;
use tcc_frontend::language_model::{ImportOptions, LanguageModel};
use tcc_ir::verify;

use super::Reader;

pub const READER: Reader = Reader { name: "gguf", seeds, mutate, read };

/// Where tensors start is a multiple of this.
const ALIGNMENT: usize = 32;

/// A metadata value of a seed.
enum Value {
    Number(u32),
    Float(f32),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

/// What every seed says: one layer of width 32, two heads, four tokens.
const COMMON: &[(&str, Value)] = &[
    ("context_length", Value::Number(64)),
    ("embedding_length", Value::Number(32)),
    ("block_count", Value::Number(1)),
    ("feed_forward_length", Value::Number(32)),
    ("attention.head_count", Value::Number(2)),
    ("attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
    ("rope.freq_base", Value::Float(10_000.0)),
];

const MIXTURE: &[(&str, Value)] =
    &[("expert_count", Value::Number(2)), ("expert_used_count", Value::Number(1))];

const GEMMA: &[(&str, Value)] = &[
    ("attention.sliding_window", Value::Number(8)),
    ("attention.key_length", Value::Number(16)),
    ("attention.value_length", Value::Number(16)),
];

/// Name and extents, innermost first, of the tensors of every seed.
const TENSORS: &[(&str, &[u64])] = &[
    ("token_embd.weight", &[32, 4]),
    ("output_norm.weight", &[32]),
    ("blk.0.attn_norm.weight", &[32]),
    ("blk.0.ffn_norm.weight", &[32]),
    ("blk.0.attn_q.weight", &[32, 32]),
    ("blk.0.attn_k.weight", &[32, 32]),
    ("blk.0.attn_v.weight", &[32, 32]),
    ("blk.0.attn_output.weight", &[32, 32]),
];

const DENSE: &[(&str, &[u64])] = &[
    ("blk.0.ffn_gate.weight", &[32, 32]),
    ("blk.0.ffn_up.weight", &[32, 32]),
    ("blk.0.ffn_down.weight", &[32, 32]),
];

const EXPERTS: &[(&str, &[u64])] = &[
    ("blk.0.ffn_gate_inp.weight", &[32, 2]),
    ("blk.0.ffn_gate_exps.weight", &[32, 32, 2]),
    ("blk.0.ffn_up_exps.weight", &[32, 32, 2]),
    ("blk.0.ffn_down_exps.weight", &[32, 32, 2]),
];

const AROUND: &[(&str, &[u64])] = &[
    ("blk.0.post_attention_norm.weight", &[32]),
    ("blk.0.post_ffw_norm.weight", &[32]),
    ("blk.0.attn_q_norm.weight", &[16]),
    ("blk.0.attn_k_norm.weight", &[16]),
];

fn seeds() -> Vec<Vec<u8>> {
    vec![
        file("llama", &[], &[TENSORS, DENSE].concat()),
        file("llama", MIXTURE, &[TENSORS, EXPERTS].concat()),
        file("gemma3", GEMMA, &[TENSORS, DENSE, AROUND].concat()),
    ]
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

fn entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    text(out, key);
    match value {
        Value::Number(number) => {
            out.extend(4u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Value::Float(number) => {
            out.extend(6u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Value::Text(word) => {
            out.extend(8u32.to_le_bytes());
            text(out, word);
        }
        Value::Texts(words) => {
            out.extend(9u32.to_le_bytes());
            out.extend(8u32.to_le_bytes());
            out.extend((words.len() as u64).to_le_bytes());
            words.iter().for_each(|word| text(out, word));
        }
    }
}

/// A file: matrices in blocks (Q8_0), vectors in `f32`, all weights zero.
fn file(architecture: &'static str, metadata: &[(&str, Value)], tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((COMMON.len() as u64 + metadata.len() as u64 + 3).to_le_bytes());
    entry(&mut out, "general.architecture", &Value::Text(architecture));
    entry(&mut out, "tokenizer.ggml.model", &Value::Text("gpt2"));
    entry(&mut out, "tokenizer.ggml.tokens", &Value::Texts(&["a", "b", "ab", "<end>"]));
    for (key, value) in COMMON.iter().chain(metadata) {
        entry(&mut out, &format!("{architecture}.{key}"), value);
    }
    let mut offset = 0u64;
    for (name, shape) in tensors {
        text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|extent| out.extend(extent.to_le_bytes()));
        let count: u64 = shape.iter().product();
        let (code, bytes) = if shape.len() == 1 { (0u32, count * 4) } else { (8, count / 32 * 34) };
        out.extend(code.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += bytes.next_multiple_of(ALIGNMENT as u64);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT) + offset as usize, 0);
    out
}

fn mutate(file: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    let Ok(read) = Gguf::parse(Bytes::copy_from_slice(file)) else { return super::bytes(file, source) };
    let data: usize =
        read.tensors.values().map(|tensor| tensor.bytes.len().next_multiple_of(ALIGNMENT)).sum();
    let (head, rest) = file.split_at(file.len().saturating_sub(data));
    Ok([&super::bytes(head, source)?, rest].concat())
}

fn read(file: &[u8]) {
    let Ok(read) = Gguf::parse(Bytes::copy_from_slice(file)) else { return };
    for tensor in read.tensors.values() {
        tensor.data().expect("bytes and shape agree in what was read");
    }
    let Ok(model) = LanguageModel::from_gguf(&read) else { return };
    let _ = model.to_string();
    if let Ok(module) = model.import(&ImportOptions::default()) {
        verify::verify(&module).expect("what is imported verifies");
    }
}
