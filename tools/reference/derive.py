"""Models derived from those of the table: the light models with pseudo-random weights.

Each `ConstantOfShape` node becomes an initializer. What it holds depends on where it goes: contraction weights are
uniform with variance 1/fan_in, variances and scales lie around 1, biases and means around 0.
"""

import numpy as np
import onnx
from onnx import numpy_helper

import inputs
import zoo

NAMES = ["densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet"]
BATCH_NORMALIZATION_RANGES = {1: (0.3, 0.9), 2: (-0.1, 0.1), 3: (-0.1, 0.1), 4: (0.5, 1.5)}


def uses(graph):
    """For each value, the (node, operand index) pairs that read it."""
    found = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            found.setdefault(name, []).append((node, index))
    return found


def weight_range(name, shape, readers):
    node, index = readers[name][0]
    if node.op_type == "Unsqueeze":
        return weight_range(node.output[0], shape, readers)
    if node.op_type == "BatchNormalization":
        return BATCH_NORMALIZATION_RANGES[index]
    if node.op_type == "Mul":
        return 0.5, 1.5
    if node.op_type in ("Conv", "Gemm") and index == 1:
        fan_in = np.prod(shape[1:]) if node.op_type == "Conv" else shape[1]
        bound = float(np.sqrt(3.0 / fan_in))
        return -bound, bound
    return -0.1, 0.1


def with_random_weights(model):
    """Replace every `ConstantOfShape` of a light model by a pseudo-random initializer."""
    graph, readers = model.graph, uses(model.graph)
    initializers = {i.name: i for i in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        name = node.output[0]
        shape = [int(d) for d in numpy_helper.to_array(initializers[node.input[0]])]
        low, high = weight_range(name, shape, readers)
        noise = inputs.unit(inputs.seed_of(name), int(np.prod(shape)))
        array = (low + (high - low) * noise).astype(np.float32).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(array, name))
        # Graphs of IR version 3 list every initializer among the inputs.
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in graph.node for name in node.input}
    for field in (graph.initializer, graph.input):
        used = [item for item in field if item.name in read]
        del field[:]
        field.extend(used)
    onnx.checker.check_model(model)
    return model


def derive_missing():
    """Write the derived models that the cache lacks."""
    for name in NAMES:
        target, source = zoo.path_of(f"derived/random_{name}.onnx"), zoo.path_of(f"onnx-light/light_{name}.onnx")
        if target.exists() or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_suffix(".partial")
        onnx.save(with_random_weights(onnx.load(source)), scratch)
        scratch.rename(target)
        print(f"derived {target.name}")
