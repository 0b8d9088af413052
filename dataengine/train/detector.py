"""Training of an mmrotate detector on a labelled data set, from a plain installation, to what the filter loads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dataengine.data import formats
from dataengine.data.presets import config_file
from dataengine.errors import UserError, one_line
from dataengine.files import read_text, read_yaml, refuse_links, write_whole
from dataengine.mmrotate import environment
from dataengine.mmrotate.export import Exported, export
from dataengine.mmrotate.training_config import DETECTORS

Report = Callable[[str], None]
Progress = Callable[[int, int, float, float], None]  # (steps done, steps in all, loss, seconds per step)


@dataclass(frozen=True)
class DetectorPreset:
    """A detector and its training.

    detector:  a key of `training_config.DETECTORS`. options: file below configs/detectors with changes to its config.
    steps:     None for as many epochs as mmrotate trains it. batch_size: images a step.
    tile_size: side of the tiles that larger images are cut into, and of the exported model's input, in pixels.
    schedule:  of the learning rate, see `mmrotate.schedule`.
    """

    detector: str
    options: str | None
    steps: int | None
    batch_size: int
    tile_size: int
    summary: str


PRESETS: dict[str, DetectorPreset] = {
    "tiny": DetectorPreset("rtmdet-r", "tiny-rtmdet-r", 1500, 8, 256, "0.5 M weights, random; for a CPU"),
    "small": DetectorPreset("rtmdet-r", "small-rtmdet-r", 3000, 8, 256, "1.3 M weights, random; for a CPU"),
    "lite0": DetectorPreset("rtmdet-r", "lite0-rtmdet-r", 1500, 8, 256, "0.9 M weights, of ImageNet; for a CPU"),
} | {
    name: DetectorPreset(name, None, None, 2, 1024, "full size, at mmrotate's schedule; for a GPU")
    for name in DETECTORS
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
    report: Report = environment.say,
    progress: Progress = lambda done, total, loss, seconds: None,
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
    report:     gets sentences for the user. progress: gets steps done, steps in all, the loss, seconds per step.

    A one-stage detector is exported to ONNX, which needs no mmrotate: `out/detector` has model.onnx and config.json.
    Of a two-stage one the work folder `out/training` is returned. A killed training continues with the same call, and
    on a CPU ends with the same bytes as an uninterrupted one.

    Training is a process of the environment that has mmrotate, which is made if there is none (`mmrotate.environment`).
    Raises UserError where the data do not fit, `out` holds another training, or mmrotate cannot be installed.
    """
    raise NotImplementedError
