"""The whole loop, with a fast detector that learns from its data (`fake_training`): it helps, or does no harm."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_training import train_blind, train_fake
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.improve import report, run, stages
from dataengine.improve.journal import Journal
from dataengine.improve.parts import write_parts
from dataengine.improve.run import Outcome, improve
from dataengine.improve.stages import REAL, Settings, Work
from dataengine.judge.detector import load_detector
from dataengine.train import detector


@pytest.fixture
def settings(toy_renderer) -> Settings:
    return Settings("tiny", seeds=3, rounds=1, images=12, size=64, model=toy_renderer)


def same_files(a: Path, b: Path) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in ("model.onnx", "config.json"))


def swap_labels(folder: Path) -> None:
    """Give each object of a COCO data set the other class: a run that is worthless on purpose."""
    [file] = folder.glob("annotations/*.json")
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry["category_id"] = 3 - entry["category_id"]
    file.write_text(json.dumps(content))


@pytest.fixture
def worthless(monkeypatch) -> None:
    """Every run of `synth` ends with wrong labels."""
    honest = stages.synth

    def synth(recipe, out, workers):
        result = honest(recipe, out, workers)
        swap_labels(out / "coco")
        return result

    monkeypatch.setattr(stages, "synth", synth)


@pytest.fixture(scope="module")
def helped(squares_folder, toy_renderer, tmp_path_factory) -> Outcome:
    """Two rounds with honest images."""
    out = tmp_path_factory.mktemp("improve") / "work"
    settings = Settings("tiny", seeds=3, rounds=2, images=12, size=64, model=toy_renderer)
    return improve(squares_folder, out, settings, train_fake, report=report.write)


@pytest.mark.slow
def test_images_that_help_are_kept_and_their_detector_is_handed_back(helped):
    first = helped.rounds[0]
    assert first.kept, first.why
    assert first.over_real.mean.low > 0
    assert helped.best.name != REAL
    assert same_files(helped.out / "detector", helped.best.best.folder)
    assert load_detector(helped.out / "detector").classes == ("car", "van")
    synthetic = formats.read(helped.out / "data/data/synthetic", "dota")
    assert len(synthetic) == sum(one.accepted for one in helped.rounds if one.kept)
    assert (helped.out / "data/rtmdet-r.py").exists()


@pytest.mark.slow
def test_the_test_part_is_looked_at_once_at_the_end_by_both_arms(helped):
    assert list(helped.on_test) == [REAL, helped.best.name]
    assert [len(values) for values in helped.on_test.values()] == [3, 3]
    assert helped.gain_on_test.mean.value == pytest.approx(
        np.mean(helped.on_test[helped.best.name]) - np.mean(helped.on_test[REAL])
    )
    assert list(json.loads((helped.out / "improve.json").read_text())["stages"])[-1] == "test"


@pytest.mark.slow
def test_images_are_made_of_the_training_part_alone(helped, squares_folder):
    train = {sample.name for sample in formats.read(squares_folder, split="train")}
    held_out = {sample.name for part in ("val", "test") for sample in formats.read(squares_folder, split=part)}
    sources = set()
    for one in helped.rounds:
        for record in RunFolder(one.run).records():
            sources |= {record.provenance.name, *record.layout_from, *record.object_images}
    assert len(sources) > 3
    assert sources <= train
    assert not train & held_out, "control: names tell the parts apart"


@pytest.mark.slow
def test_the_report_shows_the_rounds_and_pictures(helped):
    page = (helped.out / "report.html").read_text()
    for text in ("Round 1", "Round 2", "not kept" if not helped.rounds[1].kept else "kept", "Test part", "apart"):
        assert text in page
    assert page.count("data:image/svg+xml") == 1
    assert page.count("data:image/jpeg") >= 2
    assert report.verdict(helped)[0] in page.replace("&#39;", "'")


@pytest.mark.slow
def test_the_same_call_continues_and_does_nothing_again(helped, toy_renderer, squares_folder, tmp_path, monkeypatch):
    copy = tmp_path / "work"
    shutil.copytree(helped.out, copy)
    settings = Settings("tiny", seeds=3, rounds=2, images=12, size=64, model=toy_renderer)

    def refuse(*_, **__):
        raise AssertionError("done again")

    for module, name in ((run, "detect"), (run, "write_parts"), (stages, "synth"), (stages, "export")):
        monkeypatch.setattr(module, name, refuse)
    again = improve(squares_folder, copy, settings, refuse)
    assert [str(one) for one in again.rounds] == [str(one) for one in helped.rounds]
    assert (again.on_test, again.stopped) == (helped.on_test, helped.stopped)
    with pytest.raises(UserError, match=r"begun with another rounds.*The test part has been looked at"):
        improve(squares_folder, copy, replace(settings, rounds=3), refuse)
    with pytest.raises(UserError, match="begun with another images"):
        improve(squares_folder, copy, replace(settings, images=13), refuse)


def test_a_run_that_is_worthless_on_purpose_is_not_kept_and_the_real_detector_is_handed_back(
    worthless, settings, squares_folder, tmp_path
):
    outcome = improve(squares_folder, tmp_path / "work", settings, train_fake)
    [only] = outcome.rounds
    assert not only.kept
    assert outcome.best is outcome.real
    assert same_files(tmp_path / "work/detector", outcome.real.best.folder)
    assert "synthetic" not in (tmp_path / "work/data/rtmdet-r.py").read_text().split("train_dataloader")[1]
    assert "do not help" in report.verdict(outcome)[0]
    assert list(outcome.on_test) == [REAL]


@pytest.mark.slow
def test_without_the_rule_the_worthless_run_would_be_handed_back(
    worthless, settings, squares_folder, tmp_path, monkeypatch
):
    """Control of the test above."""
    monkeypatch.setattr(run, "is_kept", lambda *_: (True, "always"))
    outcome = improve(squares_folder, tmp_path / "work", settings, train_fake)
    assert outcome.best.name == "round 1"
    assert outcome.gain_on_test.mean.low < 0, "it does not help on the test part"


@pytest.mark.slow
def test_images_that_change_nothing_are_not_kept_and_two_such_rounds_end_it(settings, squares_folder, tmp_path):
    outcome = improve(squares_folder, tmp_path / "work", replace(settings, rounds=5, seeds=1, images=4), train_blind)
    assert [one.kept for one in outcome.rounds] == [False, False]
    assert outcome.rounds[0].why == "the interval of its gain holds 0"
    assert outcome.stopped == "2 rounds in a row brought nothing"


@pytest.mark.slow
def test_a_killed_call_continues_where_it_was(settings, squares_folder, tmp_path):
    asked: list[tuple] = []

    def train(real, out, *, extra, fail_at, seed, **more):
        asked.append((extra is not None, seed))
        if len(asked) == fail_at:
            raise KeyboardInterrupt
        return train_fake(real, out, extra=extra, seed=seed, **more)

    out = tmp_path / "work"
    few = replace(settings, seeds=2, images=4)
    with pytest.raises(KeyboardInterrupt):
        improve(squares_folder, out, few, partial(train, fail_at=4))
    assert asked == [(False, 0), (False, 1), (True, 0), (True, 1)]
    before = (out / "rounds/1/run/manifest.jsonl").read_bytes()
    asked.clear()
    improve(squares_folder, out, few, partial(train, fail_at=0))
    assert asked == [(True, 1)]
    assert (out / "rounds/1/run/manifest.jsonl").read_bytes() == before


@pytest.mark.parametrize(("ap50", "rounds", "says"), [
    (0.0, 1, "it finds next to nothing (AP50 0.000"), (0.4, 1, "Synthetic images do not help here"),
    (0.4, 0, "no round was made"),
])  # fmt: skip
def test_a_detector_that_finds_nothing_says_nothing_about_synthetic_images(ap50, rounds, says):
    real = SimpleNamespace(trainings=[SimpleNamespace(ap50=ap50)])
    [line] = report.verdict(
        SimpleNamespace(real=real, best=real, rounds=["a round"] * rounds, on_test={}, gain_on_test=None)
    )
    assert says in line
    assert ("do not help" in line) == (ap50 > 0 and rounds > 0)


@pytest.mark.slow
def test_a_spent_budget_begins_no_round_and_tests_the_real_detector(settings, squares_folder, tmp_path):
    said = []
    outcome = improve(
        squares_folder, tmp_path / "work", replace(settings, hours=0.0, seeds=1), train_fake, say=said.append
    )
    first_training = next(n for n, line in enumerate(said) if line.startswith("training a detector"))
    assert any(line.startswith("train: ") for line in said[:first_training]), "the parts, before the hours of training"
    assert set(outcome.notes) <= set(said)
    assert outcome.rounds == []
    assert "hours are spent" in outcome.stopped
    assert list(outcome.on_test) == [REAL]


def test_every_detector_is_trained_with_the_given_tiles_and_scale(settings, squares_folder, tmp_path):
    asked = []

    def train(real, out, *, extra, seed, tile_size, scale, **more):
        asked.append((tile_size, scale))
        return train_fake(real, out, extra=extra, seed=seed)

    chosen = replace(settings, seeds=1, images=4, rounds=1, tile_size=64, scale=0.5)
    improve(squares_folder, tmp_path / "work", chosen, train)
    assert asked == [(64, 0.5)] * 2
    config = (tmp_path / "work/data/rtmdet-r.py").read_text()
    assert "scale_factor=0.5" in config
    with pytest.raises(UserError, match="begun with another scale"):
        improve(squares_folder, tmp_path / "work", replace(chosen, scale=1.0), train)


def test_a_folder_that_was_begun_before_there_was_a_scale_continues(tmp_path):
    file = tmp_path / "improve.json"
    file.write_text('{"settings": {"seeds": 3}, "seconds": 1, "stages": {"filter": 5}}')
    assert Journal(file, {"seeds": 3, "tile_size": None, "scale": 1.0}).once("filter", lambda: 1 / 0) == 5
    with pytest.raises(UserError, match="another scale"):
        Journal(file, {"seeds": 3, "tile_size": None, "scale": 0.5})


@pytest.mark.slow
def test_the_trainer_of_mmrotate_detectors_fits(settings, squares_folder, tmp_path, monkeypatch):
    """All of `train_detector` but the process with mmrotate; in its place the exported data are learned from."""
    seen = []

    def learn(job, report, progress):
        data = Path(job["exported"]).parent / "data"
        extra = data / "synthetic" if (data / "synthetic").exists() else None
        seen.append([len(formats.read(part, "dota")) for part in (data / "real", extra) if part])
        train_fake(data / "real", Path(job["onnx"]), extra=extra, preset="", steps=None, seed=0, real_share=0.5)
        return job["settings"]["steps"]

    monkeypatch.setattr(detector, "_run", learn)
    outcome = improve(squares_folder, tmp_path / "work", replace(settings, seeds=1), detector.train_detector)
    assert seen == [[12], [12, 12]]
    assert load_detector(tmp_path / "work/detector").classes == ("car", "van")
    assert outcome.rounds[0].over_real.mean.value > 0


def test_all_arms_of_a_full_size_detector_take_the_same_steps_those_of_an_arm_with_synthetic_images(
    settings, squares_folder, tmp_path
):
    """By itself, `train_detector` would take more steps for more images."""
    write_parts(squares_folder, tmp_path / "parts")

    def steps(**changes) -> int | None:
        return Work(tmp_path, replace(settings, images=500, **changes), None, train_fake, print).steps

    assert steps(preset="oriented-rcnn") == 12 * (12 + 500) // 2
    assert steps(preset="oriented-rcnn", steps=7) == 7
    assert steps(preset="tiny") is None, "the preset has a number of its own"


def test_a_folder_with_other_files_is_left_as_it_is(settings, squares_folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has files of others \(data\)"):
        improve(squares_folder, tmp_path, settings, train_fake)
    assert (tmp_path / "data/precious.txt").read_text() == "mine"
    assert not (tmp_path / "improve.json").exists()


def test_faults_of_a_user_are_a_sentence(squares_folder, tmp_path):
    def said(*words):
        result = CliRunner().invoke(
            app, ["improve", str(squares_folder), "--out", str(tmp_path / "w"), *map(str, words)]
        )
        assert isinstance(result.exception, UserError), result.output
        return str(result.exception)

    assert "no such detector; choose one of tiny" in said("--preset", "huge", "--model", tmp_path)
    assert "no model_index.json" in said("--model", tmp_path)
    assert not (tmp_path / "w").exists()
