from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_world import toy_world

from dataengine import geometry
from dataengine.data import dota, formats
from dataengine.data.layout import Acquisition
from dataengine.data.tile import tile
from dataengine.errors import UserError
from dataengine.world.blocks import BlockFolder
from dataengine.world.export import NAME, Placement, labels_of, write_geojson, write_geotiff

SIZE, BLOCK = 208, 96  # three rows and columns of blocks, the last ones smaller


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> BlockFolder:
    folder = BlockFolder(tmp_path_factory.mktemp("made") / "blocks", SIZE, BLOCK)
    folder.make(toy_world())
    return folder


@pytest.fixture(scope="module")
def labels(made):
    return labels_of(list(made.objects()), ("car", "van"), "obb", Acquisition(gsd_m=0.5), SIZE)


class Killed:
    """A world whose process ends when a third region is asked for."""

    def __init__(self):
        self.world, self.asked = toy_world(), 0

    def prepare(self, rects):
        self.world.prepare(rects)

    def region(self, *place):
        self.asked += 1
        if self.asked == 3:
            raise KeyboardInterrupt
        return self.world.region(*place)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_interrupted_world_is_continued_to_the_same_bytes(made, tmp_path):
    again = BlockFolder(tmp_path / "blocks", SIZE, BLOCK)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            again.make(Killed())
    assert 4 <= len(contents(again.folder)) < 18
    last = max(made.folder.glob("*.png")).name
    assert last not in contents(again.folder)
    (again.folder / last).write_bytes(b"half")  # a picture without a record counts for nothing
    again.make(toy_world())
    assert contents(again.folder) == contents(made.folder)


def test_each_visible_object_is_in_one_block(made):
    world = toy_world()
    whole = world.region(0, 0, SIZE, SIZE)
    ids = [tuple(entry["id"]) for entry in made.objects()]
    assert len(ids) == len(set(ids))
    assert set(ids) == {tuple(key) for key in whole.objects.ids.tolist()}
    beyond = ((whole.objects.boxes[:, :2] < 0) | (whole.objects.boxes[:, :2] >= SIZE)).any(1)
    assert beyond.any(), "some have their centre outside"


def test_a_changed_picture_is_reported(made, tmp_path):
    broken = BlockFolder(tmp_path, SIZE, BLOCK)
    for name, content in contents(made.folder).items():
        (tmp_path / name).write_bytes(content)
    place = broken.places()[0]
    (tmp_path / "00000_00000.png").write_bytes((tmp_path / "00000_00001.png").read_bytes())
    with pytest.raises(UserError, match="not what was written"):
        broken.picture(place)


def test_labels_of_the_whole_are_those_of_the_world(made, labels):
    whole = toy_world().region(0, 0, SIZE, SIZE)
    position = {tuple(key): k for k, key in enumerate(whole.objects.ids.tolist())}
    order = [position[tuple(entry["id"])] for entry in made.objects()]
    assert np.array_equal(labels.boxes, whole.labels.boxes[order])
    assert np.array_equal(labels.visible, whole.labels.visible[order])
    assert labels.difficult[labels.visible < 0.3].all()


def test_geotiff_is_cloud_optimized_and_in_its_place(made, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "world.tif"
    write_geotiff(made, path, Placement("EPSG:32633", 500_000.0, 5_800_000.0, 0.5))
    with rasterio.open(path) as file:
        assert np.array_equal(file.read().transpose(1, 2, 0), toy_world().region(0, 0, SIZE, SIZE).image)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.res == (0.5, 0.5)
        assert file.crs.to_epsg() == 32633
        assert (file.bounds.left, file.bounds.top) == (500_000, 5_800_000)
        assert file.overviews(1)
    assert list(tmp_path.iterdir()) == [path], "nothing unfinished stays"


def test_geojson_has_each_object_in_map_coordinates(made, labels, tmp_path):
    ids = [str(entry["id"]) for entry in made.objects()]
    features = json.loads(write_geojson(ids, labels, Placement("EPSG:32633", 500_000.0, 5_800_000.0, 0.5)))["features"]
    assert len({feature["id"] for feature in features}) == len(features) == len(labels)
    ring = np.array([feature["geometry"]["coordinates"][0] for feature in features])
    assert (ring[:, 0] == ring[:, 4]).all(), "closed"
    pixels = (ring[:, :4] - (500_000, 5_800_000)) / (0.5, -0.5)
    assert np.abs(pixels - geometry.to_corners(labels.boxes)).max() < 0.01
    assert [feature["properties"]["class"] for feature in features] == labels.names()


def test_dota_text_is_read_back_and_tiled_with_visible_shares(made, labels, tmp_path):
    pytest.importorskip("rasterio")
    for name in ("images", "labelTxt", "meta"):
        (tmp_path / name).mkdir()
    (tmp_path / "meta" / f"{NAME}.txt").write_text(dota.meta_text(labels))
    write_geotiff(made, tmp_path / "images" / f"{NAME}.tif", Placement(gsd_m=0.5))
    (tmp_path / "labelTxt" / f"{NAME}.txt").write_text(dota.label_text(labels))
    (tmp_path / "world.geojson").write_text(write_geojson(["1"] * len(labels), labels, Placement(gsd_m=0.5)))
    (tmp_path / "world.json").write_text("{}")
    shutil.copytree(made.folder, tmp_path / "blocks")
    dataset = formats.read(tmp_path)
    assert not dataset.problems
    [sample] = dataset
    assert sample.layout.size == (SIZE, SIZE)
    assert sample.layout.acquisition.gsd_m == 0.5
    overlaps = geometry.iou(sample.layout.boxes, labels.boxes)
    assert (np.diag(overlaps) > 0.99).all()
    tiles = tile(dataset, tmp_path / "tiles", 104, 0, min_visible=0.001)
    shares = sum(float(part.layout.visible.sum()) for part in tiles)
    assert len(tiles) == 4
    inside = geometry.visible_fraction(labels.boxes, (SIZE, SIZE)).sum()  # a clipped box may lean over the border
    assert shares == pytest.approx(float(inside), abs=0.002 * len(labels))
    assert any(len(part.layout) and part.layout.visible.min() < 0.9 for part in tiles)
