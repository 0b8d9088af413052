from __future__ import annotations

import json

import numpy as np
import pytest

from dataengine.errors import UserError
from dataengine.view.filters import matching_images, read_filter
from dataengine.view.statistics import statistics


@pytest.fixture
def index(make_run, open_index):
    return open_index(make_run(60))


def by_hand(index, keep) -> list[int]:
    """The same selection from the records, one by one."""
    return [i for i, record in enumerate(records_of(index)) if keep(record)]


def records_of(index) -> list[dict]:
    """The lines of the manifest."""
    return [json.loads(line) for line in index.source.entries.read_text().splitlines()]


def objects_of(record):
    names = [record["labels"]["classes"][k] for k in record["labels"]["labels"]]
    return list(zip(names, record["labels"]["boxes"], record["verdict"]["scores"], strict=True))


@pytest.mark.parametrize(
    ("parameters", "keep"),
    [
        ({}, lambda r: True),
        ({"verdict": ["kept"]}, lambda r: r["verdict"]["kept"]),
        ({"verdict": ["dropped"]}, lambda r: not r["verdict"]["kept"]),
        ({"reason": ["objects not found"]}, lambda r: "not found" in r["verdict"]["reason"]),
        ({"class": ["van"]}, lambda r: any(name == "van" for name, _, _ in objects_of(r))),
        ({"class": ["VAN", "car"]}, lambda r: True),
        ({"class": ["bus"]}, lambda r: False),
        ({"score": ["..0.25"]}, lambda r: any(score <= 0.25 for _, _, score in objects_of(r))),
        ({"score": ["0.5.."]}, lambda r: any(score >= 0.5 for _, _, score in objects_of(r))),
        ({"size": ["20..22"]}, lambda r: any(20 <= max(box[2:4]) <= 22 for _, box, _ in objects_of(r))),
        ({"count": ["3.."]}, lambda r: len(r["labels"]["boxes"]) >= 3),
        ({"altitude": ["70..75"]}, lambda r: 70 <= r["labels"]["acquisition"]["altitude_m"] <= 75),
        ({"gsd": ["0.."]}, lambda r: False),
        ({"taken": ["night"]}, lambda r: r["labels"]["acquisition"]["night"]),
        ({"q": ["FLIGHT-2"]}, lambda r: r["scene"] == "flight-2"),
        ({"q": [str((1 << 61) + 7)]}, lambda r: r["index"] == 7),
        (
            {"class": ["van"], "size": ["..17"], "verdict": ["kept"]},
            lambda r: r["verdict"]["kept"] and any(n == "van" and max(b[2:4]) <= 17 for n, b, _ in objects_of(r)),
        ),
    ],
)
def test_a_filter_matches_the_images_that_a_check_of_every_record_matches(index, parameters, keep):
    assert matching_images(index, read_filter(parameters)).tolist() == by_hand(index, keep)


def test_class_score_and_size_apply_to_the_same_object(make_run, open_index):
    """Control: a car of the size next to a van is no van of the size."""
    root = make_run(1)
    record = json.loads((root / "manifest.jsonl").read_text())
    for kind in ("asked", "labels"):
        record[kind] |= {"boxes": [[20, 20, 30, 8, 0], [60, 60, 12, 8, 0]], "labels": [0, 1]}
        record[kind] |= {"difficult": [False] * 2, "visible": [1.0] * 2}
    record["verdict"]["scores"] = [0.9, 0.1]
    (root / "manifest.jsonl").write_text(json.dumps(record) + "\n")
    index = open_index(root)
    assert len(matching_images(index, read_filter({"class": ["car"], "size": ["25.."]}))) == 1
    assert len(matching_images(index, read_filter({"class": ["van"], "size": ["25.."]}))) == 0
    assert len(matching_images(index, read_filter({"class": ["van"], "score": ["0.5.."]}))) == 0


@pytest.mark.parametrize(("sort", "sign"), [("score", 1), ("-score", -1), ("objects", 1), ("-objects", -1)])
def test_an_order_is_by_value_and_equal_ones_stay_in_the_files_order(index, sort, sign):
    ids = matching_images(index, read_filter({"sort": [sort]}))
    values = sign * getattr(index.columns, sort.lstrip("-"))[ids].astype(float)
    assert (np.diff(values) >= 0).all()
    ties = np.diff(values) == 0
    assert (np.diff(ids)[ties] > 0).all()


def test_images_without_a_score_come_last_in_both_orders(make_run, open_index):
    root = make_run(4)
    records = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    records[1]["verdict"]["scores"] = []
    (root / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    index = open_index(root)
    for sort in ("score", "-score"):
        assert matching_images(index, read_filter({"sort": [sort]}))[-1] == 1


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"score": ["high"]}, "score: give low..high"),
        ({"score": ["0.1"]}, "score"),
        ({"verdict": ["maybe"]}, "verdict"),
        ({"colour": ["red"]}, "colour: no such field"),
        ({"sort": ["seed"]}, "sort"),
        ({"q": ["x" * 300]}, "q"),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(parameters, says):
    with pytest.raises(UserError, match=says):
        read_filter(parameters)


def test_an_empty_field_of_the_page_is_no_filter(index):
    assert len(matching_images(index, read_filter({"q": [""], "score": [""], "verdict": [""]}))) == len(index)


def test_statistics_agree_with_counts_over_every_record(index):
    found = statistics(index, read_filter({"verdict": ["kept"]}))
    records = [r for r in records_of(index) if r["verdict"]["kept"]]
    assert found["pictures"] == len(records)
    for row in found["classes"]:
        mine = [r for r in records if any(name == row["name"] for name, _, _ in objects_of(r))]
        assert row["objects"] == sum(name == row["name"] for r in records for name, _, _ in objects_of(r))
        assert row["pictures"] == row["tried"] == row["kept"] == len(mine)
    for name, k in (("car", 0), ("van", 1)):
        sizes = [max(box[2:4]) for r in records for n, box, _ in objects_of(r) if n == name]
        edges = [np.inf if edge is None else edge for edge in found["sizes"]["edges"]]
        assert found["sizes"]["counts"][k] == np.histogram(sizes, edges)[0].tolist()
        degrees = [np.rad2deg(box[4]) for r in records for n, box, _ in objects_of(r) if n == name]
        assert found["angles"]["counts"][k] == np.histogram(degrees, found["angles"]["edges"])[0].tolist()


def test_acceptance_along_the_run_counts_every_attempt_once(index):
    parts = statistics(index, read_filter({}))["acceptance"]
    assert sum(part["tried"] for part in parts) == len(index)
    assert sum(part["kept"] for part in parts) == (index.columns.kept == 1).sum()
    assert [part["first"] for part in parts][1:] == [part["last"] + 1 for part in parts][:-1]


def test_a_filter_on_class_counts_only_its_objects(index):
    found = statistics(index, read_filter({"class": ["van"]}))
    assert found["objects"] == found["classes"][1]["objects"]
    assert found["classes"][0]["objects"] == 0


def test_nearly_square_boxes_have_no_angle(make_run, open_index):
    root = make_run(1)
    record = json.loads((root / "manifest.jsonl").read_text())
    record["labels"] = {**record["labels"], "boxes": [[20, 20, 10, 10, 0.3]]}
    (root / "manifest.jsonl").write_text(json.dumps(record) + "\n")
    found = statistics(open_index(root), read_filter({}))
    assert sum(map(sum, found["angles"]["counts"])) == 0
    assert sum(map(sum, found["sizes"]["counts"])) == 1


def test_figures_of_nothing_are_zeros(index):
    found = statistics(index, read_filter({"class": ["bus"]}))
    assert found["pictures"] == found["objects"] == 0
    assert found["acceptance"] == found["reasons"] == []
