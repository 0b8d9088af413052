"""`dataengine run verify` against generated tamperings: each that matters is reported, without a crash or a hang."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tampering
from tampering import Tampering, examine, few_of, of_folder, of_json

from dataengine.data import coco, formats
from dataengine.data.layout import Acquisition, Dataset
from dataengine.engine import verify as verifying
from dataengine.engine import verify_derived
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder, record_files
from dataengine.engine.verify import fingerprint, verify

MIN_TAMPERINGS = 107  # as many as were tried when 31 of them were missed


@pytest.fixture(scope="module")
def whole(toy_recipe, toy_dataset, tmp_path_factory) -> Path:
    """A run of three images with ignored regions, acquisition, sources and licences."""
    work = tmp_path_factory.mktemp("tampering")
    dataset = formats.read(toy_dataset)
    acquisition = Acquisition(altitude_m=60, gsd_m=0.1, camera_angle_deg=90, night=False, date="2025-03-04")
    samples = [
        replace(
            sample, source="toy camera", license="CC0-1.0",
            layout=replace(sample.layout, acquisition=acquisition, ignored=[[80, 80, 12, 9, 0.3]]),
        )
        for sample in dataset
    ]  # fmt: skip
    coco.write(Dataset(dataset.classes, samples, dataset.kind, "toy"), work / "data")
    recipe = toy_recipe.model_copy(update={"data": work / "data", "n": 3, "shard_size": 2})
    out = synth(recipe, work / "run").out
    records = list(RunFolder(out).records())
    assert len({record.accepted for record in records}) == 2, "dropped images are part of it, too"
    assert all(len(record.labels.ignored) and record.labels.acquisition.gsd_m for record in records)
    return out


def is_reported(run: Path) -> bool:
    return bool(verify(run).faults)


def does_not_matter(one: Tampering) -> str:
    harmless = {"file deleted", "file emptied", "file cut in half", "bytes appended", "bit flipped"}
    if one.file == "trace.json" and one.kind in harmless:
        return "trace.json holds wall-clock times, which nothing follows from"
    if one.file == ".lock" and one.kind in {"file deleted", "file emptied", "file cut in half"}:
        return "the lock is an empty file, which copies without hidden files lack"
    return ""


def test_a_run_as_it_was_made_has_no_fault(whole):
    found = verify(whole)
    assert (found.faults, found.notes) == ([], [])


def test_every_tampering_that_matters_is_reported(whole, tmp_path):
    chosen = [*few_of(of_folder(whole)), *ATTACKS]
    outcome = examine(whole, chosen, tmp_path, is_reported, does_not_matter)
    print(outcome)
    assert outcome.matter >= MIN_TAMPERINGS
    assert outcome.all_reported, str(outcome)


@pytest.mark.long
def test_every_tampering_of_every_field_is_reported(whole, tmp_path):
    outcome = examine(whole, of_folder(whole), tmp_path, is_reported, does_not_matter)
    print(outcome)
    assert outcome.matter > 1000
    assert outcome.all_reported, str(outcome)


def edit(file: Path, change, indent: int | None = 2) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=indent) + ("\n" if indent else ""))


def without_data_sets(out: Path, *files: str, key: bool = True) -> None:
    for name in ("dota", "coco"):
        shutil.rmtree(out / name)
    for name in files:
        edit(out / name, lambda content: content.update(datasets=False) if key else content.pop("datasets"))


def without_thresholds(out: Path, key: bool) -> None:
    edit(out / "calibration.json", lambda content: content.update(thresholds=dict.fromkeys(content["thresholds"], 0.0)))
    edit(out / "recipe.json", lambda content: content.update(calibration=None) if key else content.pop("calibration"))


def without_crowds(out: Path) -> None:
    def change(content: dict) -> None:
        assert any(entry["iscrowd"] for entry in content["annotations"])
        content["annotations"] = [entry for entry in content["annotations"] if not entry["iscrowd"]]

    edit(out / "coco/annotations/train.json", change, None)


def rewritten(out: Path, line: int, change) -> None:
    """A record changed consistently: in its shard with a new checksum, and in the manifest."""
    run = RunFolder(out)
    lines = run.manifest.read_text().splitlines()
    record = json.loads(lines[line])
    shard = out / Path(record["image"]).parent
    lines[line] = json.dumps(change(record))
    run.manifest.write_text("".join(f"{line}\n" for line in lines))
    held = (shard / "records.jsonl").read_text().splitlines()
    held[line - 2 * int(shard.name)] = lines[line]
    for name, content in record_files(held).items():
        (shard / name).write_bytes(content)


def kept_as_number(record: dict) -> dict:
    return {**record, "verdict": {**record["verdict"], "kept": int(record["verdict"]["kept"])}}


def swapped_images(out: Path) -> None:
    a, b = (out / "shards/000000" / f"0000000{i}.png" for i in (0, 1))
    tampering._swap(a, b)


ATTACKS = [
    Tampering("attack", "", what, apply)
    for what, apply in {
        "data sets deleted, the report says it had none": lambda f: without_data_sets(f, "report.json"),
        "data sets deleted, report and recipe say it had none": lambda f: without_data_sets(
            f, "report.json", "recipe.json"
        ),
        "data sets deleted, nothing says that it had any": lambda f: without_data_sets(
            f, "report.json", "recipe.json", key=False
        ),
        "data sets deleted": without_data_sets,
        "thresholds zeroed, their hash null": lambda f: without_thresholds(f, True),
        "thresholds zeroed, their hash removed": lambda f: without_thresholds(f, False),
        "crowds removed": without_crowds,
        "kept: 1, consistently": lambda f: rewritten(f, 0, kept_as_number),
        "images swapped": swapped_images,
    }.items()
]


def test_labels_that_are_rewritten_consistently_differ_from_the_data_sets(whole, tmp_path):
    """Shard, checksum and manifest agree; DOTA, COCO, sheets and report do not."""
    at = next(i for i, record in enumerate(RunFolder(whole).records()) if record.accepted and len(record.labels))
    record = json.loads((whole / "manifest.jsonl").read_text().splitlines()[at])
    chosen = [
        Tampering(kind, f"record of attempt {at}", f"labels{place}",
                  lambda f, labels=labels: rewritten(f, at, lambda record: {**record, "labels": labels}))
        for kind, place, labels in of_json(record["labels"])
        if kind not in ("field added", "flag became a number", "number became text")
    ]  # fmt: skip
    outcome = examine(whole, chosen[::4], tmp_path, is_reported)
    print(outcome)
    assert outcome.matter > 30
    assert outcome.all_reported, str(outcome)


def test_what_is_rewritten_consistently_and_shows_nowhere_changes_the_fingerprint(whole, tmp_path):
    """The limit of what a folder can say about itself (docs/trust.md), and the control: an equal copy has an equal
    one."""
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    assert fingerprint(RunFolder(copy)) == fingerprint(RunFolder(whole)) == verify(whole).fingerprint
    rewritten(copy, 0, lambda record: {**record, "layout_from": ["another image"]})
    found = verify(copy)
    assert found.faults == []
    assert found.fingerprint != verify(whole).fingerprint


@pytest.mark.parametrize("mechanism", ["differences", "_is_as_saved", "_compare_recipe"])
def test_without_a_mechanism_tamperings_are_missed(whole, tmp_path, monkeypatch, mechanism):
    """Mutation: what is compared not at all is not reported."""
    off = {"differences": lambda *a: [], "_is_as_saved": lambda *a: True, "_compare_recipe": lambda *a: None}
    files = {"differences": "coco/", "_is_as_saved": "calibration.json", "_compare_recipe": "recipe.json"}
    module = verify_derived if mechanism == "differences" else verifying
    monkeypatch.setattr(module, mechanism, off[mechanism])
    chosen = [one for one in of_folder(whole) if one.file.startswith(files[mechanism])]
    kinds = {"number changed", "text changed", "text became a path", "bytes appended", "element doubled"}
    outcome = examine(whole, [one for one in chosen if one.kind in kinds][:6], tmp_path, is_reported)
    assert outcome.missed
