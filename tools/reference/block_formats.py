"""Writes ir/interpret/tests/references/block-formats.json: for each ggml block format random bytes, and the numbers
that the `gguf` package (the NumPy code of the llama.cpp project) decodes them to.

Run it from anywhere; it makes its own environment. `q8_k` is only an intermediate of llama.cpp's, so `gguf` does not
decode it: its numbers are the definition written here.
"""

import json

import environment

environment.enter("block-formats", ["numpy==2.4.6", "gguf==0.19.0"])

import gguf
import numpy as np
from gguf.quants import dequantize

FORMATS = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_k",
           "iq4_nl", "iq4_xs", "tq1_0", "tq2_0"]
# Where the f16 numbers of a block stand: random bytes there would be infinities and NaN.
HALVES = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82], "q3_k": [108],
          "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "iq4_nl": [0], "iq4_xs": [0], "tq1_0": [52], "tq2_0": [64]}


def blocks(name, random):
    kind = gguf.GGMLQuantizationType[name.upper()]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = 4 if elements == 32 else 2
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES.get(name, []):
        scale = random.normal(0, 0.1, count).astype(np.float16)
        data[:, at:at + 2] = scale.view(np.uint8).reshape(count, 2)
    if name == "q8_k":
        scale = random.normal(0, 0.1, count).astype(np.float32)
        data[:, :4] = scale.view(np.uint8).reshape(count, 4)
        return data, scale[:, None] * data[:, 4:260].view(np.int8).astype(np.float32)
    return data, dequantize(data, kind).astype(np.float32)


def main():
    random = np.random.default_rng(2024)
    table = {}
    for name in FORMATS:
        data, values = blocks(name, random)
        values = values.reshape(-1).astype("<f4")
        assert np.isfinite(values).all(), name
        table[name] = {"bytes": data.tobytes().hex(), "values": values.tobytes().hex()}
    target = environment.REPOSITORY / "ir" / "interpret" / "tests" / "references" / "block-formats.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
