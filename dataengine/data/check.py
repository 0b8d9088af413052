"""What is wrong with a data set that can be read: images to the last pixel, boxes one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataengine import geometry
from dataengine.data import images
from dataengine.data.layout import Dataset, Problem, Sample

TINY = 2.0  # pixels on the short side: nothing can be seen or learnt there
OUTSIDE = 0.5  # share of a box beyond the border; objects that tiling cut reach out of the image, but not by more
NEAREST = 8  # objects around one that may be the same again
TWIN = 0.95  # IoU above which two boxes of one class are the same object twice


def check(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Problems of the data set, those of reading it first: images that cannot be decoded or differ in size from their
    layout, boxes (partly) outside, tiny or repeated ones, labels outside the class list.

    progress: called with (images done, images in all) after each image.
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
    layout, found = sample.layout, []

    def report(index: int, message: str) -> None:
        # as label files write it, so that it is found there
        box = " ".join(f"{value:.6g}" for value in geometry.to_corners(layout.boxes[index : index + 1]).ravel())
        label = layout.labels[index]
        name = layout.classes[label] if 0 <= label < len(layout.classes) else f"class {label}"
        found.append(Problem(sample.image, None, f"object {index + 1} ({name}, corners {box}) {message}"))

    if not len(layout):
        return found
    sound = np.isfinite(layout.boxes).all(axis=1) & (layout.boxes[:, 2:4] > 0).all(axis=1)
    for i in np.flatnonzero(~sound):
        report(i, "has no area or is not finite")
    for i in np.flatnonzero((layout.labels < 0) | (layout.labels >= len(layout.classes))):
        report(i, f"has a label outside the class list of {len(layout.classes)}")
    for i in np.flatnonzero(sound & (layout.boxes[:, 3] < TINY)):
        report(i, f"is less than {TINY:g} pixels on its short side")
    inside = np.ones(len(layout))
    inside[sound] = geometry.visible_fraction(layout.boxes[sound], layout.size)
    for i in np.flatnonzero(inside < 1 - OUTSIDE):
        report(i, f"lies {1 - inside[i]:.0%} outside the image" if inside[i] > 0 else "lies wholly outside the image")
    for i, j in _twins(layout.boxes, layout.labels, sound):
        report(j, f"repeats object {i + 1}")
    return found


def _twins(boxes: np.ndarray, labels: np.ndarray, sound: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, second) of one class that cover each other: an object and the first one that is the same to the
    last digit, or else one of its nearest. A file of a million equal boxes takes no longer than another."""
    from scipy.spatial import cKDTree

    chosen = np.flatnonzero(sound)
    if len(chosen) < 2:
        return []
    rows = np.column_stack([labels[chosen], boxes[chosen]])
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    firsts = first[group.ravel()]
    equal = [(int(chosen[i]), int(chosen[k])) for k, i in enumerate(firsts) if i != k]
    chosen = chosen[np.sort(first)]
    # two boxes of IoU above 0.95 have centres closer than a twentieth of the long side
    reach = 0.05 * float(boxes[chosen, 2].max())
    near = min(NEAREST + 1, len(chosen))
    _, found = cKDTree(boxes[chosen, :2]).query(boxes[chosen, :2], near, distance_upper_bound=reach)
    found = found.reshape(len(chosen), near)  # (N, nearest), len(chosen) where there are no more
    i, k = np.nonzero(found < len(chosen))
    pairs = np.sort(np.stack([i, found[i, k]], axis=1), axis=1)
    pairs = chosen[np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)]
    pairs = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]
    if not len(pairs):
        return sorted(equal)
    same = geometry.iou_pairs(boxes[pairs[:, 0]], boxes[pairs[:, 1]]) > TWIN
    return sorted(equal + [(int(a), int(b)) for a, b in pairs[same]])
