"""Training of a control on segmented images: windows, batches, the loss, and what is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy_world import toy_ground

from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.maps.segment import GROUPS
from dataengine.render.control import load_control
from dataengine.train.control import Controlled
from dataengine.train.ground_control import (
    GroundWindows,
    collect_ground,
    contrast_loss,
    make_batch,
    train_ground_control,
)
from dataengine.train.loop import TrainSettings

MAP_CLASSES = {name: (f"{name} class",) for name in GROUPS}


@pytest.fixture(scope="module")
def unet():
    return toy_ground(quick=False).unet


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Four images of grass with a road and a car."""
    folder, samples = tmp_path_factory.mktemp("ground"), []
    for i in range(4):
        image = np.full((200, 200, 3), (70, 130, 60), np.uint8)
        image[60 + 10 * i : 110 + 10 * i] = (120, 120, 122)
        Image.fromarray(image).save(folder / f"{i}.png")
        layout = Layout([[80, 85 + 10 * i, 20, 10, 0]], [0], ("car",), (200, 200))
        samples.append(Sample(str(i), folder / f"{i}.png", layout))
    return Dataset(("car",), samples, "obb", "toy")


@pytest.fixture(scope="module")
def windows(unet, dataset) -> GroundWindows:
    return collect_ground([dataset], unet, {"toy": 6}, np.random.default_rng(0), gsd_m={"toy": 0.5})


def test_windows_are_kept_and_read_again(windows, tmp_path):
    windows.save(tmp_path)
    again = GroundWindows.load(tmp_path)
    assert len(again) == len(windows) > 2
    assert again.gsd_m == windows.gsd_m == (0.5, 0.5)
    assert all(np.array_equal(getattr(again, name), getattr(windows, name)) for name in ("groups", "thumbnails"))
    assert [len(layout) for layout in again.layouts] == [len(layout) for layout in windows.layouts]


def test_windows_show_two_groups_and_others_are_left_out(unet, dataset, windows, tmp_path):
    assert all(len(set(np.unique(groups)) - {0}) >= 2 for groups in windows.groups)
    Image.fromarray(np.full((200, 200, 3), (70, 130, 60), np.uint8)).save(tmp_path / "lawn.png")
    lawn = replace(dataset.samples[0], image=tmp_path / "lawn.png", layout=dataset.samples[0].layout.select([]))
    with pytest.raises(UserError, match="no window of the images shows two groups"):
        collect_ground([replace(dataset, samples=[lawn])], unet, {"toy": 2}, np.random.default_rng(0))


def test_groups_and_maps_are_dropped_now_and_then(windows, unet):
    batch = make_batch(windows, unet, 64)(np.random.default_rng(3))
    known = batch["condition"][:, :-1].amax((1, 2, 3)) > 0
    assert 0.02 < 1 - known.float().mean() < 0.4
    assert ((batch["condition"][:, :-1].sum(1) == 0) | (batch["condition"][:, :-1].sum(1) == 1)).all()


def test_detail_within_a_square_costs_nothing_and_contrast_costs_more_than_tone(windows, unet):
    loss, batch = contrast_loss(1), make_batch(windows, unet, 8)(np.random.default_rng(0))
    x = batch["thumbnails"]
    detail = torch.ones_like(x) * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(x.shape[-2] // 2, x.shape[-1] // 2)
    slope = torch.linspace(-1, 1, x.shape[-1]).expand_as(x)

    def cost(error: torch.Tensor) -> float:
        def model(noisy, times, layouts, condition):  # at noise level 1 the clean image is noisy - velocity
            return noisy - (x + error)

        return float(loss(model, batch, torch.Generator().manual_seed(0))["loss"])

    assert cost(torch.zeros_like(x)) == pytest.approx(0, abs=1e-9)
    assert cost(detail) == pytest.approx(0, abs=1e-9)
    assert cost(torch.ones_like(x)) == pytest.approx(0.3, abs=1e-3)
    assert cost(slope) > cost(torch.ones_like(x)), "though its squares are a third as large"


def test_what_the_map_does_not_know_costs_a_tenth_and_a_flat_guess_costs_its_flatness(windows, unet):
    loss, batch = contrast_loss(1), make_batch(windows, unet, 8)(np.random.default_rng(0))
    x, side = batch["thumbnails"], batch["condition"].shape[-1]
    batch["condition"] = torch.zeros_like(batch["condition"])
    batch["condition"][:, 0, :, : side // 2] = 1  # the left half is known

    def values(error: torch.Tensor) -> dict[str, float]:
        losses = loss(lambda noisy, *_: noisy - (x + error), batch, torch.Generator().manual_seed(0))
        return {name: float(value) for name, value in losses.items()}

    waves = torch.sin(torch.arange(x.shape[-1]) * np.pi / 4).expand_as(x)
    known, unknown = waves.clone(), waves.clone()
    known[..., x.shape[-1] // 2 :], unknown[..., : x.shape[-1] // 2] = 0, 0
    assert values(unknown)["contrast"] == pytest.approx(0.1 * values(known)["contrast"], rel=0.02)
    flat = x.mean((2, 3), keepdim=True) - x
    assert values(flat)["loss"] > 2 * values(flat)["contrast"]


def test_a_trained_control_says_what_it_follows_and_the_renderer_stays(windows, unet, tmp_path):
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    settings = TrainSettings(steps=2, batch_size=2, learning_rate=1e-3, warmup_steps=1)
    model = train_ground_control(unet, windows, MAP_CLASSES, tmp_path, settings, 2, "abc")
    assert isinstance(model, Controlled)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    network, given = load_control(str(tmp_path / "control"))
    assert any(p.any() for name, p in network.named_parameters() if name.startswith("controlnet_down"))
    assert tuple(given.groups) == GROUPS
    assert (given.renderer, given.gsd_m) == ("abc", (0.5, 0.5))
    assert network.config.conditioning_channels == len(GROUPS) + 1
