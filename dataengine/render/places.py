"""Likely places in a scene: those whose surroundings look like the surroundings of real objects of the class.

After Dvornik et al. (2018), "Modeling Visual Context Is Key to Augmenting Object Detection Datasets": objects pasted at
random places teach a detector that surroundings mean nothing. They judge places with a network; here, where the labels
of a hundred images must suffice, a random forest (Breiman 2001) judges statistics of rings around the box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.layouts.constraints import BORDER_PX, FULLY_VISIBLE, apart, whole
from dataengine.render.augment import random_window
from dataengine.render.canvas import Canvas
from dataengine.render.frame import covered
from dataengine.render.placement import ROOM_SHARE, free_of

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

GROUP_GAP = 0.5  # long sides: objects move together if their gap is less than this share of both added up
MAX_EXAMPLES, MIN_EXAMPLES = 400, 10  # objects of a class to learn from
MAX_SIDE_PX = 1024  # of larger images, a window this large is used
MOVES_PER_GROUP = 6  # negative examples: random places a real group is moved to
PLACES_PER_GROUP = 15  # random candidates for a new group, in addition to its own place
NEIGHBOUR_PLACES = 12  # candidates in line with or next to an object of the class that the scene shows
ALONG, ACROSS = (1.2, 3.0), (1.2, 2.5)  # distances of these, in lengths and in widths of that object
MIN_HEADING_OCTAVES = 0.3  # of width to height; upright boxes that are nearer to squares tell no heading
ALIGNED_SIZES = 0.9, 1.1  # of a box that is aligned with another upright one, as a share of its sides
MAX_GROUP_OVERLAP = 0.1  # of objects that are turned together
MAX_OBLIQUE_SHIFT = 0.1  # of the image's height: objects moved further up or down would have to change their size
TREES, MIN_LEAF = 100, 3
FOLDS = 5  # of images; each fold is judged by a forest trained on the others
LIKELIHOOD_QUANTILE = 0.1  # of the real objects have a lower likelihood than the least for a new one, at most 0.5
RING_DISTANCES = (0.5, 1.2, 2.5)  # of rings around the box, in half diagonals of the box
MIN_HALF_DIAGONAL_PX = 8.0  # for smaller boxes
RING_POINTS = 16
MIN_GROUND_POINTS = 3  # visible ground points of a ring; with fewer its appearance is unknown
COLOUR_BLUR_PX, TEXTURE_BLUR_PX = 1.5, 3.0  # standard deviation over which a point's appearance is averaged
OBJECT_MARGIN_PX = 2  # left out around labelled objects, or a real object's own colours would show near its box
LIGHTNESS_SPREAD = 40.0  # standard deviation that lightness is scaled to, since thermal cameras differ in gain


@dataclass(frozen=True)
class Appearance:
    """How the ground of an image looks.

    ground: float32 (H, W, 4), colour (CIE Lab minus the ground's median) and texture (mean gradient of lightness)
    around each pixel. labelled: bool (H, W), pixels of objects, where the ground is hidden.
    """

    ground: np.ndarray
    labelled: np.ndarray

    def around(self, boxes: np.ndarray) -> np.ndarray:
        """Surroundings of boxes (N, 5) that are placed together: float32 (N, 9 len(RING_DISTANCES)).

        For each ring, mean and standard deviation of the ground's appearance (`nan` where hardly any is visible), and
        the share of the ring that objects hide.
        """
        height, width = self.labelled.shape
        half = boxes[:, None, 2:4] / 2
        reach = np.maximum(np.linalg.norm(half, axis=2, keepdims=True), MIN_HALF_DIAGONAL_PX)
        sides = half + np.array(RING_DISTANCES)[:, None] * reach  # (N, R, 2)
        angles = np.linspace(0, 2 * np.pi, RING_POINTS, endpoint=False)
        outward = np.column_stack([np.cos(angles), np.sin(angles)])  # (P, 2)
        ends = outward / (np.abs(outward) / sides[:, :, None]).max(3, keepdims=True)  # (N, R, P, 2), on grown boxes
        cos, sin = np.cos(boxes[:, 4])[:, None, None], np.sin(boxes[:, 4])[:, None, None]
        x = np.floor(boxes[:, 0, None, None] + cos * ends[..., 0] - sin * ends[..., 1]).astype(int)
        y = np.floor(boxes[:, 1, None, None] + sin * ends[..., 0] + cos * ends[..., 1]).astype(int)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        left, top = x.min(initial=width), y.min(initial=height)  # only this part of a large image is looked at
        part = np.s_[top : y.max(initial=0) + 1, left : x.max(initial=0) + 1]
        own = covered(boxes - np.float32([left, top, 0, 0, 0]), self.labelled[part].shape)
        hidden = inside & (self.labelled[part] | own)[y - top, x - left]
        visible = (inside & ~hidden)[..., None]
        values, count = self.ground[y, x], visible.sum(2)  # (N, R, P, 4), (N, R, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (values * visible).sum(2) / count
            spread = np.sqrt(((values - mean[:, :, None]) ** 2 * visible).sum(2) / count)
            hidden_share = (hidden.sum(2) / inside.sum(2))[..., None]
        ground = np.where(count >= MIN_GROUND_POINTS, np.concatenate([mean, spread], 2), np.nan)
        return np.concatenate([ground, hidden_share], 2).reshape(len(boxes), -1).astype(np.float32)


def appearance_of(image: np.ndarray, objects: np.ndarray) -> Appearance:
    """Appearance of an image (H, W, 3) uint8 that holds objects with these boxes (N, 5)."""
    import cv2

    labelled = covered(objects, image.shape)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    near = cv2.dilate(labelled.astype(np.uint8), np.ones((2 * OBJECT_MARGIN_PX + 1,) * 2, np.uint8))
    free = (near == 0).astype(np.float32)
    colours = lab[near == 0] if free.any() else lab.reshape(-1, 3)
    lab -= np.median(colours, 0)
    lab[..., 0] *= LIGHTNESS_SPREAD / max(float(colours[:, 0].std()), 1.0)
    gradient = np.hypot(*(cv2.Sobel(lab[..., 0], cv2.CV_32F, *order) for order in ((1, 0), (0, 1))))

    def over_ground(values: np.ndarray, blur_px: float) -> np.ndarray:
        share = np.maximum(cv2.GaussianBlur(free, (0, 0), blur_px), 1e-6)
        return cv2.GaussianBlur(values * free[..., None], (0, 0), blur_px).reshape(*free.shape, -1) / share[..., None]

    ground = np.dstack([over_ground(lab, COLOUR_BLUR_PX), over_ground(gradient[..., None], TEXTURE_BLUR_PX)])
    return Appearance(ground, labelled)


@dataclass(frozen=True)
class Places:
    """What surroundings say about places.

    forests: one for each class with enough real objects, by `class_key`. min_likelihood: by the same keys, the
    likelihood below which no object is placed.
    """

    forests: dict[str, RandomForestClassifier]
    min_likelihood: dict[str, float]

    def likelihood(self, names: Sequence[str], surroundings: np.ndarray) -> np.ndarray:
        """Float64 (N,) in [0, 1]: how likely an object of the class stands in these surroundings (N, F) rather than
        elsewhere in the image, at equal prior odds; 0.5 for a class without a forest."""
        keys, result = np.array([class_key(name) for name in names]), np.full(len(names), 0.5)
        for key in self.forests.keys() & set(keys.tolist()):
            members = keys == key
            result[members] = self.forests[key].predict_proba(surroundings[members])[:, 1]
        return result

    def placed(self, canvas: Canvas, layout: Layout, rng: np.random.Generator) -> Layout:
        """The layout with its groups moved to likely places of the canvas. Label effect: moves boxes before painting.

        Objects close together move together; objects cut by the border stay. Each group takes the likeliest free one
        of its own place, some random ones, and some next to objects of its class that the scene shows, with whose
        heading it is aligned (`_aligned`), so that cars stand along their lane. An object that has no free place there,
        or no likely one, is dropped.
        """
        if not len(layout):
            return layout
        existing = canvas.existing.in_kind(layout.kind)
        occupied = np.concatenate([existing.boxes, existing.ignored])
        appearance = appearance_of(canvas.image, occupied)
        inside = whole(layout)
        members = [np.flatnonzero(inside)[group] for group in groups(layout.boxes[inside])]
        members += [np.array([k]) for k in np.flatnonzero(~inside)]
        parts = [layout.select(group) for group in members]
        known = existing.select(whole(existing))
        # of each group (places, size of the group, 5), its own place first
        candidates = [_candidates(part, known, rng) for part in parts]
        surroundings = np.concatenate([appearance.around(boxes) for places in candidates for boxes in places])
        names = [name for part, places in zip(parts, candidates, strict=True) for name in part.names() * len(places)]
        ends = np.cumsum([places[..., 0].size for places in candidates])[:-1]
        likelihoods = np.split(self.likelihood(names, surroundings), ends)
        boxes, accepted = layout.boxes.copy(), np.zeros(len(layout), bool)
        for group, part, places, likelihood in zip(members, parts, candidates, likelihoods, strict=True):
            likelihood = likelihood.reshape(places.shape[:2])
            free = np.stack([_free(replace(part, boxes=place), occupied) for place in places])
            least = [self.min_likelihood.get(class_key(name), 0.0) for name in part.names()]
            fits = free & (likelihood >= least)
            best = (fits * likelihood).mean(1).argmax()
            boxes[group], accepted[group] = places[best], fits[best]
            occupied = np.concatenate([occupied, places[best][fits[best]]])
        return replace(layout, boxes=boxes).select(accepted)


def learn_places(dataset: Dataset) -> Places:
    """Train one forest per class to separate the surroundings of real objects from those of random places in the same
    images. Raises UserError where no class has enough whole objects in readable images."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold, cross_val_predict

    names = [class_key(name) for name in dataset.classes]
    examples = list(_examples(dataset, names, np.random.default_rng(0)))
    forests, min_likelihood = {}, {}
    for name in names:
        of_class = [example[1:] for example in examples if example[0] == name]
        if not of_class:
            continue
        surroundings, real, image_numbers = (np.array(values) for values in zip(*of_class, strict=True))
        if min(real.sum(), (~real).sum()) < MIN_EXAMPLES or len(np.unique(image_numbers)) < FOLDS:
            continue
        forest = RandomForestClassifier(TREES, min_samples_leaf=MIN_LEAF, class_weight="balanced", random_state=0)
        folds = {"groups": image_numbers, "cv": GroupKFold(FOLDS), "method": "predict_proba"}
        real_likelihood = cross_val_predict(forest, surroundings, real, **folds)[real, 1]
        forests[name] = forest.fit(surroundings, real)
        min_likelihood[name] = min(0.5, float(np.quantile(real_likelihood, LIKELIHOOD_QUANTILE)))
    if not forests:
        raise UserError(
            f"--likely-places: no class ({', '.join(dataset.classes)}) has {MIN_EXAMPLES} objects completely inside "
            f"{FOLDS} images, with free ground next to them, to learn from; drop the option, or label more images."
        )
    return Places(forests, min_likelihood)


def _examples(
    dataset: Dataset, names: list[str], rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, bool, int]]:
    """Class of an object, its surroundings, whether it is really there or was moved, and the number of its image."""
    for i in _useful_samples(dataset, names, rng):
        image, layout = read_picture(dataset.samples[i]), dataset.samples[i].layout
        if image is None:
            continue
        if max(layout.size) > MAX_SIDE_PX:
            centre = layout.boxes[rng.integers(len(layout)), :2]
            image, layout = random_window(image, layout, MAX_SIDE_PX, rng, centre)
        occupied = np.concatenate([layout.boxes, layout.ignored])
        appearance, objects = appearance_of(image, occupied), layout.select(whole(layout))
        for group in groups(objects.boxes):
            part = objects.select(group)
            moved = part.boxes + _shifts(part, MOVES_PER_GROUP, rng)
            free = [boxes for boxes in moved if free_of(replace(part, boxes=boxes), occupied, ROOM_SHARE).all()]
            for boxes in (part.boxes, *free):
                for name, surroundings in zip(part.names(), appearance.around(boxes), strict=True):
                    yield class_key(name), surroundings, boxes is part.boxes, i


def _useful_samples(dataset: Dataset, names: list[str], rng: np.random.Generator) -> list[int]:
    """Numbers of random samples that together hold MAX_EXAMPLES objects of each class, or all there are."""
    counts = np.zeros((len(dataset), len(names)), np.int64)
    for i, sample in enumerate(dataset):
        for name in sample.layout.names():
            if class_key(name) in names:
                counts[i, names.index(class_key(name))] += 1
    order = rng.permutation(len(dataset))
    before = np.cumsum(counts[order], 0) - counts[order]
    return sorted(order[((counts[order] > 0) & (before < MAX_EXAMPLES)).any(1)].tolist())


def groups(boxes: np.ndarray) -> list[np.ndarray]:
    """Indices of the boxes (N, 5) that are connected by small gaps (GROUP_GAP), in the order of their first.

    >>> [group.tolist() for group in groups(np.float32([[20, 9, 8, 4, 0], [90, 9, 8, 4, 0], [30, 9, 8, 4, 0]]))]
    [[0, 2], [1]]
    """
    from scipy.sparse.csgraph import connected_components

    grown = boxes.copy()
    grown[:, 2:4] += 2 * GROUP_GAP * boxes[:, 2:3]
    _, number = connected_components(geometry.intersection(grown, grown) > 0, directed=False)
    return [np.flatnonzero(number == n) for n in dict.fromkeys(number.tolist())]


def _candidates(group: Layout, known: Layout, rng: np.random.Generator) -> np.ndarray:
    """Places for a group, float32 (places, N, 5): its own, random ones, some near objects of its class in the scene,
    `known`; only its own where the border cuts it."""
    shifts = _shifts(group, PLACES_PER_GROUP, rng)
    places = list(group.boxes + np.concatenate([np.zeros((1, 1, 5), np.float32), shifts]))
    alike = known.select(np.array([class_key(name) == class_key(group.names()[0]) for name in known.names()], bool))
    if len(shifts) and len(alike):
        places += list(group.boxes + _near(group, alike, rng))
        places = [_aligned(replace(group, boxes=boxes), alike) for boxes in places]
    return np.stack(places)


def _near(group: Layout, alike: Layout, rng: np.random.Generator) -> np.ndarray:
    """Moves of a group, float32 (NEIGHBOUR_PLACES, 1, 5), to places ahead of, behind or next to objects `alike`."""
    chosen = alike.boxes[rng.integers(len(alike), size=NEIGHBOUR_PLACES)].astype(np.float64)
    theta, along = chosen[:, 4], rng.random(NEIGHBOUR_PLACES) < 0.5
    if alike.kind == "hbb":  # a nearly square box may hold an object along either diagonal
        diagonal = np.log2(chosen[:, 2] / chosen[:, 3]) < MIN_HEADING_OCTAVES
        theta = theta + np.where(diagonal, rng.choice([-1, 1], NEIGHBOUR_PLACES) * np.pi / 4, 0)
    distance = np.where(along, rng.uniform(*ALONG, NEIGHBOUR_PLACES), rng.uniform(*ACROSS, NEIGHBOUR_PLACES))
    distance *= np.where(along, chosen[:, 2], chosen[:, 3]) * rng.choice([-1, 1], NEIGHBOUR_PLACES)
    direction = theta + np.where(along, 0, np.pi / 2)
    target = chosen[:, :2] + distance[:, None] * np.column_stack([np.cos(direction), np.sin(direction)])
    moves = np.zeros((NEIGHBOUR_PLACES, 1, 5), np.float32)
    moves[:, 0, :2] = target - group.boxes[rng.integers(len(group), size=NEIGHBOUR_PLACES), :2]
    return moves


def _aligned(group: Layout, alike: Layout) -> np.ndarray:
    """Boxes (N, 5) of a group, turned together to the heading of the nearest object of its class.

    A horizontal box tells a heading by its width and height: the group is turned by a quarter where those differ, and
    each box gets the shape of that object's, and nearly its size, which then fit objects of the same heading. An
    oblique image is not turned.
    """
    centre = group.boxes[:, :2].mean(0)
    nearest = alike.boxes[np.hypot(*(alike.boxes[:, :2] - centre).T).argmin()]
    boxes = group.boxes.astype(np.float64)
    if group.kind == "obb":
        turn = (nearest[4] - boxes[0, 4] + np.pi / 2) % np.pi - np.pi / 2
    else:
        own, other = (_upright_octaves(some) for some in (boxes, nearest[None]))
        crosswise = own.mean() * other[0] < 0 and min(abs(own.mean()), abs(other[0])) > MIN_HEADING_OCTAVES
        turn = np.pi / 2 if crosswise else 0.0
    if not group.acquisition.looks_down and turn:
        return group.boxes
    cos, sin = np.cos(turn), np.sin(turn)
    boxes[:, :2] = centre + (boxes[:, :2] - centre) @ np.array([[cos, sin], [-sin, cos]])
    boxes[:, 4] += turn
    if group.kind == "hbb":
        # sizes stay different, and alike in a row: boxes of one size get objects of one make
        size = np.sqrt(boxes[:, 2] * boxes[:, 3] / (nearest[2] * nearest[3]))
        boxes[:, 2:] = nearest[2:] * np.clip(size, *ALIGNED_SIZES)[:, None]
        boxes[:, 4] = nearest[4]
    return geometry.regularize(boxes)


def _upright_octaves(boxes: np.ndarray) -> np.ndarray:
    """log2 of width to height, (N,), of upright boxes (N, 5)."""
    return np.log2(boxes[:, 2] / boxes[:, 3]) * np.where(np.abs(boxes[:, 4]) > np.pi / 4, -1, 1)


def _free(group: Layout, occupied: np.ndarray) -> np.ndarray:
    """Bool (N,): objects of a group with room that lie inside the image as far as `visible` says, and not on one
    another."""
    inside = whole(replace(group, visible=None)) | (group.visible < FULLY_VISIBLE)
    return free_of(group, occupied, ROOM_SHARE) & inside & apart(group.boxes, MAX_GROUP_OVERLAP)


def _shifts(group: Layout, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random moves of a group within its image, float32 (count, 1, 5) to add to its boxes; (0, 1, 5) where the border
    cuts one of them. In an oblique image objects move little vertically, since their size depends on the row."""
    if not whole(group).all():
        return np.zeros((0, 1, 5), np.float32)
    corners = geometry.to_corners(group.boxes).reshape(-1, 2)
    low, high = BORDER_PX - corners.min(0), np.array(group.size) - BORDER_PX - corners.max(0)
    if not group.acquisition.looks_down:
        limit = MAX_OBLIQUE_SHIFT * group.size[1]
        low[1], high[1] = np.clip([low[1], high[1]], -limit, limit)
    moves = np.zeros((count, 1, 5), np.float32)
    moves[:, 0, :2] = rng.uniform(low, high, (count, 2))
    return moves
