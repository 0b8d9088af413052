"""The stages of `dataengine improve`: detectors, filter, renderer, and the images of a round."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dataengine.data import formats
from dataengine.data.merge import merge
from dataengine.data.staging import written_splits
from dataengine.engine.recipe import load_recipe
from dataengine.engine.run import synth
from dataengine.errors import UserError
from dataengine.files import remove
from dataengine.improve.journal import Journal
from dataengine.improve.plan import PLAIN, Plan
from dataengine.improve.trainings import Arm, Part, TrainDetector, Training, detect, read_training
from dataengine.judge.calibrate import calibrate
from dataengine.judge.detector import load_detector
from dataengine.mmrotate.export import export
from dataengine.mmrotate.training_config import DETECTORS
from dataengine.train.detector import PRESETS

PASS_SHARES = (0.95, 0.7)  # of the validation images that the filter is to accept; the second for a weak detector
MAX_CALIBRATION_IMAGES = 200
MAX_SIZE, SIZE_STEP, MIN_SIZE = 256, 32, 64  # sides of synthetic images in pixels
SMALL_SET, COPIES_OF_FEW, COPIES = 300, 9, 2  # up to so many images, the renderer sees more augmented copies of each
DISTILL_SHARE = 0.2  # of the renderer's steps
REAL = "real images alone"


@dataclass(frozen=True)
class Settings:
    """What decides the result of `improve`.

    format, group: of the data set, see `parts.write_parts`. preset, steps, tile_size, scale: of every detector, see
    `TrainDetector`.
    seeds: trainings of each arm. real_share: of each batch, where there are synthetic images. images: synthetic ones of
    each round. size: their side in pixels; None for up to MAX_SIZE. renderer_steps: of its training. model: a trained
    renderer to use instead. rounds, hours: no round begins once these are spent.
    """

    preset: str
    steps: int | None = None
    seeds: int = 3
    rounds: int = 3
    images: int = 500
    hours: float | None = None
    size: int | None = None
    renderer_steps: int = 1500
    model: Path | None = None
    real_share: float = 0.5
    format: str | None = None
    group: str | None = None
    tile_size: int | None = None
    scale: float = 1.0

    def as_json(self, data: Path) -> dict:
        """Plain values, with the data set's folder."""
        model = None if self.model is None else str(self.model.resolve())
        return {"data": str(data.resolve()), **asdict(self), "model": model}


@dataclass(frozen=True)
class Work:
    """The folder of results, and what all stages need. say: tells the user what begins."""

    out: Path
    settings: Settings
    journal: Journal
    train_detector: TrainDetector
    say: Callable[[str], None]
    workers: int | None = 1

    @cached_property
    def train(self) -> Part:
        return Part.read(self.out / "parts" / "train")

    @cached_property
    def val(self) -> Part:
        return Part.read(self.out / "parts" / "val")

    @cached_property
    def test(self) -> Part:
        return Part.read(self.out / "parts" / "test")

    @property
    def steps(self) -> int | None:
        """Steps of every detector: arms with more images take no more. None for those of the preset."""
        preset, settings = PRESETS[self.settings.preset], self.settings
        if settings.steps is not None or preset.steps is not None:
            return settings.steps
        row = replace(DETECTORS[preset.detector], batch_size=preset.batch_size)
        return row.steps(len(self.train.dataset) + settings.images)

    @cached_property
    def size(self) -> int:
        """Side of the synthetic images in pixels."""
        if self.settings.size is not None:
            return self.settings.size
        side = float(np.quantile([min(layout.size) for layout in self.train.layouts], 0.1))
        size = min(MAX_SIZE, int(side) // SIZE_STEP * SIZE_STEP)
        if size < MIN_SIZE:
            raise UserError(
                f"the training images are about {side:.0f} pixels wide; synthetic ones need {MIN_SIZE} or more: give "
                "larger images."
            )
        return size


def train_arm(work: Work, name: str, folder: Path, runs: Sequence[Path]) -> Arm:
    """Train a detector with each seed on the real images and those of the runs, and find its detections on the
    validation part."""
    extra = extra_data(work, folder, runs)
    return Arm(name, tuple(runs), tuple(_trained(work, name, folder, extra, s) for s in range(work.settings.seeds)))


def _trained(work: Work, name: str, folder: Path, extra: Path | None, seed: int) -> Training:
    settings, place = work.settings, folder / f"seed-{seed}"
    found = place / "validation.npz"

    def make() -> dict:
        work.say(f"training a detector on {name}, seed {seed}")
        detector = work.train_detector(
            work.train.path, place / "training", extra=extra, preset=settings.preset, steps=work.steps, seed=seed,
            real_share=settings.real_share, tile_size=settings.tile_size, scale=settings.scale,
        )  # fmt: skip
        detect(detector, work.val, found)
        training = read_training(detector, work.val, found)
        return {"detector": os.path.relpath(detector, work.out), "AP50": training.ap50}

    stored = work.journal.once(f"{name}, seed {seed}", make)
    return read_training(work.out / stored["detector"], work.val, found)


def extra_data(work: Work, folder: Path, runs: Sequence[Path]) -> Path | None:
    """One data set of the synthetic images of all runs, None for none."""
    if len(runs) < 2:
        return runs[0] / "coco" if runs else None
    data = folder / "synthetic"
    if not written_splits(data):
        classes = work.train.dataset.classes  # of which a run may have left out some
        datasets = [formats.read(run / "coco", "coco", classes=classes) for run in runs]
        joined = merge([replace(dataset, name=run.name) for dataset, run in zip(datasets, runs, strict=True)])
        formats.write(joined, data, "coco")
    return data


def calibrate_filter(work: Work, detector: Path) -> dict:
    """Calibrate the filter with the baseline detector on the validation part, which no model was trained on.

    Returns the settings of `Recipe` for the filter, and a sentence. Where a calibration is refused, for few images or a
    weak detector, the filter is off.
    """
    file = work.out / "calibration.json"

    def make() -> dict:
        work.say("calibrating the filter")
        chosen = np.random.default_rng(0).permutation(len(work.val.layouts))[:MAX_CALIBRATION_IMAGES]
        images, layouts = ([values[i] for i in sorted(chosen)] for values in (work.val.images, work.val.layouts))
        for share in PASS_SHARES:
            try:
                rule = calibrate(load_detector(detector), images, layouts, "the validation part", share)
            except UserError as error:
                reason = str(error)
                continue
            rule.save(file)
            return {"on": True, "note": f"the filter accepts {rule.pass_share:.0%} of the validation images"}
        return {"on": False, "note": f"no filter: {reason}"}

    return work.journal.once("filter", make)


def train_renderer(work: Work) -> Path:
    """The renderer that the user gives, or one that is trained on the training part and distilled to few steps."""
    if work.settings.model is not None:
        return work.settings.model
    slow, fast, steps = work.out / "renderer", work.out / "renderer-fast", work.settings.renderer_steps

    def make() -> str:
        from dataengine.train.commands import fewer_steps, renderer

        work.say("training the renderer")
        copies = COPIES_OF_FEW if len(work.train.dataset) <= SMALL_SET else COPIES
        with redirect_stdout(sys.stderr):  # standard output is for the rounds
            renderer([work.train.path], slow, steps=steps, copies=copies)
            fewer_steps(
                [work.train.path], fast, model=slow / "pipeline", guidance=1,
                steps=max(1, round(DISTILL_SHARE * steps)),
            )  # fmt: skip
        return "renderer-fast/pipeline"

    return work.out / work.journal.once("renderer", make)


def synthesise(work: Work, number: int, plan: Plan, model: Path, filter_on: bool, detector: Path) -> tuple[Path, int]:
    """Make the images of a round; (its run folder, number of accepted images)."""
    folder = work.out / "rounds" / str(number)
    run = folder / "run"

    def make() -> int:
        work.say(f"making images of round {number}")
        recipe = {
            "data": _chosen(work, plan.layouts, folder / "layouts"),
            "format": "coco",
            "n": work.settings.images,
            "seed": number,
            "size": work.size,
            "model": model,
            **PLAIN,
        }
        if plan.scenes:
            recipe |= {"scenes": _chosen(work, plan.scenes, folder / "scenes"), "scenes_format": "coco"}
        if filter_on and plan.changes.get("filter") != "off":
            recipe |= {"detector": detector, "calibration": work.out / "calibration.json"}
        else:
            recipe["filter"] = "off"
        return synth(load_recipe(None, recipe | plan.changes), run, work.workers).accepted

    return run, work.journal.once(f"round {number} images", make)


def _chosen(work: Work, names: Sequence[str], folder: Path) -> Path:
    """The training part, or a data set of those of its images that are named."""
    if not names:
        return work.train.path
    if not written_splits(folder):
        chosen = set(names)
        samples = [sample for sample in work.train.dataset if sample.name in chosen]
        formats.write(replace(work.train.dataset, samples=samples), folder, "coco")
    return folder


def hand_back(work: Work, arm: Arm) -> None:
    """Put the arm's best detector into `detector`, and what it was trained on into `data`, in DOTA's form with a config
    of mmrotate; each in place of that of an earlier arm."""
    new = work.out / ".detector"
    remove(new)
    shutil.copytree(arm.best.folder, new)
    remove(work.out / "detector")
    os.replace(new, work.out / "detector")
    extra = extra_data(work, arm.runs[-1].parent, arm.runs) if arm.runs else None
    new, preset = work.out / ".data", PRESETS[work.settings.preset]
    remove(new)
    export(
        extra, work.train.path, new, detector=preset.detector, ratio=(1, int(extra is not None)),
        test=str(work.val.path), tile_size=work.settings.tile_size or preset.tile_size, scale=work.settings.scale,
    )  # fmt: skip
    remove(work.out / "data")
    os.replace(new, work.out / "data")
