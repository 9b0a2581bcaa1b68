"""The backend for onnx.backend, on a part of ONNX's own node cases (all of them run in Rust: docs/onnx-coverage.md)."""

import unittest

import numpy as np
import onnx
import onnx.backend.test
from onnx import helper

import tcc.backend


class Nodes(unittest.TestCase):
    def test_a_node_runs_on_its_own(self):
        x, y = np.float32([1, -2]), np.float32([3, 4])
        (result,) = tcc.backend.run_node(helper.make_node("Add", ["x", "y"], ["z"]), [x, y])
        np.testing.assert_array_equal(result, x + y)

    def test_other_devices_are_refused(self):
        self.assertFalse(tcc.backend.supports_device("CUDA"))
        with self.assertRaises(ValueError):
            tcc.backend.run_node(helper.make_node("Abs", ["x"], ["y"]), [np.float32([1])], device="CUDA")


FAMILIES = "averagepool|clip|concat|conv|gather|gemm|layer_normalization|lstm|matmul|reduce_sum|resize_nearest|softmax|topk"
# The case whose average of a window that reaches past the padding differs: see tests/conformance.
DIFFERS = "averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True"

suite = onnx.backend.test.BackendTest(tcc.backend, __name__)
suite.include(rf"^test_({FAMILIES})_.*_cpu$")
suite.exclude(rf"_expanded|{DIFFERS}")
for name, case in suite.test_cases.items():
    # Cases that are left out would be thousands of skipped tests.
    for test in [test for test in vars(case) if getattr(getattr(case, test), "__unittest_skip__", False)]:
        delattr(case, test)
    globals()[name] = case

if __name__ == "__main__":
    unittest.main()
