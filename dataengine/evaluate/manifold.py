"""Precision, recall, density and coverage of the manifold of real embeddings, and the diversity of embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_NEIGHBOURS = 5  # as recommended by Naeem et al. (2020)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, M) between embeddings (N, E) and (M, E).

    >>> distances(np.zeros((1, 2)), np.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    from scipy.spatial.distance import cdist

    return cdist(a, b)


def nearest(queries: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) of each query (N, E) to the nearest target (M, E), and the index (N,) of that target.

    >>> [x.tolist() for x in nearest(np.array([[0.0], [9.0]]), np.array([[1.0], [7.0]]))]
    [[1.0, 2.0], [0, 1]]
    """
    parts = [distances(queries[i : i + 256], targets) for i in range(0, len(queries), 256)]
    return np.concatenate([d.min(1) for d in parts]), np.concatenate([d.argmin(1) for d in parts])


@dataclass(frozen=True)
class Manifold:
    """The neighbourhood of an image is the ball up to its k-th nearest neighbour in its own set.

    precision: share of generated images in the neighbourhood of a real one. recall: share of real images in the
    neighbourhood of a generated one (Kynkaanniemi et al. 2019). density: mean number of real neighbourhoods around a
    generated image, over k, so that outliers count less. coverage: share of real neighbourhoods with a generated image
    (Naeem et al. 2020)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: np.ndarray, generated: np.ndarray, neighbours: int = N_NEIGHBOURS) -> Manifold:
    """Manifold metrics of real embeddings (N, E) and generated embeddings (M, E), with k = `neighbours`."""
    between = distances(real, generated)
    radius_real, radius_generated = (
        np.sort(distances(x, x), axis=1)[:, min(neighbours, len(x) - 1)] for x in (real, generated)
    )  # column 0 is the image itself
    reached = between <= radius_real[:, None]
    return Manifold(
        precision=float(reached.any(0).mean()),
        recall=float((between <= radius_generated[None]).any(1).mean()),
        density=float(reached.sum(0).mean() / neighbours),
        coverage=float(reached.any(1).mean()),
    )


def vendi_score(embeddings: np.ndarray) -> float:
    """Effective number of different images among embeddings (N, E): the exponential of the entropy of the eigenvalues
    of the cosine similarities over N (Friedman & Dieng 2023, definition 3.1).

    >>> round(vendi_score(np.eye(3)), 6), round(vendi_score(np.ones((3, 2))), 6)
    (3.0, 1.0)
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    values = np.linalg.svd(unit, compute_uv=False) ** 2 / len(unit)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Mean cosine distance over all pairs of embeddings (N, E): the diversity of LPIPS pairs, in these features.

    >>> mean_pairwise_distance(np.eye(2))
    1.0
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    n = len(unit)
    return float(1 - ((unit.sum(0) ** 2).sum() - n) / (n * (n - 1)))
