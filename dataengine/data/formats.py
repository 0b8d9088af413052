"""Any format by its name, or recognised by what lies in the folder. A new format is one file and one line here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from dataengine.data import coco, dior, dota, hit_uav, hrsc, images, rolabelimg, voc, yolo
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.staging import Progress
from dataengine.errors import UserError

FORMATS: dict[str, ModuleType] = {m.NAME: m for m in (dota, coco, dior, voc, hrsc, rolabelimg, hit_uav, yolo)}
LABEL_SUFFIXES = (".json", ".xml", ".yaml", ".yml")


def module(format: str) -> ModuleType:
    """The module of a format; `UserError` that lists the formats when there is none of that name."""
    if format not in FORMATS:
        raise UserError(f"{format!r} is no known format; choose one of {', '.join(FORMATS)}")
    return FORMATS[format]


def recognize(path: str | Path) -> str:
    """Name of the format of a data set's folder or annotation file, told by its content.

    Raises `UserError` when the path is missing or nothing in it looks like a known format.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; check the spelling, or where the data set was unpacked")
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is empty; give the folder that holds the data set's images and annotations")
    found = _of_file(path) if path.is_file() else _of_folder(path)
    if found is None:
        raise UserError(
            f"{path}: no known format was recognised{_first_words(path)}; the known ones are {', '.join(FORMATS)} "
            "(the commands of dataengine data take --format)"
        )
    return found


def _first_words(path: Path) -> str:
    """What the first file that might hold annotations begins with: often a page that says "not found"."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in (".json", ".xml", ".yaml"))
    if not files:
        return ""
    with open(files[0], "rb") as stream:
        head = stream.read(30).decode("utf-8", "backslashreplace").strip()
    return f" ({files[0].relative_to(path) if path.is_dir() else files[0].name} begins with {head!r})"


def _of_file(file: Path) -> str | None:
    with open(file, "rb") as stream:
        head = stream.read(100_000).decode("utf-8", "replace")
    suffix = file.suffix.lower()
    if suffix == ".json":
        if re.search(r'"filename"\s*:', head) and re.search(r'"(perspective|scenarios)"\s*:', head):
            return "hit-uav"
        return "coco" if re.search(r'"(images|annotations|categories)"\s*:', head) else None
    if suffix in (".yaml", ".yml"):
        return "yolo" if re.search(r"^names\s*:", head, re.MULTILINE) else None
    if suffix == ".xml":
        return _of_xml(head)
    return _of_text(head) if suffix == ".txt" else None


def _of_xml(head: str) -> str | None:
    if "<HRSC_Image" in head:
        return "hrsc"
    if "<x_left_top>" in head:
        return "dior"
    if "<robndbox>" in head:
        return "rolabelimg"
    return "voc" if "<bndbox>" in head else None


def _of_text(head: str) -> str | None:
    for line in head.splitlines():
        fields = line.split()
        if line.lower().startswith(("imagesource:", "gsd:")):
            return "dota"
        if len(fields) >= 9 and all(map(_is_number, fields[:8])) and not _is_number(fields[8]):
            return "dota"
        if len(fields) in (5, 9) and all(map(_is_number, fields)):
            return "yolo"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_folder(path: Path) -> str | None:
    """The first kind of file that is recognised: YAML, JSON, XML, DOTA's text, YOLO's text."""
    if any(
        (path / folder).is_dir()
        for name in (dior.ORIENTED, dior.HORIZONTAL)
        for folder in (name, name.replace(" ", "_"))
    ):
        return "dior"
    patterns = (
        ("*.yaml", "*.yml"),
        ("annotations/*.json", "*/_annotations.coco.json", "*.json"),
        ("*.xml", "[Aa]nnotations/*.xml", "[Aa]nnotations/*/*.xml", "*/*.xml", "*/Annotations/*.xml"),
        ("labelTxt*/**/*.txt", "annfiles/**/*.txt", "*/labelTxt*/**/*.txt", "*/annfiles/**/*.txt"),
        ("labels/**/*.txt", "*/labels/**/*.txt", "*.txt"),
    )
    for group in patterns:
        files = [file for pattern in group for file in sorted(path.glob(pattern))]
        visible = [file for file in files if not any(part[0] == "." for part in file.relative_to(path).parts)]
        # the first annotations may be of empty images, or upright boxes of a set that has rotated ones too
        found = {_of_file(file) for file in visible[:200]}
        for format in FORMATS:
            if format in found and not (format == "voc" and "rolabelimg" in found):
                return format
        if visible and group[0].startswith("labelTxt"):
            return "dota"  # label files of empty images only
    return None


def read(
    path: str | Path, format: str | None = None, *, split: str | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """Read a labelled data set in any known format, recognised when `format` is None.

    Raises `UserError` when the path or split is missing, nothing is recognised, nothing usable is in it, or `classes`
    shares no name with it. A broken file, image or object is left out and named in `Dataset.problems`.

    >>> dataset = read("data/dota", split="val", classes=["plane", "ship"])  # doctest: +SKIP
    >>> dataset.samples[0].layout.boxes.shape  # doctest: +SKIP
    (12, 5)
    """
    with np.errstate(over="ignore", invalid="ignore"):  # numbers out of all bounds become problems, not warnings
        return module(format or recognize(path)).read(Path(path), split=split, classes=classes)


def labelled_or_plain(folder: Path) -> Dataset:
    """A data set's images with their labels, or the images of a plain folder, taken to be empty of objects."""
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give a folder of images, or a labelled data set.")
    if folder.suffix.lower() in images.SUFFIXES and folder.is_file():
        raise UserError(f"{folder} is one image; give the folder that holds it.")
    every = sorted(file for file in folder.rglob("*") if file.is_file() and file.name[0] != ".")
    files = [file for file in every if file.suffix.lower() in images.SUFFIXES]
    try:
        return read(folder)
    except UserError:
        stems = {file.stem for file in files}
        labels = [f for f in every if f.suffix.lower() in LABEL_SUFFIXES or (f.suffix == ".txt" and f.stem in stems)]
        if labels or folder.is_file():  # whose objects would go unlabelled into the result
            raise
    samples, problems = [], []
    for file in files:
        try:
            layout = Layout(np.zeros((0, 5)), np.zeros(0), (), images.measure(file))
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; it is passed over"))
            continue
        samples.append(Sample(file.relative_to(folder).with_suffix("").as_posix(), file, layout))
    if not samples:
        raise UserError(f"{folder}: no images in this folder.")
    return Dataset((), samples, problems=problems)


def splits(path: str | Path, format: str | None = None) -> tuple[str, ...]:
    """Names of the splits of a data set; empty when it has none."""
    path = Path(path)
    return () if path.is_file() else module(format or recognize(path)).splits(path)


def write(
    dataset: Dataset, path: str | Path, format: str, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split with its images in any known format; gives back what had to be left out.

    Raises `UserError` for an unknown format, and when `path` holds anything that dataengine did not write.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (64, 64)).save(folder / "a.png")
    >>> layout = Layout([[32, 32, 20, 10, 0.5]], [0], ("car",), (64, 64))
    >>> write(Dataset(("car",), [Sample("a", folder / "a.png", layout)]), folder / "cars", "coco")
    []
    >>> read(folder / "cars").samples[0].layout.names()
    ['car']
    """
    return module(format).write(dataset, Path(path), split=split, progress=progress)


def losses(dataset: Dataset, format: str) -> list[str]:
    """What this data set has and the format has no place for, in words."""
    holds = module(format).HOLDS
    layouts = [sample.layout for sample in dataset]
    lost = []
    if dataset.kind == "obb" and "angles" not in holds:
        lost.append("angles (upright boxes around the rotated ones are written)")
    if dataset.kind == "hbb" and "hbb" not in holds:
        lost.append("that boxes are horizontal by definition (they are written as rotated boxes with angle 0)")
    if any(layout.difficult.any() for layout in layouts) and "difficult" not in holds:
        lost.append("difficult")
    if any((layout.visible < 1).any() for layout in layouts) and "visible" not in holds:
        lost.append("visible fractions")
    if any(len(layout.ignored) for layout in layouts) and "ignored" not in holds:
        lost.append("ignored regions")
    taken = [layout.acquisition for layout in layouts if layout.acquisition != UNKNOWN]
    fields = [f for f in Acquisition.model_fields if any(getattr(entry, f) is not None for entry in taken)]
    return lost + [field for field in fields if field not in holds]
