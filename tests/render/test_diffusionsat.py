"""DiffusionSat's single-image models: metadata and its units, parity with the formulas written out, and folders."""

from __future__ import annotations

import datetime
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dataengine.data.layout import Acquisition
from dataengine.errors import UserError

pytest.importorskip("transformers")
from diffusers import UNet2DConditionModel
from toy_text import toy_satellite_model

from dataengine.render.diffusionsat import load_diffusionsat, seven_numbers

# the authors' first example (notebooks/single-image.ipynb), which decodes to Australia in 2017
PUBLISHED = [925.8798, 345.2111, 411.4541, 0.0, 308.3333, 166.6667, 354.8387]
ACQUISITION = Acquisition(
    longitude_deg=925.8798 * 0.36 - 180, latitude_deg=345.2111 * 0.18 - 90, gsd_m=0.4114541, cloud=0,
    date=datetime.date(2017, 2, 11),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return toy_satellite_model(tmp_path_factory.mktemp("diffusionsat"))


def test_an_acquisition_has_the_numbers_of_the_authors_example():
    assert np.allclose(seven_numbers(ACQUISITION), PUBLISHED, atol=1e-3)


def test_units_are_right_at_both_ends_and_what_is_unknown_is_zero():
    east = Acquisition(longitude_deg=180, latitude_deg=90, gsd_m=1, cloud=1, date=datetime.date(2100, 12, 31))
    assert seven_numbers(east).tolist() == [1000] * 7
    west = Acquisition(longitude_deg=-180, latitude_deg=-90, gsd_m=0.001, cloud=0, date=datetime.date(1980, 1, 1))
    assert np.allclose(seven_numbers(west), [0, 0, 1, 0, 0, 1000 / 12, 1000 / 31])
    assert not seven_numbers(Acquisition(altitude_m=50, night=True)).any(), "it has no number for these"


@pytest.mark.parametrize("year", [1979, 2101])
def test_a_year_without_a_number_is_refused(year):
    with pytest.raises(UserError, match="1980 to 2100"):
        seven_numbers(Acquisition(date=datetime.date(year, 6, 1)))


def plain_embedding(number: float, width: int) -> list[float]:
    """Cosines, then sines, of a number at width / 2 frequencies from 1 down to nearly 1/10000."""
    frequencies = [10000 ** (-k / (width // 2)) for k in range(width // 2)]
    return [math.cos(number * f) for f in frequencies] + [math.sin(number * f) for f in frequencies]


def plain_noise(weights: dict, config: dict, x, t: float, text, numbers: list[float]):
    """The U-Net's output with the metadata's sum written out. diffusers' own U-Net adds a vector that it is given."""
    total = torch.zeros(config["block_out_channels"][0] * 4)
    for i, number in enumerate(numbers):
        wave = torch.tensor(plain_embedding(number, config["block_out_channels"][0]))
        name = f"metadata_embedding.{i}.linear"
        hidden = weights[f"{name}_1.weight"] @ wave + weights[f"{name}_1.bias"]
        total += weights[f"{name}_2.weight"] @ (hidden * torch.sigmoid(hidden)) + weights[f"{name}_2.bias"]
    own = {k: v for k, v in config.items() if k[0] != "_" and k not in ("num_metadata", "use_metadata")}
    unet = UNet2DConditionModel(**own | {"class_embed_type": "identity"}).eval()
    unet.load_state_dict({k: v for k, v in weights.items() if not k.startswith("metadata")})
    return unet(x, t, text, class_labels=total[None]).sample


@torch.no_grad()
def test_a_guided_ddim_step_agrees_with_its_formulas(folder):
    """SD's noise levels, the guided noise of DiffusionSat's pipeline, and DDIM's eq. 12, from half noise."""
    pipeline = load_diffusionsat(folder)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    caption, seed, scale = "a satellite image", 5, 3.0
    drawn = pipeline([caption], [ACQUISITION], [seed], steps=4, guidance_scale=scale, images=[image], strength=0.5)[0]

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    config = json.loads((folder / "unet" / "config.json").read_text())
    weights = {k: v.clone() for k, v in pipeline.unet.state_dict().items()}

    def states(words: str) -> torch.Tensor:
        tokens = pipeline.tokenizer(words, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
        return pipeline.text_encoder(tokens.input_ids)[0]

    from dataengine.seeds import Noise, noise_seed

    scaling = pipeline.vae.config.scaling_factor
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    clean = pipeline.vae.encode(pixels).latent_dist.mean * scaling
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(noise_seed(seed, Noise.LATENT_IMAGE)))
    times = [251, 1]  # of 751, 501, 251, 1: steps of 250, one later, as Stable Diffusion's offset has it
    x = kept[times[0]].sqrt().float() * clean + (1 - kept[times[0]]).sqrt().float() * noise
    for t, following in zip(times, (1, None), strict=True):
        null = plain_noise(weights, config, x, t, states(""), [0.0] * 7)
        conditioned = plain_noise(
            weights, config, x, t, states(caption), [float(n) for n in seven_numbers(ACQUISITION)]
        )
        guided = null + scale * (conditioned - null)
        a, b = kept[t].float(), kept[following].float() if following is not None else kept[0].float()
        x = b.sqrt() * (x - (1 - a).sqrt() * guided) / a.sqrt() + (1 - b).sqrt() * guided
    expected = pipeline.vae.decode(x / scaling).sample

    decoded = []
    original = pipeline.vae.decode
    pipeline.vae.decode = lambda z: decoded.append(original(z)) or decoded[-1]
    again = pipeline([caption], [ACQUISITION], [seed], steps=4, guidance_scale=scale, images=[image], strength=0.5)[0]
    assert (again == drawn).all()
    assert (decoded[0].sample - expected).abs().max() < 1e-4
    other = pipeline([caption], [Acquisition()], [seed], steps=4, guidance_scale=scale, images=[image], strength=0.5)
    assert (decoded[1].sample - expected).abs().max() > 1e-2, "control: another acquisition is another picture"
    assert other[0].shape == drawn.shape


@torch.no_grad()
def test_each_number_acts_and_without_its_embedding_does_not(folder):
    unet = load_diffusionsat(folder).unet
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 32)

    def noise(numbers: torch.Tensor) -> torch.Tensor:
        return unet(x, 100, text, added_cond_kwargs={"metadata": numbers}).sample

    before = noise(torch.full((1, 7), 300.0))
    for i in range(7):
        changed = torch.full((1, 7), 300.0)
        changed[0, i] = 600
        assert (noise(changed) - before).abs().max() > 1e-3
        torch.nn.init.zeros_(unet.metadata_embedding[i].linear_2.weight)
        torch.nn.init.zeros_(unet.metadata_embedding[i].linear_2.bias)
        before = noise(torch.full((1, 7), 300.0))
        assert (noise(changed) - before).abs().max() == 0


def test_a_picture_keeps_its_size_and_depends_on_its_own_seed_only(folder):
    pipeline = load_diffusionsat(folder)
    images = [np.random.default_rng(i).integers(0, 256, (70, 50, 3), np.uint8) for i in range(2)]

    def draw(some, seeds):
        return pipeline(["x"] * len(some), [ACQUISITION] * len(some), seeds, steps=2, images=some, strength=0.5)

    both = draw(images, [1, 2])
    assert both[0].shape == (70, 50, 3)
    assert (draw(images[1:], [2])[0] == both[1]).all()
    assert (draw(images[1:], [3])[0] != both[1]).any()
    assert pipeline(["x"], [ACQUISITION], [1], steps=1)[0].shape == (pipeline.size, pipeline.size, 3)


def test_the_last_checkpoint_is_used_where_the_root_holds_stable_diffusions_own_unet(folder, tmp_path):
    """As training leaves it: `checkpoint-150000/unet` next to the other parts."""
    copy = tmp_path / "published"
    shutil.copytree(folder, copy)
    for step in (900, 150000):
        (copy / f"checkpoint-{step}").mkdir()
        shutil.copytree(folder / "unet", copy / f"checkpoint-{step}" / "unet")
    config = json.loads((copy / "unet" / "config.json").read_text())
    del config["num_metadata"], config["use_metadata"]
    (copy / "unet" / "config.json").write_text(json.dumps(config))
    from dataengine.render.diffusionsat import unet_folder

    assert unet_folder(copy) == copy / "checkpoint-150000" / "unet"
    assert unet_folder(folder) == folder / "unet", "control"
    shutil.rmtree(copy / "checkpoint-900"), shutil.rmtree(copy / "checkpoint-150000")
    with pytest.raises(UserError, match="no U-Net with metadata"):
        load_diffusionsat(copy)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "unet" / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "no .safetensors"),
        (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x"), "cannot be loaded"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "os"}'), "no scheduler"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(folder, tmp_path, damage, says):
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(UserError, match=says) as error:
        load_diffusionsat(tmp_path / "copy")
    assert "\n" not in str(error.value)
