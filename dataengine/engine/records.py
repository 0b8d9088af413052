"""What a shard says of itself: one line an attempt, under a checksum, and every image under its own in its line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

RECORDS = "records.jsonl"
CHECKSUM = f"{RECORDS}.sha256"  # in the form of sha256sum, so that `sha256sum -c` checks it, too


def shard_folder(out: Path, number: int) -> Path:
    """Where shard `number` of a run lies."""
    return out / "shards" / f"{number:06d}"


def image_name(number: int, index: int) -> str:
    """Path of the image of attempt `index` in shard `number`, from the run's folder on."""
    return f"shards/{number:06d}/{index:08d}.png"


def erased(record: dict) -> list[int]:
    """Numbers of the objects asked for that were painted, but not found, and taken out again."""
    repairs = (record.get("verdict") or {}).get("repairs", ())
    return [repair["index"] for repair in repairs if repair["action"] == "erased"]


def painted(record: dict) -> int:
    """How many of a record's labels are painted objects; they come first, then those that its scene held before."""
    return len(record["asked"]["labels"]) - len(erased(record))


def record_files(lines: Sequence[str]) -> dict[str, bytes]:
    """A shard's records, one JSON object a line, and their checksum: name and content of both files."""
    content = "".join(f"{line}\n" for line in lines).encode()
    return {RECORDS: content, CHECKSUM: f"{hashlib.sha256(content).hexdigest()}  {RECORDS}\n".encode()}


def examine_shard(out: Path, number: int) -> tuple[list[dict], list[str]]:
    """(records, faults) of a shard that is there: what it says, and all that contradicts a checksum, in sentences.

    A shard without faults is what a worker made, to the last bit. Records that cannot be read are none.
    """
    folder = shard_folder(out, number)
    try:
        content = (folder / RECORDS).read_bytes()
        stated = (folder / CHECKSUM).read_text("ascii")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError) as error:
        lost = Path(getattr(error, "filename", None) or CHECKSUM).name
        return [], [f"{folder}: {lost} is missing or unreadable"]
    if stated != f"{hashlib.sha256(content).hexdigest()}  {RECORDS}\n":
        return [], [f"{folder / RECORDS} is not what was written: its checksum differs"]
    faults, records = [], []
    for line, text in enumerate(content.splitlines(), 1):
        try:
            record = json.loads(text)
            index, image, checksum = (record[key] for key in ("index", "image", "sha256"))
            name = image_name(number, index)
        except (ValueError, TypeError, KeyError, RecursionError):
            faults.append(f"{folder / RECORDS}: line {line} is no record of an image")
            continue
        records.append(record)
        if image != name:
            faults.append(f"{folder / RECORDS}: line {line} names {image} where {name} belongs")
        elif not (out / name).is_file():
            faults.append(f"{out / name} is missing")
        elif hashlib.sha256((out / name).read_bytes()).hexdigest() != checksum:
            faults.append(f"{out / name} is not what was written: its checksum differs")
    return records, faults or ([] if records else [f"{folder / RECORDS} is empty"])
