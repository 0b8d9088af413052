"""Re-rendering: what the thumbnail's change becomes in the picture."""

from __future__ import annotations

import cv2
import numpy as np

from dataengine.render.rerender import along_edges

SIZE, RATIO = 96, 8


def square(low: float, high: float) -> np.ndarray:
    """A square of one level on ground of another, off the grid of thumbnail pixels, (SIZE, SIZE, 3)."""
    image = np.full((SIZE, SIZE, 3), low, np.float32)
    image[29:67, 37:75] = high
    return image


def coarse(change: np.ndarray) -> np.ndarray:
    """A change as a thumbnail can say it."""
    small = cv2.resize(change, (SIZE // RATIO, SIZE // RATIO), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - wanted).mean()))


def test_the_change_of_an_object_ends_at_its_edge():
    """A warm square becomes a cold one. Controls: the change as it is, and along the edges of another picture."""
    change, picture = square(0, -60), square(90, 130).astype(np.uint8)
    own = error(along_edges(coarse(change), picture), change)
    assert own < 0.8 * error(coarse(change), change)
    assert own < 0.8 * error(along_edges(coarse(change), picture[::-1, ::-1]), change)


def test_noise_of_the_picture_makes_no_edge():
    rng = np.random.default_rng(0)
    picture = (100 + rng.normal(0, 2, (SIZE, SIZE, 1)).repeat(3, 2)).astype(np.uint8)
    change = coarse(square(0, -60))
    smooth = along_edges(change, np.full_like(picture, 100))
    assert error(along_edges(change, picture), smooth) < 2
    assert np.allclose(along_edges(np.full_like(change, 7), picture), 7, atol=1e-3), "an even change stays even"
