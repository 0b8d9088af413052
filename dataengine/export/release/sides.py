"""Split into train and validation: images with a common layout, scene or real object are never in both.

Images and their sources form a graph. If it has many components, whole components become the validation split. If most
of it is connected, as with many images from few real ones, the sources are divided, and images with sources in both
splits are left out.
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
MAX_SHARE_ERROR = 0.25  # of the requested share; tolerated where no image has to be left out


def sources_of(
    layout_from: Sequence[str],
    scene: Provenance,
    seed: int,
    group: str | None = None,
    objects_from: Sequence[str] = (),
) -> frozenset[str]:
    """Sources of an image: the real images of its layout and of its objects, and its scene; its seed if it has none.

    group: a regular expression; sources with the same match count as one, such as frames of one video.

    >>> sorted(sources_of(["a"], Provenance("window", "b", 40, 120), 7))
    ['a', 'b']
    >>> sorted(sources_of(["a"], Provenance(), 7, objects_from=["c", "a"]))
    ['a', 'c']
    """
    names = [*layout_from, *objects_from, *filter(None, [scene.name or scene.label])] or [f"seed:{seed}"]
    if group is None:
        return frozenset(names)
    return frozenset(group_of(name, group) for name in names)


def divide(sources: Sequence[frozenset[str]], share: float, seed: int = 0) -> list[Side | None]:
    """The split of each image, None for images left out because their sources are in both splits.

    sources: of each image, at least one. share: of the validation split among the images that are not left out; 0 for
    none. The result depends on these and `seed` only. Raises UserError where a split would be empty.

    >>> divide([frozenset("a"), frozenset("ab"), frozenset("c")], 0.33)
    ['train', 'train', 'val']
    """
    if share == 0:
        return ["train"] * len(sources)
    order = _order(sources, seed)
    place = {source: i for i, source in enumerate(order)}
    # an image is in val if all its sources are among the first k in order, and in train if none is
    first = np.array([min(place[s] for s in own) for own in sources])
    last = np.array([max(place[s] for s in own) for own in sources])
    cuts = np.arange(1, len(order))
    n_val = np.searchsorted(np.sort(last), cuts)
    n_train = len(sources) - np.searchsorted(np.sort(first), cuts)
    shares = n_val / np.maximum(1, n_val + n_train)
    usable = (n_val > 0) & (n_train > 0)
    if not usable.any():
        raise UserError(
            f"--val {share:g}: all images are connected by common layouts, scenes and real objects, so no validation "
            "split is independent of the training images; generate more images, make one run from each part of the "
            "real data (dataengine data split), or give --val 0."
        )
    whole = usable & (n_val + n_train == len(sources)) & (np.abs(shares - share) <= MAX_SHARE_ERROR * share)
    chosen = whole if whole.any() else usable
    cut = cuts[chosen][np.argmin(np.abs(shares[chosen] - share))]
    return ["val" if b < cut else "train" if a >= cut else None for a, b in zip(first, last, strict=True)]


def _order(sources: Sequence[frozenset[str]], seed: int) -> list[str]:
    """All sources in an order in which a cut divides few images: components of the graph by size, and each component
    in breadth-first order from a random source."""
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
        for current in piece:  # grows during the loop
            fresh = sorted(neighbours[current] - seen, key=rank.__getitem__)
            seen.update(fresh)
            piece += fresh
        pieces.append(piece)
    return [name for piece in sorted(pieces, key=len) for name in piece]


def leaks(train: Sequence[frozenset[str]], val: Sequence[frozenset[str]]) -> frozenset[str]:
    """Sources of images in both splits."""
    return frozenset().union(*train) & frozenset().union(*val)
