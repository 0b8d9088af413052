"""Ground for tests of a control: maps of three classes, and pictures in which each class has the colour of a season."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dataengine.data.layout import Layout
from dataengine.maps.raster import MapRaster
from dataengine.render.control import Control, condition_of, condition_side, new_control
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.train.control import Controlled
from dataengine.train.flow_loss import Example, flow_loss
from dataengine.train.loop import TrainSettings, train

SIDE, NAMES, SEASONS = 32, ("field", "water", "road"), ("summer", "winter")
# colours of the classes in each season; dark fields with light roads, or the reverse
COLOURS = np.float32([[(-0.6, 0.5, -0.6), (-0.7, -0.5, 0.7), (0.8, 0.1, 0.0)],
                      [(0.7, 0.7, 0.9), (-0.1, -0.8, -0.2), (-0.7, -0.7, 0.6)]])  # fmt: skip


def rectangle(classes: np.ndarray, number: int, cx: float, cy: float, width: float, height: float, turn: float):
    """Paint a rectangle of a class into a map (H, W), turned clockwise by radians."""
    y, x = np.mgrid[: classes.shape[0], : classes.shape[1]] + 0.5
    along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    classes[(np.abs(along) <= width / 2) & (np.abs(across) <= height / 2)] = number


def random_map(rng: np.random.Generator) -> np.ndarray:
    """Classes (S, S) uint8: a lake and a road on fields, both turned at random."""
    classes = np.zeros((SIDE, SIDE), np.uint8)
    rectangle(classes, 1, *rng.uniform(4, 28, 2), *rng.uniform(10, 22, 2), rng.uniform(0, np.pi))
    rectangle(classes, 2, *rng.uniform(6, 26, 2), rng.uniform(14, 40), rng.uniform(6, 9), rng.uniform(0, np.pi))
    return classes


def picture(classes: np.ndarray, season: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (3, S, S) in [-1, 1]."""
    clean = COLOURS[season][classes] + rng.normal(0, 0.08, (SIDE, SIDE, 3))
    return np.clip(clean, -1, 1).astype(np.float32).transpose(2, 0, 1)


def condition(maps: list[np.ndarray], model: LayoutUNet) -> torch.Tensor:
    """Maps (S, S) as the condition of a model's side network."""
    none, straight = np.zeros((SIDE, SIDE), bool), np.zeros((2, SIDE, SIDE), np.float32)
    rasters = [MapRaster(classes, none, straight, NAMES) for classes in maps]
    return torch.from_numpy(np.stack([condition_of(raster, condition_side(model)) for raster in rasters]))


def layouts(model: LayoutUNet, seasons: list[int]) -> LayoutBatch:
    """Unknown layouts of these seasons."""
    layout = Layout(np.zeros((0, 5)), [], ("car",), (SIDE, SIDE))
    return model.layout_batch([layout] * len(seasons), [layout.labels] * len(seasons), seasons).unknown()


def new_model() -> LayoutUNet:
    torch.manual_seed(0)
    return LayoutUNet(["car"], list(SEASONS), sample_size=SIDE, latent_channels=3, patch=4, block_out_channels=(48, 96),
                      cross_attention_dim=32, attention_head_dim=16, fields=(), painted_channels=4)  # fmt: skip


def trained(folder: Path, steps: int, control_steps: int) -> tuple[LayoutUNet, torch.nn.Module]:
    """A denoiser of pictures without their maps, and the side network that then learns the maps."""
    model = new_model()

    def batch(rng: np.random.Generator) -> dict:
        maps, seasons = [random_map(rng) for _ in range(16)], rng.integers(0, 2, 16)
        pixels = np.stack([picture(each, season, rng) for each, season in zip(maps, seasons, strict=True)])
        given = seasons.copy()
        given[rng.random(16) < 0.1] = len(SEASONS)  # the learned null
        return {"pixels": torch.from_numpy(pixels), "condition": condition(maps, model), **vars(layouts(model, given))}

    def example(values: dict, generator: torch.Generator, with_map: bool) -> Example:
        values = dict(values)
        pixels, given = values.pop("pixels"), values.pop("condition")
        conditions = (LayoutBatch(**values), given) if with_map else (LayoutBatch(**values),)
        return Example(pixels, conditions, torch.ones_like(pixels[:, :1]))

    settings = {"batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 20, "ema_decay": 0.98, "seed": 0}
    train(model, batch, flow_loss(lambda b, g: example(b, g, False)), folder / "base",
          TrainSettings(steps=steps, **settings), "toy base ")  # fmt: skip
    controlled = Controlled(model, new_control(model, len(NAMES) + 3))
    train(controlled, batch, flow_loss(lambda b, g: example(b, g, True)), folder / "control",
          TrainSettings(steps=control_steps, **settings), "toy control ")  # fmt: skip
    return model.eval(), controlled.control.eval()


def rendered(model, control, maps, seasons: list[int], scale: float = 1.0, guidance: float = 1.0) -> np.ndarray:
    """Pictures (B, 3, S, S) of maps, with the same noise for the same place in the list. guidance: on the season."""
    generators = [torch.Generator().manual_seed(i) for i in range(len(seasons))]
    given = None if control is None else Control(control, condition(maps, model), scale)
    null = layouts(model, [len(SEASONS)] * len(seasons))
    return sample_latents(
        model,
        layouts(model, seasons),
        generators=generators,
        steps=12,
        control=given,
        guidance_scale=guidance,
        null=null,
    ).numpy()


def segmented(pictures: np.ndarray, seasons: list[int]) -> np.ndarray:
    """The class of each pixel (B, S, S) by the nearest colour of the season."""
    colours = COLOURS[seasons]  # (B, K, 3)
    return ((pictures[:, None] - colours[..., None, None]) ** 2).sum(2).argmin(1)


def mean_iou(found: np.ndarray, maps: list[np.ndarray]) -> float:
    """Mean IoU over classes, of all pixels of a batch."""
    wanted = np.stack(maps)
    return float(
        np.mean([((found == k) & (wanted == k)).sum() / ((found == k) | (wanted == k)).sum() for k in range(3)])
    )
