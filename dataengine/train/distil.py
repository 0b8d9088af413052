"""Fewer steps: a student that goes in one step where the trained model goes in several, or one that is trained on
against a discriminator. The first keeps each picture, the second makes them sharper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dataengine.data.layout import Dataset
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.thumbnail_decoder import ThumbnailDecoder
from dataengine.train.adversarial import crop_planes, frame_planes, train_against
from dataengine.train.decoder import crop_example, domain_numbers, random_crops
from dataengine.train.flow_loss import Batch, Data, distillation_loss
from dataengine.train.in_scene import collect_frames, frame_example, show_frames
from dataengine.train.in_scene import make_batch as frame_batch
from dataengine.train.loop import TrainSettings, model_settings_text, train
from dataengine.train.thumbnails import collect_windows, window_example
from dataengine.train.thumbnails import make_batch as window_batch

SUBSTEPS = 6  # of the teacher in one of the student's


def distil_model(
    model: torch.nn.Module,
    batch: Callable[[np.random.Generator], Batch],
    data: Data,
    out: Path,
    settings: TrainSettings,
    steps: int,
    guidance_scale: float = 1.0,
) -> bool:
    """Train `model` in place to need `steps` Euler steps without guidance; True when all of the training is done.

    It is its own teacher, as it was, which takes SUBSTEPS times as many steps, guided by guidance_scale.
    """
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    teacher.to("cuda" if torch.cuda.is_available() else "cpu")
    loss = distillation_loss(teacher, data, steps, SUBSTEPS, guidance_scale)
    recipe = f"distillation {model_settings_text(model)} steps={steps} guidance={guidance_scale} "
    return train(model, batch, loss, out, settings, recipe)


def quicken_in_scene(
    pipeline: InScenePipeline, datasets: list[Dataset], out: Path, settings: TrainSettings, steps: int = 4
) -> InScenePipeline:
    """The same renderer in fewer steps and sharper, on the objects of the data sets; checkpoints in `out/unet`."""
    unet = pipeline.unet
    frames = collect_frames(datasets, pipeline.classes, unet.spec, 1, np.random.default_rng((settings.seed, 1)))
    batch = frame_batch(frames, unet.spec, unet.nothing, settings.batch_size)
    asked = partial(frame_planes, n_labels=len(pipeline.classes) + 2)
    show = partial(show_frames, frame_batch(frames, unet.spec, unet.nothing, 32), steps=steps)
    pooled = 2 * unet.config.patch
    train_against(unet, batch, frame_example, asked, out / "unet", settings, steps, pooled, show)
    return InScenePipeline(unet, pipeline.scheduler, distilled_steps=steps)


def quicken_decoder(
    decoder: ThumbnailDecoder,
    datasets: list[Dataset],
    out: Path,
    settings: TrainSettings,
    steps: int = 1,
    crop: int = 96,
) -> bool:
    """The same decoder in fewer steps and sharper, in place, on crops of the data sets."""
    classes, looks = list(decoder.config.classes), list(decoder.config.domains)
    batch = random_crops(datasets, classes, looks, crop, settings.batch_size)
    asked = partial(crop_planes, n_classes=len(classes), n_domains=len(looks))
    return train_against(decoder, batch, crop_example, asked, out, settings, steps)


def quicken_whole(
    pipeline: LayoutPipeline,
    datasets: list[Dataset],
    out: Path,
    settings: TrainSettings,
    steps: int = 4,
    decoder_steps: int = 1,
    guidance_scale: float = 1.0,
    crop: int = 96,
) -> LayoutPipeline:
    """The same renderer in fewer steps of both of its parts, on the images of the data sets, which it has to have been
    trained on; checkpoints in `out/unet` and `out/decoder`. guidance_scale: of the teacher on the layout, for its
    thumbnails; the student has learnt it then."""
    unet, decoder = pipeline.unet, pipeline.decoder
    windows = collect_windows(datasets, pipeline.classes, pipeline.size, 4, np.random.default_rng((settings.seed, 1)))
    numbers = domain_numbers(datasets, list(unet.config.domains))
    windows = replace(windows, domains=numbers[windows.domains])
    batch = window_batch(windows, unet, settings.batch_size, null_probability=0.0)
    distil_model(unet, batch, window_example, out / "unet", settings, steps, guidance_scale)
    half = settings.model_copy(update={"batch_size": max(1, settings.batch_size // 2)})
    quicken_decoder(decoder, datasets, out / "decoder", half, decoder_steps, crop)
    grey = pipeline.config.grey_domains
    return LayoutPipeline(unet, decoder, pipeline.scheduler, grey, distilled_steps=steps, decoder_steps=decoder_steps)
