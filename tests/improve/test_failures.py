"""Where a detector fails, and what is made for it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dataengine.data.layout import Acquisition, Layout
from dataengine.improve.aspects import learn_aspects
from dataengine.improve.failures import Failures, Group, failure_tables, find_failures
from dataengine.improve.grounds import learn_grounds
from dataengine.improve.plan import Inventory, plan_round, take_inventory
from dataengine.judge.detector import Detections

CLASSES = ("car", "van")


def ground(bright: bool, seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).normal(210 if bright else 50, 4, (128, 128, 3))
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    """Twenty images, by turns dark and by night, bright and by day, each with two touching cars, a car and a van."""
    layouts, images = [], []
    for i in range(20):
        night = i % 2 == 0
        boxes = [[30, 30, 10, 10, 0], [38, 30, 10, 10, 0], [90, 30, 12, 12, 0], [90, 90, 40, 40, 0]]
        layouts.append(Layout(boxes, [0, 0, 0, 1], CLASSES, (128, 128), acquisition=Acquisition(night=night)))
        images.append(ground(not night, i))
    loaders = [lambda image=image: image for image in images]
    return layouts, loaders, learn_aspects(layouts, learn_grounds(loaders, layouts))


def find(scene, misses, alarms=lambda i: np.zeros((0, 5))):
    """Failures of a detector that finds all but misses(i), indices, and has false alarms, boxes of cars."""
    layouts, loaders, aspects = scene
    detections = []
    for i, layout in enumerate(layouts):
        keep = np.setdiff1d(np.arange(4), misses(i))
        extra = np.float32(alarms(i)).reshape(-1, 5)
        boxes, labels = np.concatenate([layout.boxes[keep], extra]), [*layout.labels[keep], *[0] * len(extra)]
        detections.append(Detections(boxes, np.full(len(boxes), 0.8, np.float32), np.array(labels, np.int64)))
    return find_failures(detections, layouts, loaders, CLASSES, aspects)


def group(failures: Failures, aspect: str, name: str) -> Group:
    return next(one for one in failures.groups if (one.aspect, one.name) == (aspect, name))


def test_misses_are_counted_in_every_group_that_they_belong_to(scene):
    found = find(scene, lambda i: [0] if i % 2 == 0 else [])  # a touching car at night
    assert len(found.misses) == 10
    assert found.recall == pytest.approx(70 / 80)
    counts = {name: (one.objects, one.found) for name in ("night", "day") for one in [group(found, "light", name)]}
    assert counts == {"night": (40, 30), "day": (40, 40)}
    assert group(found, "crowding", "touching").recall.value == pytest.approx(0.75)
    assert group(found, "crowding", "apart").recall.value == 1
    assert group(found, "size", "car, small").found == 50
    assert group(found, "class", "van").recall.value == 1
    dark = [one for one in found.groups if one.aspect == "ground" and one.name.startswith("dark")]
    assert sum(one.objects - one.found for one in dark) == 10
    assert {miss.groups["light"] for miss in found.misses} == {"night"}
    assert {one.aspect: 0 for one in found.groups} == dict.fromkeys(["class", "size", "crowding", "light", "ground"], 0)


def test_nothing_missed_and_no_false_alarm_is_reported_as_that(scene):
    found = find(scene, lambda i: [])
    assert (found.misses, found.false_alarms, found.recall) == ([], [], 1.0)
    assert group(found, "class", "car").ap50 == 1.0
    assert [len(table.rows) for table in failure_tables(found)][1] == 0


def test_the_interval_of_recall_follows_the_images(scene):
    scattered = group(find(scene, lambda i: [0] if i % 2 == 0 else []), "class", "car").recall
    assert scattered.low < scattered.value < scattered.high
    even = group(find(scene, lambda i: [0]), "class", "car").recall
    assert even.low == even.value == even.high == pytest.approx(2 / 3), "each image has the same share"


def test_false_alarms_are_told_by_what_they_lie_on(scene):
    places = {"ground": [30, 100, 10, 10, 0], "object": [90, 90, 38, 38, 0], "part": [90, 36, 12, 12, 0]}
    found = find(scene, lambda i: [2], lambda i: [places["ground"], places["object"], places["part"]])
    kinds = Counter(alarm.lies_on.partition(" (")[0] for alarm in found.false_alarms)
    assert kinds == {"ground": 20, "another object": 20, "part of car, or more than it": 20}
    assert {a.lies_on for a in found.false_alarms if a.lies_on.startswith("another")} == {"another object (van)"}
    grounds = {
        (a.groups["light"], a.lies_on.split()[1].strip("(,"))
        for a in found.false_alarms
        if a.lies_on.startswith("ground")
    }
    assert grounds == {("night", "dark"), ("day", "bright")}
    shares = {row.name: row.n for row in failure_tables(found)[1].rows}
    assert shares["car on another object (van)"] == 20


def test_difficult_objects_count_neither_as_missed_nor_as_false_alarms(scene):
    layouts, loaders, aspects = scene
    hard = [Layout(x.boxes, x.labels, CLASSES, x.size, difficult=[True, False, False, False]) for x in layouts]
    found = find((hard, loaders, aspects), lambda i: [0])
    assert (len(found.misses), found.recall) == (0, 1.0)
    assert not find((hard, loaders, aspects), lambda i: []).false_alarms


def inventory(scene) -> Inventory:
    layouts, loaders, aspects = scene
    names = [f"{'night' if x.acquisition.night else 'day'} {i}" for i, x in enumerate(layouts)]
    return take_inventory(names * 3, loaders * 3, layouts * 3, aspects)


def test_a_round_takes_layouts_and_scenes_from_images_like_the_failures(scene):
    training, names = inventory(scene), scene[2].grounds.names
    plan = plan_round(find(scene, lambda i: [0] if i % 2 == 0 else []), training, names)
    assert len(plan.layouts) == len(plan.scenes) == 30
    assert all(name.startswith("night") for name in (*plan.layouts, *plan.scenes))
    assert plan.changes["rows"] == 0.5, "touching objects are missed"
    by_day = plan_round(find(scene, lambda i: [0] if i % 2 else []), training, names)
    assert all(name.startswith("day") for name in (*by_day.layouts, *by_day.scenes)), "control"


def test_grounds_with_false_alarms_become_scenes(scene):
    found = find(scene, lambda i: [], lambda i: [[30, 100, 10, 10, 0]] if i % 2 else [])
    plan = plan_round(found, inventory(scene), scene[2].grounds.names)
    assert plan.scenes
    assert all(name.startswith("day") for name in plan.scenes)
    assert (plan.layouts, plan.changes) == ((), {})
    assert "bright" in plan.why[0]


def test_a_weak_class_gets_a_larger_share_and_a_rare_or_harmed_one_does_not(scene):
    training, names = inventory(scene), scene[2].grounds.names
    vans_missed = find(scene, lambda i: [3] if i < 15 else [])
    assert plan_round(vans_missed, training, names).changes["balance"] == {"van": 0.4}
    assert "balance" not in plan_round(find(scene, lambda i: []), training, names).changes
    harmed = plan_round(vans_missed, training, names, harmed=("van",)).changes
    assert "balance" not in harmed
    assert harmed["classes"] == ["car"]
    rare = Inventory(
        training.names, [Counter({("class", "car"): 9})] * 59 + [Counter({("class", "van"): 3})], training.grounds
    )
    plan = plan_round(vans_missed, rare, names)
    assert "balance" not in plan.changes
    assert any("too few to vary" in phrase for phrase in plan.why)


def test_a_filter_that_brought_nothing_is_left_out(scene):
    found, training, names = find(scene, lambda i: []), inventory(scene), scene[2].grounds.names
    assert plan_round(found, training, names, filtered=True).changes == {"filter": "off"}
    assert plan_round(found, training, names).changes == {}


def test_altitudes_are_grouped_by_thirds_and_a_single_value_is_left_out():
    def layouts(values):
        return [Layout([], [], CLASSES, (64, 64), acquisition=Acquisition(altitude_m=v, gsd_m=0.5)) for v in values]

    aspects = learn_aspects(layouts(range(10, 100)), None)
    assert list(aspects.edges) == ["altitude_m"]
    assert aspects.of_image(Acquisition(altitude_m=12)) == {"altitude, m": "10 to below 40"}
    assert aspects.of_image(Acquisition(altitude_m=95, night=True)) == {"light": "night", "altitude, m": "from 69"}
    assert aspects.of_image(Acquisition()) == {}


def test_images_with_a_class_that_is_raised_are_always_among_the_layouts(scene):
    """A recipe that raises a class which no layout shows is refused."""
    training, names = inventory(scene), scene[2].grounds.names
    few_vans = [
        Counter({key: n for key, n in counts.items() if key != ("class", "van") or i < 4})
        for i, counts in enumerate(training.objects)
    ]
    few_vans[1]["class", "van"] = 12  # by day
    failures = find(scene, lambda i: [0, 3] if i % 2 == 0 else [])
    plan = plan_round(failures, Inventory(training.names, few_vans, training.grounds), names)
    assert "van" in plan.changes["balance"]
    assert training.names[1] in plan.layouts
    assert sum(name.startswith("night") for name in plan.layouts) == len(plan.layouts) - 2, "both days with vans"


def test_a_single_class_that_was_harmed_is_painted_all_the_same(scene):
    training, names = inventory(scene), scene[2].grounds.names
    assert "classes" not in plan_round(find(scene, lambda i: [0]), training, names, harmed=CLASSES).changes
