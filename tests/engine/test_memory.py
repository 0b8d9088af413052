"""Memory does not grow with the number of images."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dataengine.data import coco, formats
from dataengine.data.layout import Layout
from dataengine.engine.finish import Tally, finish, mixed
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder, RunSamples, StoredRecipe, read_records
from dataengine.export.shards import write_shards
from dataengine.judge.verdict import Verdict
from dataengine.render.canvas import Provenance

CLASSES = ("car", "van")
SIZES = 100, 1500


def records(n: int):
    """Every second one accepted, all with the same picture."""
    rng = np.random.default_rng(0)
    for i in range(n):
        boxes = np.column_stack([rng.uniform(8, 24, (5, 2)), rng.uniform(4, 8, (5, 2)), np.zeros(5)])
        layout = Layout(boxes, rng.integers(0, 2, 5), CLASSES, (32, 32))
        verdict = Verdict(i % 2 == 0, "" if i % 2 == 0 else "2 of 5 missed", [0.9] * 5, [], [])
        yield Record(i, i, "shards/000000/00000000.png", "", Provenance(), (), 0, layout, layout, verdict)


def finished(out: Path, n: int, datasets: bool = True) -> None:
    """What a run does with n records."""
    tally = Tally(None, CLASSES)
    run = RunFolder(out)
    with open(run.unfinished_manifest, "w") as lines:
        for record in records(n):
            lines.write(record.to_json() + "\n")
            tally.add(record)
    stored = StoredRecipe({}, {}, "", CLASSES, "none", "toy", (), datasets)
    finish(Recipe(dataset="toy", n=n), SimpleNamespace(real=None), run, tally, stored)


def peak(function, *arguments) -> float:
    """Most memory that Python held during a call, in MB."""
    tracemalloc.start()
    function(*arguments)
    most = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return most


@pytest.fixture
def run(tmp_path):
    """`run(name)`: a new run folder with one picture."""

    def make(name: str) -> Path:
        (tmp_path / name / "shards" / "000000").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / name / "shards" / "000000" / "00000000.png")
        stored = {"recipe": {"dataset": "toy", "data": None}, "parts": {}, "classes": CLASSES}
        (tmp_path / name / "recipe.json").write_text(json.dumps(stored))
        return tmp_path / name

    return make


def test_finishing_a_run_of_many_images_takes_no_more_memory_than_one_of_few(run):
    finished(run("first"), SIZES[0])  # libraries load what they need
    few, many = (peak(finished, run(f"of {n}"), n) for n in SIZES)
    held = peak(lambda: list(read_records(RunFolder(run("control").parent / f"of {SIZES[1]}").manifest)))
    assert held > 3, "the control: the records alone, which were kept before"
    assert many < few + held / 6


def test_shards_of_many_images_take_no_more_memory_than_of_few(run):
    pytest.importorskip("webdataset")
    for n in SIZES:
        finished(run(f"of {n}"), n, datasets=False)
    parent = run("control").parent
    write_shards(parent / f"of {SIZES[0]}", parent / "first", "webdataset", 1)
    few, many = (peak(write_shards, parent / f"of {n}", parent / f"shards {n}", "webdataset", 0.2) for n in SIZES)
    held = peak(lambda: list(read_records(RunFolder(parent / f"of {SIZES[1]}").manifest)))
    assert many < few + held / 6


def test_without_data_sets_a_run_has_its_manifest_and_report_and_those_of_before_go(run):
    out = run("run")
    finished(out, 20)
    assert (out / "dota").exists()
    finished(out, 20, datasets=False)
    assert not (out / "dota").exists()
    assert not (out / "coco").exists()
    assert json.loads((out / "report.json").read_text())["accepted"] == 10
    assert len(list(read_records(RunFolder(out).manifest))) == 20


def test_a_coco_file_written_piece_by_piece_is_what_json_writes_of_the_whole(run):
    out = run("run")
    finished(out, 20)
    text = (out / "coco" / "annotations" / "train.json").read_text()
    content = json.loads(text)
    assert json.dumps(content) == text
    assert [entry["id"] for entry in content["images"]] == list(range(1, 11))
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, 51))
    assert {entry["image_id"] for entry in content["annotations"]} == set(range(1, 11))


def test_real_and_synthetic_images_are_joined_without_being_listed(run, tmp_path):
    out = run("run")
    finished(out, 20)
    real = formats.read(out / "coco")
    synthetic = formats.read(out / "dota")
    synthetic.samples = RunSamples(RunFolder(out), RunFolder(out).manifest, synthetic.classes, 10)
    coco.write(mixed(real, synthetic), tmp_path / "mixed")
    names = [sample.name for sample in formats.read(tmp_path / "mixed")]
    assert len(names) == 20
    assert {name.split("/")[0] for name in names} == {"real", "synthetic"}
