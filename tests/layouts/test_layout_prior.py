"""Fitting a prior and growing layouts from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from test_layout_constraints import polygon
from test_layout_reuse import draws

from dataengine.errors import UserError
from dataengine.layouts.growth import grow_order, stepped, steps
from dataengine.layouts.prior import Prior, at, quantiles
from dataengine.layouts.prior_fit import fit
from dataengine.layouts.prior_sampler import PriorSampler


@pytest.fixture(scope="module")
def prior(lots):
    return fit(lots, (256, 256), name="lots")


def test_a_layout_grows_from_neighbour_to_neighbour():
    boxes = np.array([[x, 0, 4, 2, 0] for x in (0, 50, 10, 30, 22)])
    order, joined = grow_order(boxes)
    assert order.tolist() == [0, 2, 4, 3, 1]
    assert joined.tolist() == [0, 0, 1, 2, 3]


def test_the_minimum_spanning_tree_is_scipys():
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    boxes = np.random.default_rng(0).uniform(0, 100, (30, 5))
    order, joined = grow_order(boxes)
    distance = cdist(boxes[:, :2], boxes[:, :2])
    total = distance[order[1:], order[joined[1:]]].sum()
    assert total == pytest.approx(minimum_spanning_tree(distance).sum())


def test_a_step_read_from_two_boxes_leads_from_the_one_to_the_other():
    rng = np.random.default_rng(1)
    parents, children = (
        np.column_stack(
            [rng.uniform(0, 99, (50, 2)), rng.uniform(9, 20, 50), rng.uniform(2, 9, 50), rng.uniform(-1, 1, 50)]
        )
        for _ in range(2)
    )
    found = steps(parents, children)
    reached = [
        stepped(parents, children, found[:, :2], np.tile(signs, (50, 1)))
        for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1])
    ]
    distance = np.min([np.hypot(*(centre - children[:, :2]).T) for centre in reached], axis=0)
    np.testing.assert_allclose(distance, 0, atol=1e-9)


def test_touching_parallel_boxes_are_one_step_apart():
    found = steps(np.array([[0, 0, 4, 2, 0.3]]), np.array([[-2 * np.sin(0.3), 2 * np.cos(0.3), 4, 2, 0.3]]))
    np.testing.assert_allclose(found, [[0, 1, 0]], atol=1e-9)


def test_the_file_is_small_and_readable_and_round_trips(prior, tmp_path):
    prior.save(tmp_path / "prior.json")
    assert Prior.load(tmp_path / "prior.json") == prior
    text = (tmp_path / "prior.json").read_text()
    assert len(text) < 100_000
    assert max(len(line) for line in text.splitlines()) < 300
    assert json.loads(text)["classes"] == ["person", "car", "truck"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("scenes"), "scenes: Field required"),
        (lambda d: d["objects"]["car"].update(cut=1.5), "objects.car.cut: .*less than or equal to 1"),
        (lambda d: d["objects"]["car"].update(overlap=[0.5, 0.1]), "objects.car.overlap: .*must not decrease"),
        (lambda d: d["objects"].pop("car"), "'car' is used but not described"),
        (lambda d: d["scenes"][0].update(taken={"999": 1}), "an acquisition that is not in the list"),
    ],
)
def test_a_broken_prior_is_refused_with_its_field(prior, tmp_path, change, message):
    content = json.loads(prior.model_dump_json(exclude_none=True))
    change(content)
    (tmp_path / "prior.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        Prior.load(tmp_path / "prior.json")


def test_a_missing_or_unwritable_prior_is_one_sentence(prior, tmp_path):
    with pytest.raises(UserError, match="does not exist; fit a prior with"):
        Prior.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="could not be written"):
        prior.save(tmp_path / "no" / "folder.json")


def test_quantiles_are_numpys_and_interpolated_linearly():
    values = np.random.default_rng(0).normal(size=5000)
    found = quantiles(values, 11)
    np.testing.assert_allclose(found, np.quantile(values, np.linspace(0, 1, 11)), rtol=1e-3)
    assert at(found, 0.55) == pytest.approx((found[5] + found[6]) / 2)


def test_fitting_is_repeatable_and_needs_objects(lots, prior):
    assert fit(lots, (256, 256), name="lots") == prior
    with pytest.raises(UserError, match="no layout has an object"):
        fit([lots[0].select(np.zeros(len(lots[0]), bool))])


def test_a_grown_layout_depends_on_its_generator_alone(prior):
    expected = draws(PriorSampler(prior), 15)
    other = PriorSampler(prior)
    for i in reversed(range(15)):
        other.sample(np.random.default_rng(99))
        again = other.sample(np.random.default_rng((0, i)))
        np.testing.assert_array_equal(again.boxes, expected[i].boxes)
        assert again.acquisition == expected[i].acquisition


def test_grown_boxes_do_not_overlap_where_real_ones_do_not(prior):
    for layout in draws(PriorSampler(prior), 150):
        shapes = [polygon(box) for box in layout.boxes]
        for i, shape in enumerate(shapes):
            assert all(shape.intersection(other).area < 0.015 * shape.area for other in shapes[:i])


def test_without_the_overlap_rule_grown_boxes_do_overlap(prior, monkeypatch):
    monkeypatch.setattr("dataengine.layouts.prior_sampler.overlap", lambda a, b: np.zeros((len(a), len(b))))
    monkeypatch.setattr("dataengine.layouts.prior_sampler.apart", lambda boxes, limit: np.ones(len(boxes), bool))
    covered = 0.0
    for layout in draws(PriorSampler(prior), 60):
        shapes = [polygon(box) for box in layout.boxes]
        covered += sum(shape.area for shape in shapes) - shapely.union_all(shapes).area
    assert covered > 100


def test_grown_boxes_are_inside_or_cut_as_often_as_real_ones(prior):
    layouts = draws(PriorSampler(prior), 300)
    visible = np.concatenate([layout.visible for layout in layouts])
    labels = np.concatenate([layout.labels for layout in layouts])
    assert ((visible >= 0.3) & (visible <= 1)).all()
    assert (visible[labels == 1] < 1).mean() == pytest.approx(prior.objects["car"].cut, abs=0.06)
    for layout in layouts:
        frame = shapely.box(-1, -1, 257, 257)
        for box, share in zip(layout.boxes, layout.visible, strict=True):
            inside = frame.intersection(polygon(box)).area / polygon(box).area
            assert inside > (0.999 if share == 1 else 0.49)  # around a cut corner a rectangle is half empty


def test_parked_cars_are_parallel_and_in_rows(prior):
    difference, pitch = [], []
    for layout in draws(PriorSampler(prior), 150):
        cars = layout.boxes[(layout.labels == 1) & (layout.visible == 1)]
        if len(cars) > 2:
            apart = np.hypot(cars[:, None, 0] - cars[None, :, 0], cars[:, None, 1] - cars[None, :, 1])
            np.fill_diagonal(apart, np.inf)
            nearest = apart.argmin(1)
            difference.append(np.abs(np.sin(cars[:, 4] - cars[nearest, 4])))
            pitch.append(apart.min(1) / cars[:, 3])
    assert np.median(np.concatenate(difference)) < 0.02
    assert np.median(np.concatenate(pitch)) == pytest.approx(2.6 / 1.9, rel=0.05)


def test_grown_sizes_agree_with_the_altitude(prior):
    """Contract 2: 4.6 x 1.9 units at 600 / altitude pixels a unit."""
    seen = set()
    for layout in draws(PriorSampler(prior), 200):
        cars = layout.boxes[(layout.labels == 1) & (layout.visible == 1)]
        side = np.sqrt(cars[:, 2] * cars[:, 3]) * layout.acquisition.altitude_m / 600
        np.testing.assert_allclose(side, np.sqrt(4.6 * 1.9), rtol=0.05)
        seen.add(layout.acquisition.altitude_m)
    assert seen == {60, 80, 100}


def test_a_known_ground_sample_distance_sets_the_size(lots):
    from dataengine.data.layout import Acquisition

    known = [replace(lot, acquisition=Acquisition(gsd_m=lot.acquisition.altitude_m / 600)) for lot in lots]
    for layout in draws(PriorSampler(fit(known)), 100):
        cars = layout.boxes[(layout.labels == 1) & (layout.visible == 1)]
        side = np.sqrt(cars[:, 2] * cars[:, 3]) * layout.acquisition.gsd_m
        np.testing.assert_allclose(side, np.sqrt(4.6 * 1.9), rtol=0.06)


def test_horizontal_priors_grow_horizontal_boxes(lots):
    flat = [replace(lot, kind="hbb", boxes=lot.boxes * np.float32([1, 1, 1, 1, 0])) for lot in lots]
    for layout in draws(PriorSampler(fit(flat)), 60):
        assert layout.kind == "hbb"
        assert np.isin(layout.boxes[:, 4], [0, np.float32(-np.pi / 2)]).all()


def test_balance_raises_grown_rare_classes_to_the_stated_share(prior):
    def share(sampler):
        counts = sum(np.bincount(layout.labels, minlength=3) for layout in draws(sampler, 300, seed=5))
        return counts / counts.sum()

    assert share(PriorSampler(prior))[2] < 0.05
    assert share(PriorSampler(prior, balance={"truck": 0.2}))[2] > 0.18
    with pytest.raises(UserError, match="share from 0 to below 1"):
        PriorSampler(prior, balance=1.0)


def test_a_larger_image_has_as_many_more_objects(prior):
    small, large = (
        np.mean([len(layout) for layout in draws(PriorSampler(prior, size), 80)]) for size in ((256, 256), (512, 512))
    )
    assert 3 < large / small < 4.5


def test_an_impossible_size_ends_with_one_object(prior):
    """Cars do not fit into 24 pixels: the sampler uses up its trials and yields what fits."""
    for layout in draws(PriorSampler(prior, (24, 24)), 20):
        assert len(layout) <= 2
