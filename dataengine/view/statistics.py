"""Counts for the plots: classes, sizes, angles, scores and acceptance of the matching images."""

from __future__ import annotations

import numpy as np

from dataengine.view.choices import Choices
from dataengine.view.filters import Filter, matching_images, matching_objects
from dataengine.view.index import Index

SIZE_EDGES_PX = np.array([0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, np.inf])
ANGLE_EDGES_DEG = np.linspace(-90, 90, 19)
SCORE_EDGES = np.linspace(0, 1, 21)
COUNT_EDGES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, np.inf])
MAX_PARTS = 40  # of a run in the plot of its acceptance
MIN_ASPECT_RATIO = 1.1  # below it, the angle of a box is not meaningful


def statistics(index: Index, query: Filter, choices: Choices | None = None) -> dict:
    """Plain values for JSON.

    `pictures`, `objects`: numbers of images and objects. `classes`: for each class its numbers of objects and images,
    and in a filtered run the numbers of attempts and of kept images. `sizes` (longer side), `angles` (without nearly
    square boxes), `scores`: histograms with their edges and a row of counts for each class. `counts`: histogram of
    objects per image. `reasons`: why images were dropped. `acceptance`: along the run.
    """
    columns = index.columns
    ids = matching_images(index, query, choices)
    matching = np.zeros(len(index), bool)
    matching[ids] = True
    selected = matching_objects(index, query) & matching[columns.image]
    label, image = columns.label[selected], columns.image[selected]
    size = np.maximum(columns.box_w, columns.box_h)[selected]
    degrees = (np.rad2deg(columns.theta[selected]) + 90) % 180 - 90
    long_enough = size >= MIN_ASPECT_RATIO * np.minimum(columns.box_w, columns.box_h)[selected]
    n, scores = len(index.classes), columns.object_score[selected]
    per_image = np.bincount(image, minlength=len(index))[matching]
    return {
        "pictures": len(ids),
        "objects": int(selected.sum()),
        "classes": _classes(index, label, image),
        "sizes": {"edges": _edges(SIZE_EDGES_PX), "counts": _by_class(size, label, SIZE_EDGES_PX, n)},
        "angles": {
            "edges": _edges(ANGLE_EDGES_DEG),
            "counts": _by_class(degrees[long_enough], label[long_enough], ANGLE_EDGES_DEG, n),
        },
        "scores": {"edges": _edges(SCORE_EDGES), "counts": _by_class(scores, label, SCORE_EDGES, n)},
        "counts": {"edges": _edges(COUNT_EDGES), "counts": [np.histogram(per_image, COUNT_EDGES)[0].tolist()]},
        "reasons": _reasons(index, ids),
        "acceptance": _along(index, np.sort(ids)),
    }


def _edges(edges: np.ndarray) -> list[float | None]:
    return [None if np.isinf(edge) else round(float(edge), 4) for edge in edges]


def _by_class(values: np.ndarray, labels: np.ndarray, edges: np.ndarray, n: int) -> list[list[int]]:
    """Counts (n, bins) of the known values for each class; the last bin includes its upper edge."""
    return [np.histogram(values[(labels == k) & ~np.isnan(values)], edges)[0].tolist() for k in range(n)]


def _classes(index: Index, label: np.ndarray, image: np.ndarray) -> list[dict]:
    kept, rows = index.columns.kept, []
    for k, name in enumerate(index.classes):
        images = np.unique(image[label == k])
        row = {"name": name, "objects": int((label == k).sum()), "pictures": len(images)}
        if (kept >= 0).any():
            row |= {"tried": int((kept[images] >= 0).sum()), "kept": int((kept[images] == 1).sum())}
        rows.append(row)
    return rows


def _reasons(index: Index, ids: np.ndarray) -> list[dict]:
    counts = np.bincount(index.columns.reason[ids], minlength=len(index.reasons))
    dropped = [{"reason": index.reasons[k], "pictures": int(counts[k])} for k in range(1, len(counts)) if counts[k]]
    return sorted(dropped, key=lambda row: -row["pictures"])


def _along(index: Index, ids: np.ndarray) -> list[dict]:
    """Acceptance in non-empty parts of the run with equal numbers of attempts."""
    judged = ids[index.columns.kept[ids] >= 0]
    if not len(judged):
        return []
    parts = np.array_split(judged, min(MAX_PARTS, max(1, len(judged) // 10)))
    return [
        {"first": int(p[0]), "last": int(p[-1]), "tried": len(p), "kept": int((index.columns.kept[p] == 1).sum())}
        for p in parts
    ]
