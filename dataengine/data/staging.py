"""Writing a data set so that it is there whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dataengine.data import images
from dataengine.data.layout import Dataset, Problem, Sample
from dataengine.errors import UserError
from dataengine.files import read_text

Progress = Callable[[int, int], None]  # (images done, images in all)
MARKER = ".dataengine.json"
_SHARED = {"classes.txt", "data.yaml"}  # the same for all splits of a data set


def check_empty(out: Path, what: str) -> None:
    """Raises UserError where `out`, which is for `what`, is neither new nor an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; choose a new one for the {what}")


@contextmanager
def staged(path: Path, format: str, split: str, classes: Sequence[str]) -> Iterator[Path]:
    """A temporary folder whose files move into `path` when the block ends well, and vanish when it does not.

    `path` may be new, empty, or a data set that this function wrote in the same format with the same classes and
    without this split; a split that was broken off while its files moved is written again. Anything else, and every
    failure of the disk, is a `UserError`.
    """
    if not split or Path(split).name != split:
        raise UserError(f"{split!r} cannot name a split; use a plain word such as train or val")
    try:
        done = _splits_of_marker(path, format, split, classes)
        work = path / f".partial-{split}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
            if done[0] != split:
                for _, target in _moves(work, path):
                    if target.exists() and target.name not in _SHARED:
                        raise UserError(f"{target} exists already and belongs to another split; rename one of the two")
            _write_marker(path, format, classes, done[1], writing=split)
            for file, target in _moves(work, path):
                os.replace(file, target)
            _write_marker(path, format, classes, sorted({*done[1], split}), writing=None)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{error.filename or path} could not be written ({error.strerror or error}); "
            "free some space or choose a folder that can be written to"
        ) from error


def _moves(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """What has to be renamed, and into what, for all that is in `source` to be in `target`: whole folders where there
    is none of that name yet, so that a million files are one rename."""
    for name in sorted(os.listdir(source)):
        if (source / name).is_dir() and (target / name).is_dir():
            yield from _moves(source / name, target / name)
        else:
            yield source / name, target / name


def _splits_of_marker(path: Path, format: str, split: str, classes: Sequence[str]) -> tuple[str | None, list[str]]:
    """(split that was broken off, splits that are whole) of an earlier write into `path`."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give a folder to write the data set into")
    marker = path / MARKER
    if not marker.exists():
        if path.exists() and any(not entry.name.startswith(".partial-") for entry in path.iterdir()):
            raise UserError(f"{path} is not empty and was not written by dataengine; choose a new or empty folder")
        return None, []
    try:
        state = json.loads(read_text(marker))
    except ValueError:
        raise UserError(f"{marker} is damaged; choose another folder, or remove this one") from None
    if state["format"] != format:
        raise UserError(f"{path} holds a data set in {state['format']} format, not {format}; choose another folder")
    if tuple(state["classes"]) != tuple(classes):
        raise UserError(f"{path} has the classes {', '.join(state['classes'])}, not {', '.join(classes)}")
    if split in state["splits"]:
        raise UserError(f"{path} has a split {split!r} already; remove the folder or write another split")
    return state.get("writing"), state["splits"]


def _write_marker(path: Path, format: str, classes: Sequence[str], splits: list[str], writing: str | None) -> None:
    state = {"format": format, "classes": list(classes), "splits": splits, "writing": writing}
    temporary = path / f".partial-{MARKER}"
    temporary.write_text(json.dumps(state), "utf-8")
    os.replace(temporary, path / MARKER)


def placed(
    dataset: Dataset,
    folder: Path,
    problems: list[Problem],
    *,
    suffix: str | None = None,
    flat: bool = True,
    progress: Progress | None = None,
) -> Iterator[tuple[Sample, str]]:
    """Copy each sample's image into `folder` and yield it with the name it has there, without suffix.

    `flat` turns "a/b" into "a__b" for formats without sub-folders. `suffix` is the one that a format demands, None
    keeps the image's own. An image that cannot be copied becomes a `Problem` and is not yielded.
    """
    suffixes: set[str] = set()  # looking for a file takes no memory, as a list of names would
    for done, sample in enumerate(dataset, 1):
        name = sample.name.replace("/", "__") if flat else sample.name
        target = folder / (name + (suffix or sample.image.suffix))
        suffixes.add(suffix or sample.image.suffix)
        if any((folder / (name + each)).exists() for each in suffixes):
            raise UserError(f"two images would both be called {name!r} in {folder.name}; rename one of them")
        try:
            images.place(sample.image, target)
        except ValueError as error:
            problems.append(Problem(sample.image, None, f"{error}; the image is left out"))
            continue
        yield sample, name
        if progress is not None:
            progress(done, len(dataset))


def write_classes(root: Path, classes: Sequence[str]) -> None:
    """`classes.txt`, one name a line, so that a format without a class list keeps the order."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), "utf-8")


def decimal(value: float, places: int = 4) -> str:
    """Shortest decimal text within half a unit of the last of `places`: "12", "12.5"; never an exponent, never "-0"."""
    text = f"{float(value):.{places}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
