"""The sampler of transformed real layouts."""

from dataclasses import replace

import numpy as np
import pytest
from test_layout_constraints import polygon

from dataengine.data.layout import Acquisition, Layout
from dataengine.errors import UserError
from dataengine.layouts.constraints import overlap
from dataengine.layouts.reuse import ReuseSampler, limits_of


def draws(sampler, n, seed=0):
    return [sampler.sample(np.random.default_rng((seed, i))) for i in range(n)]


def test_a_layout_depends_on_its_generator_alone(lots):
    first, second = ReuseSampler(lots, (256, 256)), ReuseSampler(lots, (256, 256))
    expected = draws(first, 20)
    for i in reversed(range(20)):  # another order, another sampler, layouts in between
        second.sample(np.random.default_rng(99))
        again = second.sample(np.random.default_rng((0, i)))
        np.testing.assert_array_equal(again.boxes, expected[i].boxes)
        np.testing.assert_array_equal(again.labels, expected[i].labels)
        assert again.acquisition == expected[i].acquisition
    assert len({layout.boxes.tobytes() for layout in expected}) == 20


def test_boxes_lie_inside_the_image_and_each_layout_has_one(lots):
    for layout in draws(ReuseSampler(lots, (256, 192)), 100):
        assert layout.size == (256, 192)
        assert len(layout)
        assert (layout.boxes[:, 2] >= layout.boxes[:, 3]).all()
        assert ((layout.boxes[:, 4] >= -np.pi / 2) & (layout.boxes[:, 4] < np.pi / 2)).all()
        for box, visible in zip(layout.boxes, layout.visible, strict=True):
            left, top, right, bottom = polygon(box).bounds
            if visible == 1:
                assert left > -1
                assert top > -1
                assert right < 257
                assert bottom < 193
            assert 0.29 < visible <= 1


def test_boxes_never_overlap_where_the_real_ones_do_not(lots):
    assert max(np.triu(overlap(lot.boxes, lot.boxes), 1).max() for lot in lots) == 0
    for layout in draws(ReuseSampler(lots, (256, 256), merge=1.0), 150):
        shapes = [polygon(box) for box in layout.boxes]
        for i, shape in enumerate(shapes):
            assert all(shape.intersection(other).area < 0.01 * shape.area for other in shapes[:i])


def test_the_size_in_pixels_agrees_with_the_altitude(lots):
    """Contract 2: a car is 4.6 units long at 600 / altitude pixels a unit, whatever the scale."""
    altitudes = set()
    for layout in draws(ReuseSampler(lots, (256, 256)), 150):
        cars = layout.boxes[(layout.labels == 1) & (layout.visible == 1)]
        np.testing.assert_allclose(cars[:, 2] * layout.acquisition.altitude_m / 600, 4.6, rtol=1e-3)
        assert 60 <= layout.acquisition.altitude_m <= 100.001
        altitudes.add(layout.acquisition.altitude_m)
    assert len(altitudes) > 100


def test_the_ground_sample_distance_follows_the_scale():
    layout = Layout([[200, 200, 46, 19, 0.3]], [0], ("car",), (400, 400), acquisition=Acquisition(gsd_m=0.1))
    coarse = replace(layout, boxes=layout.boxes * [1, 1, 0.5, 0.5, 1], acquisition=Acquisition(gsd_m=0.2))
    for drawn in draws(ReuseSampler([layout, coarse], (256, 256), merge=0, scale=(0.5, 2.0)), 50):
        whole = drawn.visible == 1
        np.testing.assert_allclose(drawn.boxes[whole, 2] * drawn.acquisition.gsd_m, 4.6, rtol=1e-3)


@pytest.mark.parametrize("gsd", [None, 0.2])
def test_objects_keep_their_own_length(gsd):
    """As long as real ones in the median, whether or not the ground sample distance is known. Control: another scale is
    asked for."""
    rng = np.random.default_rng(0)

    def picture() -> Layout:
        boxes = [[x, y, 40 * rng.uniform(0.8, 1.25), 16, 0.3] for x in (100, 200, 300) for y in (100, 200, 300)]
        return Layout(boxes, [0] * 9, ("car",), (400, 400), acquisition=Acquisition(gsd_m=gsd))

    layouts = [picture() for _ in range(8)]
    real = np.median(np.concatenate([layout.boxes[:, 2] for layout in layouts]))

    def median(**scale) -> float:
        drawn = draws(ReuseSampler(layouts, (256, 256), merge=0, **scale), 80)
        return float(np.median(np.concatenate([x.boxes[x.visible == 1, 2] for x in drawn])))

    assert median() == pytest.approx(real, rel=0.08)
    if gsd is None:
        assert median(scale=(0.5, 0.8)) < 0.95 * real


@pytest.mark.parametrize(("length", "shortest", "longest"), [(60, 60, 60), (35, 20, 60)])
def test_at_unknown_scale_lengths_stay_within_those_of_the_class(length, shortest, longest):
    """Images of objects of 20 to 60 px: the longest ones neither grow, nor shrink only."""

    def picture(length: float) -> Layout:
        boxes = [[x, y, length, length / 2, 0.3] for x in (100, 200, 300) for y in (100, 200, 300)]
        return Layout(boxes, [0] * 9, ("car",), (400, 400))

    limits = limits_of([picture(60), picture(20)])
    drawn = draws(ReuseSampler([picture(length)], (256, 256), merge=0, scale=(0.2, 5.0), limits=limits), 80)
    lengths = np.array([layout.boxes[layout.visible == 1, 2].mean() for layout in drawn if (layout.visible == 1).any()])
    assert shortest - 0.01 <= lengths.min() <= max(shortest + 3, length * length / longest)
    assert longest - 3 <= lengths.max() <= longest + 0.01


def test_oblique_images_are_mirrored_but_not_turned(oblique_lots):
    headings = np.array(sorted({round(float(t), 3) for lot in oblique_lots for t in lot.boxes[:, 4]}))
    headings = np.concatenate([headings, -headings])
    for layout in draws(ReuseSampler(oblique_lots, (256, 256)), 80):
        theta = layout.boxes[layout.visible == 1, 4]
        difference = np.abs((theta[:, None] - headings[None] + np.pi / 2) % np.pi - np.pi / 2)
        assert (difference.min(1, initial=9.0) < 2e-3).all()


def test_nadir_images_are_turned_by_any_angle(lots):
    headings = np.concatenate([lots[0].boxes[:1, 4]] * 2)
    layouts = draws(ReuseSampler(lots[:1], (256, 256), merge=0), 100)
    cars = [layout.boxes[(layout.labels == 1) & (layout.visible == 1), 4] for layout in layouts]
    turned = np.concatenate(cars)[:, None] - headings
    assert np.histogram(turned % np.pi, bins=6, range=(0, np.pi))[0].min() > 0


def test_persons_annotated_upright_stay_upright_while_cars_turn(lots):
    crowds = [
        replace(
            lot,
            boxes=np.concatenate([lot.boxes, [[200 + 50 * k, 60 + 3 * k, 14, 9, -np.pi / 2] for k in range(4)]]),
            labels=np.concatenate([lot.labels, [0] * 4]), difficult=None, visible=None,
        ) for lot in lots
    ]  # fmt: skip
    layouts = draws(ReuseSampler(crowds, (256, 256)), 150)
    boxes = np.concatenate([layout.boxes[(layout.labels == 0) & (layout.visible == 1)] for layout in layouts])
    assert len(boxes) > 20
    assert np.isin(boxes[:, 4], [0, np.float32(-np.pi / 2)]).all()
    assert np.ptp(np.concatenate([layout.boxes[layout.labels == 1, 4] for layout in layouts])) > 3


def test_parked_cars_stay_parallel_and_evenly_spaced(lots):
    rows = 0
    for layout in draws(ReuseSampler(lots, (256, 256), merge=0), 60):
        cars = layout.boxes[(layout.labels == 1) & (layout.visible == 1)]
        if len(cars) > 2:
            assert np.ptp(np.cos(2 * cars[:, 4])) < 1e-3
            pitch = np.hypot(*np.diff(cars[:, :2], axis=0).T)
            np.testing.assert_allclose(pitch / cars[:-1, 3], 2.6 / 1.9, rtol=1e-3)
            rows += 1
    assert rows > 20


def test_horizontal_boxes_stay_horizontal(lots):
    flat = [replace(lot, kind="hbb", boxes=lot.boxes * np.float32([1, 1, 1, 1, 0])) for lot in lots]
    swapped = 0
    for layout in draws(ReuseSampler(flat, (256, 256)), 60):
        assert np.isin(layout.boxes[:, 4], [0, np.float32(-np.pi / 2)]).all()
        swapped += (layout.boxes[:, 4] < 0).any()
    assert swapped > 5  # quarter turns do happen


def test_a_window_larger_than_the_real_layouts_shows_all_of_one(lots):
    layouts = draws(ReuseSampler(lots, (1024, 1024)), 20)
    assert all(layout.size == (1024, 1024) for layout in layouts)
    assert np.mean([len(layout) for layout in layouts]) > 5


def test_balance_reaches_the_stated_share(lots):
    def share(sampler):
        counts = sum(np.bincount(layout.labels, minlength=3) for layout in draws(sampler, 400, seed=5))
        return counts / counts.sum()

    assert share(ReuseSampler(lots, (256, 256)))[2] < 0.05
    assert share(ReuseSampler(lots, (256, 256), balance=0.2)).min() > 0.18
    assert share(ReuseSampler(lots, (256, 256), balance={"truck": 0.4}))[2] > 0.38


def test_balance_that_cannot_be_met_is_refused_in_one_sentence(lots):
    with pytest.raises(UserError, match=r"adds up to 1\.2"):
        ReuseSampler(lots, (256, 256), balance=0.4)
    with pytest.raises(UserError, match="unknown class 'boat'; choose from person, car, truck"):
        ReuseSampler(lots, (256, 256), balance={"boat": 0.1})
    with pytest.raises(UserError, match="no layout has an object of 'truck'"):
        ReuseSampler([lot for lot in lots if 2 not in lot.labels], (256, 256), balance=0.2)
    with pytest.raises(UserError, match="no layout has an object"):
        ReuseSampler([lots[0].select(np.zeros(len(lots[0]), bool))], (256, 256))


def test_real_overlaps_above_the_limit_are_removed(lots):
    doubled = [
        replace(lot, boxes=np.concatenate([lot.boxes, lot.boxes + 3]), labels=np.tile(lot.labels, 2), difficult=None,
                visible=None) for lot in lots
    ]  # fmt: skip
    worst = [
        max(
            np.triu(overlap(layout.boxes, layout.boxes), 1).max()
            for layout in draws(ReuseSampler(doubled, (256, 256), max_overlap=limit), 30)
        )
        for limit in (0.05, 1.0)
    ]
    assert worst[0] <= 0.05
    assert worst[1] > 0.5  # the rule is what does it


@pytest.mark.parametrize(
    "box",
    [[98, 98, 60, 60, 0], [50, 50, 500, 450, 0.2], [2, 99, 90, 20, 1.0]],
    ids=["beyond a corner", "huge", "turned"],
)
def test_bad_layouts_of_a_model_yield_a_window_with_an_object(box):
    """A box mostly outside its image, or larger than the window, is no error."""
    sampler = ReuseSampler([Layout([box], [0], ("car",), (100, 100))], (64, 64))
    for seed in range(60):
        assert len(sampler.sample(np.random.default_rng(seed))) == 1
