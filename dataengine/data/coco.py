"""COCO JSON: horizontal boxes in `bbox`, rotated ones as a polygon of four corners in `segmentation`.

`bbox = [x, y, width, height]` has the top left corner in continuous pixels, without half-pixel shift; so have corners.
A data set is rotated (`obb`) if most polygons have four corners and at least one of them is more than the outline of
its `bbox`, or if an object has the attribute `rotation` of CVAT, in degrees clockwise around the centre of `bbox`.
`info.box_kind`, which `write` adds, takes precedence. In a rotated data set, an object with other polygons gets the
minimum-area box around them, and one without a polygon its `bbox`. In a horizontal one, `bbox` is used.
`iscrowd` and `ignore` objects are ignored regions, as for pycocotools and mmdetection.
Read: `annotations/<split>.json` next to `images/<split>/`, COCO's own `instances_train2017.json` next to `train2017/`,
Roboflow's `<split>/_annotations.coco.json`, and FiftyOne's `labels.json` next to `data/`.
"""

from __future__ import annotations

import json
import mmap
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.coco_records import LISTS, CocoFile, are_rotated, read_file, records_of
from dataengine.data.file_index import FileIndex
from dataengine.data.json_stream import NO_OBJECT, stream_json
from dataengine.data.label_files import count_of, image_root
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.records import Record, assemble
from dataengine.data.staging import Place, Progress, placed, staged
from dataengine.errors import UserError
from dataengine.files import open_regular

NAME = "coco"
HOLDS = frozenset({"angles", "hbb", "difficult", "visible", "ignored", *Acquisition.model_fields})
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "image_info_", "stuff_")


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is a COCO file of boxes. head: its first characters."""
    if file.suffix.lower() != ".json" or file.name.startswith(_OTHER_TASKS):
        return False
    if re.search(r'"(shapes|imagePath)"\s*:', head) or re.search(r'"images"\s*:\s*\{', head):
        return False
    if re.search(r'"poly"\s*:', head) and not re.search(r'"(bbox|segmentation)"\s*:', head):
        return False  # SODA-A
    wanted = [re.compile(rb'"%s"\s*:\s*\[' % key) for key in (b"images", b"annotations", b"categories")]
    try:
        with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if sum(pattern.search(content) is not None for pattern in wanted) < 2:
                return False
            return content.find(b'"file_name"') >= 0 or content.find(b'"filename"') < 0
    except (OSError, ValueError):  # the second for an empty file
        return False


def annotation_files(path: Path) -> dict[str, Path]:
    """{split: annotation file} of a data set, given its root or one annotation file."""
    if path.is_file():
        return {_split_name(path): path}
    for patterns in (("*/_annotations.coco.json", "[Aa]nnotations/*.json"), ("*.json",), ("*/*.json",)):
        files = sorted(file for pattern in patterns for file in path.glob(pattern) if file.name[0] != ".")
        named = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
        found = [file for file in named if recognizes(file, "") or _is_broken(file)]
        if found:
            return _by_split(found)
    return {}


def _is_broken(file: Path) -> bool:
    """Whether a file is no JSON: it may be an annotation file that was cut off."""
    try:
        return not isinstance(stream_json(file, {key: lambda block: None for key in LISTS}), dict)
    except ValueError as error:
        return NO_OBJECT not in str(error)


def _by_split(files: Sequence[Path]) -> dict[str, Path]:
    names = [_split_name(file) for file in files]
    return {
        name if names.count(name) == 1 else f"{file.parent.name}-{name}": file
        for name, file in zip(names, files, strict=True)
    }


def _split_name(file: Path) -> str:
    if file.name in ("_annotations.coco.json", "labels.json", "annotations.json"):
        return file.parent.name
    return file.stem.removeprefix("instances_")


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(annotation_files(path))


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one annotation file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder with annotations/*.json or one COCO file")
    files = annotation_files(path)
    if split is not None:
        years = re.compile(re.escape(split) + r"\d{4}")  # train2017
        chosen = {name: file for name, file in files.items() if name == split or years.fullmatch(name)}
        if not chosen:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(files) or 'no annotations/*.json'}")
        files = chosen
    problems: list[Problem] = []
    index = FileIndex(image_root(path))
    contents: dict[str, CocoFile] = {}
    for name, file in files.items():
        try:
            contents[name] = read_file(file, problems)
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; the file is skipped", count_of(file, '"bbox"')))
    rotated = are_rotated(list(contents.values()))
    records: list[Record] = []
    names: dict[str, None] = {}
    for name, content in contents.items():
        records += records_of(files[name], name, content, names, rotated, index, problems)
    known = (tuple(names),) if names else ()
    kind = "obb" if rotated else "hbb"
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def write(
    dataset: Dataset,
    path: str | Path,
    *,
    split: str = "train",
    progress: Progress | None = None,
    place: Place | None = None,
) -> list[Problem]:
    """Write one split: `annotations/<split>.json` and `images/<split>/`. Returns problems: what was skipped.

    `bbox` is the axis-aligned box around the part of an object inside the image, `segmentation` the four corners of its
    box, which are those of `bbox` in a horizontal data set. An ignored region is a crowd of every class, as COCO's
    evaluation matches crowds by class. `difficult`, `visible` and
    `acquisition` are added under these names, which other readers ignore. `place`: in place of copying images
    (`staging.placed`).
    Raises UserError unless `path` is new, empty or a COCO set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    licenses = sorted({sample.license for sample in dataset if sample.license})
    with staged(path, NAME, split, dataset.classes) as work:
        file = work / "annotations" / f"{split}.json"
        file.parent.mkdir()
        # entries are streamed, so that memory does not grow with the data set; annotations go to a temporary file
        # first, since all images precede them
        with open(file, "w", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8", dir=path) as annotations:
            info = {"description": dataset.name, "box_kind": dataset.kind}
            out.write(f'{{"info": {json.dumps(info)}, "licenses": ')
            out.write(json.dumps([{"id": i, "name": name} for i, name in enumerate(licenses, 1)]) + ', "images": [')
            objects = 0
            samples = placed(dataset, work / "images" / split, problems, flat=False, progress=progress, place=place)
            for number, (sample, name) in enumerate(samples, 1):
                image = {"id": number, "file_name": name + sample.image.suffix, **_image_fields(sample, licenses)}
                out.write((", " if number > 1 else "") + json.dumps(image))
                for entry in _annotations(sample.layout, dataset):
                    objects += 1  # ids start at 1: pycocotools treats a match with id 0 as none
                    entry = {"id": objects, "image_id": number, **entry}
                    annotations.write((", " if objects > 1 else "") + json.dumps(entry))
            annotations.seek(0)
            out.write('], "annotations": [')
            shutil.copyfileobj(annotations, out)
            categories = [{"id": i, "name": name} for i, name in enumerate(dataset.classes, 1)]
            out.write(f'], "categories": {json.dumps(categories)}}}')
    return problems


def _image_fields(sample: Sample, licenses: list[str]) -> dict:
    """Fields of the entry of an image other than id and file name."""
    layout = sample.layout
    fields: dict = {"width": layout.size[0], "height": layout.size[1]}
    if sample.source:
        fields["source"] = sample.source
    if sample.license:
        fields["license"] = licenses.index(sample.license) + 1
    if layout.acquisition != UNKNOWN:
        fields["acquisition"] = layout.acquisition.model_dump(mode="json", exclude_none=True)
    return fields


def _annotations(layout: Layout, dataset: Dataset) -> Iterator[dict]:
    """Entries of the objects and ignored regions of an image, without ids."""
    boxes = np.concatenate([layout.boxes, layout.ignored])
    corners = np.round(geometry.to_corners(boxes).astype(np.float64), 4)  # (N, 4, 2)
    hulls = np.round(visible_hulls(boxes, layout.size), 4)  # (N, 4)
    for i, box in enumerate(boxes):
        x1, y1, x2, y2 = hulls[i].tolist()
        entry = {
            "bbox": np.round([x1, y1, x2 - x1, y2 - y1], 4).tolist(),
            "area": round(float(box[2]) * float(box[3]), 4),
            "segmentation": [corners[i].ravel().tolist()]
            if dataset.kind == "obb"
            else [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        if i >= len(layout):  # an ignored region
            for label in range(len(dataset.classes)):
                yield {**entry, "iscrowd": 1, "category_id": label + 1}
            continue
        entry |= {"category_id": int(layout.labels[i]) + 1, "iscrowd": 0}
        if layout.difficult[i]:
            entry["difficult"] = 1
        if layout.visible[i] < 1:
            entry["visible"] = round(float(layout.visible[i]), 4)
        yield entry
