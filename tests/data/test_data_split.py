"""Splits by group: no leakage, fractions are met, and the seed determines the split."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.data.split import flight_key, split_by_group
from dataengine.errors import UserError


def _dataset(names, acquisition=None) -> Dataset:
    layout = Layout([], [], ("car",), (64, 64), acquisition=acquisition or Acquisition())
    return Dataset(("car",), [Sample(name, Path(f"{name}.jpg"), layout) for name in names])


def _scene(sample: Sample) -> str:
    return sample.name.split("_")[0]


def test_groups_stay_together_no_sample_is_lost_and_fractions_are_met():
    rng = np.random.default_rng(0)
    names = [f"{scene}_{i}" for scene in range(60) for i in range(rng.integers(1, 30))]
    dataset = _dataset(names)
    parts = split_by_group(dataset, (0.7, 0.2, 0.1), 0, _scene)
    scenes = [{_scene(sample) for sample in part} for part in parts]
    assert not scenes[0] & scenes[1]
    assert not scenes[0] & scenes[2]
    assert not scenes[1] & scenes[2]
    assert sorted(sample.name for part in parts for sample in part) == sorted(names)
    for part, fraction in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert len(part) / len(dataset) == pytest.approx(fraction, abs=0.02)


def test_a_seed_gives_the_same_split_again_and_another_seed_another():
    dataset = _dataset([f"{scene}_{i}" for scene in range(20) for i in range(5)])

    def names(seed):
        return [[sample.name for sample in part] for part in split_by_group(dataset, (0.5, 0.5), seed, _scene)]

    assert names(1) == names(1)
    assert names(1) != names(2)


def test_no_split_is_empty_even_if_one_group_is_huge():
    dataset = _dataset([f"a_{i}" for i in range(100)] + ["b_0", "c_0"])
    assert all(len(part) for part in split_by_group(dataset, (0.9, 0.05, 0.05), 0, _scene))


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.2, -0.2), (1.0, 0.0)])
def test_invalid_fractions_are_rejected(fractions):
    with pytest.raises(UserError, match="add up to 1"):
        split_by_group(_dataset(["a_0", "b_0"]), fractions, 0, _scene)


def test_fewer_groups_than_splits_are_rejected():
    with pytest.raises(UserError, match="1 group of images, too few"):
        split_by_group(_dataset(["a_0", "a_1"]), (0.5, 0.5), 0, _scene)


def test_a_flight_is_a_run_of_frames_with_equal_settings():
    low = Acquisition(altitude_m=60, camera_angle_deg=30, night=True, date=datetime.date(2021, 1, 1))
    frames = [*range(0, 100, 10), *range(500, 600, 7)]
    dataset = _dataset([f"1_60_30_0_{frame:05d}" for frame in frames], low)
    key = flight_key(dataset)
    keys = [key(sample) for sample in dataset]
    assert len(set(keys[:10])) == 1
    assert len(set(keys[10:])) == 1
    assert keys[0] != keys[10]
    for change in ({"altitude_m": 70}, {"camera_angle_deg": 90}, {"night": False}, {"date": datetime.date(2021, 1, 2)}):
        first, second = dataset.samples[:2]
        other = replace(second, layout=replace(second.layout, acquisition=low.model_copy(update=change)))
        both = replace(dataset, samples=[first, other])
        assert flight_key(both)(first) != flight_key(both)(other)


def test_real_flights_do_not_leak_while_a_split_by_frame_does():
    root = Path(__file__).parents[2].parent / "shared" / "data" / "hit-uav"
    if not root.is_dir():
        pytest.skip("the real sample hit-uav is not on this machine")
    from dataengine.data import hit_uav

    dataset = hit_uav.read(root)
    key = flight_key(dataset)
    train, val = split_by_group(dataset, (0.85, 0.15), 0, key)
    assert not {key(sample) for sample in train} & {key(sample) for sample in val}
    assert len(val) / len(dataset) == pytest.approx(0.15, abs=0.02)
    by_frame = split_by_group(dataset, (0.85, 0.15), 0, lambda sample: sample.name)
    assert {key(sample) for sample in by_frame[0]} & {key(sample) for sample in by_frame[1]}, "the control leaks"
