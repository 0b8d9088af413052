"""Reading and writing any format, by name or recognised from the files. A new format is a file and a line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from dataengine.data import (
    airbus,
    coco,
    csv_boxes,
    cvat,
    datumaro_json,
    dior,
    dota,
    fair1m,
    hit_uav,
    hrsc,
    images,
    labelme,
    rolabelimg,
    soda_a,
    ucas_aod,
    visdrone,
    voc,
    xview,
    yolo,
)
from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import head_of
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.pixel_range import PixelRange, check_same, find_range, range_of, with_pixel_range
from dataengine.data.pixel_range import write as write_range
from dataengine.data.staging import Place, Progress
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
    fair1m.NAME: fair1m,
    ucas_aod.NAME: ucas_aod,
    visdrone.NAME: visdrone,
    soda_a.NAME: soda_a,
    xview.NAME: xview,
    airbus.NAME: airbus,
    labelme.NAME: labelme,
    cvat.NAME: cvat,
    datumaro_json.NAME: datumaro_json,
    csv_boxes.NAME: csv_boxes,
}
WRITTEN = tuple(name for name, each in FORMATS.items() if hasattr(each, "write"))
LABEL_SUFFIXES = (".json", ".xml", ".yaml", ".yml", ".txt", ".csv", ".geojson")
SAMPLED_FILES = 200  # label files of a folder by whose content the format is recognised
ROTATED_YOLO = "yolo-obb"  # a name for writing only: YOLO with corners, whatever the data set has


def module(format: str) -> ModuleType:
    """The module of a format. Raises UserError with the list of formats for an unknown name."""
    format = yolo.NAME if format == ROTATED_YOLO else format
    if format not in FORMATS:
        raise UserError(f"{format!r} is not a known format; choose one of {', '.join(FORMATS)}")
    return FORMATS[format]


def writer(format: str) -> ModuleType:
    """The module of a format that can be written. Raises UserError for others."""
    found = module(format)
    if not hasattr(found, "write"):
        raise UserError(f"{format} can be read, but not written; choose one of {', '.join(WRITTEN)}")
    return found


def recognize(path: str | Path) -> str:
    """Name of the format of a data set, from the content of its folder or annotation file.

    Raises UserError if the path is missing or its content has no known format.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; check the spelling and where the data set was unpacked")
    if is_run(path):
        raise UserError(
            f"{path} is a run folder; its data sets are {path / 'dota'} and {path / 'coco'}; dataengine data select "
            "writes its images in any format"
        )
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is empty; give the folder with the images and annotations")
    format = next(iter(sorted(_formats_of_file(path))), None) if path.is_file() else _format_of_folder(path)
    if format is None:
        raise UserError(
            f"{path} has no known format{_first_words(path)}; the formats are {', '.join(FORMATS)} (--format states it)"
        )
    return format


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run, which holds data sets and is none."""
    return (path / "recipe.json").is_file() and ((path / "manifest.jsonl").is_file() or (path / "shards").is_dir())


def _first_words(path: Path) -> str:
    """The beginning of the first file that may have annotations: often it is a page that says "not found"."""
    found = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in (".json", ".xml", ".yaml"))
    files = [file for file in found if file.is_file()]
    if not files:
        return ""
    try:
        head = head_of(files[0])[:30].strip()
    except UserError as error:
        return f" ({error})"
    return f" ({files[0].relative_to(path) if path.is_dir() else files[0].name} begins with {head!r})"


def _formats_of_file(file: Path) -> set[str]:
    try:
        head = head_of(file).removeprefix("\ufeff")
    except UserError:
        return set()
    return {name for name, format in FORMATS.items() if format.recognizes(file, head)}


def _format_of_folder(path: Path) -> str | None:
    """The format of the label files. Raises UserError if there are several, and a rule does not decide."""
    files = FileIndex(path, LABEL_SUFFIXES).files
    formats: set[str] = set()
    has_settings = False  # of YOLO, which other formats' data sets may have too
    for suffix in LABEL_SUFFIXES:
        alike = [file for file in files if file.suffix.lower() == suffix]
        for file in alike[:: len(alike) // SAMPLED_FILES + 1]:
            names = _formats_of_file(file)
            if suffix in (".yaml", ".yml"):
                has_settings |= bool(names)
            else:
                formats |= names
    if not formats:
        if has_settings:
            return "yolo"
        return "dota" if any(dota.label_folders(path)) else None
    if formats & {"dior", "rolabelimg"}:
        formats -= {"voc"}  # their files of horizontal boxes
    if len(formats) > 1:
        raise UserError(
            f"{path} has label files of several formats ({', '.join(sorted(formats))}); choose one with --format"
        )
    return formats.pop()


def read(
    path: str | Path,
    format: str | None = None,
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    first_pixel: int | None = None,
    pixel_range: PixelRange | None = None,
) -> Dataset:
    """Read a labelled data set in any known format; None recognizes the format.

    first_pixel: index of the first pixel in VOC annotations, 0 or 1; None finds it out (see `voc`).
    pixel_range: the values that become black and white in images of more than 8 bits; None for those in the data set's
    `pixel-range.json`, or else measured on its images.

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
    format = format or recognize(path)
    if first_pixel is not None and format != voc.NAME:
        raise UserError(f"{path} is in {format} format; the first pixel is a question of VOC only, so leave it out")
    options = {} if first_pixel is None else {"first_pixel": first_pixel}
    with np.errstate(over="ignore", invalid="ignore"):  # huge numbers become problems, not warnings
        dataset = module(format).read(Path(path), split=split, classes=classes, **options)
    return with_pixel_range(dataset, pixel_range)


def labelled_or_plain(folder: Path, format: str | None = None) -> Dataset:
    """A labelled data set, or the images of a folder without labels as a data set without objects or classes.

    format: of the labels; None recognizes it.

    Raises UserError if there are no images, or labels that cannot be read.
    """
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give a folder of images or a labelled data set.")
    if folder.suffix.lower() in images.SUFFIXES and folder.is_file():
        raise UserError(f"{folder} is an image; give its folder.")
    visible = sorted(file for file in folder.rglob("*") if file.is_file() and file.name[0] != ".")
    files = [file for file in visible if file.suffix.lower() in images.SUFFIXES]
    try:
        return read(folder, format)
    except UserError:
        if format is not None:
            raise
        stems = {file.stem for file in files}
        suffixes = {*LABEL_SUFFIXES} - {".txt"}  # a text file may be a README
        labels = [f for f in visible if f.suffix.lower() in suffixes or (f.suffix == ".txt" and f.stem in stems)]
        if labels or folder.is_file():  # its objects must not be treated as background
            raise
    samples, problems, deep = [], [], []
    for file in files:
        try:
            header = images.read_header(file)
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; it is skipped"))
            continue
        layout = Layout(np.zeros((0, 5)), np.zeros(0), (), header.size)
        samples.append(Sample(file.relative_to(folder).with_suffix("").as_posix(), file, layout))
        if header.deep:
            deep.append(file)
    if not samples:
        raise UserError(f"{folder} has no images.")
    if not deep:
        return Dataset((), samples, problems=problems)
    pixel_range, note = find_range(folder, deep)
    samples = [replace(sample, pixel_range=pixel_range) for sample in samples]
    return Dataset((), samples, problems=problems, notes=[note])


def splits(path: str | Path, format: str | None = None) -> tuple[str, ...]:
    """Names of the splits of a data set, () if it has none."""
    path = Path(path)
    return () if path.is_file() else module(format or recognize(path)).splits(path)


def write(
    dataset: Dataset,
    path: str | Path,
    format: str,
    *,
    split: str = "train",
    progress: Progress | None = None,
    place: Place | None = None,
) -> list[Problem]:
    """Write one split with its images in any known format. Returns problems: images and objects that were skipped.

    Labels are those inside the image (`border.inside_image`). Formats without ignored regions get images in which these
    are filled. "yolo" writes labels of the data set's kind, "yolo-obb" rotated ones, with angle 0 for horizontal boxes.
    place: in place of copying images (`staging.placed`), for DOTA, COCO and YOLO.

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
    path, pixel_range = Path(path), range_of(dataset)
    if pixel_range is not None:
        check_same(path, pixel_range)
    how = {} if place is None else {"place": place}
    problems = writer(format).write(dataset, path, split=split, progress=progress, **how)
    if pixel_range is not None:
        write_range(path, pixel_range)
    return problems


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
    holds = writer(format).HOLDS
    layouts = [sample.layout for sample in dataset]
    lost = []
    if dataset.kind == "obb" and "angles" not in holds:
        lost.append("angles (upright boxes around the rotated ones are written)")
    if dataset.kind == "hbb" and ("hbb" not in holds or format == ROTATED_YOLO):
        lost.append("that boxes are horizontal (they are written as rotated ones with angle 0)")
    if any(layout.difficult.any() for layout in layouts) and "difficult" not in holds:
        lost.append("difficult")
    if any((layout.visible < 1).any() for layout in layouts) and "visible" not in holds:
        lost.append("visible fractions")
    if any(len(layout.ignored) for layout in layouts) and "ignored" not in holds:
        lost.append("ignored regions (their pixels are filled with the colour around them)")
    if (pixel_range := range_of(dataset)) is not None and not _holds_values(dataset, format):
        lost.append(f"all pixel values ({pixel_range.low:g} to {pixel_range.high:g} become 0 to 255)")
    known = [layout.acquisition for layout in layouts if layout.acquisition != UNKNOWN]
    fields = [f for f in Acquisition.model_fields if any(getattr(entry, f) is not None for entry in known)]
    return lost + [field for field in fields if field not in holds]


def _holds_values(dataset: Dataset, format: str) -> bool:
    """Whether the image files that a format is written with hold values of more than 8 bits."""
    if format in (dior.NAME, hrsc.NAME):  # JPEG and BMP
        return False
    if format != dota.NAME:
        return True
    tiffs = [sample.image for sample in dataset if sample.image.suffix.lower() in (".tif", ".tiff")]
    return all(images.fits_png(file) for file in tiffs)
