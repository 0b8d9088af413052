"""What a page shows: a run folder, a labelled data set or a folder of images, brought to one form.

The form is a file of one JSON record a line, as a run's manifest has it. A run has it already; a data set's is written
to the cache folder. Nothing is ever written into the folder that is looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataengine.errors import UserError
from dataengine.files import read_text, write_whole


@dataclass(frozen=True)
class Source:
    """root: nothing outside of it is served. records: one JSON record a line. cache: a folder of its own, outside of
    root. fingerprint: another one when anything below root has changed. recipe, report: of a run, else empty."""

    root: Path
    kind: Literal["run", "data set"]
    title: str
    records: Path
    cache: Path
    fingerprint: str
    recipe: dict
    report: dict
    problems: tuple[str, ...] = ()

    @property
    def settings(self) -> dict:
        """The recipe that a run was made with, or layouts were drawn with; empty for a data set."""
        return self.recipe.get("recipe") or self.recipe.get("drawn_with") or {}


def cache_folder(root: Path) -> Path:
    """Where everything derived from a folder is kept: below $XDG_CACHE_HOME or ~/.cache. Raises UserError where it
    cannot be made."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dataengine" / "view"
    folder = base / hashlib.sha256(str(root).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}); set XDG_CACHE_HOME to a folder that you can write to."
        ) from None
    return folder


def store(cache: Path, name: str, fingerprint: str, suffix: str, content: bytes | str) -> Path:
    """Write a derived file, whole or not at all; those of other fingerprints go."""
    target = cache / f"{name}-{fingerprint}{suffix}"
    write_whole(target, content)
    for old in cache.glob(f"{name}-*{suffix}"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def open_source(path: Path, split: str | None = None) -> Source:
    """The source in a folder. Raises UserError where there is none, and all that reading a data set raises."""
    if not path.is_dir():
        what = "is a file; give the folder that holds it" if path.exists() else "does not exist; check the spelling"
        raise UserError(f"{path} {what}.")
    root = path.resolve()
    if (root / "recipe.json").exists():
        if split is not None:
            raise UserError(f"--split {split}: {path} is a run, which has none; leave --split out.")
        return _run(root)
    return _data_set(root, path, split)


def _run(root: Path) -> Source:
    """A run, or as much of it as its finished shards hold."""
    manifest, cache = root / "manifest.jsonl", cache_folder(root)
    parts = [manifest] if manifest.exists() else sorted(root.glob("shards/[0-9]*/records.jsonl"))
    if not parts:
        raise UserError(f"{root}: this run has no finished image yet; look again when its first shard is there.")
    print_of_parts = _hash(f"{part.relative_to(root)} {_stamp(part.stat())}" for part in parts)
    records = manifest
    if parts != [manifest]:
        records = cache / f"records-{print_of_parts}.jsonl"
        if not records.exists():
            store(cache, "records", print_of_parts, ".jsonl", "".join(read_text(part) for part in parts))
    return Source(
        root, "run", root.name, records, cache, print_of_parts, _json(root / "recipe.json"), _json(root / "report.json")
    )


def _json(file: Path) -> dict:
    """A JSON file's object, empty where there is none."""
    if not file.exists():
        return {}
    try:
        found = json.loads(read_text(file))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file}: damaged; the command that made the run writes it again.")
    return found


def _data_set(root: Path, path: Path, split: str | None) -> Source:
    from dataengine.data.layout_json import layout_to_json
    from dataengine.evaluate.windows import read_real

    cache = cache_folder(root)
    fingerprint = _hash((f"split {split}", *_files(root)))
    records, problems = cache / f"records-{fingerprint}.jsonl", cache / f"problems-{fingerprint}.txt"
    if not (records.exists() and problems.exists()):
        dataset = read_real(path, split)
        store(cache, "problems", fingerprint, ".txt", "".join(f"{problem}\n" for problem in dataset.problems))
        lines = [
            json.dumps({
                "name": sample.name, "image": _below(sample.image, root), "labels": layout_to_json(sample.layout),
                "source": sample.source, "license": sample.license,
            })
            for sample in dataset
        ]  # fmt: skip
        store(cache, "records", fingerprint, ".jsonl", "\n".join(lines) + "\n")
    said = tuple(read_text(problems).splitlines())
    return Source(root, "data set", root.name, records, cache, fingerprint, {}, {}, said)


def _below(image: Path, root: Path) -> str:
    """The image's path below root; one that lies elsewhere stays as it is, and will not be served."""
    absolute = Path(os.path.abspath(image))
    for base in (root, Path(os.path.abspath(root))):
        if absolute.is_relative_to(base):
            return absolute.relative_to(base).as_posix()
    resolved = image.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else str(resolved)


def _files(root: Path) -> Iterator[str]:
    """Name, size and time of every file below root, in a fixed order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            file = os.path.join(folder, name)
            try:
                yield f"{file} {_stamp(os.stat(file))}"
            except OSError:  # a link to nowhere; reading the data set names it
                yield f"{file} missing"


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _hash(texts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for text in texts:
        total.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()[:16]
