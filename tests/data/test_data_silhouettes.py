from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataengine import geometry
from dataengine.data.formats import read
from dataengine.data.layout import Layout
from dataengine.layouts.reuse import ReuseSampler
from dataengine.layouts.windows import cut
from dataengine.render.augment import augment
from dataengine.render.layout_batch import outlines, shape_raster

ARROW = np.float32([(20, 30), (60, 30), (60, 20), (80, 40), (60, 60), (60, 50), (20, 50)])


@pytest.fixture
def dataset(tmp_path):
    """One arrow with its mask, one box without."""
    Image.new("RGB", (128, 96)).save(tmp_path / "a.png")
    annotations = [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [20, 20, 60, 40],
            "segmentation": [ARROW.flatten().tolist()],
        },
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [90, 60, 20, 30]},
    ]
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 128, "height": 96}], "annotations": annotations,
               "categories": [{"id": 1, "name": "arrow"}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    return read(tmp_path / "a.json")


def test_instance_masks_of_coco_are_the_silhouettes_and_other_objects_get_a_template(dataset):
    layout = dataset.samples[0].layout
    own, other = outlines(layout)
    assert np.allclose(own, ARROW, atol=1e-3)
    assert len(other) > 8
    assert np.abs(geometry.to_frame(other, layout.boxes[1])).max() <= 1 + 1e-5
    raster = shape_raster(layout, 96)
    assert raster[int(55 / 96 * 96), int(30 / 128 * 96)] == 0, "below the arrow's shaft, though inside its box"
    without = shape_raster(replace(layout, silhouettes=None), 96)
    assert without[int(52 / 96 * 96), int(38 / 128 * 96)] > 0, "control: the template fills that place"


def test_silhouettes_move_with_their_pixels(dataset):
    """A painted object is compared with its outline after augmentation, with flips and rotations."""
    import cv2

    layout = replace(dataset.samples[0].layout, kind="obb")
    image = np.zeros((96, 128, 3), np.uint8)
    cv2.fillPoly(image, [ARROW.astype(np.int32)], (255, 255, 255))
    for seed in range(12):
        turned, moved = augment(image, layout, np.random.default_rng(seed))
        if moved.silhouettes is None or not len(moved.silhouettes[0]):
            continue
        mask = np.zeros(turned.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.rint(moved.outlines()[0] - 0.5).astype(np.int32)], 1)
        shown = turned[..., 0] > 100
        assert (mask.astype(bool) & shown).sum() / (mask.astype(bool) | shown).sum() > 0.85


def test_reused_layouts_carry_silhouettes_of_the_same_shape(dataset):
    layout = replace(dataset.samples[0].layout, kind="obb")
    sampler = ReuseSampler([layout], (128, 96), merge=0.0)

    def area(points: np.ndarray) -> float:
        x, y = points.T
        return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)

    shares, signs = [], set()
    for seed in range(30):
        drawn = sampler.sample(np.random.default_rng(seed))
        for points, box in zip(drawn.outlines(), drawn.boxes, strict=True):
            if len(points):
                shares.append(abs(area(points)) / (box[2] * box[3]))
                signs.add(np.sign(area(points)))
    assert np.allclose(shares, abs(area(ARROW)) / 2400, rtol=1e-2)
    assert signs == {-1.0, 1.0}, "mirrored ones turn the other way"


def test_a_cut_object_and_added_ones_have_no_silhouette(dataset):
    layout = dataset.samples[0].layout
    window = cut(layout, 0, 0, (70, 96))
    assert all(not len(points) for points in window.silhouettes or ())
    shifted = cut(layout, 10, 5, (118, 91))
    assert np.allclose(shifted.outlines()[0], ARROW - (10, 5), atol=1e-3), "control: an uncut one moves along"
    more = replace(layout, boxes=np.concatenate([layout.boxes, layout.boxes[:1]]), labels=[0, 0, 0], difficult=None,
                   visible=None)  # fmt: skip
    assert more.silhouettes is None
    assert layout.select([1, 0]).outlines()[1].shape == ARROW.shape
    assert Layout([], [], ("arrow",), (8, 8)).outlines() == []


@pytest.mark.parametrize("broken", [[[1, 2, "x"] * 4], "text", [[1.0] * 9], [None], {"counts": "abc"}])
def test_an_invalid_mask_counts_as_missing(tmp_path, broken):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 20, 10], "segmentation": broken}
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [entry],
               "categories": [{"id": 1, "name": "arrow"}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read(tmp_path / "a.json").samples[0].layout.silhouettes is None
