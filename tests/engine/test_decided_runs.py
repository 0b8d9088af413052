"""Decisions of a person in a real run: continuing keeps them, verification knows them, releases count them."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.engine.decided import sha_of
from dataengine.engine.decisions import Change, append
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.update import update_data_sets
from dataengine.engine.verify import verify
from dataengine.errors import UserError
from dataengine.mmrotate.sources import synthetic_data


@pytest.fixture(scope="module")
def finished(toy_recipe, tmp_path_factory):
    recipe = toy_recipe.model_copy(update={"n": 5, "shard_size": 4})
    return recipe, synth(recipe, tmp_path_factory.mktemp("runs") / "finished").out


@pytest.fixture
def run(finished, tmp_path) -> tuple[Recipe, RunFolder]:
    recipe, out = finished
    shutil.copytree(out, tmp_path / "run")
    return recipe, RunFolder(tmp_path / "run")


def decide_about(run: RunFolder) -> tuple[str, str]:
    """Reject the first accepted image and correct a label of the second; their names."""
    first, second = [record for record in run.records() if record.accepted and len(record.labels)][:2]
    name, box = second.labels.names()[0], second.labels.boxes[0].tolist()
    moved = {"of": 0, "class": name, "box": [box[0] + 1, box[1] - 1, box[2] + 4, *box[3:]]}
    others = [
        {"of": k, "class": second.labels.names()[k], "box": second.labels.boxes[k].tolist()}
        for k in range(1, len(second.labels))
    ]
    append(run, [
        Change(do="reject", images=[(first.index, sha_of(first))]),
        Change(do="correct", images=[(second.index, sha_of(second))], objects=[moved, *others]),
    ])  # fmt: skip
    return first.name, second.name


def boxes_of(folder, name: str):
    return next(sample.layout.boxes for sample in formats.read(folder) if sample.name.split("/")[-1] == name)


@pytest.mark.parametrize("how", ["continued", "updated"])
def test_data_sets_of_the_run_contain_decisions_once_they_are_written_again(run, how):
    recipe, folder = run
    rejected, moved = decide_about(folder)
    before, manifest = boxes_of(folder.coco, moved), folder.manifest.read_bytes()
    found = verify(folder.path)
    assert not found.faults, "what is there is what was made"
    assert any("2 changes in decisions.jsonl are later" in note for note in found.notes)
    if how == "continued":
        synth(recipe, folder.path)
    else:
        assert update_data_sets(folder.path)
        assert not update_data_sets(folder.path), "once is enough"
    found = verify(folder.path)
    assert not found.faults
    assert not any("decisions" in note for note in found.notes)
    assert folder.manifest.read_bytes() == manifest
    for form in (folder.dota, folder.coco):
        names = {sample.name.split("/")[-1] for sample in formats.read(form)}
        assert rejected not in names
        assert moved in names
    assert abs(boxes_of(folder.coco, moved) - before).max() > 0.5
    assert json.loads(folder.report.read_text())["by_hand"] == {
        "changes": 2, "accepted": 0, "rejected": 1, "tagged": 0, "corrected": 1,
    }  # fmt: skip


def test_verification_names_data_sets_that_are_not_what_was_decided(run):
    """Control: with the decisions gone, the same folders are at fault."""
    _, folder = run
    decide_about(folder)
    update_data_sets(folder.path)
    assert not verify(folder.path).faults
    folder.decisions.unlink()
    [fault] = verify(folder.path).faults
    assert "has 0 changes, fewer than the 2 in the run's data sets" in fault.message


def test_training_data_for_mmrotate_are_never_those_before_a_decision(run, toy_dataset):
    _, folder = run
    rejected, _ = decide_about(folder)
    real = formats.read(toy_dataset)
    with pytest.raises(UserError, match="dataengine run update"):
        synthetic_data(folder.path, None, real, None, None, toy_dataset)
    result = CliRunner().invoke(app, ["run", "update", str(folder.path)])
    assert result.exit_code == 0, result.output
    synthetic, _ = synthetic_data(folder.path, None, real, None, None, toy_dataset)
    assert rejected not in [sample.name.split("/")[-1] for sample in synthetic]
