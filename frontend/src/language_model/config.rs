//! The description from a Hugging Face `config.json`.

use super::decoder::{Activation, Biases, Decoder, Experts};
use super::error::{LanguageModelError, Result};
use super::family::{self, Family};
use super::packed::Packing;
use super::rope::{Rope, Scaling, long_attention, yarn_attention};
use super::shape::{self, Constants, Pattern, Ropes, Sizes};
use super::values::{Entry, Values};
use serde_json::Value;

const FILE: &str = "config.json";

/// A configuration, of the text part where there are several.
pub(super) struct Config<'c> {
    root: &'c Value,
    text: &'c Value,
}

fn entry(value: &Value) -> Option<Entry> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Entry::Truth(*value),
        Value::Number(number) => {
            Entry::Number(number.as_f64().unwrap_or(f64::NAN), number.is_u64() || number.is_i64())
        }
        Value::String(text) => Entry::Text(text.clone()),
        Value::Array(items) => {
            Entry::List(items.iter().map(|item| entry(item).unwrap_or(Entry::Other)).collect())
        }
        Value::Object(_) => Entry::Other,
    })
}

fn values(object: &Value) -> Values<'_> {
    Values { source_name: FILE, get: Box::new(|key| object.get(key).and_then(entry)) }
}

impl<'c> Config<'c> {
    /// The configuration and the family that it belongs to.
    ///
    /// # Errors
    /// The model type is missing or unknown.
    pub(super) fn new(root: &'c Value) -> Result<(Config<'c>, &'static Family)> {
        let text = root.get("text_config").filter(|text| text.is_object()).unwrap_or(root);
        let name = values(text).text(&["model_type"])?.or(values(root).text(&["model_type"])?);
        let name = name.ok_or_else(|| values(root).missing(&["model_type"]))?;
        let family = family::of_model_type(&name).ok_or(LanguageModelError::Architecture(name))?;
        Ok((Config { root, text }, family))
    }

    /// The description of the model; there cannot be more layers than `most`.
    pub(super) fn decoder(&self, family: &'static Family, most: usize) -> Result<Decoder> {
        let values = values(self.text);
        let layers = values.required(&["num_hidden_layers", "n_layer"])?;
        if layers > most {
            let reason = format!("{layers}, and the weights have {most} tensors");
            return Err(values.refuse("num_hidden_layers", reason));
        }
        let sizes = self.sizes(family, &values, layers)?;
        let pattern = self.pattern(family, &values, layers)?;
        let epsilon =
            values.positive(&["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])?;
        let unscaled = values.truth(&["scale_attn_weights"])? == Some(false);
        let scale = match values.positive(&["query_pre_attn_scalar"])? {
            Some(scalar) => Some(1.0 / scalar.sqrt()),
            None if unscaled => Some(1.0),
            None => values.positive(&["attention_multiplier"])?,
        };
        let constants = Constants {
            epsilon: epsilon.ok_or_else(|| values.missing(&["rms_norm_eps", "layer_norm_eps"]))?,
            norm_offset: family.norm_offset,
            scale,
            softcap: values.number(&["attn_logit_softcapping"])?.unwrap_or(0.0),
            qkv_clip: values.number(&["clip_qkv"])?.unwrap_or(0.0),
            scale_by_layer: values.truth(&["scale_attn_by_inverse_layer_idx"])?.unwrap_or(false),
        };
        let ropes = self.ropes(family, &values, &sizes)?;
        let mut decoder = shape::decoder(family, &values, &sizes, &pattern, &constants, ropes)?;
        decoder.order = shape::order(family, values.truth(&["use_parallel_residual"])?);
        shape::set_qk_norm(&mut decoder, values.truth(&["qk_layernorm"])?.unwrap_or(false));
        if let Some(name) = values.text(&["hidden_activation", "hidden_act", "activation_function"])? {
            let unknown = || values.refuse("hidden_act", format!("'{name}', which is not supported"));
            decoder.activation = Activation::named(&name).ok_or_else(unknown)?;
        }
        decoder.embedding_scale *= values.number(&["embedding_multiplier"])?.unwrap_or(1.0);
        decoder.residual_scale = values.number(&["residual_multiplier"])?.unwrap_or(1.0);
        decoder.logit_scale = 1.0 / values.positive(&["logits_scaling"])?.unwrap_or(1.0);
        decoder.logit_softcap = values.number(&["final_logit_softcapping"])?.unwrap_or(0.0);
        let root = self::values(self.root);
        let tied = values.truth(&["tie_word_embeddings"])?.or(root.truth(&["tie_word_embeddings"])?);
        decoder.tied = Some(tied.unwrap_or(family.tied));
        let attention = values.truth(&["attention_bias", "use_bias"])?;
        decoder.biases = Biases {
            attention: values.truth(&["use_qkv_bias"])?.or(attention),
            output: attention,
            forward: values.truth(&["mlp_bias", "use_bias"])?,
        };
        Ok(decoder)
    }

    fn sizes(&self, family: &Family, values: &Values<'_>, layers: usize) -> Result<Sizes> {
        let width = values.required(&["hidden_size", "n_embd"])?;
        let heads = values.required(&["num_attention_heads", "n_head"])?;
        let head_size = match values.size(&["head_dim"])? {
            Some(size) => size,
            None => shape::head_size(values, width, heads)?,
        };
        let inner = values.size(&["intermediate_size", "n_inner"])?.unwrap_or(4 * width);
        let count = values.size(&["num_local_experts", "num_experts"])?;
        let used = values.size(&["num_experts_per_tok"])?;
        let normalized = values.truth(&["norm_topk_prob"])?.unwrap_or(family.normalized_experts);
        let step = values.size(&["decoder_sparse_step"])?.unwrap_or(1);
        let dense = values.numbers(&["mlp_only_layers"])?.unwrap_or_default();
        let experts = (0..layers)
            .map(|layer| {
                let sparse = (layer + 1).is_multiple_of(step) && !dense.contains(&(layer as f64));
                Ok(match (count, used) {
                    (Some(count), Some(used)) if sparse => Some(Experts { count, used, normalized }),
                    (Some(_), None) => return Err(values.missing(&["num_experts_per_tok"])),
                    _ => None,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Sizes {
            vocabulary: values.required(&["vocab_size"])?,
            width,
            context: values.required(&["max_position_embeddings", "n_positions", "n_ctx"])?,
            heads: vec![heads; layers],
            kv_heads: vec![values.size(&["num_key_value_heads"])?.unwrap_or(heads); layers],
            head_size,
            value_size: head_size,
            inner: vec![inner; layers],
            expert_inner: values.size(&["moe_intermediate_size"])?.unwrap_or(inner),
            experts,
        })
    }

    fn pattern(&self, family: &Family, values: &Values<'_>, layers: usize) -> Result<Pattern> {
        let on = values
            .truth(&["use_sliding_window"])?
            .unwrap_or(!matches!(family.windows, family::Windows::Upper));
        let window = values.count(&["sliding_window"])?.filter(|_| on).unwrap_or(0);
        let windowed = match values.list(&["layer_types"])? {
            Some(types) if types.len() == layers => types
                .iter()
                .map(|kind| match kind {
                    Entry::Text(kind) if kind == "full_attention" => Ok(false),
                    Entry::Text(kind) if kind == "sliding_attention" => Ok(true),
                    other => Err(values.refuse("layer_types", format!("{other:?}, which is not supported"))),
                })
                .collect::<Result<Vec<bool>>>()?,
            Some(types) => {
                return Err(
                    values.refuse("layer_types", format!("{} values for {layers} layers", types.len()))
                );
            }
            None => {
                let windows = match values.size(&["sliding_window_pattern"])? {
                    Some(interval) => family::Windows::AllBut(interval),
                    None => family.windows,
                };
                let first = values.count(&["max_window_layers"])?.unwrap_or(0);
                shape::windowed(windows, layers, first)
            }
        };
        let rotated = match values.numbers(&["no_rope_layers"])? {
            Some(flags) if flags.len() == layers => flags.iter().map(|flag| *flag != 0.0).collect(),
            Some(flags) => {
                return Err(
                    values.refuse("no_rope_layers", format!("{} values for {layers} layers", flags.len()))
                );
            }
            None => {
                let interval =
                    values.count(&["no_rope_layer_interval"])?.unwrap_or(family.unrotated_interval);
                shape::rotated(interval, layers)
            }
        };
        Ok(Pattern { window, windowed, rotated })
    }

    fn ropes(&self, family: &Family, values: &Values<'_>, sizes: &Sizes) -> Result<Ropes> {
        if family.learned_positions {
            return Ok(Ropes::None);
        }
        // Newer configurations hold everything in `rope_parameters`, by the type of layer where types differ.
        let parameters = self.text.get("rope_parameters").filter(|value| value.is_object());
        let by_type = |name: &str| parameters.and_then(|all| all.get(name)).filter(|value| value.is_object());
        let global = by_type("full_attention").or(parameters);
        let scaling = global.or(self.text.get("rope_scaling").filter(|value| value.is_object()));
        let theta = ["rope_theta", "rotary_emb_base"];
        let rope = |own: Option<&Value>, fallback: f64, scaling: Option<&Value>| -> Result<Rope> {
            let own_theta = own.map(|own| self::values(own).positive(&theta)).transpose()?.flatten();
            let own_part =
                own.map(|own| self::values(own).positive(&["partial_rotary_factor"])).transpose()?;
            let part = match own_part.flatten() {
                Some(part) => Some(part),
                None => values.positive(&["partial_rotary_factor", "rotary_pct"])?,
            };
            let size = (sizes.head_size as f64 * part.unwrap_or(family.rotary_fraction)) as usize;
            let size = shape::rotary_size(values, size, sizes.head_size)?;
            let scaling = match scaling {
                Some(object) => self.scaling(&self::values(object), values, size, sizes.context)?,
                None => Scaling::None,
            };
            Ok(Rope { size, theta: own_theta.unwrap_or(fallback), interleaved: false, scaling })
        };
        let base = values.positive(&theta)?.unwrap_or(10_000.0);
        let global = rope(global, base, scaling)?;
        let Some(local_theta) = family.local_theta else { return Ok(Ropes::One(global)) };
        let local = by_type("sliding_attention");
        let local_theta = values.positive(&["rope_local_base_freq"])?.unwrap_or(local_theta);
        Ok(Ropes::Local { global, local: rope(local, local_theta, local)? })
    }

    fn scaling(&self, own: &Values<'_>, values: &Values<'_>, size: usize, context: usize) -> Result<Scaling> {
        let kind = own.text(&["rope_type", "type"])?.unwrap_or_else(|| "default".into());
        let given = own.positive(&["factor"])?;
        let original = own.positive(&["original_max_position_embeddings"])?;
        let original = original.or(values.positive(&["original_max_position_embeddings"])?);
        let trained = original.unwrap_or(context as f64);
        let factor = || given.ok_or_else(|| own.missing(&["factor"]));
        let number = |key: &str| own.positive(&[key])?.ok_or_else(|| own.missing(&[key]));
        let attention = own.positive(&["attention_factor"])?;
        Ok(match kind.as_str() {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: factor()? },
            "dynamic" => Scaling::Dynamic { factor: factor()?, trained },
            "llama3" => Scaling::Llama3 {
                factor: factor()?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                trained: original.ok_or_else(|| own.missing(&["original_max_position_embeddings"]))?,
            },
            "yarn" => {
                let factor = given.unwrap_or(context as f64 / trained);
                // One factor for the scores and one for the values, of which cosine and sine get the quotient.
                let scales = (own.positive(&["mscale"])?, own.positive(&["mscale_all_dim"])?);
                let weighted =
                    |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
                let default = match scales {
                    (Some(scores), Some(all)) => weighted(scores) / weighted(all),
                    _ => yarn_attention(factor),
                };
                Scaling::Yarn {
                    factor,
                    trained,
                    fast: own.positive(&["beta_fast"])?.unwrap_or(32.0),
                    slow: own.positive(&["beta_slow"])?.unwrap_or(1.0),
                    truncate: own.truth(&["truncate"])?.unwrap_or(true),
                    attention: attention.unwrap_or(default),
                }
            }
            "longrope" | "su" => {
                let factors = |key: &str| -> Result<Vec<f64>> {
                    let factors = own.numbers(&[key])?.ok_or_else(|| own.missing(&[key]))?;
                    if factors.len() == size / 2 && factors.iter().all(|factor| *factor > 0.0) {
                        return Ok(factors);
                    }
                    Err(own.refuse(key, format!("{} factors, expected {} above 0", factors.len(), size / 2)))
                };
                let factor = original.map_or(given.unwrap_or(1.0), |original| context as f64 / original);
                Scaling::Long {
                    short: factors("short_factor")?,
                    long: factors("long_factor")?,
                    trained,
                    attention: attention.unwrap_or_else(|| long_attention(factor, trained)),
                }
            }
            other => {
                let reason = format!("'{other}'; known: default, linear, dynamic, yarn, llama3, longrope");
                return Err(own.refuse("rope_type", reason));
            }
        })
    }

    /// How the weights are quantized.
    ///
    /// # Errors
    /// By a method that is not supported.
    pub(super) fn packing(&self) -> Result<Packing> {
        let object = [self.root, self.text].into_iter().find_map(|object| object.get("quantization_config"));
        let Some(object) = object.filter(|object| object.is_object()) else { return Ok(Packing::None) };
        let own = values(object);
        let method = own.text(&["quant_method"])?.unwrap_or_default();
        // -1 stands for one group of all inputs.
        let group = match own.number(&["group_size", "q_group_size"])? {
            Some(size) if size < 0.0 => 0,
            _ => own.size(&["group_size", "q_group_size"])?.unwrap_or(128),
        };
        match method.as_str() {
            "gptq" => Ok(Packing::Gptq {
                bits: own.size(&["bits"])?.unwrap_or(4),
                group,
                less_one: own.text(&["checkpoint_format"])?.as_deref() != Some("gptq_v2"),
            }),
            "awq" => match (own.text(&["version"])?.as_deref(), own.size(&["bits", "w_bit"])?) {
                (None | Some("gemm" | "GEMM"), None | Some(4)) => Ok(Packing::Awq { group }),
                (version, bits) => {
                    Err(own.refuse("quantization_config", format!("AWQ {version:?} of {bits:?} bits")))
                }
            },
            "fp8" | "fbgemm_fp8" | "compressed-tensors" => {
                let block = own.numbers(&["weight_block_size"])?;
                let block = match block.as_deref() {
                    None => [128, 128],
                    Some([rows, columns]) if *rows >= 1.0 && *columns >= 1.0 => {
                        [*rows as usize, *columns as usize]
                    }
                    Some(other) => return Err(own.refuse("weight_block_size", format!("{other:?}"))),
                };
                Ok(Packing::Float { block })
            }
            other => Err(own.refuse(
                "quant_method",
                format!(
                    "'{other}', which is not supported; known: gptq, awq, fp8, fbgemm_fp8, compressed-tensors"
                ),
            )),
        }
    }
}
