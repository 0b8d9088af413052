"""The folder of a world: its files, and what follows from its blocks. `verify_world.py` derives it again.

world.json            the recipe, the hash of every part, and what the labels need
filter.json           the filter's thresholds
manifest.jsonl        one line a block: checksums of its files
report.json           counts
SHA256SUMS            checksums of all files but those of the blocks

.stages/              windows and cells that blocks are made from, until the world is finished

and here, or with several levels in folders level-0 (the finest), level-1 ..., each of which is a data set in DOTA form:

blocks/               a picture and a record for each block of 512 pixels
images/world.tif      a Cloud-Optimized GeoTIFF
labelTxt/ meta/ classes.txt world.geojson world.parquet
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dataengine.data import dota
from dataengine.data.layout import Acquisition, Layout
from dataengine.errors import UserError
from dataengine.files import create, ensure_folder, parse_json, read_text, write_whole
from dataengine.folders import sha256_of, walk
from dataengine.world.blocks import BlockFolder
from dataengine.world.export import NAME, Placement, labels_of, too_small, write_geojson, write_geotiff, write_parquet

NOT_SUMMED = ("blocks/", ".lock", "SHA256SUMS")


@dataclass(frozen=True)
class StoredWorld:
    """What world.json says. classes, kind, acquisition: of the labels. placement: on the map. gsd_m: metres per pixel,
    None if unknown."""

    dataengine: str
    size: int
    levels: int
    recipe: dict
    style: dict
    parts: dict[str, str]
    filter: str
    classes: list[str]
    kind: str
    acquisition: dict
    placement: dict
    gsd_m: float | None

    def to_json(self) -> str:
        """The text of world.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, file: Path) -> StoredWorld:
        """Raises UserError when the file is missing or damaged."""
        try:
            return cls(**parse_json(read_text(file)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}: damaged ({error}); put it back from a copy, or give another --out.") from None


class WorldFolder:
    """The files of one world of some levels, whether they exist or not.

    >>> WorldFolder(Path("runs/world"), levels=2).level(1).as_posix()
    'runs/world/level-1'
    """

    def __init__(self, path: Path, levels: int = 1):
        self.path, self.levels = path, levels
        self.world, self.calibration, self.lock = path / "world.json", path / "filter.json", path / ".lock"
        self.stages = path / ".stages"
        self.manifest, self.report, self.sums = path / "manifest.jsonl", path / "report.json", path / "SHA256SUMS"

    def level(self, number: int) -> Path:
        """Folder of a level; the world's own where there is only one."""
        return self.path / f"level-{number}" if self.levels > 1 else self.path

    def blocks(self, number: int, size: int) -> BlockFolder:
        """The blocks of a level of a world of size x size pixels."""
        return BlockFolder(self.level(number) / "blocks", size >> number)


def write_derived(folder: WorldFolder, stored: StoredWorld) -> dict:
    """Write all that follows from the finished blocks, and return the report. What is there is written again."""
    coarser = [folder.level(n) / "images" / f"{NAME}.tif" for n in range(1, stored.levels)]
    for number in reversed(range(stored.levels)):
        level, blocks = folder.level(number), folder.blocks(number, stored.size)
        ensure_folder(level / "images")
        placement = placement_of(stored, number)
        write_geotiff(blocks, level / "images" / f"{NAME}.tif", placement, coarser[number:])
        for name, content in label_files(folder, stored, number).items():
            ensure_folder((level / name).parent)
            write_whole(level / name, content)
        labels, ids = labels_at(folder, stored, number)
        write_parquet(level / f"{NAME}.parquet", ids, labels, placement)
    with create(folder.path / ".manifest.jsonl") as file:
        file.writelines(manifest_lines(folder, stored))
    (folder.path / ".manifest.jsonl").replace(folder.manifest)
    report = report_of(folder, stored)
    write_whole(folder.report, json.dumps(report, indent=2) + "\n")
    write_whole(folder.sums, "".join(f"{sha256_of(folder.path / name)}  {name}\n" for name in summed(folder.path)))
    return report


def summed(path: Path) -> list[str]:
    """Files of a world with a line in SHA256SUMS."""
    files = (name for name, kind in walk(path) if kind == "file")
    return [name for name in files if not any(f"/{name}".find(f"/{part}") >= 0 for part in NOT_SUMMED)]


def placement_of(stored: StoredWorld, number: int) -> Placement:
    """The place on the map of a level's picture."""
    placement = Placement(**stored.placement)
    return Placement(placement.crs, placement.east, placement.north, placement.gsd_m * 2**number)


def labels_at(folder: WorldFolder, stored: StoredWorld, number: int) -> tuple[Layout, list[str]]:
    """Labels of a level, in its pixels, and the name of each object, the same at all levels."""
    gsd_m = None if stored.gsd_m is None else stored.gsd_m * 2**number
    acquisition = Acquisition(**stored.acquisition).model_copy(update={"gsd_m": gsd_m})
    objects = list(folder.blocks(0, stored.size).objects())
    layout = labels_of(objects, tuple(stored.classes), stored.kind, acquisition, stored.size, number)
    return layout, ["_".join(map(str, entry["id"])) for entry in objects]


def label_files(folder: WorldFolder, stored: StoredWorld, number: int) -> dict[str, str]:
    """Name and text of each label file of a level."""
    layout, ids = labels_at(folder, stored, number)
    files = {
        f"{NAME}.geojson": write_geojson(ids, layout, placement_of(stored, number)),
        f"labelTxt/{NAME}.txt": dota.label_text(layout),
        "classes.txt": "".join(f"{name}\n" for name in dota.names_of(layout.classes)),
    }
    if text := dota.meta_text(layout):
        files[f"meta/{NAME}.txt"] = text
    return files


def manifest_lines(folder: WorldFolder, stored: StoredWorld) -> Iterator[str]:
    """A line for each block of each level, row by row."""
    for number in range(stored.levels):
        blocks = folder.blocks(number, stored.size)
        for row in blocks.rows():
            for block in row:
                record = blocks.record(block)
                entry = {"level": number, "block": blocks.name(block), "sha256": record["sha256"]}
                entry["record_sha256"] = sha256_of(blocks.folder / f"{blocks.name(block)}.json")
                yield json.dumps(entry | {"objects": len(record["objects"]), "erased": len(record["erased"])}) + "\n"


def report_of(folder: WorldFolder, stored: StoredWorld) -> dict:
    """Counts of a finished world."""
    layout, _ = labels_at(folder, stored, 0)
    erased = [entry["class"] for entry in folder.blocks(0, stored.size).erased()]
    levels = [
        {"level": n, "size": stored.size >> n, "too_small": int(too_small(labels_at(folder, stored, n)[0]).sum())}
        for n in range(stored.levels)
    ]
    return {
        "size": stored.size, "gsd_m": stored.gsd_m,
        "objects": {name: int((layout.labels == i).sum()) for i, name in enumerate(layout.classes)},
        "difficult": int(layout.difficult.sum()),
        "erased": {name: erased.count(name) for name in layout.classes},
        "levels": levels,
        "geotiff": (folder.level(0) / "images" / f"{NAME}.tif").relative_to(folder.path).as_posix(),
    }  # fmt: skip


def fingerprint(folder: WorldFolder) -> str:
    """SHA-256 of SHA256SUMS, from which all else follows."""
    return hashlib.sha256(folder.sums.read_bytes()).hexdigest()
