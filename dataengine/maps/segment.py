"""Coarse groups of the ground from an image alone, by colour, texture, size and form: a map for images that have none.

It is a rule of thumb, not a trained segmentation. Smoothed colours are clustered, and each connected area of a cluster
is judged as a whole; what the rule cannot tell stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

GROUPS = ("vegetation", "water", "paved", "building", "bare")
UNKNOWN = 0
VEGETATION, WATER, PAVED, BUILDING, BARE = range(1, len(GROUPS) + 1)
CLUSTERS, TEXTURE_WEIGHT = 6, 2.0
TEXTURE_PX, MEDIAN_PX, MIN_AREA_PX, FILLED_PX = 5, 5, 60, 6
# CIELAB: lightness 0 to 100; a from green to red, b from blue to yellow
LEAST_GREEN, GREEN_PER_LIGHTNESS, GREEN_B = 2.5, 0.05, 3.0
DARK_GREEN_A, DARK_LIGHTNESS, ROUGH = -2.0, 42.0, 4.0
BLUE_B, POOL_A, POOL_B = -5.0, -8.0, -8.0
SOIL_B, BRICK_A = 10.5, 9.0
ROOF_LIGHTNESS, ROOF_CONTRAST = 68.0, 12.0
ROOF_M2, MIN_RECTANGULARITY, MAX_ROOF_ELONGATION = (40.0, 6000.0), 0.6, 4.0
HOUSE_M2, HOUSE_RECTANGULARITY = 400.0, 0.7
MIN_PAVED_M2, MIN_LANE_ELONGATION = 400.0, 3.0
# thermal, in shares of the range of an image's grey (2nd to 98th percentile)
COOLER_THAN_PAVED, COLD, FOLIAGE_TEXTURE, FLAT_TEXTURE = 0.16, 0.25, 0.09, 0.05
MIN_SPAN, COLD_RECTANGULARITY = 20.0, 0.75


@dataclass(frozen=True)
class Area:
    """A connected area. colour: mean of CIELAB. texture: mean spread of lightness. rectangularity: share of the least
    rectangle around it that it fills. elongation: of that rectangle, or, for a band that bends, length by width."""

    pixels: np.ndarray
    colour: np.ndarray
    texture: float
    size_m2: float
    rectangularity: float
    elongation: float


def segment(
    image: np.ndarray,
    gsd_m: float,
    thermal: bool = False,
    stood_on: np.ndarray | None = None,
    objects: np.ndarray | None = None,
) -> np.ndarray:
    """Groups uint8 (H, W) of an image uint8 (H, W, 3): UNKNOWN, or the number of a name in GROUPS, from 1 on.

    gsd_m: metres per pixel. thermal: grey is heat, and there is no colour. stood_on: bool (H, W), ground next to
    vehicles, which a thermal image is compared with; the largest flat area if None. objects: bool (H, W), pixels of
    objects, which take the group around them.

    >>> image = np.full((64, 64, 3), 128, np.uint8)
    >>> image[:, 40:] = (60, 140, 50)
    >>> groups = segment(image, 1.0)
    >>> GROUPS[groups[20, 10] - 1], GROUPS[groups[20, 60] - 1]
    ('paved', 'vegetation')
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    mean = cv2.blur(lab[..., 0], (TEXTURE_PX, TEXTURE_PX))
    texture = np.sqrt(np.maximum(cv2.blur(lab[..., 0] ** 2, (TEXTURE_PX, TEXTURE_PX)) - mean**2, 0))
    areas = list(_areas(image, lab, texture, gsd_m))
    groups, judged = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], bool)
    group_of = _of_heat(areas, lab[..., 0], stood_on) if thermal else _of_colour(lab[..., 0])
    for area in areas:
        groups[area.pixels], judged[area.pixels] = group_of(area), True
    if objects is not None:
        judged &= ~objects
    reach = np.where(objects, np.inf, FILLED_PX) if objects is not None else np.float64(FILLED_PX)
    return filled(groups, judged, reach)


def filled(groups: np.ndarray, judged: np.ndarray, reach_px: np.ndarray) -> np.ndarray:
    """Groups (H, W), with that of the nearest judged pixel where none is judged, up to `reach_px`, one or (H, W), away;
    farther ones are unknown."""
    if judged.all() or not judged.any():
        return groups
    away, labels = cv2.distanceTransformWithLabels(
        (~judged).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(labels.max() + 1, np.uint8)
    of_label[labels[judged]] = groups[judged]
    return np.where(away <= reach_px, of_label[labels], UNKNOWN).astype(np.uint8)


def _areas(image: np.ndarray, lab: np.ndarray, texture: np.ndarray, gsd_m: float) -> Iterator[Area]:
    smooth = cv2.bilateralFilter(lab, 7, 12, 4)
    features = np.dstack([smooth, TEXTURE_WEIGHT * cv2.blur(texture, (TEXTURE_PX, TEXTURE_PX))]).reshape(-1, 4)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
    _, labels, _ = cv2.kmeans(features.astype(np.float32), CLUSTERS, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    clusters = cv2.medianBlur(labels.reshape(image.shape[:2]).astype(np.uint8), MEDIAN_PX)
    for cluster in range(CLUSTERS):
        n, parts = cv2.connectedComponents((clusters == cluster).astype(np.uint8), connectivity=4)
        for part in range(1, n):
            pixels = parts == part
            count = int(pixels.sum())
            if count < MIN_AREA_PX:
                continue
            points = cv2.findNonZero(pixels.astype(np.uint8))
            sides = np.maximum(cv2.minAreaRect(points)[1], 1) + 1
            depth = float(cv2.distanceTransform(np.pad(pixels.astype(np.uint8), 1), cv2.DIST_L2, 3).max())
            elongation = max(max(sides) / min(sides), count / (2 * depth) ** 2)
            yield Area(
                pixels, lab[pixels].mean(0), float(texture[pixels].mean()), count * gsd_m**2,
                count / float(np.prod(sides)), elongation,
            )  # fmt: skip


def _of_colour(light: np.ndarray) -> Callable[[Area], int]:
    roof_lightness = max(ROOF_LIGHTNESS, float(np.median(light)) + ROOF_CONTRAST)

    def group(area: Area) -> int:
        lightness, a, b = area.colour
        green = -a >= LEAST_GREEN + GREEN_PER_LIGHTNESS * lightness and b >= GREEN_B
        if green or (a <= DARK_GREEN_A and lightness <= DARK_LIGHTNESS and area.texture >= ROUGH):
            return VEGETATION
        if (a <= POOL_A and b <= POOL_B) or (b <= BLUE_B and lightness <= DARK_LIGHTNESS and area.texture < ROUGH):
            return WATER
        compact = area.elongation <= MAX_ROOF_ELONGATION and area.rectangularity >= MIN_RECTANGULARITY
        if compact and ROOF_M2[0] <= area.size_m2 <= ROOF_M2[1]:
            house = area.size_m2 <= HOUSE_M2 and area.rectangularity >= HOUSE_RECTANGULARITY and area.texture < ROUGH
            if lightness >= roof_lightness or a >= BRICK_A or house:
                return BUILDING
        if b >= SOIL_B:
            return BARE
        large = area.size_m2 >= MIN_PAVED_M2 or area.elongation >= MIN_LANE_ELONGATION
        return PAVED if large and lightness < roof_lightness else UNKNOWN

    return group


def _of_heat(areas: list[Area], light: np.ndarray, stood_on: np.ndarray | None) -> Callable[[Area], int]:
    low, high = (float(value) for value in np.percentile(light, (2, 98)))
    span = max(high - low, MIN_SPAN)
    flat = [area for area in areas if area.texture < FLAT_TEXTURE * span]
    if stood_on is not None and stood_on.any():
        warm = float(np.median(light[stood_on]))
    else:
        warm = float(max(flat, key=lambda area: area.size_m2).colour[0]) if flat else float(np.median(light))

    def group(area: Area) -> int:
        lightness = float(area.colour[0])
        if area.texture >= FOLIAGE_TEXTURE * span:
            return VEGETATION
        if lightness >= warm - COOLER_THAN_PAVED * span:
            return PAVED
        flat = area.texture < FLAT_TEXTURE * span
        if flat and lightness <= low + COLD * span and area.rectangularity >= COLD_RECTANGULARITY:
            return BUILDING
        return VEGETATION

    return group
