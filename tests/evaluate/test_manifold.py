"""Precision, recall, density and coverage against loops; Vendi score against a kernel's eigenvalues."""

import numpy as np
import pytest

from dataengine.evaluate.manifold import manifold, mean_pairwise_distance, nearest, vendi_score


def by_loops(real, generated, k):
    """The definitions, one pair at a time."""

    def reach(points, i):
        return sorted(np.sqrt(((points[i] - p) ** 2).sum()) for j, p in enumerate(points) if j != i)[k - 1]

    def apart(x, y):
        return np.sqrt(((x - y) ** 2).sum())

    real_reach = [reach(real, i) for i in range(len(real))]
    made_reach = [reach(generated, i) for i in range(len(generated))]
    precision = np.mean([any(apart(x, y) <= real_reach[j] for j, y in enumerate(real)) for x in generated])
    recall = np.mean([any(apart(x, y) <= made_reach[j] for j, y in enumerate(generated)) for x in real])
    density = np.mean([sum(apart(x, y) <= real_reach[j] for j, y in enumerate(real)) / k for x in generated])
    coverage = np.mean([any(apart(x, y) <= real_reach[i] for y in generated) for i, x in enumerate(real)])
    return precision, recall, density, coverage


@pytest.mark.parametrize(("shift", "k"), [(0.0, 3), (0.8, 3), (0.8, 5), (5.0, 3)])
def test_agrees_with_the_definitions_one_pair_at_a_time(shift, k):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) + shift
    found = manifold(real, generated, k)
    expected = by_loops(real, generated, k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)


def test_a_generator_of_few_images_has_precision_but_no_recall():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(2, 200, 4))
    narrow = 0.1 * rng.normal(size=(200, 4))
    assert manifold(real, narrow).precision == 1.0
    assert manifold(real, narrow).recall < 0.1 < 0.7 < manifold(real, other).recall
    assert manifold(real, narrow).coverage < 0.3 < 0.8 < manifold(real, other).coverage


def test_an_outlier_among_real_images_lifts_precision_more_than_density():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(100, 2)), [[40.0, 0.0]]])
    generated = rng.normal((25.0, 0.0), size=(50, 2))
    assert manifold(real, generated).precision > 0.9
    assert manifold(real, generated).density < 0.3


def test_vendi_score_is_the_exponential_of_the_kernels_entropy():
    x = np.random.default_rng(0).normal(size=(12, 5))
    kernel = np.array([[a @ b / np.sqrt(a @ a * (b @ b)) for b in x] for a in x]) / 12
    values = np.linalg.eigvalsh(kernel)
    values = values[values > 1e-12]
    assert vendi_score(x) == pytest.approx(np.exp(-(values * np.log(values)).sum()))


def test_vendi_score_counts_images_that_have_nothing_in_common():
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(7)[:3], 5, axis=0)) == pytest.approx(3)
    assert vendi_score(np.ones((9, 4))) == pytest.approx(1)


def test_mean_pairwise_distance_is_that_of_all_pairs():
    x = np.random.default_rng(0).normal(size=(9, 4))
    pairs = [1 - a @ b / np.sqrt(a @ a * (b @ b)) for i, a in enumerate(x) for b in x[i + 1 :]]
    assert mean_pairwise_distance(x) == pytest.approx(np.mean(pairs))


def test_nearest_finds_the_nearest():
    rng = np.random.default_rng(0)
    queries, targets = rng.normal(size=(300, 3)), rng.normal(size=(50, 3))
    distances, indices = nearest(queries, targets)
    for query, distance, index in zip(queries, distances, indices, strict=True):
        every = np.sqrt(((targets - query) ** 2).sum(1))
        assert distance == pytest.approx(every.min())
        assert index == every.argmin()
