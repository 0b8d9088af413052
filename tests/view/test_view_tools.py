"""A run in FiftyOne, CVAT and Label Studio, and back: nothing changes by itself, and what a person changes arrives."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.engine.decisions import Change, append, read_changes, read_decisions
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.export.tools import cvat, fiftyone, label_studio
from dataengine.export.tools.review import review

TOOLS = {"fiftyone": fiftyone, "cvat": cvat, "label-studio": label_studio}
NOTHING = "0" * 16


@pytest.fixture
def run(make_run) -> RunFolder:
    """A run with odd boxes, in which a person decided before."""
    folder = RunFolder(make_run(12))
    box = {"of": 0, "class": "van", "box": (33.123, 41.77, 21.34, 9.87, 0.7123), "difficult": True}
    append(folder, [
        Change(do="reject", images=[(0, NOTHING)]), Change(do="accept", tag="", images=[(2, NOTHING)]),
        Change(do="tag", tag="good", images=[(1, NOTHING), (3, NOTHING)]),
        Change(do="correct", images=[(4, NOTHING)],
               objects=[box, {"class": "car", "box": (70.5, 60.25, 14.2, 7.1, -1.2)}]),
    ])  # fmt: skip
    return folder


def exported(run: RunFolder, tool: str, tmp_path):
    result = CliRunner().invoke(app, ["export", "review", str(run.path), "--to", tool, "--out", str(tmp_path / tool)])
    assert result.exit_code == 0, result.output
    return tmp_path / tool / TOOLS[tool].FILE


def rounded_xml(file) -> None:
    """As CVAT writes it: two decimals."""
    tree = ElementTree.parse(file)
    for box in tree.iter("box"):
        for key in ("xtl", "ytl", "xbr", "ybr", "rotation"):
            box.set(key, f"{float(box.get(key)):.2f}")
    tree.write(file)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_nobody_touched_comes_back_as_it_was(run, tool, tmp_path):
    file = exported(run, tool, tmp_path)
    if tool == "cvat":
        rounded_xml(file)
    result = CliRunner().invoke(app, ["run", "decide", str(run.path), str(file)])
    assert result.exit_code == 0, result.output
    assert "nothing has changed" in result.output
    assert len(read_changes(run.decisions)) == 4
    given = {one.name for one in TOOLS[tool].read(file)}
    assert {"00000000", "00000002"} <= given, "rejected and accepted images are there, with their decision"


def edit_cvat(file) -> None:
    tree = ElementTree.parse(file)
    images = {image.get("name"): image for image in tree.iter("image")}
    ElementTree.SubElement(images["00000001.png"], "tag", {"label": "rejected"})
    first = images["00000003.png"].find("box")
    for key in ("xtl", "xbr"):
        first.set(key, str(float(first.get(key)) + 5))
    images["00000007.png"].remove(images["00000007.png"].find("box"))
    points = "10,10;30,10;30,20;10,20"
    ElementTree.SubElement(images["00000006.png"], "polygon", {"label": "van", "points": points})
    images["00000002.png"].remove(images["00000002.png"].find("tag"))
    tree.write(file)


def edit_label_studio(file) -> None:
    tasks = {task["data"]["name"]: task["annotations"][-1]["result"] for task in json.loads(file.read_text())}
    tasks["00000001"].append({
        "id": "d", "type": "choices", "from_name": "decision", "value": {"choices": ["rejected"]},
    })  # fmt: skip
    tasks["00000003"][0]["value"]["x"] += 100 * 5 / 96
    del tasks["00000007"][0]
    tasks["00000006"].append({
        "id": "x1", "type": "rectanglelabels", "from_name": "label", "original_width": 96, "original_height": 96,
        "value": {"x": 100 * 10 / 96, "y": 100 * 10 / 96, "width": 100 * 20 / 96, "height": 100 * 10 / 96,
                  "rotation": 0, "rectanglelabels": ["van"]},
    })  # fmt: skip
    tasks["00000002"][:] = [one for one in tasks["00000002"] if one["from_name"] != "decision"]
    rows = [{"data": {"name": name}, "annotations": [{"result": result}]} for name, result in tasks.items()]
    file.write_text(json.dumps(rows))


def edit_fiftyone(file) -> None:
    samples = json.loads(file.read_text())["samples"]
    of = {sample["filepath"].split("/")[-1][:8]: sample for sample in samples}
    of["00000001"]["tags"].append("rejected")
    line = of["00000003"]["ground_truth"]["polylines"][0]
    line["points"] = [[[x + 5 / 96, y] for x, y in line["points"][0]]]
    del of["00000007"]["ground_truth"]["polylines"][0]
    corners = [[10 / 96, 10 / 96], [30 / 96, 10 / 96], [30 / 96, 20 / 96], [10 / 96, 20 / 96]]
    of["00000006"]["ground_truth"]["polylines"].append({"label": "van", "points": [corners]})
    of["00000002"]["tags"].remove("accepted")
    file.write_text(json.dumps({"samples": samples}))


EDITS = {"cvat": edit_cvat, "label-studio": edit_label_studio, "fiftyone": edit_fiftyone}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_person_changes_in_a_tool_is_what_exports_contain(run, tool, tmp_path):
    before = {record.index: record.labels for record in run.records()}
    file = exported(run, tool, tmp_path)
    EDITS[tool](file)
    dry = CliRunner().invoke(app, ["run", "decide", str(run.path), str(file), "--dry-run"])
    assert "not made" in dry.output
    assert len(read_changes(run.decisions)) == 4
    result = CliRunner().invoke(app, ["run", "decide", str(run.path), str(file)])
    assert result.exit_code == 0, result.output
    decisions = read_decisions(run)
    assert (decisions[1].accepted, decisions[1].tags) == (False, ("good",))
    assert 2 not in decisions, "its decision was taken back"
    kept = {sample.name: sample.layout for sample in run.accepted_images()}
    assert "00000001" not in kept
    assert "00000002" not in kept, "the filter dropped it"
    moved = before[3].boxes.copy()
    moved[0, 0] += 5
    assert kept["00000003"].boxes == pytest.approx(moved, abs=0.02)
    assert (kept["00000003"].boxes[1:] == before[3].boxes[1:]).all(), "untouched boxes stay to the last bit"
    assert (kept["00000007"].boxes == before[7].boxes[1:]).all()
    added = kept["00000006"]
    assert added.names()[-1] == "van"
    assert added.boxes[-1] == pytest.approx([20, 15, 20, 10, 0], abs=0.02)
    assert decisions[4].objects[0].box == pytest.approx((33.123, 41.77, 21.34, 9.87, 0.7123)), "an earlier correction"
    assert all(change.by == tool for change in read_changes(run.decisions)[4:])


def test_cvats_file_is_also_one_of_the_readers(run, tmp_path):
    """An independent check of the boxes: `dataengine.data.cvat` reads the same file."""
    file = exported(run, "cvat", tmp_path)
    read = {sample.name: sample.layout for sample in formats.read(file.parent, "cvat")}
    for one in cvat.read(file):
        boxes = np.array([[*other.box[:4], other.box[4]] for other in one.objects])
        assert read[one.name].boxes == pytest.approx(boxes, abs=1e-3)


def test_label_studio_turns_about_the_upper_left_corner():
    box = np.float32([50, 40, 20, 10, math.pi / 2])
    value = label_studio._value(box, 100, 80)
    # turned by 90 degrees clockwise, the left end of the upper side is at the upper right
    assert (value["x"], value["y"] * 0.8) == pytest.approx((55, 30), abs=1e-4)
    assert label_studio._box(value, 100, 80) == pytest.approx((50, 40, 20, 10, math.pi / 2), abs=1e-4)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("content", ["", "[]x", '{"samples": 3}', "<annotations><image>", '[{"data": {}}]'])
def test_damaged_files_are_one_sentence(run, tool, content, tmp_path):
    file = tmp_path / TOOLS[tool].FILE
    file.write_text(content)
    with pytest.raises(UserError, match=file.name):
        TOOLS[tool].read(file)


def test_images_of_another_run_are_refused(run, tmp_path):
    file = exported(run, "cvat", tmp_path)
    file.write_text(file.read_text().replace("00000003.png", "00000999.png"))
    with pytest.raises(UserError, match="has no image 00000999"):
        review(run, cvat.read(file), "cvat")
