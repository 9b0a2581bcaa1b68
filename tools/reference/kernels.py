"""Single kernels as ONNX models, and what the machine's limits make of them: the sweep of `tools/bench --kernels`."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The share of its limit that a kernel of a family is to reach.
TARGETS = {
    "GEMM, constant weights": 0.90,
    "GEMM, two inputs": 0.90,
    "tall and skinny, constant weights": 0.85,
    "tall and skinny, two inputs": 0.85,
    "int8 GEMM, constant weights": 0.75,
    "int8 GEMM, two inputs": 0.75,
    "elementwise": 0.85,
    "softmax and norms": 0.85,
    "transposition": 0.85,
    "depthwise": 0.85,
    "reduction": 0.85,
}


@dataclass
class Case:
    """One kernel: a model with one node (or the few that make one operator), and its least work."""

    family: str
    name: str
    nodes: list
    inputs: dict  # name -> (type, shape)
    outputs: dict
    weights: dict = field(default_factory=dict)  # name -> array
    multiply_adds: int = 0
    dot_products: int = 0  # multiply-adds of bytes
    exponentials: int = 0

    def bytes_in(self):
        return sum(size_of(*self.inputs[name]) for name in self.inputs) + sum(w.nbytes for w in self.weights.values())

    def bytes_out(self):
        return sum(size_of(*self.outputs[name]) for name in self.outputs)

    def write(self, path):
        value = lambda name, known: helper.make_tensor_value_info(name, known[0], known[1])  # noqa: E731
        graph = helper.make_graph(
            self.nodes,
            "kernel",
            [value(name, known) for name, known in self.inputs.items()],
            [value(name, known) for name, known in self.outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.save(model, str(path))

    def floor_ms(self, ceiling):
        """Milliseconds at the limits of one round, and what limits.

        What is read and written in equal parts moves at the rate of a copy, what is left at that of reading (a write
        without a read at that of the copy too).
        """
        read, written = self.bytes_in(), self.bytes_out()
        both = 2 * min(read, written) / ceiling["copy_gigabytes_per_second"]
        rate = ceiling["read_gigabytes_per_second" if read > written else "copy_gigabytes_per_second"]
        times = {
            "memory": both + abs(read - written) / rate,
            "multiply-adds": 2 * self.multiply_adds / ceiling["f32_gigaflops"],
            "dot products": 2 * self.dot_products / ceiling["int8_gigaops"],
            "exponentials": self.exponentials / ceiling["transcendental_gigaops"],
        }
        limit = max(times, key=times.get)
        return times[limit] / 1e6, limit


def size_of(kind, shape):
    return int(np.prod(shape, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(kind).itemsize


def product(m, k, n, constant, family=None):
    """`m x k` times `k x n`, in f32."""
    rng = np.random.default_rng(m * 7 + k * 3 + n)
    what = "constant weights" if constant else "two inputs"
    family = family or ("GEMM" if m == k == n else "tall and skinny")
    inputs, weights = {"x": (TensorProto.FLOAT, [m, k])}, {}
    if constant:
        weights["w"] = rng.uniform(-1, 1, (k, n)).astype(np.float32)
    else:
        inputs["w"] = (TensorProto.FLOAT, [k, n])
    return Case(
        f"{family}, {what}",
        f"{m} x {k} x {n}",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs,
        {"y": (TensorProto.FLOAT, [m, n])},
        weights,
        multiply_adds=m * k * n,
    )


def batched(b, m, k, n, transposed):
    """A batch of products of two inputs; the second may come as `n x k`."""
    name = f"{b} of {m} x {k} x {n}" + (", second transposed" if transposed else "")
    equation = "bmk,bnk->bmn" if transposed else "bmk,bkn->bmn"
    return Case(
        "tall and skinny, two inputs",
        name,
        [helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)],
        {"x": (TensorProto.FLOAT, [b, m, k]), "w": (TensorProto.FLOAT, [b, n, k] if transposed else [b, k, n])},
        {"y": (TensorProto.FLOAT, [b, m, n])},
        multiply_adds=b * m * k * n,
    )


def byte_product(m, k, n, constant):
    """`u8` by `i8`, summed in 32 bits."""
    rng = np.random.default_rng(m + k + n)
    inputs, weights = {"x": (TensorProto.UINT8, [m, k])}, {}
    if constant:
        weights["w"] = rng.integers(-127, 128, (k, n)).astype(np.int8)
    else:
        inputs["w"] = (TensorProto.INT8, [k, n])
    return Case(
        "int8 GEMM, " + ("constant weights" if constant else "two inputs"),
        f"{m} x {k} x {n}",
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        inputs,
        {"y": (TensorProto.INT32, [m, n])},
        weights,
        dot_products=m * k * n,
    )


def mapped(name, operator, shape, operands=1, exponentials=0, **attributes):
    names = ["x", "z"][:operands]
    return Case(
        "elementwise",
        f"{name}, {' x '.join(map(str, shape))}",
        [helper.make_node(operator, names, ["y"], **attributes)],
        {operand: (TensorProto.FLOAT, shape) for operand in names},
        {"y": (TensorProto.FLOAT, shape)},
        exponentials=exponentials * int(np.prod(shape)),
    )


def softmax(*shape):
    return Case(
        "softmax and norms",
        f"softmax, {' x '.join(map(str, shape))}",
        [helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
        {"x": (TensorProto.FLOAT, shape)},
        {"y": (TensorProto.FLOAT, shape)},
        exponentials=int(np.prod(shape)),
    )


def layer_norm(*shape):
    rng = np.random.default_rng(3)
    weights = {name: rng.uniform(0.5, 1.5, shape[-1]).astype(np.float32) for name in ("scale", "bias")}
    return Case(
        "softmax and norms",
        f"layer norm, {' x '.join(map(str, shape))}",
        [helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], axis=-1, epsilon=1e-5)],
        {"x": (TensorProto.FLOAT, shape)},
        {"y": (TensorProto.FLOAT, shape)},
        weights,
    )


def transpose(shape, perm, kind=TensorProto.FLOAT):
    of = "" if kind == TensorProto.FLOAT else " bytes"
    return Case(
        "transposition",
        f"{' x '.join(map(str, shape))}{of} to {perm}",
        [helper.make_node("Transpose", ["x"], ["y"], perm=perm)],
        {"x": (kind, shape)},
        {"y": (kind, [shape[axis] for axis in perm])},
    )


def depthwise(channels, side, size, stride):
    """Channels last inside, as networks compute them: the layout changes around it are part of the program, not of its floor."""
    rng = np.random.default_rng(5)
    out = (side + stride - 1) // stride
    pad = size // 2
    w = rng.uniform(-1, 1, (channels, 1, size, size)).astype(np.float32)
    attributes = {"group": channels, "kernel_shape": [size, size], "strides": [stride] * 2, "pads": [pad] * 4}
    return Case(
        "depthwise",
        f"{channels} x {side} x {side}, {size} x {size}, stride {stride}",
        [
            helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["first", "w"], ["c"], **attributes),
            helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
        ],
        {"x": (TensorProto.FLOAT, [1, side, side, channels])},
        {"y": (TensorProto.FLOAT, [1, out, out, channels])},
        {"w": w},
        multiply_adds=channels * out * out * size * size,
    )


def reduction(operator, shape, axes):
    kept = [1 if axis in axes else extent for axis, extent in enumerate(shape)]
    return Case(
        "reduction",
        f"{operator}, {' x '.join(map(str, shape))} over {axes}",
        [helper.make_node(operator, ["x", "axes"], ["y"])],
        {"x": (TensorProto.FLOAT, shape)},
        {"y": (TensorProto.FLOAT, kept)},
        {"axes": np.array(axes, np.int64)},
    )


def cases():
    """Every kernel of the sweep."""
    found = []
    for constant in (True, False):
        found += [product(side, side, side, constant) for side in (64, 128, 256, 512, 1024, 2048, 4096)]
        found += [
            product(m, k, n, constant)
            for m, k, n in [
                (4096, 64, 64), (12544, 32, 96), (64, 4096, 64), (1, 1024, 1024), (1, 4096, 4096), (4, 4096, 4096),
                (128, 384, 1536), (49, 960, 320), (4096, 4096, 16), (16, 4096, 4096), (197, 211, 223),
            ]
        ]  # fmt: skip
        found += [byte_product(side, side, side, constant) for side in (64, 128, 256, 512, 1024, 2048)]
        found += [byte_product(*shape, constant) for shape in [(128, 384, 1536), (3136, 64, 64), (197, 211, 223)]]
    found += [batched(12, 128, 32, 128, True), batched(12, 128, 128, 32, False)]
    # 16 KiB, 256 KiB, 4 MiB and 64 MiB an operand.
    sides = [(64, 64), (256, 256), (1024, 1024), (4096, 4096)]
    found += [mapped("add", "Add", side, 2) for side in sides]
    found += [mapped("ReLU", "Relu", side) for side in sides]
    found += [mapped("sigmoid", "Sigmoid", side, exponentials=1) for side in sides[1:3]]
    found += [softmax(*shape) for shape in [(64, 64), (1536, 128), (1024, 1024), (4096, 4096), (64, 50257)]]
    found += [layer_norm(*shape) for shape in [(16, 384), (128, 384), (1024, 768), (4096, 4096)]]
    found += [
        transpose([64, 64], [1, 0]),
        transpose([1024, 1024], [1, 0]),
        transpose([4096, 4096], [1, 0]),
        transpose([1000, 1001], [1, 0]),
        transpose([1, 64, 56, 56], [0, 2, 3, 1]),
        transpose([1, 56, 56, 64], [0, 3, 1, 2]),
        transpose([8, 128, 12, 64], [0, 2, 1, 3]),
        transpose([1, 256, 56, 56], [0, 2, 3, 1], TensorProto.UINT8),
    ]
    found += [depthwise(*shape) for shape in [(32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (576, 14, 3, 1), (960, 7, 3, 1), (240, 28, 5, 1)]]
    found += [
        reduction("ReduceSum", (1024, 1024), [1]),
        reduction("ReduceSum", (1024, 1024), [0]),
        reduction("ReduceMean", (1, 49, 1280), [1]),
        reduction("ReduceMax", (4096, 4096), [1]),
        reduction("ReduceMean", (1, 512, 28, 28), [2, 3]),
    ]
    return found
