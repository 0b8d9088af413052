"""Every change of a release is found."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import time
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
    file.write_text(json.dumps(value))


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


# each change, and the fault that verify reports even after the checksums are rewritten
DAMAGES = {
    "mark removed": (without_mark, "no mark says that the image is synthetic"),
    "pixel changed": (saved_again, "not the image that the run generated and filtered"),
    "image cut off": (lambda f: cut_off(first_image(f)), "the image is damaged"),
    "image lost": (lambda f: first_image(f).unlink(), "is missing, and metadata.jsonl names it"),
    "image added": (lambda f: shutil.copy(first_image(f), f / "images/train/77.png"), "77.png is not in metadata"),
    "image in both splits": (moved_to_val, "train and val both have images made from"),
    "seed changed": (lambda f: edit_line(f, lambda v: v.update(seed=5)), "the image says seed"),
    "licence changed": (lambda f: edit_line(f, lambda v: v.update(license="CC0-1.0")), "the image says license"),
    "box moved in DOTA": (lambda f: edit(first_label(f, "labelTxt"), other_box), "object 1 has another box"),
    "difficult changed in DOTA": (lambda f: edit(first_label(f, "labelTxt"), other_difficult), "other difficult"),
    "label file lost": (lambda f: first_label(f, "labelTxt").unlink(), "has no labels"),
    "class changed in COCO": (lambda f: edit_json(f / "annotations/train.json", other_class), "of other classes"),
    "object lost in YOLO": (
        lambda f: edit(first_label(f, "labels"), lambda t: t.partition("\n")[2]), "objects of other classes"
    ),
    "count changed": (lambda f: edit_json(f / "release.json", lambda v: v["splits"].update(train=99)), "says 99"),
    "models changed": (lambda f: edit_json(f / "release.json", lambda v: v["parts"].update(model="0")), "other models"),
    "Croissant broken": (lambda f: edit_json(f / "croissant.json", other_source), "croissant.json: "),
    "metadata no JSON": (lambda f: edit(f / "images/train/metadata.jsonl", lambda t: t[:30]), "is damaged"),
}  # fmt: skip
CHECKSUM_FAULTS = ("checksum differs", "is missing", "added later", "damaged")


@pytest.fixture
def copy(released, tmp_path) -> Path:
    shutil.copytree(released, tmp_path / "toy-cars")
    return tmp_path / "toy-cars"


def test_a_valid_release_has_no_fault_and_everything_is_checked(released):
    found = verify(released)
    assert found.faults == []
    assert found.images == len(list(released.glob("images/*/*.png")))
    assert set(found.checked) == {
        "checksums", "counts", "marks in the images", "splits", "labels in DOTA", "labels in COCO", "labels in YOLO",
        "Croissant", "archives",
    }  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_change_is_reported_also_after_the_checksums_are_rewritten(copy, name):
    damage, said = DAMAGES[name]
    shutil.rmtree(copy / "archives")
    damage(copy)
    assert any(words in fault for fault in verify(copy).faults for words in CHECKSUM_FAULTS)
    write_sums(copy, files_below(copy))
    assert any(said in fault for fault in verify(copy).faults), verify(copy).faults


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "its checksum differs"),
    ],
)
def test_an_archive_that_was_touched_is_reported(copy, damage, said):
    archive = min((copy / "archives").glob("*.tar"))
    damage(archive)
    assert [said in fault and archive.name in fault for fault in verify(copy).faults] == [True]


def test_an_archive_that_holds_something_else_than_the_folder_is_reported(copy):
    (copy / "README.md").write_text("another card")
    write_sums(copy, files_below(copy))
    faults = verify(copy).faults
    assert any("has another toy-cars/README.md than the folder" in fault for fault in faults)


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
    assert "no mark says that the image is synthetic" in done.stdout
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


def repacked(copy: Path, change, form: str = "w") -> str:
    """The first fault of an archive whose first member was changed, under a checksum that is right."""
    file = min((copy / "archives").glob("*.tar"))
    packed = io.BytesIO()
    with tarfile.open(file) as before, tarfile.open(fileobj=packed, mode=form) as after:
        for i, member in enumerate(before.getmembers()):
            content = before.extractfile(member)
            after.addfile(change(member) if i == 0 else member, content)
    file.write_bytes(packed.getvalue())
    write_sums(copy / "archives", [f.name for f in sorted((copy / "archives").glob("*.tar"))])
    return verify(copy).faults[0]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "toy-cars/../../outside"])
def test_a_path_that_leads_out_of_an_archive_is_reported_and_nothing_is_unpacked(copy, name):
    before = sorted(copy.parent.rglob("*"))
    assert f"has another {name} than the folder" in repacked(copy, lambda member: member.replace(name=name))
    assert sorted(copy.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_archive_with_a_link_or_a_device_is_reported(copy, kind):
    def change(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.type, member.linkname, member.size = kind, "../../etc/passwd", 0
        return member

    assert "is no file" in repacked(copy, change)


def test_an_archive_of_holes_which_stand_for_a_petabyte_is_reported_at_once(copy):
    def change(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9" * 15, "GNU.sparse.numblocks": "1"}
        return member

    started = time.perf_counter()
    assert "is no file" in repacked(copy, change)
    assert time.perf_counter() - started < 20


def test_a_compressed_archive_is_refused_since_it_may_be_a_bomb(copy):
    assert "no whole archive" in repacked(copy, lambda member: member, form="w:gz")


def test_an_image_that_says_it_is_huge_is_reported(copy):
    file = min((copy / "images" / "train").glob("*.png"))
    content = bytearray(file.read_bytes())
    struct.pack_into(">II", content, 16, 100_000, 100_000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    file.write_bytes(content)
    assert any(file.name in fault and "2^30 pixels" in fault for fault in verify(copy).faults)


@pytest.mark.parametrize("name", ["../../../secret.png", "/etc/passwd", "a" * 300])
def test_metadata_and_checksums_that_name_files_elsewhere_are_reported(copy, name):
    file = copy / "images" / "train" / "metadata.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(json.dumps(json.loads(first) | {"file_name": name}) + "\n" + "".join(rest))
    with open(copy / "archives" / "SHA256SUMS", "a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    faults = " ".join(verify(copy).faults)
    assert faults.count("in another folder") + faults.count("is missing") >= 2
