"""Copy-paste augmentation (Ghiasi et al. 2021) for oriented boxes, with the usual augmentation of the whole image: the
baseline that synthetic data has to beat."""

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
from dataengine.layouts.constraints import whole
from dataengine.render.augment import augmented_window
from dataengine.render.frame import FrameSpec, cut, frame_matrices, masks, paste

SPEC = FrameSpec(size=96, hole_margin=0.05, hole_pixels=1.0)
MAX_PASTED = 6  # objects per image
MAX_TRIES = 20  # places for each object
SCALE_RANGE = 0.8, 1.25


@dataclass(frozen=True)
class Objects:
    """Objects that can be pasted. samples, numbers: int64 (N,), index of the sample in `dataset` and of the object in
    the sample. chances: float64 (N,), sum 1, inverse to the square root of the class's frequency."""

    dataset: Dataset
    samples: np.ndarray
    numbers: np.ndarray
    chances: np.ndarray


def paste_objects(
    image: np.ndarray, layout: Layout, objects: Objects, rng: np.random.Generator
) -> tuple[np.ndarray, Layout]:
    """An image uint8 (H, W, 3) and its layout with objects pasted into free places.

    Objects in oriented boxes are rotated at random; objects in horizontal boxes keep their direction, since their box
    would not fit otherwise. Label effect: keeps.
    """
    canvas = image.astype(np.float32)
    for _ in range(rng.integers(1, MAX_PASTED + 1)):
        which = rng.choice(len(objects.samples), p=objects.chances)
        source = objects.dataset.samples[objects.samples[which]]
        pasted = source.layout.select([objects.numbers[which]])
        box = _free_box(pasted.boxes[0], layout, rng)
        cutout = None if box is None else read_picture(source)
        if cutout is None:
            continue
        patch = cut(cutout, frame_matrices(pasted.boxes, layout.kind, SPEC)[0], SPEC.size)
        matrix = frame_matrices(box[None], layout.kind, SPEC)[0]
        hole, _ = masks(box, layout.kind, SPEC)
        paste(canvas, patch.astype(np.float32), hole, matrix)
        layout = layout.joined(replace(pasted, boxes=box[None], visible=None, difficult=None, ignored=None))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), layout


def whole_objects(dataset: Dataset) -> Objects:
    """All objects that lie fully inside their images. Raises UserError where there are none."""
    found = [
        (i, k, sample.layout.labels[k])
        for i, sample in enumerate(dataset)
        for k in np.flatnonzero(whole(sample.layout))
    ]
    if not found:
        raise UserError("copy-paste found no object that lies fully inside its image; add such training images.")
    samples, numbers, labels = np.array(found, np.int64).T
    chances = np.bincount(labels)[labels] ** -0.5
    return Objects(dataset, samples, numbers, chances / chances.sum())


def _free_box(box: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray | None:
    """The box (5,) at a random place, scale and angle, inside the image and without overlap; None where all tries
    fail."""
    width, height = layout.size
    occupied = np.concatenate([layout.boxes, layout.ignored])
    for _ in range(MAX_TRIES):
        angle = box[4] if layout.kind == "hbb" else rng.uniform(-np.pi / 2, np.pi / 2)
        sides = box[2:4] * rng.uniform(*SCALE_RANGE)
        new = np.array([[rng.uniform(0, width), rng.uniform(0, height), *sides, angle]], np.float32)
        corners = geometry.to_corners(new)[0]
        inside = (corners >= 0).all() and (corners <= (width, height)).all()
        grown = new + np.array([0, 0, 4, 4, 0], np.float32)
        if inside and not (geometry.intersection(grown, occupied) > 0).any():
            return new[0]
    return None


def write_copy_paste(dataset: Dataset, n: int, side: int, out: Path, seed: int = 0) -> None:
    """Write n images with pasted objects as a DOTA data set to `out`.

    The images are windows, at most `side` pixels wide and high, of real images under the same random flips, rotations,
    scales and light as the scenes of a run; each real image is used equally often. Image i depends on (seed, i) only.
    Raises UserError where there is no object to paste or `out` cannot be written.
    """
    samples, objects = [], whole_objects(dataset)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-paste-", dir=out.parent) as raw:
        for i in range(n):
            rng = np.random.default_rng((seed, i))
            sample = dataset.samples[i % len(dataset)]
            image = read_picture(sample)
            if image is None:
                continue
            window = augmented_window(image, sample.layout, min(side, *sample.layout.size), rng)
            image, layout = paste_objects(*window, objects, rng)
            file = Path(raw) / f"{i:06d}.png"
            Image.fromarray(image).save(file, compress_level=1)
            samples.append(Sample(file.stem, file, layout, sample.source, sample.license))
        dota.write(replace(dataset, samples=samples), out)
