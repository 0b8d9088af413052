"""Fits a `Prior` to a labelled data set, in seconds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Dataset, Layout
from dataengine.errors import UserError
from dataengine.layouts.constraints import FULLY_VISIBLE, overlap
from dataengine.layouts.growth import grow_order, is_upright, stance, steps
from dataengine.layouts.prior import STANCES, ObjectPrior, Prior, Row, SceneType, SizeModel, Step, Steps, quantiles
from dataengine.layouts.windows import random_windows

_SEED = 0  # of the windows and of k-means: the same data give the same prior
_GRID_CELLS = 4  # along each side of the image, for `ObjectPrior.places`
_COUNT_RANKS = (0.3, 0.55, 0.75, 0.88, 0.96)  # quantiles of the object count that separate scene types
_MIN_LAYOUTS = 200  # a set of classes in fewer layouts is one scene type
_MAX_SCENES = 60
_MAX_KINDS = 12  # kinds of steps for each pair of classes
_MIN_STEPS = 12  # pairs of classes with fewer steps are placed independently
_STEP_SCALES = (0.35, 0.35, 0.4, 0.3, 0.3)  # of the five numbers of a step (`_numbers`), for k-means
_EDGE_PX = 1.0  # a box within this distance of the image edge counts as cut by it
_VISIBLE_AT_EDGE = 0.998  # visible share that marks such a box
_MAX_DEVIATION = 0.35  # a step repeats the previous one when it differs by less than this share of its length


def fit(
    layouts: Dataset | Iterable[Layout], size: tuple[int, int] = (256, 256), *, windows: int = 4, name: str = ""
) -> Prior:
    """The statistics of windows of `size` (width, height) at random positions of the layouts.

    windows: number of windows from each layout. name: of the prior, by default the data set's. The same data give the
    same prior. Raises UserError when no layout has an object.
    """
    if isinstance(layouts, Dataset):
        name = name or layouts.name
        layouts = [sample.layout for sample in layouts]
    pieces = random_windows(map(_edge_marked, layouts), size, np.random.default_rng(_SEED), windows, border="keep")
    if not pieces:
        raise UserError("no layout has an object; give a data set with labelled objects.")
    classes = pieces[0].classes
    acquisitions = [_rounded(layout.acquisition) for layout in pieces]
    distinct = [acquisition for acquisition, _ in Counter(acquisitions).most_common()]
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
        scenes=_scenes(pieces, scene_scale, [distinct.index(acquisition) for acquisition in acquisitions]),
        objects={classes[label]: _object(field, label, size) for label, size in sizes.items()},
        steps=_steps(field, classes),
    )


def _edge_marked(layout: Layout) -> Layout:
    """Objects at the edge of the image get the visible share `_VISIBLE_AT_EDGE`, since the true one is unknown."""
    if not len(layout):
        return layout
    aabb = geometry.to_aabb(layout.boxes)
    at_edge = (aabb[:, :2] <= _EDGE_PX).any(1) | (aabb[:, 2:] >= np.array(layout.size) - _EDGE_PX).any(1)
    return replace(
        layout, visible=np.where(at_edge & (layout.visible == 1), np.float32(_VISIBLE_AT_EDGE), layout.visible)
    )


@dataclass(frozen=True)
class _Field:
    """The objects of all layouts, concatenated, each layout in the order of `growth.grow_order`."""

    boxes: np.ndarray  # (N, 5) float64
    label: np.ndarray
    owner: np.ndarray  # index of the layout
    parent: np.ndarray  # index of the neighbour that each object is placed next to, its own for the first of a layout
    place: np.ndarray  # (N, 2), centre over the image size
    cut: np.ndarray
    known: np.ndarray  # whether the box is that of the whole object, not cut by the image edge
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
            parts["cut"].append(layout.visible[order] < FULLY_VISIBLE)
            parts["known"].append(np.abs(layout.visible[order] - _VISIBLE_AT_EDGE) > 1e-6)
            parts["covered"].append(shares.max(1))
            start += len(layout)
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        owner = np.repeat(np.arange(len(layouts)), [len(layout) for layout in layouts])
        acquisitions = [layout.acquisition for layout in layouts]
        altitude = np.array([np.log(a.altitude_m) if a.altitude_m else np.nan for a in acquisitions])
        cosine = np.array(
            [np.nan if a.camera_angle_deg is None else np.cos(np.radians(a.camera_angle_deg)) for a in acquisitions]
        )
        gsd = np.array([np.log(a.gsd_m) if a.gsd_m else 0.0 for a in acquisitions])
        means = [round(float(np.nanmean(v)), 4) if np.isfinite(v).any() else 0.0 for v in (altitude, cosine)]
        sides = np.log(np.sqrt(joined["boxes"][:, 2] * joined["boxes"][:, 3])) + gsd[owner]
        return cls(
            **joined, owner=owner, log_side=sides, altitude=np.nan_to_num(altitude - means[0])[owner],
            cosine=np.nan_to_num(cosine - means[1])[owner], mean_log_altitude=means[0], mean_cos_angle=means[1],
        )  # fmt: skip


def _rounded(exact: Acquisition) -> Acquisition:
    """The acquisition rounded coarsely enough to recur, without the date, which does not influence layouts."""
    values = {name: float(f"{v:.2g}") for name in ("gsd_m", "altitude_m") if (v := getattr(exact, name)) is not None}
    if exact.camera_angle_deg is not None:
        values["camera_angle_deg"] = 5.0 * round(exact.camera_angle_deg / 5)
    return Acquisition(**values, night=exact.night)


def _rounded_share(value: float) -> float:
    return round(float(np.clip(value, 0, 1)), 4)


def _scenes(layouts: list[Layout], scale: np.ndarray, acquisitions: list[int]) -> tuple[SceneType, ...]:
    """Scene types by set of classes and number of objects; scale (L,) and acquisition index of each layout."""
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
                    taken=dict(Counter(acquisitions[i] for i in part).most_common()),
                )
            )
    return tuple(sorted(scenes, key=lambda scene: -scene.weight)[:_MAX_SCENES])


def _size_models(field: _Field) -> tuple[dict[int, SizeModel], np.ndarray]:
    """The size of each class given the acquisition, and the scale of each layout (L,) relative to it."""
    fits, residual = {}, np.zeros(len(field.label))
    for label in np.unique(field.label):
        own = field.label == label
        design = np.column_stack([np.ones(own.sum()), field.altitude[own], field.cosine[own]])
        ridge = np.diag([1e-9, 0.5, 0.5])  # shrinks the slopes of a rare class
        weights = np.linalg.solve(design.T @ design + ridge, design.T @ field.log_side[own])
        residual[own] = field.log_side[own] - design @ weights
        fits[int(label)] = [round(float(value), 4) for value in weights]
    count = np.bincount(field.owner)
    mean = np.bincount(field.owner, residual) / count
    within = residual - mean[field.owner]
    spread = (within**2).sum() / max(1, (count - 1).sum())  # variance inside a layout
    between = max(float(np.var(mean) - np.mean(spread / count)), 1e-6)
    scale = mean * between / (between + spread / count)  # shrinkage: a layout of one object has an uncertain scale
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
    cell = np.clip((field.place[own] * _GRID_CELLS).astype(int), 0, _GRID_CELLS - 1)
    places = np.zeros((_GRID_CELLS, _GRID_CELLS))
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
        # The largest one per cent of overlaps is mostly labelling errors.
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
    """(N, 5): log(1 + u), log(1 + v), turn, log ratio of sides and of aspects of the steps that lead to `children`."""
    first, second = field.boxes[field.parent[children]], field.boxes[children]
    found = steps(first, second)
    sides = np.log(second[:, 2] * second[:, 3] / (first[:, 2] * first[:, 3])) / 2
    aspects = np.log(second[:, 2] / second[:, 3] * first[:, 3] / first[:, 2])
    return np.column_stack([np.log1p(found[:, :2]), found[:, 2], sides, aspects])


def _kinds(numbers: np.ndarray) -> tuple[Step, ...]:
    """Steps clustered by k-means, since their five numbers depend on one another."""
    from scipy.cluster.vq import kmeans2

    groups = int(np.clip(len(numbers) // 12, 1, _MAX_KINDS))
    _, group = kmeans2(numbers / _STEP_SCALES, groups, minit="++", seed=np.random.default_rng(_SEED))
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
    """Steps of a class that repeat the previous one; None with fewer than `_MIN_STEPS`."""
    centres, parents = field.boxes[:, :2], field.parent
    before = parents[parents[children]]
    chained = children[(before != parents[children]) & (field.label[before] == field.label[children])]
    step = centres[chained] - centres[parents[chained]]
    last = centres[parents[chained]] - centres[parents[parents[chained]]]
    length = np.maximum(np.hypot(*last.T), 1e-6)
    repeated = np.hypot(*(step - last).T) < _MAX_DEVIATION * length
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
