"""Faults of a readable data set: every image is decoded, every box is checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataengine import geometry
from dataengine.data import images
from dataengine.data.layout import Dataset, Problem, Sample

MIN_SIDE_PX = 2.0  # objects with a shorter side cannot be recognised
MAX_OUTSIDE = 0.51  # fraction of a box outside the image; the minimum-area box of a visible part has a half at most
NEIGHBOURS = 8  # nearest boxes among which duplicates of a box are searched
DUPLICATE_IOU = 0.95  # of two boxes of one class that are the same object


def check(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Problems of a data set, after those found while reading it: images that cannot be decoded or have another size
    than their layout; boxes that are invalid, tiny, repeated or outside the image; labels outside the class list.

    progress: called with (images done, number of images) after each image.
    """
    problems = list(dataset.problems)
    for done, sample in enumerate(dataset, 1):
        problems += _check_image(sample)
        problems += _check_boxes(sample)
        if progress is not None:
            progress(done, len(dataset))
    return problems


def _check_image(sample: Sample) -> list[Problem]:
    try:
        images.decode(sample.image)
        size = images.measure(sample.image)
    except ValueError as error:
        return [Problem(sample.image, None, str(error))]
    if size != tuple(sample.layout.size):
        stated = "x".join(map(str, sample.layout.size))
        return [Problem(sample.image, None, f"image is {size[0]}x{size[1]} but its layout says {stated}")]
    return []


def _check_boxes(sample: Sample) -> list[Problem]:
    layout, problems = sample.layout, []

    def report(index: int, message: str) -> None:
        # in the notation of label files, to search for it there
        box = " ".join(f"{value:.6g}" for value in geometry.to_corners(layout.boxes[index : index + 1]).ravel())
        label = layout.labels[index]
        name = layout.classes[label] if 0 <= label < len(layout.classes) else f"class {label}"
        problems.append(Problem(sample.image, None, f"object {index + 1} ({name}, corners {box}) {message}"))

    if not len(layout):
        return problems
    valid = np.isfinite(layout.boxes).all(axis=1) & (layout.boxes[:, 2:4] > 0).all(axis=1)
    for i in np.flatnonzero(~valid):
        report(i, "has no area or is not finite")
    for i in np.flatnonzero((layout.labels < 0) | (layout.labels >= len(layout.classes))):
        report(i, f"has a label outside the class list of {len(layout.classes)}")
    for i in np.flatnonzero(valid & (layout.boxes[:, 3] < MIN_SIDE_PX)):
        report(i, f"is less than {MIN_SIDE_PX:g} pixels on its short side")
    inside = np.ones(len(layout))
    inside[valid] = geometry.visible_fraction(layout.boxes[valid], layout.size)
    for i in np.flatnonzero(inside < 1 - MAX_OUTSIDE):
        how_far = f"{1 - inside[i]:.0%} " if inside[i] > 0 else ""
        report(i, f"lies {how_far}outside the image; correct or remove it")
    for i, j in _duplicates(layout.boxes, layout.labels, valid):
        report(j, f"repeats object {i + 1}")
    return problems


def _duplicates(boxes: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> list[tuple[int, int]]:
    """Index pairs (first, second) of objects of one class with nearly the same box.

    Exact copies are grouped first and other duplicates are searched among the nearest boxes, so that a million equal
    boxes take no longer than a million others.
    """
    from scipy.spatial import cKDTree

    chosen = np.flatnonzero(valid)
    if len(chosen) < 2:
        return []
    rows = np.column_stack([labels[chosen], boxes[chosen]])
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    firsts = first[group.ravel()]
    equal = [(int(chosen[i]), int(chosen[k])) for k, i in enumerate(firsts) if i != k]
    chosen = chosen[np.sort(first)]
    # the centres of boxes with an IoU above 0.95 are closer than a twentieth of the long side
    reach = 0.05 * float(boxes[chosen, 2].max())
    near = min(NEIGHBOURS + 1, len(chosen))
    _, nearest = cKDTree(boxes[chosen, :2]).query(boxes[chosen, :2], near, distance_upper_bound=reach)
    nearest = nearest.reshape(len(chosen), near)  # (N, near), len(chosen) where there are fewer
    i, k = np.nonzero(nearest < len(chosen))
    pairs = np.sort(np.stack([i, nearest[i, k]], axis=1), axis=1)
    pairs = chosen[np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)]
    pairs = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]
    if not len(pairs):
        return sorted(equal)
    same = geometry.iou_pairs(boxes[pairs[:, 0]], boxes[pairs[:, 1]]) > DUPLICATE_IOU
    return sorted(equal + [(int(a), int(b)) for a, b in pairs[same]])
