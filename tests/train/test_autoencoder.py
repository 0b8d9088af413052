"""The autoencoder is local, and its training brings latents to the teacher's and reconstructs pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dataengine.render.autoencoder import Autoencoder
from dataengine.train import autoencoder as training
from dataengine.train.checkpoint import save_averaged
from dataengine.train.loop import TrainSettings

SMALL = {"latent_channels": 4, "widths": (8, 16, 16), "blocks": (1, 1, 1)}


def _stripes(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    waves = np.sin((x * rng.normal() + y * rng.normal()) / 12)[..., None] * rng.normal(size=3)
    return np.uint8(np.clip(127 + 60 * waves, 0, 255))


def _teacher(images: torch.Tensor) -> torch.Tensor:
    means = torch.nn.functional.avg_pool2d(images, 8)
    return torch.cat([means, means.mean(1, keepdim=True)], 1)


@pytest.fixture
def image_files(tmp_path):
    for i in range(4):
        Image.fromarray(_stripes(i)).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.glob("*.png"))


def test_windows_of_one_image_agree_away_from_their_borders():
    torch.manual_seed(0)
    model = Autoencoder(**SMALL)
    for p in model.parameters():  # blocks start as the identity, which would hide their reach
        torch.nn.init.normal_(p, std=0.1)
    image = torch.randn(1, 3, 320, 320)
    whole = model(image)[1]
    part = model(image[..., 32:288, 32:288])[1]
    assert torch.allclose(part[..., 88:-88, 88:-88], whole[..., 120:-120, 120:-120], atol=1e-4)


def test_training_matches_the_teachers_latents_and_reconstructs_pixels(image_files, tmp_path, monkeypatch):
    errors = []
    show = training.show_reconstructions

    def measure(held_out, model, step, folder):
        show(held_out, model, step, folder)
        image = held_out["stripes"][0]
        x = torch.from_numpy(image / np.float32(127.5) - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            latents, decoded = model(x)
        errors.append((float((latents - _teacher(x)).square().mean()), float((decoded - x).abs().mean())))

    monkeypatch.setattr(training, "show_reconstructions", measure)
    settings = TrainSettings(
        steps=150, batch_size=4, learning_rate=1e-2, warmup_steps=5, ema_decay=0.5, evaluate_every=5, precision="no"
    )
    held_out = {"stripes": [_stripes(9)]}
    training.train_autoencoder(
        {"stripes": image_files}, {"stripes": 1.0}, held_out, _teacher, tmp_path / "out", settings, 64, SMALL
    )
    assert errors[-1][0] < 0.5 * errors[0][0]
    assert errors[-1][1] < 0.75 * errors[0][1]
    assert (tmp_path / "out" / "model" / "config.json").exists()
    # the weights of a checkpoint can be kept, and a training with a new optimizer goes on from there
    save_averaged(tmp_path / "out" / "checkpoint", Autoencoder(**SMALL), tmp_path / "kept")
    learned = errors[-1]
    training.train_autoencoder(
        {"stripes": image_files}, {"stripes": 1.0}, held_out, _teacher, tmp_path / "second",
        settings.model_copy(update={"steps": 5, "learning_rate": 1e-6}), 64, SMALL,
        start=Autoencoder.from_pretrained(tmp_path / "kept"),
    )  # fmt: skip
    assert np.allclose(errors[-1], learned, rtol=0.05), "the control is errors[0], of random weights"


def test_the_teacher_encodes_a_window_once(image_files, tmp_path):
    calls = []

    def counted(images):
        calls.append(len(images))
        return _teacher(images)

    windows = training.mixed_windows([image_files], [1.0], seed=0)
    for _ in range(2):
        cache = training.LatentCache(windows, counted, tmp_path / "cache", 4)
        pixels, latents = cache[1]
    assert calls == [1]
    x = torch.from_numpy(pixels / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    assert np.allclose(latents, _teacher(x)[0].numpy(), atol=2e-3)


def test_a_blurred_image_has_a_smaller_gradient_share():
    class Blur(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, x):
            return None, torch.nn.functional.avg_pool2d(x, 9, 1, 4)

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    figures = training.reconstruction(Blur(), [noise])
    assert figures["gradient_share"] < 0.9
