from __future__ import annotations

import datetime

import numpy as np
import pytest
from pydantic import ValidationError

from dataengine.data.layout import ACQUISITION_FIELDS, Acquisition, acquisition_values, drop_fields


def values(**acquisition) -> dict[str, float]:
    return dict(zip(ACQUISITION_FIELDS, acquisition_values(Acquisition(**acquisition)).tolist(), strict=True))


def test_unknown_is_not_zero_and_zero_is_not_unknown():
    unknown = values()
    assert all(np.isnan(v) for v in unknown.values())
    known = values(cloud=0, longitude_deg=0, latitude_deg=0, sun_elevation_deg=0, night=False)
    assert known["cloud"] == known["latitude"] == known["sun"] == known["night"] == 0
    assert (known["longitude/sin"], known["longitude/cos"]) == (0, 1)


@pytest.mark.parametrize(
    ("one", "other", "stem"),
    [
        ({"date": datetime.date(2022, 12, 31)}, {"date": datetime.date(2023, 1, 1)}, "season"),
        ({"longitude_deg": 179.9}, {"longitude_deg": -179.9}, "longitude"),
    ],
)
def test_neighbours_on_the_circle_have_similar_values(one, other, stem):
    a, b = (np.array([values(**v)[f"{stem}/{part}"] for part in ("sin", "cos")]) for v in (one, other))
    assert np.linalg.norm(a - b) < 0.03
    assert np.linalg.norm(a) == pytest.approx(1)
    opposite = {"date": datetime.date(2022, 7, 1)} if stem == "season" else {"longitude_deg": 0.0}
    c = np.array([values(**opposite)[f"{stem}/{part}"] for part in ("sin", "cos")])
    assert np.linalg.norm(a - c) > 1.9, "control: the other side of the circle"


def test_fields_are_dropped_independently_but_sine_and_cosine_together():
    every = np.zeros((4000, len(ACQUISITION_FIELDS)), np.float32)
    dropped = np.isnan(drop_fields(every, ACQUISITION_FIELDS, 0.3, np.random.default_rng(0)))
    assert np.allclose(dropped.mean(0), 0.3, atol=0.03)
    sin, cos, cloud = (dropped[:, ACQUISITION_FIELDS.index(name)] for name in ("season/sin", "season/cos", "cloud"))
    assert (sin == cos).all()
    assert np.corrcoef(sin, cloud)[0, 1] == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("wrong", [{"gsd_m": 0}, {"cloud": 1.5}, {"latitude_deg": 91}, {"camera_angle_deg": -1},
                                   {"date": "2023-02-30"}])  # fmt: skip
def test_impossible_values_are_rejected_by_field_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Acquisition(**wrong)
