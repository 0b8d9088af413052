"""Does synthetic data help? One detector trained on real images alone, with copy-paste, and with synthetic images."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from dataengine.data import dota, formats
from dataengine.data.images import read_picture
from dataengine.data.pixel_range import in_8_bits
from dataengine.data.tile import tile
from dataengine.engine.update import update_data_sets
from dataengine.errors import UserError
from dataengine.evaluate.average_precision import COCO_THRESHOLDS, average_precision
from dataengine.evaluate.copy_paste import write_copy_paste
from dataengine.evaluate.layout_score import SIZES
from dataengine.evaluate.results import Column, Figure, Result, Row
from dataengine.files import read_text, refuse_links, write_whole
from dataengine.judge.detector import Detector
from dataengine.mmrotate.detector import MmrotateDetector
from dataengine.mmrotate.draws import batch_shares
from dataengine.mmrotate.export import export
from dataengine.mmrotate.training import train_exported

REAL, COPY_PASTE, MORE_REAL = "real", "copy-paste", "more real"


@dataclass(frozen=True)
class Arm:
    """source: the data set of the additional images; images: how many of them, None for all."""

    source: Path
    images: int | None


@dataclass(frozen=True)
class Protocol:
    """Settings of the comparison; an arm is a training set.

    real, test:  labelled data sets for training and testing, without a common image.
    runs:        folders of `dataengine synth`, whose models saw no labels but those of `real`.
    sizes:       numbers of synthetic images; each run and size is an arm with the first images of the run.
    detector:    a name of `dataengine export mmrotate`. options: overrides of its config, as mmengine's --cfg-options.
    steps, batch_size: of the optimiser, in every arm. seeds: number of trainings of each arm.
    real_share:  share of real images in every batch, in arms with additional images.
    pasted:      number of images in the copy-paste arm.
    more_real:   labelled data set of an additional arm: the benefit of more real labels (positive control).
    format:      of the real data sets; None recognises it.
    """

    real: Path
    test: Path
    runs: tuple[Path, ...]
    sizes: tuple[int, ...]
    detector: str
    options: dict
    steps: int
    batch_size: int
    seeds: int
    real_share: float
    pasted: int = 5000
    tile_size: int = 1024
    scale: float = 1.0
    cpu: bool = False
    more_real: Path | None = None
    format: str | None = None

    @property
    def arms(self) -> dict[str, Arm]:
        """Arms by name."""
        arms = {REAL: Arm(self.real, 0), COPY_PASTE: Arm(self.real, self.pasted)}
        arms |= {f"{run.resolve().name} {n}": Arm(run, n) for run in self.runs for n in self.sizes}
        return arms | ({MORE_REAL: Arm(self.more_real, None)} if self.more_real else {})


def run_lift(protocol: Protocol, out: Path, workers: int = 1, report: Callable[[str], None] = print) -> list[dict]:
    """Train and test every arm with every seed, `workers` at a time, each in its own process.

    Returns the outcomes, which are also stored as `out/ARM/seed-K/outcome.json`. The same call continues an interrupted
    comparison; other runs or sizes add arms. Raises UserError where the data do not fit, two runs have the same folder
    name, or `out` holds outcomes of another protocol.
    """
    batch_shares(protocol.batch_size, protocol.real_share)  # errors appear before anything is written
    twice = [name for name, times in Counter(run.resolve().name for run in protocol.runs).items() if times > 1]
    if twice:
        raise UserError(f"two runs have the folder name {twice[0]}, which names their arms; rename one of the folders.")
    _store_protocol(protocol, out)
    # all arms of a seed before the next seed, so that early outcomes can be compared
    trainings = [(arm, seed) for seed in range(protocol.seeds) for arm in protocol.arms]
    missing = [training for training in trainings if not _outcome_file(out, *training).exists()]
    for training in set(trainings).difference(missing):
        _read_outcome(protocol, *training, out)  # errors appear before any training
    configs = {arm: _export_config(protocol, arm, out) for arm, _ in missing}
    if workers == 1:
        for arm, seed in missing:
            report(f"{arm}, seed {seed}")
            train_and_test(protocol, arm, seed, configs[arm], out)
    elif missing:
        threads = max(1, (os.cpu_count() or 1) // workers)
        with ProcessPoolExecutor(
            workers, get_context("spawn"), torch.set_num_threads, (threads,), max_tasks_per_child=1
        ) as pool:
            running = {
                pool.submit(train_and_test, protocol, a, s, configs[a], out): f"{a}, seed {s}" for a, s in missing
            }
            for future in as_completed(running):
                report(f"{running[future]}: AP50 {future.result()['AP50']:.3f}")
    return [_read_outcome(protocol, *training, out) for training in trainings]


def _read_outcome(protocol: Protocol, arm: str, seed: int, out: Path) -> dict:
    """A stored outcome. Raises UserError where it belongs to other images."""
    stored, now = json.loads(read_text(_outcome_file(out, arm, seed))), protocol.arms[arm]
    if (stored["source"], stored["images"]) != (str(now.source), now.images):
        raise UserError(
            f"{_outcome_file(out, arm, seed)} belongs to {stored['images'] or 'all'} images of {stored['source']}, "
            f"not to {now.images or 'all'} of {now.source}; choose another --out."
        )
    return stored


def _outcome_file(out: Path, arm: str, seed: int) -> Path:
    return out / arm.replace(" ", "-") / f"seed-{seed}" / "outcome.json"


def _export_config(protocol: Protocol, arm: str, out: Path) -> Path:
    """Export the config and data of an arm; returns the config."""
    n = protocol.arms[arm].images
    return export(
        None if n == 0 else _extra_data(protocol, arm, out), protocol.real, out / arm.replace(" ", "-"),
        detector=protocol.detector, ratio=(1, 0 if n == 0 else 1), most=n,
        test=str(protocol.test), tile_size=protocol.tile_size, scale=protocol.scale, cpu=protocol.cpu,
        real_format=protocol.format,
    ).config  # fmt: skip


def train_and_test(protocol: Protocol, arm: str, seed: int, config: Path, out: Path) -> dict:
    """Train from an arm's exported config, test the detector, and store the outcome."""
    stored = _outcome_file(out, arm, seed)
    now = protocol.arms[arm]
    outcome = {"arm": arm, "seed": seed, "source": str(now.source), "images": now.images}
    with redirect_stdout(sys.stderr):  # mmengine logs to stdout, which belongs to the results
        trained = train_exported(
            config, stored.parent, steps=protocol.steps, batch_size=protocol.batch_size, seed=seed,
            options=protocol.options, real_share=protocol.real_share,
        )  # fmt: skip
        outcome |= evaluate_detector(
            MmrotateDetector(trained.config, trained.checkpoint), protocol.test, protocol.format
        )
    write_whole(stored, json.dumps(outcome, indent=2) + "\n")
    return outcome


def _store_protocol(protocol: Protocol, out: Path) -> None:
    """Store the settings that all arms share, or check that the stored ones are equal."""
    variable = "seeds", "runs", "sizes", "more_real", "format"  # these define arms; each outcome states its images
    settings = {n: str(v) if isinstance(v, Path) else v for n, v in vars(protocol).items() if n not in variable}
    text = json.dumps(settings, indent=2) + "\n"
    stored = out / "protocol.json"
    if stored.exists() and read_text(stored) != text:
        raise UserError(f"{out} holds outcomes of another protocol (see {stored}); choose another --out.")
    refuse_links(out)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(stored, text)


def _extra_data(protocol: Protocol, arm: str, out: Path) -> Path:
    """The data set of an arm's additional images, cut into tiles where it is real."""
    if arm not in (COPY_PASTE, MORE_REAL):
        update_data_sets(protocol.arms[arm].source)
        return protocol.arms[arm].source
    now, size = protocol.arms[arm], protocol.tile_size
    folder = out / f"{arm.replace(' ', '-')}-images-{now.images or 'all'}"
    if not folder.exists():
        source = formats.read(now.source, protocol.format)
        if arm == COPY_PASTE:
            write_copy_paste(source, now.images, size, folder)
            return folder
        with tempfile.TemporaryDirectory(prefix=".tiles-", dir=out) as tiles:
            cut = tile(source, Path(tiles) / "real", size, size // 5)
            dota.write(in_8_bits(cut, Path(tiles) / "of-8-bits"), folder)
    return folder


def evaluate_detector(detector: Detector, test: Path, format: str | None = None, split: str | None = None) -> dict:
    """AP50 and AP (IoU 0.5 to 0.95) on real images: mean over classes, by class, and AP50 by class and object size."""
    dataset = formats.read(test, format, split=split)
    detections, layouts = [], []
    for sample in dataset:
        image = read_picture(sample)
        if image is not None:
            detections.append(detector.detect([image])[0])
            layouts.append(sample.layout)
    whole = average_precision(detections, layouts, detector.classes, COCO_THRESHOLDS)
    sizes = {
        name: average_precision(detections, layouts, detector.classes, (0.5,), limits).at(0.5)
        for name, limits in SIZES.items()
    }
    by_class = dict(zip(whole.classes, whole.values.mean(0).tolist(), strict=True))
    return {
        "AP50": whole.mean(0.5),
        "AP": whole.mean(),
        "AP50 by class": whole.at(0.5),
        "AP by class": {name: value for name, value in by_class.items() if not math.isnan(value)},
        "AP50 by class and size": {f"{name}, {size}": v for size, row in sizes.items() for name, v in row.items()},
    }


def interval(values: Sequence[float]) -> Figure:
    """Mean with its 95 % confidence interval by Student's t; no interval for a single value.

    >>> print(interval([1.0, 2.0, 3.0]))
    2.000
    [-0.484, 4.484]
    """
    from scipy.stats import t

    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return Figure(mean)
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Figure(mean, mean - half, mean + half)


def difference(of: np.ndarray, over: np.ndarray) -> Figure:
    """Difference of the means of two samples (N,), (M,) with its 95 % confidence interval by Welch's t, for samples
    that are independent and may differ in spread.

    >>> print(difference(np.array([0.60, 0.62, 0.61]), np.array([0.56, 0.58, 0.54])))
    0.050
    [0.0084, 0.092]
    """
    from scipy.stats import ttest_ind

    value = float(of.mean() - over.mean())
    if np.ptp(of) == np.ptp(over) == 0:
        return Figure(value, value, value)
    limits = ttest_ind(of, over, equal_var=False).confidence_interval(0.95)
    return Figure(value, float(limits.low), float(limits.high))


def tables(outcomes: Sequence[dict], detector: str) -> list[Result]:
    """Tables: AP of each arm and its paired lift over real images alone and over copy-paste; AP50 by class and size."""
    arms = list(dict.fromkeys(outcome["arm"] for outcome in outcomes))
    of = {(outcome["arm"], outcome["seed"]): outcome for outcome in outcomes}

    def lifts(arm: str, base: str, key: str) -> list[float]:
        seeds = [seed for a, seed in of if a == arm and (base, seed) in of]
        return [of[arm, seed][key] - of[base, seed][key] for seed in seeds]

    def role(arm: str) -> str:
        return "measured" if arm not in (REAL, COPY_PASTE, MORE_REAL) else "reference"

    rows = [
        Row(
            arm, role(arm), sum(a == arm for a, _ in of),
            {
                "AP50": interval([o["AP50"] for (a, _), o in of.items() if a == arm]),
                "AP": interval([o["AP"] for (a, _), o in of.items() if a == arm]),
                "lift": interval(lifts(arm, REAL, "AP50")),
                "over copy-paste": interval(lifts(arm, COPY_PASTE, "AP50") or [math.nan]),
            },
        )
        for arm in arms
    ]  # fmt: skip
    columns = {
        "AP50": Column("AP50", "higher", "on the real test images, mean over classes"),
        "AP": Column("AP", "higher", "mean over IoU 0.5 to 0.95"),
        "lift": Column("over real", "higher", "AP50 minus that of real images alone, with the same seed"),
        "over copy-paste": Column("over copy-paste", "higher", "AP50 minus that of copy-paste, with the same seed"),
    }
    settings, how = {"detector": detector}, "95 %, Student's t over seeds"
    whole = Result("lift", "Does synthetic data help?", columns, rows, settings, counted="seeds", interval=how)
    return [whole, *(_breakdown(outcomes, arms, f"AP50 by class{more}", how) for more in ("", " and size"))]


def _breakdown(outcomes: Sequence[dict], arms: list[str], key: str, how: str) -> Result:
    """A row for each class, or class and size; a column for each arm."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome[key])

    def figure(name: str, arm: str) -> Figure:
        return interval([o[key].get(name, math.nan) for o in outcomes if o["arm"] == arm])

    seeds = len({outcome["seed"] for outcome in outcomes})
    rows = [Row(name, "measured", seeds, {arm: figure(name, arm) for arm in arms}) for name in names]
    return Result(f"lift {key}", key, {arm: Column(arm, "higher") for arm in arms}, rows, counted="seeds", interval=how)
