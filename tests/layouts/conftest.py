"""Synthetic parking lots from a drone: rows of parallel cars, upright persons without overlap, a rare truck."""

from pathlib import Path

import numpy as np
import pytest

from dataengine.data.layout import Acquisition, Layout

CLASSES = ("person", "car", "truck")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def parking_lot(rng: np.random.Generator, with_truck: bool, angle_deg: float = 90.0) -> Layout:
    """Cars 4.6 x 1.9 units in a row of pitch 2.6 units; 600 / altitude pixels a unit. Persons stand apart on a grid."""
    altitude = float(rng.choice([60, 80, 100]))
    unit = 600 / altitude
    theta = rng.uniform(-np.pi / 2, np.pi / 2)
    step = np.array([-np.sin(theta), np.cos(theta)]) * 2.6 * unit
    start = np.array([320, 300]) + rng.uniform(-60, 60, 2)
    boxes, labels = [], []
    for i in range(-4, 5):
        boxes.append([*(start + i * step), 4.6 * unit, 1.9 * unit, theta])
        labels.append(1)
    for k in range(int(rng.integers(1, 5))):
        boxes.append([200 + 60 * k + rng.uniform(0, 20), 30 + rng.uniform(0, 15), 1.4 * unit, 0.9 * unit, -np.pi / 2])
        labels.append(0)
    if with_truck:
        boxes.append([560, 60, 8 * unit, 2.4 * unit, 0.3])
        labels.append(2)
    taken = Acquisition(altitude_m=altitude, camera_angle_deg=angle_deg, night=bool(rng.random() < 0.5))
    layout = Layout(boxes, labels, CLASSES, (640, 512), acquisition=taken)
    return layout.select((layout.boxes[:, :2] > 0).all(1) & (layout.boxes[:, :2] < layout.size).all(1))


@pytest.fixture(scope="session")
def lots() -> list[Layout]:
    rng = np.random.default_rng(7)
    return [parking_lot(rng, with_truck=i % 20 == 0) for i in range(120)]


@pytest.fixture(scope="session")
def oblique_lots() -> list[Layout]:
    rng = np.random.default_rng(8)
    return [parking_lot(rng, with_truck=False, angle_deg=40.0) for _ in range(30)]


@pytest.fixture(scope="session")
def hit_uav():
    if not (DATA / "hit-uav").is_dir():
        pytest.skip("HIT-UAV is not beside the project in ../shared/data")
    from dataengine.data import hit_uav

    return {split: hit_uav.read(DATA / "hit-uav", split=split) for split in ("train", "val")}


@pytest.fixture(scope="session")
def hrplanes():
    if not (DATA / "hrplanes-v2").is_dir():
        pytest.skip("HRPlanes is not beside the project in ../shared/data")
    from dataengine.data import coco

    return {split: coco.read(DATA / "hrplanes-v2", split=split) for split in ("train", "val")}
