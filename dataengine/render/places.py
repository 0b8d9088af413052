"""Places in a scene that look like those where real objects of a class stand.

After Dvornik et al. (2018), "Modeling Visual Context Is Key to Augmenting Object Detection Datasets": pasted anywhere,
objects teach a detector that their surroundings say nothing. There a network judges the surroundings; here, where the
labels of a hundred pictures must do, a random forest (Breiman 2001) does, by a few statistics of rings around the box.
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
from dataengine.render.augment import random_window
from dataengine.render.frame import covered
from dataengine.render.real_objects import BORDER, whole
from dataengine.render.scene import ROOM, Scene, free_of

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

CLOSE = 0.5  # long sides: objects whose gap is less than both of theirs together are moved together
MOST, FEWEST = 400, 10  # objects of a class that are learned from
LARGEST = 1024  # pixels: of larger pictures a window is looked at
MOVED = 6  # places of each real group at which it does not stand
TRIED = 15  # places of each new group, beside its own
SLANT = 0.1  # of the picture's height, by which a group is moved up or down where that changes its size
TREES, LEAF = 100, 3
FOLDS = 5  # of pictures, each of which is judged by a forest of the others
UNLIKELY = 0.1  # of the real objects stand at places less likely than any taken for a new one, if these are below 0.5
RINGS = (0.5, 1.2, 2.5)  # distances from the box, in halves of its diagonal,
LEAST_HALF = 8.0  # or of so many pixels, if that is more
POINTS = 16  # of a ring
FEWEST_POINTS = 3  # of a ring that show ground, or its colours are unknown
COLOUR, TEXTURE = 1.5, 3.0  # pixels (standard deviation) over which a point's are taken,
BEYOND = 2  # pixels: none of them that near to a labelled object, or real ones would be told by their own colours
CONTRAST = 40.0  # standard deviation to which a picture's lightness is brought: thermal cameras differ in their gain


@dataclass(frozen=True)
class Look:
    """A picture as its ground looks. ground: float32 (H, W, 4), colour (CIE Lab, less the ground's median) and texture
    (mean gradient of lightness) around each pixel; labelled: bool (H, W), pixels of objects, which tell nothing."""

    ground: np.ndarray
    labelled: np.ndarray

    def around(self, boxes: np.ndarray) -> np.ndarray:
        """Of boxes (N, 5) that stand there together: float32 (N, 9 len(RINGS)), for each ring mean and standard
        deviation of the ground's look, nan where hardly any is to be seen, and the share that objects hide."""
        height, width = self.labelled.shape
        half = boxes[:, None, 2:4] / 2
        reach = np.maximum(np.linalg.norm(half, axis=2, keepdims=True), LEAST_HALF)
        sides = half + np.array(RINGS)[:, None] * reach  # (N, R, 2)
        angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
        outward = np.column_stack([np.cos(angles), np.sin(angles)])  # (P, 2)
        ends = outward / (np.abs(outward) / sides[:, :, None]).max(3, keepdims=True)  # (N, R, P, 2), on grown boxes
        cos, sin = np.cos(boxes[:, 4])[:, None, None], np.sin(boxes[:, 4])[:, None, None]
        x = np.floor(boxes[:, 0, None, None] + cos * ends[..., 0] - sin * ends[..., 1]).astype(int)
        y = np.floor(boxes[:, 1, None, None] + sin * ends[..., 0] + cos * ends[..., 1]).astype(int)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        hidden = inside & (self.labelled | covered(boxes, self.labelled.shape))[y, x]
        seen = (inside & ~hidden)[..., None]
        values, count = self.ground[y, x], seen.sum(2)  # (N, R, P, 4), (N, R, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (values * seen).sum(2) / count
            spread = np.sqrt(((values - mean[:, :, None]) ** 2 * seen).sum(2) / count)
            share = (hidden.sum(2) / inside.sum(2))[..., None]
        told = np.where(count >= FEWEST_POINTS, np.concatenate([mean, spread], 2), np.nan)
        return np.concatenate([told, share], 2).reshape(len(boxes), -1).astype(np.float32)


def look_of(picture: np.ndarray, objects: np.ndarray) -> Look:
    """The look of an image (H, W, 3) uint8 with these boxes (N, 5) of objects in it."""
    import cv2

    labelled = covered(objects, picture.shape)
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    near = cv2.dilate(labelled.astype(np.uint8), np.ones((2 * BEYOND + 1,) * 2, np.uint8))
    free = (near == 0).astype(np.float32)
    colours = lab[near == 0] if free.any() else lab.reshape(-1, 3)
    lab -= np.median(colours, 0)
    lab[..., 0] *= CONTRAST / max(float(colours[:, 0].std()), 1.0)
    slope = np.hypot(*(cv2.Sobel(lab[..., 0], cv2.CV_32F, *along) for along in ((1, 0), (0, 1))))

    def over_ground(values: np.ndarray, reach: float) -> np.ndarray:
        share = np.maximum(cv2.GaussianBlur(free, (0, 0), reach), 1e-6)
        return cv2.GaussianBlur(values * free[..., None], (0, 0), reach).reshape(*free.shape, -1) / share[..., None]

    return Look(np.dstack([over_ground(lab, COLOUR), over_ground(slope[..., None], TEXTURE)]), labelled)


@dataclass(frozen=True)
class Places:
    """What surroundings tell of places. forests: by class name in lower case, of classes with enough real objects;
    least: the likelihood below which nothing of the class is put."""

    forests: dict[str, RandomForestClassifier]
    least: dict[str, float]

    def likelihood(self, names: Sequence[str], seen: np.ndarray) -> np.ndarray:
        """Float64 (N,) in [0, 1]: how likely an object of that class stands in these surroundings (N, F), rather than
        elsewhere in the picture, if both are as frequent; 0.5 for a class of which nothing is known."""
        lower, found = np.array([class_key(name) for name in names]), np.full(len(names), 0.5)
        for name in self.forests.keys() & set(lower.tolist()):
            own = lower == name
            found[own] = self.forests[name].predict_proba(seen[own])[:, 1]
        return found

    def placed(self, scene: Scene, layout: Layout, rng: np.random.Generator) -> Layout:
        """The layout with its groups at such places of the scene. Label effect: moves boxes, before they are painted.

        What stands close together moves together; what the border cuts stays. Of its own place and some random ones,
        each group takes the likeliest that is free. An object without a free place there, or a likely one, is left out.
        """
        taken = scene.layout.in_kind(layout.kind)
        occupied = np.concatenate([taken.boxes, taken.ignored])
        look = look_of(scene.image, occupied)
        inside = whole(layout)
        members = [np.flatnonzero(inside)[group] for group in groups(layout.boxes[inside])]
        members += [np.array([k]) for k in np.flatnonzero(~inside)]
        own = [layout.select(group) for group in members]
        tries = [one.boxes + np.concatenate([np.zeros((1, 1, 5)), _shifts(one, TRIED, rng)]) for one in own]
        seen = [look.around(boxes) for places in tries for boxes in places]
        names = [name for one, places in zip(own, tries, strict=True) for name in one.names() * len(places)]
        likely = np.split(self.likelihood(names, np.concatenate(seen)), np.cumsum([t[..., 0].size for t in tries])[:-1])
        boxes, kept = layout.boxes.copy(), np.zeros(len(layout), bool)
        for group, one, places, found in zip(members, own, tries, likely, strict=True):
            found = found.reshape(places.shape[:2])
            free = np.stack([free_of(replace(one, boxes=place), occupied, ROOM) for place in places])
            fits = free & (found >= [self.least.get(class_key(name), 0.0) for name in one.names()])
            chosen = (fits * found).mean(1).argmax()
            boxes[group], kept[group] = places[chosen], fits[chosen]
            occupied = np.concatenate([occupied, places[chosen][fits[chosen]]])
        return replace(layout, boxes=boxes).select(kept)


def learn_places(dataset: Dataset) -> Places:
    """Forests that tell the surroundings of each class's real objects from those of places in the same pictures that
    they were moved to. Raises UserError where no class has enough whole objects in pictures that can be read."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold, cross_val_predict

    names = [class_key(name) for name in dataset.classes]
    examples = list(_examples(dataset, names, np.random.default_rng(0)))
    forests, least = {}, {}
    for name in names:
        own = [example[1:] for example in examples if example[0] == name]
        if not own:
            continue
        seen, stands, pictures = (np.array(values) for values in zip(*own, strict=True))
        if min(stands.sum(), (~stands).sum()) < FEWEST or len(np.unique(pictures)) < FOLDS:
            continue
        forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF, class_weight="balanced", random_state=0)
        folds = {"groups": pictures, "cv": GroupKFold(FOLDS), "method": "predict_proba"}
        of_real_ones = cross_val_predict(forest, seen, stands, **folds)[stands, 1]
        forests[name] = forest.fit(seen, stands)
        least[name] = min(0.5, float(np.quantile(of_real_ones, UNLIKELY)))
    if not forests:
        raise UserError(
            f"--likely-places: of no class ({', '.join(dataset.classes)}) do {FEWEST} objects lie whole in {FOLDS} "
            "pictures with free ground beside them, so nothing is known of places; leave it out, or label more images."
        )
    return Places(forests, least)


def _examples(
    dataset: Dataset, names: list[str], rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, bool, int]]:
    """Class of an object, what is to be seen around it, whether it stands there or was moved, and its picture."""
    for i in _worth_looking_at(dataset, names, rng):
        picture, layout = read_picture(dataset.samples[i]), dataset.samples[i].layout
        if picture is None:
            continue
        if max(layout.size) > LARGEST:
            picture, layout = random_window(picture, layout, LARGEST, rng, layout.boxes[rng.integers(len(layout)), :2])
        occupied = np.concatenate([layout.boxes, layout.ignored])
        look, objects = look_of(picture, occupied), layout.select(whole(layout))
        for group in groups(objects.boxes):
            one = objects.select(group)
            moved = one.boxes + _shifts(one, MOVED, rng)
            free = [boxes for boxes in moved if free_of(replace(one, boxes=boxes), occupied, ROOM).all()]
            for boxes in (one.boxes, *free):
                for name, seen in zip(one.names(), look.around(boxes), strict=True):
                    yield class_key(name), seen, boxes is one.boxes, i


def _worth_looking_at(dataset: Dataset, names: list[str], rng: np.random.Generator) -> list[int]:
    """Numbers of random samples that hold MOST objects of each class, or all of it."""
    counts = np.zeros((len(dataset), len(names)), np.int64)
    for i, sample in enumerate(dataset):
        for name in sample.layout.names():
            if class_key(name) in names:
                counts[i, names.index(class_key(name))] += 1
    order = rng.permutation(len(dataset))
    before = np.cumsum(counts[order], 0) - counts[order]
    return sorted(order[((counts[order] > 0) & (before < MOST)).any(1)].tolist())


def groups(boxes: np.ndarray) -> list[np.ndarray]:
    """Indices of the boxes (N, 5) that hang together, by gaps as CLOSE says; in the order of their first."""
    from scipy.sparse.csgraph import connected_components

    grown = boxes.copy()
    grown[:, 2:4] += 2 * CLOSE * boxes[:, 2:3]
    _, number = connected_components(geometry.intersection(grown, grown) > 0, directed=False)
    return [np.flatnonzero(number == n) for n in dict.fromkeys(number.tolist())]


def _shifts(group: Layout, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random moves of a group within its picture, float32 (count, 1, 5) to be added to its boxes; (0, 1, 5) where the
    border cuts one. In a picture taken at a slant, what is moved far up would have to become smaller."""
    if not whole(group).all():
        return np.zeros((0, 1, 5), np.float32)
    corners = geometry.to_corners(group.boxes).reshape(-1, 2)
    low, high = BORDER - corners.min(0), np.array(group.size) - BORDER - corners.max(0)
    if not group.acquisition.looks_down:
        low[1], high[1] = np.clip([low[1], high[1]], -SLANT * group.size[1], SLANT * group.size[1])
    moves = np.zeros((count, 1, 5), np.float32)
    moves[:, 0, :2] = rng.uniform(low, high, (count, 2))
    return moves
