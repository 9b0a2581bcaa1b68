//! What tensors are called: by role, in GGUF files and in the safetensors files of each family.
//!
//! `{}` stands for the number of the layer, `{e}` for that of an expert; `.weight` or `.bias` follows. Names of
//! safetensors files stand below the model's root (`model.`, `transformer.`), except those that start with a slash.

/// What a tensor is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Embedding of tokens, `[vocabulary, width]`.
    Embedding,
    /// Embedding of positions, `[positions, width]`.
    Positions,
    /// Norm before the head.
    FinalNorm,
    /// The head, `[vocabulary, width]`.
    Head,
    /// Divisors of rotary frequencies.
    RopeFactors,
    /// Divisors within the trained context.
    RopeShort,
    /// Divisors for longer contexts.
    RopeLong,
    /// Norm before attention.
    AttentionNorm,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Queries, keys and values in one projection.
    QueryKeyValue,
    /// Norm of queries.
    QueryNorm,
    /// Norm of keys.
    KeyNorm,
    /// Projection of what attention gives.
    AttentionOutput,
    /// Norm behind attention.
    AttentionPostNorm,
    /// Norm before the feed-forward part.
    ForwardNorm,
    /// Gate of the feed-forward part.
    Gate,
    /// First projection of the feed-forward part.
    Up,
    /// Gate and first projection in one.
    GateUp,
    /// Last projection of the feed-forward part.
    Down,
    /// Norm behind the feed-forward part.
    ForwardPostNorm,
    /// Scores of experts.
    Router,
    /// Gates of all experts, `[experts, inner, width]`, or of one.
    ExpertGate,
    /// First projections of the experts.
    ExpertUp,
    /// Last projections of the experts.
    ExpertDown,
}

type Names = &'static [(Role, &'static str)];

/// Names in GGUF files.
pub const GGUF: Names = &[
    (Role::Embedding, "token_embd"),
    (Role::Positions, "position_embd"),
    (Role::FinalNorm, "output_norm"),
    (Role::Head, "output"),
    (Role::RopeFactors, "rope_freqs"),
    (Role::RopeShort, "rope_factors_short"),
    (Role::RopeLong, "rope_factors_long"),
    (Role::AttentionNorm, "blk.{}.attn_norm"),
    (Role::Query, "blk.{}.attn_q"),
    (Role::Key, "blk.{}.attn_k"),
    (Role::Value, "blk.{}.attn_v"),
    (Role::QueryKeyValue, "blk.{}.attn_qkv"),
    (Role::QueryNorm, "blk.{}.attn_q_norm"),
    (Role::KeyNorm, "blk.{}.attn_k_norm"),
    (Role::AttentionOutput, "blk.{}.attn_output"),
    (Role::AttentionPostNorm, "blk.{}.post_attention_norm"),
    (Role::ForwardNorm, "blk.{}.ffn_norm"),
    (Role::Gate, "blk.{}.ffn_gate"),
    (Role::Up, "blk.{}.ffn_up"),
    (Role::Down, "blk.{}.ffn_down"),
    (Role::ForwardPostNorm, "blk.{}.post_ffw_norm"),
    (Role::Router, "blk.{}.ffn_gate_inp"),
    (Role::ExpertGate, "blk.{}.ffn_gate_exps"),
    (Role::ExpertUp, "blk.{}.ffn_up_exps"),
    (Role::ExpertDown, "blk.{}.ffn_down_exps"),
];

macro_rules! llama_names {
    ($($role:ident $name:literal),*) => {
        &[
            (Role::Embedding, "embed_tokens"),
            (Role::FinalNorm, "norm"),
            (Role::Head, "/lm_head"),
            (Role::AttentionNorm, "layers.{}.input_layernorm"),
            (Role::Query, "layers.{}.self_attn.q_proj"),
            (Role::Key, "layers.{}.self_attn.k_proj"),
            (Role::Value, "layers.{}.self_attn.v_proj"),
            (Role::AttentionOutput, "layers.{}.self_attn.o_proj"),
            $((Role::$role, $name),)*
        ]
    };
}

/// Llama and its many relatives, dense or with experts.
pub const LLAMA: Names = llama_names![
    QueryNorm "layers.{}.self_attn.q_norm", KeyNorm "layers.{}.self_attn.k_norm",
    ForwardNorm "layers.{}.post_attention_layernorm",
    Gate "layers.{}.mlp.gate_proj", Up "layers.{}.mlp.up_proj", Down "layers.{}.mlp.down_proj",
    Router "layers.{}.mlp.gate", ExpertGate "layers.{}.mlp.experts.{e}.gate_proj",
    ExpertUp "layers.{}.mlp.experts.{e}.up_proj", ExpertDown "layers.{}.mlp.experts.{e}.down_proj"
];

/// Mixtral.
pub const MIXTRAL: Names = llama_names![
    ForwardNorm "layers.{}.post_attention_layernorm",
    Router "layers.{}.block_sparse_moe.gate", ExpertGate "layers.{}.block_sparse_moe.experts.{e}.w1",
    ExpertUp "layers.{}.block_sparse_moe.experts.{e}.w3", ExpertDown "layers.{}.block_sparse_moe.experts.{e}.w2"
];

/// Gemma 2 and 3.
pub const GEMMA: Names = llama_names![
    QueryNorm "layers.{}.self_attn.q_norm", KeyNorm "layers.{}.self_attn.k_norm",
    AttentionPostNorm "layers.{}.post_attention_layernorm", ForwardNorm "layers.{}.pre_feedforward_layernorm",
    ForwardPostNorm "layers.{}.post_feedforward_layernorm",
    Gate "layers.{}.mlp.gate_proj", Up "layers.{}.mlp.up_proj", Down "layers.{}.mlp.down_proj"
];

/// Phi-3.
pub const PHI3: Names = llama_names![
    QueryKeyValue "layers.{}.self_attn.qkv_proj", ForwardNorm "layers.{}.post_attention_layernorm",
    GateUp "layers.{}.mlp.gate_up_proj", Down "layers.{}.mlp.down_proj"
];

/// OLMo 2.
pub const OLMO2: Names = llama_names![
    QueryNorm "layers.{}.self_attn.q_norm", KeyNorm "layers.{}.self_attn.k_norm",
    AttentionPostNorm "layers.{}.post_attention_layernorm",
    ForwardPostNorm "layers.{}.post_feedforward_layernorm",
    Gate "layers.{}.mlp.gate_proj", Up "layers.{}.mlp.up_proj", Down "layers.{}.mlp.down_proj"
];

/// StableLM.
pub const STABLELM: Names = llama_names![
    QueryNorm "layers.{}.self_attn.q_layernorm.norms.{e}", KeyNorm "layers.{}.self_attn.k_layernorm.norms.{e}",
    ForwardNorm "layers.{}.post_attention_layernorm",
    Gate "layers.{}.mlp.gate_proj", Up "layers.{}.mlp.up_proj", Down "layers.{}.mlp.down_proj"
];

/// StarCoder 2.
pub const STARCODER2: Names = llama_names![
    ForwardNorm "layers.{}.post_attention_layernorm", Up "layers.{}.mlp.c_fc", Down "layers.{}.mlp.c_proj"
];

/// GPT-2.
pub const GPT2: Names = &[
    (Role::Embedding, "wte"),
    (Role::Positions, "wpe"),
    (Role::FinalNorm, "ln_f"),
    (Role::Head, "/lm_head"),
    (Role::AttentionNorm, "h.{}.ln_1"),
    (Role::QueryKeyValue, "h.{}.attn.c_attn"),
    (Role::AttentionOutput, "h.{}.attn.c_proj"),
    (Role::ForwardNorm, "h.{}.ln_2"),
    (Role::Up, "h.{}.mlp.c_fc"),
    (Role::Down, "h.{}.mlp.c_proj"),
];

/// GPT-NeoX.
pub const GPT_NEOX: Names = &[
    (Role::Embedding, "embed_in"),
    (Role::FinalNorm, "final_layer_norm"),
    (Role::Head, "/embed_out"),
    (Role::AttentionNorm, "layers.{}.input_layernorm"),
    (Role::QueryKeyValue, "layers.{}.attention.query_key_value"),
    (Role::AttentionOutput, "layers.{}.attention.dense"),
    (Role::ForwardNorm, "layers.{}.post_attention_layernorm"),
    (Role::Up, "layers.{}.mlp.dense_h_to_4h"),
    (Role::Down, "layers.{}.mlp.dense_4h_to_h"),
];

/// Where the tensors of a model may stand in safetensors files, and where `/` names stand then.
pub const ROOTS: &[(&str, &str)] = &[
    ("model.", ""),
    ("transformer.", ""),
    ("gpt_neox.", ""),
    ("language_model.model.", "language_model."),
    ("model.language_model.", ""),
    ("", ""),
];

/// Tensors of safetensors files that carry nothing: masks and frequencies that older versions saved, and what belongs
/// to the other towers of models of several senses.
pub const IGNORED: &[&str] = &[
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    ".rotary_emb.inv_freq",
    "vision_tower.",
    "multi_modal_projector.",
];
