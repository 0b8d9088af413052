"""Copy-paste (Ghiasi et al. 2021), for oriented boxes, with the usual changes of the whole picture: the augmentation
that synthetic data has to beat."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine import geometry
from dataengine.data import dota
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.render.augment import augmented_window
from dataengine.render.frame import FrameSpec, cut, frame_matrices, masks, paste
from dataengine.render.real_objects import whole

SPEC = FrameSpec(size=96, hole_margin=0.05, hole_pixels=1.0)
MOST = 6  # objects pasted into a picture
TRIES = 20  # places, for each
SCALES = 0.8, 1.25


@dataclass(frozen=True)
class Objects:
    """What can be pasted. samples, numbers: int64 (N,), each whole object's sample in `dataset` and number in it.
    chances: float64 (N,), by the square root of its class's inverse share."""

    dataset: Dataset
    samples: np.ndarray
    numbers: np.ndarray
    chances: np.ndarray


def pasted(
    picture: np.ndarray, layout: Layout, objects: Objects, rng: np.random.Generator
) -> tuple[np.ndarray, Layout]:
    """A picture uint8 (H, W, 3) and its layout with objects pasted where nothing is.

    An object in an oriented box is turned at random; one
    in a horizontal box keeps its direction, or its box would not fit any more. Label effect: keeps.
    """
    canvas = picture.astype(np.float32)
    for _ in range(rng.integers(1, MOST + 1)):
        which = rng.choice(len(objects.samples), p=objects.chances)
        source = objects.dataset.samples[objects.samples[which]]
        one = source.layout.select([objects.numbers[which]])
        box = _free_box(one.boxes[0], layout, rng)
        cutout = None if box is None else read_picture(source)
        if cutout is None:
            continue
        patch = cut(cutout, frame_matrices(one.boxes, layout.kind, SPEC)[0], SPEC.size)
        matrix = frame_matrices(box[None], layout.kind, SPEC)[0]
        hole, _ = masks(box, layout.kind, SPEC)
        paste(canvas, patch.astype(np.float32), hole, matrix)
        layout = layout.joined(replace(one, boxes=box[None], visible=None, difficult=None, ignored=None))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), layout


def whole_objects(dataset: Dataset) -> Objects:
    """All objects that lie whole in their pictures. Raises UserError where there is none."""
    found = [
        (i, k, sample.layout.labels[k])
        for i, sample in enumerate(dataset)
        for k in np.flatnonzero(whole(sample.layout))
    ]
    if not found:
        raise UserError("no object of the training data lies whole in its picture, so none can be pasted.")
    samples, numbers, labels = np.array(found, np.int64).T
    chances = np.bincount(labels)[labels] ** -0.5
    return Objects(dataset, samples, numbers, chances / chances.sum())


def _free_box(box: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray | None:
    """The box (5,) at another place, size and angle, whole in the picture and clear of all others; None if no try
    finds one."""
    width, height = layout.size
    taken = np.concatenate([layout.boxes, layout.ignored])
    for _ in range(TRIES):
        angle = box[4] if layout.kind == "hbb" else rng.uniform(-np.pi / 2, np.pi / 2)
        sides = box[2:4] * rng.uniform(*SCALES)
        new = np.array([[rng.uniform(0, width), rng.uniform(0, height), *sides, angle]], np.float32)
        corners = geometry.to_corners(new)[0]
        inside = (corners >= 0).all() and (corners <= (width, height)).all()
        grown = new + np.array([0, 0, 4, 4, 0], np.float32)
        if inside and not (geometry.intersection(grown, taken) > 0).any():
            return new[0]
    return None


def write_copy_paste(dataset: Dataset, n: int, side: int, out: Path, seed: int = 0) -> None:
    """n pictures with objects pasted into them, as a DOTA data set in `out`.

    They are windows, at most `side` pixels wide and high, of real ones that were flipped, turned, scaled and re-lit as
    scenes of a run are; each real one serves equally often. Picture i depends on (seed, i) only. Raises UserError
    where there is no object to paste, or no disk to write to.
    """
    samples, objects = [], whole_objects(dataset)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-paste-", dir=out.parent) as raw:
        for i in range(n):
            rng = np.random.default_rng((seed, i))
            sample = dataset.samples[i % len(dataset)]
            picture = read_picture(sample)
            if picture is None:
                continue
            window = augmented_window(picture, sample.layout, min(side, *sample.layout.size), rng)
            image, layout = pasted(*window, objects, rng)
            file = Path(raw) / f"{i:06d}.png"
            Image.fromarray(image).save(file, compress_level=1)
            samples.append(Sample(file.stem, file, layout, sample.source, sample.license))
        dota.write(replace(dataset, samples=samples), out)
