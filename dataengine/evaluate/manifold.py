"""Where generated embeddings lie among real ones, and how different they are from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 5  # as Naeem et al. (2020) recommend for sets of about this size


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, M) of embeddings (N, E) and (M, E)."""
    from scipy.spatial.distance import cdist

    return cdist(a, b)


def nearest(queries: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) of each query to the nearest target, and its index (N,)."""
    found = [distances(queries[i : i + 256], targets) for i in range(0, len(queries), 256)]
    return np.concatenate([d.min(1) for d in found]), np.concatenate([d.argmin(1) for d in found])


@dataclass(frozen=True)
class Manifold:
    """precision: share of generated pictures within reach of a real one. recall: share of real ones within reach of a
    generated one (Kynkaanniemi et al. 2019). density: how many real ones reach a generated one, over the number of
    neighbours, so that outliers count less. coverage: share of real ones that reach a generated one (Naeem et al.
    2020)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: np.ndarray, made: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifold:
    """Of embeddings (N, E) and (M, E). A picture reaches as far as its own `neighbours`-th nearest of its set."""
    between = distances(real, made)
    reach_real, reach_made = (
        np.sort(distances(x, x), axis=1)[:, min(neighbours, len(x) - 1)] for x in (real, made)
    )  # column 0 is the picture itself
    reached = between <= reach_real[:, None]
    return Manifold(
        precision=float(reached.any(0).mean()),
        recall=float((between <= reach_made[None]).any(1).mean()),
        density=float(reached.sum(0).mean() / neighbours),
        coverage=float(reached.any(1).mean()),
    )


def vendi_score(embeddings: np.ndarray) -> float:
    """How many pictures that have nothing in common are as diverse as these (N, E): the exponential of the entropy of
    the eigenvalues of the cosine similarities over N (Friedman & Dieng 2023, definition 3.1)."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    values = np.linalg.svd(unit, compute_uv=False) ** 2 / len(unit)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Mean cosine distance of all pairs of (N, E): the diversity that LPIPS pairs measure, in these features."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    n = len(unit)
    return float(1 - ((unit.sum(0) ** 2).sum() - n) / (n * (n - 1)))
