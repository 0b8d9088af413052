"""Copy-paste: real objects in other places, with boxes that fit them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine import geometry
from dataengine.data import formats
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.evaluate.copy_paste import paste_objects, whole_objects, write_copy_paste


@pytest.fixture(params=["obb", "hbb"])
def dataset(request, tmp_path) -> Dataset:
    rng, samples = np.random.default_rng(3), []
    for i in range(4):
        layout = random_layout(rng, kind=request.param)
        file = tmp_path / f"{i}.png"
        Image.fromarray(paint(layout, rng)).save(file)
        samples.append(Sample(file.stem, file, layout))
    return Dataset(("car", "van"), samples, request.param, name="toy")


def empty(kind: str, size: int = 160) -> tuple[np.ndarray, Layout]:
    layout = Layout(np.zeros((0, 5)), [], ("car", "van"), (size, size), kind)
    return paint(layout, np.random.default_rng(0)), layout


def coloured(image: np.ndarray, label: int) -> np.ndarray:
    """Pixels of the class's colour, as the toy scenes paint it."""
    red, blue = image[..., 0].astype(int), image[..., 2].astype(int)
    return (red - blue > 60) if label == 0 else (blue - red > 60)


def test_each_new_box_holds_an_object_of_its_class_and_nothing_else_changes(dataset):
    image, layout = empty(dataset.kind)
    image, found = paste_objects(image, layout, whole_objects(dataset), np.random.default_rng(1))
    assert len(found)
    outside = np.ones(image.shape[:2], bool)
    y, x = np.mgrid[: len(image), : len(image)] + 0.5
    for box, label in zip(found.boxes, found.labels, strict=True):
        local = geometry.to_frame(np.stack([x.ravel(), y.ravel()], 1).astype(np.float32), box).reshape(*x.shape, 2)
        inner, wide = (np.abs(local) < 0.75).all(-1), (np.abs(local) * box[2:4] / 2 < box[2:4] / 2 + 6).all(-1)
        assert coloured(image, label)[inner].mean() > 0.9
        outside &= ~wide
    assert (image[outside] == image[outside]).all()
    assert geometry.iou(found.boxes, found.boxes)[~np.eye(len(found), dtype=bool)].max(initial=0) == 0


def test_a_box_that_is_moved_no_longer_holds_its_object(dataset):
    """Control of the test above: it would see a box that is wrong by half its length."""
    image, layout = empty(dataset.kind)
    image, found = paste_objects(image, layout, whole_objects(dataset), np.random.default_rng(1))
    moved = found.boxes + np.array([1, 1, 0, 0, 0], np.float32) * found.boxes[:, 2:3]
    y, x = np.mgrid[: len(image), : len(image)] + 0.5
    shares = []
    for box, label in zip(moved, found.labels, strict=True):
        local = geometry.to_frame(np.stack([x.ravel(), y.ravel()], 1).astype(np.float32), box).reshape(*x.shape, 2)
        shares.append(coloured(image, label)[(np.abs(local) < 0.75).all(-1)].mean())
    assert np.mean(shares) < 0.5


def test_nothing_is_pasted_where_there_is_no_room(dataset):
    image, layout = empty(dataset.kind)
    full = replace(layout, ignored=[[80, 80, 160, 160, 0]])
    image, found = paste_objects(image, full, whole_objects(dataset), np.random.default_rng(1))
    assert not len(found)
    assert (image == image).all()


def test_a_written_data_set_depends_on_its_seed_alone(dataset, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_copy_paste(dataset, 6, 96, tmp_path / "out" / name, seed)
    a, b, c = (formats.read(tmp_path / "out" / name) for name in "abc")
    assert len(a) == 6
    assert {sample.layout.size for sample in a} == {(96, 96)}
    assert not a.problems
    assert all(np.array_equal(x.layout.boxes, y.layout.boxes) for x, y in zip(a, b, strict=True))
    assert not all(np.array_equal(x.layout.boxes, y.layout.boxes) for x, y in zip(a, c, strict=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "c"]


def test_a_data_set_without_objects_is_refused(dataset, tmp_path):
    bare = [replace(s, layout=s.layout.select(np.zeros(len(s.layout), bool))) for s in dataset]
    with pytest.raises(UserError, match="no object that lies fully inside"):
        write_copy_paste(replace(dataset, samples=bare), 2, 96, tmp_path / "out")
