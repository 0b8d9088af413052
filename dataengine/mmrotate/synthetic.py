"""Exports the images of a run alone, where there are no real ones, with a config that trains a detector on them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dataengine.data import formats
from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.files import cannot_write, read_text, refuse_links
from dataengine.mmrotate.training_config import ExportedData, config_text, spelling

TEST_EVERY = 10  # of the images, one is not trained on


@dataclass(frozen=True)
class SyntheticExport:
    """config: path of the config; train, test: numbers of images."""

    config: Path
    train: int
    test: int


def export_synthetic(dataset: Dataset, out: Path, detector: str, layout: str, identity: str) -> SyntheticExport:
    """Write `out/data/synthetic`, with the splits train and test, and `out/<detector>.py`; the folder can be moved.

    dataset: images of a run, at least two. detector: a key of DETECTORS; layout: one of LAYOUTS. identity: of the run,
    so that the same data are written once. The test images tell how well the detector learns synthetic images, nothing
    about real ones, and the config says so.

    Raises UserError where `out` holds data of another run, and where nothing can be written.
    """
    samples = list(dataset)
    parts = {
        "train": [sample for i, sample in enumerate(samples) if i % TEST_EVERY],
        "test": samples[::TEST_EVERY],
    }
    if not parts["train"]:
        raise UserError("a detector needs at least two images, one to train on and one to test on; raise --n.")
    done = SyntheticExport(out / f"{detector}.py", len(parts["train"]), len(parts["test"]))
    content = {"run": identity, "layout": layout, "detector": detector}
    refuse_links(out)
    if out.exists() and any(out.iterdir()):
        stored = out / "export.json"
        if stored.exists() and json.loads(read_text(stored)) == content:
            return done
        raise UserError(f"{out} holds other data; remove that folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=out.parent) as temporary:
            work = Path(temporary) / "export"
            for split, part in parts.items():
                formats.write(
                    replace(dataset, samples=part, kind="obb"), work / "data" / "synthetic", layout, split=split
                )
            text = _config(detector, layout, dataset, samples, done.train)
            (work / done.config.name).write_text(text, "utf-8")
            (work / "export.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
            if out.exists():
                out.rmdir()
            os.replace(work, out)
    except OSError as error:
        raise cannot_write(error, out, "give another --out.") from None
    return done


def _config(detector: str, layout: str, dataset: Dataset, samples: Sequence, images: int) -> str:
    """The text of the config. images: number of those to train on."""
    side = max(max(sample.layout.size) for sample in samples)
    names = spelling(dataset.classes, layout)
    data = ExportedData(layout, names, side, 1.0, images, upright=dataset.kind == "hbb")
    text = config_text(detector, data, (0, 1), 1.0, cpu=False)
    head, _, rest = text.partition("\n")
    assert head.startswith("#"), "the first line is a comment"
    return (
        f"# {detector} on synthetic images alone, written by dataengine. It is tested on synthetic images, too: such\n"
        "# figures say nothing about real images. To test on real ones, replace test_dataloader and val_dataloader.\n"
        + rest.replace("/data/real/", "/data/synthetic/")
    )
