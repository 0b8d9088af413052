"""Splits that do not leak: what belongs together (one flight, one scene) is never divided."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError

MAX_GAP = 60  # frame numbers; see `flight_key`


def split_by_group(
    dataset: Dataset, fractions: Sequence[float], seed: int, key: Callable[[Sample], Hashable]
) -> list[Dataset]:
    """Data sets with about these fractions of the images; samples of one `key` all go to the same of them.

    Groups are shuffled with `seed`, then the larger ones placed first, each where most images are still missing, so
    that the fractions are met as nearly as the groups allow. The order of samples is kept. The first data set carries
    the problems. Raises `UserError` for fractions that are not positive or do not add up to 1, and when there are fewer
    groups than fractions.
    """
    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"fractions {', '.join(map(str, fractions))} must be positive and add up to 1")
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, sample in enumerate(dataset):
        groups[key(sample)].append(index)
    if len(groups) < len(fractions):
        raise UserError(
            f"{dataset.name or 'the data set'} has {len(groups)} groups, too few for {len(fractions)} splits"
        )
    members = list(groups.values())
    order = np.random.default_rng(seed).permutation(len(members))
    members = sorted((members[i] for i in order), key=len, reverse=True)
    wanted = np.array(fractions) * len(dataset)
    parts: list[list[int]] = [[] for _ in fractions]
    for left, group in zip(range(len(members), 0, -1), members, strict=True):
        empty = [i for i, part in enumerate(parts) if not part]
        # the last groups go to the splits that would else stay empty
        choice = empty if len(empty) >= left else range(len(parts))
        target = max(choice, key=lambda i: wanted[i] - len(parts[i]))
        parts[target] += group
    return [
        replace(
            dataset, samples=[dataset.samples[i] for i in sorted(part)], problems=dataset.problems if n == 0 else []
        )
        for n, part in enumerate(parts)
    ]


def parse_parts(text: str) -> dict[str, float]:
    """{name: share}, the shares adding up to 1, of `train=80,test=20`. Raises UserError for anything else."""
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
    """n of its images, in their order. Raises UserError where there are fewer."""
    if n > len(dataset):
        raise UserError(f"--images {n}: the data set has {len(dataset)}; give a smaller number, or leave it out.")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:n])
    return replace(dataset, samples=[dataset.samples[i] for i in chosen])


def group_key(dataset: Dataset, group: str | None) -> Callable[[Sample], Hashable]:
    """What stays together: each image by itself, those in whose names the regular expression `group` finds the same, or
    with "flight" those of a HIT-UAV flight. Raises UserError for an expression that is none."""
    if group is None:
        return lambda sample: sample.name
    if group == "flight":
        return flight_key(dataset)
    check_group(group)
    return lambda sample: group_of(sample.name, group)


def check_group(group: str) -> None:
    """Raises UserError for a --group that is no regular expression."""
    try:
        re.compile(group)
    except re.error as error:
        raise UserError(f"--group {group}: no regular expression ({error}).") from None


def group_of(name: str, group: str) -> str:
    """What the regular expression finds in a name, or the whole of it: equal for what belongs together."""
    return found[0] if (found := re.search(group, name)) else name


def flight_key(dataset: Dataset, max_gap: int = MAX_GAP) -> Callable[[Sample], Hashable]:
    """Key of the flight that a HIT-UAV frame belongs to: date, altitude, camera angle, day or night, and run of frames.

    The frame number ends the file name (`1_60_30_0_00004`). Frames of equal settings whose numbers are at most
    `max_gap` apart are one run. Neighbouring frames show nearly the same ground, so they must stay together; the
    published frames were thinned out, which leaves gaps of some dozen numbers within a run. A name without a number
    belongs to the run of all such names with the same settings.
    """
    numbers: dict[tuple, list[tuple[int, str]]] = defaultdict(list)
    keys: dict[str, Hashable] = {}
    for sample in dataset:
        taken = sample.layout.acquisition
        settings = (taken.date, taken.altitude_m, taken.camera_angle_deg, taken.night)
        found = re.search(r"(\d+)$", sample.name)
        if found:
            numbers[settings].append((int(found[1]), sample.name))
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
