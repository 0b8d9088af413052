"""Reading and writing any format, by name or recognised from the files. A new format is a file and a line here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from dataengine.data import coco, dior, dota, hit_uav, hrsc, images, rolabelimg, voc, yolo
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.staging import Progress
from dataengine.errors import UserError

FORMATS: dict[str, ModuleType] = {
    dota.NAME: dota,
    coco.NAME: coco,
    dior.NAME: dior,
    voc.NAME: voc,
    hrsc.NAME: hrsc,
    rolabelimg.NAME: rolabelimg,
    hit_uav.NAME: hit_uav,
    yolo.NAME: yolo,
}
ROTATED_YOLO = "yolo-obb"  # a name for writing only: YOLO with corners, whatever the data set has
LABEL_SUFFIXES = (".json", ".xml", ".yaml", ".yml")


def module(format: str) -> ModuleType:
    """The module of a format. Raises UserError with the list of formats for an unknown name."""
    format = yolo.NAME if format == ROTATED_YOLO else format
    if format not in FORMATS:
        raise UserError(f"{format!r} is not a known format; choose one of {', '.join(FORMATS)}")
    return FORMATS[format]


def recognize(path: str | Path) -> str:
    """Name of the format of a data set, from the content of its folder or annotation file.

    Raises UserError if the path is missing or its content has no known format.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; check the spelling and where the data set was unpacked")
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is empty; give the folder with the images and annotations")
    format = _format_of_file(path) if path.is_file() else _format_of_folder(path)
    if format is None:
        raise UserError(
            f"{path} has no known format{_first_words(path)}; the formats are {', '.join(FORMATS)} "
            "(commands of dataengine data take --format)"
        )
    return format


def _first_words(path: Path) -> str:
    """The beginning of the first file that may have annotations: often it is a page that says "not found"."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in (".json", ".xml", ".yaml"))
    if not files:
        return ""
    with open(files[0], "rb") as stream:
        head = stream.read(30).decode("utf-8", "backslashreplace").strip()
    return f" ({files[0].relative_to(path) if path.is_dir() else files[0].name} begins with {head!r})"


def _format_of_file(file: Path) -> str | None:
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
        return _format_of_xml(head)
    return _format_of_text(head) if suffix == ".txt" else None


def _format_of_xml(head: str) -> str | None:
    if "<HRSC_Image" in head:
        return "hrsc"
    if "<x_left_top>" in head:
        return "dior"
    if "<robndbox>" in head:
        return "rolabelimg"
    return "voc" if "<bndbox>" in head else None


def _format_of_text(head: str) -> str | None:
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


def _format_of_folder(path: Path) -> str | None:
    """The format of the first kind of file that is recognised: YAML, JSON, XML, DOTA text, YOLO text."""
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
        # more than one file, as the first may be of empty images, or have upright boxes only
        candidates = {_format_of_file(file) for file in visible[:200]}
        for format in FORMATS:
            if format in candidates and not (format == "voc" and "rolabelimg" in candidates):
                return format
        if visible and group[0].startswith("labelTxt"):
            return "dota"  # label files of empty images only
    return None


def read(
    path: str | Path, format: str | None = None, *, split: str | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """Read a labelled data set in any known format; None recognizes the format.

    Broken files, images and objects are skipped and listed in `Dataset.problems`. Raises UserError if the path or the
    split is missing, the format is not recognised, no image is usable, or `classes` shares no name with the data.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (64, 64)).save(f"{folder}/a.png")
    ...     written = Path(folder, "a.txt").write_text("0 0.5 0.5 0.25 0.125")
    ...     written = Path(folder, "classes.txt").write_text("car")
    ...     dataset = read(folder)
    >>> dataset.format, dataset.samples[0].layout.names(), dataset.samples[0].layout.boxes.tolist()
    ('yolo', ['car'], [[32.0, 32.0, 16.0, 8.0, 0.0]])
    """
    with np.errstate(over="ignore", invalid="ignore"):  # huge numbers become problems, not warnings
        return module(format or recognize(path)).read(Path(path), split=split, classes=classes)


def labelled_or_plain(folder: Path) -> Dataset:
    """A labelled data set, or the images of a folder without labels as a data set without objects or classes.

    Raises UserError if there are no images, or labels that cannot be read.
    """
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give a folder of images or a labelled data set.")
    if folder.suffix.lower() in images.SUFFIXES and folder.is_file():
        raise UserError(f"{folder} is an image; give its folder.")
    visible = sorted(file for file in folder.rglob("*") if file.is_file() and file.name[0] != ".")
    files = [file for file in visible if file.suffix.lower() in images.SUFFIXES]
    try:
        return read(folder)
    except UserError:
        stems = {file.stem for file in files}
        labels = [f for f in visible if f.suffix.lower() in LABEL_SUFFIXES or (f.suffix == ".txt" and f.stem in stems)]
        if labels or folder.is_file():  # its objects must not be treated as background
            raise
    samples, problems = [], []
    for file in files:
        try:
            layout = Layout(np.zeros((0, 5)), np.zeros(0), (), images.measure(file))
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; it is skipped"))
            continue
        samples.append(Sample(file.relative_to(folder).with_suffix("").as_posix(), file, layout))
    if not samples:
        raise UserError(f"{folder} has no images.")
    return Dataset((), samples, problems=problems)


def splits(path: str | Path, format: str | None = None) -> tuple[str, ...]:
    """Names of the splits of a data set, () if it has none."""
    path = Path(path)
    return () if path.is_file() else module(format or recognize(path)).splits(path)


def write(
    dataset: Dataset, path: str | Path, format: str, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split with its images in any known format. Returns problems: images and objects that were skipped.

    Labels are those inside the image (`border.inside_image`). Formats without ignored regions get images in which these
    are filled. "yolo" writes labels of the data set's kind, "yolo-obb" rotated ones, with angle 0 for horizontal boxes.

    Raises UserError for an unknown format and if `path` has files that dataengine did not write.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (64, 64)).save(f"{folder}/a.png")
    ...     layout = Layout([[32, 32, 16, 8, 0]], [0], ("car",), (64, 64))
    ...     problems = write(Dataset(("car",), [Sample("a", Path(folder, "a.png"), layout)]), f"{folder}/out", "dota")
    ...     Path(folder, "out/train/labelTxt/a.txt").read_text()
    '24 28 40 28 40 36 24 36 car 0\\n'
    """
    dataset = replace(dataset, kind="obb") if format == ROTATED_YOLO else dataset
    return module(format).write(dataset, Path(path), split=split, progress=progress)


def labels_written(dataset: Dataset, format: str) -> str:
    """The format as a phrase, with the kind of labels where a format has two that programs do not exchange.

    >>> labels_written(Dataset(("car",), [], "hbb"), "yolo")
    'yolo format, with horizontal labels (class cx cy w h); --to yolo-obb writes rotated ones'
    """
    if module(format) is not yolo:
        return f"{format} format"
    if dataset.kind == "hbb" and format != ROTATED_YOLO:
        return "yolo format, with horizontal labels (class cx cy w h); --to yolo-obb writes rotated ones"
    return "yolo-obb format, with rotated labels (class and four corners)"


def losses(dataset: Dataset, format: str) -> list[str]:
    """Descriptions of what this data set has and the format cannot store."""
    holds = module(format).HOLDS
    layouts = [sample.layout for sample in dataset]
    lost = []
    if dataset.kind == "obb" and "angles" not in holds:
        lost.append("angles (upright boxes around the rotated ones are written)")
    if dataset.kind == "hbb" and ("hbb" not in holds or format == ROTATED_YOLO):
        lost.append("that boxes are horizontal by definition (they are written as rotated boxes with angle 0)")
    if any(layout.difficult.any() for layout in layouts) and "difficult" not in holds:
        lost.append("difficult")
    if any((layout.visible < 1).any() for layout in layouts) and "visible" not in holds:
        lost.append("visible fractions")
    if any(len(layout.ignored) for layout in layouts) and "ignored" not in holds:
        lost.append("ignored regions (their pixels are filled with the colour around them)")
    known = [layout.acquisition for layout in layouts if layout.acquisition != UNKNOWN]
    fields = [f for f in Acquisition.model_fields if any(getattr(entry, f) is not None for entry in known)]
    return lost + [field for field in fields if field not in holds]
