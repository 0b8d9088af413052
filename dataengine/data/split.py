"""Splits without leakage: images that belong together, such as those of one flight or scene, are not separated."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError, counted

MAX_FRAME_GAP = 60  # see `flight_key`


def split_by_group(
    dataset: Dataset, fractions: Sequence[float], seed: int, key: Callable[[Sample], Hashable]
) -> list[Dataset]:
    """Data sets with about these fractions of the images. Samples with the same `key` go to the same data set.

    Groups are shuffled with `seed` and assigned in order of decreasing size, each to the data set that lacks most
    images, so that the fractions are met as closely as the groups allow. The order of samples is kept. The first data
    set has the problems. Raises UserError if fractions are not positive or do not add up to 1, or if there are fewer
    groups than fractions.
    """
    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"fractions {', '.join(map(str, fractions))} must be positive and add up to 1")
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, sample in enumerate(dataset):
        groups[key(sample)].append(index)
    if len(groups) < len(fractions):
        raise UserError(
            f"{dataset.name or 'the data set'} has {counted(len(groups), 'group')} of images, too few for "
            f"{len(fractions)} parts; divide it into fewer, or give a --group that tells more groups apart"
        )
    members = list(groups.values())
    order = np.random.default_rng(seed).permutation(len(members))
    members = sorted((members[i] for i in order), key=len, reverse=True)
    target_sizes = np.array(fractions) * len(dataset)
    parts: list[list[int]] = [[] for _ in fractions]
    for left, group in zip(range(len(members), 0, -1), members, strict=True):
        empty = [i for i, part in enumerate(parts) if not part]
        # the last groups go to parts that would otherwise remain empty
        candidates = empty if len(empty) >= left else range(len(parts))
        target = max(candidates, key=lambda i: target_sizes[i] - len(parts[i]))
        parts[target] += group
    return [
        replace(
            dataset, samples=[dataset.samples[i] for i in sorted(part)], problems=dataset.problems if n == 0 else []
        )
        for n, part in enumerate(parts)
    ]


MIN_HELD_OUT = 20  # images with objects that `judge.calibrate` asks for
DEFAULT_SHARES = (0.8, 0.2)
MAX_HELD_OUT_SHARE = 0.4
NEEDED_HELD_OUT = 1.1 * MIN_HELD_OUT  # images of a part, some of which may show no objects
CALIBRATION_NAMES = "cal", "val"  # beginnings of the names of parts that the filter is calibrated on


def default_parts(dataset: Dataset) -> dict[str, float]:
    """{"train", "test": fraction}: 80 and 20 %, or more for test, up to 40 %, so that it has enough images with objects
    to calibrate the filter on."""
    with_objects = sum(len(sample.layout) > 0 for sample in dataset)
    needed = NEEDED_HELD_OUT / max(with_objects, 1)
    test = min(max(DEFAULT_SHARES[1], needed), MAX_HELD_OUT_SHARE)
    return {"train": 1 - test, "test": test}


def small_parts(parts: dict[str, Dataset]) -> list[str]:
    """Warnings: parts other than the first that are too small to calibrate the filter on, and how to make them large
    enough, or that lack classes which the first has.

    Where a part is named for it (`calibration`, `val`), the others need not be large enough.

    >>> from dataengine.data.layout import Layout
    >>> def some(n, *labels):
    ...     layout = Layout([[4, 4, 2, 2, 0]] * len(labels), labels, ("car", "van"), (8, 8))
    ...     return Dataset(("car", "van"), [Sample(str(i), f"{i}.png", layout) for i in range(n)])
    >>> for warning in small_parts({"train": some(42, 0, 1), "calibration": some(9, 0, 1), "test": some(9, 0)}):
    ...     print(warning)
    calibration has 9 images with objects; to calibrate the filter on it takes 20: --parts \
train=52,calibration=37,test=11
    test has no van, so nothing can be said about this class with it
    >>> small_parts({"train": some(80, 0), "test": some(20, 0)})
    []
    >>> small_parts({"train": some(24, 0), "test": some(6, 0)})  # doctest: +ELLIPSIS
    ['test has 6 images with objects; to calibrate the filter on it takes 20, too many of these 30: ...']
    """
    present = {name: {c for s in part for c in s.layout.names()} for name, part in parts.items()}
    counts = {name: sum(len(sample.layout) > 0 for sample in part) for name, part in parts.items()}
    first, *others = parts
    warnings = []
    for name in [name for name in others if name.lower().startswith(CALIBRATION_NAMES)] or others:
        if counts[name] < MIN_HELD_OUT:
            warnings.append(
                f"{name} has {counted(counts[name], 'image')} with objects; to calibrate the filter on it takes "
                f"{MIN_HELD_OUT}{_larger(name, counts)}"
            )
    for name in others:
        missing = [c for c in parts[first].classes if c in present[first] - present[name]]
        if missing:
            these = "this class" if len(missing) == 1 else "these classes"
            warnings.append(f"{name} has no {', '.join(missing)}, so nothing can be said about {these} with it")
    return warnings


def _larger(name: str, counts: dict[str, int]) -> str:
    """The option that gives a part enough images to calibrate on, and the others what is left, in the same proportion;
    what to do instead where that is too much of all. counts: images with objects of each part."""
    total, rest = sum(counts.values()), sum(counts.values()) - counts[name]
    needed = ceil(100 * NEEDED_HELD_OUT / total) if total else 100
    if needed > 100 * MAX_HELD_OUT_SHARE:
        return f", too many of these {total}: label more images, or go without (dataengine synth --filter off)"
    shares = {other: max(1, int((100 - needed) * count / rest)) for other, count in counts.items()} | {name: needed}
    shares[next(iter(counts))] += 100 - sum(shares.values())
    return f": --parts {','.join(f'{part}={share}' for part, share in shares.items())}"


def parse_parts(text: str) -> dict[str, float]:
    """{name: fraction} of a text such as `train=80,test=20`; fractions add up to 1. Raises UserError for other texts.

    >>> parse_parts("train=80,test=20")
    {'train': 0.8, 'test': 0.2}
    """
    example = "give names and sizes, such as train=80,test=20"
    shares: dict[str, float] = {}
    for piece in text.split(","):
        name, _, size = (word.strip() for word in piece.partition("="))
        if not re.fullmatch(r"[\w-]+", name) or name in shares:
            raise UserError(f"--parts {text}: {name or piece!r} cannot be the name of a part; {example}.")
        try:
            shares[name] = float(size)
        except ValueError:
            raise UserError(f"--parts {text}: {size!r} is not the size of a part; {example}.") from None
        if not 0 < shares[name] < np.inf:
            raise UserError(f"--parts {text}: a part of {size} has no image; {example}.")
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def random_images(dataset: Dataset, n: int, seed: int) -> Dataset:
    """The data set with n random images, in their order. Raises UserError if it has fewer."""
    if n > len(dataset):
        raise UserError(f"--images {n}: the data set has {len(dataset)}; give a smaller number or omit the option.")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:n])
    return replace(dataset, samples=[dataset.samples[i] for i in chosen])


def group_key(dataset: Dataset, group: str | None) -> Callable[[Sample], Hashable]:
    """Key of the samples that stay together: those with the same match of the regular expression `group` in their
    names, those of one HIT-UAV flight for "flight", and each sample by itself for None. Raises UserError for an invalid
    expression."""
    if group is None:
        return lambda sample: sample.name
    if group == "flight":
        return flight_key(dataset)
    check_group(group)
    return lambda sample: group_of(sample.name, group)


TILE_OF = r".*(?=__\d+__\d+___\d+)"  # the image that a tile of `data tile` was cut from
BEFORE_NUMBER = r".*\D"  # all of a name but the number at its end
MIN_GROUPS = 20  # of names that differ in the number at the end only; fewer may be one for each class


def likely_group(names: Sequence[str]) -> str | None:
    """The expression that keeps together images whose names suggest that they show the same ground: tiles of one image,
    or names that differ in the number at the end only. None where the names suggest nothing.

    >>> likely_group([f"film{i}_{k}" for i in range(20) for k in range(2)]), likely_group(["P0001", "P0002"])
    ('.*\\\\D', None)
    """
    if any(re.match(TILE_OF, name) for name in names):
        return TILE_OF
    groups = len({group_of(name, BEFORE_NUMBER) for name in names})
    return BEFORE_NUMBER if MIN_GROUPS <= groups < len(names) else None


def divided_names(parts: dict[str, Dataset]) -> str:
    """A warning where images whose names differ in the number at the end only are in several parts; else "".

    These often are frames of one film or pieces of one photograph. Names of one kind only, such as P0001 to P2806, say
    nothing. parts: by name.

    >>> from dataengine.data.layout import Layout
    >>> def named(*names):
    ...     return Dataset((), [Sample(name, f"{name}.png", Layout([], [], (), (8, 8))) for name in names])
    >>> print(divided_names({"train": named("film1_03", "film2_01"), "test": named("film1_04", "film2_09")}))
    2 groups of images with names alike are divided among the parts, such as film1_03 in train and film1_04 in test. \
If they show the same ground (frames of a film, pieces of a photograph), the parts are not independent: \
--group '.*\\D' keeps them together
    >>> divided_names({"train": named("P0001"), "test": named("P0002")})
    ''
    """
    names = [(sample.name, part) for part, dataset in parts.items() for sample in dataset]
    group = TILE_OF if any(re.match(TILE_OF, name) for name, _ in names) else BEFORE_NUMBER
    members: dict[str, dict[str, str]] = defaultdict(dict)  # {group: {part: one of its images}}
    for name, part in names:
        members[group_of(name, group)].setdefault(part, name)
    divided = [places for places in members.values() if len(places) > 1]
    if len(members) < 2 or len(names) < 2 * len(divided) or not divided:
        return ""
    (part, name), (other_part, other_name) = list(divided[0].items())[:2]
    option = "flight" if any(dataset.format == "hit-uav" for dataset in parts.values()) else f"'{group}'"
    if len(members) < len(parts) and option != "flight":
        option = "with a regular expression"  # of these groups, each part would not get one
    return (
        f"{counted(len(divided), 'group')} of images with names alike {'are' if len(divided) > 1 else 'is'} divided "
        f"among the parts, such as {name} in {part} and {other_name} in {other_part}. If they show the same ground "
        f"(frames of a film, pieces of a photograph), the parts are not independent: --group {option} keeps them "
        "together"
    )


def check_group(group: str) -> None:
    """Raises UserError if --group is not a regular expression."""
    try:
        re.compile(group)
    except re.error as error:
        raise UserError(f"--group {group}: not a regular expression ({error}).") from None


def group_of(name: str, group: str) -> str:
    """The match of a regular expression in a name, else the name: equal for images that belong together.

    >>> group_of("flight3_0017", r"flight\\d+"), group_of("other", r"flight\\d+")
    ('flight3', 'other')
    """
    return match[0] if (match := re.search(group, name)) else name


def flight_key(dataset: Dataset, max_gap: int = MAX_FRAME_GAP) -> Callable[[Sample], Hashable]:
    """Key of the flight of a HIT-UAV frame: date, altitude, camera angle, day or night, and run of frames.

    File names end with the frame number (`1_60_30_0_00004`). Frames with the same settings whose numbers are at most
    `max_gap` apart form a run: neighbouring frames show nearly the same ground, and the published subset of frames has
    gaps of some dozen numbers within a run. Names without a number and with the same settings form a run too.
    """
    numbers: dict[tuple, list[tuple[int, str]]] = defaultdict(list)
    keys: dict[str, Hashable] = {}
    for sample in dataset:
        acquisition = sample.layout.acquisition
        settings = (acquisition.date, acquisition.altitude_m, acquisition.camera_angle_deg, acquisition.night)
        if match := re.search(r"(\d+)$", sample.name):
            numbers[settings].append((int(match[1]), sample.name))
        else:
            keys[sample.name] = (*settings, None)
    for settings, frames in numbers.items():
        frames.sort()
        run = previous = frames[0][0]
        for frame, name in frames:
            if frame - previous > max_gap:
                run = frame
            keys[name] = (*settings, run)
            previous = frame
    return lambda sample: keys[sample.name]
