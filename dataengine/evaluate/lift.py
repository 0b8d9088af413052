"""Does the data help? One detector, trained on real images alone, with copy-paste, and with synthetic ones."""

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
from dataengine.data.tile import tile
from dataengine.errors import UserError
from dataengine.evaluate.average_precision import COCO_THRESHOLDS, average_precision
from dataengine.evaluate.copy_paste import write_copy_paste
from dataengine.evaluate.detector_training import shares, train_detector
from dataengine.evaluate.layout_score import SIZES
from dataengine.evaluate.results import Column, Figure, Result, Row
from dataengine.files import read_text, write_whole
from dataengine.mmrotate.detector import MmrotateDetector
from dataengine.mmrotate.export import export

REAL, COPY_PASTE, MORE_REAL = "real", "copy-paste", "more real"


@dataclass(frozen=True)
class Arm:
    """source: where its images beside the real ones come from; images: how many of them, None for all."""

    source: Path
    images: int | None


@dataclass(frozen=True)
class Protocol:
    """What all arms have in common.

    real, test:  labelled data sets to train on and to be judged on; they share no image.
    runs:        folders of `dataengine synth`, whose generators saw no label but those of `real`.
    sizes:       numbers of synthetic images, of each run an arm each: the first so many of it.
    detector:    a name of `dataengine export mmrotate`. options: changes of its config, as mmengine's --cfg-options.
    steps, batch_size: of the optimiser, in every arm. seeds: trainings of each arm.
    real_share:  of every batch in arms that have others beside the real ones.
    pasted:      images with pasted objects in the arm of copy-paste.
    more_real:   labelled data set for a last arm, what labelling more would bring, the positive control.
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

    @property
    def arms(self) -> dict[str, Arm]:
        """What is trained, by name."""
        arms = {REAL: Arm(self.real, 0), COPY_PASTE: Arm(self.real, self.pasted)}
        arms |= {f"{run.resolve().name} {n}": Arm(run, n) for run in self.runs for n in self.sizes}
        return arms | ({MORE_REAL: Arm(self.more_real, None)} if self.more_real else {})


def run_lift(protocol: Protocol, out: Path, workers: int = 1, tell: Callable[[str], None] = print) -> list[dict]:
    """Train and judge every arm with every seed, `workers` at a time, each in a process of its own.

    Gives the outcomes, which lie in `out/ARM/seed-K/outcome.json`, too. Stopped or killed, the same call continues;
    with other runs or sizes, it adds their arms. Raises UserError where the data do not fit, two runs have the same
    folder name, or the folder holds the outcomes of another protocol.
    """
    shares(protocol.batch_size, protocol.real_share)  # refused before anything is written
    twice = [name for name, times in Counter(run.resolve().name for run in protocol.runs).items() if times > 1]
    if twice:
        raise UserError(
            f"two runs have the name {twice[0]}, by which their arms are called; rename one of the folders."
        )
    _remember(protocol, out)
    # each seed through all arms: what is there first can be compared first
    trainings = [(arm, seed) for seed in range(protocol.seeds) for arm in protocol.arms]
    missing = [training for training in trainings if not _outcome(out, *training).exists()]
    for training in set(trainings).difference(missing):
        _read(protocol, *training, out)  # refused before anything is trained
    configs = {arm: _prepared(protocol, arm, out) for arm, _ in missing}
    if workers == 1:
        for arm, seed in missing:
            tell(f"{arm}, seed {seed}")
            train_and_judge(protocol, arm, seed, configs[arm], out)
    elif missing:
        threads = max(1, (os.cpu_count() or 1) // workers)
        with ProcessPoolExecutor(
            workers, get_context("spawn"), torch.set_num_threads, (threads,), max_tasks_per_child=1
        ) as pool:
            running = {
                pool.submit(train_and_judge, protocol, a, s, configs[a], out): f"{a}, seed {s}" for a, s in missing
            }
            for future in as_completed(running):
                tell(f"{running[future]}: AP50 {future.result()['AP50']:.3f}")
    return [_read(protocol, *training, out) for training in trainings]


def _read(protocol: Protocol, arm: str, seed: int, out: Path) -> dict:
    """A stored outcome. Raises UserError where it is that of other images."""
    stored, now = json.loads(read_text(_outcome(out, arm, seed))), protocol.arms[arm]
    if (stored["source"], stored["images"]) != (str(now.source), now.images):
        raise UserError(
            f"{_outcome(out, arm, seed)} is of {stored['images'] or 'all'} images of {stored['source']}, "
            f"not of {now.images or 'all'} of {now.source}; give another --out."
        )
    return stored


def _outcome(out: Path, arm: str, seed: int) -> Path:
    return out / arm.replace(" ", "-") / f"seed-{seed}" / "outcome.json"


def _prepared(protocol: Protocol, arm: str, out: Path) -> Path:
    """The config of an arm, with its data beside it."""
    n = protocol.arms[arm].images
    return export(
        _others(protocol, arm, out), protocol.real, out / arm.replace(" ", "-"),
        detector=protocol.detector, ratio=(1, 0 if n == 0 else 1), most=1 if n == 0 else n,
        test=str(protocol.test), tile_size=protocol.tile_size, scale=protocol.scale, cpu=protocol.cpu,
    ).config  # fmt: skip


def train_and_judge(protocol: Protocol, arm: str, seed: int, config: Path, out: Path) -> dict:
    """One training from an arm's exported config, and its outcome, which is stored."""
    stored = _outcome(out, arm, seed)
    now = protocol.arms[arm]
    outcome = {"arm": arm, "seed": seed, "source": str(now.source), "images": now.images}
    with redirect_stdout(sys.stderr):  # mmengine prints its log, and a result may go to stdout
        trained = train_detector(
            config, stored.parent, steps=protocol.steps, batch_size=protocol.batch_size, seed=seed,
            options=protocol.options, real_share=protocol.real_share,
        )  # fmt: skip
        outcome |= judged(MmrotateDetector(*trained), protocol.test)
    write_whole(stored, json.dumps(outcome, indent=2) + "\n")
    return outcome


def _remember(protocol: Protocol, out: Path) -> None:
    """Keep what all arms have in common beside their outcomes, which belong to no other protocol."""
    own = "seeds", "runs", "sizes", "more_real"  # which arms and trainings there are; each outcome knows its images
    settings = {n: str(v) if isinstance(v, Path) else v for n, v in vars(protocol).items() if n not in own}
    text = json.dumps(settings, indent=2) + "\n"
    stored = out / "protocol.json"
    if stored.exists() and read_text(stored) != text:
        raise UserError(f"{out} holds outcomes of another protocol (see {stored}); give another --out.")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(stored, text)


def _others(protocol: Protocol, arm: str, out: Path) -> Path:
    """The data set that an arm has beside the real one, in images of the tiles' size."""
    if arm not in (COPY_PASTE, MORE_REAL):
        return protocol.arms[arm].source
    now, size = protocol.arms[arm], protocol.tile_size
    folder = out / f"{arm.replace(' ', '-')}-images-{now.images or 'all'}"
    if not folder.exists():
        source = formats.read(now.source)
        if arm == COPY_PASTE:
            write_copy_paste(source, now.images, size, folder)
            return folder
        with tempfile.TemporaryDirectory(prefix=".tiles-", dir=out) as tiles:
            dota.write(tile(source, Path(tiles) / "real", size, size // 5), folder)
    return folder


def judged(detector: MmrotateDetector, test: Path) -> dict:
    """AP50 and AP (IoU 0.5 to 0.95) on real images, their mean over classes, by class, and AP50 by class and size."""
    dataset = formats.read(test)
    found, layouts = [], []
    for sample in dataset:
        picture = read_picture(sample)
        if picture is not None:
            found.append(detector.detect([picture])[0])
            layouts.append(sample.layout)
    whole = average_precision(found, layouts, detector.classes, COCO_THRESHOLDS)
    sizes = {
        name: average_precision(found, layouts, detector.classes, (0.5,), limits).at(0.5)
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
    """Mean with its 95 % confidence interval by Student's t; without one where there are fewer than two."""
    from scipy.stats import t

    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return Figure(float(found.mean()))
    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    return Figure(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half)


def tables(outcomes: Sequence[dict], detector: str) -> list[Result]:
    """AP of each arm and its lift over the real images alone, seed by seed; then AP50 by class and by size."""
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
        "AP50": Column("AP50", "higher", "on real images that were never trained on, mean over classes"),
        "AP": Column("AP", "higher", "mean over IoU 0.5 to 0.95"),
        "lift": Column("over real", "higher", "AP50 less that of the real images alone, with the same seed"),
        "over copy-paste": Column("over copy-paste", "higher", "AP50 less that of copy-paste, with the same seed"),
    }
    settings, how = {"detector": detector}, "95 %, Student's t over seeds"
    whole = Result("lift", "Does the data help?", columns, rows, settings, counted="seeds", interval=how)
    return [whole, *(_by(outcomes, arms, f"AP50 by class{more}", how) for more in ("", " and size"))]


def _by(outcomes: Sequence[dict], arms: list[str], key: str, how: str) -> Result:
    """A row for each class, or class and size; a column for each arm."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome[key])

    def figure(name: str, arm: str) -> Figure:
        return interval([o[key].get(name, math.nan) for o in outcomes if o["arm"] == arm])

    seeds = len({outcome["seed"] for outcome in outcomes})
    rows = [Row(name, "measured", seeds, {arm: figure(name, arm) for arm in arms}) for name in names]
    return Result(f"lift {key}", key, {arm: Column(arm, "higher") for arm in arms}, rows, counted="seeds", interval=how)
