"""Writes cases.json: single operations of the tensor IR with results computed by ONNX Runtime.

Needs the PyPI packages onnx, onnxruntime and numpy:  python generate.py > cases.json
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

rng = np.random.default_rng(7)
NAMES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "ui8", "bool": "i1"}
cases = []


def numbers(*shape):
    return np.round(rng.uniform(-2, 2, shape), 2).astype(np.float32)


def run(op, inputs, outputs, opset, attributes):
    """Results of one ONNX node; inputs that are None are left out."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], **attributes)
    given = [(name, x) for name, x in zip(names, inputs) if name]
    graph = helper.make_graph(
        [node],
        "case",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given],
        [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(given))


def flat(x):
    return {
        "type": f"tensor<{''.join(f'{n}x' for n in x.shape)}{NAMES[str(x.dtype)]}>",
        "values": [float(f"{v:.9g}") for v in x.reshape(-1)],
    }


def case(name, operator, attributes, operands, results):
    cases.append(
        {
            "name": name,
            "operator": operator,
            "attributes": attributes,
            "operands": [flat(x) for x in operands],
            "results": [flat(x) for x in results],
        }
    )


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(float(value)) if "e" not in repr(float(value)) else f"{value:.12f}"
    return str(value)


def attributes(**values):
    return ", ".join(f"{name} = {text(value)}" for name, value in values.items())


IDENTITY = "(1) a0"


def convolve(name, x, w, pads, strides, dilations, groups, last=False):
    (y,) = run("Conv", [x, w], 1, 17, dict(pads=pads, strides=strides, dilations=dilations, group=groups))
    layout = "channels_first"
    rank = x.ndim
    if last:
        layout = "channels_last"
        to_last = [0, *range(2, rank), 1]
        x, y = x.transpose(to_last), y.transpose(to_last)
        w = w.transpose([*range(2, rank), 1, 0])
    case(
        name,
        "convolve",
        attributes(
            layout=layout, groups=groups, strides=strides, dilations=dilations, pads=pads, accumulator="f32",
            epilogue=IDENTITY,
        ),
        [x, w],
        [y],
    )


convolve("2d", numbers(2, 3, 7, 6), numbers(4, 3, 3, 2), [1, 0, 2, 1], [2, 1], [1, 2], 1)
convolve("2d pointwise", numbers(1, 5, 4, 3), numbers(6, 5, 1, 1), [0, 0, 0, 0], [1, 1], [1, 1], 1)
convolve("2d depthwise", numbers(1, 4, 5, 5), numbers(4, 1, 3, 3), [1, 1, 1, 1], [1, 1], [1, 1], 4)
convolve("2d grouped channels last", numbers(1, 4, 6, 5), numbers(6, 2, 2, 3), [0, 1, 1, 1], [1, 2], [2, 1], 2, True)
convolve("1d", numbers(2, 2, 11), numbers(3, 2, 4), [3, 0], [3], [1], 1)
convolve("3d", numbers(1, 2, 4, 3, 5), numbers(2, 2, 2, 2, 2), [0, 1, 0, 1, 0, 1], [1, 1, 2], [1, 1, 1], 1)


def transpose(name, x, w, pads, strides, dilations, groups, output_pads, last=False):
    arguments = dict(pads=pads, strides=strides, dilations=dilations, group=groups, output_padding=output_pads)
    (y,) = run("ConvTranspose", [x, w], 1, 17, arguments)
    layout = "channels_first"
    rank = x.ndim
    if last:
        layout = "channels_last"
        to_last = [0, *range(2, rank), 1]
        x, y = x.transpose(to_last), y.transpose(to_last)
        w = w.transpose([*range(2, rank), 1, 0])
    case(
        name,
        "convolve_transpose",
        attributes(
            layout=layout, groups=groups, strides=strides, dilations=dilations, pads=pads, output_pads=output_pads,
            accumulator="f32", epilogue=IDENTITY,
        ),
        [x, w],
        [y],
    )


transpose("transposed 2d", numbers(1, 3, 3, 4), numbers(3, 2, 3, 2), [1, 0, 0, 1], [2, 3], [1, 2], 1, [1, 0])
transpose("transposed grouped", numbers(2, 4, 3, 3), numbers(4, 1, 2, 2), [0, 0, 0, 0], [1, 2], [1, 1], 2, [0, 1])
transpose("transposed last", numbers(1, 2, 3, 4), numbers(2, 3, 2, 3), [0, 1, 0, 1], [2, 2], [1, 1], 1, [0, 0], True)
transpose("transposed 1d", numbers(1, 2, 5), numbers(2, 2, 3), [2, 1], [2], [1], 1, [0])


def pool(name, x, op, kind, size, pads, strides, dilations, ceil, last=False, **extra):
    arguments = dict(kernel_shape=size, pads=pads, strides=strides, ceil_mode=int(ceil), dilations=dilations, **extra)
    (y,) = run(op, [x], 1, 19, arguments)
    layout = "channels_first"
    if last:
        layout, x, y = "channels_last", np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1)
    case(
        name,
        "window",
        attributes(kind=kind, layout=layout, size=size, strides=strides, dilations=dilations, pads=pads, ceil=ceil),
        [x],
        [y],
    )


pool("max", numbers(1, 2, 7, 6), "MaxPool", "max", [3, 2], [1, 0, 1, 1], [2, 2], [1, 1], False)
pool("max ceil dilated", numbers(1, 2, 8, 7), "MaxPool", "max", [2, 3], [0, 1, 1, 0], [3, 2], [2, 1], True)
pool("max last", numbers(2, 3, 5, 4), "MaxPool", "max", [2, 2], [0, 0, 0, 0], [1, 1], [1, 1], False, True)
pool("mean valid", numbers(1, 2, 5, 5), "AveragePool", "mean_valid", [3, 3], [1, 1, 1, 1], [2, 2], [1, 1], False)
pool(
    "mean padded ceil", numbers(1, 1, 6, 6), "AveragePool", "mean_padded", [3, 3], [1, 1, 1, 1], [2, 2], [1, 1], True,
    count_include_pad=1,
)
pool("mean 1d", numbers(1, 2, 9), "AveragePool", "mean_valid", [4], [0, 0], [2], [1], True)

x = numbers(1, 2, 5, 4)
for row_major in (True, False):
    y = run("MaxPool", [x], 2, 12, dict(kernel_shape=[2, 2], strides=[2, 1], pads=[0, 1, 1, 0], storage_order=int(not row_major)))
    case(
        f"arg max {row_major}",
        "window_arg_max",
        attributes(size=[2, 2], strides=[2, 1], dilations=[1, 1], pads=[0, 1, 1, 0], ceil=False, row_major=row_major),
        [x],
        y,
    )

x = numbers(2, 3, 4)
for op, log in (("Softmax", False), ("LogSoftmax", True)):
    for axis in range(3):
        case(f"{op} {axis}", "softmax", attributes(axis=axis, log=log), [x], run(op, [x], 1, 17, dict(axis=axis)))

scale, bias = numbers(3, 4), numbers(3, 4)
case(
    "layer normalization",
    "normalize",
    attributes(axes=[1, 2], epsilon=0.001, centered=True, epilogue="(3) t0 = mul(a0, a1); t1 = add(t0, a2); t1"),
    [x, scale, bias],
    run("LayerNormalization", [x, scale, bias], 1, 17, dict(axis=1, epsilon=0.001)),
)
case(
    "root mean square",
    "normalize",
    attributes(axes=[2], epsilon=0.01, centered=False, epilogue=IDENTITY),
    [x],
    [x / np.sqrt(np.mean(x * x, axis=2, keepdims=True) + np.float32(0.01))],
)


def recurrent(name, op, cell, gates, direction, activations=(), alphas=(), betas=(), clip=0.0, peepholes=False, **extra):
    steps, batch, size, hidden = 4, 3, 2, 3
    dirs = 2 if direction == "bidirectional" else 1
    x, w, r = numbers(steps, batch, size), numbers(dirs, gates * hidden, size), numbers(dirs, gates * hidden, hidden)
    b, h, c = numbers(dirs, 2 * gates * hidden), numbers(dirs, batch, hidden), numbers(dirs, batch, hidden)
    lengths = np.array([4, 2, 3], np.int32)
    p = numbers(dirs, 3 * hidden) if peepholes else np.zeros((dirs, 3 * hidden), np.float32)
    inputs = [x, w, r, b, lengths, h]
    operands = [x, w, r, b, lengths, h]
    if cell == "lstm":
        inputs += [c, p if peepholes else None]
        operands += [c, p]
    arguments = dict(hidden_size=hidden, direction=direction, **extra)
    if activations:
        arguments["activations"] = list(activations)
    if alphas:
        arguments["activation_alpha"] = list(alphas)
    if betas:
        arguments["activation_beta"] = list(betas)
    if clip:
        arguments["clip"] = clip
    y = run(op, inputs, 3 if cell == "lstm" else 2, 14, arguments)
    case(
        name,
        "recurrent",
        attributes(
            cell=cell, direction=direction, activations=list(activations), alphas=list(alphas), betas=list(betas),
            clip=clip, linear_before_reset=bool(extra.get("linear_before_reset", 0)),
            input_forget=bool(extra.get("input_forget", 0)),
        ),
        operands,
        y,
    )


recurrent("rnn", "RNN", "rnn", 1, "forward")
recurrent("rnn reverse relu", "RNN", "rnn", 1, "reverse", ["Relu"], clip=1.5)
recurrent("gru both ways", "GRU", "gru", 3, "bidirectional")
recurrent("gru linear before reset", "GRU", "gru", 3, "reverse", linear_before_reset=1)
recurrent("lstm both ways", "LSTM", "lstm", 4, "bidirectional")
recurrent("lstm peepholes", "LSTM", "lstm", 4, "forward", peepholes=True)
recurrent("lstm clipped", "LSTM", "lstm", 4, "reverse", clip=0.8)
recurrent("lstm hard", "LSTM", "lstm", 4, "forward", ["HardSigmoid", "Tanh", "Softsign"], [0.3], [0.4])


def resize(name, x, kind, coordinates, nearest="round_prefer_floor", sizes=None, scales=None, region=None, **extra):
    arguments = dict(mode=kind, coordinate_transformation_mode=coordinates)
    if kind == "nearest":
        arguments["nearest_mode"] = nearest
    for key in ("cubic_coeff_a", "exclude_outside", "extrapolation_value", "antialias"):
        if key in extra:
            arguments[key] = extra[key]
    roi = None if region is None else np.array(region, np.float32)
    (y,) = run(
        "Resize",
        [
            x,
            roi,
            None if scales is None else np.array(scales, np.float32),
            None if sizes is None else np.array(sizes, np.int64),
        ],
        1,
        19,
        arguments,
    )
    case(
        name,
        "resize",
        attributes(
            kind=kind, coordinates=coordinates, nearest=nearest, shape=list(y.shape),
            scales=[float(s) for s in scales or []], cubic=float(extra.get("cubic_coeff_a", -0.75)),
            exclude_outside=bool(extra.get("exclude_outside", 0)), outside=float(extra.get("extrapolation_value", 0.0)),
            region=[float(r) for r in region or []], antialias=bool(extra.get("antialias", 0)),
        ),
        [x],
        [y],
    )


x = numbers(1, 2, 5, 4)
for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
    for coordinates in ("half_pixel", "asymmetric", "align_corners"):
        resize(f"nearest {nearest} {coordinates}", x, "nearest", coordinates, nearest, sizes=[1, 2, 8, 3])
for kind in ("linear", "cubic"):
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        resize(f"{kind} {coordinates} up", x, kind, coordinates, sizes=[1, 2, 9, 7])
        resize(f"{kind} {coordinates} down", x, kind, coordinates, sizes=[1, 2, 3, 1])
    resize(f"{kind} symmetric", x, kind, "half_pixel_symmetric", scales=[1.0, 1.0, 1.5, 0.6])
    resize(f"{kind} antialias", x, kind, "half_pixel", sizes=[1, 2, 2, 3], antialias=1)
resize("cubic exclude", x, "cubic", "half_pixel", sizes=[1, 2, 9, 7], exclude_outside=1, cubic_coeff_a=-0.5)
resize(
    "crop", x, "linear", "tf_crop_and_resize", sizes=[1, 2, 3, 3], region=[0, 0, 0.2, -0.3, 1, 1, 0.8, 1.2],
    extrapolation_value=9.5,
)

x = numbers(2, 2, 4, 3)
grid = np.round(rng.uniform(-1.4, 1.4, (2, 3, 2, 2)), 2).astype(np.float32)
PADS = {"zeros": "constant", "border": "edge", "reflection": "reflect"}
for kind in ("nearest", "linear", "cubic"):
    for padding, pad in PADS.items():
        for align in (False, True):
            arguments = dict(mode=kind, padding_mode=padding, align_corners=int(align))
            case(
                f"grid {kind} {padding} {align}",
                "grid_sample",
                attributes(kind=kind, outside=pad, align_corners=align),
                [x, grid],
                run("GridSample", [x, grid], 1, 20, arguments),
            )

x = numbers(2, 5, 3)
x[0, 1, 0] = x[0, 3, 0]
for largest in (True, False):
    y = run("TopK", [x, np.array([3], np.int64)], 2, 11, dict(axis=1, largest=int(largest)))
    case(f"top k {largest}", "top_k", attributes(axis=1, k=3, largest=largest), [x], y)

x = numbers(3, 4) * 50
for dtype, name in ((np.uint8, "ui8"), (np.int8, "i8")):
    scale, zero = np.array([0.37, 0.5, 1.0], np.float32), np.array([3, 100, 7], dtype)
    q = run("QuantizeLinear", [x, scale, zero], 1, 19, dict(axis=0))
    case(f"quantize {name}", "quantize", attributes(dtype=name, axis=0, block=0, saturate=True), [x, scale, zero], q)
    y = run("DequantizeLinear", [q[0], scale, zero], 1, 19, dict(axis=0))
    case(f"dequantize {name}", "dequantize", attributes(dtype="f32", axis=0, block=0), [q[0], scale, zero], y)
scale, zero = np.float32(0.5), np.uint8(128)
x = np.array([0.25, 0.75, -0.25, 1.25, 1e9, -1e9], np.float32)
q = run("QuantizeLinear", [x, np.array(scale), np.array(zero)], 1, 19, {})
case("quantize ties", "quantize", attributes(dtype="ui8", axis=0, block=0, saturate=True), [x, np.array(scale), np.array(zero)], q)
x = rng.integers(-128, 128, (5, 3)).astype(np.int8)
scale, zero = np.abs(numbers(3, 3)) + np.float32(0.1), rng.integers(-9, 9, (3, 3)).astype(np.int8)
y = run("DequantizeLinear", [x, scale, zero], 1, 21, dict(axis=0, block_size=2))
case("dequantize blocks", "dequantize", attributes(dtype="f32", axis=0, block=2), [x, scale, zero], y)

q, k, v, mask = numbers(2, 4, 3, 2), numbers(2, 2, 5, 2), numbers(2, 2, 5, 3), numbers(3, 5)
for causal in (False, True):
    # A plain NumPy statement: ONNX counts the causal diagonal from the first key, the operator from the last.
    kk, vv = np.repeat(k, 2, axis=1), np.repeat(v, 2, axis=1)
    s = np.einsum("bhqd,bhkd->bhqk", q.astype(np.float64), kk) * 0.7
    s = 5.0 * np.tanh(s / 5.0) + mask
    if causal:
        s = np.where(np.arange(5)[None, :] > np.arange(3)[:, None] + 2, -np.inf, s)
    p = np.exp(s - s.max(-1, keepdims=True))
    y = np.einsum("bhqk,bhkd->bhqd", p / p.sum(-1, keepdims=True), vv).astype(np.float32)
    case(
        f"attention {causal}",
        "attention",
        attributes(scale=0.7, softcap=5.0, causal=causal, window=0),
        [q, k, v, mask],
        [y],
    )

x, cos, sin = numbers(1, 2, 3, 4), numbers(3, 2), numbers(3, 2)
for interleaved in (False, True):
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :2], x[..., 2:])
    real, imaginary = a * cos - b * sin, b * cos + a * sin
    y = np.stack([real, imaginary], -1).reshape(x.shape) if interleaved else np.concatenate([real, imaginary], -1)
    case(f"rope {interleaved}", "rope", attributes(interleaved=interleaved), [x, cos, sin], [y])

for spec in ("mk,kn->mn", "bmk,kn->bmn", "abk,ack->cab", "ij,jk->i", "ij,kl->jk", "i,i->", "bhqd,bhkd->bqhk"):
    left, rest = spec.split(",")
    right, out = rest.split("->")
    size = dict(zip("abcdhijklmnq", (2, 3, 2, 4, 2, 3, 4, 5, 2, 3, 5, 2)))
    a, b = numbers(*(size[c] for c in left)), numbers(*(size[c] for c in right))
    y = np.einsum(spec, a.astype(np.float64), b).astype(np.float32)
    case(f"contract {spec}", "contract", attributes(spec=spec, accumulator="f32", epilogue=IDENTITY), [a, b], [np.asarray(y)])



def host(op, inputs, arguments, opset, results, types=None):
    absent = [i for i, x in enumerate(inputs) if x is None]
    extra = {"absent": absent} if absent else {}
    results = [np.asarray(y) for y in results]
    types = types or [flat(y)["type"] for y in results]
    case(
        f"host {op} {arguments}",
        "host",
        attributes(function="onnx." + op, attributes=json.dumps({**arguments, **extra}), types=types),
        [x for x in inputs if x is not None],
        results,
    )


def host_runtime(op, inputs, outputs, arguments, opset):
    host(op, inputs, arguments, opset, run(op, inputs, outputs, opset, arguments))


x = np.array([[1, 0, 3, 0], [0, 0, 0, 2]], np.float32)
host_runtime("NonZero", [x], 1, {}, 13)
x = rng.integers(0, 3, (5, 2)).astype(np.float32)
for arguments in ({}, {"sorted": 0}, {"axis": 0}, {"axis": 1}, {"axis": -2, "sorted": 0}):
    host_runtime("Unique", [x], 4, arguments, 11)
host_runtime("Det", [numbers(2, 3, 3)], 1, {}, 11)
corners = np.abs(numbers(2, 6, 4))
scores = np.abs(numbers(2, 3, 6))
scores[0, 0, 2] = scores[0, 0, 4]
for center in (0, 1):
    host_runtime(
        "NonMaxSuppression",
        [corners, scores, np.array(3, np.int64), np.array(0.3, np.float32), np.array(0.4, np.float32)],
        1,
        {"center_point_box": center},
        11,
    )
host_runtime("NonMaxSuppression", [corners, scores, np.array([2], np.int64), np.array([0.1], np.float32)], 1, {}, 11)
x, rois = numbers(2, 2, 7, 6), np.array([[0.5, 1, 9, 11], [2, 2, 2.5, 3], [-3, 0, 20, 4]], np.float32)
for mode in ("avg", "max"):
    for transform in ("half_pixel", "output_half_pixel"):
        for ratio in (0, 2):
            host_runtime(
                "RoiAlign",
                [x, rois, np.array([1, 0, 1], np.int64)],
                1,
                dict(
                    mode=mode, coordinate_transformation_mode=transform, sampling_ratio=ratio, output_height=2,
                    output_width=3, spatial_scale=0.5,
                ),
                16,
            )


def reference(op, inputs, opset, arguments):
    from onnx.reference import ReferenceEvaluator

    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, ["y"], **arguments)
    given = [(name, x) for name, x in zip(names, inputs) if name]
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given]
    graph = helper.make_graph([node], "case", infos, [onnx.ValueInfoProto(name="y")])
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])).run(None, dict(given))


x, w = numbers(1, 4, 5, 4), numbers(2, 2, 2, 2)
offset, mask = numbers(1, 16, 4, 3), np.abs(numbers(1, 8, 4, 3))
for inputs in ([x, w, offset, None, mask], [x, w, offset, numbers(2)]):
    arguments = dict(group=2, offset_group=2, pads=[0, 0, 1, 1], strides=[1, 1], dilations=[2, 2])
    arguments["pads"] = [1, 0, 0, 1]
    host("DeformConv", inputs, arguments, 19, reference("DeformConv", inputs, 19, arguments))
x = np.array([[1, 1, 3, 3, 3, 7], [8, 6, 7, 5, 6, 8]], np.int64)
for mode in ("TF", "IDF", "TFIDF"):
    arguments = dict(
        mode=mode, min_gram_length=1, max_gram_length=2, max_skip_count=2, ngram_counts=[0, 4],
        ngram_indexes=[0, 1, 2, 3, 4, 5, 6], pool_int64s=[2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
        weights=[0.5, 1.5, 2.0, 3.0, 0.25, 4.0, 1.0],
    )
    host_runtime("TfIdfVectorizer", [x], 1, arguments, 9)
json.dump(cases, sys.stdout, separators=(",", ":"))
sys.stdout.write("\n")
