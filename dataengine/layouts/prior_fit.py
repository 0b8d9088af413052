"""Fitting a `Prior` to a labelled data set, in seconds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Dataset, Layout
from dataengine.errors import UserError
from dataengine.layouts.constraints import WHOLE, overlap
from dataengine.layouts.growth import grow_order, is_upright, stance, steps
from dataengine.layouts.prior import STANCES, ObjectPrior, Prior, Row, SceneType, SizeModel, Step, Steps, quantiles
from dataengine.layouts.windows import random_windows

_GRID = 4  # cells along each side of the image, for places
_COUNT_RANKS = (0.3, 0.55, 0.75, 0.88, 0.96)  # where scene types of one set of classes part, from few objects to many
_MIN_LAYOUTS = 200  # a set of classes seen less often is one scene type
_MAX_SCENES = 60
_MAX_KINDS = 12  # kinds of steps for a pair of classes
_MIN_STEPS = 12  # pairs of classes that follow one another less often are placed without regard to one another
_ALIKE = (0.35, 0.35, 0.4, 0.3, 0.3)  # differences that set two steps apart equally: `_numbers`
_EDGE = 1.0  # pixels from the edge of a picture within which a box is taken to be cut by it
_AT_EDGE = 0.998  # visible share that marks such a box
_REPEAT = 0.35  # a step repeats the one before when it differs by less than this share of its length


def fit(
    layouts: Dataset | Iterable[Layout], size: tuple[int, int] = (256, 256), *, windows: int = 4, name: str = ""
) -> Prior:
    """What layouts of `size` (width, height), cut at random from larger ones, are like.

    windows: how many are cut from each layout. The same data give the same prior.
    Raises `UserError` when no layout has an object.
    """
    if isinstance(layouts, Dataset):
        name = name or layouts.name
        layouts = [sample.layout for sample in layouts]
    pieces = random_windows(map(_edge_marked, layouts), size, np.random.default_rng(0), windows, border="keep")
    if not pieces:
        raise UserError("no layout has an object in it; give a data set with labelled objects")
    classes = pieces[0].classes
    acquisitions = [_rounded(layout.acquisition) for layout in pieces]
    distinct = [taken for taken, _ in Counter(acquisitions).most_common()]
    field = _Field.of(pieces)
    sizes, scene_scale = _size_models(field)
    return Prior(
        name=name,
        kind=pieces[0].kind,
        classes=classes,
        size=size,
        n_layouts=len(pieces),
        n_objects=len(field.label),
        mean_log_altitude=field.mean_log_altitude,
        mean_cos_angle=field.mean_cos_angle,
        follows=_rounded_share(np.mean(field.parent == np.arange(len(field.label)) - 1)),
        acquisitions=distinct,
        scenes=_scenes(pieces, scene_scale, [distinct.index(taken) for taken in acquisitions]),
        objects={classes[label]: _object(field, label, size) for label, size in sizes.items()},
        steps=_steps(field, classes),
    )


def _edge_marked(layout: Layout) -> Layout:
    """Objects that the edge of the picture itself cuts get a visible share, unknown as it is, that is not 1."""
    if not len(layout):
        return layout
    aabb = geometry.to_aabb(layout.boxes)
    at_edge = (aabb[:, :2] <= _EDGE).any(1) | (aabb[:, 2:] >= np.array(layout.size) - _EDGE).any(1)
    return replace(layout, visible=np.where(at_edge & (layout.visible == 1), np.float32(_AT_EDGE), layout.visible))


@dataclass(frozen=True)
class _Field:
    """The objects of all layouts one after another, each layout in the order in which it grows.

    parent: index of the object that each one joins, of itself for the first of a layout.
    """

    boxes: np.ndarray  # (N, 5) float64
    label: np.ndarray
    owner: np.ndarray  # index of the layout
    parent: np.ndarray
    place: np.ndarray  # (N, 2), 0 to 1 across the image
    cut: np.ndarray
    known: np.ndarray  # whether the box is the whole object's, not cut by the edge of the picture it comes from
    covered: np.ndarray  # largest overlap with an earlier object
    log_side: np.ndarray  # of pixels, or of metres where the GSD is known
    altitude: np.ndarray  # log metres, 0 at the mean and where unknown
    cosine: np.ndarray  # of the camera angle, likewise
    mean_log_altitude: float
    mean_cos_angle: float

    @classmethod
    def of(cls, layouts: list[Layout]) -> _Field:
        parts = defaultdict(list)
        start = 0
        for layout in layouts:
            order, joined = grow_order(layout.boxes)
            boxes = layout.boxes[order].astype(float)
            shares = np.tril(overlap(boxes, boxes), -1)
            parts["boxes"].append(boxes)
            parts["label"].append(layout.labels[order])
            parts["parent"].append(joined + start)
            parts["place"].append(boxes[:, :2] / layout.size)
            parts["cut"].append(layout.visible[order] < WHOLE)
            parts["known"].append(np.abs(layout.visible[order] - _AT_EDGE) > 1e-6)
            parts["covered"].append(shares.max(1))
            start += len(layout)
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        owner = np.repeat(np.arange(len(layouts)), [len(layout) for layout in layouts])
        taken = [layout.acquisition for layout in layouts]
        altitude = np.array([np.log(a.altitude_m) if a.altitude_m else np.nan for a in taken])
        cosine = np.array(
            [np.nan if a.camera_angle_deg is None else np.cos(np.radians(a.camera_angle_deg)) for a in taken]
        )
        gsd = np.array([np.log(a.gsd_m) if a.gsd_m else 0.0 for a in taken])
        means = [round(float(np.nanmean(v)), 4) if np.isfinite(v).any() else 0.0 for v in (altitude, cosine)]
        sides = np.log(np.sqrt(joined["boxes"][:, 2] * joined["boxes"][:, 3])) + gsd[owner]
        return cls(
            **joined, owner=owner, log_side=sides, altitude=np.nan_to_num(altitude - means[0])[owner],
            cosine=np.nan_to_num(cosine - means[1])[owner], mean_log_altitude=means[0], mean_cos_angle=means[1],
        )  # fmt: skip


def _rounded(taken: Acquisition) -> Acquisition:
    """What scenes are told apart by, coarse enough to recur. The day of the picture has no say in its layout."""
    values = {name: float(f"{v:.2g}") for name in ("gsd_m", "altitude_m") if (v := getattr(taken, name)) is not None}
    if taken.camera_angle_deg is not None:
        values["camera_angle_deg"] = 5.0 * round(taken.camera_angle_deg / 5)
    return Acquisition(**values, night=taken.night)


def _rounded_share(value: float) -> float:
    return round(float(np.clip(value, 0, 1)), 4)


def _scenes(layouts: list[Layout], scale: np.ndarray, taken: list[int]) -> tuple[SceneType, ...]:
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, layout in enumerate(layouts):
        groups[tuple(np.unique(layout.labels))].append(i)
    scenes = []
    for labels, members in groups.items():
        totals = np.array([len(layouts[i]) for i in members])
        ranked = np.array(members)[np.argsort(totals, kind="stable")]
        ranks = [int(rank * len(members)) for rank in _COUNT_RANKS] if len(members) >= _MIN_LAYOUTS else []
        for part in np.split(ranked, ranks):
            counts = np.array([np.bincount(layouts[i].labels, minlength=labels[-1] + 1) for i in part])
            names = layouts[0].classes
            scenes.append(
                SceneType(
                    weight=round(len(part) / len(layouts), 5),
                    counts={names[label]: quantiles(counts[:, label], 9) for label in labels},
                    scale=quantiles(scale[part], 9),
                    taken=dict(Counter(taken[i] for i in part).most_common()),
                )
            )
    return tuple(sorted(scenes, key=lambda scene: -scene.weight)[:_MAX_SCENES])


def _size_models(field: _Field) -> tuple[dict[int, SizeModel], np.ndarray]:
    """The size of each class given the acquisition, and each layout's own scale (L,) beside it."""
    fits, residual = {}, np.zeros(len(field.label))
    for label in np.unique(field.label):
        own = field.label == label
        design = np.column_stack([np.ones(own.sum()), field.altitude[own], field.cosine[own]])
        ridge = np.diag([1e-9, 0.5, 0.5])  # a class seen a few times has no slope of its own
        weights = np.linalg.solve(design.T @ design + ridge, design.T @ field.log_side[own])
        residual[own] = field.log_side[own] - design @ weights
        fits[int(label)] = [round(float(value), 4) for value in weights]
    count = np.bincount(field.owner)
    mean = np.bincount(field.owner, residual) / count
    within = residual - mean[field.owner]
    spread = (within**2).sum() / max(1, (count - 1).sum())  # variance inside a layout
    between = max(float(np.var(mean) - np.mean(spread / count)), 1e-6)
    scale = mean * between / (between + spread / count)  # a layout of one object says little of its scale
    several = count[field.owner] > 1
    models = {}
    for label, (log_side, per_log_altitude, per_cos_angle) in fits.items():
        own = (field.label == label) & several & field.known
        values = residual[own] - scale[field.owner[own]] if own.any() else np.zeros(2)
        models[label] = SizeModel(
            log_side=log_side,
            per_log_altitude=per_log_altitude,
            per_cos_angle=per_cos_angle,
            residual=quantiles(values, 17),
        )
    return models, scale


def _object(field: _Field, label: int, size: SizeModel) -> ObjectPrior:
    own = field.label == label
    boxes = field.boxes[own & field.known] if (own & field.known).any() else field.boxes[own]
    theta, aspect = boxes[:, 4], np.log(np.maximum(boxes[:, 2] / boxes[:, 3], 1))
    upright, lie = is_upright(theta), stance(theta)
    cell = np.clip((field.place[own] * _GRID).astype(int), 0, _GRID - 1)
    places = np.zeros((_GRID, _GRID))
    np.add.at(places, (cell[:, 1], cell[:, 0]), 1)
    by_stance = [aspect[lie == k] if (lie == k).sum() >= 5 else aspect for k in range(3)]
    return ObjectPrior(
        size=size,
        aspect={stance_name: quantiles(values, 13) for stance_name, values in zip(STANCES, by_stance, strict=True)},
        upright=_rounded_share(upright.mean()),
        standing=_rounded_share((np.abs(theta[upright]) > np.pi / 4).mean()) if upright.any() else 0.5,
        heading=quantiles(theta[~upright], 17) if not upright.all() else (0.0, 0.0),
        places=tuple(tuple(round(float(value), 4) for value in row) for row in places / places.sum()),
        cut=_rounded_share(field.cut[own].mean()),
        # The one in a hundred that is covered most is mostly a fault of labelling.
        overlap=quantiles(np.minimum(field.covered[own], np.quantile(field.covered[own], 0.99)), 21),
    )


def _steps(field: _Field, classes: tuple[str, ...]) -> tuple[Steps, ...]:
    children = np.flatnonzero(field.parent != np.arange(len(field.label)))
    parents = field.parent[children]
    of, to = field.label[parents], field.label[children]
    upright = is_upright(field.boxes[:, 4])
    result = []
    for pair in sorted(set(zip(of.tolist(), to.tolist(), strict=True))):
        own = children[(of == pair[0]) & (to == pair[1])]
        if len(own) < _MIN_STEPS:
            continue
        whole = own[field.known[own] & field.known[field.parent[own]]]
        after_upright = upright[field.parent[own]]
        after = [
            _rounded_share(upright[own[chosen] if chosen.any() else own].mean())
            for chosen in (~after_upright, after_upright)
        ]
        result.append(
            Steps(
                of=classes[pair[0]],
                to=classes[pair[1]],
                share=_rounded_share(len(own) / len(children)),
                upright_after=tuple(after),
                kinds=_kinds(_numbers(field, whole if len(whole) >= _MIN_STEPS else own)),
                row=_row(field, own) if pair[0] == pair[1] else None,
            )
        )
    return tuple(result)


def _numbers(field: _Field, children: np.ndarray) -> np.ndarray:
    """(N, 5): log(1 + u), log(1 + v), turn, log ratio of sides, log ratio of aspects of the steps to some objects."""
    first, second = field.boxes[field.parent[children]], field.boxes[children]
    found = steps(first, second)
    sides = np.log(second[:, 2] * second[:, 3] / (first[:, 2] * first[:, 3])) / 2
    aspects = np.log(second[:, 2] / second[:, 3] * first[:, 3] / first[:, 2])
    return np.column_stack([np.log1p(found[:, :2]), found[:, 2], sides, aspects])


def _kinds(numbers: np.ndarray) -> tuple[Step, ...]:
    """Steps in groups of like ones, by k-means, for the five numbers depend on one another."""
    from scipy.cluster.vq import kmeans2

    groups = int(np.clip(len(numbers) // 12, 1, _MAX_KINDS))
    _, group = kmeans2(numbers / _ALIKE, groups, minit="++", seed=np.random.default_rng(0))
    kinds = []
    for k in np.unique(group):
        own = numbers[group == k]
        along, across, turn, larger, longer = (quantiles(own[:, column], 7) for column in range(5))
        kinds.append(
            Step(
                weight=round(len(own) / len(numbers), 4),
                along=along,
                across=across,
                turn=turn,
                larger=larger,
                longer=longer,
            )
        )
    return tuple(sorted(kinds, key=lambda kind: -kind.weight))


def _row(field: _Field, children: np.ndarray) -> Row | None:
    """Steps of a class that repeat the one before; None where there are too few to tell."""
    centres, parents = field.boxes[:, :2], field.parent
    before = parents[parents[children]]
    chained = children[(before != parents[children]) & (field.label[before] == field.label[children])]
    step = centres[chained] - centres[parents[chained]]
    last = centres[parents[chained]] - centres[parents[parents[chained]]]
    length = np.maximum(np.hypot(*last.T), 1e-6)
    repeated = np.hypot(*(step - last).T) < _REPEAT * length
    if repeated.sum() < _MIN_STEPS:
        return None
    repeats = np.zeros(len(field.label), bool)
    repeats[chained] = repeated
    after = repeats[parents[chained]]
    share = [float(repeated[chosen].mean()) if chosen.any() else float(repeated.mean()) for chosen in (~after, after)]
    axis = (last / length[:, None])[repeated]
    change = (step - last)[repeated]
    along = (change * axis).sum(1) / length[repeated]
    across = (change[:, 1] * axis[:, 0] - change[:, 0] * axis[:, 1]) / length[repeated]
    numbers = _numbers(field, chained[repeated])
    return Row(
        share=tuple(_rounded_share(value) for value in share),
        wobble=quantiles(np.concatenate([along, across, -across]), 9),
        turn=quantiles(numbers[:, 2], 9),
        larger=quantiles(numbers[:, 3], 9),
        longer=quantiles(numbers[:, 4], 9),
    )
