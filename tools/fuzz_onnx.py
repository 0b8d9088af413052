"""Detectors in ONNX that never end, or give more than anybody can use."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SIDE = 32  # of their input
BOXES, SCORES = np.ones((1, 2, 5), np.float32), np.full((1, 2, 1), 0.9, np.float32)


def _model(nodes: list, **constants) -> bytes:
    """A model of these nodes and constants, from `images` to `boxes` and `scores`."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("boxes", "scores")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "hostile", [images], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def _with_two_boxes(nodes: list, last: str, **constants) -> bytes:
    """A model that adds the mean of a tensor to two boxes, so that it is needed."""
    nodes = [
        *nodes,
        helper.make_node("ReduceMean", [last], ["last_mean"], keepdims=0),
        helper.make_node("Add", ["two_boxes", "last_mean"], ["boxes"]),
        helper.make_node("Add", ["two_scores", "last_mean"], ["scores"]),
    ]
    return _model(nodes, two_boxes=BOXES, two_scores=SCORES, **constants)


def _filled(shape: str, name: str, value: float):
    """A node that makes a tensor of the shape that a constant states."""
    tensor = helper.make_tensor(f"{name}_value", TensorProto.FLOAT, [1], [value])
    return helper.make_node("ConstantOfShape", [shape], [name], value=tensor)


def endless() -> bytes:
    """A loop of 2^62 turns."""
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    before, after = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("before", "after"))
    steps = [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Sin", ["before"], ["after"])]
    body = helper.make_graph(steps, "body", [turn, going, before], [on, after])
    loop = helper.make_node("Loop", ["turns", "yes", "images"], ["looped"], body=body)
    return _with_two_boxes([loop], "looped", turns=np.int64(2**62), yes=np.bool_(True))


def many_boxes(n: int) -> bytes:
    """As many boxes as a constant of three numbers asks for."""
    nodes = [
        _filled("boxes_shape", "all", 9.0),
        _filled("scores_shape", "sure", 0.9),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["zero"]),
        helper.make_node("Add", ["all", "zero"], ["boxes"]),
        helper.make_node("Add", ["sure", "zero"], ["scores"]),
    ]
    return _model(nodes, boxes_shape=np.int64([1, n, 5]), scores_shape=np.int64([1, n, 1]), none=np.float32(0))


def much_memory() -> bytes:
    """A product of two vectors that has 10^10 entries."""
    nodes = [
        _filled("column", "a", 1.0),
        _filled("row", "b", 1.0),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["a", "mean"], ["c"]),
        helper.make_node("MatMul", ["c", "b"], ["product"]),
    ]
    return _with_two_boxes(nodes, "product", column=np.int64([100_000, 1]), row=np.int64([1, 100_000]))


def long_chain(n: int = 20_000) -> bytes:
    """Many nodes, one after the other."""
    nodes = [helper.make_node("Sin", [f"x{i}" if i else "images"], [f"x{i + 1}"]) for i in range(n)]
    return _with_two_boxes(nodes, f"x{n}")


WAYS = {
    "endless loop": endless,
    "3,000 boxes": lambda: many_boxes(3000),
    "1e6 boxes": lambda: many_boxes(1_000_000),
    "5e7 boxes": lambda: many_boxes(50_000_000),
    "1e10 boxes": lambda: many_boxes(10_000_000_000),
    "much memory": much_memory,
    "long chain": long_chain,
}
