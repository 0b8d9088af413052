from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine import geometry
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.engine.attempt import place
from dataengine.errors import UserError
from dataengine.layouts.reuse import ReuseSampler
from dataengine.render.canvas import Canvas
from dataengine.render.inpaint import composite, paint_mask
from dataengine.render.inpaint_canvases import Filling, InpaintCanvases, filling_of, room_for
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.placement import merge
from dataengine.render.thumbnail_decoder import ThumbnailDecoder


def ground(rng: np.random.Generator, size: int = 96, level: float = 100.0) -> np.ndarray:
    slope = np.linspace(-20, 20, size)[None, :, None]
    return (rng.normal(level, 4, (size, size, 1)) + slope).repeat(3, 2).clip(0, 255).astype(np.uint8)


def border_ratio(image: np.ndarray, mask: np.ndarray) -> float:
    """Gradient across the mask's border over that elsewhere."""
    grey = image[..., 0].astype(float)
    across = np.abs(np.diff(grey, axis=1))
    at_border = np.diff(mask.astype(int), axis=1) != 0
    return across[at_border].mean() / across[~at_border].mean()


@pytest.fixture
def new() -> Layout:
    return Layout([[30, 48, 24, 12, 0.4], [70, 60, 20, 10, -1.0]], [0, 1], ("car", "van"), (96, 96))


def test_the_border_of_what_was_painted_shows_no_seam_and_nothing_outside_changes(new):
    rng = np.random.default_rng(0)
    mask = paint_mask(new, new.select([]))
    before, drawn = ground(rng), ground(rng, level=140.0)  # 40 grey levels brighter: a seam if it were just pasted
    drawn[40:56, 24:40] = 250
    image = composite(before, drawn, mask)
    assert np.array_equal(image[mask == 0], before[mask == 0])
    assert (np.abs(image[mask > 0].astype(int) - before[mask > 0]) > 20).mean() > 0.02, "the object is there"
    assert border_ratio(image, mask) < 1.3
    pasted = np.where(mask[..., None] > 0, drawn, before)
    assert border_ratio(pasted, mask) > 3, "mutation: pasted without blending"


def test_what_is_labelled_already_is_outside_the_mask(new):
    existing = Layout([[40, 52, 14, 8, 0.2]], [0], ("car", "van"), (96, 96))
    mask = paint_mask(new, existing)
    for (cx, cy), inside in (((30, 48), 1), ((40, 52), 0), ((5, 5), 0)):
        assert mask[cy, cx] == inside


def test_new_objects_touch_nothing_labelled_and_no_border():
    rng = np.random.default_rng(0)
    for _ in range(20):
        layout, existing = random_layout(rng), random_layout(rng)
        free = layout.select(room_for(layout, existing))
        if len(free):
            assert (geometry.intersection(free.boxes, existing.boxes) == 0).all()
            assert (geometry.visible_fraction(free.boxes, free.size) == 1).all()
    cut = replace(layout, visible=np.full(3, 0.5, np.float32))
    assert not room_for(cut, existing.select([])).any(), "a cut object would stand cut in the middle of the picture"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Dataset:
    rng, folder, samples = np.random.default_rng(0), tmp_path_factory.mktemp("pictures"), []
    for i in range(6):
        layout = random_layout(rng, 160)
        layout = replace(layout, boxes=layout.boxes * np.float32([1, 1, 0.5, 0.5, 1]))
        Image.fromarray(paint(layout, rng)).save(folder / f"{i}.png")
        samples.append(Sample(str(i), folder / f"{i}.png", layout))
    return Dataset(samples[0].layout.classes, samples, "obb")


def small_layout(seed: int) -> Layout:
    layout = random_layout(np.random.default_rng(seed))
    return replace(layout, boxes=layout.boxes * np.float32([1, 1, 0.4, 0.4, 1]))


def test_a_picture_comes_back_whole_with_its_own_labels_and_the_new_ones(pictures):
    layout = small_layout(3)
    [target] = InpaintCanvases(pictures, (96, 96)).draw([layout], [7])
    assert 0 < len(target.new) <= 3
    painted = np.full((96, 96, 3), 77, np.uint8)
    image, merged = target.put_back(painted)
    assert image.shape == (160, 160, 3)
    outside = np.ones((160, 160), bool)
    left, top = target.corner
    outside[top : top + 96, left : left + 96] = False
    assert np.array_equal(image[outside], target.image[outside])
    assert (image[~outside] == 77).all()
    n = len(target.new)
    assert np.allclose(merged.boxes[n:], target.existing.boxes)
    assert np.allclose(merged.boxes[:n, :2] - target.new.boxes[:, :2], target.corner)
    again = InpaintCanvases(pictures, (96, 96)).draw([small_layout(9), layout], [1, 7])[1]
    assert (again.provenance, again.corner) == (target.provenance, target.corner), "company does not matter"


def test_pictures_too_small_are_told(pictures):
    with pytest.raises(UserError, match="256x256"):
        InpaintCanvases(pictures, (256, 256))


def test_a_whole_image_model_paints_only_where_the_new_objects_are(new):
    torch.manual_seed(0)
    unet = LayoutUNet(["car", "van"], ["toy"], sample_size=12, block_out_channels=(16, 32), cross_attention_dim=16,
                      attention_head_dim=8).eval()  # fmt: skip
    decoder = ThumbnailDecoder(domains=["toy"], block_out_channels=(16, 32)).eval()
    pipeline = LayoutPipeline(unet, decoder, FlowMatchEulerDiscreteScheduler())
    before, mask = ground(np.random.default_rng(1)), paint_mask(new, new.select([]))
    image = pipeline([new], [1], num_inference_steps=3, images=[before], masks=[mask])[0]
    assert np.array_equal(image[mask == 0], before[mask == 0])
    assert (image[mask > 0] != before[mask > 0]).mean() > 0.1
    whole = pipeline([new], [1], num_inference_steps=3)[0]
    assert (whole[mask == 0] != before[mask == 0]).mean() > 0.5, "mutation: without the mask all is drawn anew"


def test_nothing_is_painted_upon_what_a_window_shows_of_a_labelled_object(tmp_path):
    """Windows that begin left of pixel 7 show less than 30 % of it; control: the new object is put where it is free."""
    Image.fromarray(np.full((100, 140, 3), 90, np.uint8)).save(tmp_path / "0.png")
    labelled = Layout([[115, 50, 40, 20, 0]], [0], ("car",), (140, 100))
    into = InpaintCanvases(Dataset(("car",), [Sample("0", tmp_path / "0.png", labelled)] * 8), (100, 100))
    upon, free = (Layout([[x, 50, 8, 6, 0]], [0], ("car",), (100, 100)) for x in (90, 20))
    for target in into.draw([upon] * 30, range(30)):
        new = target.new.boxes + np.float32([*target.corner, 0, 0, 0])
        assert not (geometry.intersection(new + np.float32([0, 0, 2, 2, 0]), labelled.boxes) > 0).any()
    assert all(len(target.new) for target in into.draw([free] * 30, range(30)))


def test_a_large_picture_is_filled_as_densely_as_the_data_and_not_beyond_it(tmp_path):
    """1,000 px images of which half are empty; control: a window alone fills 1/25 of them."""
    rng, side = np.random.default_rng(0), 1000
    empty = Layout([], [], ("car",), (side, side))
    boxes = [[x, y, 16, 8, 0.3] for x in range(50, side, 100) for y in range(50, side, 100)]
    full = replace(empty, boxes=boxes, labels=np.zeros(100), difficult=None, visible=None)
    Image.fromarray(rng.integers(80, 120, (side, side, 3), np.uint8)).save(tmp_path / "0.png")
    pictures = Dataset(("car",), [Sample("0", tmp_path / "0.png", empty)])
    sampler = ReuseSampler([full], (200, 200))
    filling = filling_of(sampler, [full, empty])
    first = sampler.sample(np.random.default_rng(5))
    everywhere = InpaintCanvases(pictures, (200, 200), filling=filling).draw([first] * 12, range(12))
    counts = [len(one.new) for one in everywhere]
    assert np.mean(counts) == pytest.approx(50, rel=0.35), "objects cut by a cell are left out"
    for one in everywhere:
        assert one.whole
        assert one.complete
        assert (geometry.visible_fraction(one.new.boxes, (side, side)) > 0.999).all()
        inside = geometry.intersection(one.new.boxes, one.new.boxes) - np.diag(geometry.area(one.new.boxes))
        assert inside.max() < 3
    centres = np.concatenate([one.new.boxes[:, :2] for one in everywhere])
    assert np.histogram2d(*centres.T, bins=4, range=[[0, side]] * 2)[0].min() > 0, "in every part of the image"
    again = InpaintCanvases(pictures, (200, 200), filling=filling).draw([first], [3])[0]
    assert np.array_equal(again.new.boxes, everywhere[3].new.boxes)
    [window] = InpaintCanvases(pictures, (200, 200)).draw([first], [3])
    assert np.ptp(window.new.boxes[:, :2], axis=0).max() < 200


def test_where_all_the_data_is_full_every_cell_of_a_picture_is_filled():
    full = Layout([[x, y, 16, 8, 0.3] for x in range(20, 200, 40) for y in range(20, 200, 40)], [0] * 25, ("car",),
                  (200, 200))  # fmt: skip
    filling = filling_of(ReuseSampler([full], (200, 200), scale=(1, 1), turn=False, merge=0), [full])
    assert filling.share == pytest.approx(1)
    assert isinstance(filling, Filling)
    assert len(filling.fill(full, (600, 400), np.random.default_rng(0))) == 6 * 25
    assert len(filling.fill(full, (300, 200), np.random.default_rng(0))) < 2 * 25, "what the border cuts is left out"


def test_no_label_of_a_complete_picture_is_lost(pictures):
    """An object of which its file says that little is visible stays one. Control: in a cut window it is a region."""
    new = Layout([[30, 48, 20, 10, 0]], [0], ("car", "van"), (96, 96))
    old = Layout([[70, 70, 20, 10, 0]], [1], ("car", "van"), (96, 96), visible=[0.1])
    assert merge(old, new, 0.1, 0.0).names() == ["car", "van"]
    assert merge(old, new, 0.1).names() == ["car"]


def test_what_is_next_to_a_new_object_is_looked_for_in_its_window():
    """A window from (50, 50) on: where its object stands is free; control: one that touches the old object is not."""
    old = Layout([[30, 30, 20, 10, 0], [60, 60, 10, 8, 0]], [0, 0], ("car",), (100, 100))
    new = Layout([[30, 30, 20, 10, 0], [12, 12, 10, 6, 0]], [0, 0], ("car",), (50, 50))
    canvas = Canvas(np.zeros((100, 100, 3), np.uint8), old, new, corner=(50, 50))
    likely = SimpleNamespace(placed=lambda canvas, layout, rng: layout)  # all are at likely places
    parts = SimpleNamespace(places=likely, renderer=SimpleNamespace(margin=0.1))
    placed = place(parts, SimpleNamespace(augment_scenes=False, into="here"), canvas, 0)
    assert placed.new.boxes[:, 0].tolist() == [30]
    assert placed.left_out == 1
