//! The families of language models: one row each.
//!
//! A row says what configurations and files leave unsaid. Everything that they do say (sizes, constants, biases) is read
//! from them, so a family that differs from another in numbers only is a row of names. A new family is a new row here;
//! a new kind of layer is a new value in [`super::decoder`] and its case in `build`.

use super::decoder::{Activation, BlockOrder, QkNorm};
use super::names::{GEMMA, GPT_NEOX, GPT2, LLAMA, MIXTRAL, OLMO2, PHI3, Role, STABLELM, STARCODER2};

/// What is fixed about a family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name, for messages.
    pub name: &'static str,
    /// Values of `general.architecture` in GGUF files.
    pub architectures: &'static [&'static str],
    /// Values of `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// Tensor names in safetensors files.
    pub names: &'static [(Role, &'static str)],
    /// Tensor names in GGUF files that differ from the usual ones.
    pub gguf_names: &'static [(Role, &'static str)],
    /// Layer normalization instead of root mean square.
    pub centered_norm: bool,
    /// Added to norm weights of safetensors files; GGUF files have the sum.
    pub norm_offset: f64,
    /// How the parts of a layer are joined, unless the model says otherwise.
    pub order: BlockOrder,
    /// How they are joined where the model says that they are parallel.
    pub parallel: BlockOrder,
    /// Normalization of queries and keys; for [`QkNorm::EachHead`] where the model says so.
    pub qk_norm: QkNorm,
    /// Nonlinearity, where the file does not say.
    pub activation: Activation,
    /// Whether it gates a second projection.
    pub gated: bool,
    /// A table of learned positions instead of rotary embeddings.
    pub learned_positions: bool,
    /// Fraction of a head that is turned, where the file does not say.
    pub rotary_fraction: f64,
    /// GGUF files have the rows of query and key weights in the order that turns neighbours.
    pub gguf_interleaved: bool,
    /// Every so many layers one has no positions, 0: none.
    pub unrotated_interval: usize,
    /// Embeddings are multiplied by the square root of the width.
    pub scaled_embedding: bool,
    /// The head is the embedding, where the configuration does not say.
    pub tied: bool,
    /// Which layers have a window, where the file only gives its length.
    pub windows: Windows,
    /// Base of the rotary embedding of layers with a window, where it differs and the file does not say.
    pub local_theta: Option<f64>,
    /// Soft caps of scores and logits, where a GGUF file does not say.
    pub gguf_softcaps: (f64, f64),
    /// GGUF files of this many layers scale scores by the width a head instead of the size of a head; they do not say so.
    pub gguf_wide_scale_layers: Option<usize>,
    /// How queries, keys and values share one projection in safetensors files.
    pub fused: Fused,
    /// Linear weights of safetensors files are `[in, out]`.
    pub transposed: bool,
    /// Weights of used experts are divided by their sum, where the file does not say.
    pub normalized_experts: bool,
}

/// Which layers have a sliding window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Windows {
    /// All.
    All,
    /// All but every n-th.
    AllBut(usize),
    /// Those from `max_window_layers` on, where the configuration turns windows on.
    Upper,
}

/// The order of rows of a projection to queries, keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fused {
    /// All queries, all keys, all values.
    Parts,
    /// Query, key and value of the first head, of the second, and so on.
    Heads,
}

/// What most families are.
const BASE: Family = Family {
    name: "llama",
    architectures: &["llama"],
    model_types: &["llama"],
    names: LLAMA,
    gguf_names: &[],
    centered_norm: false,
    norm_offset: 0.0,
    order: BlockOrder::Before,
    parallel: BlockOrder::Parallel,
    qk_norm: QkNorm::None,
    activation: Activation::Silu,
    gated: true,
    learned_positions: false,
    rotary_fraction: 1.0,
    gguf_interleaved: false,
    unrotated_interval: 0,
    scaled_embedding: false,
    tied: false,
    windows: Windows::All,
    local_theta: None,
    gguf_softcaps: (0.0, 0.0),
    gguf_wide_scale_layers: None,
    fused: Fused::Parts,
    transposed: false,
    normalized_experts: true,
};

/// Every family.
pub const FAMILIES: &[Family] = &[
    Family { gguf_interleaved: true, ..BASE },
    // GGUF files call it llama.
    Family { name: "mistral", architectures: &[], model_types: &["mistral"], ..BASE },
    Family { name: "mixtral", architectures: &[], model_types: &["mixtral"], names: MIXTRAL, ..BASE },
    Family {
        name: "qwen2",
        architectures: &["qwen2"],
        model_types: &["qwen2"],
        windows: Windows::Upper,
        ..BASE
    },
    Family {
        name: "qwen3",
        architectures: &["qwen3"],
        model_types: &["qwen3"],
        qk_norm: QkNorm::Head,
        windows: Windows::Upper,
        ..BASE
    },
    Family {
        name: "qwen3-moe",
        architectures: &["qwen3moe"],
        model_types: &["qwen3_moe"],
        qk_norm: QkNorm::Head,
        windows: Windows::Upper,
        ..BASE
    },
    Family {
        name: "gemma2",
        architectures: &["gemma2"],
        model_types: &["gemma2"],
        names: GEMMA,
        norm_offset: 1.0,
        order: BlockOrder::Around,
        activation: Activation::GeluTanh,
        scaled_embedding: true,
        tied: true,
        windows: Windows::AllBut(2),
        gguf_softcaps: (50.0, 30.0),
        gguf_wide_scale_layers: Some(46),
        ..BASE
    },
    Family {
        name: "gemma3",
        architectures: &["gemma3"],
        model_types: &["gemma3_text", "gemma3"],
        names: GEMMA,
        norm_offset: 1.0,
        order: BlockOrder::Around,
        qk_norm: QkNorm::Head,
        activation: Activation::GeluTanh,
        scaled_embedding: true,
        tied: true,
        windows: Windows::AllBut(6),
        local_theta: Some(10_000.0),
        gguf_wide_scale_layers: Some(62),
        ..BASE
    },
    Family {
        name: "phi3",
        architectures: &["phi3"],
        model_types: &["phi3"],
        names: PHI3,
        gguf_names: &[(Role::GateUp, "blk.{}.ffn_up")],
        ..BASE
    },
    Family {
        name: "smollm3",
        architectures: &["smollm3"],
        model_types: &["smollm3"],
        gguf_interleaved: true,
        unrotated_interval: 4,
        tied: true,
        ..BASE
    },
    Family {
        name: "olmo2",
        architectures: &["olmo2"],
        model_types: &["olmo2"],
        names: OLMO2,
        order: BlockOrder::After,
        qk_norm: QkNorm::Whole,
        ..BASE
    },
    Family {
        name: "olmoe",
        architectures: &["olmoe"],
        model_types: &["olmoe"],
        qk_norm: QkNorm::Whole,
        normalized_experts: false,
        ..BASE
    },
    Family {
        name: "granite",
        architectures: &["granite"],
        model_types: &["granite"],
        gguf_interleaved: true,
        ..BASE
    },
    Family {
        name: "stablelm",
        architectures: &["stablelm"],
        model_types: &["stablelm"],
        names: STABLELM,
        centered_norm: true,
        parallel: BlockOrder::ParallelShared,
        qk_norm: QkNorm::EachHead,
        rotary_fraction: 0.25,
        ..BASE
    },
    Family {
        name: "gpt2",
        architectures: &["gpt2"],
        model_types: &["gpt2"],
        names: GPT2,
        centered_norm: true,
        activation: Activation::GeluTanh,
        gated: false,
        learned_positions: true,
        tied: true,
        transposed: true,
        ..BASE
    },
    Family {
        name: "gpt-neox",
        architectures: &["gptneox"],
        model_types: &["gpt_neox"],
        names: GPT_NEOX,
        centered_norm: true,
        order: BlockOrder::Parallel,
        activation: Activation::Gelu,
        gated: false,
        rotary_fraction: 0.25,
        fused: Fused::Heads,
        ..BASE
    },
    Family {
        name: "starcoder2",
        architectures: &["starcoder2"],
        model_types: &["starcoder2"],
        names: STARCODER2,
        centered_norm: true,
        activation: Activation::GeluTanh,
        gated: false,
        tied: true,
        ..BASE
    },
];

/// The family that GGUF files call by this architecture.
pub fn of_architecture(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.architectures.contains(&name))
}

/// The family that configurations call by this model type.
pub fn of_model_type(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.model_types.contains(&name))
}

/// The names of all families, for messages.
pub fn known() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}
