"""A backend for `onnx.backend`: compiles a ModelProto for this machine and runs it on NumPy arrays.

    import onnx, tcc.backend

    outputs = tcc.backend.run_model(onnx.load("model.onnx"), [array])
"""

import onnx
from onnx.backend.base import Backend, BackendRep

import tcc


class Representation(BackendRep):
    """A compiled model with a session."""

    def __init__(self, program, threads=None):
        self.program = program
        self.session = program.session(threads)

    def run(self, inputs, **_options):
        """Outputs as a tuple. Inputs are a dictionary by name, a sequence in order, or one array."""
        if hasattr(inputs, "shape"):
            inputs = [inputs]
        return tuple(self.session.run(inputs).values())


class TccBackend(Backend):
    """Models on the CPU of this machine; `target="cranelift"` and other keywords of `tcc.compile` are passed on."""

    @classmethod
    def prepare(cls, model, device="CPU", *, threads=None, **options):
        if not cls.supports_device(device):
            raise ValueError(f"device {device}: expected CPU")
        return Representation(tcc.compile(model.SerializeToString(), **options), threads)

    @classmethod
    def is_compatible(cls, model, device="CPU", **_options):
        return cls.supports_device(device) and not tcc.check(model.SerializeToString())

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, *, opset_imports=None, **options):
        if hasattr(inputs, "shape"):
            inputs = [inputs]
        names = [name for name in node.input if name]
        if len(names) != len(inputs):
            raise ValueError(f"node {node.op_type} takes {len(names)} inputs, {len(inputs)} are given")
        given = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in zip(names, inputs)
        ]
        results = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)
            for name, (dtype, shape) in zip(node.output, outputs_info)
        ] if outputs_info else [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], node.op_type, given, results)
        model = onnx.helper.make_model(graph, opset_imports=opset_imports)
        if not outputs_info:
            model = onnx.shape_inference.infer_shapes(model)
        return cls.prepare(model, device, **options).run(inputs)

    @classmethod
    def supports_device(cls, device):
        return device.upper().split(":")[0] == "CPU"


prepare = TccBackend.prepare
run_node = TccBackend.run_node
run_model = TccBackend.run_model
is_compatible = TccBackend.is_compatible
supports_device = TccBackend.supports_device
