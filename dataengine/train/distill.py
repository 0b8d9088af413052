"""Distillation to few steps: each network of a renderer trained further, adversarially, on its training data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dataengine.data.layout import Dataset
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.reference import Encoder
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, ThumbnailDecoder
from dataengine.train.adversarial import Goal, train_adversarially
from dataengine.train.decoder import crop_example, domain_numbers, random_crops, show_crops
from dataengine.train.in_scene import Headings, all_frames, frame_example, show_frames
from dataengine.train.in_scene import make_batch as frame_batch
from dataengine.train.loop import TrainSettings
from dataengine.train.thumbnails import collect_windows, show_windows, window_example
from dataengine.train.thumbnails import make_batch as window_batch

WINDOWS_PER_IMAGE = 4


def distill_in_scene(
    pipeline: InScenePipeline,
    datasets: list[Dataset],
    out: Path,
    settings: TrainSettings,
    steps: int = 4,
    guidance: float | None = None,
    headings: dict[str, Headings] | None = None,
) -> InScenePipeline:
    """Train an in-scene renderer to need `steps` steps, unless it is a few-step model already, and then to produce
    without guidance what it produces with it (None for its own). Checkpoints in `out/unet` and `out/guided`."""
    unet, few_step = pipeline.unet, bool(pipeline.config.few_steps)
    guidance = pipeline.config.guidance if guidance is None else guidance
    frames = all_frames(datasets, list(pipeline.classes), unet.spec, 1, settings.seed, headings or {})
    batch = frame_batch(frames, unet.spec, unet.nothing, settings.batch_size)
    show = partial(show_frames, frame_batch(frames, unet.spec, unet.nothing, 32), few=steps)
    data, goal = partial(frame_example, null=unet.null), Goal(steps, 2 * unet.config.patch)
    done = few_step or train_adversarially(unet, batch, data, out / "unet", settings, goal, show)
    if done and guidance != 1:
        train_adversarially(unet, batch, data, out / "guided", settings, replace(goal, guidance=guidance), show)
    return InScenePipeline(unet, pipeline.scheduler, few_steps=steps)


def distill_thumbnails(
    unet: LayoutUNet,
    datasets: list[Dataset],
    out: Path,
    settings: TrainSettings,
    steps: int = 4,
    encoder: Encoder | None = None,
    unlabelled: Collection[str] = (),
) -> bool:
    """Train a thumbnail model in place, on windows of the data sets; True when all training steps are done. encoder: of
    reference images, for a model that was trained with it. unlabelled: names of data sets whose layouts are unknown."""
    classes, side = list(unet.config.classes), unet.config.sample_size * THUMBNAIL_RATIO
    rng = np.random.default_rng((settings.seed, 1))
    windows = collect_windows(datasets, classes, side, WINDOWS_PER_IMAGE, rng, encoder, unlabelled)
    numbers = domain_numbers(datasets, list(unet.config.domains))
    windows = replace(windows, domains=numbers[windows.domains])
    show = partial(show_windows, windows, few=steps)
    batch = window_batch(windows, unet, settings.batch_size)
    goal = Goal(steps, 2 * unet.config.patch)
    return train_adversarially(unet, batch, window_example, out, settings, goal, show)


def distill_decoder(
    decoder: ThumbnailDecoder,
    datasets: list[Dataset],
    out: Path,
    settings: TrainSettings,
    steps: int = 2,
    crop: int = 96,
) -> bool:
    """Train a decoder in place, on crops of the data sets; True when all training steps are done."""
    classes, domains = list(decoder.config.classes), list(decoder.config.domains)
    batch = random_crops(datasets, classes, domains, crop, settings.batch_size)
    show = partial(show_crops, random_crops(datasets, classes, domains, crop, 16), few=steps)
    goal = Goal(steps, THUMBNAIL_RATIO, means_known=True)
    return train_adversarially(decoder, batch, crop_example, out, settings, goal, show)


def distill_whole(
    pipeline: LayoutPipeline,
    datasets: list[Dataset],
    out: Path,
    settings: TrainSettings,
    steps: int = 4,
    decoder_steps: int = 2,
    encoder: Encoder | None = None,
) -> LayoutPipeline:
    """Train both networks of a whole-image renderer on the data sets it was trained on; checkpoints in `out/unet` and
    `out/decoder`."""
    unet, decoder = pipeline.unet, pipeline.decoder
    distill_thumbnails(unet, datasets, out / "unet", settings, steps, encoder)
    half = settings.model_copy(update={"batch_size": max(1, settings.batch_size // 2)})
    distill_decoder(decoder, datasets, out / "decoder", half, decoder_steps)
    grey = pipeline.config.grey_domains
    return LayoutPipeline(unet, decoder, pipeline.scheduler, grey, few_steps=steps, decoder_few_steps=decoder_steps)
