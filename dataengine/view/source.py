"""The source of a page: a run folder, a labelled data set or a folder of images, as a file of one entry per line.

A run's manifest is used as it is. The entries of a data set are written to the cache folder; nothing is ever written
into the viewed folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataengine.data.layout import Layout, layout_from_json, layout_to_json
from dataengine.data.pixel_range import PixelRange
from dataengine.engine.record import MALFORMED, Record
from dataengine.engine.run_folder import RECORDS, RunFolder
from dataengine.errors import UserError
from dataengine.files import parse_json, read_text, user_cache, write_whole
from dataengine.view.hand_drawn import hand_drawn_recipe


@dataclass(frozen=True)
class Entry:
    """One image of a source. image: path of its file, relative to the source's root. source, license: where the image,
    or the real image below painted objects, comes from. record: of an image of a run. filter: for an image kept by
    hand, whether the filter would keep it, and why not. pixel_range: of the data set."""

    name: str
    image: str
    labels: Layout
    source: str = ""
    license: str = ""
    record: Record | None = None
    filter: dict | None = None
    pixel_range: PixelRange | None = None


@dataclass(frozen=True)
class Source:
    """root: the folder; nothing outside of it is served. entries: file of one entry per line. cache: a separate folder
    outside of root. fingerprint: changes with any file below root. settings: recipe of a run, or of hand-drawn layouts.
    parts: hashes of a run's parts. classes: those of a run. report: of a finished run."""

    root: Path
    kind: Literal["run", "data set"]
    title: str
    entries: Path
    cache: Path
    fingerprint: str
    settings: dict
    parts: dict
    classes: tuple[str, ...]
    report: dict
    problems: tuple[str, ...] = ()
    by_hand: bool = False

    @property
    def run(self) -> RunFolder:
        """The files of a run."""
        return RunFolder(self.root)

    def parse(self, line: bytes) -> Entry:
        """The entry in a line. Raises ValueError for a malformed line."""
        if self.kind == "run":
            record = Record.from_json(line)
            verdict = json.loads(line).get("filter") if self.by_hand else None
            scene = record.provenance
            return Entry(record.name, record.image, record.labels, scene.source, scene.license, record, verdict)
        try:
            values = json.loads(line)
            pixel_range = values.get("pixel_range") and PixelRange(*values["pixel_range"])
            return Entry(**(values | {"labels": layout_from_json(values["labels"]), "pixel_range": pixel_range}))
        except MALFORMED as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def cache_folder(root: Path) -> Path:
    """Folder for all files derived from a viewed folder, below $XDG_CACHE_HOME or ~/.cache. Raises UserError where it
    cannot be created."""
    folder = user_cache() / "view" / hashlib.sha256(str(root).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be created ({error.strerror}); set XDG_CACHE_HOME to a writable folder."
        ) from None
    return folder


def store(cache: Path, name: str, fingerprint: str, suffix: str, content: bytes | str) -> Path:
    """Write a derived file atomically, and delete those of other fingerprints."""
    target = cache / f"{name}-{fingerprint}{suffix}"
    write_whole(target, content)
    for old in cache.glob(f"{name}-*{suffix}"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def open_source(path: Path, split: str | None = None, format: str | None = None) -> Source:
    """The source in a folder. Raises UserError where there is none, and every error of reading a data set."""
    if not path.is_dir():
        what = "is a file; give the folder that holds it" if path.exists() else "does not exist; check the spelling"
        raise UserError(f"{path} {what}.")
    root = path.resolve()
    if RunFolder(root).recipe.exists():
        if split is not None:
            raise UserError(f"--split {split}: {path} is a run and has no splits; omit --split.")
        return _run(root)
    return _data_set(root, path, split, format)


def _run(root: Path) -> Source:
    """A run; of an unfinished one, its finished shards."""
    run, cache = RunFolder(root), cache_folder(root)
    if run.manifest.exists():
        parts = [run.manifest]
    else:
        parts = [file for number in sorted(run.present_shards()) if (file := run.shard(number) / RECORDS).exists()]
    if not parts:
        raise UserError(f"{root}: the run has no finished image yet; try again after its first shard.")
    fingerprint = _hash(f"{part.relative_to(root)} {_stamp(part.stat())}" for part in parts)
    entries = run.manifest
    if parts != [run.manifest]:
        entries = cache / f"records-{fingerprint}.jsonl"
        if not entries.exists():
            store(cache, "records", fingerprint, ".jsonl", "".join(read_text(part) for part in parts))
    if (drawn := hand_drawn_recipe(run)) is not None:
        settings, hashes, classes = (drawn.get(key, {}) for key in ("drawn_with", "parts", "classes"))
    else:
        stored = run.stored_recipe()
        settings, hashes, classes = stored.recipe, stored.parts, stored.classes
    return Source(
        root, "run", root.name, entries, cache, fingerprint, settings, hashes, tuple(classes), _report(run),
        by_hand=drawn is not None,
    )  # fmt: skip


def _report(run: RunFolder) -> dict:
    """The run's report, empty where there is none."""
    if not run.report.exists():
        return {}
    try:
        report = parse_json(read_text(run.report))
    except ValueError:
        report = None
    notes = report.get("notes", []) if isinstance(report, dict) else None
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise UserError(f"{run.report}: damaged; write it again with the same dataengine synth command.")
    return report


def _data_set(root: Path, path: Path, split: str | None, format: str | None) -> Source:
    from dataengine.evaluate.windows import read_real

    cache = cache_folder(root)
    fingerprint = _hash((f"split {split}", f"format {format}, with pixel range", *_files(root)))
    entries, problems = cache / f"records-{fingerprint}.jsonl", cache / f"problems-{fingerprint}.txt"
    if not (entries.exists() and problems.exists()):
        dataset = read_real(path, split, format)
        messages = [*dataset.notes, *map(str, dataset.problems)]
        store(cache, "problems", fingerprint, ".txt", "".join(f"{message}\n" for message in messages))
        lines = [
            json.dumps({
                "name": sample.name, "image": _below(sample.image, root), "labels": layout_to_json(sample.layout),
                "source": sample.source, "license": sample.license,
                "pixel_range": sample.pixel_range and [sample.pixel_range.low, sample.pixel_range.high],
            })
            for sample in dataset
        ]  # fmt: skip
        store(cache, "records", fingerprint, ".jsonl", "\n".join(lines) + "\n")
    messages = tuple(read_text(problems).splitlines())
    return Source(root, "data set", root.name, entries, cache, fingerprint, {}, {}, (), {}, messages)


def _below(image: Path, root: Path) -> str:
    """The image's path relative to root; a path outside of root is kept, and not served."""
    absolute = Path(os.path.abspath(image))
    for base in (root, Path(os.path.abspath(root))):
        if absolute.is_relative_to(base):
            return absolute.relative_to(base).as_posix()
    resolved = image.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else str(resolved)


def _files(root: Path) -> Iterator[str]:
    """Name, size and modification time of every file below root, in a fixed order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            file = os.path.join(folder, name)
            try:
                yield f"{file} {_stamp(os.stat(file))}"
            except OSError:  # a broken link; reading the data set reports it
                yield f"{file} missing"


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _hash(texts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for text in texts:
        total.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()[:16]
