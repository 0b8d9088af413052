"""CSV with a box on each line, in the forms of the field: every object is read or reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dataengine.data import csv_boxes, formats
from dataengine.data.records import NothingUsable
from dataengine.errors import UserError

SIZE = (64, 48)
TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
PLAIN = "image,xmin,ymin,xmax,ymax,class\n"


def make(root: Path, files: dict[str, str], pictures: tuple[str, ...] = ("images/a.jpg", "images/b.jpg")) -> Path:
    for name in pictures:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (90, 90, 90)).save(root / name)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, "utf-8")
    return root


def boxes(root: Path, **options) -> dict[str, list]:
    """(class, sides) of each image, of a data set that is read without problems."""
    dataset = formats.read(root, **options)
    assert (dataset.format, dataset.kind, dataset.problems) == ("csv", "hbb", [])
    found = {}
    for sample in dataset:
        cx, cy, w, h, theta = sample.layout.boxes.astype(float).T
        w, h = abs(w * (theta == 0) + h * (theta != 0)), abs(h * (theta == 0) + w * (theta != 0))
        rows = zip(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, strict=True)
        found[sample.name] = [(name, *map(float, row)) for name, row in zip(sample.layout.names(), rows, strict=True)]
    return found


EXPECTED = {"a": [("car", 2, 3, 20, 12), ("van", 30, 8, 34, 40)], "b": []}
FORMS = {
    "a header": PLAIN + "a.jpg,2,3,20,12,car\na.jpg,30,8,34,40,van\nb.jpg,,,,,\n",
    "tensorflow": TENSORFLOW + "a.jpg,64,48,car,2,3,20,12\na.jpg,64,48,van,30,8,34,40\nb.jpg,64,48,,,,,\n",
    "deepforest": "image_path,xmin,ymin,xmax,ymax,label\na.jpg,2,3,20,12,car\na.jpg,30,8,34,40,van\nb.jpg,,,,,\n",
    "retinanet": "images/a.jpg,2,3,20,12,car\nimages/a.jpg,30,8,34,40,van\nimages/b.jpg,,,,,\n",
    "of another machine": "C:\\data\\images\\a.jpg,2,3,20,12,car\n/home/x/images/a.jpg,30,8,34,40,van\nb.jpg,,,,,\n",
    "semicolons": "Filename; X1; Y1; X2; Y2; Class\na.jpg; 2; 3; 20; 12; car\na.jpg;30;8;34;40;van\nb.jpg;;;;;\n",
    "names without suffix": "image_id,x1,y1,x2,y2,class,score\na,2,3,20,12,car,1\na,30,8,34,40,van,1\nb,,,,,,\n",
    "windows": "\ufeff" + (PLAIN + "a.jpg,2,3,20,12,car\na.jpg,30,8,34,40,van\nb.jpg,,,,,\n").replace("\n", "\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_the_field_are_recognised_and_read(form, tmp_path):
    root = make(tmp_path, {"labels.csv": FORMS[form]})
    if form == "of another machine":  # one image under two paths is two entries, of which the second is reported
        dataset = formats.read(root)
        assert [str(p).partition(": ")[2] for p in dataset.problems] == [
            "image a.jpg is listed twice; its 1 objects are skipped"
        ]
        return
    assert boxes(root) == EXPECTED
    assert boxes(root / "labels.csv") if form == "retinanet" else True


def test_splits_are_named_by_files_or_folders(tmp_path):
    one = make(tmp_path / "one", {"train_labels.csv": PLAIN + "a.jpg,2,3,20,12,car\n",
                                  "val.csv": PLAIN + "b.jpg,2,3,20,12,van\n"})  # fmt: skip
    assert formats.splits(one) == ("train", "val")
    assert boxes(one, split="val") == {"b": [("van", 2, 3, 20, 12)]}
    roboflow = make(
        tmp_path / "roboflow",
        {f"{part}/_annotations.csv": f"{TENSORFLOW}a.jpg,64,48,car,2,3,{right},12\n" for part, right in
         (("train", 20), ("valid", 30))},
        ("train/a.jpg", "valid/a.jpg"),
    )  # fmt: skip
    assert formats.splits(roboflow) == ("train", "valid")
    assert boxes(roboflow, split="valid") == {"a": [("car", 2, 3, 30, 12)]}


def test_the_class_list_of_retinanet_gives_the_order(tmp_path):
    files = {"labels.csv": FORMS["retinanet"], "classes.csv": "van,0\nbus,2\ncar,1\n"}
    assert formats.read(make(tmp_path / "a", files)).classes == ("van", "car", "bus")
    files["classes.csv"] = "van,0\nbus,1\n"  # without a class that is there
    assert formats.read(make(tmp_path / "b", files)).classes == ("car", "van")


BROKEN = {
    "a.jpg,2,3,20,car\n": (3, "the line has 5 columns, not 6; the object is skipped", 1),
    "a.jpg,2,3,20,x,car\n": (3, "y2 is 'x', not a number; the object is skipped", 1),
    "a.jpg,2,3,20,,car\n": (3, "y2 is '', not a number; the object is skipped", 1),
    "a.jpg,20,3,2,12,car\n": (3, "its box ends before it begins: 20, 3, 2, 12; the object is skipped", 1),
    "a.jpg,2,3,2,12,car\n": (3, "its box is 0 wide and 9 high, so it has no area; the object is skipped", 1),
    "a.jpg,2,3,20,12,\n": (3, "it has no class name; the object is skipped", 1),
    ",2,3,20,12,car\n": (3, "the line has no image; the object is skipped", 1),
    "nowhere.jpg,2,3,20,12,car\n": (None, "image 'nowhere.jpg' is missing", 1),
    'a.jpg,2,3,20,12,"car\na.jpg,2,3,20,12,van\n': (3, "a quotation mark is not closed; lines 3 to 4 are skipped", 2),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_every_object_is_read_or_counted_by_a_problem(broken, tmp_path):
    line, said, lost = BROKEN[broken]
    dataset = formats.read(make(tmp_path, {"labels.csv": PLAIN + "a.jpg,2,3,20,12,car\n" + broken}))
    assert any(said in str(problem) and problem.line == line for problem in dataset.problems if problem.objects)
    read = sum(len(sample.layout) for sample in dataset) - 1
    assert read + sum(problem.objects for problem in dataset.problems) == lost


def test_an_image_none_of_whose_lines_can_be_read_is_not_empty_ground(tmp_path):
    content = PLAIN + "a.jpg,2,3,20,12,car\nb.jpg,2,3,x,12,car\n"
    dataset = formats.read(make(tmp_path, {"labels.csv": content}))
    assert [sample.name for sample in dataset] == ["a"]
    assert any("none of its objects can be read" in str(problem) for problem in dataset.problems)


def test_fractions_are_refused_and_other_tables_are_not_taken_for_labels(tmp_path):
    root = make(tmp_path / "a", {"labels.csv": PLAIN + "a.jpg,0.1,0.2,0.5,0.9,car\n"})
    with pytest.raises(UserError, match="fractions of the image; multiply them"):
        formats.read(root)
    control = make(tmp_path / "b", {"labels.csv": PLAIN + "a.jpg,0.1,0.2,1.5,0.9,car\n"})
    assert len(formats.read(control)) == 1
    for content in ("image,x,y,width,height,class\na.jpg,1,2,3,4,car\n", "a.jpg,1,2,3,4\n", "name,number\ncar,0\n", ""):
        assert not csv_boxes.recognizes(Path("t.csv"), content)
    with pytest.raises(UserError, match="has no CSV file with boxes"):
        formats.read(make(tmp_path / "c", {"labels.csv": "name,number\ncar,0\n"}), "csv")


def test_sizes_that_contradict_the_image_are_reported_and_splits_of_one_file_are_refused(tmp_path):
    dataset = formats.read(make(tmp_path, {"labels.csv": TENSORFLOW + "a.jpg,640,480,car,2,3,20,12\n"}))
    assert any("image is 64x48 but its annotation says 640x480" in str(problem) for problem in dataset.problems)
    with pytest.raises(UserError, match="no split 'val'; it has none"):
        formats.read(tmp_path, split="val")
    with pytest.raises(NothingUsable):
        formats.read(make(tmp_path / "x", {"labels.csv": PLAIN + "c.jpg,2,3,20,12,car\n"}, ("images/z.jpg",)))


def test_names_with_separators_round_trip(tmp_path):
    root = make(tmp_path / "in", {"labels.csv": PLAIN + 'a.jpg,2,3,20,12,"car, ""red"""\nb.jpg,,,,,\n'})
    formats.write(formats.read(root), tmp_path / "out", "csv", split="val")
    assert (tmp_path / "out" / "val.csv").read_text().splitlines()[1] == 'a.jpg,64,48,"car, ""red""",2,3,20,12'
    back = formats.read(tmp_path / "out")
    assert [sample.layout.names() for sample in back] == [['car, "red"'], []]
    assert formats.splits(tmp_path / "out") == ("val",)
