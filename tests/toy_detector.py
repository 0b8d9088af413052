"""A detector of red and blue squares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dataengine.data.layout import Layout


def save_detector(folder: Path, classes: Sequence[str], stride: int = 16) -> Path:
    """An ONNX model that looks at cells of 16 px, one every `stride` px, for red (the first class) and for blue."""
    size, cell = 96, 16
    side = (size - cell) // stride + 1
    n = side**2
    y, x = np.mgrid[:side, :side]
    centres = np.stack([x, y], -1).reshape(-1, 2) * stride + cell / 2
    boxes = np.column_stack([centres, np.full((n, 2), cell - 2.0), np.zeros(n)]).astype(np.float32)[None]
    constants = {
        "all_boxes": boxes,
        "mix": np.array([[[[1.0]], [[-1.0]], [[0.0]]], [[[-1.0]], [[0.0]], [[1.0]]]], np.float32),
        "gain": np.float32(0.08),
        "shape": np.array([1, 2, n], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "mix"], ["difference"]),
        helper.make_node("AveragePool", ["difference"], ["cells"], kernel_shape=[cell, cell], strides=[stride, stride]),
        helper.make_node("Mul", ["cells", "gain"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
        helper.make_node("Reshape", ["probability", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["scores"], perm=[0, 2, 1]),
        helper.make_node("Identity", ["all_boxes"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, n, 5]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, n, 2]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    settings = {"classes": list(classes), "image_size": size, "score_threshold": 0.3, "nms_iou": 0.3}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def unpainted(image: np.ndarray, layout: Layout) -> np.ndarray:
    """Bool (N,): whether the middle of each box is as plain as the ground."""
    x, y = layout.boxes[:, :2].astype(int).T
    return (image[y, x] == image[0, 0]).all(1)
