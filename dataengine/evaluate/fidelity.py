"""Do generated pictures look like real ones? Distances between sets of embeddings, beside those of real halves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from dataengine.evaluate.distances import frechet, gaussian_discrepancy, kernel_distance
from dataengine.evaluate.features import Features
from dataengine.evaluate.manifold import manifold
from dataengine.evaluate.pictures import equal_draws
from dataengine.evaluate.results import Column, Result, Row, spread

# Only these features make a distance the one that papers call by this name.
NAMES = {"inception": ("FID", "KID", "MMD"), "clip": ("FD", "KD", "CMMD")}
INTERVAL = "least and largest over ten random halves of the real pictures"


def fidelity(
    made: np.ndarray,
    real: np.ndarray,
    blurred: np.ndarray,
    groups: Sequence[Hashable],
    features: Features,
    seed: int = 0,
) -> Result:
    """Distances of generated embeddings (N, E) to a half of the real ones (M, E), beside those of the other half (the
    least that can be hoped for) and of the other half without its detail, `blurred` (M, E) (control).

    groups: of the real pictures, never divided between halves. Raises UserError where there are too few pictures.
    """
    draws = equal_draws(groups, len(made), seed)
    rows = {"generated": [], "real, other half": [], "real, without detail": []}
    for first, second, some in draws:
        for name, other in zip(rows, (made[some], real[second], blurred[second]), strict=True):
            rows[name].append(_figures(real[first], other))
        floor = rows["real, other half"][-1]["frechet"]
        for values in rows.values():
            values[-1]["ratio"] = values[-1]["frechet"] / floor if floor > 0 else np.nan
    fd, kd, mmd = NAMES.get(features.kind, ("FD", "KD", "MMD"))
    columns = {
        "frechet": Column(fd, "lower", "Frechet distance of the features named above"),
        "ratio": Column(f"{fd} ratio", "lower", "the same, over that of the real half in the same draw"),
        "kernel": Column(kd, "lower", "1000 times the squared maximum mean discrepancy, cubic kernel"),
        "gaussian": Column(mmd, "lower", "1000 times the squared maximum mean discrepancy, Gaussian kernel"),
        "precision": Column("precision", "higher", "share within reach of a real picture"),
        "density": Column("density", "higher", "how many real pictures reach one, over 5; 1 where it is as real"),
    }
    return Result(
        "fidelity",
        "Do they look like real pictures?",
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
