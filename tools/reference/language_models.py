"""Forward passes of tiny random language models in NumPy, written from the definitions of the families.

The definitions are the modeling files of the `transformers` library, in f64. `tools/language-model-reference` runs this
and writes one file a case under frontend/tests/language_models; the test there makes the same weights (`value`), both
as a Hugging Face folder and as a GGUF file in the form that the converters of llama.cpp give it, and compares logits.
"""

import math

import numpy as np

MASK = (1 << 64) - 1
KINDS = {"linear": (1.0, -0.5), "norm": (0.5, 0.75), "norm0": (0.5, -0.25), "bias": (0.5, -0.25), "embedding": (2.0, -1.0)}


def value(name, shape, kind):
    """Weights of a tensor: SplitMix64 on the FNV-1a hash of its name, 16 bits each, so that f32 holds them exactly."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    scale, shift = KINDS[kind]
    numbers = np.empty(math.prod(shape))
    for index in range(numbers.size):
        z = seed + (index + 1) * 0x9E3779B97F4A7C15 & MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        numbers[index] = ((z ^ z >> 31) >> 48) / 65536 * scale + shift
    return numbers.reshape(shape)


class Weights:
    """Makes tensors when they are asked for and remembers which."""

    def __init__(self):
        self.made = {}

    def __call__(self, name, shape, kind="linear"):
        self.made.setdefault(name, (list(shape), kind))
        return value(name, shape, kind)


# Parts.


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x, weight, bias, eps):
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered / np.sqrt(np.mean(centered * centered, axis=-1, keepdims=True) + eps) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rotate_half(x):
    half = x.shape[-1] // 2
    return np.concatenate([-x[..., half:], x[..., :half]], axis=-1)


def rotate(x, inverse, factor=1.0):
    """Rotary embedding of [tokens, heads, d] over its first features."""
    angles = np.outer(np.arange(len(x)), inverse)
    angles = np.concatenate([angles, angles], axis=-1)[:, None, :]
    size = angles.shape[-1]
    part, rest = x[..., :size], x[..., size:]
    part = part * (np.cos(angles) * factor) + rotate_half(part) * (np.sin(angles) * factor)
    return np.concatenate([part, rest], axis=-1)


def attend(q, k, v, scale, window=0, softcap=0.0):
    """Causal attention of [tokens, heads, d]; `window` tokens are seen, the own one included."""
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) * scale
    if softcap:
        scores = np.tanh(scores / softcap) * softcap
    t = np.arange(len(q))
    hidden = t[None, :] > t[:, None]
    if window:
        hidden |= t[None, :] <= t[:, None] - window
    scores = np.where(hidden[None], -np.inf, scores)
    return np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(len(q), -1)


def default_inverse(theta, size):
    return 1.0 / theta ** (np.arange(0, size, 2) / size)


def rope_parameters(config, size, context):
    """Inverse frequencies and attention factor, as modeling_rope_utils computes them."""
    theta, scaling = config.get("rope_theta", 10000.0), config.get("rope_scaling")
    inverse = default_inverse(theta, size)
    kind = (scaling or {}).get("rope_type", (scaling or {}).get("type", "default"))
    trained = config["max_position_embeddings"]
    if kind == "default":
        return inverse, 1.0
    if kind == "linear":
        return inverse / scaling["factor"], 1.0
    if kind == "dynamic":
        length = max(context, trained)
        base = theta * (scaling["factor"] * length / trained - (scaling["factor"] - 1)) ** (size / (size - 2))
        return default_inverse(base, size), 1.0
    if kind == "llama3":
        old, low, high = scaling["original_max_position_embeddings"], scaling["low_freq_factor"], scaling["high_freq_factor"]
        out = []
        for frequency in inverse:
            wave = 2 * math.pi / frequency
            if wave < old / high:
                out.append(frequency)
            elif wave > old / low:
                out.append(frequency / scaling["factor"])
            else:
                smooth = (old / wave - low) / (high - low)
                out.append((1 - smooth) * frequency / scaling["factor"] + smooth * frequency)
        return np.array(out), 1.0
    if kind == "yarn":
        old, factor = scaling["original_max_position_embeddings"], scaling["factor"]

        def dimension(rotations):
            return size * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(theta))

        low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), size - 1)
        if low == high:
            high += 0.001
        ramp = np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
        extrapolated = 1 - ramp
        return inverse / factor * (1 - extrapolated) + inverse * extrapolated, 0.1 * math.log(factor) + 1.0
    if kind == "longrope":
        old = config["original_max_position_embeddings"]
        factors = scaling["long_factor"] if context > old else scaling["short_factor"]
        factor = trained / old
        return inverse / np.array(factors), math.sqrt(1 + math.log(factor) / math.log(old))
    raise ValueError(kind)


def mixture(x, scores, experts, used, normalize):
    """The experts with the largest probabilities; `experts(e, row)` is what expert e makes of a token."""
    probabilities = softmax(scores)
    out = np.zeros_like(x)
    for token, row in enumerate(probabilities):
        chosen = np.argsort(-row, kind="stable")[:used]
        weights = row[chosen] / (row[chosen].sum() if normalize else 1.0)
        for expert, weight in zip(chosen, weights):
            out[token] += weight * experts(expert, x[token])
    return out


# Families: logits of every token.


def llama_like(config, w, tokens, context, *, qk_norm=None, qkv_bias=False, moe=None, post_norm=False):
    """Llama, Mistral, Qwen 2 and 3, SmolLM 3, Granite, OLMo 2, and their mixtures of experts."""
    width, heads, vocabulary = config["hidden_size"], config["num_attention_heads"], config["vocab_size"]
    kv_heads = config.get("num_key_value_heads", heads)
    size, eps = config.get("head_dim", width // heads), config["rms_norm_eps"]
    inverse, factor = rope_parameters(config, size, context)
    scale = config.get("attention_multiplier", size**-0.5)
    residual = config.get("residual_multiplier", 1.0)
    embedding = w("model.embed_tokens.weight", [vocabulary, width], "embedding")
    x = embedding[tokens] * config.get("embedding_multiplier", 1.0)
    bias = config.get("attention_bias", False)

    def linear(name, x, out, biased=False):
        y = x @ w(name + ".weight", [out, x.shape[-1]]).T
        return y + w(name + ".bias", [out], "bias") if biased else y

    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."

        def norm(name, x):
            return rms_norm(x, w(p + name + ".weight", [x.shape[-1]], "norm"), eps)

        h = x if post_norm else norm("input_layernorm", x)
        q = linear(p + "self_attn.q_proj", h, heads * size, qkv_bias or bias)
        k = linear(p + "self_attn.k_proj", h, kv_heads * size, qkv_bias or bias)
        v = linear(p + "self_attn.v_proj", h, kv_heads * size, qkv_bias or bias)
        if qk_norm == "whole":
            q, k = norm("self_attn.q_norm", q), norm("self_attn.k_norm", k)
        if config.get("clip_qkv"):
            q, k, v = (np.clip(part, -config["clip_qkv"], config["clip_qkv"]) for part in (q, k, v))
        q, k, v = (part.reshape(len(tokens), -1, size) for part in (q, k, v))
        if qk_norm == "head":
            q, k = norm("self_attn.q_norm", q), norm("self_attn.k_norm", k)
        flags = config.get("no_rope_layers")
        if flags is None or flags[layer]:
            q, k = rotate(q, inverse, factor), rotate(k, inverse, factor)
        window = config.get("sliding_window") or 0
        if "use_sliding_window" in config:
            window = window if config["use_sliding_window"] and layer >= config["max_window_layers"] else 0
        a = linear(p + "self_attn.o_proj", attend(q, k, v, scale, window), width, bias)
        x = x + residual * (norm("post_attention_layernorm", a) if post_norm else a)
        h = x if post_norm else norm("post_attention_layernorm", x)
        if moe and layer not in config.get("mlp_only_layers", []):
            names, router, inner = moe
            count = config.get("num_experts", config.get("num_local_experts"))
            scores = linear(p + router, h, count)

            def expert(e, row):
                gate, up, down = (p + name.format(e=e) + ".weight" for name in names)
                hidden = silu(w(gate, [config[inner], width]) @ row) * (w(up, [config[inner], width]) @ row)
                return w(down, [width, config[inner]]) @ hidden

            for e in range(count):  # experts that no token uses are in the files all the same
                expert(e, h[0])
            normalize = config.get("norm_topk_prob", True)
            f = mixture(h, scores, expert, config["num_experts_per_tok"], normalize)
        else:
            inner, biased = config["intermediate_size"], config.get("mlp_bias", False)
            gate = silu(linear(p + "mlp.gate_proj", h, inner, biased))
            f = linear(p + "mlp.down_proj", gate * linear(p + "mlp.up_proj", h, inner, biased), width, biased)
        x = x + residual * (norm("post_feedforward_layernorm", f) if post_norm else f)
    x = rms_norm(x, w("model.norm.weight", [width], "norm"), eps)
    head = embedding if config.get("tie_word_embeddings") else w("lm_head.weight", [vocabulary, width])
    return x @ head.T / config.get("logits_scaling", 1.0)


def gemma(config, w, tokens, context, *, third):
    """Gemma 2, and Gemma 3 where `third`."""
    width, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size, eps, inner = config["head_dim"], config["rms_norm_eps"], config["intermediate_size"]
    embedding = w("model.embed_tokens.weight", [config["vocab_size"], width], "embedding")
    x = embedding[tokens] * width**0.5
    full, _ = rope_parameters(config, size, context)
    local = default_inverse(config["rope_local_base_freq"], size) if third else full
    interval = config["sliding_window_pattern"] if third else 2
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."

        def norm(name, x):
            return rms_norm(x, 1 + w(p + name + ".weight", [x.shape[-1]], "norm0"), eps)

        sliding = (layer + 1) % interval != 0
        h = norm("input_layernorm", x)
        q, k, v = (
            (h @ w(p + f"self_attn.{name}_proj.weight", [count * size, width]).T).reshape(len(tokens), count, size)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        if third:
            q, k = norm("self_attn.q_norm", q), norm("self_attn.k_norm", k)
        inverse = local if sliding else full
        q, k = rotate(q, inverse), rotate(k, inverse)
        scale = config["query_pre_attn_scalar"] ** -0.5
        a = attend(q, k, v, scale, config["sliding_window"] if sliding else 0, config.get("attn_logit_softcapping") or 0.0)
        a = a @ w(p + "self_attn.o_proj.weight", [width, heads * size]).T
        x = x + norm("post_attention_layernorm", a)
        h = norm("pre_feedforward_layernorm", x)
        gate = gelu_tanh(h @ w(p + "mlp.gate_proj.weight", [inner, width]).T)
        f = (gate * (h @ w(p + "mlp.up_proj.weight", [inner, width]).T)) @ w(p + "mlp.down_proj.weight", [width, inner]).T
        x = x + norm("post_feedforward_layernorm", f)
    x = rms_norm(x, 1 + w("model.norm.weight", [width], "norm0"), eps)
    logits = x @ embedding.T
    cap = config.get("final_logit_softcapping")
    return np.tanh(logits / cap) * cap if cap else logits


def phi3(config, w, tokens, context):
    width, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size, eps, inner = width // heads, config["rms_norm_eps"], config["intermediate_size"]
    rotary = int(size * config.get("partial_rotary_factor", 1.0))
    inverse, factor = rope_parameters(config, rotary, context)
    x = w("model.embed_tokens.weight", [config["vocab_size"], width], "embedding")[tokens]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = rms_norm(x, w(p + "input_layernorm.weight", [width], "norm"), eps)
        qkv = h @ w(p + "self_attn.qkv_proj.weight", [(heads + 2 * kv_heads) * size, width]).T
        q, k, v = np.split(qkv, [heads * size, (heads + kv_heads) * size], axis=-1)
        q, k, v = (part.reshape(len(tokens), -1, size) for part in (q, k, v))
        q, k = rotate(q, inverse, factor), rotate(k, inverse, factor)
        a = attend(q, k, v, size**-0.5, config.get("sliding_window") or 0)
        x = x + a @ w(p + "self_attn.o_proj.weight", [width, heads * size]).T
        h = rms_norm(x, w(p + "post_attention_layernorm.weight", [width], "norm"), eps)
        gate, up = np.split(h @ w(p + "mlp.gate_up_proj.weight", [2 * inner, width]).T, 2, axis=-1)
        x = x + (up * silu(gate)) @ w(p + "mlp.down_proj.weight", [width, inner]).T
    x = rms_norm(x, w("model.norm.weight", [width], "norm"), eps)
    return x @ w("lm_head.weight", [config["vocab_size"], width]).T


def stablelm(config, w, tokens, context):
    width, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size, eps, inner = width // heads, config["layer_norm_eps"], config["intermediate_size"]
    inverse, _ = rope_parameters(config, int(size * config["partial_rotary_factor"]), context)
    x = w("model.embed_tokens.weight", [config["vocab_size"], width], "embedding")[tokens]

    def norm(name, x):
        return layer_norm(x, w(name + ".weight", [width], "norm"), w(name + ".bias", [width], "bias"), eps)

    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = norm(p + "input_layernorm", x)
        parts = []
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            y = h @ w(p + f"self_attn.{name}_proj.weight", [count * size, width]).T
            if config["use_qkv_bias"]:
                y = y + w(p + f"self_attn.{name}_proj.bias", [count * size], "bias")
            y = y.reshape(len(tokens), count, size)
            if config["qk_layernorm"] and name != "v":
                weights = [w(p + f"self_attn.{name}_layernorm.norms.{i}.weight", [size], "norm") for i in range(count)]
                y = layer_norm(y, np.stack(weights), 0.0, eps)
            parts.append(y)
        q, k, v = parts
        a = attend(rotate(q, inverse), rotate(k, inverse), v, size**-0.5)
        a = a @ w(p + "self_attn.o_proj.weight", [width, heads * size]).T

        def forward(h):
            gate = silu(h @ w(p + "mlp.gate_proj.weight", [inner, width]).T)
            return (gate * (h @ w(p + "mlp.up_proj.weight", [inner, width]).T)) @ w(p + "mlp.down_proj.weight", [width, inner]).T

        if config["use_parallel_residual"]:
            x = x + a + forward(h)
        else:
            x = x + a
            x = x + forward(norm(p + "post_attention_layernorm", x))
    return norm("model.norm", x) @ w("lm_head.weight", [config["vocab_size"], width]).T


def gpt2(config, w, tokens, context):
    width, heads, eps = config["n_embd"], config["n_head"], config["layer_norm_epsilon"]
    size, embedding = width // heads, w("transformer.wte.weight", [config["vocab_size"], width], "embedding")
    x = embedding[tokens] + w("transformer.wpe.weight", [config["n_positions"], width], "embedding")[: len(tokens)]

    def norm(name, x):
        return layer_norm(x, w(name + ".weight", [width], "norm"), w(name + ".bias", [width], "bias"), eps)

    def linear(name, x, out):  # Conv1D holds [in, out]
        return x @ w(name + ".weight", [x.shape[-1], out]) + w(name + ".bias", [out], "bias")

    for layer in range(config["n_layer"]):
        p = f"transformer.h.{layer}."
        q, k, v = np.split(linear(p + "attn.c_attn", norm(p + "ln_1", x), 3 * width), 3, axis=-1)
        a = attend(*(part.reshape(len(tokens), heads, size) for part in (q, k, v)), size**-0.5)
        x = x + linear(p + "attn.c_proj", a, width)
        x = x + linear(p + "mlp.c_proj", gelu_tanh(linear(p + "mlp.c_fc", norm(p + "ln_2", x), 4 * width)), width)
    return norm("transformer.ln_f", x) @ embedding.T


def gpt_neox(config, w, tokens, context):
    width, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
    size, inner = width // heads, config["intermediate_size"]
    inverse = default_inverse(config["rotary_emb_base"], int(size * config["rotary_pct"]))
    x = w("gpt_neox.embed_in.weight", [config["vocab_size"], width], "embedding")[tokens]

    def norm(name, x):
        return layer_norm(x, w(name + ".weight", [width], "norm"), w(name + ".bias", [width], "bias"), eps)

    def linear(name, x, out):
        return x @ w(name + ".weight", [out, x.shape[-1]]).T + w(name + ".bias", [out], "bias")

    for layer in range(config["num_hidden_layers"]):
        p = f"gpt_neox.layers.{layer}."
        h = norm(p + "input_layernorm", x)
        qkv = linear(p + "attention.query_key_value", h, 3 * width).reshape(len(tokens), heads, 3 * size)
        q, k, v = qkv[..., :size], qkv[..., size : 2 * size], qkv[..., 2 * size :]
        a = linear(p + "attention.dense", attend(rotate(q, inverse), rotate(k, inverse), v, size**-0.5), width)

        def forward(h):
            return linear(p + "mlp.dense_4h_to_h", gelu(linear(p + "mlp.dense_h_to_4h", h, inner)), width)

        if config["use_parallel_residual"]:
            x = forward(norm(p + "post_attention_layernorm", x)) + a + x
        else:
            x = x + a
            x = x + forward(norm(p + "post_attention_layernorm", x))
    return norm("gpt_neox.final_layer_norm", x) @ w("embed_out.weight", [config["vocab_size"], width]).T


def starcoder2(config, w, tokens, context):
    width, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size, eps, inner = width // heads, config["norm_epsilon"], config["intermediate_size"]
    inverse, _ = rope_parameters(config, size, context)
    embedding = w("model.embed_tokens.weight", [config["vocab_size"], width], "embedding")
    x = embedding[tokens]

    def norm(name, x):
        return layer_norm(x, w(name + ".weight", [width], "norm"), w(name + ".bias", [width], "bias"), eps)

    def linear(name, x, out):
        y = x @ w(name + ".weight", [out, x.shape[-1]]).T
        return y + w(name + ".bias", [out], "bias") if config["use_bias"] else y

    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = norm(p + "input_layernorm", x)
        q, k, v = (
            linear(p + f"self_attn.{name}_proj", h, count * size).reshape(len(tokens), count, size)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        a = attend(rotate(q, inverse), rotate(k, inverse), v, size**-0.5, config.get("sliding_window") or 0)
        x = x + linear(p + "self_attn.o_proj", a, width)
        h = norm(p + "post_attention_layernorm", x)
        x = x + linear(p + "mlp.c_proj", gelu_tanh(linear(p + "mlp.c_fc", h, inner)), width)
    return norm("model.norm", x) @ embedding.T
