"""Classification accuracy score (Ravuri & Vinyals 2019): a classifier learns from generated objects, and is tested on
real ones. What it gets wrong, generated objects do not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key, restrict_layout
from dataengine.errors import UserError
from dataengine.evaluate.features import imagenet_encoder
from dataengine.evaluate.pictures import Picture, halves
from dataengine.evaluate.results import Column, Result, Row, spread

CLASSIFIER = "logistic regression on EfficientNet-Lite0's ImageNet features of object crops, 96 px"
CROP_SIDE = 96  # pixels that a crop is scaled to
CONTEXT = 1.2  # side of a crop over the longer side of its box
OBJECTS = 400  # of each class and side, at most
LEAST_OBJECTS = 8  # of a class in each row
SMALLEST = 4.0  # longer side in pixels below which a crop shows nothing
DRAWS = 5  # random halves of the real pictures
BACKGROUND = "background"


def crop(image: np.ndarray, box: np.ndarray, kind: str) -> np.ndarray:
    """The square around a box (5,), uint8 (S, S, 3) with S = CONTEXT x its longer side, turned so that the box lies
    level; upright for kind "hbb". What lies outside the image (H, W, 3) is its mirror image."""
    import cv2

    if kind == "hbb":
        box = geometry.hulls(box[None])[0].copy()
        box[4] = 0.0
    side = max(8, round(CONTEXT * float(box[2:4].max())))
    cos, sin = np.cos(box[4]), np.sin(box[4])
    turn = np.array([[cos, -sin], [sin, cos]])  # crop -> image
    shift = box[:2] - 0.5 - turn @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([turn, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def classification_score(
    made: Sequence[Picture], real: Sequence[Picture], seed: int = 0, bar=lambda x, title: x
) -> list[Result]:
    """Share of real objects told right, mean over classes, by a classifier of generated ones; beside one of other real
    objects, and one of generated objects with their labels shuffled (control: chance). As a whole and by class.

    All rows learn from as many objects of each class. Where there is one class only, it is told from background.
    Raises UserError for too few objects.
    """
    rng = np.random.default_rng(seed)
    classes = tuple(dict.fromkeys(name for x in made for name in x.layout.names()))
    classes = tuple(
        c for c in classes if any(class_key(c) == class_key(n) for x in real for n in set(x.layout.names()))
    )
    if not classes:
        raise UserError("generated and real pictures share no class, so no object of one can be told by the other.")
    background = len(classes) == 1
    encode = imagenet_encoder("lite0", CROP_SIDE)
    made_x, made_y, _ = _embedded(made, classes, background, encode, rng, bar, "crops of generated objects")
    real_x, real_y, owner = _embedded(real, classes, background, encode, rng, bar, "crops of real objects")
    names = (*classes, BACKGROUND) if background else classes
    draws = [[np.isin(owner, half) for half in halves([x.group for x in real], rng)] for _ in range(DRAWS)]
    sets = [y for first, second in draws for y in (real_y[first], real_y[second])]
    counts = np.array([np.bincount(y, minlength=len(names)) for y in (made_y, *sets)]).min(0)
    told = np.flatnonzero(counts >= LEAST_OBJECTS)
    if len(told) < 2:
        most = ", ".join(f"{name} {n}" for name, n in zip(names, counts, strict=True))
        raise UserError(f"two classes with {LEAST_OBJECTS} objects in each half of the data are needed to tell them "
                        f"apart; there are: {most}.")  # fmt: skip
    rows: dict[str, list[np.ndarray]] = {"generated": [], "real, other half": [], "generated, labels shuffled": []}
    for first, second in draws:
        test = np.flatnonzero(first & np.isin(real_y, told))
        own = _equal(made_y, counts, told, rng)
        other = _equal(np.where(second, real_y, -1), counts, told, rng)
        for name, x, y in zip(
            rows,
            (made_x[own], real_x[other], made_x[own]),
            (made_y[own], real_y[other], rng.permutation(made_y[own])),
            strict=True,
        ):
            rows[name].append(_accuracies(x, y, real_x[test], real_y[test], told))
    skipped = [name for i, name in enumerate(names) if i not in told]
    notes = [f"{len(told)} classes; chance would be {1 / len(told):.3f}"]
    notes += [f"left out, with too few objects: {', '.join(skipped)}"] if skipped else []
    return _results(rows, [names[i] for i in told], int(counts[told].sum()), notes)


def _results(rows: dict[str, list[np.ndarray]], names: list[str], n: int, notes: list[str]) -> list[Result]:
    roles = ("measured", "reference", "control")
    columns = {"CAS": Column("CAS", "higher", "share of real objects told right, mean over classes")}
    whole = [
        Row(name, role, n, {"CAS": spread([draw.mean() for draw in draws])})
        for (name, draws), role in zip(rows.items(), roles, strict=True)
    ]
    by_class = [
        Row(name, "measured", n, {row: spread([draw[i] for draw in draws]) for row, draws in rows.items()})
        for i, name in enumerate(names)
    ]
    settings = {"classifier": CLASSIFIER}
    title = "Do their objects teach what real ones look like?"
    interval = f"least and largest over {DRAWS} random halves of the real pictures"
    headings = {row: Column(f"trained on: {row}", "higher") for row in rows}
    return [
        Result("classification", title, columns, whole, settings, "objects learnt from", interval, notes),
        Result("classification by class", "Share of real objects of each class told right", headings, by_class,
               settings, "objects learnt from", interval),
    ]  # fmt: skip


def _embedded(pictures, classes, background, encode, rng, bar, title) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (K, E), labels (K,) and the number of the picture (K,) of up to OBJECTS objects of each class."""
    layouts = [restrict_layout(picture.layout, classes) for picture in pictures]
    objects = np.array(
        [(i, j, layout.labels[j]) for i, layout in enumerate(layouts) for j in range(len(layout))
         if not layout.difficult[j] and layout.boxes[j, 2:4].max() >= SMALLEST],
        np.int64,
    ).reshape(-1, 3)  # fmt: skip
    objects = objects[rng.permutation(len(objects))]
    chosen = np.concatenate([objects[objects[:, 2] == c][:OBJECTS] for c in range(len(classes))])
    by_picture: dict[int, list[int]] = {}
    for i, j, _ in sorted(chosen.tolist()):
        by_picture.setdefault(i, []).append(j)
    features, labels, owners = [], [], []
    for i, members in bar(list(by_picture.items()), title):
        image, layout = pictures[i].pixels(), layouts[i]
        boxes, found = layout.boxes[members], layout.labels[members]
        if background:
            empty = _empty_places(layout, boxes, rng)
            boxes, found = np.concatenate([boxes, empty]), np.concatenate([found, np.ones(len(empty), np.int64)])
        features.append(encode([crop(image, box, layout.kind) for box in boxes]))
        labels.append(found)
        owners.append(np.full(len(found), i))
    return np.concatenate(features), np.concatenate(labels), np.concatenate(owners)


def _empty_places(layout: Layout, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each box (K, 5) moved to a random place where nothing is labelled; left out where 20 tries find none."""
    taken, places = np.concatenate([layout.boxes, layout.ignored]), []
    for box in boxes:
        for _ in range(20):
            moved = box.copy()
            moved[:2] = rng.uniform(0, layout.size)
            if not geometry.iou(moved[None], taken).any():
                places.append(moved)
                break
    return np.array(places, np.float32).reshape(-1, 5)


def _equal(labels: np.ndarray, counts: np.ndarray, told: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of as many random objects of each class as `counts` says."""
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[: counts[c]] for c in told])


def _accuracies(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Share of the test's objects of each class in `told` that a classifier of (x, y) tells right, (len(told),)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x, y)
    right = classifier.predict(test_x) == test_y
    return np.array([right[test_y == c].mean() for c in told])
