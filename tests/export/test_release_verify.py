"""Every change of a release is found."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.errors import UserError
from dataengine.export.release import make as making
from dataengine.export.release import marks
from dataengine.export.release.archives import files_below, write_sums
from dataengine.export.release.make import make
from dataengine.export.release.verify import verify


def first_image(folder: Path) -> Path:
    return min(folder.glob("images/train/*.png"))


def edit(file: Path, change) -> None:
    file.write_text(change(file.read_text()))


def edit_json(file: Path, change) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value, indent=2) + "\n")


def edit_line(folder: Path, change) -> None:
    """Change the first line of train's metadata."""
    file = folder / "images" / "train" / "metadata.jsonl"
    first, *rest = file.read_text().splitlines()
    value = json.loads(first)
    change(value)
    file.write_text("\n".join([json.dumps(value), *rest]) + "\n")


def without_mark(folder: Path) -> None:
    file = first_image(folder)
    file.write_bytes(marks.unmarked(file.read_bytes()))


def saved_again(folder: Path) -> None:
    """As a program that knows nothing of marks saves it, one pixel changed, with the old mark put back."""
    file = first_image(folder)
    mark = marks.read_mark(file.read_bytes())
    with Image.open(file) as image:
        pixels = image.copy()
    pixels.putpixel((3, 3), (1, 2, 3))
    pixels.save(file)
    packet = marks.xmp_packet(mark.source_type, "", "", "")
    file.write_bytes(marks.marked(file.read_bytes(), packet, mark.details))


def second_packet(folder: Path) -> None:
    """Another program would read the first one, which says that a camera took the picture."""
    file = first_image(folder)
    png, packet = file.read_bytes(), marks.xmp_packet("http://cv.iptc.org/digitalCapture", "", "", "camera")
    end_of_header = len(marks.SIGNATURE) + 25
    file.write_bytes(png[:end_of_header] + marks._itxt(marks.XMP_KEYWORD, packet) + png[end_of_header:])


def moved_to_val(folder: Path) -> None:
    """An image of train in val, too, under a new number: the leak that a split must not have."""
    line = json.loads((folder / "images/train/metadata.jsonl").read_text().splitlines()[0])
    shutil.copy(folder / "images/train" / line["file_name"], folder / "images/val/99999999.png")
    with open(folder / "images/val/metadata.jsonl", "a") as file:
        file.write(json.dumps({**line, "file_name": "99999999.png", "split": "val"}) + "\n")


def first_label(folder: Path, format: str) -> Path:
    return min(folder.glob(f"{format}/train/*.txt"))


def other_box(line: str) -> str:
    return "1 1 30 1 30 9 1 9 " + " ".join(line.split(" ")[8:])


def other_difficult(text: str) -> str:
    """The last field of the first line flipped."""
    end = text.index("\n")
    return text[: end - 1] + str(1 - int(text[end - 1])) + text[end:]


def other_class(coco: dict) -> None:
    coco["annotations"][0]["category_id"] = 3 - coco["annotations"][0]["category_id"]


def other_source(croissant: dict) -> None:
    croissant["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"] = "nowhere"


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:900])


WRITTEN = "is not what was written"
# each change, and the fault that verify reports even after the checksums are rewritten
DAMAGES = {
    "mark removed": (without_mark, "its marks are not those of its record"),
    "pixel changed": (saved_again, "not the image that the run generated and filtered"),
    "second XMP packet": (second_packet, "its marks are not those of its record"),
    "image cut off": (lambda f: cut_off(first_image(f)), "the image is damaged"),
    "image lost": (lambda f: first_image(f).unlink(), "it is missing, and records name it"),
    "image added": (lambda f: shutil.copy(first_image(f), f / "images/train/77.png"), "77.png does not belong here"),
    "image in both splits": (moved_to_val, "images/val/99999999.png does not belong here"),
    "seed changed": (lambda f: edit_line(f, lambda v: v.update(seed=5)), f"train/metadata.jsonl {WRITTEN}"),
    "box moved in DOTA": (lambda f: edit(first_label(f, "labelTxt"), other_box), WRITTEN),
    "difficult changed in DOTA": (lambda f: edit(first_label(f, "labelTxt"), other_difficult), WRITTEN),
    "label file lost": (lambda f: first_label(f, "labelTxt").unlink(), "is missing"),
    "class changed in COCO": (lambda f: edit_json(f / "annotations/train.json", other_class), WRITTEN),
    "object lost in YOLO": (lambda f: edit(first_label(f, "labels"), lambda t: t.partition("\n")[2]), WRITTEN),
    "count changed": (lambda f: edit_json(f / "release.json", lambda v: v["splits"].update(train=99)), "splits is not"),
    "models changed": (
        lambda f: edit_json(f / "release.json", lambda v: v["parts"].update(model="0")), "for another release.json"
    ),
    "record changed": (lambda f: edit(f / "records/train.jsonl", lambda t: t.replace("0", "1", 1)), "was changed"),
    "Croissant broken": (lambda f: edit_json(f / "croissant.json", other_source), f"croissant.json {WRITTEN}"),
    "metadata no JSON": (lambda f: edit(f / "images/train/metadata.jsonl", lambda t: t[:30]), WRITTEN),
    "empty folder": (lambda f: (f / "labelTxt/test").mkdir(), "labelTxt/test does not belong here"),
}  # fmt: skip
CHECKSUM_FAULTS = ("checksum differs", "is missing", "added later", "was changed", "does not belong")


@pytest.fixture
def copy(released, tmp_path) -> Path:
    shutil.copytree(released, tmp_path / "toy-cars")
    return tmp_path / "toy-cars"


def test_a_valid_release_has_no_fault_and_everything_is_checked(released):
    found = verify(released)
    assert found.faults == []
    assert found.images == len(list(released.glob("images/*/*.png")))
    assert found.notes == []
    assert found.fingerprint == hashlib.sha256((released / "release.json").read_bytes()).hexdigest()
    assert set(found.checked) == {
        "release.json", "splits", "checksums", "images and their marks", "labels, card and metadata", "archives"
    }  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_change_is_reported_also_after_the_checksums_are_rewritten(copy, name):
    damage, said = DAMAGES[name]
    damage(copy)
    assert any(words in fault for fault in verify(copy).faults for words in CHECKSUM_FAULTS)
    write_sums(copy, files_below(copy))
    assert any(said in fault for fault in verify(copy).faults), verify(copy).faults


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "is not the archive of the files"),
        (lambda file: file.with_name("more.tar").write_bytes(file.read_bytes()), "does not belong here"),
    ],
)
def test_an_archive_that_was_touched_is_reported(copy, damage, said):
    damage(min((copy / "archives").glob("*.tar")))
    write_sums(copy / "archives", [f.name for f in sorted((copy / "archives").glob("*.tar"))])
    assert any(said in fault and "archives/" in fault for fault in verify(copy).faults)


def test_an_archive_of_another_folder_is_reported(copy):
    (copy / "README.md").write_text("another card")
    write_sums(copy, files_below(copy))
    assert any("is not the archive of the files in this folder" in fault for fault in verify(copy).faults)


def test_a_split_that_looks_at_seeds_only_would_leak_and_verify_finds_it(painted_run, settings, tmp_path, monkeypatch):
    """Mutation: with sources left out of account the toy run, made of 24 images, leaks."""
    monkeypatch.setattr(making, "sources_of", lambda layout, scene, seed, group, objects: frozenset([f"seed:{seed}"]))
    done = make(painted_run, tmp_path / "out", settings)
    assert done.left_out == 0
    assert any("train and val both have images made from" in fault for fault in verify(done.folder).faults)


def test_the_command_says_what_is_wrong_and_ends_with_1(copy):
    run = CliRunner().invoke
    assert run(app, ["release", "verify", str(copy)]).exit_code == 0
    without_mark(copy)
    done = run(app, ["release", "verify", str(copy)])
    assert done.exit_code == 1
    assert "its marks are not those of its record" in done.stdout
    assert "Traceback" not in done.output


def test_release_takes_the_run_with_and_without_make(painted_run, tmp_path):
    options = ["--name", "toy", "--license", "cc-by-4.0", "--source-license", "cc0-1.0", "--val", "0.2"]
    for words in ([], ["make"]):
        out = tmp_path / "-".join(["out", *words])
        done = CliRunner().invoke(app, ["release", *words, str(painted_run), *options, "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert f"{out}: " in done.stdout
        assert (out / "croissant.json").exists()
    assert "verify" in CliRunner().invoke(app, ["release", "--help"]).output


def test_a_folder_that_is_no_release_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"no release \(it has no release\.json\)"):
        verify(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a" * 300])
def test_archives_and_files_that_are_named_elsewhere_are_reported_and_nothing_is_unpacked(copy, name):
    file = min((copy / "archives").glob("*.tar"))
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    for sums in (copy / "SHA256SUMS", copy / "archives" / "SHA256SUMS"):
        sums.write_text(f"{sums.read_text()}{'0' * 64}  {name}\n")
    before = sorted(copy.parent.rglob("*"))
    faults = " ".join(verify(copy).faults)
    assert f"{name} is missing" in faults
    assert "archives/SHA256SUMS is missing or not" in faults
    assert f"{file.name} is not the archive" in faults
    assert sorted(copy.parent.rglob("*")) == before


def test_a_release_of_another_version_is_compared_as_far_as_versions_write_the_same(copy, monkeypatch):
    monkeypatch.setattr("dataengine.export.release.verify.__version__", "9.9.9")
    found = verify(copy)
    assert found.faults == []
    assert [note.split()[0] for note in found.notes] == ["README.md", "croissant.json", "samples.jpg"]
    edit(copy / "release.json", lambda text: text.replace('"version": "1.0.0"', '"version": "1.0.1"'))
    assert any("README.md was written for another release.json" in fault for fault in verify(copy).faults)


def test_a_release_without_records_says_which_version_verifies_it(copy):
    edit_json(copy / "release.json", lambda content: content.pop("records"))
    with pytest.raises(UserError, match="made by an earlier version"):
        verify(copy)


def test_an_image_that_says_it_is_huge_is_reported(copy):
    file = min((copy / "images" / "train").glob("*.png"))
    content = bytearray(file.read_bytes())
    struct.pack_into(">II", content, 16, 100_000, 100_000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    file.write_bytes(content)
    assert any(file.name in fault and "900 million pixels" in fault for fault in verify(copy).faults)
