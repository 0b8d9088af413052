"""Pairs of images and maps (test P2 of the seeds): places, scales, duplicates, and splits that share no ground."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from toy_map import METRES, write_geojson
from typer.testing import CliRunner

pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")
import rasterio

from dataengine.cli import app
from dataengine.errors import UserError
from dataengine.maps.ground import load_ground
from dataengine.maps.pairs import CELL_M, coded, decoded, make_pairs, read_pairs
from dataengine.maps.raster import map_raster, picture
from dataengine.maps.read import read_map

SIDE, GSD_M = 64, 2.0


def write_geotiff(file, pixels: np.ndarray, west: float, north: float, gsd_m: float = GSD_M, crs=METRES.crs) -> None:
    """uint8 (H, W, 3) with its top left corner at (west, north) metres."""
    profile = {"driver": "GTiff", "width": pixels.shape[1], "height": pixels.shape[0], "count": 3, "dtype": "uint8",
               "crs": crs, "transform": rasterio.transform.from_origin(west, north, gsd_m, gsd_m)}  # fmt: skip
    with rasterio.open(file, "w", **profile) as image:
        image.write(pixels.transpose(2, 0, 1))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return read_map(write_geojson(tmp_path_factory.mktemp("map") / "toy.geojson"))


def photograph(toy, west: float, north: float, side: int, noise: int = 0) -> np.ndarray:
    """The map itself as an image, so that each tile can be compared with its raster."""
    grid = toy.grid(west + side * GSD_M / 2, north - side * GSD_M / 2, GSD_M, (side, side))
    rng = np.random.default_rng(noise)
    clean = picture(map_raster(toy, grid, load_ground()), load_ground(), edges=False).astype(int)
    return np.clip(clean + rng.integers(0, 4, clean.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_geotiff(folder / "a.tif", photograph(toy, -640, 640, 640), -640, 640)
    write_geotiff(folder / "b-copy.tif", photograph(toy, -640, 640, 640)[:128, :128], -640, 640)  # the same pixels
    write_geotiff(folder / "c-later.tif", photograph(toy, -640, 640, 128, noise=5), -640, 640)  # the same ground
    empty = np.zeros((64, 64, 3), np.uint8)
    write_geotiff(folder / "d-beside.tif", empty, 5000, 5000)
    return folder


@pytest.fixture(scope="module")
def pairs(images, toy, tmp_path_factory):
    return make_pairs(images, toy, load_ground(), tmp_path_factory.mktemp("out") / "pairs", SIDE, val_share=0.4, seed=1)


def test_each_tile_has_the_map_of_its_own_place(pairs):
    ground = load_ground()
    other = pairs.pairs[len(pairs.pairs) // 2]
    own, shuffled = [], []
    for pair in pairs.pairs:
        image = pairs.image(pair).astype(int)
        own.append((np.abs(image - picture(pairs.raster(pair), ground, edges=False)).max(2) < 8).mean())
        shuffled.append((np.abs(image - picture(pairs.raster(other), ground, edges=False)).max(2) < 8).mean())
    assert min(own) > 0.95
    assert np.mean(shuffled) < 0.9  # control: the map of another place
    assert all(abs(pair.gsd_m / GSD_M - 1) < 1e-3 for pair in pairs.pairs)


def test_duplicates_and_repeated_places_are_counted_and_tiles_beside_the_map_left_out(pairs):
    assert pairs.left_out["duplicate"] == 4
    assert pairs.left_out["beside"] == 1
    assert pairs.repeated == len([p for p in pairs.pairs if p.source == "c-later.tif"]) == 4
    by_place = {}
    for pair in pairs.pairs:
        by_place.setdefault((pair.lon, pair.lat), set()).add(pair.split)
    assert all(len(splits) == 1 for splits in by_place.values())


def test_no_ground_is_in_both_splits(pairs, toy):
    cells = {"train": set(), "val": set()}
    for pair in pairs.pairs:
        grid = toy.grid_at(pair.lon, pair.lat, pair.gsd_m, (SIDE, SIDE))
        for corner in toy.metres(grid, np.array([(1, 1), (63, 1), (63, 63), (1, 63)], float)):
            cells[pair.split].add(tuple(np.floor(corner / CELL_M).astype(int).tolist()))
    assert pairs.of("train")
    assert pairs.of("val")
    assert not cells["train"] & cells["val"]
    assert pairs.left_out["between"] > 0  # tiles on the line between the areas


def test_pairs_are_read_as_they_were_written(pairs):
    again = read_pairs(pairs.folder)
    assert again == pairs
    (pairs.folder / "pairs.json").write_text((pairs.folder / "pairs.json").read_text().replace('"lon"', '"lom"'))
    with pytest.raises(UserError, match="damaged"):
        read_pairs(pairs.folder)


def test_a_raster_survives_its_file(toy):
    raster = map_raster(toy, toy.grid(-650, -170, 0.5, (200, 200)), load_ground())
    again = decoded(coded(raster), raster.names)
    assert (again.classes == raster.classes).all()
    assert (again.edges == raster.edges).all()
    assert np.abs(again.direction - raster.direction).max() < 0.005


def test_images_of_another_scale_are_refused(images, toy, tmp_path):
    with pytest.raises(UserError, match=r"a.tif: 2 m per pixel; the model was trained on 0.3 to 0.5 m"):
        make_pairs(images, toy, load_ground(), tmp_path / "out", SIDE, trained_gsd=(0.3, 0.5))
    assert not (tmp_path / "out").exists()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "plain.tif")
    with pytest.raises(UserError, match="has no place on Earth"):
        make_pairs(tmp_path / "plain.tif", toy, load_ground(), tmp_path / "out", SIDE)


def test_the_commands_make_pairs_and_draw_maps(images, tmp_path):
    file = write_geojson(tmp_path / "toy.geojson")
    words = ["data", "pairs", "--images", images, "--map", file, "--out", tmp_path / "pairs", "--size", 64]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    assert "left out: 4 tiles with the same pixels as another" in done.output
    words = ["map", "show", file, "--out", tmp_path / "map.png", "--gsd", 4, "--size", 100, "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    assert '"road"' in done.output
    assert Image.open(tmp_path / "map.png").size == (100, 100)
