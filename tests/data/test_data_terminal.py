"""Nothing that a file holds reaches the terminal as a command to it, and no name makes a message long."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats, layout, records

HOSTILE = "red\x1b[31m\x1b]0;title\x07\x9b2J\u202e"
COCO = {
    "info": {"license": HOSTILE},
    "images": [{"id": HOSTILE, "file_name": "a.png", "source": HOSTILE}, {"id": 2, "file_name": HOSTILE + ".png"}],
    "annotations": [
        {"id": HOSTILE, "image_id": HOSTILE, "category_id": HOSTILE, "bbox": [1, 2, 3, 4]},
        {"id": HOSTILE, "image_id": HOSTILE, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": HOSTILE, "category_id": HOSTILE, "bbox": [HOSTILE, 2, 3, 4]},
    ],
    "categories": [{"id": HOSTILE, "name": HOSTILE}],
}
VOC = (
    "<annotation><filename>a.png</filename><size><width>64</width><height>64</height></size><object>"
    "<name>red \x9b2J</name><bndbox><xmin>4</xmin><ymin>4</ymin><xmax>9</xmax><ymax>{}</ymax></bndbox></object>"
    "</annotation>"
)
FILES = {
    "coco": {"a.json": json.dumps(COCO)},
    "dota": {"labelTxt/a.txt": f"1 1 9 1 9 9 1 9 {HOSTILE} 0\n1 1 9 1 9 9 1 {HOSTILE} x 0\n"},
    "voc": {"a.xml": VOC.format(9), "b.xml": VOC.format("\x9b")},
    "yolo": {"a.txt": f"0 0.5 0.5 0.1 0.1\n{HOSTILE} 0.5 0.5 0.1 0.1\n", "classes.txt": HOSTILE},
    "labelme": {"a.json": json.dumps({"imagePath": "a.png", "shapes": [
        {"label": HOSTILE, "shape_type": "rectangle", "points": [[1, 1], [9, 9]]},
        {"label": "b", "shape_type": HOSTILE, "points": [[1, 1], [9, 9]]}]})},
    "csv": {"a.csv": f"image,xmin,ymin,xmax,ymax,class\na.png,3,4,20,12,{HOSTILE}\na.png,{HOSTILE},4,20,12,b\n"},
    "airbus": {"annotations.csv": f'image_id,class,bounds\na,{HOSTILE},"(3, 4, 20, 12)"\na,b,"({HOSTILE})"\n'},
}  # fmt: skip


def write(folder, format):
    for name, content in FILES[format].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, "utf-8")
    images = folder / "images" if format in ("dota", "airbus") else folder
    images.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(images / "a.png")


def control_characters(text: str) -> set[str]:
    return {character for character in text if not character.isprintable() and character != "\n"}


@pytest.mark.parametrize("command", ["info", "check", "convert"])
@pytest.mark.parametrize("format", FILES)
def test_no_control_character_of_a_file_is_printed(format, command, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    write(tmp_path, format)
    more = [str(tmp_path / "out"), "--to", "dota"] if command == "convert" else []
    done = CliRunner().invoke(app, ["data", command, str(tmp_path), "--format", format, *more])
    said = done.output + (str(done.exception) if done.exception else "")
    assert control_characters(said) == set()
    assert "\\x1b" in said or "\\x9b" in said, "what was there is shown escaped"


def test_without_escaping_they_would_be_printed(tmp_path, monkeypatch):
    """The mutation."""
    for module in (records, layout):
        monkeypatch.setattr(module, "printable", str)
    write(tmp_path, "dota")
    dataset = formats.read(tmp_path, "dota")
    assert control_characters("".join([*dataset.classes, *map(str, dataset.problems)]))


def test_a_class_name_of_900_000_characters_makes_no_long_message(tmp_path):
    write(tmp_path, "dota")
    lines = "".join(f"1 1 9 1 9 {i} 1 9 {'x' * 900_000} 0\n" for i in range(9, 12))
    (tmp_path / "labelTxt" / "a.txt").write_text(f"{lines}1 1 9 1 9 9 1 9 car 0\n1 1 9 1 9 9 1 9 van 0\n")
    dataset = formats.read(tmp_path, "dota", classes=["car"])
    assert [len(sample.layout) for sample in dataset] == [1]
    assert sum(problem.objects for problem in dataset.problems) == 4, "each object is reported"
    assert max(len(str(problem)) for problem in dataset.problems) < 500
    assert "its class name has 900,000 characters, more than 200" in str(dataset.problems[0])
    assert formats.read(tmp_path, "dota").classes == ("car", "van")


def test_more_classes_than_anybody_has_are_refused_in_one_sentence(tmp_path):
    write(tmp_path, "dota")
    (tmp_path / "labelTxt" / "a.txt").write_text("".join(f"1 1 9 1 9 9 1 9 c{i} 0\n" for i in range(12_000)))
    with pytest.raises(records.UserError, match="has 12,000 classes, more than 10,000") as told:
        formats.read(tmp_path, "dota")
    assert len(str(told.value)) < 300
    assert len(formats.read(tmp_path, "dota", classes=["c7"]).samples[0].layout) == 1, "a choice of them is read"
