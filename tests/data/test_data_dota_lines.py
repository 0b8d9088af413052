"""DOTA lines by plausibility: what the fields mean does not follow from their number alone."""

from __future__ import annotations

import pytest
from PIL import Image

from dataengine.data import dota
from dataengine.data.layout import class_key

BOX = "10 10 30 10 30 20 10 20"


def _read(tmp_path, *lines: str):
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labelTxt" / "a.txt").write_text("\n".join(lines) + "\n")
    return dota.read(tmp_path)


@pytest.mark.parametrize(
    ("end", "name", "difficult"),
    [
        ("ship", "ship", False),
        ("ship 0", "ship", False),
        ("ship 1", "ship", True),
        ("ship 2", "ship", True),
        ("ship 0.0", "ship", False),
        ("ship 1.0", "ship", True),
        ("large vehicle", "large vehicle", False),
        ("large vehicle 0", "large vehicle", False),
        ("large vehicle 1", "large vehicle", True),
        ("large ore carrier 1", "large ore carrier", True),
        ("Boeing 737", "Boeing 737", False),
        ("Boeing 737 1", "Boeing 737", True),
        ("737 0", "737", False),
        ("5", "5", False),
    ],
)
@pytest.mark.parametrize("separator", [" ", ",", ", ", "\t"])
def test_class_and_difficult_flag(end, name, difficult, separator, tmp_path):
    dataset = _read(tmp_path, BOX.replace(" ", separator) + separator + end)
    assert not dataset.problems
    layout = dataset.samples[0].layout
    assert list(map(class_key, layout.names())) == [class_key(name)]
    assert layout.difficult.tolist() == [difficult]
    assert layout.boxes[0].tolist() == [20, 15, 20, 10, 0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{BOX} 5 15 ship 0", "5 points"),
        (f"{BOX} 5 15 large vehicle", "5 points"),
        ("10 10 30 10 30 20 ship 0", "3 points"),
        ("10 10 30 10 30 20 10 x ship 0", "'x'"),
        ("10:5 10 30 10 30 20 10 20 ship 0", "'10:5'"),
        (BOX, "needs 8 coordinates and a class"),
    ],
)
def test_other_lines_are_reported_with_their_number(line, says, tmp_path):
    dataset = _read(tmp_path, f"{BOX} ship 0", line)
    assert [len(sample.layout) for sample in dataset] == [1]
    [problem] = dataset.problems
    assert (problem.line, problem.objects) == (2, 1)
    assert says in problem.message
