"""`dataengine data sample`: drawn by the packaged models, labelled, and marked as synthetic in every file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.errors import UserError
from dataengine.export.release.marks import GENERATED, read_mark


def sample(*words: str):
    return CliRunner().invoke(app, ["data", "sample", *words])


@pytest.mark.slow
def test_a_sample_is_a_labelled_data_set_of_which_every_file_says_that_it_is_synthetic(tmp_path, monkeypatch):
    monkeypatch.delenv("DATAENGINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    result = sample("--out", "sample", "--n", "6")
    assert result.exit_code == 0, result.output
    assert "sample: train 4 images, val 2 images" in result.output
    assert "all of them are synthetic" in result.output
    dataset = formats.read("sample")
    assert (len(dataset), dataset.problems, dataset.kind) == (6, [], "obb")
    assert formats.splits("sample") == ("train", "val")
    assert sum(len(s.layout) for s in dataset) >= 6
    assert {s.source for s in dataset} == {"synthetic: dataengine, packaged models of HIT-UAV"}
    files = sorted(Path("sample").rglob("*.png"))
    assert len(files) == 6
    for file in files:
        mark = read_mark(file.read_bytes())
        assert mark.source_type == GENERATED
        assert mark.details["synthetic"] is True
        with Image.open(file) as image:
            assert image.size == (256, 256)
    assert "No image is real" in Path("sample/README.md").read_text()
    assert '"description": "synthetic sample of HIT-UAV"' in Path("sample/annotations/train.json").read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["sample"], "nothing else is left"


def test_a_folder_with_files_is_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "mine.txt").touch()
    result = sample("--out", str(tmp_path))
    assert isinstance(result.exception, UserError)
    assert "is not an empty folder" in str(result.exception)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
