"""Layouts from typical sizes: plausible, apart, inside the image, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine import geometry
from dataengine.data.layout import model_key
from dataengine.data.presets import load_preset
from dataengine.errors import UserError
from dataengine.layouts.typical import GSD_M, SIDE_PX, known_classes, typical_layouts, typical_objects


@pytest.fixture(scope="module")
def layouts() -> list:
    return typical_layouts(load_preset("dior-r").classes, n=200)


def test_every_class_of_dior_is_known_and_the_main_one_of_as_many_layouts(layouts):
    classes = load_preset("dior-r").classes
    assert known_classes(classes) == classes
    assert [layout.labels[0] for layout in layouts[:40]] == [*range(20)] * 2
    assert known_classes(load_preset("dota-v1.0").classes) == (
        "plane", "bridge", "ground-track-field", "ship", "tennis-court", "basketball-court", "storage-tank", "harbor",
    )  # fmt: skip


def test_objects_have_their_sizes_lie_inside_and_keep_apart(layouts):
    for layout in layouts:
        gsd = layout.acquisition.gsd_m
        assert GSD_M[0] <= gsd <= GSD_M[1]
        for name, (_, _, w, h, _) in zip(layout.names(), layout.boxes, strict=True):
            kind = typical_objects()[model_key(name)]
            assert kind.length[0] * 0.999 <= w * gsd <= kind.length[1] * 1.001
            assert kind.aspect[0] * 0.999 <= w / h <= kind.aspect[1] * 1.001
        corners = geometry.to_corners(layout.boxes)
        assert corners.min() >= -0.01
        assert corners.max() <= SIDE_PX + 0.01
        shared = geometry.intersection(layout.boxes, layout.boxes)
        assert (shared[~np.eye(len(layout), dtype=bool)] < 1).all()
    assert len({round(float(theta), 2) for layout in layouts for theta in layout.boxes[:, 4]}) > 100, "rotated boxes"


def test_the_same_classes_give_the_same_layouts_and_unknown_ones_are_refused():
    first, again = (typical_layouts(("ship", "dam"), n=6) for _ in range(2))
    assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(first, again, strict=True))
    assert len({len(layout) for layout in first}) > 1
    with pytest.raises(UserError, match="no typical size is known of unicorn"):
        typical_layouts(("ship", "unicorn"))
