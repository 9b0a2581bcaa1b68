//! The description from the metadata of a GGUF file.

use super::decoder::{BlockOrder, Decoder, Experts};
use super::error::{LanguageModelError, Result};
use super::family::{self, Family, Windows};
use super::names::Role;
use super::rope::{Rope, Scaling, long_attention, yarn_attention};
use super::shape::{self, Constants, Pattern, Ropes, Sizes};
use super::values::{Entry, Values};
use super::weights::Weights;
use crate::gguf::{Gguf, Value};
use tcc_ir::convert;

const SOURCE: &str = "the metadata";
/// Lists longer than this are no lists of layers; vocabularies are read elsewhere.
const MAX_LIST: usize = 1 << 16;

fn entry(value: &Value) -> Entry {
    match value {
        Value::Unsigned(value) => Entry::Number(*value as f64, true),
        Value::Signed(value) => Entry::Number(*value as f64, true),
        Value::Float(value) => Entry::Number(*value, false),
        Value::Bool(value) => Entry::Truth(*value),
        Value::Text(text) => Entry::Text(text.clone()),
        Value::Array(array) => match array.values() {
            Some(values) if array.len() <= MAX_LIST => {
                Entry::List(values.map(|value| entry(&value)).collect())
            }
            _ => Entry::Other,
        },
    }
}

/// The family of a file.
///
/// # Errors
/// The architecture is missing or unknown.
pub(super) fn family(file: &Gguf) -> Result<&'static Family> {
    let name = file.value("general.architecture").and_then(Value::text);
    let name = name.ok_or_else(|| LanguageModelError::MissingValue {
        source_name: SOURCE,
        key: "general.architecture".into(),
    })?;
    family::of_architecture(name).ok_or_else(|| LanguageModelError::Architecture(name.to_owned()))
}

/// The description of a file's model.
pub(super) fn decoder(file: &Gguf, family: &'static Family, weights: &Weights) -> Result<Decoder> {
    let name = file.value("general.architecture").and_then(Value::text).unwrap_or_default();
    let values = Values {
        source_name: SOURCE,
        get: Box::new(move |key| {
            let key = format!("{name}.{key}");
            file.value(&key).map(entry)
        }),
    };
    let layers = values.required(&["block_count"])?;
    if layers > weights.count() {
        let reason = format!("{layers}, and the file has {} tensors", weights.count());
        return Err(values.refuse("block_count", reason));
    }
    let sizes = sizes(file, family, &values, layers)?;
    let window = values.count(&["attention.sliding_window"])?.unwrap_or(0);
    let windows = match values.size(&["attention.sliding_window_pattern"]) {
        Ok(Some(interval)) => Windows::AllBut(interval),
        _ => family.windows,
    };
    let windowed = match values.list(&["attention.sliding_window_pattern"]) {
        Ok(Some(flags)) if flags.len() == layers => {
            flags.iter().map(|flag| *flag == Entry::Truth(true)).collect()
        }
        _ => shape::windowed(windows, layers, 0),
    };
    let pattern = Pattern { window, windowed, rotated: shape::rotated(family.unrotated_interval, layers) };
    let epsilon = values.positive(&["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"])?;
    let wide = family.gguf_wide_scale_layers == Some(layers);
    let constants = Constants {
        epsilon: epsilon.ok_or_else(|| values.missing(&["attention.layer_norm_rms_epsilon"]))?,
        norm_offset: 0.0,
        scale: match values.positive(&["attention.scale"])? {
            None if wide => Some((sizes.heads[0] as f64 / sizes.width as f64).sqrt()),
            scale => scale,
        },
        softcap: values.number(&["attn_logit_softcapping"])?.unwrap_or(family.gguf_softcaps.0),
        qkv_clip: values.number(&["attention.clamp_kqv"])?.unwrap_or(0.0),
        scale_by_layer: false,
    };
    let ropes = ropes(family, &values, &sizes, weights)?;
    let mut decoder = shape::decoder(family, &values, &sizes, &pattern, &constants, ropes)?;
    decoder.order = shape::order(family, values.truth(&["use_parallel_residual"])?);
    // Converters write the flag for models that have a norm of their own for each part, too.
    if decoder.order == BlockOrder::ParallelShared && weights.has(Role::ForwardNorm, 0, ".weight") {
        decoder.order = BlockOrder::Before;
    }
    shape::set_qk_norm(&mut decoder, weights.has(Role::QueryNorm, 0, ".weight"));
    decoder.embedding_scale *= values.positive(&["embedding_scale"])?.unwrap_or(1.0);
    decoder.residual_scale = values.positive(&["residual_scale"])?.unwrap_or(1.0);
    decoder.logit_scale = 1.0 / values.positive(&["logit_scale"])?.unwrap_or(1.0);
    decoder.logit_softcap = values.number(&["final_logit_softcapping"])?.unwrap_or(family.gguf_softcaps.1);
    Ok(decoder)
}

fn sizes(file: &Gguf, family: &Family, values: &Values<'_>, layers: usize) -> Result<Sizes> {
    let width = values.required(&["embedding_length"])?;
    let heads = values.sizes(&["attention.head_count"], layers)?;
    let heads = heads.ok_or_else(|| values.missing(&["attention.head_count"]))?;
    let kv_heads = values.sizes(&["attention.head_count_kv"], layers)?.unwrap_or_else(|| heads.clone());
    let head_size = match values.size(&["attention.key_length"])? {
        Some(size) => size,
        None => shape::head_size(values, width, heads[0])?,
    };
    let inner = values.sizes(&["feed_forward_length"], layers)?;
    let count = values.count(&["expert_count"])?.unwrap_or(0);
    let experts = match count {
        0 => None,
        count => Some(Experts {
            count,
            used: values.required(&["expert_used_count"])?,
            normalized: values.truth(&["expert_weights_norm"])?.unwrap_or(family.normalized_experts),
        }),
    };
    let expert_inner = match (values.size(&["expert_feed_forward_length"])?, &inner) {
        (Some(size), _) => size,
        (None, Some(inner)) => inner[0],
        (None, None) => return Err(values.missing(&["feed_forward_length"])),
    };
    let embedding = file.tensors.get("token_embd.weight");
    let vocabulary = embedding.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    let tokens = file.value("tokenizer.ggml.tokens").and_then(Value::array).map(|tokens| tokens.len());
    if let (Some(tokens), Some(_)) = (tokens.filter(|tokens| *tokens != vocabulary), embedding) {
        let reason = format!("{tokens} tokens, and 'token_embd.weight' has {vocabulary} rows");
        return Err(values.refuse("tokenizer.ggml.tokens", reason));
    }
    Ok(Sizes {
        vocabulary,
        width,
        context: values.required(&["context_length"])?,
        heads,
        kv_heads,
        head_size,
        value_size: values.size(&["attention.value_length"])?.unwrap_or(head_size),
        inner: inner.unwrap_or_else(|| vec![expert_inner; layers]),
        expert_inner,
        experts: vec![experts; layers],
    })
}

fn ropes(family: &Family, values: &Values<'_>, sizes: &Sizes, weights: &Weights) -> Result<Ropes> {
    if family.learned_positions {
        return Ok(Ropes::None);
    }
    let size = match values.size(&["rope.dimension_count"])? {
        Some(size) => size,
        None => (sizes.head_size as f64 * family.rotary_fraction) as usize,
    };
    let size = shape::rotary_size(values, size, sizes.head_size)?;
    let theta = values.positive(&["rope.freq_base"])?.unwrap_or(10_000.0);
    let scaling = scaling(values, size, sizes.context, weights)?;
    let global = Rope { size, theta, interleaved: family.gguf_interleaved, scaling };
    let Some(local_theta) = family.local_theta else { return Ok(Ropes::One(global)) };
    let theta = values.positive(&["rope.freq_base_swa"])?.unwrap_or(local_theta);
    let local = Rope { theta, scaling: Scaling::None, ..global.clone() };
    Ok(Ropes::Local { global, local })
}

fn scaling(values: &Values<'_>, size: usize, context: usize, weights: &Weights) -> Result<Scaling> {
    let divisors = |role: Role| -> Result<Option<Vec<f64>>> {
        let data = weights.plain(role, 0, ".weight", &[size / 2], "one for each pair of turned features")?;
        let Some(data) = data else { return Ok(None) };
        let divisors: Vec<f64> = (0..data.count())
            .filter_map(|index| convert::element(&data, index))
            .map(|scalar| scalar.as_f64())
            .collect();
        if divisors.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0) {
            return Ok(Some(divisors));
        }
        Err(values.refuse("rope factors", "expected finite numbers above 0"))
    };
    let trained = values.positive(&["rope.scaling.original_context_length"])?.unwrap_or(context as f64);
    let attention = values.positive(&["rope.scaling.attn_factor"])?;
    if let (Some(short), Some(long)) = (divisors(Role::RopeShort)?, divisors(Role::RopeLong)?) {
        let factor = context as f64 / trained;
        let attention = attention.unwrap_or_else(|| long_attention(factor, trained));
        return Ok(Scaling::Long { short, long, trained, attention });
    }
    if let Some(divisors) = divisors(Role::RopeFactors)? {
        return Ok(Scaling::Factors { divisors });
    }
    let factor = values.positive(&["rope.scaling.factor", "rope.scale_linear"])?;
    let kind = values.text(&["rope.scaling.type"])?;
    match (kind.as_deref(), factor) {
        (Some("none"), _) | (None | Some("linear"), None) => Ok(Scaling::None),
        (None | Some("linear"), Some(factor)) => Ok(Scaling::Linear { factor }),
        (Some("yarn"), Some(factor)) => Ok(Scaling::Yarn {
            factor,
            trained,
            fast: values.positive(&["rope.scaling.yarn_beta_fast"])?.unwrap_or(32.0),
            slow: values.positive(&["rope.scaling.yarn_beta_slow"])?.unwrap_or(1.0),
            truncate: true,
            attention: attention.unwrap_or(1.0) * yarn_attention(factor),
        }),
        (Some("yarn"), None) => Err(values.missing(&["rope.scaling.factor"])),
        (Some(other), _) => {
            Err(values.refuse("rope.scaling.type", format!("'{other}'; known: none, linear, yarn, longrope")))
        }
    }
}
