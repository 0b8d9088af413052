"""Do generated pictures show all that real ones show, and do they differ from each other as much?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from dataengine.evaluate.features import Features
from dataengine.evaluate.fidelity import INTERVAL
from dataengine.evaluate.manifold import manifold, mean_pairwise_distance, vendi_score
from dataengine.evaluate.pictures import equal_draws
from dataengine.evaluate.results import Column, Result, Row, spread

REPEATED = 10  # times that each picture of the control appears
COLUMNS = {
    "recall": Column("recall", "higher", "share of real pictures within reach of one of these"),
    "coverage": Column("coverage", "higher", "share of real pictures that reach one of these"),
    "vendi": Column("Vendi score", "reference", "as diverse as so many pictures that have nothing in common"),
    "pairwise": Column("pair distance", "reference", "mean cosine distance of two of these"),
}


def diversity(
    made: np.ndarray, real: np.ndarray, groups: Sequence[Hashable], features: Features, seed: int = 0
) -> Result:
    """Recall and coverage of a half of the real embeddings (M, E) by generated ones (N, E), and the diversity of
    themselves; beside the other real half, and a tenth of it, each picture ten times (control: a generator that has
    collapsed to few pictures).

    groups: of the real pictures, never divided between halves. Raises UserError where there are too few pictures.
    """
    draws = equal_draws(groups, len(made), seed)
    n = len(draws[0][0])
    few = -(-n // REPEATED)
    sets = {
        "generated": ("measured", [made[some] for _, _, some in draws]),
        "real, other half": ("reference", [real[second] for _, second, _ in draws]),
        "a tenth of it, repeated": ("control", [real[np.resize(second[:few], n)] for _, second, _ in draws]),
    }
    rows = []
    for name, (role, embeddings) in sets.items():
        found = [_figures(real[first], x) for (first, _, _), x in zip(draws, embeddings, strict=True)]
        rows.append(Row(name, role, n, {key: spread([values[key] for values in found]) for key in COLUMNS}))
    title = "Do they differ from each other as real ones do?"
    return Result("diversity", title, COLUMNS, rows, {"features": features.name}, interval=INTERVAL)


def _figures(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
    among = manifold(real, other)
    return {
        "recall": among.recall,
        "coverage": among.coverage,
        "vendi": vendi_score(other),
        "pairwise": mean_pairwise_distance(other),
    }
