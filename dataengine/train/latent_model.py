"""Training of the in-painting latent model: flow matching on the latents of windows of several data sets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from dataengine.data.draw import draw
from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.autoencoder import LATENT_RATIO, Autoencoder
from dataengine.render.flow import velocity_error
from dataengine.render.inpaint import Known
from dataengine.render.inpainting_pipeline import NOISE_SHIFT, InpaintingPipeline
from dataengine.render.layout_batch import LayoutBatch, coverage
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.precision import fast_autocast
from dataengine.train.conditions import drop_domains, drop_metadata, forget_layouts
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.latent_windows import LatentWindows, Source
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, train
from dataengine.train.region_masks import around_objects, random_region, regions_text
from dataengine.train.warm_start import copy_weights

# 24 M parameters: 21 windows/s in training on one core
MODEL = {"block_out_channels": (128, 192, 256), "shape_prior": True, "prediction": "preconditioned"}
NULL_PROBABILITY = 0.1  # of each condition
FOREGROUND_WEIGHT = 2.0
FITTED_WINDOWS = 1024  # on which the linear guess is fitted
HELD_OUT_WINDOWS = 16  # of each source, to measure the loss on
BANDS = (0.3, 0.6, 0.8, 0.95)  # noise levels at which the loss is measured
WHOLE_SHOWN, INPAINTED_SHOWN = 8, 4  # pictures of the sample grid


def ignored_cells(layout: Layout, grid: int) -> np.ndarray:
    """Cells that regions with unknown content touch, bool (grid, grid)."""
    if not len(layout.ignored):
        return np.zeros((grid, grid), bool)
    regions = replace(layout.select([]), boxes=layout.ignored, labels=np.zeros(len(layout.ignored)), difficult=None,
                      visible=None)  # fmt: skip
    return (coverage(regions, grid) > 0).any(0)


class LatentExamples:
    """Batches of windows in a model's form. mean, spread: of each latent channel."""

    def __init__(
        self, windows: LatentWindows, labelled: list[bool], model: LayoutUNet, mean: list[float], spread: list[float]
    ):
        self.windows, self.labelled, self.model = windows, np.array(labelled), model
        self.mean, self.spread = (np.float32(values)[:, None, None] for values in (mean, spread))

    def latents(self, index: np.ndarray) -> torch.Tensor:
        """Standardised latents float32 (B, C, S, S)."""
        return torch.from_numpy((self.windows.latents[index].astype(np.float32) - self.mean) / self.spread)

    def layouts(self, index: np.ndarray) -> LayoutBatch:
        """Layouts and their data sets as domains; those of unlabelled sources are unknown."""
        layouts, sources = [self.windows.layouts[i] for i in index], self.windows.sources[index]
        batch = self.model.layout_batch(layouts, [layout.labels for layout in layouts], sources)
        forget_layouts(batch, ~self.labelled[sources])
        return batch

    def batch(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """A random training batch; each condition is independently replaced by its null (contract 7)."""
        config = self.model.config
        index = rng.integers(0, len(self.windows), batch_size)
        layouts = self.layouts(index)
        forget_layouts(layouts, rng.random(batch_size) < NULL_PROBABILITY)
        drop_metadata(layouts, config.fields, NULL_PROBABILITY, rng)
        drop_domains(layouts, len(config.domains), NULL_PROBABILITY, rng)
        grid, chosen = config.sample_size, [self.windows.layouts[i] for i in index]
        regions = np.stack([random_region(layout, grid, rng) for layout in chosen])
        return {"latents": self.latents(index), **self.regions(chosen, regions), **vars(layouts)}

    def regions(self, layouts: list[Layout], regions: np.ndarray) -> Batch:
        """Regions to generate bool (B, S, S), and the weight of each cell's error, as tensors (B, 1, S, S)."""
        grid = regions.shape[-1]
        foreground = np.stack([around_objects(layout, grid, 0.0, 0.0) for layout in layouts])
        ignored = np.stack([ignored_cells(layout, grid) for layout in layouts])
        weight = regions * ~ignored * np.where(foreground, FOREGROUND_WEIGHT, 1.0)
        # a small region counts less than a whole picture, but its cells count more
        weight /= np.sqrt(regions.mean((1, 2), keepdims=True))
        return {
            "region": torch.from_numpy(regions[:, None].astype(np.float32)),
            "weight": torch.from_numpy(weight[:, None].astype(np.float32)),
        }


def latent_example(batch: Batch, generator: torch.Generator) -> Example:
    """Latents and their conditions: layout, null text, and what is known of the picture."""
    batch = dict(batch)
    x, region, weight = (batch.pop(name) for name in ("latents", "region", "weight"))
    return Example(x, (LayoutBatch(**batch), None, Known(x, region)), weight, region)


@torch.no_grad()
def loss_by_noise(examples: LatentExamples, index: np.ndarray) -> dict[str, float]:
    """Mean flow loss of whole pictures at each noise level of BANDS, with noise that is the same for each model."""
    x, layouts = examples.latents(index), examples.layouts(index)
    chosen = [examples.windows.layouts[i] for i in index]
    weight = examples.regions(chosen, np.ones((len(index), *x.shape[-2:]), bool))["weight"].clamp(max=1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    device, losses = examples.model.device, {}
    for level in BANDS:
        sigma = torch.full((len(x),), level)
        with fast_autocast(device):
            noisy = ((1 - level) * x + level * noise).to(device)
            predicted = examples.model(noisy, 1000 * sigma.to(device), layouts.to(device)).float().cpu()
        error = velocity_error(predicted, noise - x, sigma).mean(1, keepdim=True)
        losses[str(level)] = float((weight * error).sum() / weight.sum())
    return losses


def log_losses(parts: dict[str, LatentExamples], names: list[str], step: int, file: Path) -> None:
    """Append a JSON line with `loss_by_noise` of each part ("train", "held-out") and source."""
    losses = {}
    for part, examples in parts.items():
        for number, name in enumerate(names):
            index = np.flatnonzero(examples.windows.sources == number)[:HELD_OUT_WINDOWS]
            if len(index):
                losses.setdefault(part, {})[name] = loss_by_noise(examples, index)
    with file.open("a") as log:
        log.write(json.dumps({"step": step, **losses}) + "\n")
    for part, by_source in losses.items():
        text = ", ".join(f"{name} {np.mean(list(values.values())):.4f}" for name, values in by_source.items())
        print(f"step {step}, {part} loss: {text}", flush=True)


def shown_windows(examples: LatentExamples) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the windows that are shown whole, of the sources in turn, and in-painted, which have objects."""
    windows = examples.windows
    ranks = np.zeros(len(windows), np.int64)
    for number in np.unique(windows.sources):
        of_source = np.flatnonzero(windows.sources == number)
        counts = np.array([len(windows.layouts[i]) for i in of_source])
        ranks[of_source[np.argsort(counts == 0, kind="stable")]] = np.arange(len(of_source))  # with objects first
    order = np.lexsort((windows.sources, ranks))
    objects = [i for i in order if len(windows.layouts[i])]
    return order[:WHOLE_SHOWN], np.array(objects[:INPAINTED_SHOWN], np.int64)


def show_samples(examples: LatentExamples, pipeline: InpaintingPipeline, step: int, folder: Path) -> None:
    """Write `folder/samples/STEP.png`: rows of real windows, pictures of their layouts, the same without boxes, then
    windows with holes, and the same in-painted. Real windows are shown as the autoencoder decodes them."""
    whole, inpainted = shown_windows(examples)
    grid = examples.model.config.sample_size
    layouts = [examples.windows.layouts[i] for i in np.concatenate([whole, inpainted])]

    def with_boxes(images: np.ndarray, part: list[Layout]) -> list[np.ndarray]:
        return [np.asarray(draw(image, layout)) for image, layout in zip(images, part, strict=True)]

    def sampled(index: np.ndarray, known: Known | None) -> np.ndarray:
        generators = [torch.Generator().manual_seed(int(i)) for i in index]
        latents = pipeline.denoise(examples.layouts(index), generators, 20, 1.0, known)
        return pipeline.decode(latents)

    device = examples.model.device
    generated = sampled(whole, None)
    real = pipeline.decode(examples.latents(whole).to(device))
    rows = [with_boxes(real, layouts[: len(whole)]), with_boxes(generated, layouts[: len(whole)]), list(generated)]
    if len(inpainted):
        x = examples.latents(inpainted).to(device)
        regions = np.stack([around_objects(layout, grid, 0.25, 8.0) for layout in layouts[len(whole) :]])
        region = torch.from_numpy(regions[:, None].astype(np.float32)).to(device)
        holes = np.kron(regions, np.ones((LATENT_RATIO, LATENT_RATIO), bool))[..., None]
        before = np.where(holes, np.uint8(127), pipeline.decode(x))
        after = sampled(inpainted, Known(x, region))
        rows.append([image for pair in zip(before, after, strict=True) for image in pair])
    width = max(map(len, rows))
    blank = np.zeros_like(rows[0][0])
    (folder / "samples").mkdir(exist_ok=True)
    sheet = [np.concatenate(row + [blank] * (width - len(row)), 1) for row in rows]
    Image.fromarray(np.concatenate(sheet)).save(folder / "samples" / f"{step:07d}.png")


def make_pipeline(
    model: LayoutUNet,
    autoencoder: Autoencoder,
    mean: list[float] | None,
    spread: list[float] | None,
    grey_domains: list[str],
) -> InpaintingPipeline:
    """The pipeline of a model. mean, spread: of each latent channel."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=NOISE_SHIFT)
    pipeline = InpaintingPipeline(model, autoencoder, scheduler, mean, spread, grey_domains)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def train_latent_model(
    sources: list[Source],
    held_out: list[Source],
    autoencoder: Autoencoder,
    out: Path,
    settings: TrainSettings,
    *,
    windows: int = 12_000,
    size: int = 256,
    model_settings: dict | None = None,
    grey_domains: list[str] | None = None,
    start: InpaintingPipeline | None = None,
) -> InpaintingPipeline:
    """Train a model on windows of size x size pixels, and write the pipeline to `out/pipeline`.

    sources, held_out: data sets with the same class list, in the same order; their names are the model's domains.
    windows: number of augmented windows, made once and kept in `out`. start: a trained pipeline whose weights and
    latent statistics this one starts with; a checkpoint in `out` takes precedence. Raises UserError when a data set has
    no image.
    """
    torch.manual_seed(settings.seed)
    classes, names = sources[0].dataset.classes, [source.dataset.name for source in sources]
    for source in (*sources, *held_out):
        if tuple(source.dataset.classes) != tuple(classes):
            raise UserError(f"{source.dataset.name}: the data sets to train on need one class list.")
    model = LayoutUNet(
        classes=list(classes), domains=names, sample_size=size // LATENT_RATIO, inpaints=True,
        latent_channels=autoencoder.config.latent_channels,
        **(MODEL | (model_settings or {})),
    )  # fmt: skip
    autoencoder.eval().requires_grad_(False)
    encoder = make_pipeline(model, autoencoder, None, None, [])  # the statistics are not known yet
    weights = float(sum(p.double().abs().sum() for p in autoencoder.encoder.parameters()))
    recipe = f"encoder={weights:.6f} sources={[(s.dataset.name, len(s.dataset), s.share) for s in sources]}"

    def encode(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([encoder.encode(pixels[i : i + 8]).cpu().numpy() for i in range(0, len(pixels), 8)])

    parts = {
        "train": LatentWindows(out / "windows", sources, windows, size, encode, recipe, settings.seed),
        "held-out": LatentWindows(
            out / "held-out", held_out, HELD_OUT_WINDOWS * 2 * len(held_out), size, encode, recipe, seed=1
        ),
    }
    mean, spread = parts["train"].statistics()
    if start is not None:
        copy_weights(model, start.unet)
        mean, spread = list(start.config.latent_mean), list(start.config.latent_spread)
    labelled = [source.labelled for source in sources]
    examples = {name: LatentExamples(part, labelled, model, mean, spread) for name, part in parts.items()}
    if model.config.prediction == "preconditioned":
        model.fit_guess(examples["train"].latents(np.arange(min(windows, FITTED_WINDOWS))))
    pipeline = make_pipeline(model, autoencoder, mean, spread, grey_domains or [])
    if not (out / "checkpoint").exists():
        save_once(pipeline, out / "pipeline")  # the statistics, and the form of the model, for `save_latent_model`

    def evaluate(_: LayoutUNet, step: int, folder: Path) -> None:
        log_losses(examples, names, step, folder / "losses.jsonl")
        show_samples(examples["held-out"], pipeline, step, folder)

    train(
        model,
        lambda rng: examples["train"].batch(rng, settings.batch_size),
        flow_loss(latent_example, logit_mean=math.log(NOISE_SHIFT)),
        out,
        settings,
        f"latent model {model_settings_text(model)} {recipe} windows={windows} size={size} start={start is not None} "
        f"shift={NOISE_SHIFT} {regions_text()} ",
        evaluate,
    )
    save_once(pipeline, out / "pipeline")
    return pipeline
