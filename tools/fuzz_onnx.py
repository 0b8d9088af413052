"""Detectors in ONNX that never end, or give more than anybody can use."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32  # of their input


def _model(nodes, initializers=()) -> bytes:
    values = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("boxes", "scores")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers]
    graph = helper.make_graph(nodes, "hostile", values, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def endless() -> bytes:
    """A loop of 2^62 turns."""
    condition = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    number = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    carried = helper.make_tensor_value_info("before", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Sin", ["before"], ["after"])],
        "turn", [number, condition, carried],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("after", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["turns", "yes", "images"], ["looped"], body=body),
        helper.make_node("ReduceMean", ["looped"], ["mean"], keepdims=0),
        helper.make_node("Add", ["some", "mean"], ["boxes"]),
        helper.make_node("Add", ["sure", "mean"], ["scores"]),
    ]
    return _model(nodes, [("turns", np.int64(2**62)), ("yes", np.bool_(True)), ("some", np.ones((1, 2, 5), np.float32)),
                          ("sure", np.ones((1, 2, 1), np.float32))])  # fmt: skip


def many_boxes(n: int = 50_000_000) -> bytes:
    """Constants of any size, from a shape of three numbers."""
    nodes = [
        helper.make_node("ConstantOfShape", ["boxes_shape"], ["all"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [9.0])),
        helper.make_node("ConstantOfShape", ["scores_shape"], ["sure"], value=helper.make_tensor("w", TensorProto.FLOAT, [1], [0.9])),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["zero"]),
        helper.make_node("Add", ["all", "zero"], ["boxes"]),
        helper.make_node("Add", ["sure", "zero"], ["scores"]),
    ]  # fmt: skip
    return _model(
        nodes, [("boxes_shape", np.int64([1, n, 5])), ("scores_shape", np.int64([1, n, 1])), ("none", np.float32(0))]
    )


def much_memory() -> bytes:
    """A product of two vectors that has 10^10 entries."""
    nodes = [
        helper.make_node("ConstantOfShape", ["column"], ["a"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        helper.make_node("ConstantOfShape", ["row"], ["b"], value=helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["a", "mean"], ["c"]),
        helper.make_node("MatMul", ["c", "b"], ["product"]),
        helper.make_node("ReduceMean", ["product"], ["m"], keepdims=0),
        helper.make_node("Add", ["some", "m"], ["boxes"]),
        helper.make_node("Add", ["sure", "m"], ["scores"]),
    ]  # fmt: skip
    return _model(nodes, [("column", np.int64([100_000, 1])), ("row", np.int64([1, 100_000])), ("some", np.ones((1, 2, 5), np.float32)),
                          ("sure", np.ones((1, 2, 1), np.float32))])  # fmt: skip


def long_chain(n: int = 20_000) -> bytes:
    """Many nodes, one after the other."""
    nodes = [helper.make_node("Sin", [f"x{i}" if i else "images"], [f"x{i + 1}"]) for i in range(n)]
    nodes += [helper.make_node("ReduceMean", [f"x{n}"], ["mean"], keepdims=0),
              helper.make_node("Add", ["some", "mean"], ["boxes"]), helper.make_node("Add", ["sure", "mean"], ["scores"])]  # fmt: skip
    return _model(nodes, [("some", np.ones((1, 2, 5), np.float32)), ("sure", np.ones((1, 2, 1), np.float32))])


WAYS = {
    "endless loop": endless,
    "5e7 boxes": many_boxes,
    "3,000 boxes": lambda: many_boxes(3000),
    "1e6 boxes": lambda: many_boxes(1_000_000),
    "1e10 boxes": lambda: many_boxes(10_000_000_000),
    "much memory": much_memory,
    "long chain": long_chain,
}
assert onnx.__version__
