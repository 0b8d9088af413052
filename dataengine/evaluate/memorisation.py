"""Are generated pictures copies of training pictures? Distances to the nearest one, beside those of held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine.evaluate.features import Features
from dataengine.evaluate.manifold import nearest
from dataengine.evaluate.results import Column, Figure, Result, Row, bootstrap

FEATURES = "encoder-grid"  # pooled ImageNet features see the noise of a copy, not that it is one: its control fails
FIRST_PERCENT = 1.0
RESAMPLES = 1000
COLUMNS = {
    "median": Column("distance", "reference", "median distance to the nearest training picture"),
    "nearer": Column("nearer than 99 %", "lower", "share nearer to a training picture than 99 % of held-out ones are"),
}


@dataclass(frozen=True)
class Neighbours:
    """distances: float64 (N,) to the nearest training picture, of the pictures of each row. indices int64 (N,): the
    training picture that is nearest to each generated one."""

    distances: dict[str, np.ndarray]
    indices: np.ndarray


def memorisation(
    made: np.ndarray, real: np.ndarray, training: np.ndarray, copies: np.ndarray, features: Features, seed: int = 0
) -> tuple[Result, Neighbours]:
    """How near generated embeddings (N, E) lie to training embeddings (T, E), beside held-out real ones (M, E) and
    training pictures under slight noise, `copies` (K, E) (control: nearly all of them must be found)."""
    sets = {"generated": made, "real, held out": real, "noisy copies of training": copies}
    found = {name: nearest(embeddings, training) for name, embeddings in sets.items()}
    distances = {name: values for name, (values, _) in found.items()}
    limit = np.percentile(distances["real, held out"], FIRST_PERCENT)
    rng = np.random.default_rng(seed)
    rows = [
        Row(name, role, len(d), {"median": _drawn(np.median, d, rng), "nearer": _drawn(np.mean, d < limit, rng)})
        for (name, d), role in zip(distances.items(), ("measured", "reference", "control"), strict=True)
    ]
    result = Result(
        "memorisation",
        "Are they copies of training pictures?",
        COLUMNS,
        rows,
        {"features": features.name, "training pictures": str(len(training))},
        interval="95 %, by resampling pictures",
        notes=["Where objects were painted into scenes of the training data, their scenes are found as copies"],
    )
    return result, Neighbours(distances, found["generated"][1])


def _drawn(statistic, values: np.ndarray, rng: np.random.Generator) -> Figure:
    drawn = values[rng.integers(0, len(values), (RESAMPLES, len(values)))]
    return bootstrap(float(statistic(values)), statistic(drawn, axis=1))
