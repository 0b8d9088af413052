"""Seeds and random streams: where every random number of an image comes from (contract 4).

Each purpose draws from a stream of its own, so that adding random numbers to one does not move another. The numbers of
the streams are arbitrary, and must never change: they decide what a run of a given seed looks like.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """One purpose that random numbers of an image serve."""

    REAL_OBJECT = 0x0B1  # which real object a painted one starts from
    INPAINT_WINDOW = 0x147  # which labelled image, and where in it, new objects go
    LAYOUT = 0x1A7
    SCENE = 0x5CE  # which image, and which window of it, objects are painted into
    PLACE = 0x91A  # where objects are moved to, among likely places
    HEADING = 0x4EA  # where objects of horizontal boxes point
    SEQUENCE = 0x5E9  # which objects of a picture are there at each date
    WORLD_FIELD = 0xF1E  # slow fields over a world
    WORLD_CELL = 0xCE1  # what a cell of a world has of these fields for itself
    WORLD_LAYOUT = 0x1AC  # objects of a cell
    WORLD_ACQUISITION = 0xACC  # how a world was taken
    WORLD_OBJECT = 0x0BC  # noise of the objects of a cell
    WORLD_STYLE = 0x57E  # which image a part of a world looks like


class Noise(IntEnum):
    """Offsets added to an object's number, so that each kind of noise of one object differs. Numbers below the first
    are those of painted objects."""

    CLEARED_OBJECT = 1 << 20  # empty ground in place of a scene's own object
    WHOLE_IMAGE = 1 << 21
    LATENT_IMAGE = 1 << 22
    REMOVED_OBJECT = 1 << 22  # empty ground in place of a painted object; no renderer has both of these


def image_seed(run_seed: int, index: int) -> int:
    """Seed of image `index` of a run, in [0, 2^62); everything random in that image comes from it.

    >>> image_seed(0, 0) == image_seed(0, 0) != image_seed(0, 1)
    True
    """
    digest = hashlib.sha256(f"dataengine image {run_seed} {index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers of one stream (`Stream`, and further numbers that tell draws within it apart) of an image."""
    return np.random.default_rng((seed, *stream))


def noise_seed(seed: int, number: int) -> int:
    """Seed of the noise of object `number` (or of a `Noise`) of an image, from the image's own seed."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
