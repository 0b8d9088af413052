"""The closed loop: detector, renderer, filter, synthetic images, comparison, failures, more of those; do no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from dataengine.errors import UserError
from dataengine.evaluate.lift import interval
from dataengine.evaluate.results import Figure
from dataengine.files import cannot_write, check_writable, lock, refuse_links
from dataengine.improve import stages
from dataengine.improve.aspects import Aspects, learn_aspects
from dataengine.improve.failures import Failures, find_failures
from dataengine.improve.gain import Gain, gain, is_kept, points
from dataengine.improve.grounds import Grounds, learn_grounds
from dataengine.improve.journal import TESTED, Journal
from dataengine.improve.parts import write_parts
from dataengine.improve.plan import Plan, plan_round, take_inventory
from dataengine.improve.stages import REAL, Settings, Work
from dataengine.improve.trainings import Arm, Part, TrainDetector, Training, detect, read_training

PATIENCE = 2  # rounds in a row that are not kept, after which no other begins


@dataclass(frozen=True)
class Round:
    """One round. before: the best trainings until then. failures: where the best of them fails, in the first round too.
    arm, over_best, over_real: its trainings and what they gain; None where no image was accepted. kept, why: see
    `is_kept`."""

    number: int
    plan: Plan
    before: Arm
    failures: Failures
    run: Path
    accepted: int
    arm: Arm | None
    over_best: Gain | None
    over_real: Gain | None
    kept: bool
    why: str

    def __str__(self) -> str:
        made = f"round {self.number}: {self.accepted} images ({'; '.join(self.plan.why)})"
        if self.arm is None:
            return f"{made}; not kept, since {self.why}"
        gained = f"{ap50_of(self.arm)}, {points(self.over_best.mean)} over {self.before.name}"
        return f"{made}: {gained}; {'kept' if self.kept else 'not kept'}, since {self.why}"


@dataclass(frozen=True)
class Outcome:
    """What `improve` hands back.

    train, grounds: the training part, and its kinds of ground. real, best: trainings on real images alone, and the ones
    that were kept, which may be the same. rounds: all. failures: where the best detector fails on the validation part.
    notes: about data and filter. on_test: AP50 of both arms on the test part, for each seed, and what the best gains
    there; empty until then. stopped: why no other round began.
    """

    out: Path
    train: Part
    grounds: Grounds
    real: Arm
    best: Arm
    rounds: list[Round]
    failures: Failures
    notes: list[str]
    on_test: dict[str, list[float]]
    gain_on_test: Gain | None
    stopped: str


def ap50_of(arm: Arm) -> str:
    """AP50 on the validation part with its interval over seeds, as text."""
    return f"AP50 {text_of(interval([training.ap50 for training in arm.trainings]))}"


def text_of(figure: Figure) -> str:
    """A figure on one line.

    >>> text_of(Figure(0.5, 0.4, 0.6))
    '0.500 [0.400, 0.600]'
    """
    return " ".join(str(figure).split())


def improve(
    data: Path,
    out: Path,
    settings: Settings,
    train_detector: TrainDetector,
    *,
    workers: int | None = 1,
    say: Callable[[str], None] = lambda text: None,
    ended: Callable[[Round], None] = lambda one: None,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Train a detector that synthetic images make better on validation data, or hand back that of real images alone.

    `out` receives `detector`, `data` (what it was trained on) and the work of all stages; the same call continues.
    train_detector: trains every detector. say: gets a sentence as each stage begins, and what was found of the data and
    the filter. ended: gets each round. report: gets the outcome after each round and at the end, when `on_test` is
    filled.

    A round is kept only if `is_kept` says so. The test part is looked at once, after the last round. Raises UserError
    for data that cannot be used, and where `out` was begun with other settings; finished stages are never lost.
    """
    check_writable(out)
    with _locked(out):
        journal = Journal(out / "improve.json", settings.as_json(data))
        work = Work(out, settings, journal, train_detector, say, workers)
        notes = list(journal.once("data", lambda: write_parts(data, out / "parts", settings.format, settings.group)))
        for note in notes:  # before the hours that depend on them, too
            say(note)
        real = stages.train_arm(work, REAL, out / "real", ())
        say(f"{real.name}: {ap50_of(real)} on the validation part")
        journal.once("handed back: real images alone", partial(stages.hand_back, work, real))
        model = stages.train_renderer(work)
        rule = stages.calibrate_filter(work, real.best.folder)
        notes.append(rule["note"])
        say(rule["note"])
        say("learning the kinds of ground")
        aspects = learn_aspects(work.train.layouts, learn_grounds(work.train.images, work.train.layouts))
        best, rounds, failures = real, [], _failures(work, real, aspects)

        def outcome(stopped: str = "", on_test: dict | None = None, gained: Gain | None = None) -> Outcome:
            return Outcome(
                out, work.train, aspects.grounds, real, best, rounds, failures, notes, on_test or {}, gained, stopped
            )

        while not (stopped := _stop(work, rounds)):
            last = _round(work, real, best, rounds, failures, aspects, model, rule["on"])
            rounds.append(last)
            if last.kept:
                best, failures = last.arm, _failures(work, last.arm, aspects)
                journal.once(f"handed back: {best.name}", partial(stages.hand_back, work, best))
            ended(last)
            report(outcome())
        found = outcome(stopped, *_look_at_test(work, real, best, stopped))
        report(found)
        return found


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder of results; a second process on it is refused. A full disk is one sentence."""
    try:
        refuse_links(out)
        out.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(out / ".lock")
        except BlockingIOError:
            raise UserError(
                f"{out}: another process is at work in this folder; wait for it, or give another --out."
            ) from None
        with held:
            yield
    except OSError as error:
        if error.errno is None:  # not the disk's doing
            raise
        advice = "choose another folder. What is finished stays, and the same command continues."
        raise cannot_write(error, out, advice) from error


def _stop(work: Work, rounds: Sequence[Round]) -> str:
    """Why no other round begins, "" where one does. Rounds that were begun are finished, also without a budget."""
    number, settings = len(rounds) + 1, work.settings
    begun = f"round {number} plan" in work.journal.stages
    if TESTED in work.journal.stages:
        return work.journal.stages[TESTED]["stopped"] if not begun else ""
    if len(rounds) >= PATIENCE and not any(one.kept for one in rounds[-PATIENCE:]):
        return f"{PATIENCE} rounds in a row brought nothing"
    if begun:
        return ""
    if len(rounds) >= settings.rounds:
        return f"all rounds are made (--rounds {settings.rounds})"
    if settings.hours is not None and work.journal.hours >= settings.hours:
        return f"{work.journal.hours:.1f} hours are spent (--hours {settings.hours:g})"
    return ""


def _failures(work: Work, arm: Arm, aspects: Aspects) -> Failures:
    """Where the arm's best detector fails on the validation part."""
    best = arm.best
    return find_failures(best.detections, work.val.layouts, work.val.images, best.classes, aspects)


def _round(
    work: Work,
    real: Arm,
    best: Arm,
    rounds: Sequence[Round],
    failures: Failures,
    aspects: Aspects,
    model: Path,
    filter_on: bool,
) -> Round:
    """Plan, make, train and compare one round."""
    number, last = len(rounds) + 1, rounds[-1] if rounds else None

    def plan() -> dict:
        if last is None:
            return asdict(Plan())
        inventory = take_inventory(work.train.names, work.train.images, work.train.layouts, aspects)
        harmed = last.over_real.harmed if last.arm and not last.kept else ()
        filtered = not last.kept and filter_on and last.plan.changes.get("filter") != "off"
        return asdict(plan_round(failures, inventory, aspects.grounds.names, harmed, filtered))

    values = work.journal.once(f"round {number} plan", plan)
    planned = Plan(values["changes"], *(tuple(values[name]) for name in ("layouts", "scenes", "why")))
    run, accepted = stages.synthesise(work, number, planned, model, filter_on, real.best.folder)
    shared = {"number": number, "plan": planned, "before": best, "failures": failures, "run": run, "accepted": accepted}
    if not accepted:
        why = "the filter accepted none of its images"
        return Round(**shared, arm=None, over_best=None, over_real=None, kept=False, why=why)
    arm = stages.train_arm(work, f"round {number}", run.parent, (*best.runs, run))
    over_best, over_real = gain(arm.matched, best.matched), gain(arm.matched, real.matched)
    kept, why = is_kept(over_best, over_real)
    figures = {"over the best so far": points(over_best.mean), "over real images": points(over_real.mean)}
    work.journal.once(f"round {number}", lambda: {**figures, "kept": kept, "why": why})
    return Round(**shared, arm=arm, over_best=over_best, over_real=over_real, kept=kept, why=why)


def _look_at_test(work: Work, real: Arm, best: Arm, stopped: str) -> tuple[dict[str, list[float]], Gain | None]:
    """AP50 on the test part of the arms, by name, for each seed; what the best gains over real images alone, None for
    real images alone."""
    arms = {arm.name: arm for arm in (real, best)}

    def tested(training: Training) -> Training:
        return read_training(training.folder, work.test, training.file.with_name("test.npz"))

    def make() -> dict:
        work.say("looking at the test part")
        for training in [training for arm in arms.values() for training in arm.trainings]:
            detect(training.folder, work.test, training.file.with_name("test.npz"))
        ap50 = {name: [tested(training).ap50 for training in arm.trainings] for name, arm in arms.items()}
        return {"AP50": ap50, "stopped": stopped}

    ap50 = work.journal.once(TESTED, make)["AP50"]
    if best is real:
        return ap50, None
    found, base = ([tested(training).matched for training in arm.trainings] for arm in (best, real))
    return ap50, gain(found, base)
