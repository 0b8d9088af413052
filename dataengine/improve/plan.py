"""What a round synthesises: the plain recipe first, then more of what the detector fails on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dataengine.data.layout import Layout
from dataengine.improve.aspects import Aspects
from dataengine.improve.failures import Failures, Group
from dataengine.improve.grounds import grid

PLAIN = {"strength": 0.3, "augment_scenes": True, "rows": 0.3}  # fields of `Recipe`; measured in docs/lift.md
MORE_ROWS = 0.5
MIN_EXCESS = 2.0  # misses of a group beyond those at the recall of all objects, for it to count as weak
MAX_WEAK = 3  # groups of an aspect
MIN_CLASS_OBJECTS = 10  # in the training part; fewer would repeat too often
MIN_SHARE, MAX_SHARE, RAISE = 0.1, 0.4, 2.0  # of a weak class among the painted objects; how often its usual share
MAX_TOTAL_SHARE = 0.8
CHOSEN_SHARE, MIN_CHOSEN = 0.5, 20  # of the training images, for layouts and for scenes


@dataclass(frozen=True)
class Inventory:
    """What the training images show. names: of the images. objects: of each image, how many objects each (aspect, name)
    has. grounds: float64 (I, K), share of each kind of ground in each image."""

    names: tuple[str, ...]
    objects: list[Counter]
    grounds: np.ndarray


@dataclass(frozen=True)
class Plan:
    """changes: fields of the recipe that differ from PLAIN. layouts, scenes: names of the training images that layouts
    and objects, or scenes, are taken from; () for all. why: what is made, and for what, as phrases."""

    changes: dict = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    why: tuple[str, ...] = ("like the training images",)


def take_inventory(
    names: Sequence[str], images: Sequence[Callable[[], np.ndarray]], layouts: Sequence[Layout], aspects: Aspects
) -> Inventory:
    """What training images show. images: functions that load uint8 (H, W, 3) RGB."""
    objects, grounds = [], []
    for load, layout in zip(images, layouts, strict=True):
        image, spots = load(), grid(layout)
        groups = aspects.of(image, layout, layout.boxes, layout.names())
        objects.append(Counter(key for group in groups for key in group.items()))
        kinds = aspects.grounds.kinds(image, layout, spots)
        counts = np.bincount(kinds, minlength=len(aspects.grounds.names))
        grounds.append(counts / max(1, counts.sum()))
    return Inventory(tuple(names), objects, np.array(grounds))


def plan_round(
    failures: Failures,
    training: Inventory,
    ground_names: Sequence[str],
    harmed: Sequence[str] = (),
    filtered: bool = False,
) -> Plan:
    """What to synthesise after a round, from where the best detector so far fails on the validation part.

    Weak are groups with more misses than at the recall of all objects. Weak classes get a larger share of the painted
    objects; weak sizes, crowding and acquisitions choose the training images that layouts and objects come from; kinds
    of ground with misses and false alarms choose those that scenes come from, so that the detector also learns what is
    not an object there. harmed: classes that the last round made worse; they are not painted. filtered: the filter was
    on in a last round that brought nothing; it is left out, since it removes what its detector finds hard.
    """
    weak = {aspect: _weak(failures, aspect) for aspect in dict.fromkeys(group.aspect for group in failures.groups)}
    changes, why = {}, []
    known = {name for counts in training.objects for aspect, name in counts if aspect == "class"}
    harmed = harmed if known - set(harmed) else ()  # something has to be painted
    shares, phrases = _balance(weak.get("class", []), training, harmed)
    why += phrases
    if shares:
        changes["balance"] = shares
    if harmed:
        changes["classes"] = sorted(known - set(harmed))
        why.append(f"no {' and '.join(harmed)}, which the last round made worse")
    if any(group.name == "touching" for group in weak.get("crowding", [])):
        changes["rows"] = MORE_ROWS
    of_layouts = [group for aspect, groups in weak.items() if aspect not in ("class", "ground") for group in groups]
    layouts = ()
    if of_layouts and not harmed:
        rare = [any(counts["class", name] for name in shares) for counts in training.objects]
        layouts = _chosen(_share_of_groups(training, of_layouts), training.names, rare)
    if layouts:
        missed = [f"{group.aspect} {group.name} ({group.objects - group.found} missed)" for group in of_layouts]
        why.append(f"layouts of {len(layouts)} training images with most objects of {', '.join(missed)}")
    badness = _badness(failures, ground_names)
    scenes = _chosen(training.grounds @ badness, training.names) if badness.any() else ()
    if scenes:
        worst = ground_names[int(badness.argmax())]
        why.append(f"scenes of {len(scenes)} training images with most ground of failures, mainly {worst}")
    if filtered:
        changes["filter"] = "off"
        why.append("without the filter, which brought nothing")
    return Plan(changes, layouts, scenes, tuple(why) or ("more like the training images",))


def _weak(failures: Failures, aspect: str) -> list[Group]:
    """The groups of an aspect with the most misses beyond those at the recall of all objects."""
    excess = {
        group.name: group.objects * failures.recall - group.found for group in failures.groups if group.aspect == aspect
    }
    groups = [group for group in failures.groups if group.aspect == aspect and excess[group.name] >= MIN_EXCESS]
    return sorted(groups, key=lambda group: -excess[group.name])[:MAX_WEAK]


def _balance(weak: Sequence[Group], training: Inventory, harmed: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Minimum shares of the weak classes among painted objects, for `Recipe.balance`, and what that means."""
    counts: Counter = Counter()
    for objects in training.objects:
        counts.update({name: n for (aspect, name), n in objects.items() if aspect == "class"})
    if len(counts) < 2:
        return {}, []
    shares, phrases = {}, []
    for group in weak:
        if group.name in harmed:
            continue
        if counts[group.name] < MIN_CLASS_OBJECTS:
            phrases.append(f"no more {group.name}: the training part has {counts[group.name]}, too few to vary")
            continue
        usual = counts[group.name] / counts.total()
        share = round(min(MAX_SHARE, max(MIN_SHARE, RAISE * usual)), 3)
        if usual < share and sum(shares.values()) + share <= MAX_TOTAL_SHARE:
            shares[group.name] = share
            missed = f"{group.objects - group.found} of {group.objects} missed"
            phrases.append(f"{group.name} as {share:.0%} of the objects ({usual:.0%} in real images; {missed})")
    return shares, phrases


def _share_of_groups(training: Inventory, groups: Sequence[Group]) -> np.ndarray:
    """Float64 (I,): objects of these groups in each image, an object once for each of its groups, as a share of all."""
    keys = {(group.aspect, group.name) for group in groups}
    shares = []
    for counts in training.objects:
        n = sum(count for (aspect, _), count in counts.items() if aspect == "class")
        shares.append(sum(counts[key] for key in keys) / max(1, n))
    return np.array(shares)


def _badness(failures: Failures, ground_names: Sequence[str]) -> np.ndarray:
    """Float64 (K,): for each kind of ground, misses beyond those at the recall of all objects, and false alarms."""
    badness = np.zeros(len(ground_names))
    for group in failures.groups:
        if group.aspect == "ground":
            excess = group.objects * failures.recall - group.found if group.objects else 0.0
            badness[ground_names.index(group.name)] = max(0.0, excess) + group.false_alarms
    return badness


def _chosen(weights: np.ndarray, names: Sequence[str], always: Sequence[bool] = ()) -> tuple[str, ...]:
    """Names of the half of the images with the largest weights, at least MIN_CHOSEN, and of those in `always`, in their
    order; () where that would be all, or where all weights are equal."""
    n = max(MIN_CHOSEN, round(CHOSEN_SHARE * len(names)))
    chosen = {*np.argsort(-weights, kind="stable")[:n].tolist(), *np.flatnonzero(always).tolist()}
    if len(chosen) >= len(names) or np.ptp(weights) == 0:
        return ()
    return tuple(names[i] for i in sorted(chosen))
