"""How a picture was taken, as numbers for a network: of order one, cyclic ones on the circle, `nan` where unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dataengine.data.layout import Acquisition

# every number that a model can be conditioned on; those of one stem (before the "/") are known or unknown together
FIELDS = (
    "altitude", "camera_angle", "night", "gsd", "year", "season/sin", "season/cos",
    "longitude/sin", "longitude/cos", "latitude", "cloud", "sun",
)  # fmt: skip
DAYS = 365.25


def acquisition_values(a: Acquisition, fields: Sequence[str] = FIELDS) -> np.ndarray:
    """(len(fields),) float32. Unlike DiffusionSat's metadata (Khanna et al. 2024, section 3.2), 31 December lies beside
    1 January, 180 degrees east beside 180 west, and unknown is not zero (contract 7)."""
    season = None if a.date is None else 2 * math.pi * (a.date.timetuple().tm_yday - 1) / DAYS
    east = None if a.longitude_deg is None else math.radians(a.longitude_deg)

    def known(value, number) -> float:
        return math.nan if value is None else float(number(value))

    values = {
        "altitude": known(a.altitude_m, lambda x: x / 100),
        "camera_angle": known(a.camera_angle_deg, lambda x: x / 90),
        "night": known(a.night, float),
        "gsd": known(a.gsd_m, math.log2),
        "year": known(a.date, lambda x: (x.year - 2015) / 10),
        "season/sin": known(season, math.sin),
        "season/cos": known(season, math.cos),
        "longitude/sin": known(east, math.sin),
        "longitude/cos": known(east, math.cos),
        "latitude": known(a.latitude_deg, lambda x: x / 90),
        "cloud": known(a.cloud, float),
        "sun": known(a.sun_elevation_deg, lambda x: x / 90),
    }
    return np.array([values[name] for name in fields], np.float32)


def forget_some(values: np.ndarray, fields: Sequence[str], probability: float, rng: np.random.Generator) -> np.ndarray:
    """(B, len(fields)) with each field, sine and cosine together, unknown with this probability, each on its own."""
    stems = [name.split("/")[0] for name in fields]
    order = list(dict.fromkeys(stems))
    forgotten = rng.random((len(values), len(order))) < probability
    return np.where(forgotten[:, [order.index(stem) for stem in stems]], np.float32(np.nan), values)
