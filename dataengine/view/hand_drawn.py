"""Images kept by hand: a folder in the form of a run, which can be viewed and evaluated like one.

The manifest is written atomically after each image. The DOTA and COCO folders are derived from it and rewritten
whenever they are out of date.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dataengine.data import coco, dota
from dataengine.data.layout import Dataset, Sample
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.files import lock, parse_json, read_text, refuse_links, write_whole
from dataengine.view.images import encoded

if TYPE_CHECKING:
    from pathlib import Path

    from dataengine.engine.parts import Parts
    from dataengine.engine.recipe import Recipe
    from dataengine.view.studio import Rendered

FORMATS = {"dota": dota, "coco": coco}
BY_HAND = "drawn by hand"
OUTDATED = ".data-sets-behind"  # exists while the data sets differ from the manifest


def hand_drawn_recipe(run: RunFolder) -> dict | None:
    """Content of the recipe file of a folder of images kept by hand, None for any other folder.

    Keys: `made` (always "drawn by hand"), `drawn_with` (the recipe), `parts` and `classes`.
    """
    try:
        content = parse_json(read_text(run.recipe)) if run.recipe.exists() else None
    except ValueError:
        return None
    return content if isinstance(content, dict) and content.get("made") == BY_HAND else None


def image_name(index: int) -> str:
    """Path of a kept image, relative to the folder."""
    return f"drawn/{index:08d}.png"


class HandDrawnFolder:
    """The open folder, locked against a second program. Raises UserError for a folder with other content."""

    def __init__(self, out: Path, recipe: Recipe, parts: Parts):
        self.run, self.parts = RunFolder(out), parts
        self._writing = threading.Lock()
        try:
            _check_folder(self.run)
            out.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.run.lock)  # held as long as the program runs
            refuse_links(out)
        except BlockingIOError:
            raise UserError(f"{out}: another program draws into this folder; choose another --out.") from None
        except OSError as error:
            raise UserError(f"{out} cannot be written to ({error.strerror}); choose another --out.") from None
        if not self.run.recipe.exists():
            # without the key "recipe", so that no run continues here
            content = {
                "made": BY_HAND, "drawn_with": recipe.model_dump(mode="json"), "parts": parts.hashes,
                "classes": list(parts.classes),
            }  # fmt: skip
            if parts.calibration is not None:
                parts.calibration.save(self.run.calibration)
            write_whole(self.run.recipe, json.dumps(content, indent=2) + "\n")
        self._lines = _read_lines(self.run)
        if (out / OUTDATED).exists():
            self._write_data_sets()

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def indices(self) -> list[int]:
        """Numbers of the kept images."""
        return [record.index for record, _ in self._lines]

    def add(self, rendered: Rendered) -> int:
        """Keep an image with its labels; returns its number. The record holds the filter's verdict and the person's."""
        with self._writing:
            index = max(self.indices(), default=-1) + 1
            content = encoded(Image.fromarray(rendered.image))
            record = Record(
                index=index,
                seed=rendered.request.seed,
                image=image_name(index),
                sha256=hashlib.sha256(content).hexdigest(),
                provenance=rendered.provenance,
                layout_from=None,
                left_out=0,
                asked=rendered.asked,
                labels=rendered.labels,
                verdict=replace(rendered.verdict, kept=True, reason=""),
            )
            file = self.run.path / record.image
            file.parent.mkdir(exist_ok=True)
            write_whole(file, content)
            by_hand = {
                "drawn_on": rendered.origin,
                "filter": {"kept": rendered.verdict.kept, "reason": rendered.verdict.reason},
                "order": rendered.request.model_dump(mode="json", by_alias=True, exclude_none=True),
                "parts": self.parts.hashes,
            }
            self._store([*self._lines, (record, json.dumps(json.loads(record.to_json()) | by_hand))])
            return index

    def remove(self, index: int) -> None:
        """Remove an image. Raises UserError where there is none with this number."""
        with self._writing:
            removed = [record for record, _ in self._lines if record.index == index]
            if not removed:
                raise UserError(f"no image {index} is kept.")
            self._store([(record, line) for record, line in self._lines if record.index != index])
            self.run.image(removed[0]).unlink(missing_ok=True)

    def _store(self, lines: list[tuple[Record, str]]) -> None:
        write_whole(self.run.path / OUTDATED, "")
        write_whole(self.run.manifest, "".join(f"{line}\n" for _, line in lines))
        self._lines = lines
        self._write_data_sets()

    def _write_data_sets(self) -> None:
        """Write the data sets and rename them into place; after an interruption, the next start writes them again."""
        records = [record for record, _ in self._lines]
        classes = tuple(dict.fromkeys((*self.parts.classes, *(c for r in records for c in r.labels.classes))))
        samples = [_sample(self.run, record, classes) for record in records]
        dataset = Dataset(classes, samples, self.parts.preset.kind, f"drawn {self.parts.preset.name}")
        for name, module in FORMATS.items():
            target = getattr(self.run, name)
            fresh, old = (target.with_name(f".{name}-{suffix}") for suffix in ("fresh", "old"))
            for folder in (fresh, old):
                shutil.rmtree(folder, ignore_errors=True)
            if samples:
                module.write(dataset, fresh, split="train")
            if target.exists():
                target.rename(old)
            if samples:
                fresh.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        (self.run.path / OUTDATED).unlink(missing_ok=True)


def _sample(run: RunFolder, record: Record, classes: tuple[str, ...]) -> Sample:
    """The image with its labels numbered in `classes`."""
    labels = np.array([classes.index(name) for name in record.labels.names()], np.int64)
    layout = replace(record.labels, labels=labels, classes=classes)
    return Sample(record.name, run.image(record), layout, "dataengine, by hand", record.provenance.license)


def _check_folder(run: RunFolder) -> None:
    if run.path.is_file():
        raise UserError(f"{run.path} is a file; choose a folder with --out.")
    others = [entry for entry in run.path.iterdir() if entry != run.lock] if run.path.exists() else []
    if others and hand_drawn_recipe(run) is None:
        raise UserError(f"{run.path} is not empty and has no images drawn by hand; choose another --out.")


def _read_lines(run: RunFolder) -> list[tuple[Record, str]]:
    """Records of the manifest, with the lines that they are read from."""
    if not run.manifest.exists():
        return []
    try:
        lines = [(Record.from_json(line), line) for line in read_text(run.manifest).splitlines()]
        for record, _ in lines:
            run.image(record)
    except ValueError:
        raise UserError(f"{run.manifest}: damaged; restore it from a copy, or choose another --out.") from None
    return lines
