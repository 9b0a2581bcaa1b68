//! What a decoder-only language model computes, apart from its weights.
//!
//! One description serves every family: the differences are values, not code paths of their own. `gguf` and
//! `config` fill it, `build` turns it into tensor IR.

use std::fmt;

use super::rope::Rope;

/// A decoder-only transformer.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoder {
    /// Name of the family, as in the table of [`super::family`].
    pub family: &'static str,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Features of a token between the layers.
    pub width: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Distinct rotary embeddings, which layers refer to by number.
    pub ropes: Vec<Rope>,
    /// True where a table of learned positions is added to the embeddings.
    pub learned_positions: bool,
    /// The normalization in front of or behind the parts of a layer, and before the head.
    pub norm: Norm,
    /// Where a layer normalizes and how its parts are joined.
    pub order: BlockOrder,
    /// Nonlinearity of the feed-forward part.
    pub activation: Activation,
    /// True where the nonlinearity gates a second projection, `act(gate(x)) * up(x)`.
    pub gated: bool,
    /// Factor on the embeddings.
    pub embedding_scale: f64,
    /// Factor on what each part adds to the residual stream.
    pub residual_scale: f64,
    /// Factor on the logits.
    pub logit_scale: f64,
    /// `c` of `c * tanh(logits / c)`, or 0.
    pub logit_softcap: f64,
    /// Whether the head is the embedding; `None` where it is so without a head among the weights.
    pub tied: Option<bool>,
    /// Which projections have biases.
    pub biases: Biases,
}

/// Which projections have biases: as the model says, or `None` for those that have one among the weights.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Biases {
    /// Queries, keys and values.
    pub attention: Option<bool>,
    /// What attention gives.
    pub output: Option<bool>,
    /// The feed-forward part.
    pub forward: Option<bool>,
}

/// One layer.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of a query or key head.
    pub head_size: usize,
    /// Features of a value head.
    pub value_size: usize,
    /// Features inside the feed-forward part, or inside one expert.
    pub inner: usize,
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// `c` of `c * tanh(scores / c)`, or 0.
    pub softcap: f64,
    /// How many tokens are seen at most, 0 for all.
    pub window: usize,
    /// Which rotary embedding turns queries and keys; `None` for layers without positions.
    pub rope: Option<usize>,
    /// Normalization of queries and keys.
    pub qk_norm: QkNorm,
    /// A limit on the magnitude of queries, keys and values, or 0.
    pub qkv_clip: f64,
    /// The mixture that takes the place of the feed-forward part.
    pub experts: Option<Experts>,
}

/// A mixture of experts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a token uses.
    pub used: usize,
    /// True where the weights of the used ones are divided by their sum.
    pub normalized: bool,
}

/// A normalization over the features.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    /// True for layer normalization, false for root mean square.
    pub centered: bool,
    /// Added to the mean of squares.
    pub epsilon: f64,
    /// Added to the stored weight.
    pub offset: f64,
}

/// Where a layer normalizes and how attention `A` and feed-forward `F` are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockOrder {
    /// `x += A(norm(x)); x += F(norm(x))`.
    Before,
    /// `x += norm(A(x)); x += norm(F(x))`.
    After,
    /// `x += norm(A(norm(x))); x += norm(F(norm(x)))`.
    Around,
    /// `x += A(norm(x)) + F(norm'(x))`.
    Parallel,
    /// `x += A(n) + F(n)` with `n = norm(x)`.
    ParallelShared,
}

/// Normalization of queries and keys before the rotary embedding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QkNorm {
    /// None.
    None,
    /// Over the features of each head, one weight for all heads.
    Head,
    /// Over the features of each head, a weight for each head.
    EachHead,
    /// Over the features of all heads together.
    Whole,
}

/// Nonlinearities of feed-forward parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// The approximation of it with tanh.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The activation that configurations call by this name.
    pub fn named(name: &str) -> Option<Activation> {
        Some(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            _ => return None,
        })
    }

    /// For descriptions.
    fn text(self) -> &'static str {
        match self {
            Activation::Silu => "SiLU",
            Activation::Gelu => "GELU",
            Activation::GeluTanh => "GELU by tanh",
            Activation::Relu => "ReLU",
        }
    }
}

impl BlockOrder {
    /// For descriptions.
    fn text(self) -> &'static str {
        match self {
            BlockOrder::Before => "before each part",
            BlockOrder::After => "behind each part",
            BlockOrder::Around => "before and behind each part",
            BlockOrder::Parallel => "before parallel parts",
            BlockOrder::ParallelShared => "one before parallel parts",
        }
    }
}

impl QkNorm {
    /// For descriptions.
    fn text(self) -> &'static str {
        match self {
            QkNorm::None => "not at all",
            QkNorm::Head => "by head",
            QkNorm::EachHead => "by head, each with its own weight",
            QkNorm::Whole => "as a whole",
        }
    }
}

impl Decoder {
    /// Key and value elements that a token adds to the cache, over all layers.
    pub fn cache_elements(&self) -> usize {
        self.layers.iter().map(|layer| layer.kv_heads * (layer.head_size + layer.value_size)).sum()
    }
}

impl fmt::Display for Decoder {
    /// The description that `tcc check` and `tcc inspect` print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} layers, width {}, vocabulary {}, context {}",
            self.family,
            self.layers.len(),
            self.width,
            self.vocabulary,
            self.context
        )?;
        let centered = if self.norm.centered { "layer" } else { "root mean square" };
        // Files hold the epsilon in f32, whose shortest form is the number that was meant.
        writeln!(f, "  norm: {centered}, epsilon {:e}, {}", self.norm.epsilon as f32, self.order.text())?;
        let gated = if self.gated { ", gated" } else { "" };
        writeln!(f, "  activation: {}{gated}", self.activation.text())?;
        for (name, value, neutral) in [
            ("embedding scale", self.embedding_scale, 1.0),
            ("residual scale", self.residual_scale, 1.0),
            ("logit scale", self.logit_scale, 1.0),
            ("logit soft cap", self.logit_softcap, 0.0),
        ] {
            if value != neutral {
                writeln!(f, "  {name}: {value}")?;
            }
        }
        if self.learned_positions {
            writeln!(f, "  positions: learned")?;
        }
        for (index, rope) in self.ropes.iter().enumerate() {
            writeln!(f, "  rope {index}: {rope}")?;
        }
        // Layers that are alike are one line.
        let mut first = 0;
        while first < self.layers.len() {
            let layer = &self.layers[first];
            let end = first + self.layers[first..].iter().take_while(|next| *next == layer).count();
            match end - first {
                1 => write!(f, "  layer {first}: ")?,
                _ => write!(f, "  layers {first} to {}: ", end - 1)?,
            }
            writeln!(f, "{layer}")?;
            first = end;
        }
        write!(f, "  cache: {} numbers a token", self.cache_elements())
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} heads of {}, {} for keys and values", self.heads, self.head_size, self.kv_heads)?;
        if self.value_size != self.head_size {
            write!(f, " of {}", self.value_size)?;
        }
        if self.window > 0 {
            write!(f, ", window {}", self.window)?;
        }
        match self.rope {
            Some(rope) => write!(f, ", rope {rope}")?,
            None => write!(f, ", no rope")?,
        }
        if self.softcap > 0.0 {
            write!(f, ", soft cap {}", self.softcap)?;
        }
        if self.qk_norm != QkNorm::None {
            write!(f, ", queries and keys normalized {}", self.qk_norm.text())?;
        }
        match self.experts {
            Some(experts) => {
                write!(f, ", {} of {} experts of {}", experts.used, experts.count, self.inner)
            }
            None => write!(f, ", feed-forward {}", self.inner),
        }
    }
}
