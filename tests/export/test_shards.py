"""Few large files: what is read back from them is what lies in the run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine import geometry
from dataengine.data import coco, formats
from dataengine.data.layout import Dataset, Sample
from dataengine.engine.record import Record
from dataengine.errors import UserError
from dataengine.export.shards import labels_of, write_shards
from dataengine.judge.verdict import Verdict
from dataengine.render.canvas import Provenance

CLASSES = ("car", "van")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A labelled data set of twelve images, one of them empty, in a folder with a point in its name."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(3)
    samples = []
    for i in range(12):
        layout = random_layout(rng)
        layout = layout.select(np.arange(len(layout)) if i else np.zeros(0, int))
        file = root / f"{i}.png"
        Image.fromarray(paint(layout, rng)).save(file)
        samples.append(Sample(f"v1.5/{i}", file, layout))
    coco.write(Dataset(CLASSES, samples, "obb", name="toy"), root / "coco")
    return root / "coco"


def same(labels: dict, sample: Sample) -> None:
    assert labels["objects"]["category"] == sample.layout.labels.tolist()
    corners = np.array(labels["objects"]["obb"], np.float32).reshape(-1, 4, 2)
    assert np.allclose(corners, geometry.to_corners(sample.layout.boxes), atol=1e-3)
    assert labels["objects"]["difficult"] == sample.layout.difficult.tolist()


def test_webdataset_reads_the_same_images_boxes_and_classes(source, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    files = write_shards(source, tmp_path / "tar", "webdataset", megabytes=0.05)
    assert len(files) > 1
    assert files[0].name == f"train-00000-of-{len(files):05d}.tar"
    url = str(tmp_path / "tar" / f"train-{{00000..{len(files) - 1:05d}}}-of-{len(files):05d}.tar")
    read = list(webdataset.WebDataset(url, shardshuffle=False).decode("pil").to_tuple("png", "json"))
    samples = formats.read(source).samples
    assert len(read) == len(samples) == 12
    for (picture, labels), sample in zip(read, samples, strict=True):
        assert labels["name"] == sample.name
        with Image.open(sample.image) as image:
            assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(image.convert("RGB")))
        same(labels, sample)
        assert labels["objects"]["category_name"] == sample.layout.names()


def test_datasets_reads_parquet_as_images_with_named_classes(source, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    files = write_shards(source, tmp_path / "parquet", "parquet", megabytes=0.05)
    assert len(files) > 1
    read = datasets.load_dataset(str(tmp_path / "parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    samples = formats.read(source).samples
    assert len(read) == len(samples)
    category = read.features["objects"]["category"].feature
    assert category.names == list(CLASSES)
    for row, sample in zip(read, samples, strict=True):
        with Image.open(sample.image) as image:
            assert np.array_equal(np.asarray(row["image"].convert("RGB")), np.asarray(image.convert("RGB")))
        same(row, sample)
        assert row["name"] == sample.name


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_the_same_data_make_the_same_files_with_their_checksums(source, tmp_path, form):
    pytest.importorskip("webdataset" if form == "webdataset" else "datasets")
    first = write_shards(source, tmp_path / "first", form, megabytes=0.05)
    second = write_shards(source, tmp_path / "second", form, megabytes=0.05)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    content = json.loads((tmp_path / "first" / "dataset.json").read_text())
    assert content["classes"] == list(CLASSES)
    assert [one["sha256"] for one in content["files"]] == [hashlib.sha256(f.read_bytes()).hexdigest() for f in first]
    assert sum(one["images"] for one in content["files"]) == content["images"] == 12
    assert {one["images"] for one in content["files"][:-1]} == {content["files"][0]["images"]}, "evenly filled"


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UserError, match="exists already"):
        write_shards(source, tmp_path / "full", "webdataset")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.json").write_text('{"recipe": {}, "parts": {}}')
    with pytest.raises(UserError, match="the run is not finished"):
        write_shards(tmp_path / "unfinished", tmp_path / "out", "webdataset")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "unfinished"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record | {"image": "../secret.png"}, "leads out of"),
        (lambda record: record | {"image": "/etc/passwd"}, "leads out of"),
        (lambda record: record | {"labels": {**record["labels"], "boxes": [[1]]}}, "no record of an image"),
        (lambda record: {"verdict": {"kept": True}}, "no record of an image"),
        (lambda record: [record], "no record of an image"),
    ],
)
def test_a_manifest_from_elsewhere_packs_no_other_file_and_is_refused_with_the_damaged_line(change, said, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    Image.new("RGB", (64, 64)).save(run / "a.png")
    layout = random_layout(np.random.default_rng(0), 64)
    verdict = Verdict(True, "", [], [], [])
    made = Record(0, 7, "a.png", "0" * 64, Provenance("generated", seed=7), (), 0, layout, layout, verdict)
    record = json.loads(made.to_json())
    stored = {"recipe": {"dataset": "toy", "data": None}, "parts": {}, "classes": list(layout.classes)}
    (run / "recipe.json").write_text(json.dumps(stored))
    (run / "manifest.jsonl").write_text(json.dumps(record) + "\n")
    assert write_shards(run, tmp_path / "sound", "webdataset")
    (run / "manifest.jsonl").write_text(json.dumps(change(record)) + "\n")
    with pytest.raises(UserError, match=rf"manifest\.jsonl:1: .*{said}"):
        write_shards(run, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()


def test_labels_name_corners_and_upright_boxes_in_pixels():
    from dataengine.data.layout import Layout

    layout = Layout([[10, 20, 8, 4, 0]], [1], CLASSES, (64, 32), difficult=[True])
    labels = labels_of(Sample("a", Path("a.png"), layout, "somebody", "CC0"))
    assert labels["objects"]["bbox"] == [[6, 18, 8, 4]]
    assert sorted(zip(labels["objects"]["obb"][0][::2], labels["objects"]["obb"][0][1::2], strict=True)) == [
        (6, 18), (6, 22), (14, 18), (14, 22),
    ]  # fmt: skip
    assert (labels["width"], labels["height"], labels["source"], labels["license"]) == (64, 32, "somebody", "CC0")
    assert labels["objects"]["difficult"] == [True]
