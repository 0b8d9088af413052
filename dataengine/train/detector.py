"""Training of an mmrotate detector on a labelled data set, from a plain installation, to what the filter loads."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import IO

import numpy as np
import torch

from dataengine.data.layout import Dataset
from dataengine.data.presets import configs
from dataengine.errors import UserError, counted, listed, one_line
from dataengine.files import read_text, read_yaml, refuse_links, write_whole
from dataengine.mmrotate import environment
from dataengine.mmrotate.draws import batch_shares
from dataengine.mmrotate.export import export
from dataengine.mmrotate.job import ONE_STAGE
from dataengine.mmrotate.sources import training_data
from dataengine.mmrotate.training_config import DETECTORS, SIDE_MULTIPLE
from dataengine.render.imagery import measured, write_imagery

Progress = Callable[[int, int, float], None]  # (steps done, steps in all, loss)
MAX_SIDE_SHARE = 0.5  # of a tile's side; a class with a longer median is reported, since few tiles show it whole
PARTS = "export", "training", "detector"  # folders of a training
FINISHED_FILE = "finished.json"  # in the work folder: the job that was carried out to its end


@dataclass(frozen=True)
class DetectorPreset:
    """A detector and its training.

    detector:  a key of `training_config.DETECTORS`. options: file of configs/detectors with changes to its config.
    steps:     None for as many epochs as mmrotate trains it. batch_size: images a step. schedule: of the learning rate.
    tile_size: side of the tiles that larger images are cut into, and of the exported model's input, in pixels.
    """

    detector: str
    options: str | None = None
    steps: int | None = None
    batch_size: int = 8
    tile_size: int = 256
    schedule: str = "cosine"


PRESETS: dict[str, DetectorPreset] = {
    # for a CPU
    "tiny": DetectorPreset("rtmdet-r", "tiny-rtmdet-r", 1500),
    "small": DetectorPreset("rtmdet-r", "small-rtmdet-r", 3000),
    "lite0": DetectorPreset("rtmdet-r", "lite0-rtmdet-r", 1500),
} | {  # full size, at mmrotate's schedule
    name: DetectorPreset(name, None, None, row.batch_size, 1024, row.schedule) for name, row in DETECTORS.items()
}
DEFAULT_PRESET = "lite0"


def train_detector(
    real: str | Path,
    out: str | Path,
    *,
    extra: str | Path | None = None,
    preset: str = DEFAULT_PRESET,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    real_share: float = 0.5,
    splits: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    format: str | None = None,
    tile_size: int | None = None,
    scale: float = 1.0,
    options: dict | None = None,
    report: environment.Report = environment.say,
    progress: Progress = lambda done, total, loss: None,
) -> Path:
    """Train a detector on `real`, and return a folder that `judge.detector.load_detector` loads.

    real:       labelled data set in any format. splits: of it; () for "trainval", else "train", else all of it.
    extra:      run folder of `dataengine synth` or a labelled data set, that fills the rest of each batch.
    preset:     a key of PRESETS. steps, batch_size, tile_size: None for those of the preset. A finished training
                continues if it is given more steps.
    minutes:    stop after this long; what is trained until then is exported, and the same call continues.
    real_share: share of real images in each batch where there are others.
    classes:    None for all of the real data; objects of other classes are left out.
    scale:      resize factor of all images, for small objects.
    options:    changes to mmrotate's config by dotted key, over those of the preset.
    report:     gets sentences for the user. progress: gets steps done, steps in all, the loss.

    A one-stage detector is exported to ONNX, which needs no mmrotate: `out/detector` has model.onnx and config.json.
    Of a two-stage one the work folder `out/training` is returned. A killed training continues with the same call, and
    on a CPU ends with the same bytes as an uninterrupted one.

    Training is a process of the environment that has mmrotate, which is made if there is none (`mmrotate.environment`).
    Raises UserError where the data do not fit, `out` holds another training, or mmrotate cannot be installed.
    """
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: no such preset; choose one of {', '.join(PRESETS)}.")
    chosen, out, on_gpu = PRESETS[preset], Path(out), torch.cuda.is_available()
    tile_size, batch_size = tile_size or chosen.tile_size, batch_size or chosen.batch_size
    if extra is not None:
        batch_shares(batch_size, real_share)  # errors appear before anything is written
    _check_folder(out)
    done = export(
        extra, real, out / "export", detector=chosen.detector, ratio=(1, 0 if extra is None else 1), tested=False,
        train_splits=splits, classes=classes, tile_size=tile_size, scale=scale, cpu=not on_gpu, real_format=format,
    )  # fmt: skip
    for note in done.notes:
        report(note)
    dataset = training_data(Path(real), format, splits, classes)
    _report_long_objects(dataset, tile_size, report)
    if chosen.steps is None and not on_gpu:
        report(f"--preset {preset} is made for a GPU, and none is here: a step may take a minute")
    row = replace(DETECTORS[chosen.detector], batch_size=batch_size)
    steps = steps or chosen.steps or row.steps(done.real + done.synthetic)
    onnx = out / "detector" if chosen.detector in ONE_STAGE else None
    packaged = read_yaml(configs("detectors") / f"{chosen.options}.yaml") if chosen.options else {}
    job = {
        "exported": str(done.config.absolute()), "out": str((out / "training").absolute()),
        "onnx": str(onnx.absolute()) if onnx else None, "image_size": _input_side(tile_size, scale),
        "settings": {
            "steps": steps, "batch_size": batch_size, "seed": seed, "real_share": real_share, "minutes": minutes,
            "options": packaged | (options or {}), "schedule": chosen.schedule,
        },
    }  # fmt: skip
    reached = _run(job, report, progress)
    result = onnx or out / "training"
    if (imagery := measured(dataset)) is not None:
        write_imagery(result, [imagery])
    if reached < steps:
        report(
            f"stopped after {counted(minutes, 'minute')} at step {reached:,} of {steps:,}; the same command continues "
            f"from there. {result} is the detector as far as it is trained"
        )
    return result


def _check_folder(out: Path) -> None:
    """Raises UserError for a folder with other files than those of a training, or with links."""
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in PARTS) if out.is_dir() else []
    if foreign:
        raise UserError(
            f"{out} contains other files than those of a detector's training ({foreign[0]}); give another --out."
        )
    refuse_links(out)


def _report_long_objects(dataset: Dataset, tile_size: int, report: environment.Report) -> None:
    """Report classes whose objects are mostly too long for a tile to show them whole, in images that are cut."""
    cut = [sample.layout for sample in dataset if max(sample.layout.size) > tile_size]
    if not cut:
        return
    labels = np.concatenate([layout.labels for layout in cut])
    sides = np.concatenate([layout.boxes[:, 2] for layout in cut])
    usual = {name: float(np.median(sides[labels == c])) for c, name in enumerate(dataset.classes) if c in labels}
    long = [name for name, side in usual.items() if side > MAX_SIDE_SHARE * tile_size]
    if long:
        times = ceil(max(usual[name] for name in long) / (MAX_SIDE_SHARE * tile_size))
        report(
            f"most objects of {listed(long)} are longer than half of the tiles of {tile_size} px that the images are "
            "cut into, which seldom show them whole; larger tiles at a smaller scale show them in the same time: "
            f"dataengine train detector --tile-size {times * tile_size} --scale {1 / times:.2g}"
        )


def _input_side(tile_size: int, scale: float) -> int:
    """The side of the exported model's input: that of the tiles, or the next that the network can have.

    >>> _input_side(256, 0.5), _input_side(250, 1.0)
    (256, 256)
    """
    side = tile_size
    while round(side * scale) % SIDE_MULTIPLE:
        side += 1
    return side


def _run(job: dict, report: environment.Report, progress: Progress) -> int:
    """Carry out a job where mmrotate is installed, unless it is done; the step that was reached."""
    finished, steps = Path(job["out"]) / FINISHED_FILE, job["settings"]["steps"]
    asked = json.dumps(job | {"settings": job["settings"] | {"minutes": None}}, indent=2) + "\n"
    asked += read_text(job["exported"])
    if finished.exists() and read_text(finished) == asked and Path(job["onnx"] or job["out"]).exists():
        return steps
    with tempfile.TemporaryDirectory(prefix="dataengine-job-") as folder:
        file = Path(folder) / "job.json"
        write_whole(file, json.dumps(job))
        with (Path(folder) / "log").open("w+", encoding="utf-8", errors="replace") as log:
            command = environment.command("dataengine.mmrotate.job", str(file), report=report)
            reached = _follow(command, log, progress)
    if reached == steps:
        write_whole(finished, asked)
    return reached


def _follow(command: list[str], log: IO[str], progress: Progress) -> int:
    """Run the process of a job to its end; the step that was reached. log: for what its libraries print.

    Raises UserError with what the process says, or where it ends without an answer."""
    answer: dict = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            for line in process.stdout:
                said = json.loads(line)
                if "step" in said:
                    progress(said["step"], said["steps"], said["loss"])
                else:
                    answer = said
        except BaseException:
            process.terminate()
            raise
    if "error" in answer:
        raise UserError(answer["error"])
    if "reached" not in answer:
        log.seek(0)
        last = one_line(Exception(log.read().strip().rpartition("\n")[2]))
        raise UserError(
            f"the process that trains the detector ended with status {process.returncode} "
            f"({last or 'without a word'}); the same command continues from its last checkpoint."
        )
    return answer["reached"]
