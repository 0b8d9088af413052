"""Do generated images cover the variety of real ones, and are they as diverse?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from dataengine.evaluate.features import Features
from dataengine.evaluate.fidelity import INTERVAL
from dataengine.evaluate.manifold import manifold, mean_pairwise_distance, vendi_score
from dataengine.evaluate.results import Column, Result, Row, spread
from dataengine.evaluate.windows import equal_draws

N_REPEATS = 10  # of each image in the control
COLUMNS = {
    "recall": Column("recall", "higher", "share of real images inside the manifold of these images"),
    "coverage": Column("coverage", "higher", "share of real images with one of these images in their neighbourhood"),
    "vendi": Column("Vendi score", "reference", "effective number of different images"),
    "pairwise": Column("pair distance", "reference", "mean cosine distance between two images"),
}


def diversity(
    generated: np.ndarray, real: np.ndarray, groups: Sequence[Hashable], features: Features, seed: int = 0
) -> Result:
    """Recall and coverage of one half of the real embeddings (M, E) by generated embeddings (N, E), and the diversity
    of the generated ones. Reference: the other real half. Control: a tenth of that half, repeated ten times (mode
    collapse).

    groups: group of each real image; the halves never split a group. Raises UserError for too few images.
    """
    draws = equal_draws(groups, len(generated), seed)
    n = len(draws[0][0])
    few = -(-n // N_REPEATS)
    sets = {
        "generated": ("measured", [generated[chosen] for _, _, chosen in draws]),
        "real, other half": ("reference", [real[second] for _, second, _ in draws]),
        "a tenth of it, repeated": ("control", [real[np.resize(second[:few], n)] for _, second, _ in draws]),
    }
    rows = []
    for name, (role, embeddings) in sets.items():
        found = [_figures(real[first], x) for (first, _, _), x in zip(draws, embeddings, strict=True)]
        rows.append(Row(name, role, n, {key: spread([values[key] for values in found]) for key in COLUMNS}))
    title = "Are they as diverse as real images?"
    return Result("diversity", title, COLUMNS, rows, {"features": features.name}, interval=INTERVAL)


def _figures(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
    among = manifold(real, other)
    return {
        "recall": among.recall,
        "coverage": among.coverage,
        "vendi": vendi_score(other),
        "pairwise": mean_pairwise_distance(other),
    }
