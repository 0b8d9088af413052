"""Training of a control of a small whole-image renderer without maps: on an automatic segmentation of its own images.

The renderer takes few steps, for which it was trained against a discriminator; the squared error of whole images would
make its pictures soft again. So only means over squares are compared, at the noise levels of those steps, and chiefly
their contrast: tone and detail stay those of the renderer.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch.nn import functional as F

from dataengine import geometry
from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.files import write_whole
from dataengine.layouts.stored import load_layouts, save_layouts
from dataengine.maps.segment import GROUPS, segment
from dataengine.render.augment import augmented_window
from dataengine.render.control import Control, ControlInput, condition_side, grouped_condition, new_control, save_input
from dataengine.render.flow import few_sigmas
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.thumbnail_decoder import thumbnail_pixels, thumbnails_of
from dataengine.train.conditions import drop_domains, drop_metadata, forget_layouts
from dataengine.train.control import Controlled
from dataengine.train.decoder import domain_name, to_pixels
from dataengine.train.flow_loss import Batch, fast_backward
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, save_samples, train

SEGMENTED_PX = 128  # side of windows as they are segmented
POOLED = 2  # thumbnail pixels of a side of the squares whose means are compared
TONE_WEIGHT = 0.3  # of the mean of the whole image
SPREAD_WEIGHT = 2.0  # of the spread of the means
UNKNOWN_WEIGHT = 0.1  # of squares of which the map says nothing
MAX_SHARE = 0.95  # of one group in a window: more says nothing of where it ends
NULL_PROBABILITY, UNKNOWN_GROUP, UNKNOWN_MAP = 0.1, 0.15, 0.05
RING_PX = 4  # around vehicles: what they stand on
SHOWN = 8
PALETTE = np.uint8([[40, 40, 40], [60, 150, 60], [60, 100, 210], [180, 180, 180], [200, 70, 60], [225, 210, 150]])


@dataclass(frozen=True)
class GroundWindows:
    """Windows of real images with their groups. thumbnails: float16 (N, 3, S, S). groups: uint8 (N, H, W). layouts:
    with the renderer's classes. domains: int64 (N,). labelled: bool (N,), False where the layout is unknown. gsd_m:
    smallest and largest metres per pixel."""

    thumbnails: np.ndarray
    groups: np.ndarray
    layouts: list[Layout]
    domains: np.ndarray
    labelled: np.ndarray
    gsd_m: tuple[float, float]

    def __len__(self) -> int:
        return len(self.layouts)

    def save(self, folder: Path) -> None:
        """Write the windows, so that a training that continues need not cut them again."""
        folder.mkdir(parents=True, exist_ok=True)
        save_layouts(folder / "layouts.npz", self.layouts)
        content = io.BytesIO()
        arrays = {name: value for name, value in vars(self).items() if name != "layouts"}
        np.savez_compressed(content, **arrays)
        write_whole(folder / "windows.npz", content.getvalue())

    @classmethod
    def load(cls, folder: Path) -> GroundWindows:
        """What `save` wrote."""
        with np.load(folder / "windows.npz", allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
        low, high = values.pop("gsd_m").tolist()
        return cls(layouts=load_layouts(folder / "layouts.npz"), gsd_m=(low, high), **values)

    def batch(self, model: LayoutUNet, index: Sequence[int]) -> LayoutBatch:
        """Layouts of some windows as a denoiser has them."""
        chosen = [self.layouts[i] for i in index]
        return model.layout_batch(chosen, [layout.labels for layout in chosen], self.domains[index])


def groups_of(image: np.ndarray, layout: Layout, gsd_m: float, thermal: bool, vehicles: Collection[str]) -> np.ndarray:
    """Groups of an image (H, W, 3), uint8 of SEGMENTED_PX. Objects of the layout take the group around them."""
    small = cv2.resize(image, (SEGMENTED_PX, SEGMENTED_PX), interpolation=cv2.INTER_AREA)
    scale = SEGMENTED_PX / image.shape[1]
    objects, driven = (np.zeros(small.shape[:2], np.uint8) for _ in range(2))
    for box, name in zip(geometry.to_corners(layout.boxes) * scale, layout.names(), strict=True):
        for mask in (objects, driven) if name in vehicles else (objects,):
            cv2.fillPoly(mask, [np.rint(box).astype(np.int32)], 1)
    ring = cv2.dilate(driven, np.ones((2 * RING_PX + 1,) * 2, np.uint8)) > cv2.dilate(
        objects, np.ones((3, 3), np.uint8)
    )
    return segment(small, gsd_m / scale, thermal, ring, cv2.dilate(objects, np.ones((3, 3), np.uint8)) > 0)


def collect_ground(
    datasets: Sequence[Dataset], model: LayoutUNet, windows: dict[str, int], rng: np.random.Generator,
    thermal: Collection[str] = (), vehicles: Collection[str] = (), gsd_m: dict[str, float] | None = None,
) -> GroundWindows:  # fmt: skip
    """Cut windows from images drawn at random, and segment them. windows: how many, by data set. thermal: names of data
    sets. vehicles: classes that stand on paved ground. gsd_m: metres per pixel, by data set, where images state none.
    A data set without objects is unlabelled. Raises UserError where no window shows two groups."""
    side = 8 * model.config.sample_size
    number, domains = {class_key(name): i for i, name in enumerate(model.config.classes)}, list(model.config.domains)
    parts: dict[str, list] = {name: [] for name in ("thumbnails", "groups", "layouts", "domains", "labelled")}
    scales = []
    samples = []
    for dataset in datasets:
        rounds = -(-windows[dataset.name] // len(dataset))
        drawn = np.concatenate([rng.permutation(len(dataset)) for _ in range(rounds)])[: windows[dataset.name]]
        samples += [(dataset, dataset.samples[i]) for i in drawn]
    objects = {dataset.name: any(len(sample.layout) for sample in dataset) for dataset in datasets}
    for dataset, sample in track(samples, "segmenting windows"):
        name = dataset.name
        image, layout = window_of(read_or_fail(sample), sample.layout, side, rng)
        scale = layout.acquisition.gsd_m or (gsd_m or {}).get(name, 1.0)
        groups = groups_of(image, layout, scale, name in thermal, vehicles)
        if np.bincount(groups.ravel()).max() > MAX_SHARE * groups.size:
            continue
        numbers = np.array([number.get(class_key(c), -1) for c in layout.names()], np.int64)
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        parts["thumbnails"].append(thumbnails_of(pixels).half().numpy())
        parts["groups"].append(groups)
        known = replace(layout.select(numbers >= 0), labels=numbers[numbers >= 0], classes=tuple(model.config.classes))
        parts["layouts"].append(replace(known, kind="obb", ignored=None, silhouettes=None))
        look = domain_name(dataset)
        parts["domains"].append(domains.index(look) if look in domains else len(domains))
        parts["labelled"].append(objects[name])
        scales.append(scale)
    if not scales:
        raise UserError("no window of the images shows two groups of the ground.")
    return GroundWindows(
        np.concatenate(parts["thumbnails"]), np.stack(parts["groups"]), parts["layouts"], np.array(parts["domains"]),
        np.array(parts["labelled"]), (min(scales), max(scales)),
    )  # fmt: skip


def window_of(image: np.ndarray, layout: Layout, side: int, rng: np.random.Generator) -> tuple[np.ndarray, Layout]:
    """An augmented window; of an image as small as the window, which has no objects, a turned and mirrored copy."""
    if len(layout) or min(image.shape[:2]) > 1.2 * side:
        return augmented_window(image, layout, side, rng)
    image = np.rot90(image[:side, :side], rng.integers(4))
    return np.ascontiguousarray(image[:, :: rng.choice([-1, 1])]), layout


def make_batch(windows: GroundWindows, model: LayoutUNet, batch_size: int) -> Callable[[np.random.Generator], Batch]:
    """A function rng -> thumbnails, conditions and layouts. Each condition, each group and the whole map are dropped
    now and then: a map does not say everything."""
    side = condition_side(model)

    def batch(rng: np.random.Generator) -> Batch:
        index = rng.integers(0, len(windows), batch_size)
        layouts = windows.batch(model, index)
        forget_layouts(layouts, ~windows.labelled[index] | (rng.random(batch_size) < NULL_PROBABILITY))
        drop_metadata(layouts, model.config.fields, NULL_PROBABILITY, rng)
        drop_domains(layouts, len(model.config.domains), NULL_PROBABILITY, rng)
        known = rng.random((batch_size, len(GROUPS) + 1)) >= UNKNOWN_GROUP
        known[rng.random(batch_size) < UNKNOWN_MAP] = False
        groups = [np.where(known[k, windows.groups[i]], windows.groups[i], 0) for k, i in enumerate(index)]
        conditions = np.stack([grouped_condition(one, len(GROUPS), side) for one in groups])
        thumbnails = torch.from_numpy(windows.thumbnails[index].astype(np.float32))
        return {"thumbnails": thumbnails, "condition": torch.from_numpy(conditions), **vars(layouts)}

    return batch


def contrast_loss(steps: int) -> Callable:
    """Squared error of the clean image's means over squares, at the noise levels of a model of few steps. The mean of
    the whole image counts little, and so do squares of which the map says nothing. Where the map leaves much open, the
    best guess is flat; so the spread of the means is compared, too."""
    sigmas = torch.tensor(few_sigmas(steps))

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        batch = dict(batch)
        x, condition = batch.pop("thumbnails"), batch.pop("condition")
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        sigma = sigmas.to(x.device)[torch.randint(steps, (len(x),), generator=generator, device=x.device)]
        s = sigma[:, None, None, None]
        noisy = (1 - s) * x + s * noise
        with fast_backward(x):
            clean = noisy - s * model(noisy, sigma * 1000, LayoutBatch(**batch), condition).float()
        error = F.avg_pool2d(clean - x, POOLED)
        known = F.adaptive_avg_pool2d(condition[:, :-1].sum(1, keepdim=True), error.shape[-1])
        weight = UNKNOWN_WEIGHT + (1 - UNKNOWN_WEIGHT) * known
        tone = (weight * error).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)
        contrast = (weight * (error - tone).square()).sum() / (weight.sum() * error.shape[1])
        spreads = [_spread(F.avg_pool2d(image, POOLED), weight) for image in (clean, x)]
        flat = (spreads[0] - spreads[1]).square().mean()
        return {"loss": contrast + TONE_WEIGHT * tone.square().mean() + SPREAD_WEIGHT * flat, "contrast": contrast}

    return loss


def _spread(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted standard deviation (B, C) of maps (B, C, h, w)."""
    total = weight.sum((2, 3), keepdim=True)
    mean = (weight * values).sum((2, 3), keepdim=True) / total
    return (((weight * (values - mean).square()).sum((2, 3), keepdim=True) / total) + 1e-4).sqrt()[..., 0, 0]


def show_ground(windows: GroundWindows, model: Controlled, few: int, step: int, folder: Path) -> None:
    """Write `folder/samples/STEP.png`: rows of groups, real windows, and pictures with and without the control."""
    unet, rows = model.denoiser, []
    for seed in (0, 1):
        chosen = np.random.default_rng(seed).integers(0, len(windows), SHOWN)
        layouts = windows.batch(unet, chosen)
        conditions = [grouped_condition(windows.groups[i], len(GROUPS), condition_side(unet)) for i in chosen]
        control = Control(model.control, torch.from_numpy(np.stack(conditions)))
        rows.append([drawn_groups(windows.groups[i], 8 * unet.config.sample_size) for i in chosen])
        rows.append(_shown(torch.from_numpy(windows.thumbnails[chosen].astype(np.float32))))
        for followed in (control, None):
            generators = [torch.Generator().manual_seed(i) for i in range(SHOWN)]
            made = sample_latents(unet, layouts, generators=generators, steps=few, few=True, control=followed)
            rows.append(_shown(made.cpu()))
    save_samples(Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])), folder, step)


def drawn_groups(groups: np.ndarray, side: int) -> np.ndarray:
    """Groups (H, W) as a picture uint8 (side, side, 3)."""
    return cv2.resize(PALETTE[groups], (side, side), interpolation=cv2.INTER_NEAREST)


def _shown(thumbnails: torch.Tensor) -> list[np.ndarray]:
    return list(to_pixels(thumbnail_pixels(thumbnails)))


def train_ground_control(
    unet: LayoutUNet, windows: GroundWindows, groups: dict[str, tuple[str, ...]], out: Path, settings: TrainSettings,
    steps: int, renderer: str = "", gsd_m: tuple[float, float] | None = None,
) -> Controlled:  # fmt: skip
    """Train a control of a denoiser of few `steps`, and write it to `out/control`.

    groups: {each of GROUPS: classes of a map that are it}, for later maps. renderer: hash of the denoiser's weights.
    gsd_m: metres per pixel that it is for, where the windows state them roughly.
    """
    assert tuple(groups) == GROUPS
    torch.manual_seed(settings.seed)
    model = Controlled(unet, new_control(unet, len(GROUPS) + 1))
    recipe = f"ground control {model_settings_text(unet)} renderer={renderer} windows={len(windows)} "

    def show(_, step: int, folder: Path) -> None:
        show_ground(windows, model, steps, step, folder)

    train(model, make_batch(windows, unet, settings.batch_size), contrast_loss(steps), out, settings, recipe, show)
    save_once(model.control, out / "control")
    classes = tuple(name for names in groups.values() for name in names)
    save_input(
        out / "control", ControlInput(classes=classes, gsd_m=gsd_m or windows.gsd_m, groups=groups, renderer=renderer)
    )
    return model
