"""Programs and sessions on NumPy arrays."""

import tempfile
import threading
import unittest
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

import tcc


def model(nodes, inputs, outputs, opset=21):
    """An ONNX model as bytes; values are (name, type, shape)."""
    values = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "test", *values)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    ).SerializeToString()


def product():
    """x @ w + 1 with a symbolic number of rows."""
    w = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    one = onnx.numpy_helper.from_array(np.float32(1), "one")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=w),
        helper.make_node("Constant", [], ["one"], value=one),
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "one"], ["y"]),
    ]
    return model(nodes, [("x", TensorProto.FLOAT, ["rows", 3])], [("y", TensorProto.FLOAT, ["rows", 2])])


def unary(operator, element_type, shape):
    nodes = [helper.make_node(operator, ["x"], ["y"])]
    return model(nodes, [("x", element_type, shape)], [("y", element_type, shape)])


class Programs(unittest.TestCase):
    def test_ports_name_types_and_symbols(self):
        program = tcc.compile(product())
        (x,), (y,) = program.inputs, program.outputs
        self.assertEqual((x.name, x.dtype, x.shape), ("x", "float32", ["rows", 3]))
        self.assertEqual((y.name, y.dtype, y.shape), ("y", "float32", ["rows", 2]))
        self.assertGreaterEqual(program.kernels, 1)

    def test_inputs_by_name_in_order_and_of_any_layout(self):
        session = tcc.compile(product()).session(threads=2)
        w = np.arange(6, dtype=np.float32).reshape(3, 2)
        for rows in (1, 5, 64, 0):
            x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
            for given in ({"x": x}, [x], {"x": np.asfortranarray(x)}, [np.repeat(x, 2, axis=0)[::2]]):
                y = session.run(given)["y"]
                self.assertEqual(y.shape, (rows, 2))
                np.testing.assert_allclose(y, x @ w + 1, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(session.run([[[1, 2, 3]]])["y"], [[1 * 0 + 4 + 12 + 1, 1 + 6 + 15 + 1]])
        self.assertGreaterEqual(session.memory()["arena"], 0)

    def test_sizes_can_be_fixed_and_bounded(self):
        fixed = tcc.compile(product(), dims={"rows": 4})
        self.assertEqual(fixed.inputs[0].shape, [4, 3])
        bounded = tcc.compile(product(), dims={"rows": (1, 8)}).session()
        bounded.run([np.zeros((8, 3), np.float32)])
        with self.assertRaisesRegex(tcc.Error, "x"):
            bounded.run([np.zeros((9, 3), np.float32)])
        with self.assertRaisesRegex(tcc.Error, "rows"):
            tcc.compile(product(), dims={"rows": (8, 1)})

    def test_what_does_not_fit_is_refused_by_name(self):
        session = tcc.compile(product()).session()
        x = np.zeros((2, 3), np.float32)
        for given, name in [({}, "x"), ({"x": x, "z": x}, "z"), ([x, x], "x"), ([x.astype(np.float64)], "float64"),
                            ([np.zeros((2, 4), np.float32)], "x"), ([np.zeros(3, np.float32)], "x")]:
            with self.assertRaisesRegex(tcc.Error, name):
                session.run(given)
        with self.assertRaises(tcc.Error):
            tcc.compile(b"no model")
        with self.assertRaisesRegex(tcc.Error, "no such file"):
            tcc.compile("no/such/model.onnx")
        with self.assertRaisesRegex(tcc.Error, "toaster"):
            tcc.compile(product(), target="toaster")

    def test_bundles_give_the_same_bits(self):
        program = tcc.compile(product())
        x = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "product.tcc"
            program.save(path)
            loaded = tcc.load(path)
            self.assertEqual(loaded.inputs[0].shape, ["rows", 3])
            found = loaded.session(1).run([x])["y"]
            np.testing.assert_array_equal(found, program.session(2).run([x])["y"])
            with self.assertRaises(tcc.Error):
                loaded.save(path)

    def test_element_types_cross_over(self):
        types = [
            (TensorProto.FLOAT16, np.float16), (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
            (TensorProto.DOUBLE, np.float64), (TensorProto.INT8, np.int8), (TensorProto.UINT16, np.uint16),
            (TensorProto.INT64, np.int64), (TensorProto.BOOL, np.bool_),
        ]
        for element_type, dtype in types:
            for shape in ((2, 3), (), (0, 2)):
                x = (np.arange(6).reshape(2, 3) % 2).astype(dtype) if shape == (2, 3) else np.ones(shape, dtype)
                y = tcc.compile(unary("Identity", element_type, shape), target="cranelift").session(1).run([x])["y"]
                self.assertEqual(y.dtype, x.dtype)
                np.testing.assert_array_equal(y, x)

    def test_packed_numbers_keep_their_signs(self):
        for element_type, dtype, low in [(TensorProto.INT4, ml_dtypes.int4, -8), (TensorProto.UINT4, ml_dtypes.uint4, 0)]:
            x = np.arange(low, low + 15).astype(dtype)
            y = tcc.compile(unary("Identity", element_type, [15])).session(1).run([x])["y"]
            self.assertEqual(y.dtype, x.dtype)
            np.testing.assert_array_equal(y.astype(np.int8), x.astype(np.int8))

    def test_strings(self):
        nodes = [helper.make_node("StringConcat", ["x", "x"], ["y"])]
        concat = model(nodes, [("x", TensorProto.STRING, [2])], [("y", TensorProto.STRING, [2])])
        y = tcc.compile(concat).session(1).run([np.array(["a", "b"])])["y"]
        self.assertEqual(y.tolist(), ["aa", "bb"])

    def test_a_program_serves_many_threads(self):
        program = tcc.compile(product())
        x = np.random.default_rng(0).standard_normal((33, 3)).astype(np.float32)
        expected = program.session(1).run([x])["y"]
        results = [None] * 4

        def work(index):
            session = program.session(1)
            for _ in range(20):
                results[index] = session.run([x])["y"]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            np.testing.assert_array_equal(result, expected)

    def test_check_names_what_is_not_supported(self):
        self.assertEqual(tcc.check(product()), [])
        nodes = [helper.make_node("Nonsense", ["x"], ["y"], name="odd")]
        bad = model(nodes, [("x", TensorProto.FLOAT, [1])], [("y", TensorProto.FLOAT, [1])])
        (line,) = tcc.check(bad)
        self.assertIn("odd", line)
        self.assertIn("Nonsense", line)


if __name__ == "__main__":
    unittest.main()
