"""`dataengine run verify`: whatever is changed in a finished run is named, and the fix that is named fixes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataengine.data import coco, formats
from dataengine.data.layout import Dataset, Layout
from dataengine.engine.findings import AGAIN
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.engine.run_folder import StoredRecipe
from dataengine.engine.verify import verify
from dataengine.errors import UserError
from dataengine.judge.detector import OnnxDetector


@pytest.fixture(scope="module")
def unbroken(toy_recipe, tmp_path_factory):
    recipe = toy_recipe.model_copy(update={"n": 5, "shard_size": 4})
    return recipe, synth(recipe, tmp_path_factory.mktemp("runs") / "unbroken").out


@pytest.fixture
def run(unbroken, tmp_path):
    recipe, out = unbroken
    shutil.copytree(out, tmp_path / "run")
    return recipe, tmp_path / "run"


def first(out: Path, pattern: str) -> Path:
    return sorted(out.glob(pattern))[0]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit_json(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def relabel(file: Path) -> None:
    lines = file.read_text().splitlines()
    record = json.loads(lines[0])
    record["labels"]["labels"][0] = 1 - record["labels"]["labels"][0]
    file.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")


def move_dota_box(out: Path) -> None:
    file = next(f for f in sorted((out / "dota").rglob("*.txt")) if f.name != "classes.txt" and f.read_text().strip())
    lines = file.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if len(line.split()) == 10)
    fields = lines[at].split()
    fields[0:8:2] = [f"{float(x) + 3:.4f}" for x in fields[0:8:2]]
    lines[at] = " ".join(fields)
    file.write_text("\n".join(lines) + "\n")


def move_coco_box(out: Path) -> None:
    def change(content):
        one = content["annotations"][0]
        one["bbox"][0] += 3
        one["segmentation"] = [[v + 3 * (i % 2 == 0) for i, v in enumerate(one["segmentation"][0])]]

    edit_json(out / "coco/annotations/train.json", change)


DAMAGE = {
    "a pixel": (lambda out: flip(first(out, "shards/*/*.png")), "shards"),
    "a label in a shard": (lambda out: relabel(first(out, "shards/*/records.jsonl")), "records"),
    "half of a shard's records": (lambda out: halve(first(out, "shards/*/records.jsonl")), "shards"),
    "a shard": (lambda out: shutil.rmtree(first(out, "shards/*")), "is missing"),
    "half of the manifest": (lambda out: halve(out / "manifest.jsonl"), "manifest.jsonl"),
    "a DOTA box": (move_dota_box, "dota/train/labelTxt"),
    "a COCO box": (move_coco_box, "coco/annotations/train.json"),
    "a picture of the DOTA set": (lambda out: first(out, "dota/**/*.png").unlink(), "dota"),
    "a file too many": (lambda out: (out / "dota/train/images/extra.png").write_bytes(b""), "does not belong"),
    "the COCO set": (lambda out: shutil.rmtree(out / "coco"), "coco"),
    "the report": (lambda out: (out / "report.json").unlink(), "report.json"),
    "the contact sheet": (lambda out: halve(out / "kept.png"), "kept.png"),
}


def test_a_run_as_it_was_made_has_no_fault(unbroken):
    found = verify(unbroken[1])
    assert found.faults == []
    assert found.accepted == 5
    assert found.images >= 5


def test_classes_that_scenes_bring_along_are_no_fault(toy_recipe, toy_dataset, tmp_path):
    dataset = formats.read(toy_dataset)
    tree = Layout([[48, 48, 6, 6, 0]], [0], ("tree",), dataset.samples[0].layout.size, dataset.kind)
    scenes = [replace(sample, layout=tree) for sample in dataset if sample.layout.size == tree.size]
    coco.write(Dataset(("tree",), scenes, dataset.kind, "trees"), tmp_path / "trees", split="train")
    recipe = toy_recipe.model_copy(update={"n": 2, "filter": "off", "scenes": tmp_path / "trees"})
    out = synth(recipe, tmp_path / "run").out
    assert "tree" in (out / "dota/classes.txt").read_text()
    assert verify(out).faults == []


@pytest.mark.parametrize(
    "changes",
    [
        {"filter": "erase"}, {"filter": "repair"}, {"filter": "off", "mix": True}, {"filter": "drop"},
        {"classes": ("car",), "balance": 0.3}, {"strength": 0.3, "filter": "off"}, {"into": True},
    ],
    ids=str,
)  # fmt: skip
def test_runs_of_all_kinds_have_no_fault_wherever_they_lie(toy_recipe, toy_dataset, tmp_path, changes):
    if "into" in changes:
        changes = {"into": toy_dataset, "filter": "off"}
    recipe = Recipe.model_validate({**toy_recipe.model_dump(), "n": 2, "max_attempts": 20, **changes})
    out = synth(recipe, tmp_path / "run").out
    moved = out.rename(tmp_path / "moved")
    found = verify(moved)
    assert (found.faults, found.notes) == ([], [])
    assert (moved / "mixed").exists() == recipe.mix


def test_a_run_begun_by_0_1_0_has_no_fault_and_gets_its_checksum_when_it_is_continued(run):
    """Whose recipe.json had no checksum."""
    recipe, out = run
    later = ("name", "notes", "datasets", "dataengine", "checksum")
    edit_json(out / "recipe.json", lambda content: [content.pop(key) for key in later])
    found = verify(out)
    assert found.faults == []
    assert "did not store a checksum" in found.notes[0]
    edit_json(out / "report.json", lambda content: content.update(tried=1))
    assert [fault.fix for fault in verify(out).faults] == [
        f"{AGAIN}; or verify the run with dataengine 0.1.0, which made it"
    ]
    synth(recipe, out)
    assert (verify(out).faults, verify(out).notes) == ([], [])


def test_what_the_user_was_told_at_first_is_in_the_report_of_a_continued_run(toy_recipe, tmp_path):
    """Only the process that measures a calibration says so; the next one finds it."""
    recipe = toy_recipe.model_copy(update={"n": 2})
    out = synth(recipe, tmp_path / "run").out
    stored = StoredRecipe.load(out / "recipe.json")
    replace(stored, notes=(*stored.notes, "told once")).save(out / "recipe.json")
    synth(recipe, out)
    assert json.loads((out / "report.json").read_text())["notes"][-1] == "told once"
    assert verify(out).faults == []


def test_no_detector_is_loaded(unbroken, monkeypatch):
    def loaded(*arguments, **options):
        raise AssertionError("loaded")

    monkeypatch.setattr("onnxruntime.InferenceSession", loaded)
    found = verify(unbroken[1])
    assert (found.faults, found.notes) == ([], []), "its files are compared all the same"
    with pytest.raises(UserError, match="loaded"):
        OnnxDetector(unbroken[0].detector)


def test_a_run_without_data_sets_lacks_none(run):
    recipe, out = run
    synth(recipe, out, datasets=False)
    found = verify(out)
    assert found.faults == []
    assert any("--no-datasets" in note for note in found.notes)
    synth(recipe, out)
    shutil.rmtree(out / "coco")
    assert any("coco" in fault.message for fault in verify(out).faults), "one that lost them does"


def test_an_export_in_the_run_is_no_fault_but_a_folder_of_that_name_is(run):
    _, out = run
    (out / "mmrotate/data").mkdir(parents=True)
    assert any("mmrotate" in fault.message for fault in verify(out).faults), "control: of someone else"
    (out / "mmrotate/data/export.json").write_text("{}")
    found = verify(out)
    assert found.faults == []
    assert any("mmrotate" in note for note in found.notes)


@pytest.mark.parametrize("what", DAMAGE)
def test_what_was_changed_is_named_and_the_same_command_fixes_it(run, what):
    recipe, out = run
    damage, named = DAMAGE[what]
    before = (out / "manifest.jsonl").read_bytes()
    damage(out)
    found = verify(out)
    assert found.faults
    assert any(named in fault.message for fault in found.faults), [fault.message for fault in found.faults]
    assert all("\n" not in fault.message for fault in found.faults)
    assert any(AGAIN in fault.fix for fault in found.faults)
    synth(recipe, out)
    assert verify(out).faults == []
    assert (out / "manifest.jsonl").read_bytes() == before


@pytest.mark.parametrize("field", ["seed", "steps"])
def test_a_recipe_that_was_changed_is_named(run, field):
    _, out = run
    edit_json(out / "recipe.json", lambda content: content["recipe"].update({field: 7}))
    assert any("recipe.json was changed" in fault.message for fault in verify(out).faults)


def test_another_calibration_than_the_run_was_begun_with_is_named(run):
    _, out = run
    edit_json(out / "calibration.json", lambda content: content["thresholds"].update(car=0.0))
    assert any("calibration.json" in fault.message for fault in verify(out).faults)


def test_the_command_ends_with_1_where_there_is_a_fault_and_with_0_where_there_is_none(run):
    from dataengine.cli import app

    sound = CliRunner().invoke(app, ["run", "verify", str(run[1])])
    assert sound.exit_code == 0, sound.output
    flip(first(run[1], "shards/*/*.png"))
    broken = CliRunner().invoke(app, ["run", "verify", str(run[1]), "--json"])
    assert broken.exit_code == 1
    assert json.loads(broken.output)["faults"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no recipe\.json"):
        verify(tmp_path)
