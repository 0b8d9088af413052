"""Kinds of ground: clusters of colour and texture around places, learned from the training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.layout import Layout
from dataengine.layouts.constraints import whole
from dataengine.render.frame import covered
from dataengine.render.places import OBJECT_MARGIN_PX, RING_DISTANCES, TEXTURE_BLUR_PX, Appearance

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

KINDS = 5
SPOTS_A_SIDE = 6  # of the grid of places in an image
MIN_SPOT_PX = 16.0
LEARNED_IMAGES = 200
LIGHTNESS_STEP = 0.5  # standard deviations of lightness from the mean, beyond which a kind is dark or bright
GREY_CHROMA = 8  # of 8-bit CIE Lab; with less, a colour has no name
HUES = ("reddish", "yellowish", "greenish", "bluish")  # from the axis a of CIE Lab on, a quarter turn each


@dataclass(frozen=True)
class Grounds:
    """names: of the kinds, by number. clusters: of standardized surroundings. centre, spread: float64 (5,) of these."""

    names: tuple[str, ...]
    clusters: KMeans
    centre: np.ndarray
    spread: np.ndarray

    def kinds(self, image: np.ndarray, layout: Layout, boxes: np.ndarray) -> np.ndarray:
        """Number of the kind of ground around each of the boxes (N, 5), int64 (N,). image: uint8 (H, W, 3) RGB."""
        if not len(boxes):
            return np.zeros(0, np.int64)
        found = (surroundings(image, layout, boxes) - self.centre) / self.spread
        return self.clusters.predict(found).astype(np.int64)


def surroundings(image: np.ndarray, layout: Layout, boxes: np.ndarray) -> np.ndarray:
    """What is around boxes (N, 5), without labelled objects: float64 (N, 5), the mean lightness, a and b (8-bit CIE
    Lab), mean gradient and standard deviation of lightness; those of the image where objects hide the surroundings."""
    import cv2

    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    gradient = np.hypot(*(cv2.Sobel(lab[..., 0], cv2.CV_32F, *order) for order in ((1, 0), (0, 1))))
    ground = np.dstack([lab, cv2.GaussianBlur(gradient, (0, 0), TEXTURE_BLUR_PX)])
    grown = layout.boxes + np.float32([0, 0, 2 * OBJECT_MARGIN_PX, 2 * OBJECT_MARGIN_PX, 0])
    appearance = Appearance(ground, covered(grown, image.shape))
    rings = appearance.around(boxes).reshape(len(boxes), len(RING_DISTANCES), 9)[:, :2]  # means, spreads, hidden share
    with np.errstate(invalid="ignore"):
        seen = ~np.isnan(rings[..., :5])
        mean = np.where(seen, rings[..., :5], 0).sum(1, dtype=np.float64) / seen.sum(1)
    whole_image = np.array([*ground.reshape(-1, 4).mean(0), lab[..., 0].std()])
    return np.where(np.isnan(mean), whole_image, mean)


def grid(layout: Layout) -> np.ndarray:
    """Places all over an image, on none of its whole objects: boxes float32 (N, 5) as large as its usual object."""
    from dataengine.geometry import intersection

    side = max(MIN_SPOT_PX, float(np.median(layout.boxes[:, 2]))) if len(layout) else MIN_SPOT_PX
    x, y = ((np.arange(SPOTS_A_SIDE) + 0.5) * length / SPOTS_A_SIDE for length in layout.size)
    centres = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    boxes = np.column_stack([centres, np.full((len(centres), 2), side), np.zeros(len(centres))]).astype(np.float32)
    taken = np.concatenate([layout.boxes, layout.ignored])
    return boxes[~(intersection(boxes, taken) > 0).any(1)] if len(taken) else boxes


def learn_grounds(images: Sequence[Callable[[], np.ndarray]], layouts: Sequence[Layout], seed: int = 0) -> Grounds:
    """Kinds of ground of these images, at most LEARNED_IMAGES of them: around their objects and on a grid.

    images: functions that load uint8 (H, W, 3) RGB. Names say how a kind looks; equal ones get a number.

    >>> rng = np.random.default_rng(0)
    >>> dark, bright = (rng.normal(mean, 3, (96, 96, 3)).clip(0, 255).astype(np.uint8) for mean in (40, 220))
    >>> empty = Layout([], [], ("car",), (96, 96))
    >>> grounds = learn_grounds([lambda: dark, lambda: bright], [empty, empty])
    >>> {grounds.names[k].split(",")[0] for k in grounds.kinds(bright, empty, grid(empty))}
    {'bright'}
    """
    from sklearn.cluster import KMeans

    chosen = np.random.default_rng(seed).permutation(len(images))[:LEARNED_IMAGES]
    places = []
    for i in chosen:
        boxes = np.concatenate([layouts[i].boxes[whole(layouts[i])], grid(layouts[i])])
        if len(boxes):
            places.append(surroundings(images[i](), layouts[i], boxes))
    features = np.concatenate(places)
    centre, spread = features.mean(0), np.maximum(features.std(0), 1e-6)
    count = min(KINDS, len(np.unique(features, axis=0)))
    clusters = KMeans(count, n_init=4, random_state=seed).fit((features - centre) / spread)
    return Grounds(_names(clusters.cluster_centers_, centre, spread), clusters, centre, spread)


def _names(standardized: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> tuple[str, ...]:
    """A name for each kind, from its standardized surroundings (K, 5): how light, of which colour and how rough it is,
    the first and the last next to the other kinds."""
    names: list[str] = []
    centres = standardized * spread + centre
    for lightness, (_, a, b, gradient, _) in zip(standardized[:, 0], centres, strict=True):
        light = "dark" if lightness < -LIGHTNESS_STEP else "bright" if lightness > LIGHTNESS_STEP else "medium"
        quarter = round(float(np.arctan2(b - 128, a - 128) / (np.pi / 2))) % 4
        colour = "grey" if np.hypot(a - 128, b - 128) < GREY_CHROMA else HUES[quarter]
        texture = "smooth" if gradient <= np.median(centres[:, 3]) else "rough"
        name = f"{light}, {colour}, {texture}"
        same = sum(other.partition(" (")[0] == name for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return tuple(names)
