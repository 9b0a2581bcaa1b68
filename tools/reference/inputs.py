"""Deterministic inputs for the model zoo: the same bits as tests/src/inputs.rs makes, which documents the generators.

Only operations that IEEE 754 rounds exactly are used (no sine, no exponential), so that NumPy and Rust agree.
"""

import hashlib
import re

import numpy as np

DTYPES = {"f32": np.float32, "f64": np.float64, "i64": np.int64, "i32": np.int32, "u8": np.uint8, "i8": np.int8, "bool": np.bool_}
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225])


def unit(seed, count):
    """`count` numbers in [0, 1) of 53 bits from SplitMix64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seed_of(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def triangle(x):
    """A triangle wave of period 1 between -1 and 1."""
    return 4.0 * np.abs(x - np.floor(x + 0.5)) - 1.0


def picture(noise, shape):
    """Smooth bands along the last three axes with some noise, in [0, 1]."""
    value = np.full(shape, 0.5)
    for weight, period, axis in ((0.2, 37.0, -1), (0.15, 23.0, -2), (0.1, 7.0, -3)):
        if len(shape) >= -axis:
            index = np.arange(shape[axis], dtype=np.float64).reshape([-1] + [1] * (-axis - 1))
            value = value + weight * triangle(index / period)
    return value + 0.1 * (noise.reshape(shape) - 0.5)


def page(noise, shape):
    """Lines of dark strokes on a light page, along the last two axes, in [0, 1]; what a text detector answers to."""
    height, width = shape[-2:]
    row, column = np.arange(height).reshape(-1, 1), np.arange(width).reshape(1, -1)
    ink = noise.reshape(shape)[..., row // 5 * 5, column // 3 * 3] < 0.5
    return np.where((row % 40 >= 10) & (row % 40 < 30) & (column % 15 < 12) & ink, 0.05, 0.95)


def evaluate(word, dims):
    """A number, or the name of a dimension."""
    return dims[word] if word in dims else float(word)


def parse(spec, dims):
    """Split `TYPE[SHAPE] GENERATOR` into (dtype name, shape, generator, arguments)."""
    match = re.fullmatch(r"(\w+)\[([^\]]*)\] (\w+)(?:\(([^)]*)\))?", spec)
    if not match:
        raise ValueError(f"cannot read the input `{spec}`")
    dtype, shape, generator, arguments = match.groups()
    shape = [int(evaluate(word.strip(), dims)) for word in shape.split(",") if word.strip()]
    return dtype, shape, generator, [evaluate(word.strip(), dims) for word in (arguments or "").split(",") if word.strip()]


def generate(spec, dims, seed_text):
    """The tensor that `spec` describes."""
    dtype, shape, generator, arguments = parse(spec, dims)
    count = int(np.prod(shape, dtype=np.int64))
    noise = unit(seed_of(seed_text), count)
    if generator == "constant":
        value = np.full(shape, arguments[0])
    elif generator == "uniform":
        low, high = arguments
        value = low + (high - low) * noise
    elif generator == "integers":
        low, high = arguments
        value = low + np.floor((high - low) * noise)
    elif generator == "image":
        low, high = arguments
        value = low + (high - low) * picture(noise, shape)
    elif generator in ("imagenet", "imagenet_page"):
        axes = [1, 3] + [1] * (len(shape) - 2)
        value = page(noise, shape) if generator == "imagenet_page" else picture(noise, shape)
        value = (value - IMAGENET_MEAN.reshape(axes)) / IMAGENET_DEVIATION.reshape(axes)
    elif generator == "audio":
        time = np.arange(count, dtype=np.float64)
        value = 0.5 * triangle(time / 73.0) + 0.25 * triangle(time / 11.3) + 0.1 * (noise - 0.5)
    else:
        raise ValueError(f"no generator is called `{generator}`")
    return value.reshape(shape).astype(DTYPES[dtype])
