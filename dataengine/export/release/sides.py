"""Train or validation: images of one layout, or in one scene, never lie on both sides.

Images and what they were made from form a graph. Where it falls into many pieces, whole pieces are validated. Where
most of it hangs together, as with many images of few real ones, sources are divided, and images that have some on
either side are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dataengine.data.split import group_of
from dataengine.errors import UserError
from dataengine.render.canvas import Provenance

Side = Literal["train", "val"]
NEAR = 0.25  # of the wanted share: so far it may be missed where that leaves no image out


def sources_of(layout_from: Sequence[str], scene: Provenance, seed: int, group: str | None = None) -> frozenset[str]:
    """Sources of an image: the real images of its layout, and its scene; its seed if it has neither.

    group: a regular expression; sources with the same match count as one, such as frames of one video.

    >>> sorted(sources_of(["a"], Provenance("window", "b", 40, 120), 7))
    ['a', 'b']
    """
    names = [*layout_from, *filter(None, [scene.name or scene.label])] or [f"seed:{seed}"]
    if group is None:
        return frozenset(names)
    return frozenset(group_of(name, group) for name in names)


def divide(sources: Sequence[frozenset[str]], share: float, seed: int = 0) -> list[Side | None]:
    """The side of each image, None where it must be left out since its sources lie on both.

    sources: of each image, at least one. share: of the images that are not left out, which are validated; 0 is none.
    Depends on nothing but these and `seed`. Raises UserError where not one image could be on each side.
    """
    if share == 0:
        return ["train"] * len(sources)
    order = _order(sources, seed)
    place = {source: i for i, source in enumerate(order)}
    # an image is validated when the first k sources hold all of its own, and trained on when they hold none
    first = np.array([min(place[s] for s in own) for own in sources])
    last = np.array([max(place[s] for s in own) for own in sources])
    cuts = np.arange(1, len(order))
    n_val = np.searchsorted(np.sort(last), cuts)
    n_train = len(sources) - np.searchsorted(np.sort(first), cuts)
    shares = n_val / np.maximum(1, n_val + n_train)
    usable = (n_val > 0) & (n_train > 0)
    if not usable.any():
        raise UserError(
            f"--val {share:g}: all images hang together by the layouts and scenes that they were made from, so "
            "none can be validated that shares nothing with training images; make more images, or give --val 0."
        )
    whole = usable & (n_val + n_train == len(sources)) & (np.abs(shares - share) <= NEAR * share)
    chosen = whole if whole.any() else usable
    cut = cuts[chosen][np.argmin(np.abs(shares[chosen] - share))]
    return ["val" if b < cut else "train" if a >= cut else None for a, b in zip(first, last, strict=True)]


def _order(sources: Sequence[frozenset[str]], seed: int) -> list[str]:
    """All sources, so that neighbours in the graph follow each other: a cut between two then divides few images.

    Pieces come in the order of their size; in each, a breadth-first walk from a random source."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for own in sources:
        for source in own:
            neighbours[source] |= own
    names = sorted(neighbours)
    names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    rank = {name: i for i, name in enumerate(names)}
    pieces: list[list[str]] = []
    seen: set[str] = set()
    for name in names:
        if name in seen:
            continue
        piece = [name]
        seen.add(name)
        for current in piece:  # grows while it is walked
            fresh = sorted(neighbours[current] - seen, key=rank.__getitem__)
            seen.update(fresh)
            piece += fresh
        pieces.append(piece)
    return [name for piece in sorted(pieces, key=len) for name in piece]


def leaks(train: Sequence[frozenset[str]], val: Sequence[frozenset[str]]) -> frozenset[str]:
    """Sources of images on both sides."""
    return frozenset().union(*train) & frozenset().union(*val)
