"""Copies of parts of training images, also cut out elsewhere, mirrored, turned, scaled or lit differently.

Local features (SIFT, Lowe 2004, as RootSIFT, Arandjelovic and Zisserman 2012) of an image are matched with those of all
training images, and matches that agree on one similarity transform are counted (RANSAC). Embeddings of whole windows,
as in `memorisation`, miss copies whose window was cut or turned in another way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from dataengine.evaluate.results import Column, Result, Row, bootstrap

WINDOW_AREA = 256 * 256  # pixels
POINTS_PER_WINDOW = 300  # local features compared for each area of a window
SEARCHED_POINTS = 200  # the strongest of a window of a training image, among which candidates are searched
N_CANDIDATES = 4  # training images compared in full with each image
MAX_DISTANCE_RATIO = 0.85  # of the nearest to the second nearest feature; Lowe's test
MAX_RESIDUAL_PX = 3.0
SCALES = (0.3, 3.3)  # of a copy
MIN_AGREEING = 10  # matches; unrelated images have fewer
MIN_SHARE = 0.05  # of an image's points that must agree at least
FALSE_ALARMS = 0.02  # of held-out images
MIN_RECALL = 0.95  # of planted copies; a check that finds fewer says nothing
N_RESAMPLES = 1000
DESCRIPTOR_SCALE = 512  # RootSIFT values to uint8
COLUMNS = {"copied": Column("copies of parts", "lower", "share with a part that is in a training image")}


@dataclass(frozen=True)
class Copied:
    """shares: float (N,), share of each image's points that have a match in one training image with which they agree on
    a transform. sources: int (N,), that training image, -1 where nothing matches."""

    shares: np.ndarray
    sources: np.ndarray


def local_features(image: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 2) float32 in pixels and RootSIFT descriptors (K, 128) uint8 of an image uint8 (H, W, 3), the `most`
    strongest. Contrast is stretched first, so that dark and pale images have features, too."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.percentile(grey, [1, 99])
    grey = np.clip((grey - low) * (255 / max(high - low, 8.0)), 0, 255).astype(np.uint8)
    points, descriptors = cv2.SIFT_create(contrastThreshold=0.015, edgeThreshold=15).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)
    strongest = np.argsort([-point.response for point in points], kind="stable")[:most]
    chosen = descriptors[strongest]
    root = np.sqrt(chosen / np.maximum(chosen.sum(1, keepdims=True), 1e-6))
    return np.float32([points[i].pt for i in strongest]), np.minimum(root * DESCRIPTOR_SCALE, 255).astype(np.uint8)


class CopyFinder:
    """Training images by their local features. About 40 kB for each 256 x 256 pixels."""

    def __init__(self, training: Iterable[np.ndarray]):
        """training: whole images uint8 (H, W, 3), of any size."""
        self._numbers: list[int] = []  # of the training images that have local features
        self._features: list[tuple[np.ndarray, np.ndarray]] = []
        self._search = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 32})  # k-d trees
        for number, image in enumerate(training):
            windows = max(1.0, image.shape[0] * image.shape[1] / WINDOW_AREA)
            points, descriptors = local_features(image, int(POINTS_PER_WINDOW * windows))
            if not len(points):
                continue
            self._numbers.append(number)
            self._features.append((points, descriptors))
            self._search.add([descriptors[: int(SEARCHED_POINTS * windows)].astype(np.float32)])
        if self._features:
            self._search.train()

    def find(self, image: np.ndarray) -> tuple[float, int]:
        """(share of agreeing points, number of the training image) of the best match of an image uint8 (H, W, 3) or of
        its mirror image; (0.0, -1) without one."""
        return max(self._best(image), self._best(np.ascontiguousarray(image[:, ::-1])))

    def find_all(self, images: Iterable[np.ndarray]) -> Copied:
        """`find` of each image."""
        found = [self.find(image) for image in images]
        return Copied(np.array([share for share, _ in found]), np.array([source for _, source in found], np.int64))

    def _best(self, image: np.ndarray) -> tuple[float, int]:
        windows = max(1.0, image.shape[0] * image.shape[1] / WINDOW_AREA)
        points, descriptors = local_features(image, int(POINTS_PER_WINDOW * windows))
        if len(points) < MIN_AGREEING or not self._features:
            return 0.0, -1
        queries, votes = descriptors.astype(np.float32), np.zeros(len(self._features), int)
        for matches in self._search.knnMatch(queries, k=2):
            for number in {match.imgIdx for match in matches}:
                votes[number] += 1
        candidates = np.argsort(-votes, kind="stable")[:N_CANDIDATES]
        agreeing, source = max((self._agreeing(points, queries, i), int(i)) for i in candidates)
        return (agreeing / len(points), self._numbers[source]) if agreeing >= MIN_AGREEING else (0.0, -1)

    def _agreeing(self, points: np.ndarray, queries: np.ndarray, number: int) -> int:
        """Matches with one training image that agree on a shift, rotation and scale."""
        trained, descriptors = self._features[number]
        if len(trained) < 2:
            return 0
        found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(queries, descriptors.astype(np.float32), k=2)
        pairs = [(a.queryIdx, a.trainIdx) for a, b in found if a.distance < MAX_DISTANCE_RATIO * b.distance]
        if len(pairs) < MIN_AGREEING // 2:
            return 0
        ours, theirs = np.array(pairs).T
        cv2.setRNGSeed(0)
        matrix, agree = cv2.estimateAffinePartial2D(
            points[ours], trained[theirs], method=cv2.RANSAC, ransacReprojThreshold=MAX_RESIDUAL_PX
        )
        if matrix is None or not SCALES[0] < np.hypot(matrix[0, 0], matrix[1, 0]) < SCALES[1]:
            return 0
        return int(agree.sum())


def planted_copy(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A part of an image (H, W, 3) as a copy might show it, uint8 (side, side, 3): another window, mirrored, turned,
    scaled, lit differently, noisy."""
    height, width = image.shape[:2]
    part = int(min(height, width, side * rng.uniform(0.8, 1.3)))
    x, y = (part / 2 + rng.uniform(0, extent - part) for extent in (width, height))
    degrees = rng.choice([0.0, 90.0, 180.0, 270.0, rng.uniform(-180, 180)])
    turn = cv2.getRotationMatrix2D((x, y), degrees, side / part)
    turn[:, 2] += side / 2 - np.array([x, y])
    copy = cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    if rng.random() < 0.5:
        copy = copy[:, ::-1]
    lit = 255 * (copy / 255.0) ** rng.uniform(0.6, 1.7) * rng.uniform(0.8, 1.2)
    return np.clip(lit + rng.normal(0, 3, copy.shape), 0, 255).astype(np.uint8)


def copied_parts(generated: Copied, held_out: Copied, planted: Copied, seed: int = 0) -> tuple[Result, np.ndarray]:
    """The share of images with a part that is in a training image, and which generated ones those are, bool (N,).

    An image counts when a larger share of its points agrees than in 98 % of held-out images of one random half; the
    reference is the other half. Control: `planted` copies, nearly all of which must be found (`undetected`).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(held_out.shares))
    half = order[: len(order) // 2]
    limit = max(MIN_SHARE, float(np.quantile(held_out.shares[half], 1 - FALSE_ALARMS)))
    sets = {
        "generated": (generated.shares, "measured"),
        "real, held out": (held_out.shares[order[len(half) :]], "reference"),
        "planted copies of training": (planted.shares, "control"),
    }
    rows = []
    for name, (shares, role) in sets.items():
        copied = shares > limit
        resampled = copied[rng.integers(0, len(copied), (N_RESAMPLES, len(copied)))].mean(1)
        rows.append(Row(name, role, len(copied), {"copied": bootstrap(float(copied.mean()), resampled)}))
    result = Result(
        "copied parts", "Are parts of them copied from training images?", COLUMNS, rows,
        {"features": "SIFT, one similarity transform", "limit": f"{limit:.1%} of the points agree"},
        interval="95 %, by resampling images",
        notes=["Planted copies: other windows, mirrored, turned, scaled by 0.8 to 1.3, lit differently, noisy"],
    )  # fmt: skip
    return result, generated.shares > limit


def undetected(result: Result) -> str:
    """Why the check says nothing on these images, as a sentence; "" where it finds MIN_RECALL of the planted copies."""
    recall = result.value("planted copies of training", "copied")
    if recall >= MIN_RECALL:
        return ""
    return f"only {recall:.0%} of planted copies of the training images are found, fewer than {MIN_RECALL:.0%}"
