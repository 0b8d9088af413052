"""COCO annotations that are read as arrays mean the same as those read one by one, and streamed JSON the same as JSON
that is parsed at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.data import coco, coco_objects, coco_records, json_stream
from dataengine.data.parse import load_json

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from fuzz_mutations import mutated

ODD = (
    lambda entry: entry.update(image_id=99),
    lambda entry: entry.update(category_id=77),
    lambda entry: entry.update(image_id=str(entry["image_id"])),
    lambda entry: entry.update(bbox=[1, 2, "3", 4]),
    lambda entry: entry.update(bbox=[1, 2, -3, 4]),
    lambda entry: entry.update(bbox=[1, 2, 1e12, 4]),
    lambda entry: entry.update(bbox=[1, 2, 10**400, 4]),
    lambda entry: entry.update(bbox=[True, 2, 3, 4]),
    lambda entry: entry.update(bbox=[1, 2, float("nan"), 4]),
    lambda entry: entry.update(bbox=[900, 900, 3, 4]),
    lambda entry: entry.pop("bbox"),
    lambda entry: entry.pop("id"),
    lambda entry: entry.pop("segmentation", None),
    lambda entry: entry.update(segmentation=[]),
    lambda entry: entry.update(segmentation={"counts": [1, 2], "size": [3, 4]}),
    lambda entry: entry.update(segmentation=[1, 2, 9, 2, 9, 8, 1, 8]),
    lambda entry: entry.update(segmentation=[[[1, 2], [9, 2], [9, 8], [1, 8]]]),
    lambda entry: entry.update(segmentation=[[1, 2, 9, 2, 9, 2, 9, 8, 1, 8]]),
    lambda entry: entry.update(segmentation=[[1, 2, 9, 2, 9, 8, 1, 8, 1, 2]]),
    lambda entry: entry.update(segmentation=[[1, 2, 9, 2]]),
    lambda entry: entry.update(segmentation=[[1, 2, 9, 2, 17, 2, 5, 2, 3, 2]]),
    lambda entry: entry.update(segmentation=[[1, 2, 9, 2, 9, 8, 5, 12, 1, 8], [1, 2, 9, 2, 9, 8]]),
    lambda entry: entry.update(segmentation=[[40, 40, 49, 42, 49, 48, 45, 52]]),
    lambda entry: entry.update(iscrowd=1),
    lambda entry: entry.update(IsCrowd="true"),
    lambda entry: entry.update(iscrowd=1, bbox=[5, 5, 5, 5]),
    lambda entry: entry.update(difficult=True, visible=0.5),
    lambda entry: entry.update(visible="0.5"),
    lambda entry: entry.update(attributes={"rotation": 0.0, "occluded": False}),
    lambda entry: entry.update(attributes={"rotation": 30}),
    lambda entry: entry.update(attributes={"Difficult": 1}),
    lambda entry: entry.update(attributes=[{"name": "ignore", "value": "yes"}]),
    lambda entry: entry.update(rbox=[1]),
)


def content(seed: int) -> dict:
    """A COCO file of 40 annotations, most of them plain."""
    rng = np.random.default_rng(seed)
    rotated = seed % 2
    entries = []
    for i in range(40):
        x, y, w, h = rng.integers(1, 30, 4).tolist()
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        if rotated and i % 3:
            polygon = [x + 3, y, x + w + 3.5, y + 2, x + w, y + h + 2, x, y + h]
        entry = {"id": i, "image_id": i % 4, "category_id": i % 3, "bbox": [x, y, w, h], "segmentation": [polygon]}
        entries.append(entry | {"iscrowd": 0, "area": 1})
        if rng.random() < 0.4:
            ODD[rng.integers(len(ODD))](entries[-1])
    if seed % 5 == 0:
        entries.insert(3, "no object")
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(5)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(4)]
    info = {"box_kind": "hbb"} if seed % 4 == 0 else {}
    return {"info": info, "images": images, "annotations": entries, "categories": categories}


def told(path: Path) -> tuple:
    """All that a data set says, so that two can be compared."""
    dataset = coco.read(path)
    samples = [
        (sample.name, sample.layout.boxes.tolist(), sample.layout.labels.tolist(), sample.layout.difficult.tolist(),
         sample.layout.visible.tolist(), sample.layout.ignored.tolist(),
         [points.tolist() for points in sample.layout.silhouettes or ()])
        for sample in dataset
    ]  # fmt: skip
    return dataset.kind, dataset.classes, samples, list(map(str, dataset.problems))


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        Image.new("L", (64, 64)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_arrays_mean_what_the_careful_functions_say(folder, monkeypatch):
    plain = kinds = faults = 0
    for seed in range(24):
        (folder / "a.json").write_text(json.dumps(content(seed)))
        by_arrays = told(folder)
        with monkeypatch.context() as patch:
            patch.setattr(coco_objects, "_row", lambda entry, keys: None)
            assert told(folder) == by_arrays, f"seed {seed}"
        read = coco_records.read_file(folder / "a.json", [])
        plain += len(read.table.positions)
        kinds += by_arrays[0] == "obb"
        faults += len(by_arrays[3])
    assert plain > 24 * 20, "most are plain"
    assert 5 < kinds < 20, "both kinds of boxes"
    assert faults > 100


def test_an_array_path_that_looks_away_is_caught(folder, monkeypatch):
    """The mutation: polygons with repeated points count as plain."""
    monkeypatch.setattr(coco_objects, "_has_repeated_points", lambda values, ends: np.zeros(len(ends), bool))
    differing = 0
    for seed in range(24):
        (folder / "a.json").write_text(json.dumps(content(seed)))
        by_arrays = told(folder)
        with monkeypatch.context() as patch:
            patch.setattr(coco_objects, "_row", lambda entry, keys: None)
            differing += told(folder) != by_arrays
    assert differing


@pytest.mark.parametrize("chunk", [7, 64, 2**20])
def test_streamed_json_is_json_parsed_at_once(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
    file = tmp_path / "a.json"
    values = {"info": {"a": 1.5}, "images": [{"id": i, "n": "a\xe9\\"} for i in range(5)], "annotations": [5, "x", {}]}
    refused = 0
    for i in range(400):
        file.write_bytes(mutated(json.dumps(values, indent=i % 2).encode(), ".json", np.random.default_rng((1, i))))
        lists = {"images": [], "annotations": []}
        try:
            streamed = json_stream.stream_json(file, {key: found.extend for key, found in lists.items()})
            streamed |= {key: found for key, found in lists.items() if streamed.get(key) == [] and found}
        except ValueError:
            streamed = None
        try:
            parsed = load_json(file)
        except ValueError:
            parsed = None
        assert json.dumps(streamed) == json.dumps(parsed), file.read_bytes()
        refused += parsed is None
    assert 50 < refused < 380


def test_a_fault_in_streamed_json_has_its_line_and_column(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 16)
    file = tmp_path / "a.json"
    file.write_text('{"images": [\n{"id": 1},\n{"id": 2},\n{"id" 3}\n]}')
    with pytest.raises(ValueError, match=r"Expecting ':' delimiter at line 4, column 7"):
        json_stream.stream_json(file, {"images": lambda block: None})
    with pytest.raises(ValueError, match=r"Expecting ':' delimiter at line 4, column 7"):
        load_json(file)
