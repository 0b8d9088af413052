from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.render.frame import FrameSpec, box_in_frame, cut, frame_matrices, frame_sides, masks, matte, paste
from dataengine.render.in_scene import FIELDS, object_fields

SPEC = FrameSpec()


def random_boxes(rng: np.random.Generator, n: int, size: float, low: float = 10, high: float = 60) -> np.ndarray:
    """Boxes well inside a size x size image, le90."""
    w = rng.uniform(low, high, n)
    centre = rng.uniform(size / 2 - 10, size / 2 + 10, (n, 2))
    return np.column_stack([centre, w, w * rng.uniform(0.3, 1, n), rng.uniform(-1.57, 1.57, n)]).astype(np.float32)


def covered(corners: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that a polygon covers, (size, size), by shapely."""
    y, x = np.mgrid[:size, :size]
    cells = shapely.box(x, y, x + 1, y + 1)
    return shapely.area(shapely.intersection(cells, shapely.Polygon(corners)))


def in_image(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (K, 2) of the frame in the image."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def hole_outline(hole: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Corners of the hole in the image, (4, 2)."""
    y, x = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    x1, x2, y1, y2 = x[0], x[-1] + 1, y[0], y[-1] + 1
    return in_image(np.float32([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]), matrix)


def test_pasting_the_box_of_a_frame_covers_the_box_in_the_image():
    rng = np.random.default_rng(0)
    for box in random_boxes(rng, 12, 128):
        matrix = frame_matrices(box[None], "obb", SPEC)[0]
        hole, inside = masks(box, "obb", SPEC)
        image = np.zeros((128, 128, 3), np.float32)
        paste(image, np.repeat(inside[..., None], 3, 2), hole, matrix)
        wanted = covered(geometry.to_corners(box[None])[0], 128)
        assert np.abs(image[..., 0] - wanted).sum() < 0.08 * wanted.sum()
        assert image.sum() / 3 == pytest.approx(wanted.sum(), rel=0.03)
        turned = box + np.float32([0, 0, 0, 0, 0.5])
        if box[3] < 0.6 * box[2]:
            other = covered(geometry.to_corners(turned[None])[0], 128)
            assert np.abs(image[..., 0] - other).sum() > 0.3 * wanted.sum(), "control: a rotated box does not fit"


def test_the_frame_shows_the_object_upright_and_centred_at_its_size():
    rng = np.random.default_rng(1)
    for box in random_boxes(rng, 12, 128, 20) * np.float32([1, 1, 1, 0.6, 1]):
        image = covered(geometry.to_corners(box[None])[0], 128).astype(np.float32)[..., None]
        frame = cut(image, frame_matrices(box[None], "obb", SPEC)[0], SPEC.size)[..., 0]
        inside = masks(box, "obb", SPEC)[1]
        assert np.abs(frame - inside).sum() < 0.15 * inside.sum()
        if abs(np.sin(box[4])) > 0.4:
            wrong = cut(image, frame_matrices(box[None], "hbb", SPEC)[0], SPEC.size)[..., 0]
            assert np.abs(wrong - inside).sum() > 0.3 * inside.sum(), "mutation: without the rotation it does not fit"


@pytest.mark.parametrize("length", [12, 60, 300])
def test_pixels_outside_the_hole_keep_their_exact_value(length):
    rng = np.random.default_rng(2)
    size = 2 * length + 40
    for box in random_boxes(rng, 3, size, length, length + 1):
        matrix = frame_matrices(box[None], "obb", SPEC)[0]
        hole, _ = masks(box, "obb", SPEC)
        before = rng.uniform(0, 255, (size, size, 3)).astype(np.float32)
        after = before.copy()
        paste(after, np.full((SPEC.size, SPEC.size, 3), 900, np.float32), hole, matrix)
        y, x = np.mgrid[:size, :size] + 0.5
        outside = ~shapely.contains_xy(shapely.Polygon(hole_outline(hole, matrix)).buffer(1e-3), x, y)
        assert np.array_equal(after[outside], before[outside])
        assert (after != before).any()


def test_a_small_object_keeps_its_sharpness_when_cut_out_and_pasted_back():
    rng = np.random.default_rng(6)
    picture = cv2.GaussianBlur(rng.normal(120, 60, (128, 128, 3)).astype(np.float32), (0, 0), 0.7)  # as sharp as a lens
    back, soft = [], []
    for box in random_boxes(rng, 12, 128, 12, 24):
        matrix = frame_matrices(box[None], "obb", SPEC)[0]
        hole, _ = masks(box, "obb", SPEC)
        inner = box - np.float32([0, 0, 2, 2, 0])
        mask = covered(geometry.to_corners(inner[None])[0], 128) > 0.99
        blurred = cv2.GaussianBlur(picture, (0, 0), 0.5)
        for image, found in ((picture, back), (blurred, soft)):
            pasted = picture.copy()
            paste(pasted, cut(image, matrix, SPEC.size), hole, matrix)
            found.append(cv2.Laplacian(pasted, cv2.CV_32F)[mask].std() / cv2.Laplacian(picture, cv2.CV_32F)[mask].std())
    assert np.mean(back) > 0.8
    assert np.mean(soft) < 0.65, "control: a blur of half a pixel is detected"


def test_no_seam_shows_at_the_rim_of_a_hole_where_the_patch_equals_the_image():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 60, (160, 160, 3)).astype(np.float32)
    ground = 110 + 2 * cv2.GaussianBlur(noise, (0, 0), 3)

    def steps(patch_shift: float) -> tuple[float, float]:
        """Mean gradient across the rim of the hole and elsewhere."""
        rim, elsewhere = [], []
        for box in random_boxes(np.random.default_rng(4), 6, 160, 20, 40):
            matrix = frame_matrices(box[None], "obb", SPEC)[0]
            hole, _ = masks(box, "obb", SPEC)
            picture = ground.copy()
            paste(picture, cut(picture, matrix, SPEC.size) + np.float32(patch_shift), hole, matrix)
            gradient = np.hypot(*np.gradient(picture[..., 0]))
            outline = shapely.Polygon(hole_outline(hole, matrix))
            y, x = np.mgrid[:160, :160] + 0.5
            near = shapely.contains_xy(outline.exterior.buffer(3), x, y)
            rim.append(gradient[near].mean()), elsewhere.append(gradient[~near].mean())
        return float(np.mean(rim)), float(np.mean(elsewhere))

    rim, elsewhere = steps(0)
    assert rim < 1.15 * elsewhere
    rim, elsewhere = steps(40)
    assert rim > 1.5 * elsewhere, "control: a patch of another brightness has a seam"


def test_a_frame_across_the_border_can_be_cut_and_pasted():
    picture = np.random.default_rng(5).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    for box in np.float32([[2, 3, 30, 12, 0.4], [63, 63, 20, 20, -1], [-40, 30, 20, 10, 0]]):
        matrix = frame_matrices(box[None], "obb", SPEC)[0]
        frame = cut(picture, matrix, SPEC.size)
        assert frame.shape == (SPEC.size, SPEC.size, 3)
        assert np.isfinite(frame).all()
        paste(picture, frame, masks(box, "obb", SPEC)[0], matrix)
    assert np.isfinite(picture).all()


def test_the_frame_of_a_horizontal_box_is_upright_in_the_image_and_its_mask_is_the_enclosing_box():
    boxes = np.float32([[50, 50, 30, 12, 0], [50, 50, 30, 12, -np.pi / 2]])
    matrices = frame_matrices(boxes, "hbb", SPEC)
    assert (matrices[:, 0, 1] == 0).all()
    assert (matrices[:, 1, 0] == 0).all()
    scale = SPEC.size / frame_sides(boxes, SPEC)[0]
    assert box_in_frame(boxes[0], "hbb", SPEC) == pytest.approx((30 * scale, 12 * scale), rel=1e-4)
    assert box_in_frame(boxes[1], "hbb", SPEC) == pytest.approx((12 * scale, 30 * scale), rel=1e-4)
    assert abs(frame_matrices(boxes, "obb", SPEC)[1, 0, 1]) > 0.5, "control: that of an oriented box is rotated"


def test_every_hole_contains_its_box_and_leaves_a_rim_of_context():
    boxes = random_boxes(np.random.default_rng(6), 50, 200, 2, 150)
    for box in boxes:
        hole, inside = masks(box, "obb", SPEC)
        assert (hole[inside > 0] == 1).all()
        assert hole[0].sum() == hole[-1].sum() == hole[:, 0].sum() == hole[:, -1].sum() == 0


def test_fields_follow_the_acquisition_and_are_unknown_where_it_is():
    from dataengine.data.layout import Acquisition

    boxes = [[50, 50, 40, 10, 0.5]]
    plain = object_fields(Layout(boxes, [0], ("a",), (100, 100)), SPEC)[0]
    assert np.isnan(plain[4:]).all()
    assert plain[:4] == pytest.approx([2, np.log2(40 * 1.8 / 48), np.sin(0.5), np.cos(0.5)], abs=1e-5)
    acquisition = Acquisition(altitude_m=80, camera_angle_deg=45, night=True, gsd_m=0.25)
    known = object_fields(Layout(boxes, [0], ("a",), (100, 100), acquisition=acquisition), SPEC)[0]
    assert dict(zip(FIELDS[4:], known[4:].tolist(), strict=True)) == pytest.approx(
        {"altitude": 0.8, "camera_angle": 0.5, "night": 1.0, "gsd": -2.0}
    )


def test_the_scene_keeps_its_ground_where_the_painted_frame_is_like_it():
    """A white object on uniform ground of the scene's mean. Mutation: without the matte the scene's texture is lost."""
    texture = np.random.default_rng(0).normal(0, 6, (128, 128, 1)).repeat(3, 2)
    scene = (102 + texture).astype(np.float32)
    hole = np.zeros((48, 48), np.float32)
    hole[4:44, 4:44] = 1
    patch = np.full((48, 48, 3), 102, np.float32)
    patch[18:30, 18:30] = 255
    matrix = np.array([[2, 0, 16], [0, 2, 16]], np.float32)  # frame pixels are two image pixels wide
    ground = cut(scene, matrix, 48)
    with_matte, without = scene.copy(), scene.copy()
    paste(with_matte, patch, hole, matrix, matte(patch, ground))
    paste(without, patch, hole, matrix)
    around, inside = np.s_[36:46, 36:96], np.s_[56:72, 56:72]  # in the image: ground in the hole, and the object
    assert with_matte[around].std() > 0.9 * scene[around].std()
    assert without[around].std() < 0.1 * scene[around].std()
    np.testing.assert_allclose(with_matte[inside], 255, atol=1)
    wrong = matte(patch, ground - 60)  # control: ground unlike the scene's is painted over
    assert wrong.min() == 1
