"""The layers that replace those of mmcv for CUDA only, against the same formulas written another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytestmark = pytest.mark.mmrotate


def riroi_by_hand(features: np.ndarray, roi: np.ndarray, size: int, samples: int, orientations: int) -> np.ndarray:
    """mmcv's riroi_align_rotated kernel, number by number. features (C, H, W), roi cx, cy, w, h, theta."""
    cx, cy, w, h, theta = map(float, roi)
    w, h = max(w, 1), max(h, 1)
    channels, height, width = features.shape
    turns = theta * orientations / (2 * math.pi)
    whole = math.floor(turns)
    out = np.zeros((channels, size, size))
    for c in range(channels):
        field, o = divmod(c, orientations)
        first = field * orientations + (o - whole) % orientations
        second = field * orientations + (o - whole + 1) % orientations
        for row in range(size):
            for column in range(size):
                for i in range(samples):
                    for j in range(samples):
                        v = -h / 2 + (row + (i + 0.5) / samples) * h / size
                        u = -w / 2 + (column + (j + 0.5) / samples) * w / size
                        x = cx + u * math.cos(theta) - v * math.sin(theta)
                        y = cy + u * math.sin(theta) + v * math.cos(theta)
                        a, b = (bilinear(features[k], x, y, width, height) for k in (first, second))
                        out[c, row, column] += ((1 - turns + whole) * a + (turns - whole) * b) / samples**2
    return out


def bilinear(plane: np.ndarray, x: float, y: float, width: int, height: int) -> float:
    x0, y0 = math.floor(x), math.floor(y)
    dx, dy = x - x0, y - y0
    return float(
        plane[y0, x0] * (1 - dx) * (1 - dy)
        + plane[y0, x0 + 1] * dx * (1 - dy)
        + plane[y0 + 1, x0] * (1 - dx) * dy
        + plane[y0 + 1, x0 + 1] * dx * dy
    )


@pytest.mark.parametrize("theta", [0.0, 0.3, -0.7, 1.2, math.pi / 4])
def test_rotation_invariant_roi_align_is_mmcvs_kernel(theta):
    import torch

    from dataengine.mmrotate.cpu_layers import RotationInvariantRoIAlign

    features = np.random.default_rng(0).normal(size=(16, 20, 20)).astype(np.float32)
    roi = np.float32([10, 9, 8, 5, theta])
    layer = RotationInvariantRoIAlign(3, 1.0, num_samples=2, num_orientations=8, clockwise=True)
    found = layer(torch.from_numpy(features)[None], torch.tensor([[0.0, *roi]]))[0].numpy()
    meant = riroi_by_hand(features, roi, 3, 2, 8)
    np.testing.assert_allclose(found, meant, atol=1e-4)
    if theta:
        other = riroi_by_hand(features, np.float32([10, 9, 8, 5, -theta]), 3, 2, 8)
        assert np.abs(found - other).max() > 0.1, "the control: another angle gives other features"


def test_roi_align_without_the_shift_of_orientations_differs():
    import torch
    from mmcv.ops import roi_align_rotated

    features = np.random.default_rng(0).normal(size=(16, 20, 20)).astype(np.float32)
    roi = torch.tensor([[0.0, 10, 9, 8, 5, 1.2]])
    plain = roi_align_rotated(torch.from_numpy(features)[None], roi, (3, 3), 1.0, 2, False, True)[0].numpy()
    assert np.abs(plain - riroi_by_hand(features, roi[0, 1:].numpy(), 3, 2, 8)).max() > 0.1


def corner_distance(box, other) -> float:
    """Mean over corners of |dx| + |dy|, for the best numbering, in units of the other's size."""

    def corners(b):
        cx, cy, w, h, t = map(float, b)
        ends = ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2))
        return [(cx + x * math.cos(t) - y * math.sin(t), cy + x * math.sin(t) + y * math.cos(t)) for x, y in ends]

    a, b = corners(box), corners(other)
    totals = [
        sum(abs(a[i][0] - b[(i + k) % 4][0]) + abs(a[i][1] - b[(i + k) % 4][1]) for i in range(4)) for k in range(4)
    ]
    return min(totals) / 4 / max(1, math.sqrt(other[2] * other[3]))


def test_corner_loss_is_the_distance_of_corners_at_the_best_numbering():
    import torch

    from dataengine.mmrotate.cpu_layers import CornerLoss

    rng = np.random.default_rng(0)
    boxes, targets = (
        np.column_stack([rng.uniform(0, 50, (20, 2)), rng.uniform(2, 30, (20, 2)), rng.uniform(-3, 3, 20)])
        for _ in range(2)
    )
    meant = np.mean([corner_distance(a, b) for a, b in zip(boxes, targets, strict=True)])
    assert float(CornerLoss(2.0)(torch.tensor(boxes), torch.tensor(targets))) == pytest.approx(2 * meant, rel=1e-5)


def test_corner_loss_sees_the_angle_of_a_square_which_a_gaussian_loss_does_not():
    import torch
    from mmrotate.models.losses import GDLoss

    from dataengine.mmrotate.cpu_layers import CornerLoss

    square = torch.tensor([[20.0, 20, 10, 10, 0.0]])
    turned = torch.tensor([[20.0, 20, 10, 10, math.pi / 4]])
    quarter = torch.tensor([[20.0, 20, 10, 10, math.pi / 2]])
    loss = CornerLoss()
    assert float(loss(turned, square)) > 0.2
    assert float(loss(quarter, square)) == pytest.approx(0, abs=1e-5)
    assert float(GDLoss("gwd")(turned, square)) == pytest.approx(float(GDLoss("gwd")(square, square)), abs=1e-3)
