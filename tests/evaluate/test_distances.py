"""Distances against SciPy's matrix square root, torchmetrics, and sums written out as loops."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance

from dataengine.evaluate.distances import frechet, gaussian_discrepancy, kernel_distance


def sets(n, m, width, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width))
    return rng.normal(size=(n, width)) @ mix, rng.normal(size=(m, width)) @ mix * 1.3 + shift


@pytest.mark.parametrize(("n", "m", "width"), [(60, 80, 8), (200, 150, 40), (12, 30, 20)])
def test_frechet_agrees_with_scipys_matrix_square_root(n, m, width):
    a, b = sets(n, m, width)
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_agrees_with_torchmetrics():
    class Given(torch.nn.Module):
        num_features = 16

        def forward(self, embeddings):
            return embeddings

    a, b = sets(100, 90, 16)
    metric = FrechetInceptionDistance(feature=Given())
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert frechet(a, b) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_of_fewer_images_than_numbers_is_exact():
    """Two sets in a plane of a wide space: the distance is that within the plane."""
    a, b = sets(9, 11, 2)
    plane = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 2)))[0]
    assert frechet(a @ plane.T, b @ plane.T) == pytest.approx(frechet(a, b), rel=1e-9)


def test_kernel_distance_agrees_with_the_sum_written_out():
    a, b = sets(7, 7, 5)

    def kernel(x, y):
        return (x @ y / 5 + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    within = sum(kernel(x[i], x[j]) for x in (a, b) for i, j in pairs) / (7 * 6)
    between = sum(kernel(x, y) for x in a for y in b) / 49
    assert kernel_distance(a, b) == pytest.approx(within - 2 * between)


def test_gaussian_discrepancy_agrees_with_the_sum_written_out():
    a, b = sets(6, 9, 4)

    def mean_kernel(first, second):
        found = []
        for x in first:
            for y in second:
                x_unit, y_unit = x / np.sqrt((x**2).sum()), y / np.sqrt((y**2).sum())
                found.append(np.exp(-((x_unit - y_unit) ** 2).sum() / 200))
        return np.mean(found)

    expected = 1000 * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b))
    assert gaussian_discrepancy(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("distance", [frechet, kernel_distance, gaussian_discrepancy])
def test_sets_of_one_kind_are_near_and_of_two_kinds_far(distance):
    a, b = sets(200, 200, 6, shift=3.0)
    assert distance(a[:100], a[100:]) < 0.1 * distance(a[:100], b[100:])


@pytest.mark.parametrize("distance", [frechet, gaussian_discrepancy])
def test_a_set_is_at_no_distance_from_itself(distance):
    a, _ = sets(30, 30, 6)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)
