//! What configurations of both kinds have in common: from sizes to layers.

use super::decoder::{Biases, BlockOrder, Decoder, Experts, Layer, Norm, QkNorm};
use super::error::Result;
use super::family::{Family, Windows};
use super::rope::Rope;
use super::values::Values;

/// The most positions that rotary tables are made for.
const MAX_CONTEXT: usize = 1 << 24;

/// Sizes of a model; lists have one entry a layer.
pub(super) struct Sizes {
    pub(super) vocabulary: usize,
    pub(super) width: usize,
    pub(super) context: usize,
    pub(super) heads: Vec<usize>,
    pub(super) kv_heads: Vec<usize>,
    pub(super) head_size: usize,
    pub(super) value_size: usize,
    /// Of the feed-forward part of a layer without experts.
    pub(super) inner: Vec<usize>,
    /// Of an expert.
    pub(super) expert_inner: usize,
    pub(super) experts: Vec<Option<Experts>>,
}

/// What layers differ in besides sizes.
pub(super) struct Pattern {
    /// Tokens seen by layers with a window, 0: no layer has one.
    pub(super) window: usize,
    /// Which layers have it.
    pub(super) windowed: Vec<bool>,
    /// Which layers turn queries and keys.
    pub(super) rotated: Vec<bool>,
}

/// Constants of a model.
pub(super) struct Constants {
    pub(super) epsilon: f64,
    pub(super) norm_offset: f64,
    /// Factor on the scores; `None`: one over the square root of the head size.
    pub(super) scale: Option<f64>,
    pub(super) softcap: f64,
    pub(super) qkv_clip: f64,
    /// The factor on the scores is divided by the number of the layer, counted from 1.
    pub(super) scale_by_layer: bool,
}

/// Puts layers together.
///
/// # Errors
/// Head counts do not divide, or the context is longer than any table.
pub(super) fn decoder(
    family: &'static Family,
    values: &Values<'_>,
    sizes: &Sizes,
    pattern: &Pattern,
    constants: &Constants,
    ropes: Ropes,
) -> Result<Decoder> {
    if sizes.context > MAX_CONTEXT {
        return Err(values.refuse("context length", format!("{}, at most {MAX_CONTEXT}", sizes.context)));
    }
    let (ropes, local) = match ropes {
        Ropes::None => (Vec::new(), 0),
        Ropes::One(rope) => (vec![rope], 0),
        Ropes::Local { global, local } => (vec![global, local], 1),
    };
    let mut layers = Vec::with_capacity(sizes.heads.len());
    for index in 0..sizes.heads.len() {
        let (heads, kv_heads) = (sizes.heads[index], sizes.kv_heads[index]);
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{heads} query heads in layer {index}, no multiple of {kv_heads} key heads");
            return Err(values.refuse("attention heads", reason));
        }
        if let Some(experts) = sizes.experts[index]
            && experts.used > experts.count
        {
            let reason = format!("{} used of {}", experts.used, experts.count);
            return Err(values.refuse("experts", reason));
        }
        let windowed = pattern.window > 0 && pattern.windowed[index];
        let scale = constants.scale.unwrap_or_else(|| 1.0 / (sizes.head_size as f64).sqrt());
        let rope = (!ropes.is_empty() && pattern.rotated[index]).then_some(if windowed { local } else { 0 });
        layers.push(Layer {
            heads,
            kv_heads,
            head_size: sizes.head_size,
            value_size: sizes.value_size,
            inner: if sizes.experts[index].is_some() { sizes.expert_inner } else { sizes.inner[index] },
            scale: if constants.scale_by_layer { scale / (index + 1) as f64 } else { scale },
            softcap: constants.softcap,
            window: if windowed { pattern.window } else { 0 },
            rope,
            qk_norm: family.qk_norm,
            qkv_clip: constants.qkv_clip,
            experts: sizes.experts[index],
        });
    }
    Ok(Decoder {
        family: family.name,
        vocabulary: sizes.vocabulary,
        width: sizes.width,
        context: sizes.context,
        layers,
        ropes,
        learned_positions: family.learned_positions,
        norm: Norm {
            centered: family.centered_norm,
            epsilon: constants.epsilon,
            offset: constants.norm_offset,
        },
        order: family.order,
        activation: family.activation,
        gated: family.gated,
        embedding_scale: if family.scaled_embedding { (sizes.width as f64).sqrt() } else { 1.0 },
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: 0.0,
        tied: None,
        biases: Biases::default(),
    })
}

/// The rotary embeddings of a model.
pub(super) enum Ropes {
    /// None: positions are learned.
    None,
    /// One for all layers.
    One(Rope),
    /// Another one for layers with a window.
    Local {
        /// Of the other layers.
        global: Rope,
        /// Of layers with a window.
        local: Rope,
    },
}

/// Size of a head where only the width is given.
pub(super) fn head_size(values: &Values<'_>, width: usize, heads: usize) -> Result<usize> {
    if width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(values.refuse("attention heads", format!("{heads}, which do not divide the width {width}")))
}

/// Checks the number of turned features.
pub(super) fn rotary_size(values: &Values<'_>, size: usize, head_size: usize) -> Result<usize> {
    if size > 0 && size.is_multiple_of(2) && size <= head_size {
        return Ok(size);
    }
    let reason = format!("{size} turned features of heads of {head_size}, expected an even number up to it");
    Err(values.refuse("rotary embedding", reason))
}

/// Which layers have a window, where only the family says so.
pub(super) fn windowed(windows: Windows, layers: usize, first: usize) -> Vec<bool> {
    (0..layers)
        .map(|layer| match windows {
            Windows::All => true,
            Windows::AllBut(interval) => interval == 0 || !(layer + 1).is_multiple_of(interval),
            Windows::Upper => layer >= first,
        })
        .collect()
}

/// Which layers turn queries and keys, where every so many one does not.
pub(super) fn rotated(interval: usize, layers: usize) -> Vec<bool> {
    (0..layers).map(|layer| interval == 0 || !(layer + 1).is_multiple_of(interval)).collect()
}

/// How the parts of a layer are joined; `parallel` as the model says.
pub(super) fn order(family: &Family, parallel: Option<bool>) -> BlockOrder {
    match parallel {
        None => family.order,
        Some(true) => family.parallel,
        Some(false) => BlockOrder::Before,
    }
}

/// Norms of each head only where the model has them.
pub(super) fn set_qk_norm(decoder: &mut Decoder, present: bool) {
    for layer in &mut decoder.layers {
        if layer.qk_norm == QkNorm::EachHead && !present {
            layer.qk_norm = QkNorm::None;
        }
    }
}
