from __future__ import annotations

import numpy as np
from toy_scenes import paint, random_layout

from dataengine.judge.controls import blur_objects


def test_a_blurred_object_keeps_its_colour_and_place_and_loses_its_shape():
    rng = np.random.default_rng(0)
    layout = random_layout(rng)
    image = paint(layout, rng)
    blots = blur_objects(image, layout).astype(int)
    y, x = np.mgrid[:96, :96] + 0.5
    points = np.stack([x.ravel(), y.ravel()], 1)
    inside, far = np.zeros(96 * 96, bool), np.ones(96 * 96, bool)
    for cx, cy, w, h, theta in layout.boxes:
        along = (points[:, 0] - cx) * np.cos(theta) + (points[:, 1] - cy) * np.sin(theta)
        across = -(points[:, 0] - cx) * np.sin(theta) + (points[:, 1] - cy) * np.cos(theta)
        inside |= (np.abs(along) < w / 2) & (np.abs(across) < h / 2)
        far &= (np.abs(along) > w / 2 + 6) | (np.abs(across) > h / 2 + 6)
    inside, far = inside.reshape(96, 96), far.reshape(96, 96)
    assert (blots[far] == image[far]).all()
    assert np.abs(blots[inside].mean(0) - image[inside].mean(0)).max() < 45
    before = np.abs(np.diff(image.astype(int), axis=1)).max(2)[:, :][inside[:, 1:]].max()
    after = np.abs(np.diff(blots, axis=1)).max(2)[inside[:, 1:]].max()
    assert after < 0.5 * before, "no edge is left as sharp as the object's own"


def test_an_empty_layout_changes_nothing():
    layout = random_layout(np.random.default_rng(1))
    image = paint(layout, np.random.default_rng(1))
    assert (blur_objects(image, layout.select(np.zeros(3, bool))) == image).all()
