"""Do generated images look like real ones? Distances between sets of embeddings, compared with those of real halves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from dataengine.evaluate.distances import frechet, gaussian_discrepancy, kernel_distance
from dataengine.evaluate.features import Features
from dataengine.evaluate.manifold import manifold
from dataengine.evaluate.results import Column, Result, Row, spread
from dataengine.evaluate.windows import equal_draws

# Papers use these names for these features only.
METRIC_NAMES = {"inception": ("FID", "KID", "MMD"), "clip": ("FD", "KD", "CMMD")}
INTERVAL = "minimum and maximum over ten random halves of the real images"


def fidelity(
    generated: np.ndarray,
    real: np.ndarray,
    blurred: np.ndarray,
    groups: Sequence[Hashable],
    features: Features,
    seed: int = 0,
) -> Result:
    """Distances of generated embeddings (N, E) to one half of the real embeddings (M, E). Reference: the other half,
    the lowest value to expect. Control: the other half without image detail, `blurred` (M, E).

    groups: group of each real image; the halves never split a group. Raises UserError for too few images.
    """
    draws = equal_draws(groups, len(generated), seed)
    rows = {"generated": [], "real, other half": [], "real, without detail": []}
    for first, second, chosen in draws:
        for name, other in zip(rows, (generated[chosen], real[second], blurred[second]), strict=True):
            rows[name].append(_figures(real[first], other))
        floor = rows["real, other half"][-1]["frechet"]
        for values in rows.values():
            values[-1]["ratio"] = values[-1]["frechet"] / floor if floor > 0 else np.nan
    fd, kd, mmd = METRIC_NAMES.get(features.kind, ("FD", "KD", "MMD"))
    columns = {
        "frechet": Column(fd, "lower", "Frechet distance of the features named above"),
        "ratio": Column(f"{fd} ratio", "lower", f"{fd} divided by that of the real half in the same split"),
        "kernel": Column(kd, "lower", "1000 times the squared maximum mean discrepancy, cubic kernel"),
        "gaussian": Column(mmd, "lower", "1000 times the squared maximum mean discrepancy, Gaussian kernel"),
        "precision": Column("precision", "higher", "share inside the manifold of real images"),
        "density": Column("density", "higher", "real neighbourhoods around an image, over 5; about 1 for real images"),
    }
    return Result(
        "fidelity",
        "Do they look like real images?",
        columns,
        _rows(rows, columns, len(draws[0][0])),
        {"features": features.name},
        interval=INTERVAL,
    )


def _figures(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
    among = manifold(real, other)
    return {
        "frechet": frechet(real, other),
        "kernel": 1000 * kernel_distance(real, other),
        "gaussian": gaussian_discrepancy(real, other),
        "precision": among.precision,
        "density": among.density,
    }


def _rows(found: dict[str, list[dict[str, float]]], columns: dict[str, Column], n: int) -> list[Row]:
    roles = ("measured", "reference", "control")
    return [
        Row(name, role, n, {key: spread([values[key] for values in draws]) for key in columns})
        for (name, draws), role in zip(found.items(), roles, strict=True)
    ]
