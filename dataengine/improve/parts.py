"""The training, validation and test part of a data set: those that it has, or divided without leaks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from dataengine.data import formats
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset
from dataengine.data.split import divided_names, group_key, likely_group, split_by_group
from dataengine.data.staging import written_splits
from dataengine.errors import UserError
from dataengine.files import remove
from dataengine.folders import sha256_of

ROLES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "calibration"),
    "test": ("test", "testing"),
}  # part: names of splits and of folders that serve as it, the first that is there
DIVIDED_SHARE = 0.2  # of the training images, for each part that the data set lacks
SPLIT_SEED = 0


def write_parts(path: Path, out: Path, format: str | None = None, group: str | None = None) -> list[str]:
    """Write the parts of the data set at `path` as COCO data sets `out/train`, `out/val` and `out/test`.

    Splits of the data set are taken as they are, also those that `dataengine data split` wrote. A part that is missing
    is divided from the training images, 20 % of them, by `group` (see `data.split.group_key`), or else by what the
    names suggest. An image that is byte-equal to one of a later part is left out of the earlier one, in the order
    train, val, test. `out` appears complete or not at all.

    Returns what was done, as sentences. Raises UserError for unreadable data and for a part without objects.
    """
    parts, notes = _divided(path, format, group)
    parts = _without_copies(parts, notes)
    staged = out.with_name(f".{out.name}")
    remove(staged)
    for name, part in parts.items():
        readable = [sample for sample in part if read_picture(sample) is not None]
        if len(readable) < len(part):
            notes.append(f"{len(part) - len(readable)} images of {name} cannot be read and are left out")
        objects = sum(int((~sample.layout.difficult).sum()) for sample in readable)
        if not objects:
            raise UserError(
                f"{path}: the part {name} ({len(readable)} images) has no labelled object; give a data set with more "
                "labelled images, or with other splits."
            )
        problems = formats.write(replace(part, samples=readable), staged / name, "coco", split=name)
        notes.append(f"{name}: {len(readable)} images, {objects} objects")
        if problems:
            notes.append(f"{len(problems)} problems in writing {name}, such as {problems[0]}")
    remove(out)  # of a call that was killed before it could say that it was done
    os.replace(staged, out)
    return notes


def _divided(path: Path, format: str | None, group: str | None) -> tuple[dict[str, Dataset], list[str]]:
    """The parts by name, in the order of ROLES, and what was done, as sentences."""
    inner = sorted(path.iterdir()) if path.is_dir() else []
    folders = {entry.name.lower(): entry for entry in inner if entry.is_dir() and written_splits(entry)}
    given = {
        role: folders[found]
        for role, names in ROLES.items()
        if (found := next((name for name in names if name in folders), None))
    }
    unused = [str(entry) for entry in folders.values() if entry not in given.values()] if "train" in given else []
    if "train" in given:  # what `dataengine data split` wrote
        classes = list(dict.fromkeys(name for part in given.values() for name in formats.read(part, format).classes))
        parts = {name: formats.read(part, format, classes=classes) for name, part in given.items()}
    else:
        format = format or formats.recognize(path)
        splits = formats.splits(path, format)
        named = {
            role: found
            for role, names in ROLES.items()
            if (found := next((split for name in names for split in splits if split.lower() == name), None))
        }
        whole = formats.read(path, format)
        parts = {"train": whole}
        if "train" in named:
            classes = list(whole.classes)  # a rare class may be absent from one of them
            parts = {role: formats.read(path, format, split=name, classes=classes) for role, name in named.items()}
    notes = [note for part in parts.values() for note in part.notes]
    notes += [f"{folder} is not used: improve uses one part each of {', '.join(ROLES)}" for folder in unused]
    notes += [
        f"{len(p.problems)} problems in {name}, such as {p.problems[0]}" for name, p in parts.items() if p.problems
    ]
    if len(parts) > 1:
        notes.append(f"{' and '.join(parts)} are the data set's own")
    missing = [role for role in ROLES if role not in parts]
    if missing:
        pool, kept = parts["train"], 1 - DIVIDED_SHARE * len(missing)
        group = group or ("flight" if pool.format == "hit-uav" else likely_group([sample.name for sample in pool]))
        shares = [kept, *[DIVIDED_SHARE] * len(missing)]
        divided = split_by_group(pool, shares, SPLIT_SEED, group_key(pool, group))
        parts |= dict(zip(["train", *missing], divided, strict=True))
        each = " each" if len(missing) > 1 else ""
        together = f"; images with the same match of {group!r} stay together" if group else ""
        notes.append(f"{' and '.join(missing)}: {DIVIDED_SHARE:.0%} of the training images{each}{together}")
    parts = {role: parts[role] for role in ROLES}
    if warning := divided_names(parts):
        notes.append(warning)
    return parts, notes


def _without_copies(parts: dict[str, Dataset], notes: list[str]) -> dict[str, Dataset]:
    """The parts without images that are byte-equal to one of a later part: a model would have seen them."""
    later: set[str] = set()
    result = {}
    for name in reversed(parts):
        hashes = [sha256_of(sample.image) if sample.image.is_file() else sample.name for sample in parts[name]]
        samples = [sample for sample, found in zip(parts[name], hashes, strict=True) if found not in later]
        if len(samples) < len(hashes):
            notes.append(
                f"{len(hashes) - len(samples)} images of {name} are left out, since a later part has the same images"
            )
        later.update(hashes)
        result[name] = replace(parts[name], samples=samples)
    return {name: result[name] for name in parts}
