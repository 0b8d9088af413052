"""The parts of a data set: its own splits, or divided ones without leaks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_scenes import scenes

from dataengine.data import formats
from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.improve.parts import write_parts


def renamed(dataset: Dataset, names: list[str]) -> Dataset:
    return replace(dataset, samples=[replace(s, name=n) for s, n in zip(dataset, names, strict=True)])


def written(folder: Path, **splits: Dataset) -> Path:
    for name, dataset in splits.items():
        formats.write(dataset, folder, "coco", split=name)
    return folder


def names(out: Path) -> dict[str, set[str]]:
    return {part: {s.name for s in formats.read(out / part)} for part in ("train", "val", "test")}


def test_splits_of_the_data_set_are_taken_as_they_are(tmp_path):
    parts = {
        name: scenes(tmp_path / "raw", n, seed)
        for seed, (name, n) in enumerate({"train": 6, "val": 3, "test": 2}.items())
    }
    notes = write_parts(written(tmp_path / "data", **parts), tmp_path / "out")
    assert names(tmp_path / "out") == {name: {s.name for s in part} for name, part in parts.items()}
    assert "train and val and test are the data set's own" in notes
    assert "val: 3 images, 9 objects" in notes


def test_parts_that_data_split_wrote_are_taken(tmp_path):
    parts = {name: scenes(tmp_path / "raw", 4, seed) for seed, name in enumerate(("train", "val", "test"))}
    for name, part in parts.items():
        formats.write(part, tmp_path / "parts" / name, "coco", split=name)
    write_parts(tmp_path / "parts", tmp_path / "out")
    assert names(tmp_path / "out") == {name: {s.name for s in part} for name, part in parts.items()}


def test_the_part_to_calibrate_on_is_the_validation_part_and_others_are_named(tmp_path):
    """As `data split --parts train=50,calibration=30,test=10,spare=10` writes them."""
    parts = {n: scenes(tmp_path / "raw", 4, seed) for seed, n in enumerate(("train", "calibration", "test", "spare"))}
    for name, part in parts.items():
        formats.write(part, tmp_path / "parts" / name, "coco", split=name)
    notes = write_parts(tmp_path / "parts", tmp_path / "out")
    found = names(tmp_path / "out")
    assert found["val"] == {s.name for s in parts["calibration"]}
    assert found["train"] == {s.name for s in parts["train"]}
    assert [note for note in notes if "not used" in note] == [
        f"{tmp_path / 'parts/spare'} is not used: improve uses one part each of train, val, test"
    ]


def test_a_missing_part_is_divided_from_the_training_images_and_the_test_split_is_not_touched(tmp_path):
    train, test = scenes(tmp_path / "raw", 20, 0), scenes(tmp_path / "raw", 5, 1)
    write_parts(written(tmp_path / "data", train=train, test=test), tmp_path / "out")
    found = names(tmp_path / "out")
    assert [len(found[part]) for part in found] == [16, 4, 5]
    assert found["test"] == {s.name for s in test}
    assert found["train"] | found["val"] == {s.name for s in train}


def test_images_of_one_photograph_stay_in_one_part(tmp_path):
    alike = [f"photo{i // 3}_{i % 3}" for i in range(75)]
    dataset = renamed(scenes(tmp_path / "raw", 75, 0), alike)
    notes = write_parts(written(tmp_path / "data", all=dataset), tmp_path / "out")
    found = names(tmp_path / "out")
    photographs = [{name.partition("_")[0] for name in part} for part in found.values()]
    assert sum(map(len, photographs)) == 25
    assert any("stay together" in note for note in notes)
    other = renamed(dataset, [f"{name}x" for name in alike])  # names that suggest nothing
    write_parts(written(tmp_path / "other", all=other), tmp_path / "control")
    divided = [{name.partition("_")[0] for name in part} for part in names(tmp_path / "control").values()]
    assert sum(map(len, divided)) > 25


def test_equal_images_in_two_parts_stay_in_the_later_one(tmp_path):
    train, test = scenes(tmp_path / "raw", 12, 0), scenes(tmp_path / "raw", 3, 1)
    copy = tmp_path / "raw" / "copy.png"
    shutil.copy(test.samples[0].image, copy)
    leaked = replace(train, samples=[*train.samples, replace(test.samples[0], name="copy", image=copy)])
    val = scenes(tmp_path / "raw", 3, 2)
    notes = write_parts(written(tmp_path / "data", train=leaked, val=val, test=test), tmp_path / "out")
    found = names(tmp_path / "out")
    assert (len(found["train"]), len(found["test"])) == (12, 3)
    assert "copy" not in found["train"]
    assert any(note.startswith("1 images of train are left out") for note in notes)


def test_a_part_without_objects_is_refused_and_nothing_is_left(tmp_path):
    parts = {name: scenes(tmp_path / "raw", 4, seed) for seed, name in enumerate(("train", "val", "test"))}
    bare = [replace(s, layout=s.layout.select([])) for s in parts["val"]]
    data = written(tmp_path / "data", **(parts | {"val": replace(parts["val"], samples=bare)}))
    with pytest.raises(UserError, match=r"the part val \(4 images\) has no labelled object"):
        write_parts(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
