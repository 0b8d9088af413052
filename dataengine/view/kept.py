"""Pictures kept by hand: a folder in the form of a run, to be looked at and measured as runs are.

The manifest is the truth. It is written whole, after the picture; the DOTA and COCO folders are derived from it, and
written again where they are behind.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dataengine.data import coco, dota
from dataengine.data.layout import Dataset, Sample, layout_from_json, layout_to_json
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.files import lock, read_text, write_whole
from dataengine.view.images import encoded

if TYPE_CHECKING:
    from dataengine.view.studio import Rendered

FORMATS = {"dota": dota, "coco": coco}
BY_HAND = "drawn by hand"
BEHIND = ".data-sets-behind"  # there while the data sets are not what the manifest says


class Kept:
    """The open folder, held against a second program. Raises UserError for a folder that holds something else."""

    def __init__(self, out: Path, recipe: Recipe, parts: Parts):
        self.out, self.parts = out, parts
        self._writing = threading.Lock()
        try:
            _adopt(out)
            out.mkdir(parents=True, exist_ok=True)
            self._lock = lock(out / ".lock")  # held as long as the program runs
        except BlockingIOError:
            raise UserError(f"{out}: another program draws into this folder; give another --out.") from None
        except OSError as error:
            raise UserError(f"{out} cannot be written to ({error.strerror}); give another --out.") from None
        if not (out / "recipe.json").exists():
            # not under the name "recipe", so that no run ever continues here, over what was drawn
            content = {
                "made": BY_HAND, "drawn_with": recipe.model_dump(mode="json"), "parts": parts.hashes,
                "classes": list(parts.classes),
            }  # fmt: skip
            if parts.calibration is not None:
                parts.calibration.save(out / "calibration.json")
            write_whole(out / "recipe.json", json.dumps(content, indent=2) + "\n")
        self._records = _manifest(out)
        if (out / BEHIND).exists():
            self._write_data_sets()

    def close(self) -> None:
        """Let the folder go."""
        self._lock.close()

    def indices(self) -> list[int]:
        """Numbers of the pictures that are kept."""
        return [record["index"] for record in self._records]

    def add(self, made: Rendered) -> int:
        """Keep a picture with its labels; its number. What the filter said stays in the record beside the decision."""
        with self._writing:
            index = max(self.indices(), default=-1) + 1
            content = encoded(Image.fromarray(made.image))
            name = f"drawn/{index:08d}.png"
            (self.out / "drawn").mkdir(exist_ok=True)
            write_whole(self.out / name, content)
            record = {
                "index": index,
                "seed": made.order.seed,
                "image": name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "scene": made.scene,
                "scene_license": made.license,
                "unreadable_scenes": [],
                "drawn_on": made.origin,
                "asked": layout_to_json(made.asked),
                "labels": layout_to_json(made.labels),
                "verdict": {**asdict(made.verdict), "kept": True, "reason": ""},
                "filter": {"kept": made.verdict.kept, "reason": made.verdict.reason},
                "order": made.order.model_dump(mode="json", by_alias=True, exclude_none=True),
                "parts": self.parts.hashes,
            }
            self._store([*self._records, record])
            return index

    def remove(self, index: int) -> None:
        """Take a picture out again. Raises UserError where there is none of that number."""
        with self._writing:
            gone = [record for record in self._records if record["index"] == index]
            if not gone:
                raise UserError(f"no picture {index} is kept.")
            self._store([record for record in self._records if record["index"] != index])
            (self.out / gone[0]["image"]).unlink(missing_ok=True)

    def _store(self, records: list[dict]) -> None:
        write_whole(self.out / BEHIND, "")
        write_whole(self.out / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))
        self._records = records
        self._write_data_sets()

    def _write_data_sets(self) -> None:
        """Each is written beside its place and renamed into it; broken off, the next start writes it again."""
        samples = [
            Sample(f"{r['index']:08d}", self.out / r["image"], layout_from_json(r["labels"]), "dataengine, by hand",
                   r["scene_license"])
            for r in self._records
        ]  # fmt: skip
        classes = tuple(dict.fromkeys((*self.parts.classes, *(c for s in samples for c in s.layout.classes))))
        kind = self.parts.preset.kind
        dataset = Dataset(
            classes, [_in(sample, classes) for sample in samples], kind, f"drawn {self.parts.preset.name}"
        )
        for name, module in FORMATS.items():
            fresh, old = self.out / f".{name}-fresh", self.out / f".{name}-old"
            for folder in (fresh, old):
                shutil.rmtree(folder, ignore_errors=True)
            if samples:
                module.write(dataset, fresh, split="train")
            if (self.out / name).exists():
                (self.out / name).rename(old)
            if samples:
                fresh.rename(self.out / name)
            shutil.rmtree(old, ignore_errors=True)
        (self.out / BEHIND).unlink(missing_ok=True)


def _in(sample: Sample, classes: tuple[str, ...]) -> Sample:
    """The sample with its labels in this class list."""
    labels = np.array([classes.index(name) for name in sample.layout.names()], np.int64)
    return replace(sample, layout=replace(sample.layout, labels=labels, classes=classes))


def _adopt(out: Path) -> None:
    if out.is_file():
        raise UserError(f"{out} is a file; give a folder with --out.")
    held = [entry.name for entry in out.iterdir() if entry.name != ".lock"] if out.exists() else []
    if not held:
        return
    try:
        before = json.loads(read_text(out / "recipe.json")) if "recipe.json" in held else {}
    except ValueError:
        before = {}
    if not isinstance(before, dict) or before.get("made") != BY_HAND:
        raise UserError(f"{out} is not empty and holds no pictures drawn by hand; give another --out.")


def _manifest(out: Path) -> list[dict]:
    file = out / "manifest.jsonl"
    if not file.exists():
        return []
    try:
        records = [json.loads(line) for line in read_text(file).splitlines()]
        for record in records:
            record["index"], record["image"], record["scene_license"], layout_from_json(record["labels"])
        return records
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: damaged; put it back from a copy, or give another --out.") from None
