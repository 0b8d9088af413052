"""Objects that the border cuts, in releases and shards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_release import metadata

from dataengine import geometry
from dataengine.data import formats
from dataengine.data.border import inside_image
from dataengine.data.layout import layout_from_json
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.export.release.finished_run import read_run
from dataengine.export.release.make import make
from dataengine.export.release.verify import verify
from dataengine.export.shards import write_shards

# a trapezoid, a corner, one corner cut off, wider than the image (96 px), outside
CUT = [[2, 40, 30, 12, 0.5], [-3, -2, 30, 18, -0.7], [50, 6, 30, 12, 0.4], [48, 60, 140, 10, 0.6], [-40, 40, 30, 12, 0]]


@pytest.fixture(scope="module")
def cut_run(painted_run, tmp_path_factory) -> Path:
    """The painted run, with such labels in its first accepted image, and an ignored region."""
    run = tmp_path_factory.mktemp("cut") / "run"
    shutil.copytree(painted_run, run)
    lines = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    labels = next(line for line in lines if line["verdict"]["kept"])["labels"]
    labels["boxes"] = CUT
    labels |= {"labels": [0] * 5, "difficult": [False] * 5, "visible": [1.0] * 5, "ignored": [[70, 80, 12, 8, 0.2]]}
    (run / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture(scope="module")
def cut_release(cut_run, settings, tmp_path_factory):
    return make(cut_run, tmp_path_factory.mktemp("cut-release") / "toy-cars", replace(settings, val=0))


def test_a_fresh_release_of_a_run_with_cut_boxes_is_whole(cut_release, cut_run):
    found = verify(cut_release.folder)
    assert found.faults == []
    assert found.images > 0
    [first, *_] = [record for record in RunFolder(cut_run).records() if record.accepted]
    rule, outside = inside_image(first.labels)
    assert outside.tolist() == [4]
    line = next(line for line in metadata(cut_release.folder) if line["file_name"].startswith(first.name))
    assert len(line["objects"]["bbox"]) == 4
    for x, y, w, h in line["objects"]["bbox"]:
        assert min(x, y) >= 0
        assert max(x + w, y + h) <= 96
    for format in ("dota", "coco", "yolo"):
        sample = next(s for s in formats.read(cut_release.folder, format) if s.name.endswith(first.name))
        assert geometry.iou_pairs(sample.layout.boxes, rule.boxes).min() > 0.999
        assert len(sample.layout.ignored) == (format != "yolo")
    assert np.allclose(line["ignored"], geometry.to_corners(rule.ignored).reshape(-1, 8), atol=1e-3)


def test_a_box_that_is_cut_otherwise_is_found(cut_release, tmp_path):
    """As the corners were clipped one by one before."""
    shutil.copytree(cut_release.folder, tmp_path / "copy")
    file = min((tmp_path / "copy/labels/train").glob("*.txt"))
    rows = [line.split() for line in file.read_text().splitlines()]
    clipped = [[row[0], *(str(min(1, max(0, float(value)))) for value in row[1:])] for row in rows]
    file.write_text("".join(" ".join(row) + "\n" for row in clipped))
    assert any(
        f"labels/train/{file.name} is not what was written" in fault for fault in verify(tmp_path / "copy").faults
    )


def test_what_is_left_out_or_cannot_be_said_is_a_note(cut_release):
    assert any(note.startswith("1 objects are left out: they lie outside") for note in cut_release.notes)
    assert any("YOLO labels cannot say so" in note for note in cut_release.notes)


def test_datasets_reads_the_cut_boxes_and_the_regions(cut_release, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    read = datasets.load_dataset(str(cut_release.folder), split="train", cache_dir=str(tmp_path / "cache"))
    regions = [row["ignored"] for row in read]
    assert sum(map(len, regions)) == 1
    assert all(len(region) == 8 for row in regions for region in row)
    boxes = [box for row in read for box in row["objects"]["bbox"]]
    assert min(min(x, y, 96 - x - w, 96 - y - h) for x, y, w, h in boxes) >= -1e-6


def test_shards_hold_the_same_boxes_and_report_what_lies_outside(cut_run, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    problems: list = []
    [file] = write_shards(cut_run, tmp_path / "tar", "webdataset", problems=problems)
    assert [problem.message for problem in problems] == ["object 5 lies outside the image; it is skipped"]
    _, labels = next(iter(webdataset.WebDataset(str(file), shardshuffle=False).decode("pil").to_tuple("png", "json")))
    rule, _ = inside_image(
        layout_from_json(json.loads((cut_run / "manifest.jsonl").read_text().splitlines()[0])["labels"])
    )
    boxes = geometry.from_corners(np.array(labels["objects"]["obb"]).reshape(-1, 4, 2))
    assert geometry.iou_pairs(boxes, rule.boxes).min() > 0.999
    assert len(labels["ignored"]) == 1


def test_yolo_and_yolo_obb_of_a_run_with_upright_boxes_differ(cut_run, settings, tmp_path, monkeypatch):
    """A run of horizontal boxes: yolo-obb has corners all the same."""
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    lines = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        line["labels"]["kind"] = "hbb"
        line["labels"]["boxes"] = [[cx, cy, w, h, 0] for cx, cy, w, h, _ in line["labels"]["boxes"]]
    (run / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(run, "cc0-1.0").kind == "hbb"
    for name, fields in (("yolo", 5), ("yolo-obb", 9)):
        made = make(run, tmp_path / name, replace(settings, val=0, formats=f"coco,{name}", archive_size=None))
        labels = "".join(file.read_text() for file in made.folder.glob("labels/train/*.txt"))
        assert {len(line.split()) for line in labels.splitlines()} == {fields}
        assert verify(made.folder).faults == []
    with pytest.raises(UserError, match="yolo and yolo-obb have the same files"):
        make(run, tmp_path / "both", replace(settings, formats="yolo,yolo-obb"))
