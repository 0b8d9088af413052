"""Counts behind the plots: classes, sizes, angles, scores and acceptance of the chosen images."""

from __future__ import annotations

import numpy as np

from dataengine.view.filters import Filter, chosen, objects_chosen
from dataengine.view.index import Index

SIZES = np.array([0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, np.inf])  # pixels, each about 1.4 times
ANGLES = np.linspace(-90, 90, 19)  # degrees, 10 each
SCORES = np.linspace(0, 1, 21)
COUNTS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, np.inf])
STRETCHES = 40  # at most, that a run is cut into to show acceptance along it
LIKE_SQUARE = 1.1  # from here down a box's angle says nothing


def statistics(index: Index, wanted: Filter) -> dict:
    """Plain values: `pictures`, `objects`; `classes`: a row each with its number of objects and of images, and where
    a filter judged, how many images with it were tried and kept; histograms `sizes` (longer side), `angles` (of
    objects that are not nearly square), `scores`, `counts` (objects in an image), each with its edges and a row of
    counts a class; `reasons`; `acceptance` along the run.
    """
    columns = index.columns
    ids = chosen(index, wanted)
    of_chosen = np.zeros(len(index), bool)
    of_chosen[ids] = True
    taken = objects_chosen(index, wanted) & of_chosen[columns.image]
    label, image = columns.label[taken], columns.image[taken]
    size = np.maximum(columns.box_w, columns.box_h)[taken]
    degrees = (np.rad2deg(columns.theta[taken]) + 90) % 180 - 90
    long_enough = size >= LIKE_SQUARE * np.minimum(columns.box_w, columns.box_h)[taken]
    n, scores = len(index.classes), columns.object_score[taken]
    per_picture = np.bincount(image, minlength=len(index))[of_chosen]
    return {
        "pictures": len(ids),
        "objects": int(taken.sum()),
        "classes": _classes(index, label, image),
        "sizes": {"edges": _edges(SIZES), "counts": _by_class(size, label, SIZES, n)},
        "angles": {"edges": _edges(ANGLES), "counts": _by_class(degrees[long_enough], label[long_enough], ANGLES, n)},
        "scores": {"edges": _edges(SCORES), "counts": _by_class(scores, label, SCORES, n)},
        "counts": {"edges": _edges(COUNTS), "counts": [np.histogram(per_picture, COUNTS)[0].tolist()]},
        "reasons": _reasons(index, ids),
        "acceptance": _along(index, np.sort(ids)),
    }


def _edges(edges: np.ndarray) -> list[float | None]:
    return [None if np.isinf(edge) else round(float(edge), 4) for edge in edges]


def _by_class(values: np.ndarray, labels: np.ndarray, edges: np.ndarray, n: int) -> list[list[int]]:
    """Counts (n, bins) of the values that are known; the last bin holds its upper edge, too."""
    return [np.histogram(values[(labels == k) & ~np.isnan(values)], edges)[0].tolist() for k in range(n)]


def _classes(index: Index, label: np.ndarray, image: np.ndarray) -> list[dict]:
    kept, rows = index.columns.kept, []
    for k, name in enumerate(index.classes):
        pictures = np.unique(image[label == k])
        row = {"name": name, "objects": int((label == k).sum()), "pictures": len(pictures)}
        if (kept >= 0).any():
            row |= {"tried": int((kept[pictures] >= 0).sum()), "kept": int((kept[pictures] == 1).sum())}
        rows.append(row)
    return rows


def _reasons(index: Index, ids: np.ndarray) -> list[dict]:
    found = np.bincount(index.columns.reason[ids], minlength=len(index.reasons))
    dropped = [{"reason": index.reasons[k], "pictures": int(found[k])} for k in range(1, len(found)) if found[k]]
    return sorted(dropped, key=lambda row: -row["pictures"])


def _along(index: Index, ids: np.ndarray) -> list[dict]:
    """Acceptance in stretches of the run that hold equally many attempts, None of them empty."""
    judged = ids[index.columns.kept[ids] >= 0]
    if not len(judged):
        return []
    parts = np.array_split(judged, min(STRETCHES, max(1, len(judged) // 10)))
    return [
        {"first": int(p[0]), "last": int(p[-1]), "tried": len(p), "kept": int((index.columns.kept[p] == 1).sum())}
        for p in parts
    ]
