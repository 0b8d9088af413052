"""Writing data sets atomically, never over the files of others: what the writers of all formats share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine.data import images
from dataengine.data.border import inside_image
from dataengine.data.fill import place_filled
from dataengine.data.layout import Dataset, Problem, Sample
from dataengine.errors import UserError
from dataengine.files import create_folder, make_room, read_text, write_whole

Progress = Callable[[int, int], None]  # (images done, images in all)
Place = Callable[[Sample, Path], None]  # puts the image of a sample at a path; raises ValueError if it cannot be read
MARKER = ".dataengine.json"
IMAGE_SKIPPED = "the image is skipped"
_NOT_CONTENT = (
    ".partial-",
    f".{MARKER}.",
    ".nfs",
    ".DS_Store",
)  # unfinished, or left by other programs
_SHARED = {"classes.txt", "classes.csv", "data.yaml"}  # the same for all splits of a data set


def check_empty(out: Path, what: str) -> None:
    """Raises UserError unless `out`, the folder for `what`, is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; choose a new one for the {what}")


@contextmanager
def staged(path: Path, format: str, split: str, classes: Sequence[str]) -> Iterator[Path]:
    """A temporary folder whose files move into `path` if the block succeeds, and are deleted if it fails.

    `path` may be new, empty, or a data set written by this function in the same format, with the same classes and
    without this split. A split whose move was interrupted is written again. Anything else, and every error of the
    file system, raises `UserError`.
    """
    if not split or Path(split).name != split:
        raise UserError(f"{split!r} is not a valid name for a split; use a plain word such as train or val")
    try:
        done = _splits_of_marker(path, format, split, classes)
        work = path / f".partial-{split}"
        create_folder(work)
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
            f"{make_room(error)}choose another folder"
        ) from error


def _moves(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """(old, new) paths that move the content of `source` into `target`. A folder that is new in `target` moves as a
    whole, so that a million files need one rename."""
    for name in sorted(os.listdir(source)):
        if (target / name).is_symlink():
            raise UserError(f"{target / name}: is a link, and files written there would go elsewhere; remove it")
        if (source / name).is_dir() and (target / name).is_dir():
            yield from _moves(source / name, target / name)
        else:
            yield source / name, target / name


def _splits_of_marker(path: Path, format: str, split: str, classes: Sequence[str]) -> tuple[str | None, list[str]]:
    """(interrupted split, complete splits) of earlier writes into `path`."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give a folder to write the data set into")
    marker = path / MARKER
    if not marker.exists():
        if path.exists() and any(not entry.name.startswith(_NOT_CONTENT) for entry in path.iterdir()):
            raise UserError(f"{path} is not empty and was not written by dataengine; choose a new or empty folder")
        return None, []
    try:
        state = json.loads(read_text(marker))
    except ValueError:
        raise UserError(f"{marker} is damaged; choose another folder, or remove this one") from None
    if state["format"] != format:
        raise UserError(f"{path} holds a data set in {state['format']} format, not {format}; choose another folder")
    if tuple(state["classes"]) != tuple(classes):
        raise UserError(
            f"{path} has the classes {', '.join(state['classes'])}, not {', '.join(classes)}; give "
            "another folder, or make the names equal with --rename"
        )
    if split in state["splits"]:
        raise UserError(f"{path} has a split {split!r} already; remove the folder or write another split")
    return state.get("writing"), state["splits"]


def _write_marker(path: Path, format: str, classes: Sequence[str], splits: list[str], writing: str | None) -> None:
    state = {"format": format, "classes": list(classes), "splits": splits, "writing": writing}
    write_whole(path / MARKER, json.dumps(state))


def placed(
    dataset: Dataset,
    folder: Path,
    problems: list[Problem],
    *,
    suffix: str | None = None,
    flat: bool = True,
    fill_ignored: bool = False,
    progress: Progress | None = None,
    place: Place | None = None,
) -> Iterator[tuple[Sample, str]]:
    """Copy the image of each sample into `folder` and yield the sample with its name there, without suffix.

    The yielded labels are those inside the image (`border.inside_image`); an object outside becomes a `Problem`.
    `flat` turns "a/b" into "a__b" for formats without sub-folders. Images are converted to `suffix`; None keeps their
    own. `fill_ignored`, for formats without ignored regions, replaces their pixels. An image that cannot be copied
    becomes a `Problem` and is not yielded. `place`: in place of copying, such as `name_only` for labels alone.
    """
    place = place or (_place_filled if fill_ignored else _place)
    suffixes: set[str] = set()  # names are looked up on the disk: a list of a million names would take memory
    for done, sample in enumerate(dataset, 1):
        name = sample.name.replace("/", "__") if flat else sample.name
        target = folder / (name + (suffix or sample.image.suffix))
        suffixes.add(suffix or sample.image.suffix)
        if any((folder / (name + each)).exists() for each in suffixes):
            raise UserError(f"two images get the same name {name!r} in {folder.name}; rename one of them")
        layout, outside = inside_image(sample.layout)
        try:
            place(replace(sample, layout=layout), target)
        except ValueError as error:
            problems.append(Problem(sample.image, None, f"{error}; {IMAGE_SKIPPED}"))
            continue
        problems += [outside_problem(sample, i) for i in outside]
        if fill_ignored:
            layout = replace(layout, ignored=np.zeros((0, 5)))
        yield replace(sample, layout=layout), name
        if progress is not None:
            progress(done, len(dataset))


def _place(sample: Sample, target: Path) -> None:
    images.place(sample.image, target, sample.pixel_range)


def _place_filled(sample: Sample, target: Path) -> None:
    place_filled(sample.image, sample.layout, target, sample.pixel_range)


def name_only(sample: Sample, target: Path) -> None:
    """An empty file under the image's name: a `Place` for whoever needs a data set's labels, and has its images."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()


def outside_problem(sample: Sample, index: int) -> Problem:
    """The problem of an object that is not written, since less than a pixel of it is inside the image."""
    return Problem(sample.image, None, f"object {index + 1} lies outside the image; it is skipped")


def images_skipped(problems: Sequence[Problem]) -> int:
    """How many images a writer left out, given the problems that it returned."""
    return sum(problem.message.endswith(IMAGE_SKIPPED) for problem in problems)


def written_splits(path: Path) -> list[str]:
    """Names of the complete splits that dataengine wrote into a folder, in alphabetical order."""
    marker = path / MARKER
    return json.loads(read_text(marker))["splits"] if marker.exists() else []


def write_classes(root: Path, classes: Sequence[str]) -> None:
    """Write `classes.txt`, one name a line, which keeps the class order in formats without a class list."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join([*classes, ""]), "utf-8")


def decimal(value: float, places: int = 4) -> str:
    """The value rounded to `places` decimals, without trailing zeros, exponent or "-0".

    >>> decimal(12.5), decimal(12.0), decimal(-0.00001), decimal(1e6)
    ('12.5', '12', '0', '1000000')
    """
    text = f"{float(value):.{places}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
