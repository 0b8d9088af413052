"""What goes into an imported AeroGen, against facts of the authors' code that are written down here as numbers.

The facts: datasets/dataset.py and inference/inference.py of Sonettoo/AeroGen at 5614537.
"""

from __future__ import annotations

import aerogen_shapes
import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.render.aerogen_import import AEROGEN_CLASSES
from dataengine.render.layout_batch import grid_corners, grid_masks
from dataengine.render.placement import class_numbers
from dataengine.render.text import prompt_of

GRID = 64
ROWS = {
    "airplane": 0, "airport": 1, "baseballfield": 2, "basketballcourt": 3, "bridge": 4, "chimney": 5, "dam": 6,
    "expressway-service-area": 7, "expressway-toll-station": 8, "golffield": 9, "groundtrackfield": 10, "harbor": 11,
    "overpass": 12, "ship": 13, "stadium": 14, "storagetank": 15, "tenniscourt": 16, "trainstation": 17, "vehicle": 18,
    "windmill": 19,
}  # fmt: skip
PHRASES = [
    "airplane parked on the ground", "busy airport", "green baseball field", "outdoor basketball court", "long bridge",
    "tall chimney", "large dam", "crowded expressway service area", "busy expressway toll station",
    "well-maintained golf field", "athletic ground track field", "bustling harbor", "elevated overpass",
    "ship on the water", "large stadium", "industrial storage tank", "clay tennis court", "crowded train station",
    "vehicle on the road", "rotating windmill",
]  # fmt: skip
# corners in an image of 800 px as an annotation has them; cells of the 64 x 64 grid; cells of the mask
BOXES = {
    "upright": ([(200, 100), (400, 100), (400, 300), (200, 300)], [(16, 8), (32, 8), (32, 24), (16, 24)], 289),
    "multiples of 25": ([(25, 75), (175, 75), (175, 350), (25, 350)], [(2, 6), (14, 6), (14, 28), (2, 28)], 299),
    "one cell": ([(101, 101), (111, 101), (111, 111), (101, 111)], [(8, 8), (8, 8), (8, 8), (8, 8)], 1),
    "8 px thin": ([(200, 401), (400, 401), (400, 409), (200, 409)], [(16, 32), (32, 32), (32, 32), (16, 32)], 17),
    "thin, upright": ([(401, 200), (409, 200), (409, 400), (401, 400)], [(32, 16), (32, 16), (32, 32), (32, 32)], 17),
    "left border": ([(0, 300), (50, 300), (50, 350), (0, 350)], [(0, 24), (4, 24), (4, 28), (0, 28)], 25),
    "upper border": ([(300, 0), (350, 0), (350, 50), (300, 50)], [(24, 0), (28, 0), (28, 4), (24, 4)], 25),
    "right border": ([(750, 300), (800, 300), (800, 350), (750, 350)], [(60, 24), (64, 24), (64, 28), (60, 28)], 20),
    "lower border": ([(300, 750), (350, 750), (350, 800), (300, 800)], [(24, 60), (28, 60), (28, 64), (24, 64)], 20),
    "lower right": ([(775, 775), (800, 775), (800, 800), (775, 800)], [(62, 62), (64, 62), (64, 64), (62, 64)], 4),
    "tilted by -45": ([(300, 400), (400, 300), (500, 400), (400, 500)], [(24, 32), (32, 24), (40, 32), (32, 40)], 145),
    "tilted by -30": (
        [(100, 200), (273.2, 100), (323.2, 186.6), (150, 286.6)], [(8, 16), (21, 8), (25, 14), (12, 22)], None,
    ),
}  # fmt: skip


def layout_of(corners, size: int = 800) -> Layout:
    return Layout(geometry.from_corners(np.float32([corners])), [0], ("ship",), (size, size))


@pytest.mark.parametrize("name", BOXES)
def test_corners_and_masks_are_those_of_the_authors_code(name):
    corners, cells, area = BOXES[name]
    layout = layout_of(corners)
    assert grid_corners(layout, GRID)[0].tolist() == [list(map(float, cell)) for cell in cells]
    mask = grid_masks(layout, GRID)[0]
    if area is not None:
        assert mask.sum() == area
    drawn = Image.new("L", (GRID, GRID))  # as their display loader draws it
    ImageDraw.Draw(drawn).polygon(cells, outline=1, fill=1)
    different = np.abs(mask - np.asarray(drawn)).sum()
    assert different <= (0 if area is not None else 0.1 * mask.sum()), "libraries draw slanted edges differently"


def restated(corners: list[tuple[float, float]], size: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Corners clockwise from the leftmost one, truncated to cells in float64, and their mask, without our code."""
    first = min(range(4), key=lambda i: (round(corners[i][0], 3), round(corners[i][1], 3)))
    cells = [(int(x * 64 / size), int(y * 64 / size)) for x, y in corners[first:] + corners[:first]]
    return cells, cv2.fillPoly(np.zeros((64, 64), np.uint8), [np.array(cells)], 1)


def test_corners_and_masks_of_random_boxes_are_those_of_an_independent_restatement():
    rng, turned = np.random.default_rng(0), 0
    for _ in range(2000):
        w, h = rng.uniform(8, 200, 2)
        degrees = rng.choice([0.0, rng.uniform(-90, 0)])
        x, y = rng.uniform(0, 512, 2)
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        corners = [
            (float(x + u * c - v * s), float(y + u * s + v * c))
            for u, v in ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2))
        ]
        cells, mask = restated(corners, 512)
        layout = layout_of(corners, 512)
        distance = min(abs(v / 8 - round(v / 8)) * 8 for corner in corners for v in corner)
        if distance < 2e-3:  # float32 boxes know no more of it
            continue
        assert [tuple(map(int, cell)) for cell in grid_corners(layout, GRID)[0]] == cells
        assert (grid_masks(layout, GRID)[0] == mask).all()
        turned += degrees != 0
    assert turned > 500


def test_every_box_inside_the_image_has_a_cell():
    """Taking the interior alone leaves 39 % of boxes of 8 px empty."""
    rng = np.random.default_rng(0)
    boxes = np.column_stack(
        [rng.uniform(20, 490, (500, 2)), np.full(500, 12), np.full(500, 6), rng.uniform(-1.5, 1.5, 500)]
    )
    masks = grid_masks(Layout(boxes, np.zeros(500), ("car",), (512, 512)), GRID)
    assert (masks.sum((1, 2)) >= 1).all()
    inside = [cv2.erode(mask, np.ones((3, 3), np.uint8)).sum() for mask in masks]
    assert np.mean(np.array(inside) == 0) > 0.3, "control: their interior is often empty"


@pytest.mark.parametrize("preset", ["dior", "dior-r"])
def test_class_vectors_go_by_name(preset):
    """mmrotate and the presets have service area, toll station and dam at 6, 7 and 8."""
    from dataengine.data.presets import load_preset

    classes = load_preset(preset).classes
    layout = Layout(np.tile([9, 9, 4, 2, 0], (20, 1)), np.arange(20), classes, (20, 20))
    assert class_numbers(layout, AEROGEN_CLASSES).tolist() == [ROWS[name] for name in classes]
    assert class_numbers(layout, AEROGEN_CLASSES).tolist() != list(range(20)), "by position three would be exchanged"
    assert [name.lower() for name in AEROGEN_CLASSES] == list(ROWS)


def test_prompts_are_the_phrases_that_the_weights_have_read():
    for name, phrase in zip(AEROGEN_CLASSES, PHRASES, strict=True):
        assert prompt_of(Layout([[9, 9, 4, 2, 0]], [0], (name,), (20, 20))) == f"an aerial image with {phrase}"
    three = Layout([[9, 9, 4, 2, 0]] * 3, [0, 1, 2], ("Dam", "ground track field", "storage-tank"), (20, 20))
    assert prompt_of(three) == (
        "an aerial image with large dam, athletic ground track field and industrial storage tank"
    )


def authors_steps(noise_of, first: np.ndarray, noises: list[np.ndarray], eta: float) -> np.ndarray:
    """DDIM as latent diffusion's ddim.py has it: 50 steps 1, 21 ... 981, sigma of eq. 16, no clipping."""
    betas = np.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=np.float64) ** 2
    alphas = np.cumprod(1 - betas)
    times = np.arange(0, 1000, 20) + 1
    before = np.concatenate([alphas[:1], alphas[times[:-1]]])
    x = first
    for k, i in enumerate(reversed(range(50))):
        a, a_before, e = alphas[times[i]], before[i], noise_of(x, int(times[i]))
        sigma = eta * np.sqrt((1 - a_before) / (1 - a) * (1 - a / a_before))
        clean = (x - np.sqrt(1 - a) * e) / np.sqrt(a)
        x = np.sqrt(a_before) * clean + np.sqrt(1 - a_before - sigma**2) * e + sigma * noises[k]
    return x


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return aerogen_shapes.import_tiny(tmp_path_factory.mktemp("aerogen"))


def test_the_imported_model_draws_with_the_authors_sampler(pipeline, monkeypatch):
    """50 steps of DDIM with eta 0.2 and guidance 7.5, against the formulas; other settings end elsewhere."""
    from dataengine.render import latent_pipeline

    assert (pipeline.steps, pipeline.guidance_scale, pipeline.eta) == (50, 7.5, 0.2)

    class Noise(torch.nn.Module):
        config, device, dtype, timesteps = pipeline.unet.config, torch.device("cpu"), torch.float32, []

        def forward(self, x, times, batch, text, control=None):
            self.timesteps.append(int(times[0]))
            return torch.tanh(x * (1 + times[0] / 1000)) * (1 + 0.1 * text.mean())

    text = {"": 0.0, "a prompt": 1.0}
    encoded = lambda prompts, *_: torch.stack([torch.full((16, 64), text[p]) for p in prompts])  # noqa: E731
    monkeypatch.setattr(latent_pipeline, "encode_prompts", encoded)
    monkeypatch.setattr(pipeline, "unet", Noise())

    def ours(eta: float) -> np.ndarray:
        generator = torch.Generator().manual_seed(3)
        return pipeline.denoise(None, ["a prompt"], [generator], 50, 7.5, 1.0, eta)[0].numpy()

    generator = torch.Generator().manual_seed(3)
    first = torch.randn(4, 16, 16, generator=generator).numpy().astype(np.float64)
    noises = [torch.randn(1, 4, 16, 16, generator=generator).numpy()[0].astype(np.float64) for _ in range(50)]

    def noise_of(x: np.ndarray, t: int) -> np.ndarray:
        return np.tanh(x * (1 + t / 1000)) * (1 + 0.1 * (0 + 7.5 * (1 - 0)))

    theirs = authors_steps(noise_of, first, noises, 0.2)
    assert np.abs(ours(0.2) - theirs).max() < 1e-3 * np.abs(theirs).max()
    assert Noise.timesteps[::2] == list(range(981, 0, -20))
    assert np.abs(ours(0.0) - theirs).max() > 0.05 * np.abs(theirs).max(), "control: eta makes a difference"


def test_any_other_scheduler_is_set_up_for_the_same_noise(pipeline, tmp_path):
    from dataengine.errors import UserError
    from dataengine.render.latent_pipeline import SCHEDULERS
    from dataengine.render.renderer import load_renderer

    pipeline.save_pretrained(tmp_path / "model")
    saved = load_renderer(tmp_path / "model", "whole")
    assert (saved.steps, saved.guidance_scale, saved.eta) == (50, 7.5, 0.2)
    config = saved.scheduler.config
    assert (config.clip_sample, config.set_alpha_to_one, config.steps_offset) == (False, False, 1)
    alphas = saved.scheduler.alphas_cumprod
    for name in SCHEDULERS:
        renderer = load_renderer(tmp_path / "model", "whole")
        renderer.use_scheduler(name)
        assert torch.equal(renderer.scheduler.alphas_cumprod, alphas)
        assert renderer.scheduler.config.prediction_type == "epsilon"
        assert renderer.eta == (0.2 if name == "ddim" else 0.0)
        image = renderer([Layout([[60, 60, 40, 20, 0.3]], [13], AEROGEN_CLASSES, (128, 128))], [1], None, 3)[0]
        assert image.std() > 0
    with pytest.raises(UserError, match="has none; give --scheduler ddim"):
        saved.use_scheduler("dpm", eta=0.5)
