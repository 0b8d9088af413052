"""What a place in an image is like: size, crowding, acquisition and ground, by names that groups of objects share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.evaluate.layout_score import SIZES
from dataengine.improve.grounds import Grounds

ACQUISITION = {"altitude_m": "altitude, m", "gsd_m": "GSD, m", "camera_angle_deg": "camera angle, degrees"}
MAX_VALUES = 4  # of an acquisition field; more are grouped by thirds
TOUCHING, APART = "touching", "apart"


@dataclass(frozen=True)
class Aspects:
    """grounds: kinds of ground. edges: for each field of ACQUISITION that is known, the values in ascending order that
    begin a range."""

    grounds: Grounds
    edges: dict[str, tuple[float, ...]]

    def of(self, image: np.ndarray, layout: Layout, boxes: np.ndarray, names: Sequence[str]) -> list[dict[str, str]]:
        """For each of the boxes (N, 5), with its class names: {aspect: name of its group}.

        image: uint8 (H, W, 3) RGB. layout: of the image. A box that intersects another one, or a labelled object other
        than itself, is touching.
        """
        shared = self.of_image(layout.acquisition)
        areas, kinds = geometry.area(boxes), self.grounds.kinds(image, layout, boxes)
        others = np.concatenate([boxes, layout.boxes])
        same = (boxes[:, None] == others[None]).all(2)
        touching = ((geometry.intersection(boxes, others) > 0) & ~same).any(1) if len(boxes) else np.zeros(0, bool)
        return [
            {
                "class": name,
                "size": f"{name}, {next(size for size, (low, high) in SIZES.items() if low <= area < high)}",
                "crowding": TOUCHING if touches else APART,
                **shared,
                "ground": self.grounds.names[kind],
            }
            for name, area, touches, kind in zip(names, areas, touching, kinds, strict=True)
        ]

    def of_image(self, acquisition: Acquisition) -> dict[str, str]:
        """{aspect: name of its group} of an image, for what is known of its acquisition."""
        found = {}
        if acquisition.night is not None:
            found["light"] = "night" if acquisition.night else "day"
        for field, starts in self.edges.items():
            value = getattr(acquisition, field)
            if value is not None:
                i = max(0, int(np.searchsorted(starts, value, "right")) - 1)
                found[ACQUISITION[field]] = f"from {starts[i]:g}" if i + 1 == len(starts) else _range(starts, i)
        return found


def _range(starts: Sequence[float], i: int) -> str:
    return f"{starts[i]:g} to below {starts[i + 1]:g}"


def learn_aspects(layouts: Sequence[Layout], grounds: Grounds) -> Aspects:
    """The groups that these layouts fall into; fields of the acquisition that have one value at most are left out."""
    edges = {}
    for field in ACQUISITION:
        values = np.array([v for layout in layouts if (v := getattr(layout.acquisition, field)) is not None])
        distinct = np.unique(values)
        if len(distinct) > MAX_VALUES:
            distinct = np.unique(np.quantile(values, [0, 1 / 3, 2 / 3], method="nearest"))
        if len(distinct) > 1:
            edges[field] = tuple(distinct.tolist())
    return Aspects(grounds, edges)
