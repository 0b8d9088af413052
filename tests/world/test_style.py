from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from toy_world import QuickUNet, toy_ground

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.canvas import GeneratedCanvases
from dataengine.render.reference import ReferenceSampler
from dataengine.world.canvases import WindowedCanvases
from dataengine.world.noise import Rect
from dataengine.world.scene import Scene
from dataengine.world.style import NODES, Style, load_style

DARK, BRIGHT = np.float32([[[-1.0]]]), np.float32([[[1.0]]])


class Brightness(QuickUNet):
    """As bright as its reference says."""

    def forward(self, latents, timesteps, batch, text=None, known=None):
        clean = batch.references.nan_to_num().reshape(-1, 1, 1, 1).expand_as(latents)
        return (latents - clean) / (timesteps[:, None, None, None] / 1000)


def nothing(rect: Rect) -> Layout:
    return Layout(np.zeros((0, 5)), [], (), (rect.width, rect.height))


def scene(style: Style | None) -> Scene:
    pipeline = toy_ground()
    torch.manual_seed(0)
    pipeline.unet = Brightness(["car", "van"], ["toy"], sample_size=16, latent_channels=3, block_out_channels=(16, 32),
                               cross_attention_dim=16, attention_head_dim=8, reference_width=1).eval()  # fmt: skip
    return Scene(pipeline, 0, nothing, "toy", style=style)


def test_nodes_are_parts_of_one_image_within_a_square_and_places_between_are_mixed():
    style = Style((np.arange(8, dtype=np.float32).reshape(2, 4, 1), 10 + np.arange(4, dtype=np.float32)[None, :, None]),
                  0, 100)  # fmt: skip
    for square in ((0, 0), (3, -2)):
        nodes = [style.node(square[0] * NODES + i, square[1] * NODES)[0] for i in range(NODES)]
        assert np.array_equal(np.diff(nodes), [1, 1, 1]), "neighbouring parts"
    assert {float(style.node(NODES * i, 0)[0] // 10) for i in range(20)} == {0, 1}, "both images appear"
    assert style.at(200, 300)[0] == style.node(2, 3)[0]
    assert style.at(150, 0)[0] == pytest.approx((style.node(1, 0)[0] + style.node(2, 0)[0]) / 2)


def test_ground_follows_the_style_of_its_place_and_changes_gradually():
    style = Style((DARK, BRIGHT), 3, 200)
    column = next(i for i in range(100) if style.node(NODES * i - 1, 0)[0] < style.node(NODES * i, 0)[0])
    x = (NODES * column - 1) * 200
    rows = scene(style).region(Rect(x - 100, -20, 400, 40)).astype(float).mean((0, 2))
    assert rows[300:].mean() - rows[:100].mean() > 40
    steps = np.array([rows[i : i + 50].mean() for i in range(0, 400, 50)])
    assert (np.diff(steps) > -4).all(), "no way back in between"
    plain = scene(None).region(Rect(x - 100, -20, 400, 40)).astype(float).mean((0, 2))
    assert abs(plain[300:].mean() - plain[:100].mean()) < 10, "control: without references"


def test_a_region_with_a_style_is_the_same_alone():
    style = Style((DARK, BRIGHT), 3, 100)
    large, alone = scene(style).region(Rect(-30, -20, 160, 90)), scene(style).region(Rect(11, 7, 30, 40))
    assert np.array_equal(large[27:67, 41:71], alone)


def test_a_folder_becomes_a_style_and_a_renderer_without_references_is_refused(tmp_path):
    Image.fromarray(np.full((300, 600, 3), 90, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="without reference images"):
        load_style(tmp_path, None, toy_ground(), 0, 100)
    renderer = toy_ground()
    renderer.reference_width = 96
    style = load_style(tmp_path, None, renderer, 0, 100)
    assert [part.shape for part in style.parts] == [(1, 2, 96)]
    assert style.identity == load_style(tmp_path, None, renderer, 1, 100).identity


@pytest.mark.parametrize("size", [128, 160])
def test_generated_scenes_look_like_other_images_and_keep_their_objects(size):
    """`synth --like`: of the renderer's own size, and larger ones."""
    pipeline = scene(None).pipeline
    canvases = (GeneratedCanvases if size == pipeline.size else WindowedCanvases)(pipeline, "toy")
    layout = Layout([[40, 30, 20, 10, 0]], [0], ("car",), (size, size))
    plain = canvases.draw([layout], [5])[0]
    shown = {}
    for name, value in (("dark", -1.0), ("bright", 1.0)):
        embeddings = np.full((3, 1, 1), value, np.float32) + np.float32([[[0]], [[0.01]], [[-0.01]]])
        canvases.references = ReferenceSampler(embeddings)
        shown[name] = canvases.draw([layout], [5])[0]
        assert np.array_equal(shown[name].new.boxes, plain.new.boxes)
    assert shown["bright"].image.mean() - shown["dark"].image.mean() > 40
    canvases.references = None
    assert np.array_equal(canvases.draw([layout], [5])[0].image, plain.image), "control: without references"
