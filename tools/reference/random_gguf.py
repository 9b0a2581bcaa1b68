"""GGUF files of random weights, in families and formats of which no real model can be fetched, to measure speed with.

The shapes are those of small real models with fewer layers. Texts mean nothing: every token has a name of its own, and the
vocabulary has no merges beyond what loading needs.
"""

import struct
from pathlib import Path

import numpy as np

# Code of the type, elements and bytes of a block, where its f16 scales stand, and about how far codes spread around zero.
FORMATS = {
    "f32": (0, 1, 4, [], 1), "f16": (1, 1, 2, [], 1), "q4_0": (2, 32, 18, [0], 4.6), "q8_0": (8, 32, 34, [0], 74),
    "q4_k": (12, 256, 144, [0, 2], 300), "q6_k": (14, 256, 210, [208], 18 * 74),
}  # fmt: skip
ALIGNMENT = 32
VOCABULARY = 32000

# Name: architecture, format of matrices, format of embedding and head, sizes.
MODELS = {
    "llama-q4_0": ("llama", "q4_0", "q6_k", dict(layers=16, width=1024, forward=2816, heads=16, shared=4)),
    "qwen2-q4_k": ("qwen2", "q4_k", "q6_k", dict(layers=14, width=1024, forward=2816, heads=16, shared=2)),
    "gemma2-q8_0": ("gemma2", "q8_0", "q8_0", dict(layers=8, width=1024, forward=4096, heads=8, shared=4, head=128)),
    "qwen3-f16": ("qwen3", "f16", "f16", dict(layers=8, width=768, forward=2048, heads=12, shared=4)),
    "llama-q6_k": ("llama", "q6_k", "q6_k", dict(layers=12, width=1024, forward=2816, heads=16, shared=8)),
    "qwen3moe-q4_k": ("qwen3moe", "q4_k", "q6_k", dict(layers=8, width=768, forward=768, heads=12, shared=4, experts=16, used=4)),
}  # fmt: skip


def matrix(rng, shape, form):
    """Bytes of random numbers of about 1 / sqrt(columns)."""
    _, elements, size, scales, spread = FORMATS[form]
    deviation = shape[-1] ** -0.5
    if form in ("f32", "f16"):
        numbers = rng.standard_normal(shape, np.float32) * deviation
        return numbers.astype(np.float16 if form == "f16" else np.float32).tobytes()
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // elements, size), np.uint8)
    for at in scales:
        blocks[:, at : at + 2] = np.frombuffer(np.float16(deviation / spread).tobytes(), np.uint8)
    if form == "q4_k":
        # The minimum takes away what codes are above zero in the mean; scales and minima are alike.
        blocks[:, 2:4] = np.frombuffer(np.float16(7.5 * deviation / spread).tobytes(), np.uint8)
        blocks[:, 8:12] = blocks[:, 4:8]
        blocks[:, 12:16] = (blocks[:, 12:16] & 15) * 17
    return blocks.tobytes()


def value(item):
    """Type code and bytes of a metadata value."""
    if isinstance(item, str):
        text = item.encode()
        return 8, struct.pack("<Q", len(text)) + text
    if isinstance(item, bool):
        return 7, struct.pack("<?", item)
    if isinstance(item, int):
        return 4, struct.pack("<I", item)
    if isinstance(item, float):
        return 6, struct.pack("<f", item)
    # llama.cpp takes the kinds of tokens as signed numbers only.
    code = 5 if isinstance(item[0], int) else value(item[0])[0]
    return 9, struct.pack("<IQ", code, len(item)) + b"".join(value(one)[1] for one in item)


def metadata(architecture, sizes):
    head = sizes.get("head", sizes["width"] // sizes["heads"])
    own = {
        "context_length": 8192, "embedding_length": sizes["width"], "block_count": sizes["layers"],
        "feed_forward_length": sizes["forward"], "attention.head_count": sizes["heads"],
        "attention.head_count_kv": sizes["shared"], "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 10000.0,
        "attention.key_length": head, "attention.value_length": head, "vocab_size": VOCABULARY,
    }  # fmt: skip
    if architecture == "llama":
        own["rope.dimension_count"] = head
    if architecture == "gemma2":
        own |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 4096}
    if "experts" in sizes:
        own |= {"expert_count": sizes["experts"], "expert_used_count": sizes["used"], "expert_feed_forward_length": sizes["forward"]}
    # The bytes, one merge of two of them, control tokens, and names for the rest.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + at) for at in range(256 - len(printable))]
    tokens = [*letters, letters[0] + letters[1], "<|begin|>", "<|end|>"]
    special = {len(tokens) - 2, len(tokens) - 1}
    tokens += [f"t{number}" for number in range(len(tokens), VOCABULARY)]
    return {
        "general.architecture": architecture, "general.name": "random",
        **{f"{architecture}.{key}": item for key, item in own.items()},
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if at in special else 1 for at in range(VOCABULARY)],
        "tokenizer.ggml.merges": [f"{letters[0]} {letters[1]}"], "tokenizer.ggml.bos_token_id": min(special),
        "tokenizer.ggml.eos_token_id": max(special),
    }  # fmt: skip


def tensors(architecture, form, outer, sizes):
    """Name, shape and format of every tensor."""
    width, forward = sizes["width"], sizes["forward"]
    head = sizes.get("head", width // sizes["heads"])
    queries, keys = sizes["heads"] * head, sizes["shared"] * head
    yield "token_embd.weight", (VOCABULARY, width), outer
    yield "output_norm.weight", (width,), "f32"
    if architecture not in ("gemma2", "qwen2"):
        yield "output.weight", (VOCABULARY, width), outer
    for layer in range(sizes["layers"]):
        own = f"blk.{layer}."
        norms = ["attn_norm", "ffn_norm"] + (["post_attention_norm", "post_ffw_norm"] if architecture == "gemma2" else [])
        for norm in norms:
            yield f"{own}{norm}.weight", (width,), "f32"
        for part, rows in [("q", queries), ("k", keys), ("v", keys)]:
            yield f"{own}attn_{part}.weight", (rows, width), form
            if architecture == "qwen2":
                yield f"{own}attn_{part}.bias", (rows,), "f32"
        if architecture.startswith("qwen3"):
            yield f"{own}attn_q_norm.weight", (head,), "f32"
            yield f"{own}attn_k_norm.weight", (head,), "f32"
        yield f"{own}attn_output.weight", (width, queries), form
        experts = sizes.get("experts")
        lead, suffix = ((experts,), "_exps") if experts else ((), "")
        if experts:
            yield f"{own}ffn_gate_inp.weight", (experts, width), "f32"
        for part in ("gate", "up"):
            yield f"{own}ffn_{part}{suffix}.weight", (*lead, forward, width), form
        yield f"{own}ffn_down{suffix}.weight", (*lead, width, forward), form


def bytes_of_token(name):
    """Bytes of weights that a token has to read: of experts those it uses, of an embedding beside a head one row."""
    architecture, form, outer, sizes = MODELS[name]
    listed = list(tensors(architecture, form, outer, sizes))
    headed = any(key == "output.weight" for key, _, _ in listed)
    total = 0
    for key, shape, kind in listed:
        _, elements, size, _, _ = FORMATS[kind]
        if key == "token_embd.weight" and headed:
            continue
        share = sizes["used"] / sizes["experts"] if "_exps" in key else 1
        total += int(np.prod(shape)) // elements * size * share
    return total


def write(name, path):
    """Writes a model of the table."""
    architecture, form, outer, sizes = MODELS[name]
    rng = np.random.default_rng(1)
    listed = list(tensors(architecture, form, outer, sizes))
    keys = metadata(architecture, sizes)
    head = [b"GGUF", struct.pack("<IQQ", 3, len(listed), len(keys))]
    for key, item in keys.items():
        code, data = value(item)
        head += [value(key)[1], struct.pack("<I", code), data]
    offset, data = 0, []
    for key, shape, kind in listed:
        norm = len(shape) == 1 and not key.endswith(".bias")
        data.append(np.ones(shape, np.float32).tobytes() if norm else matrix(rng, shape, kind))
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += [value(key)[1], dims, struct.pack("<IQ", FORMATS[kind][0], offset)]
        offset += -(-len(data[-1]) // ALIGNMENT) * ALIGNMENT
    pad = lambda bytes_: bytes_ + bytes(-len(bytes_) % ALIGNMENT)  # noqa: E731
    with open(path, "wb") as f:
        f.write(pad(b"".join(head)))
        f.writelines(map(pad, data))
    return Path(path)
