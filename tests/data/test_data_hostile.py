"""Malicious files are rejected or read in little time and memory, and nothing is written outside the folder."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.data import check, coco, formats, images
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.files import read_yaml
from dataengine.layouts.stored import load_layouts, save_layouts

XML = ("dior", "voc", "hrsc", "rolabelimg")
JSON = ("coco", "hit-uav")
BOXES = [[(60, 70, 40, 12, 0.2), (120, 80, 30, 20, 0.4)]] * 2
TENFOLD = "".join(f"<!ENTITY e{i} '{f'&e{i - 1};' * 10}'>" for i in range(1, 12))
LAUGHS = f"<!DOCTYPE a [<!ENTITY e0 'ha'>{TENFOLD}]>"
OUTSIDE = '<!DOCTYPE a [<!ENTITY e11 SYSTEM "file:///etc/passwd">]>'
DEFINED_ELSEWHERE = '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p; <!ENTITY e11 "x">]>'


@pytest.fixture
def written(make_dataset, tmp_path):
    """`written(format)`: a data set of two images, and its annotation files."""

    def write(format: str) -> tuple[Path, list[Path]]:
        formats.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "set", format)
        found = [f for f in (tmp_path / "set").rglob("*") if f.suffix in (".xml", ".json", ".txt", ".yaml")]
        return tmp_path / "set", sorted(f for f in found if f.name[0] != ".")

    return write


@pytest.mark.parametrize("hostile", [LAUGHS, OUTSIDE, DEFINED_ELSEWHERE], ids=["laughs", "outside", "elsewhere"])
@pytest.mark.parametrize("format", XML)
def test_xml_entities_are_neither_expanded_nor_fetched(format, hostile, written):
    root, files = written(format)
    for file in files:
        if file.name == "image_0.xml":  # DIOR has two of them
            text = file.read_text()
            start = text.index("<", text.index("?>") if "?>" in text else 0)
            file.write_text(hostile + text[start:].replace("</", "&e11;</", 1))
    dataset = formats.read(root, format)
    assert [sample.name for sample in dataset] == ["image_1"]
    assert any("entities" in p.message for p in dataset.problems), dataset.problems
    assert not any("root:" in p.message for p in dataset.problems)


@pytest.mark.parametrize("format", JSON)
@pytest.mark.parametrize(
    ("of", "key", "value", "left"),
    [
        ("annotations", "bbox", [1, 2, float("nan"), 4, 0], 3),
        ("annotations", "bbox", [1, 2, float("inf"), 4, 0], 3),
        ("annotations", "bbox", [1, 2, 1e308, 1e308, 0], 3),
        ("annotations", "bbox", [10**400, 2, 3, 4, 0], 3),
        ("annotations", "bbox", [1, 2, 0, 4, 0], 3),
        ("images", "width", float("nan"), 2),
        ("images", "height", float("-inf"), 2),
    ],
)
def test_invalid_numbers_skip_their_image_or_object(format, of, key, value, left, written):
    root, [file] = written(format)
    content = json.loads(file.read_text())
    entry = content[of][0]
    entry.pop("segmentation", None)
    entry[key] = value[: len(entry[key])] if isinstance(value, list) else value
    file.write_text(json.dumps(content))
    dataset = formats.read(root, format)
    assert sum(len(sample.layout) for sample in dataset) == left
    assert dataset.problems
    for sample in dataset:
        assert np.isfinite(sample.layout.boxes).all()
        assert (sample.layout.boxes[:, 2:4] > 0).all()


def test_a_horizontal_box_of_negative_size_is_skipped(make_dataset, tmp_path):
    coco.write(
        make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0), (90, 90, 20, 10, 0)]] * 2, kind="hbb"), tmp_path / "out"
    )
    file = tmp_path / "out" / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [60, 70, -40, -12]
    file.write_text(json.dumps(content))
    dataset = coco.read(tmp_path / "out")
    assert [len(sample.layout) for sample in dataset] == [1, 2]
    assert "no area" in dataset.problems[0].message


@pytest.mark.parametrize("size", ["inf", "-inf", "nan", "1e400", "-5"])
@pytest.mark.parametrize("format", ["dior", "voc", "rolabelimg"])
def test_an_invalid_size_in_xml_counts_as_missing(format, size, written):
    root, files = written(format)
    for file in files:
        if file.suffix == ".xml":
            file.write_text(file.read_text().replace("<width>200<", f"<width>{size}<"))
    dataset = formats.read(root, format)
    assert (len(dataset), dataset.problems) == (2, [])
    assert dataset.samples[0].layout.size == (200, 150), "the size of the image"


@pytest.mark.parametrize("format", JSON)
def test_a_repeated_key_is_reported(format, written):
    root, [file] = written(format)
    file.write_text(file.read_text().replace('"bbox": [', '"bbox": [1, 2, 3, 4, 0], "bbox": [', 1))
    with pytest.raises(UserError, match="the key 'bbox' twice"):
        formats.read(root, format)


@pytest.mark.parametrize("format", JSON)
def test_an_unpaired_surrogate_is_rejected_and_a_pair_is_read(format, written):
    """Python reads its escape, but no text with it can be encoded."""
    root, [file] = written(format)
    text, name = file.read_text(), formats.read(root, format).classes[0]
    assert f'"{name}"' in text
    file.write_text(text.replace(f'"{name}"', '"\\ud83d\\ude97"'))
    assert "\U0001f697" in formats.read(root, format).classes, "control: both halves are a character"
    file.write_text(text.replace(f'"{name}"', '"\\ud83d"'))
    with pytest.raises(UserError, match="half a character"):
        formats.read(root, format)


def test_an_unpaired_surrogate_in_a_preset_is_reported_with_its_line(tmp_path):
    (tmp_path / "preset.yaml").write_text('name: toy\ntitle: "\\ud800"\n')
    with pytest.raises(UserError, match=r"preset\.yaml: line 2 .*half a character"):
        read_yaml(tmp_path / "preset.yaml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp037", "utf-7"])
@pytest.mark.parametrize("format", sorted(formats.WRITTEN))
def test_another_encoding_is_read_or_reported(format, encoding, written):
    root, files = written(format)
    for file in files:
        file.write_text(file.read_text(), encoding)
    try:
        dataset = formats.read(root, format)
    except UserError:
        return
    objects = sum(len(sample.layout) for sample in dataset)
    assert objects == 4 or dataset.problems


@pytest.mark.parametrize("name", ["../../secret.png", "/SECRET", "..\\..\\secret.png", "a/../../../secret.png"])
@pytest.mark.parametrize("format", ["coco", "hit-uav", "hrsc", "yolo"])
def test_a_file_name_cannot_leave_the_data_set(format, name, written, tmp_path):
    root, files = written(format)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (200, 150), "red").save(secret)
    name = str(secret) if name == "/SECRET" else name
    if format == "yolo":
        (root / "list.txt").write_text(f"./{name}\n" if name[0] != "/" else f"{name}\n")
        (root / "data.yaml").write_text("train: list.txt\nnames: [plane, large ship, Car]\n")
    for file in files:
        file.write_text(file.read_text().replace("image_0", name.removesuffix(".png")))
    try:
        dataset = formats.read(root, format)
    except UserError:
        return
    assert all(root in Path(os.path.abspath(sample.image)).parents for sample in dataset)
    assert not any(Path(os.path.abspath(sample.image)) == secret for sample in dataset)


def test_a_sample_name_cannot_leave_the_output_folder(make_dataset, tmp_path):
    """No writer follows a name with `..` out of its folder."""
    dataset = make_dataset(tmp_path / "in", BOXES)
    [first, *_] = dataset.samples
    climbing = Sample("../../../climbed", first.image, first.layout)
    for format in formats.WRITTEN:
        try:
            formats.write(Dataset(dataset.classes, [climbing], "obb", "x"), tmp_path / "deep" / "er" / format, format)
        except (UserError, ValueError, AssertionError):
            continue
        below = tmp_path / "deep" / "er"
        assert not [f for f in tmp_path.rglob("*climbed*") if below not in f.parents], format


def bomb(file: Path, width: int, height: int, rows: int = 1000) -> None:
    """A PNG with this size in its header and `rows` compressed rows of zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(bytes(width // 8 + 1)) for _ in range(rows)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_a_huge_image_is_rejected_by_its_header(make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out")
    bomb(tmp_path / "out" / "images" / "train" / "image_0.png", 100_000, 100_000)
    dataset = coco.read(tmp_path / "out")
    assert [sample.name for sample in dataset] == ["image_1"]
    assert "more than 900 million pixels" in dataset.problems[0].message
    with pytest.raises(ValueError, match="900 million"):
        images.decode(tmp_path / "out" / "images" / "train" / "image_0.png")


def test_a_text_chunk_of_gigabytes_in_an_image_is_rejected(tmp_path):
    packed = zlib.compress(bytes(200_000_000), 9)
    content = b"Comment\0\0" + packed
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    plain = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])
    with pytest.raises(ValueError, match="image cannot be read"):
        images.measure(tmp_path / "a.png")


def test_stored_layouts_of_gigabytes_are_rejected(make_dataset, tmp_path):
    save_layouts(tmp_path / "a.npz", [s.layout for s in make_dataset(tmp_path / "in", BOXES)])
    arrays = dict(np.load(tmp_path / "a.npz"))
    arrays["difficult"] = np.zeros(2**30 + 1, bool)
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert (tmp_path / "a.npz").stat().st_size < 2**21
    with pytest.raises(UserError, match="more than 134,217,728 bytes"):
        load_layouts(tmp_path / "a.npz")


def test_ten_thousands_of_equal_boxes_are_checked_in_time_and_all_reported(tmp_path):
    """Comparing all pairs would take 2 * 10^8 comparisons and gigabytes."""
    n = 20_000
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    boxes = np.tile(np.float32([50, 50, 20, 10, 0.3]), (n, 1))
    layout = Layout(boxes, np.zeros(n, int), ("a",), (100, 100), "obb")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = check.check(Dataset(("a",), [Sample("a", tmp_path / "a.png", layout)], "obb", "x"))
    assert len(found) == n - 1
    assert all("repeats object 1" in problem.message for problem in found)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"


READ = """
import resource, sys
from dataengine.data import formats
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
dataset = formats.read(sys.argv[1], sys.argv[2])
print(sum(len(sample.layout) for sample in dataset), len(dataset.problems))
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["dota", "coco", "voc", "hit-uav", "yolo"])
def test_two_hundred_thousand_objects_in_one_file_are_read_in_two_gigabytes(format, tmp_path):
    n, side = 200_000, 4000
    rng = np.random.default_rng(0)
    Image.new("L", (side, side)).save(tmp_path / "a.png")
    boxes = np.column_stack([rng.uniform(20, side - 20, (n, 2)), np.full((n, 2), [8, 4]), np.zeros(n)])
    layout = Layout(boxes.astype(np.float32), np.zeros(n, int), ("a",), (side, side), "obb")
    formats.write(Dataset(("a",), [Sample("a", tmp_path / "a.png", layout)], "obb", "x"), tmp_path / "set", format)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "set"), format],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [str(n), "0"], done.stderr[-500:]
    shutil.rmtree(tmp_path / "set")
