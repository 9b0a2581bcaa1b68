//! A GGUF file of a tiny llama with random weights and a byte-level vocabulary.

use std::path::Path;

/// Longest text of the model.
pub const CONTEXT: u32 = 96;

const WIDTH: usize = 32;
const INNER: usize = 64;
const HEADS: u32 = 4;
const KV_HEADS: u32 = 2;
const LAYERS: usize = 2;

/// What to leave out or to get wrong.
#[derive(Clone, Copy, Default)]
pub struct Flaws {
    /// No chat template.
    pub no_template: bool,
    /// This chat template.
    pub template: Option<&'static str>,
    /// So many more rows of embeddings than tokens; negative for fewer.
    pub padding: i64,
    /// No vocabulary.
    pub no_tokenizer: bool,
}

/// Metadata in the form of the file.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    count: u64,
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn truth(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(u8::from(value));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        text(&mut self.bytes, value);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| text(&mut self.bytes, value));
    }

    fn numbers(&mut self, key: &str, values: &[i32]) {
        self.key(key, 9);
        self.bytes.extend(5u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }
}

/// Begin and end marks, then the 256 bytes as printable characters, then a few merges.
fn vocabulary() -> (Vec<String>, Vec<i32>, Vec<String>) {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    let mut tokens: Vec<String> = vec!["<|begin|>".into(), "<|end|>".into()];
    for byte in 0..256u32 {
        let code = if printable(byte) { byte } else { others.next().unwrap_or(byte) };
        tokens.push(char::from_u32(code).unwrap_or(' ').to_string());
    }
    let merges: Vec<String> = ["t h", "th e", "Ġ the", "o n"].map(String::from).to_vec();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![3, 3];
    kinds.resize(tokens.len(), 1);
    (tokens, kinds, merges)
}

/// Uniform numbers, the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Writes the model.
pub fn write(path: &Path, flaws: Flaws) {
    let (tokens, kinds, merges) = vocabulary();
    let rows = (tokens.len() as i64 + flaws.padding) as usize;
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", "llama");
    metadata.number("llama.context_length", CONTEXT);
    metadata.number("llama.embedding_length", WIDTH as u32);
    metadata.number("llama.block_count", LAYERS as u32);
    metadata.number("llama.feed_forward_length", INNER as u32);
    metadata.number("llama.attention.head_count", HEADS);
    metadata.number("llama.attention.head_count_kv", KV_HEADS);
    metadata.number("llama.rope.dimension_count", WIDTH as u32 / HEADS);
    metadata.number("llama.vocab_size", rows as u32);
    metadata.float("llama.attention.layer_norm_rms_epsilon", 1e-5);
    if !flaws.no_tokenizer {
        metadata.text("tokenizer.ggml.model", "gpt2");
        metadata.text("tokenizer.ggml.pre", "gpt-2");
        metadata.texts("tokenizer.ggml.tokens", &tokens);
        metadata.numbers("tokenizer.ggml.token_type", &kinds);
        metadata.texts("tokenizer.ggml.merges", &merges);
        metadata.number("tokenizer.ggml.bos_token_id", 0);
        metadata.number("tokenizer.ggml.eos_token_id", 1);
        metadata.truth("tokenizer.ggml.add_bos_token", false);
    }
    let template =
        "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '\n' }}{% endfor %}[assistant]";
    if !flaws.no_template {
        metadata.text("tokenizer.chat_template", flaws.template.unwrap_or(template));
    }
    let (kv_width, inner) = (WIDTH / HEADS as usize * KV_HEADS as usize, INNER);
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("token_embd.weight".into(), vec![rows, WIDTH]), ("output_norm.weight".into(), vec![WIDTH])];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape.to_vec()))
        };
        add("attn_norm", &[WIDTH]);
        add("attn_q", &[WIDTH, WIDTH]);
        add("attn_k", &[kv_width, WIDTH]);
        add("attn_v", &[kv_width, WIDTH]);
        add("attn_output", &[WIDTH, WIDTH]);
        add("ffn_norm", &[WIDTH]);
        add("ffn_gate", &[inner, WIDTH]);
        add("ffn_up", &[inner, WIDTH]);
        add("ffn_down", &[WIDTH, inner]);
    }
    let mut file = Vec::new();
    file.extend(b"GGUF");
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(metadata.count.to_le_bytes());
    file.extend(metadata.bytes);
    let mut noise = Noise(1);
    let mut data: Vec<u8> = Vec::new();
    for (name, shape) in &tensors {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        // Innermost extent first.
        shape.iter().rev().for_each(|extent| file.extend((*extent as u64).to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        let norm = shape.len() == 1;
        // Large enough that texts are no single repeated token.
        let scale = if norm { 0.1 } else { 4.0 / (shape[shape.len() - 1] as f32).sqrt() };
        let center = if norm { 1.0 } else { 0.0 };
        for _ in 0..shape.iter().product::<usize>() {
            data.extend((center + scale * noise.next()).to_le_bytes());
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    std::fs::write(path, file).expect("the folder can be written");
}
