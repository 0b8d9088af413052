"""`dataengine release verify` against generated tamperings: each that matters is reported, without a crash or a hang.

After each, whoever tampers writes the checksums again, and in some the archives, too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tampering import Tampering, examine, few_of, of_folder

from dataengine.export.release import verify as verifying
from dataengine.export.release.archives import FOLDER, SUMS, files_below, write_archives, write_sums
from dataengine.export.release.make import Settings, make
from dataengine.export.release.verify import verify

MIN_TAMPERINGS = 114  # as many as were tried when 39 of them were missed, and 7 hung or crashed


@pytest.fixture(scope="module")
def whole(painted_run, tmp_path_factory) -> Path:
    settings = Settings(
        "toy-cars", "cc-by-4.0", val=0.2, formats="dota,coco,yolo-obb", archive_size="100kB", source_license="cc0-1.0",
        group=r"\d+", version="1.2.3", date="2026-11-25",
    )  # fmt: skip
    return make(painted_run, tmp_path_factory.mktemp("tampering") / "toy-cars", settings).folder


def is_reported(folder: Path) -> bool:
    return bool(verify(folder).faults)


def with_new_checksums(folder: Path) -> None:
    if not (folder / SUMS).is_symlink() and (folder / SUMS).is_file() and not (folder / FOLDER).is_symlink():
        write_sums(folder, [name for name in files_below(folder) if not (folder / name).is_symlink()])


def with_new_archives(folder: Path) -> None:
    with_new_checksums(folder)
    if (folder / FOLDER).is_dir():
        shutil.rmtree(folder / FOLDER)
        write_archives(folder, "toy-cars", 100_000)


def in_checksums(one: Tampering) -> str:
    return "the checksums are written again" if one.file == SUMS and "became" not in one.kind else ""


def test_a_release_as_it_was_made_has_no_fault(whole):
    found = verify(whole)
    assert (found.faults, found.notes) == ([], [])


def test_every_tampering_that_matters_is_reported(whole, tmp_path):
    outcome = examine(whole, few_of(of_folder(whole)), tmp_path, is_reported, in_checksums, with_new_checksums)
    print(outcome)
    assert outcome.matter >= MIN_TAMPERINGS
    assert outcome.all_reported, str(outcome)


def test_attacks_on_checksums_and_archives_are_reported(whole, tmp_path):
    outcome = examine(whole, ATTACKS, tmp_path, is_reported)
    print(outcome)
    assert outcome.matter == len(ATTACKS)
    assert outcome.all_reported, str(outcome)


@pytest.mark.long
def test_every_tampering_of_every_field_is_reported(whole, tmp_path):
    outcome = examine(whole, of_folder(whole), tmp_path, is_reported, in_checksums, with_new_checksums)
    print(outcome)
    assert outcome.matter > 1000
    assert outcome.all_reported, str(outcome)


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2) + "\n")


def consistently(change):
    """A change of release.json; then the card names its new checksum, and checksums and archives are made again."""

    def apply(folder: Path) -> None:
        file, card = folder / "release.json", folder / "README.md"
        before = hashlib.sha256(file.read_bytes()).hexdigest()
        edit(file, change)
        after = hashlib.sha256(file.read_bytes()).hexdigest()
        card.write_text(card.read_text().replace(before, after))
        with_new_archives(folder)

    return apply


def without_formats(folder: Path) -> None:
    for name in ("labelTxt", "labels", "annotations"):
        shutil.rmtree(folder / name)
    consistently(lambda content: content.update(formats=[]))(folder)


def renamed_into(folder: Path) -> None:
    edit(folder / "release.json", lambda content: content.update(name=str(folder.parent / "elsewhere")))
    with_new_archives(folder)


def without_archives(folder: Path) -> None:
    shutil.rmtree(folder / FOLDER)


def other_record(folder: Path) -> None:
    """The first record changed, and its checksum in release.json."""
    file = folder / "records/train.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    record = json.loads(first)
    record["labels"]["boxes"][0][0] += 3
    file.write_text(json.dumps(record) + "\n" + "".join(rest))
    value = hashlib.sha256(file.read_bytes()).hexdigest()
    consistently(lambda content: content["records"].update(train=value))(folder)


def moved_to_val(folder: Path) -> None:
    """A record of train in val, too, as a leak would have it; all checksums are right."""
    train, val = folder / "records/train.jsonl", folder / "records/val.jsonl"
    lines = sorted(
        [*val.read_text().splitlines(), train.read_text().splitlines()[0]], key=lambda x: json.loads(x)["index"]
    )
    val.write_text("".join(f"{line}\n" for line in lines))
    value = hashlib.sha256(val.read_bytes()).hexdigest()
    consistently(lambda content: content["records"].update(val=value))(folder)


ATTACKS = [
    Tampering("attack", "", what, apply)
    for what, apply in {
        "no formats": without_formats,
        "a name that is an absolute path": renamed_into,
        "archives deleted": without_archives,
        "archives of another size": lambda f: edit(f / "release.json", lambda c: c.update(archive_size=400_000)),
        "an unlisted archive": lambda f: (f / FOLDER / "more.tar").write_bytes(b""),
        "a record changed": other_record,
        "a record in both splits": moved_to_val,
        "another class order": consistently(lambda c: c.update(classes=c["classes"][::-1])),
        "another licence": consistently(lambda c: c.update(license="MIT")),
        "another licence of a source": consistently(lambda c: c["sources"][0].update(license="CC-BY-NC-4.0")),
        "a hanging expression": consistently(lambda c: c.update(group="(a+)+$")),
        "no expression": consistently(lambda c: c.update(group="(")),
        "fewer objects": consistently(lambda c: c["objects"]["train"].update(car=1)),
        "no limits": consistently(lambda c: c.update(limits=[])),
        "another kind": consistently(lambda c: c.update(kind="hbb")),
        "other models": consistently(lambda c: c["parts"].update(model="0")),
        "another version": consistently(lambda c: c.update(dataengine="9.9.9")),
        "other libraries": lambda f: edit(f / "release.json", lambda c: c["libraries"].update(jinja2="1", pillow="1")),
        "checksums of other files": lambda f: (f / SUMS).write_text(f"{'0' * 64}  /etc/passwd\n"),
        "checksums reversed": lambda f: (f / SUMS).write_text(
            "".join((f / SUMS).read_text().splitlines(keepends=True)[::-1])
        ),
        "a checksum changed": lambda f: (f / SUMS).write_text("f" + (f / SUMS).read_text()[1:]),
        "a folder in place of the checksums": lambda f: ((f / SUMS).unlink(), (f / SUMS).mkdir()),
        "a checksum deleted": lambda f: (f / SUMS).write_text((f / SUMS).read_text().partition("\n")[2]),
    }.items()
]  # fmt: skip


def test_what_is_made_again_to_fit_changes_the_fingerprint(whole, tmp_path):
    """The limit of what a folder can say about itself (docs/trust.md): this is a release without archives."""
    copy = tmp_path / whole.name
    shutil.copytree(whole, copy)
    assert verify(copy).fingerprint == verify(whole).fingerprint, "control"
    without_archives(copy)
    consistently(lambda content: content.update(archive_size=None))(copy)
    found = verify(copy)
    assert found.faults == []
    assert found.fingerprint != verify(whole).fingerprint


@pytest.mark.parametrize("mechanism", ["_derived", "_image_fault", "_archives"])
def test_without_a_mechanism_tamperings_are_missed(whole, tmp_path, monkeypatch, mechanism):
    """Mutation: what is compared not at all is not reported."""
    off = {"_derived": lambda *a: [], "_image_fault": lambda *a: "", "_archives": lambda *a: []}
    files = {"_derived": "annotations/", "_image_fault": "images/train/0", "_archives": "archives/toy"}
    monkeypatch.setattr(verifying, mechanism, off[mechanism])
    chosen = [one for one in of_folder(whole) if one.file.startswith(files[mechanism])]
    kinds = {"number changed", "text changed", "bit flipped", "bytes appended", "element doubled"}
    chosen = [one for one in chosen if one.kind in kinds][:6]
    outcome = examine(
        whole,
        chosen,
        tmp_path,
        is_reported,
        afterwards=with_new_archives if "arch" not in mechanism else with_new_checksums,
    )
    assert outcome.missed
