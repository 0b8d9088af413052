"""The report of `dataengine improve`: rounds as a plot, tables, what was missed, and what was made for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataengine.data import formats
from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import counted
from dataengine.evaluate import plots
from dataengine.evaluate.lift import interval
from dataengine.evaluate.report import Section, write_report
from dataengine.evaluate.results import Column, Figure, Result, Role, Row
from dataengine.evaluate.windows import Window, random_subset
from dataengine.improve.failures import Failures, failure_tables
from dataengine.improve.gain import points
from dataengine.improve.grounds import grid
from dataengine.improve.run import Outcome, Round, text_of
from dataengine.improve.trainings import Part
from dataengine.layouts.windows import cut

PICTURES = 16  # of a kind
MIN_SIDE_PX, CONTEXT = 64, 4.0  # of a picture around an object; how many times the object's length it shows
MAX_SCALE = 3.0  # enlargement of such pictures
OF_EACH_GROUND = 3
INTRODUCTION = (
    "A round is kept only if its gain on the validation part lies above 0 with its whole interval, and no class lies "
    "below 0. The test part is looked at once, after the last round. Where there are several seeds, intervals are "
    "Welch's t over the trainings; of one seed, a bootstrap over images."
)
MIN_AP50 = 0.05  # of the detector of real images; below, nothing is said about synthetic ones


def write(outcome: Outcome) -> None:
    """Write `report.html` into the folder of results."""
    settings = {
        "handed back": f"the detector of {outcome.best.name}",
        "rounds": f"{len(outcome.rounds)}, {sum(one.kept for one in outcome.rounds)} of them kept",
        "stopped": outcome.stopped or "not yet",
        **{f"note {i}": note for i, note in enumerate(outcome.notes, 1)},
    }
    found = [_result(outcome), *(_of_round(one) for one in outcome.rounds), _remaining(outcome), _grounds(outcome)]
    write_report(outcome.out / "report.html", "Improvement of a detector", settings, found, INTRODUCTION)


def verdict(outcome: Outcome) -> list[str]:
    """What is handed back and what it gains, in a sentence each."""
    if outcome.best is outcome.real:
        ap50 = float(np.mean([training.ap50 for training in outcome.real.trainings]))
        why = "no round was made."
        if ap50 < MIN_AP50:
            why = (
                f"it finds next to nothing (AP50 {ap50:.3f} on the validation part), so nothing can be said about "
                "synthetic images. Train longer (--steps), or with more labelled images."
            )
        elif outcome.rounds:
            why = "no round gained AP50 on the validation part with its whole interval and without a loss in a class."
        helps = "Synthetic images do not help here, so this" if outcome.rounds and ap50 >= MIN_AP50 else "This"
        lines = [f"{helps} is the detector of real images alone: {why}"]
    else:
        kept = [one for one in outcome.rounds if one.kept][-1]
        gained = points(kept.over_real.mean)
        lines = [f"The detector of {outcome.best.name} gains {gained} over real images alone on the validation part."]
    for name, values in outcome.on_test.items():
        trainings = counted(len(values), "training")
        lines.append(f"Test part, {name}: AP50 {text_of(interval(values))}, {trainings}.")
    if outcome.gain_on_test is not None:
        lines.append(f"Gain on the test part: {points(outcome.gain_on_test.mean)}.")
        for name in outcome.gain_on_test.harmed:
            lines.append(f"On the test part {name} is worse: {points(outcome.gain_on_test.by_class[name])}.")
    return lines


def _result(outcome: Outcome) -> Section:
    """The plot of the rounds, and AP50 of each."""
    arms = [("real", outcome.real, "reference")]
    arms += [
        (f"round {one.number}", one.arm, "measured" if one.kept else "control") for one in outcome.rounds if one.arm
    ]
    names = {
        name: f"{name}\n{'not kept' if role == 'control' else 'kept' if role == 'measured' else ''}"
        for name, _, role in arms
    }
    values = {names[name]: [training.ap50 for training in arm.trainings] for name, arm, _ in arms}
    figures = {name: interval(each) for name, each in values.items()}
    roles: dict[str, Role] = {names[name]: role for name, _, role in arms}
    plot = plots.trainings(values, figures, roles, "AP50, validation part")
    gains = {f"round {one.number}": one for one in outcome.rounds if one.arm}
    rows = [
        Row(
            name, "measured" if role != "reference" else role, len(arm.trainings),
            {
                "AP50": figures[names[name]],
                "best": gains[name].over_best.mean if name in gains else Figure(np.nan),
                "real": gains[name].over_real.mean if name in gains else Figure(np.nan),
            },
        )
        for name, arm, role in arms
    ]  # fmt: skip
    columns = {
        "AP50": Column("AP50", "higher", "validation part, mean over classes"),
        "best": Column("over the best before", "higher"),
        "real": Column("over real images alone", "higher"),
    }
    table = Result("rounds", "Rounds", columns, rows, counted="trainings", interval="95 %")
    return Section("Result", [table, *_test_table(outcome)], [("", plot)], text=verdict(outcome))


def _test_table(outcome: Outcome) -> list[Result]:
    """AP50 on the test part, once it has been looked at."""
    gained = outcome.gain_on_test
    rows = [
        Row(
            name, "reference" if name == outcome.real.name else "measured", len(values),
            {
                "AP50": interval(values),
                "gain": gained.mean if gained and name != outcome.real.name else Figure(np.nan),
            },
        )
        for name, values in outcome.on_test.items()
    ]  # fmt: skip
    columns = {"AP50": Column("AP50", "higher", "test part"), "gain": Column("over real images alone", "higher")}
    return [Result("test", "Test part", columns, rows, counted="trainings", interval="95 %")] if rows else []


def _of_round(one: Round) -> Section:
    """What a round was made for, what was made, and what it gains by class."""
    part = one.before.best.part
    pictures = _failure_pictures(one.failures, part, one.before.name) if one.number > 1 else []
    pictures += _made(one)
    tables = failure_tables(one.failures)[:1] if one.number > 1 else []
    if one.arm is not None:
        rows = [Row(name, "measured", len(one.arm.trainings), {"gain": figure})
                for name, figure in one.over_real.by_class.items()]  # fmt: skip
        column = {"gain": Column("over real images alone", "higher")}
        tables += [Result("classes", "Gain in AP50 by class", column, rows, counted="trainings", interval="95 %")]
    return Section(f"Round {one.number}", tables, pictures, text=[str(one).partition(": ")[2]])


def _remaining(outcome: Outcome) -> Section:
    """Where the detector that is handed back fails."""
    part = outcome.best.best.part
    pictures = _failure_pictures(outcome.failures, part, outcome.best.name)
    return Section("What the detector still misses", failure_tables(outcome.failures), pictures)


def _failure_pictures(failures: Failures, part: Part, name: str) -> list[tuple[str, str]]:
    """Random missed objects, and the false alarms with the highest scores."""
    classes, sheets = part.dataset.classes, []
    chosen = np.sort(np.random.default_rng(0).permutation(len(failures.misses))[:PICTURES])
    misses = [failures.misses[i] for i in chosen]
    for title, cases, captions in (
        (f"{len(failures.misses)} objects of the validation part that {name} misses", misses,
         [case.groups["size"] for case in misses]),
        (f"{len(failures.false_alarms)} false alarms of {name}", failures.false_alarms[:PICTURES],
         [f"{a.groups['class']} {a.score:.2f}: {_short(a.lies_on)}" for a in failures.false_alarms]),
    ):  # fmt: skip
        if cases:
            windows = [_close_up(part.dataset.samples[case.image], case.box, case.groups["class"]) for case in cases]
            sheets.append(
                (f"{title}; shown are {len(cases)}", plots.sheet(windows, classes, captions[: len(cases)], MAX_SCALE))
            )
    return sheets


def _short(lies_on: str) -> str:
    """What a false alarm lies on, as a caption: of ground, its kind alone."""
    return lies_on.removeprefix("ground (").removesuffix(")") if lies_on.startswith("ground (") else lies_on


def _close_up(sample: Sample, box: np.ndarray, name: str) -> Window:
    """The part of an image around a box, with that box alone."""
    width, height = sample.layout.size
    side = min(width, height, round(max(MIN_SIDE_PX, CONTEXT * float(box[2]))))
    left, top = (int(np.clip(box[k] - side / 2, 0, length - side)) for k, length in enumerate((width, height)))
    alone = Layout(box[None], [0], (name,), sample.layout.size, sample.layout.kind)
    shown = replace(cut(alone, left, top, (side, side), min_visible=0), visible=None)
    return Window(sample.name, sample.image, shown, sample.layout.size, (left, top), sample.name, sample.pixel_range)


def _grounds(outcome: Outcome) -> Section:
    """Places of each kind of ground in training images, so that its name means something."""
    names = outcome.grounds.names
    shown: dict[int, list[Window]] = {kind: [] for kind in range(len(names))}
    for sample in outcome.train.dataset:
        spots = grid(sample.layout)
        if all(len(windows) == OF_EACH_GROUND for windows in shown.values()):
            break
        image = read_or_fail(sample)
        kinds = outcome.grounds.kinds(image, sample.layout, spots)
        for kind in np.unique(kinds):  # one place an image: they vary more
            if len(shown[kind]) < OF_EACH_GROUND:
                window = _close_up(sample, spots[kinds == kind][0], "")
                shown[kind].append(replace(window, layout=window.layout.select([])))
    windows = [window for kind in shown for window in shown[kind]]
    captions = [names[kind] for kind in shown for _ in shown[kind]]
    return Section("Kinds of ground", images=[("", plots.sheet(windows, (), captions, MAX_SCALE))])


def _made(one: Round) -> list[tuple[str, str]]:
    """Random images of the round, with their boxes."""
    if not one.accepted:
        return []
    dataset = formats.read(one.run / "coco", "coco")
    windows = random_subset(_whole(dataset), PICTURES)
    caption = f"Images of round {one.number}: {'; '.join(one.plan.why)}"
    return [(caption, plots.sheet(windows, dataset.classes))]


def _whole(dataset: Dataset) -> list[Window]:
    return [Window(s.name, s.image, s.layout, s.layout.size, (0, 0), s.name, s.pixel_range) for s in dataset]
