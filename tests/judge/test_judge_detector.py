"""The ONNX detector on a tiny network made here: each cell of 8 pixels is an object whose score is its brightness."""

import json
import shutil
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from dataengine import geometry
from dataengine.errors import UserError
from dataengine.judge.detector import OnnxDetector, load_detector, suppress, window_spans

onnx = pytest.importorskip("onnx")
SIZE, CELL = 32, 8


def build(outputs=("boxes", "scores")):
    from onnx import TensorProto, helper, numpy_helper

    n = SIZE // CELL
    y, x = np.mgrid[:n, :n].reshape(2, -1) * CELL + CELL / 2
    boxes = np.column_stack([x, y, *np.full((2, n * n), CELL), np.zeros(n * n)])[None].astype(np.float32)
    constants = {"places": boxes, "shape": np.array([1, -1, 1]), "white": np.float32(255), "axes": np.array([1])}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Reshape", ["cells", "shape"], ["column"]),
        helper.make_node("Div", ["column", "white"], [outputs[1]]),
        helper.make_node("Identity", ["places"], [outputs[0]]),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, [1, n * n, 5]),
            helper.make_tensor_value_info(outputs[1], TensorProto.FLOAT, [1, n * n, 1]),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k != "axes"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def folder(tmp_path):
    onnx.save(build(), tmp_path / "model.onnx")
    write_config(tmp_path)
    return tmp_path


def write_config(folder, **changes):
    settings = {"classes": ["cell"], "image_size": SIZE, "score_threshold": 0.5, "nms_iou": 0.3} | changes
    (folder / "config.json").write_text(json.dumps(settings))


def picture(width, height, cells, value=255):
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in cells:
        image[y : y + CELL, x : x + CELL] = value
    return image


def corners_found(detections):
    return sorted(map(tuple, np.round(detections.boxes[:, :2] - CELL / 2).astype(int).tolist()))


def test_bright_cells_are_found_with_their_scores(folder):
    (found,) = OnnxDetector(folder, threads=1).detect([picture(32, 32, [(8, 16)], 200)])
    assert corners_found(found) == [(8, 16)]
    assert found.scores[0] == pytest.approx(200 / 255)
    assert found.labels.tolist() == [0]


def test_result_does_not_depend_on_the_batch(folder):
    detector = OnnxDetector(folder, threads=1)
    images = [picture(32, 32, [(8, 16)]), picture(64, 40, [(0, 0), (32, 8)]), picture(32, 32, [])]
    together = detector.detect(images)
    for image, found in zip(images, together, strict=True):
        alone = detector.detect([image])[0]
        np.testing.assert_array_equal(alone.boxes, found.boxes)
        np.testing.assert_array_equal(alone.scores, found.scores)


@pytest.mark.parametrize(("width", "height"), [(24, 32), (16, 16), (48, 32), (80, 64), (128, 96)])
def test_every_object_of_an_image_of_another_size_is_found_once_where_it_is(folder, width, height):
    cells = [(x, y) for x in range(0, width, 16) for y in range(0, height, 16)]
    (found,) = OnnxDetector(folder, threads=1).detect([picture(width, height, cells)])
    assert corners_found(found) == sorted(cells)


@given(st.integers(1, 700), st.integers(2, 300))
def test_window_spans_cover_every_pixel_once_and_lie_in_their_windows(length, size):
    spans = window_spans(length, size)
    assert spans[0][1] == 0
    assert spans[-1][2] == length
    assert all(a[2] == b[1] for a, b in pairwise(spans))
    assert all(start >= 0 and start <= first < last <= start + size for start, first, last in spans)


def test_suppression_agrees_with_a_plain_loop_over_shapely_polygons():
    rng = np.random.default_rng(0)
    for _ in range(10):
        boxes = np.column_stack([rng.uniform(0, 40, (40, 2)), rng.uniform(5, 20, (40, 2)), rng.uniform(-1.5, 1.5, 40)])
        boxes = geometry.regularize(boxes.astype(np.float32))
        scores, labels = rng.permutation(np.linspace(0.1, 0.9, 40)).astype(np.float32), rng.integers(0, 2, 40)
        shapes = [shapely.Polygon(corners) for corners in geometry.to_corners(boxes)]
        kept = []
        for i in np.argsort(-scores):
            rivals = [j for j in kept if labels[j] == labels[i]]
            if all(shapes[i].intersection(shapes[j]).area / shapes[i].union(shapes[j]).area <= 0.3 for j in rivals):
                kept.append(i)
        result = suppress(boxes, scores, labels, 0.3)
        np.testing.assert_array_equal(result.boxes, boxes[kept])
        assert 2 < len(kept) < 40


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.onnx").unlink(), "no model.onnx"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: write_config(f, image_size=0), "image_size"),
        (lambda f: write_config(f, angle="le135"), "angle"),
        (lambda f: (f / "model.onnx").write_bytes(b"no network"), "onnxruntime cannot load"),
        (lambda f: onnx.save(build(("a", "b")), f / "model.onnx"), "'boxes' and 'scores'"),
    ],
)
def test_unusable_folder_is_refused_in_one_sentence(folder, spoil, said):
    spoil(folder)
    with pytest.raises(UserError, match=said) as caught:
        OnnxDetector(folder)
    assert "\n" not in str(caught.value).strip()


def test_identity_changes_with_any_setting(folder):
    before = OnnxDetector(folder).identity
    assert OnnxDetector(folder).identity == before
    write_config(folder, score_threshold=0.4)
    assert OnnxDetector(folder).identity != before


def test_a_work_folder_of_mmrotate_is_refused_with_what_is_missing(tmp_path):
    (tmp_path / "last_checkpoint").write_text("/elsewhere/epoch_12.pth")
    with pytest.raises(UserError, match=r"it has no epoch_12\.pth;"):
        load_detector(tmp_path)
    (tmp_path / "epoch_12.pth").write_bytes(b"")
    with pytest.raises(UserError, match="0 configs"):
        load_detector(tmp_path)


@pytest.mark.skipif(find_spec("mmrotate") is not None, reason="mmrotate is installed here")
def test_mmrotate_detector_says_how_to_install_mmrotate_where_it_is_missing(tmp_path):
    (tmp_path / "last_checkpoint").write_text("epoch_12.pth")
    (tmp_path / "epoch_12.pth").write_bytes(b"")
    (tmp_path / "config.py").write_text("")
    with pytest.raises(UserError, match=r"install_mmrotate\.sh"):
        load_detector(tmp_path)


def test_an_error_of_onnxruntime_with_several_lines_is_one_sentence(toy_detector, tmp_path):
    import onnx

    shutil.copytree(toy_detector, tmp_path / "detector")
    model = onnx.load(tmp_path / "detector" / "model.onnx")
    model.graph.output[0].name = "nowhere"
    onnx.save(model, tmp_path / "detector" / "model.onnx")
    with pytest.raises(UserError, match="onnxruntime cannot load it") as told:
        OnnxDetector(tmp_path / "detector")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value", "said"), [("image_size", 64, "cannot run it"), ("classes", ["a"], "classes")]
)
def test_a_config_of_another_model_is_refused(field, value, said, toy_detector, tmp_path):
    shutil.copytree(toy_detector, tmp_path / "detector")
    config = tmp_path / "detector" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: value}))
    with pytest.raises(UserError, match=said) as told:
        OnnxDetector(tmp_path / "detector").detect([np.zeros((64, 64, 3), np.uint8)])
    assert "\n" not in str(told.value)
