from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine import geometry
from dataengine.data import formats
from dataengine.data.layout import layout_from_json, layout_to_json
from dataengine.engine import worker
from dataengine.engine.attempt import attempt, sample_layouts
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import load_recipe
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder, ShardFolder
from dataengine.engine.trace import read_trace
from dataengine.errors import UserError
from dataengine.seeds import image_seed


def manifest(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(toy_recipe, tmp_path_factory):
    """One unbroken run, shared by the tests that only look at it."""
    return toy_recipe, synth(toy_recipe, tmp_path_factory.mktemp("runs") / "unbroken")


def test_n_counts_accepted_images_and_dropped_ones_are_in_the_manifest_with_their_reason(finished):
    recipe, result = finished
    records = manifest(result.out)
    kept = [r for r in records if r["verdict"]["kept"]]
    assert len(kept) == recipe.n == result.accepted
    assert len(records) > recipe.n, "the toy rule should drop some images, or this test shows nothing"
    assert records[-1]["verdict"]["kept"], "the manifest ends with the last accepted image"
    assert all(r["verdict"]["reason"] for r in records if not r["verdict"]["kept"])
    assert [r["index"] for r in records] == list(range(len(records)))


def test_a_data_set_of_ones_own_needs_no_preset_and_nothing_to_go_on_is_told(toy_recipe, tmp_path, finished):
    """The same images come out: name and classes are the data set's own."""
    result = synth(toy_recipe.model_copy(update={"dataset": None}), tmp_path / "own")
    assert [r.sha256 for r in result.records] == [r.sha256 for r in finished[1].records]
    with pytest.raises(UserError, match=r"^give --dataset with the name of a preset, or --data"):
        load_recipe(None, {"n": 3})


def test_dota_and_coco_hold_the_accepted_images_with_the_same_boxes(finished):
    _, result = finished
    kept = {f"{r['index']:08d}": layout_from_json(r["labels"]) for r in manifest(result.out) if r["verdict"]["kept"]}
    for name in ("dota", "coco"):
        dataset = formats.read(result.out / name)
        assert not dataset.problems
        assert {sample.name for sample in dataset} == set(kept)
        for sample in dataset:
            expected = kept[sample.name]
            assert sorted(sample.layout.names()) == sorted(expected.names())
            overlap = geometry.iou(sample.layout.boxes, expected.boxes)
            assert (overlap.max(0) > 0.99).all()
            assert (overlap.max(1) > 0.99).all()
            assert sorted(overlap.argmax(1)) == list(range(len(expected))), "each its own"


def test_checksums_in_the_manifest_are_those_of_the_files(finished):
    import hashlib

    _, result = finished
    for record in manifest(result.out):
        assert hashlib.sha256((result.out / record["image"]).read_bytes()).hexdigest() == record["sha256"]


def test_the_same_recipe_gives_the_same_manifest_and_another_seed_another_one(finished, tmp_path):
    recipe, result = finished
    again = synth(recipe, tmp_path / "again")
    assert (again.out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()
    other = synth(recipe.model_copy(update={"seed": 1}), tmp_path / "other")
    assert manifest(other.out)[0]["asked"] != manifest(result.out)[0]["asked"]


def processes(out) -> int:
    """How many worker processes made a run, by its trace."""
    return sum(event["name"] == "load" for event in read_trace(RunFolder(out)))


def test_two_workers_give_the_same_manifest_as_one(finished, tmp_path):
    recipe, result = finished
    two = synth(recipe, tmp_path / "two", workers=2)
    assert (two.out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()
    assert processes(two.out) == 2


@pytest.mark.slow
def test_worn_processes_are_replaced_and_the_manifest_stays_the_same(finished, tmp_path, monkeypatch):
    """So that memory does not grow with the run. The control is the run above, whose processes are not worn."""
    recipe, result = finished
    needed = -(-result.tried // recipe.shard_size)
    assert needed > 2, "else two processes are enough"
    monkeypatch.setattr(worker, "LIFE", (needed - 1) // 2 * recipe.shard_size)  # too short for two to make all
    worn = synth(recipe, tmp_path / "worn", workers=2)
    assert (worn.out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()
    assert processes(worn.out) > 2


def test_batch_size_changes_neither_layouts_nor_noise(toy_recipe):
    parts = load_parts(toy_recipe)
    together = attempt(parts, toy_recipe, range(0, 6))
    alone = [attempt(parts, toy_recipe, range(i, i + 1))[0] for i in range(6)]
    for (a, _), (b, _) in zip(together, alone, strict=True):
        assert np.array_equal(a.canvas.new.boxes, b.canvas.new.boxes)
        assert a.canvas.provenance == b.canvas.provenance
        # rounding may differ with the size of a matrix product; the picture may not
        assert np.abs(a.image.astype(int) - b.image.astype(int)).max() <= 2


def test_other_noise_seeds_would_be_seen_in_the_pixels(toy_recipe):
    """Control of the test above: what it compares does depend on the noise."""
    parts = load_parts(toy_recipe)
    layouts = sample_layouts(parts, toy_recipe, range(0, 2))
    canvases = parts.canvases.draw(layouts, [0, 1])
    first = parts.renderer(canvases, [0, 1], num_inference_steps=2)
    second = parts.renderer(canvases, [2, 3], num_inference_steps=2)
    assert np.abs(first[0].image.astype(int) - second[0].image.astype(int)).max() > 20


@pytest.mark.parametrize("after", [1.5, 4.0, 6.0])
def test_a_killed_run_is_continued_by_the_same_command_to_the_same_manifest(finished, tmp_path, after):
    recipe, result = finished
    out, file = tmp_path / "killed", tmp_path / "recipe.json"
    file.write_text(recipe.model_dump_json())
    program = (
        "import sys; from pathlib import Path; from dataengine.engine.recipe import Recipe; "
        "from dataengine.engine.run import synth; "
        f"synth(Recipe.model_validate_json(Path({str(file)!r}).read_text()), Path({str(out)!r}))"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)})
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    synth(recipe, out)
    assert (out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()


def test_a_run_cut_between_shards_continues(finished, tmp_path):
    recipe, result = finished
    out = tmp_path / "cut"
    shutil.copytree(result.out, out)
    for name in ("manifest.jsonl", "report.json"):
        (out / name).unlink()
    shutil.rmtree(out / "shards" / "000001")
    (out / "shards" / ".000001.999").mkdir()
    synth(recipe, out)
    assert (out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()


@pytest.mark.parametrize("damage", ["records cut off", "image lost", "image empty"])
def test_a_damaged_shard_is_made_again(finished, tmp_path, damage):
    recipe, result = finished
    out = tmp_path / "damaged"
    shutil.copytree(result.out, out)
    shard = out / "shards" / "000001"
    image = next(shard.glob("*.png"))
    if damage == "records cut off":
        text = (shard / "records.jsonl").read_text()
        (shard / "records.jsonl").write_text(text[: len(text) // 2])
    elif damage == "image lost":
        image.unlink()
    else:
        image.write_bytes(b"")
    synth(recipe, out)
    assert (out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()
    assert image.stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_worker_behind(finished, tmp_path, number):
    """Ctrl-C besides says how to go on, and leaves nothing half-made once the run is continued."""
    import psutil

    recipe, result = finished
    (tmp_path / "run.yaml").write_text(recipe.model_dump_json())
    out = tmp_path / "ended"
    command = [sys.executable, "-m", "dataengine", "synth", "--config", tmp_path / "run.yaml", "--out", out]
    process = psutil.Popen(
        [*map(str, command), "--workers", "2"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    workers: list = []
    while len(workers) < 2 and process.poll() is None:
        workers = [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    said = process.communicate()[1]
    if number == signal.SIGINT and process.returncode != 0:  # 0: it was faster than we
        assert process.returncode == 130
        assert "the same command continues" in said
        assert "Traceback" not in said
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    synth(recipe, out)
    assert (out / "manifest.jsonl").read_bytes() == (result.out / "manifest.jsonl").read_bytes()
    assert not list((out / "shards").glob(".*"))


def test_another_recipe_in_the_same_folder_is_refused_and_nothing_is_lost(finished):
    recipe, result = finished
    before = (result.out / "manifest.jsonl").read_bytes()
    with pytest.raises(UserError, match="another guidance_scale"):
        synth(recipe.model_copy(update={"guidance_scale": 3.0}), result.out)
    assert (result.out / "manifest.jsonl").read_bytes() == before


def test_a_foreign_folder_is_refused(toy_recipe, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holiday\.jpg"):
        synth(toy_recipe, tmp_path)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(toy_recipe, tmp_path):
    from dataengine.files import lock

    with lock(tmp_path / ".lock"), pytest.raises(UserError, match="another run is at work"):
        synth(toy_recipe, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_sentence(toy_recipe, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        synth(toy_recipe, tmp_path / "file" / "run")


def test_a_spent_budget_is_reported_with_what_there_is(toy_recipe, tmp_path):
    result = synth(toy_recipe.model_copy(update={"max_attempts": 3}), tmp_path / "short")
    assert len(list(result.records)) == result.tried == 3
    assert json.loads((result.out / "report.json").read_text())["tried"] == 3


def test_scenes_that_cannot_be_decoded_are_passed_over_named_and_counted(toy_recipe, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (128, 128, 3), np.uint8)).save(scenes / f"{i}.png")
    for i in range(4):  # whole by its beginning and end, so that its size is believed
        content = (scenes / f"{i}.png").read_bytes()
        (scenes / f"{i}.png").write_bytes(content[:2000] + bytes(500) + content[2500:])
    result = synth(toy_recipe.model_copy(update={"scenes": scenes}), tmp_path / "run")
    unreadable = json.loads((result.out / "report.json").read_text())["unreadable_scenes"]
    assert unreadable
    assert set(unreadable) <= set("0123")
    assert {record.provenance.name for record in result.records} <= set("4567")


def test_a_full_disk_is_one_sentence_and_what_is_finished_stays(toy_recipe, tmp_path, monkeypatch):
    def full_after_one(self, name, content):
        if self.final.name != "000000":
            raise OSError(28, "No space left on device", str(self.building))
        (self.building / name).write_bytes(content)

    monkeypatch.setattr(ShardFolder, "put", full_after_one)
    with pytest.raises(UserError, match="No space left on device"):
        synth(toy_recipe, tmp_path / "run")
    monkeypatch.undo()
    assert [folder.name for folder in (tmp_path / "run" / "shards").iterdir()] == ["000000"]
    assert synth(toy_recipe, tmp_path / "run").accepted == toy_recipe.n


def test_a_class_the_model_does_not_know_is_named_and_left_out(toy_recipe, toy_preset, tmp_path):
    preset = tmp_path / "more.yaml"
    preset.write_text(toy_preset.read_text().replace("[car, van]", "[car, van, windmill]"))
    parts = load_parts(toy_recipe.model_copy(update={"dataset": str(preset)}))
    assert parts.classes == ("car", "van")
    assert any("windmill" in note for note in parts.notes)


def test_a_run_of_unknown_classes_only_is_refused(toy_recipe, toy_preset, tmp_path):
    preset = tmp_path / "more.yaml"
    preset.write_text(toy_preset.read_text().replace("[car, van]", "[car, van, windmill]"))
    with pytest.raises(UserError, match=r"knows none of the classes of toy .windmill"):
        load_parts(toy_recipe.model_copy(update={"dataset": str(preset), "classes": ("windmill",)}))
    with pytest.raises(UserError, match=r"has no class tree; it has car, van, windmill"):
        load_parts(toy_recipe.model_copy(update={"dataset": str(preset), "classes": ("tree",)}))


def test_the_report_counts_per_class_what_was_asked_found_and_kept(finished):
    _, result = finished
    report = json.loads((result.out / "report.json").read_text())
    records = manifest(result.out)
    cars = sum(r["asked"]["classes"][i] == "car" for r in records for i in r["asked"]["labels"])
    row = next(row for row in report["classes"] if row["name"] == "car")
    assert row["asked"] == cars
    assert row["found"] <= row["asked"]
    kept = [r["labels"] for r in records if r["verdict"]["kept"]]
    assert row["kept"] == sum(labels["classes"][i] == "car" for labels in kept for i in labels["labels"])
    assert report["accepted"] == 6
    with Image.open(result.out / "kept.png") as sheet:
        assert sheet.width > 96


def test_a_recipe_field_out_of_range_is_named(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("n: 5\nsteps: 0\n")
    with pytest.raises(UserError, match=r"recipe.yaml: steps:"):
        load_recipe(file, {})
    with pytest.raises(UserError, match="n:"):
        load_recipe(None, {"n": -1})


def test_a_misspelt_field_of_a_recipe_is_named_with_the_one_that_was_meant(tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: hit-uav\nbalanse: 0.2\n")
    with pytest.raises(UserError, match=r"run\.yaml: balanse: no such field; perhaps balance"):
        load_recipe(tmp_path / "run.yaml", {})


def test_image_seeds_differ_between_images_and_runs():
    seeds = {image_seed(run, i) for run in range(20) for i in range(500)}
    assert len(seeds) == 10_000


def test_layouts_survive_json(toy_recipe):
    parts = load_parts(toy_recipe)
    layout = replace(sample_layouts(parts, toy_recipe, range(1))[0], ignored=np.float32([[5, 5, 4, 2, 0.5]]))
    back = layout_from_json(json.loads(json.dumps(layout_to_json(layout))))
    assert np.allclose(back.boxes, layout.boxes, atol=1e-3)
    assert back.classes == layout.classes
    assert back.kind == layout.kind
    assert np.array_equal(back.labels, layout.labels)
