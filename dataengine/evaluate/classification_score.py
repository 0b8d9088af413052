"""Classification accuracy score (CAS, Ravuri & Vinyals 2019): a classifier is trained on generated objects and tested
on real ones. Its errors show what generated objects lack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key, restrict_layout
from dataengine.errors import UserError
from dataengine.evaluate.features import imagenet_encoder
from dataengine.evaluate.results import Column, Result, Row, spread
from dataengine.evaluate.windows import Window, random_halves

CLASSIFIER = "logistic regression on EfficientNet-Lite0's ImageNet features of object crops, 96 px"
CROP_SIDE_PX = 96  # input size of the feature network
CROP_SCALE = 1.2  # side of a crop over the longer side of its box
MAX_OBJECTS = 400  # of each class and set of images
MIN_OBJECTS = 8  # of each class in every training set
MIN_SIDE_PX = 4.0  # longer side of the smallest object that is used
N_SPLITS = 5  # random halves of the real images
MAX_TRIES = 20  # places for a background crop
BACKGROUND = "background"


def crop(image: np.ndarray, box: np.ndarray, kind: str) -> np.ndarray:
    """The square around a box (5,), uint8 (S, S, 3) with S = CROP_SCALE x its longer side, rotated so that the box is
    horizontal; upright for kind "hbb". The image uint8 (H, W, 3) is reflected at its border."""
    import cv2

    if kind == "hbb":
        box = geometry.hulls(box[None])[0].copy()
        box[4] = 0.0
    side = max(8, round(CROP_SCALE * float(box[2:4].max())))
    cos, sin = np.cos(box[4]), np.sin(box[4])
    turn = np.array([[cos, -sin], [sin, cos]])  # crop -> image
    shift = box[:2] - 0.5 - turn @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([turn, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def classification_score(
    generated: Sequence[Window], real: Sequence[Window], seed: int = 0, bar=lambda x, title: x
) -> list[Result]:
    """Accuracy on real objects, mean over classes, of a classifier trained on generated objects. Reference: trained on
    other real objects. Control: trained on generated objects with shuffled labels (chance). Overall and by class.

    All classifiers are trained on equally many objects of each class. A single class is classified against background.
    bar: wraps a sequence to show progress. Raises UserError for too few objects.
    """
    rng = np.random.default_rng(seed)
    classes = tuple(dict.fromkeys(name for x in generated for name in x.layout.names()))
    classes = tuple(
        c for c in classes if any(class_key(c) == class_key(n) for x in real for n in set(x.layout.names()))
    )
    if not classes:
        raise UserError("generated and real images share no class; give real images with the same classes (--real).")
    background = len(classes) == 1
    encode = imagenet_encoder("lite0", CROP_SIDE_PX)
    generated_x, generated_y, _ = _embedded(
        generated, classes, background, encode, rng, bar, "crops of generated objects"
    )
    real_x, real_y, owner = _embedded(real, classes, background, encode, rng, bar, "crops of real objects")
    names = (*classes, BACKGROUND) if background else classes
    draws = [[np.isin(owner, half) for half in random_halves([x.group for x in real], rng)] for _ in range(N_SPLITS)]
    sets = [y for first, second in draws for y in (real_y[first], real_y[second])]
    counts = np.array([np.bincount(y, minlength=len(names)) for y in (generated_y, *sets)]).min(0)
    scored = np.flatnonzero(counts >= MIN_OBJECTS)
    if len(scored) < 2:
        most = ", ".join(f"{name} {n}" for name, n in zip(names, counts, strict=True))
        raise UserError(
            f"classification needs two classes with {MIN_OBJECTS} objects in each half of the data; there are: {most}."
        )
    rows: dict[str, list[np.ndarray]] = {"generated": [], "real, other half": [], "generated, labels shuffled": []}
    for first, second in draws:
        test = np.flatnonzero(first & np.isin(real_y, scored))
        chosen = _equal(generated_y, counts, scored, rng)
        chosen_real = _equal(np.where(second, real_y, -1), counts, scored, rng)
        for name, x, y in zip(
            rows,
            (generated_x[chosen], real_x[chosen_real], generated_x[chosen]),
            (generated_y[chosen], real_y[chosen_real], rng.permutation(generated_y[chosen])),
            strict=True,
        ):
            rows[name].append(_accuracies(x, y, real_x[test], real_y[test], scored))
    skipped = [name for i, name in enumerate(names) if i not in scored]
    notes = [f"{len(scored)} classes; chance is {1 / len(scored):.3f}"]
    notes += [f"skipped for too few objects: {', '.join(skipped)}"] if skipped else []
    return _results(rows, [names[i] for i in scored], int(counts[scored].sum()), notes)


def _results(rows: dict[str, list[np.ndarray]], names: list[str], n: int, notes: list[str]) -> list[Result]:
    roles = ("measured", "reference", "control")
    columns = {"CAS": Column("CAS", "higher", "accuracy on real objects, mean over classes")}
    whole = [
        Row(name, role, n, {"CAS": spread([draw.mean() for draw in draws])})
        for (name, draws), role in zip(rows.items(), roles, strict=True)
    ]
    by_class = [
        Row(name, "measured", n, {row: spread([draw[i] for draw in draws]) for row, draws in rows.items()})
        for i, name in enumerate(names)
    ]
    settings = {"classifier": CLASSIFIER}
    title = "Does a classifier learn real classes from generated objects?"
    interval = f"minimum and maximum over {N_SPLITS} random halves of the real images"
    headings = {row: Column(f"trained on: {row}", "higher") for row in rows}
    return [
        Result("classification", title, columns, whole, settings, "training objects", interval, notes),
        Result("classification by class", "Accuracy on real objects by class", headings, by_class,
               settings, "training objects", interval),
    ]  # fmt: skip


def _embedded(windows, classes, background, encode, rng, bar, title) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (K, E), labels (K,) and image indices (K,) of up to MAX_OBJECTS objects of each class."""
    layouts = [restrict_layout(window.layout, classes) for window in windows]
    objects = np.array(
        [(i, j, layout.labels[j]) for i, layout in enumerate(layouts) for j in range(len(layout))
         if not layout.difficult[j] and layout.boxes[j, 2:4].max() >= MIN_SIDE_PX],
        np.int64,
    ).reshape(-1, 3)  # fmt: skip
    objects = objects[rng.permutation(len(objects))]
    random_subset = np.concatenate([objects[objects[:, 2] == c][:MAX_OBJECTS] for c in range(len(classes))])
    by_picture: dict[int, list[int]] = {}
    for i, j, _ in sorted(random_subset.tolist()):
        by_picture.setdefault(i, []).append(j)
    features, labels, owners = [], [], []
    for i, members in bar(list(by_picture.items()), title):
        image, layout = windows[i].pixels(), layouts[i]
        boxes, found = layout.boxes[members], layout.labels[members]
        if background:
            empty = _empty_places(layout, boxes, rng)
            boxes, found = np.concatenate([boxes, empty]), np.concatenate([found, np.ones(len(empty), np.int64)])
        features.append(encode([crop(image, box, layout.kind) for box in boxes]))
        labels.append(found)
        owners.append(np.full(len(found), i))
    return np.concatenate(features), np.concatenate(labels), np.concatenate(owners)


def _empty_places(layout: Layout, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each box (K, 5) moved to a random place without labels; skipped where MAX_TRIES random places overlap labels."""
    occupied, places = np.concatenate([layout.boxes, layout.ignored]), []
    for box in boxes:
        for _ in range(MAX_TRIES):
            moved = box.copy()
            moved[:2] = rng.uniform(0, layout.size)
            if not geometry.iou(moved[None], occupied).any():
                places.append(moved)
                break
    return np.array(places, np.float32).reshape(-1, 5)


def _equal(labels: np.ndarray, counts: np.ndarray, scored: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of `counts[c]` random objects of each class c in `scored`."""
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[: counts[c]] for c in scored])


def _accuracies(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Test accuracy (len(scored),) for each class in `scored` of a classifier trained on (x, y)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x, y)
    right = classifier.predict(test_x) == test_y
    return np.array([right[test_y == c].mean() for c in scored])
