from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from toy_scenes import random_layout

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.render.augment import augment, augmented_window, random_window


def mask_of(layout: Layout, size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    for corners in geometry.to_corners(layout.boxes):
        cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
    return mask > 0


def painted(layout: Layout, size: int) -> np.ndarray:
    image = np.full((size, size, 3), 60, np.uint8)
    image[mask_of(layout, size)] = 250
    return image


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_boxes_move_with_the_pixels(kind):
    rng = np.random.default_rng(0)
    ious, unmoved = [], []
    for _ in range(40):
        layout = random_layout(rng, 192, kind)
        image, moved = augment(painted(layout, 192), layout, rng)
        seen = image[..., 0] > 150
        ious.append(overlap(seen, mask_of(moved, 192)))
        unmoved.append(overlap(seen, mask_of(layout, 192)))
        assert len(moved) == len(layout), "objects well inside the image stay in it"
    assert min(ious) > 0.8
    assert np.mean(unmoved) < 0.4, "control: the original boxes do not fit"


def test_a_copy_is_about_as_sharp_as_the_image():
    rng = np.random.default_rng(2)
    picture = cv2.GaussianBlur(rng.normal(120, 60, (160, 160, 3)), (0, 0), 0.7).clip(0, 255).astype(np.uint8)
    layout = Layout([[80, 80, 40, 20, 0.3]], [0], ("a",), (160, 160))

    def fine(image: np.ndarray) -> float:
        image = image[40:120, 40:120].astype(np.float32)
        return cv2.Laplacian(image, cv2.CV_32F).std() / image.std()

    # at about the original scale
    ratios = [fine(augment(picture, layout, rng, (0.999, 1.001))[0]) / fine(picture) for _ in range(20)]
    assert 0.9 < np.mean(ratios) < 1.1
    assert fine(cv2.GaussianBlur(picture, (0, 0), 0.5)) < 0.85 * fine(picture), (
        "control: a blur of half a pixel is detected"
    )


def test_objects_that_leave_the_image_are_dropped_and_cut_ones_lose_visibility():
    rng = np.random.default_rng(1)
    layout = Layout([[4, 48, 8, 8, 0], [48, 48, 8, 8, 0]], [0, 1], ("a", "b"), (96, 96))
    visible = []
    for _ in range(60):
        _, moved = augment(painted(layout, 96), layout, rng, scale=(1.2, 1.2))
        assert "b" in moved.names()
        visible += [v for v, name in zip(moved.visible, moved.names(), strict=True) if name == "a"]
    assert min(visible) < 0.6


def test_oblique_images_are_never_rotated():
    rng = np.random.default_rng(2)
    layout = replace(random_layout(rng, 96), acquisition=Acquisition(camera_angle_deg=40))
    angles = set()
    for _ in range(20):
        _, moved = augment(painted(layout, 96), layout, rng, scale=(1, 1))
        angles |= {round(abs(float(theta)), 2) for theta in moved.boxes[:, 4]}
    assert angles == {round(abs(float(theta)), 2) for theta in layout.boxes[:, 4]}


def test_horizontal_boxes_stay_upright():
    rng = np.random.default_rng(3)
    layout = random_layout(rng, 96, "hbb")
    for _ in range(20):
        _, moved = augment(painted(layout, 96), layout, rng)
        assert np.allclose(np.sin(2 * moved.boxes[:, 4]), 0, atol=1e-3)


def test_the_ground_sample_distance_follows_the_scale():
    rng = np.random.default_rng(4)
    layout = replace(random_layout(rng, 96), acquisition=Acquisition(gsd_m=0.5))
    _, moved = augment(painted(layout, 96), layout, rng, scale=(0.8, 0.8))
    assert moved.acquisition.gsd_m == pytest.approx(0.5 / 0.8, rel=1e-3)


def test_a_window_larger_than_the_image_marks_its_mirrored_part_as_ignored():
    rng = np.random.default_rng(5)
    layout = random_layout(rng, 96)
    image, window = random_window(painted(layout, 96), layout, 128, rng)
    assert image.shape == (128, 128, 3)
    outside = np.array([[112, 48, 10, 10, 0], [48, 112, 10, 10, 0]], np.float32)
    assert (geometry.containment(outside, window.ignored).max(1) > 0.99).all()
    assert overlap(mask_of(window, 128)[:96, :96], image[:96, :96, 0] > 150) > 0.9


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.25])
@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_an_augmented_window_stays_inside_the_image(kind, scale):
    """The border pixels are red: if they were replicated outwards, windows would be red too. Control: augment alone."""
    rng = np.random.default_rng(6)
    layout = random_layout(rng, 400, kind)
    image = painted(layout, 400)
    image[[0, -1]] = image[:, [0, -1]] = (255, 0, 0)

    def redness(window: np.ndarray) -> int:
        return int(((window[..., 0].astype(int) - window[..., 1]) > 90).sum())

    pairs = [augmented_window(image, layout, 200, rng, scale=scale) for _ in range(30)]
    assert {(window.shape, moved.size) for window, moved in pairs} == {((200, 200, 3), (200, 200))}
    assert max(redness(window) for window, _ in pairs) <= 2 * 200, "at most the border itself"
    assert max(redness(random_window(*augment(image, layout, rng), 200, rng)[0]) for _ in range(150)) > 1000
    fits = [overlap(window[..., 1] > 150, mask_of(moved, 200)) for window, moved in pairs if len(moved)]
    assert np.median(fits) > 0.8
