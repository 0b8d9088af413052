from __future__ import annotations

import json
import re
from dataclasses import fields

import numpy as np
import pytest

from dataengine.data import coco
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.view import index as index_module
from dataengine.view.index import Columns


def test_an_index_agrees_with_each_record(make_run, open_index):
    index = open_index(make_run(24))
    columns = index.columns
    assert len(index) == 24
    assert index.classes == ("car", "van")
    for i, line in enumerate(index.source.entries.read_text().splitlines()):
        record = json.loads(line)
        assert record["index"] == index.entry(i).record.index == i
        assert columns.objects[i] == len(record["labels"]["boxes"]) == i % 4 + 1
        assert columns.kept[i] == record["verdict"]["kept"]
        assert columns.score[i] == np.float32(min(record["verdict"]["scores"]))
        assert columns.altitude[i] == 60 + i
        assert columns.night[i] == i % 2
        own = columns.image == i
        assert columns.label[own].tolist() == record["labels"]["labels"]
        assert columns.box_w[own].tolist() == [box[2] for box in record["labels"]["boxes"]]


def test_an_image_that_is_not_there_has_no_record(make_run, open_index):
    index = open_index(make_run(3))
    for i in (-1, 3):
        with pytest.raises(IndexError):
            index.entry(i)


def test_reasons_differ_by_their_words_and_not_by_their_counts(make_run, open_index):
    index = open_index(make_run(24))
    assert len({index.entry(i).record.verdict.reason for i in range(24)}) > 2, "else this test shows nothing"
    assert index.reasons == ("", "objects not found")


def test_objects_that_the_scene_held_before_count_for_no_score(make_run, open_index):
    root = make_run(2)
    records = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    labels = records[1]["labels"]
    own = {**labels, "boxes": [*labels["boxes"], [80, 80, 9, 9, 0]], "labels": [*labels["labels"], 0]}
    own |= {"difficult": [*labels["difficult"], False], "visible": [*labels["visible"], 1.0]}
    records[1] |= {"labels": own}
    records[1]["verdict"]["scores"] = [0.8, 0.9, 0.01]
    (root / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    columns = open_index(root).columns
    assert columns.score[1] == np.float32(0.8), "0.01 is the scene's own object's, for which the detector did not look"
    assert columns.own[columns.image == 1].tolist() == [False, False, True]
    assert columns.objects[1] == 3


def test_the_index_is_read_once_and_then_comes_from_the_cache(make_run, open_index, monkeypatch):
    root = make_run(8)
    first = open_index(root)
    monkeypatch.setattr(index_module, "_read", lambda *_: pytest.fail("it was read again"))
    second = open_index(root)
    for field in fields(Columns):
        np.testing.assert_array_equal(getattr(first.columns, field.name), getattr(second.columns, field.name))
    assert (first.names, first.texts, first.classes) == (second.names, second.texts, second.classes)
    monkeypatch.undo()


def test_a_changed_run_is_read_again(make_run, open_index):
    assert len(open_index(make_run(8))) == 8
    root = make_run(8, name="other")
    assert len(open_index(root)) == 8
    lines = (root / "manifest.jsonl").read_text().splitlines()
    (root / "manifest.jsonl").write_text("\n".join(lines[:5]) + "\n")
    assert len(open_index(root)) == 5


def test_a_damaged_cache_is_rebuilt(make_run, open_index):
    root = make_run(4)
    index = open_index(root)
    [cached] = index.source.cache.glob("index*.npz")
    cached.write_bytes(cached.read_bytes()[:200])
    assert len(open_index(root)) == 4


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"image": "a.png"}', '{"image": "a.png", "labels": {"boxes": [[1, 2]]}}']
)
def test_a_damaged_record_is_left_out_and_named_with_its_line(make_run, open_index, line):
    root = make_run(3)
    with open(root / "manifest.jsonl", "a") as manifest:
        manifest.write(line + "\n")
    index = open_index(root)
    assert len(index) == 3
    assert re.search(r"manifest\.jsonl:4: .*record", index.skipped[0])


@pytest.mark.parametrize("value", [{}, "wide", 2**40, None])
def test_a_size_that_is_no_number_of_pixels_is_reported(make_run, open_index, value):
    root = make_run(3)
    *lines, last = (root / "manifest.jsonl").read_text().splitlines()
    record = json.loads(last)
    record["labels"]["size"] = [value, value]
    (root / "manifest.jsonl").write_text("\n".join([*lines, json.dumps(record)]) + "\n")
    index = open_index(root)
    assert len(index) == 2
    assert "manifest.jsonl:3: no record" in index.skipped[0]


def test_nothing_is_written_into_the_viewed_folder(make_run, open_index):
    root = make_run(3)
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    open_index(root)
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before


def test_a_run_that_is_not_finished_shows_the_shards_that_are(make_run, open_index):
    root = make_run(6)
    (root / "manifest.jsonl").rename(root / "shards" / "000000" / "records.jsonl")
    (root / "report.json").unlink()
    index = open_index(root)
    assert len(index) == 6
    (root / "shards" / "000000" / "records.jsonl").unlink()
    with pytest.raises(UserError, match="no finished image"):
        open_index(root)


def test_a_data_set_is_shown_like_a_run_without_verdicts(toy_dataset, open_index):
    index = open_index(toy_dataset)
    assert len(index) == 24
    assert set(index.columns.kept.tolist()) == {-1}
    assert np.isnan(index.columns.score).all()
    read = coco.read(toy_dataset)
    for i, sample in enumerate(read):
        np.testing.assert_allclose(index.entry(i).labels.boxes, sample.layout.boxes, atol=1e-3)


def test_a_class_list_in_another_order_gives_the_same_names(tmp_path, open_index, make_run):
    """Labels of a record are numbers in the record's own class list."""
    root = make_run(2)
    records = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    for kind in ("asked", "labels"):
        records[1][kind] = {**records[1][kind], "classes": ["van", "car"], "labels": [0, 1]}
    (root / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    index = open_index(root)
    names = [index.classes[k] for k in index.columns.label[index.columns.image == 1]]
    assert names == ["van", "car"]


def test_an_image_outside_of_a_data_sets_folder_is_listed_by_its_full_path(tmp_path, open_index):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "outside.png")
    layout = Layout([[32, 32, 20, 10, 0]], [0], ("car",), (64, 64))
    coco.write(Dataset(("car",), [Sample("a", tmp_path / "outside.png", layout)]), tmp_path / "set")
    image = tmp_path / "set" / "images" / "train" / "a.png"
    image.unlink()
    image.symlink_to(tmp_path / "outside.png")
    assert open_index(tmp_path / "set").entry(0).image == "images/train/a.png"


@pytest.mark.parametrize(("name", "says"), [("nowhere", "does not exist"), ("file.txt", "is a file")])
def test_a_path_that_is_no_folder_is_refused(tmp_path, open_index, name, says):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UserError, match=says):
        open_index(tmp_path / name)
