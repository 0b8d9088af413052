"""Real cars stand on a dark road and never on the bright field next to it: where new ones are placed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_roads import FIELD, ROAD, SIDE, boxes_anywhere, boxes_apart, cars, ground, on_road, roads
from toy_scenes import canvas

from dataengine import geometry
from dataengine.data.layout import Acquisition
from dataengine.errors import UserError
from dataengine.render import places as places_module
from dataengine.render.places import Places, groups, learn_places


@pytest.fixture(scope="module")
def road_places(tmp_path_factory) -> Places:
    return learn_places(roads(tmp_path_factory.mktemp("road"), "road"))


@pytest.fixture(scope="module")
def uninformed(tmp_path_factory) -> Places:
    return learn_places(roads(tmp_path_factory.mktemp("anywhere"), "anywhere"))


def share_on_road(places: Places, scenes: int = 40) -> tuple[float, int]:
    """Share of placed cars whose centre is on the road, and how many there are of three for each scene."""
    found = []
    for seed in range(scenes):
        rng = np.random.default_rng((seed, 7))
        image, road = ground(rng)
        layout = cars(boxes_anywhere(3, rng))
        found.append(on_road(places.placed(canvas(image, layout), layout, rng), road))
    return float(np.concatenate(found).mean()), sum(map(len, found))


def test_cars_are_placed_on_the_road_where_real_ones_stand(road_places, uninformed):
    """The road is a third of the image."""
    share, count = share_on_road(road_places)
    assert share > 0.9
    assert count > 100, "nearly all of the 120 have a place"
    control, kept = share_on_road(uninformed)
    assert control < 0.5, "control: trained on cars that stand anywhere"
    assert kept > 80
    mutation, _ = share_on_road(Places({}, {}))
    assert mutation < 0.55, "mutation: without forests all stay where the layouts have them"


def test_without_a_road_no_car_is_placed_but_another_class_is(road_places):
    field = np.random.default_rng(0).normal(FIELD, 6, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    field[:30] = ROAD - 40  # something else is dark, too near the border for a car
    boxes = boxes_apart(30, np.random.default_rng(1))
    boxes = boxes[boxes[:, 1] > 60]
    layout = replace(cars(boxes), acquisition=Acquisition(camera_angle_deg=45))  # moves vertically by 16 pixels at most
    placed = road_places.placed(canvas(field, layout), layout, np.random.default_rng(2))
    assert len(placed) < len(layout) / 4
    ships = replace(layout, classes=("ship",))
    assert len(road_places.placed(canvas(field, ships), ships, np.random.default_rng(2))) > len(ships) * 0.8, "control"


def test_a_layout_without_objects_stays_one(road_places):
    nothing = cars(np.zeros((0, 5), np.float32))
    image, _ = ground(np.random.default_rng(0))
    assert len(road_places.placed(canvas(image, nothing), nothing, np.random.default_rng(0))) == 0


def test_objects_close_together_move_together(uninformed):
    rng = np.random.default_rng(3)
    row = np.float32([[30 + 10 * k, 40, 14, 8, 1.5] for k in range(3)])
    far = np.float32([[120, 120, 14, 8, 0]])
    layout = cars(np.concatenate([row, far]))
    assert [len(group) for group in groups(layout.boxes)] == [3, 1]
    moved = 0
    for _ in range(10):
        image, _ = ground(rng)
        placed = uninformed.placed(canvas(image, layout), layout, rng)
        if len(placed) == 4:
            np.testing.assert_allclose(np.diff(placed.boxes[:3], axis=0), np.diff(row, axis=0), atol=1e-3)
            moved += int(np.abs(placed.boxes[0] - row[0]).max() > 5)
    assert moved > 3


def test_an_object_cut_by_the_border_stays_and_its_neighbour_may_move(road_places):
    row = np.float32([[5, 80, 10, 8, 0], [20, 80, 14, 8, 0]])
    layout = replace(cars(row), visible=np.float32([0.7, 1]))
    moved = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image, _ = ground(rng)
        image[70:90, :12] = ROAD
        placed = replace(road_places, min_likelihood={}).placed(canvas(image, layout), layout, rng)
        np.testing.assert_array_equal(placed.boxes[0], row[0])
        moved += int(len(placed) == 2 and np.abs(placed.boxes[1] - row[1]).max() > 5)
    assert moved > 4, "control: whole objects move"


def test_in_an_oblique_image_objects_move_little_vertically(uninformed):
    image, _ = ground(np.random.default_rng(0))

    def vertical_move(angle: float | None) -> float:
        layout = cars(np.float32([[80, 80, 14, 8, 0]]), Acquisition(camera_angle_deg=angle))
        scene = canvas(image, layout)
        anywhere = replace(uninformed, min_likelihood={})
        placed = [anywhere.placed(scene, layout, np.random.default_rng(seed)) for seed in range(30)]
        return max(abs(float(one.boxes[0, 1]) - 80) for one in placed)

    assert vertical_move(45) <= 16
    assert vertical_move(90) > 40, "control: seen straight down, the row says nothing of the distance"
    assert vertical_move(None) > 40, "control: an unknown camera angle"


@pytest.mark.parametrize("seed", range(5))
def test_new_objects_touch_neither_those_of_the_scene_nor_each_other(road_places, seed):
    rng = np.random.default_rng(seed)
    image, _ = ground(rng)
    existing = cars(boxes_apart(12, rng))
    new = cars(boxes_apart(10, rng))
    placed = road_places.placed(canvas(image, new, existing), new, rng)
    assert len(placed)
    assert not (geometry.intersection(placed.boxes, existing.boxes) > 0).any()
    assert len(placed) < 2 or not np.triu(geometry.intersection(placed.boxes, placed.boxes) > 0, 1).any()


def test_places_of_an_image_depend_on_its_seed_alone(road_places):
    image, _ = ground(np.random.default_rng(0))
    layout = cars(boxes_apart(6, np.random.default_rng(1)))
    scene = canvas(image, layout)
    first, again, other = (road_places.placed(scene, layout, np.random.default_rng(seed)).boxes for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or np.abs(first - other).max() > 1


def test_too_few_real_objects_are_refused(tmp_path):
    few = roads(tmp_path, "road", images=1)
    with pytest.raises(UserError, match=r"--likely-places: no class \(car\) has 10 objects completely inside"):
        learn_places(few)


def test_unreadable_images_are_skipped(tmp_path, road_places):
    data = roads(tmp_path, "road")
    data.samples[0].image.write_bytes(b"no picture")
    places = learn_places(data)
    assert share_on_road(places, 10)[0] > 0.85


def headings_along(places: Places, kind: str, scenes: int = 30) -> float:
    """Share of the placed cars that stand along a road with two real cars on it; the layout has them across."""
    along, count = 0, 0
    for seed in range(scenes):
        rng = np.random.default_rng((seed, 3))
        image, road = ground(rng)
        rows, columns = np.nonzero(road)
        upright = np.ptp(rows) > np.ptp(columns)  # the road runs from the top to the bottom
        centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
        step, theta = (np.array([0, 40]), -np.pi / 2) if upright else (np.array([40, 0]), 0.0)
        real = cars(np.float32([[*(centre + sign * step), 16, 8, theta] for sign in (-1, 1)]))
        other = 0.0 if upright else -np.pi / 2
        across = cars(np.column_stack([boxes_anywhere(3, rng)[:, :2], np.tile([16, 8, other], (3, 1))]))
        real, across = replace(real, kind=kind), replace(across, kind=kind)
        placed = places.placed(canvas(image, across, real), across, rng)
        along += int((np.abs(np.cos(placed.boxes[:, 4] - theta)) > 0.9).sum())
        count += len(placed)
    assert count > scenes, "many have a place"
    return along / count


@pytest.mark.parametrize("kind", ["hbb", "obb"])
def test_cars_are_turned_along_those_that_stand_on_the_road(road_places, kind, monkeypatch):
    """Mutation: without alignment they stay across."""
    assert headings_along(road_places, kind) > 0.9
    monkeypatch.setattr(places_module, "_aligned", lambda group, alike: group.boxes)
    assert headings_along(road_places, kind) < 0.1
