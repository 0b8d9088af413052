"""Releases, exports and trainings write nothing outside of their folder (the kinds and their control: test_links)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from test_links import names_of, strike

from dataengine.data import formats
from dataengine.export.release.make import make
from dataengine.export.shards import write_shards


def test_a_release_writes_nothing_outside(painted_run, settings, tmp_path):
    command = lambda out: make(painted_run, out, settings)  # noqa: E731
    out = tmp_path / "a" / "toy-cars"
    names = names_of(command, out)
    assert any(name.name.endswith(".partial") for name in names)
    beside = [name for name in names if len(name.parts) == 1] + [Path("toy-cars")]
    assert strike(command, out, beside, tmp_path, finished=False)


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_shards_write_nothing_outside(form, painted_run, tmp_path):
    pytest.importorskip({"webdataset": "webdataset", "parquet": "datasets"}[form])
    command = lambda out: write_shards(painted_run, out, form)  # noqa: E731
    names = names_of(command, tmp_path / "a" / "shards")
    beside = [name for name in names if len(name.parts) == 1] + [Path("shards")]
    assert strike(command, tmp_path / "a" / "shards", beside, tmp_path, finished=False)


@pytest.mark.parametrize("layout", ["dota", "coco", "yolo"])
def test_a_second_split_of_a_data_set_is_not_written_through_a_link(layout, painted_run, tmp_path):
    dataset = formats.read(painted_run / "coco")
    first, out = tmp_path / "a" / "data", None
    formats.write(dataset, first, layout, split="train")

    def command(out: Path) -> None:
        formats.write(dataset, out, layout, split="val")

    import shutil

    shutil.copytree(first, tmp_path / "b" / "data")
    names = [name for name in names_of(command, tmp_path / "b" / "data") if ".partial-val" not in name.parts[1:-1]]
    top = [name for name in names if len(name.parts) == 2]
    top += [Path("data") / entry.name for entry in first.iterdir()]
    assert out is None
    assert strike(command, first, sorted(set(top)), tmp_path, finished=True)
