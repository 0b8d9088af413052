"""Which images a training shows in which step, and how they are augmented: determined by seed and step alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset

from dataengine.errors import UserError


class Draws(Dataset):
    """Images by their place in a training: image `i` of step `s` is number `s * batch_size + i`.

    Every batch has a fixed number of images of each source, and a source shows all of its images, in random order,
    before it shows one again. Random generators are seeded by the place, so a training that continues draws what an
    uninterrupted one draws, whatever number of processes loads the images.

    >>> draws = Draws([["a", "b"], ["c"]], (2, 1), seed=0)
    >>> [sorted(draws[i] for i in range(3 * step, 3 * step + 3)) for step in range(2)]
    [['a', 'b', 'c'], ['a', 'b', 'c']]
    """

    def __init__(self, sources: Sequence[Sequence], shares: Sequence[int], seed: int):
        """sources: data sets of mmengine, or sequences. shares: number of images of each in a batch."""
        self.sources, self.shares, self.seed = sources, shares, seed
        self.batch_size = sum(shares)
        self._order = lru_cache(2 * len(sources))(self._shuffled)

    def _shuffled(self, source: int, times: int) -> np.ndarray:
        """The order of a source's images when they are shown for this time."""
        return np.random.default_rng((self.seed, source, times)).permutation(len(self.sources[source]))

    def __getitem__(self, place: int):
        step, position = divmod(place, self.batch_size)
        source = 0
        while position >= self.shares[source]:
            position -= self.shares[source]
            source += 1
        times, i = divmod(step * self.shares[source] + position, len(self.sources[source]))
        seed_all(self.seed, place)
        return self.sources[source][int(self._order(source, times)[i])]


def seed_all(*numbers: int) -> None:
    """Seed the generators that the transforms and models of mmdet and mmrotate draw from."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  which they use
    torch.manual_seed(seed)


def batch_shares(batch_size: int, real_share: float) -> tuple[int, int]:
    """Numbers of (real, synthetic) images in a batch. Raises UserError where one of them is 0.

    >>> batch_shares(8, 0.75)
    (6, 2)
    """
    real = round(batch_size * real_share)
    if not 0 < real < batch_size:
        raise UserError(
            f"--real-share {real_share:g}: {real} of the {batch_size} images of a batch would be real; choose a share "
            "with at least one real and one synthetic image, or a larger --batch-size."
        )
    return real, batch_size - real
