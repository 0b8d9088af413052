"""Are generated images copies of training images? Nearest-neighbour distances, compared with held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine.evaluate.features import Features
from dataengine.evaluate.manifold import nearest
from dataengine.evaluate.results import Column, Figure, Result, Row, bootstrap

FEATURES = "encoder-grid"  # the control fails with pooled ImageNet features: they react to the noise of the copies
COPY_PERCENTILE = 1.0  # of the held-out distances: a nearer image counts as a near copy
N_RESAMPLES = 1000
COLUMNS = {
    "median": Column("distance", "reference", "median distance to the nearest training image"),
    "nearer": Column("nearer than 99 %", "lower", "share nearer to a training image than 99 % of held-out images"),
}


@dataclass(frozen=True)
class Neighbours:
    """distances: float64 (N,) to the nearest training image, for the images of each row. indices int64 (N,): nearest
    training image of each generated image."""

    distances: dict[str, np.ndarray]
    indices: np.ndarray


def memorisation(
    generated: np.ndarray, real: np.ndarray, training: np.ndarray, copies: np.ndarray, features: Features, seed: int = 0
) -> tuple[Result, Neighbours]:
    """Distances of generated embeddings (N, E) to training embeddings (T, E). Reference: held-out real embeddings
    (M, E). Control: training images with slight noise, `copies` (K, E), nearly all of which must be found."""
    sets = {"generated": generated, "real, held out": real, "noisy copies of training": copies}
    found = {name: nearest(embeddings, training) for name, embeddings in sets.items()}
    distances = {name: values for name, (values, _) in found.items()}
    limit = np.percentile(distances["real, held out"], COPY_PERCENTILE)
    rng = np.random.default_rng(seed)
    rows = [
        Row(
            name,
            role,
            len(d),
            {"median": _bootstrapped(np.median, d, rng), "nearer": _bootstrapped(np.mean, d < limit, rng)},
        )
        for (name, d), role in zip(distances.items(), ("measured", "reference", "control"), strict=True)
    ]
    result = Result(
        "memorisation",
        "Are they copies of training images?",
        COLUMNS,
        rows,
        {"features": features.name, "training images": str(len(training))},
        interval="95 %, by resampling images",
        notes=["If objects were painted into scenes of the training data, these scenes count as copies"],
    )
    return result, Neighbours(distances, found["generated"][1])


def _bootstrapped(statistic, values: np.ndarray, rng: np.random.Generator) -> Figure:
    resampled = values[rng.integers(0, len(values), (N_RESAMPLES, len(values)))]
    return bootstrap(float(statistic(values)), statistic(resampled, axis=1))
