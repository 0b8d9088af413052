"""Worlds on disk: interrupted and continued, by several processes, verified, cut into tiles."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from ray_runs import wait_until
from toy_world import toy_world
from toy_world_job import ToyJob

from dataengine.data import formats, images
from dataengine.data.tile import tile
from dataengine.engine import world as world_module
from dataengine.engine.local import in_processes
from dataengine.engine.recipe import Recipe
from dataengine.engine.verify_world import verify_world
from dataengine.engine.world import make_world
from dataengine.engine.world_folder import WorldFolder
from dataengine.engine.world_tiles import CUT_FROM, write_tiles
from dataengine.engine.world_worker import WorldSettings
from dataengine.errors import UserError
from dataengine.files import remove
from dataengine.folders import sha256_of
from dataengine.world.blocks import BlockFolder
from dataengine.world.world import World

pytest.importorskip("rasterio")
SIZE, BLOCK, LEVELS = 96, 32, 2
RECIPE = Recipe(dataset="hrplanes", layouts="prior", filter="off")
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module", autouse=True)
def toy_parts():
    """The toy world in place of the packaged models, and small blocks."""

    def load(recipe, settings, calibration=None):
        parts = SimpleNamespace(hashes={"model": "toy"}, calibration=None, recipe=recipe, notes=[])
        return kept_world(recipe.seed, settings.levels), parts

    def blocks(self, number, size):
        return BlockFolder(self.level(number) / "blocks", size >> number, BLOCK)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_module, "load_world", load)
        patch.setattr(WorldFolder, "blocks", blocks)
        yield


@cache
def kept_world(seed: int, levels: int) -> World:
    return toy_world(seed, levels=levels)


def make(out: Path, recipe: Recipe = RECIPE, **options) -> dict:
    return make_world(recipe, out, WorldSettings(SIZE, levels=LEVELS), ("EPSG:32633", 5e5, 58e5), 0.5, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "world"
    make(out)
    return out


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def contents(out: Path) -> dict[str, str]:
    return {str(file.relative_to(out)): sha256_of(file) for file in out.rglob("*") if file.is_file()}


def test_an_interrupted_world_is_continued_to_the_same_bytes(made, tmp_path):
    def interrupt(after: int):
        def done(number: int, total: int) -> None:
            if number == after:
                raise KeyboardInterrupt

        return done

    for after in (4, 10):  # in the finest level, and in the coarser one
        kept_world.cache_clear()
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, done=interrupt(after))
    assert not (tmp_path / "level-0" / "images").exists()
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


def test_what_blocks_are_made_from_is_made_once_and_goes_with_the_end(made, tmp_path, monkeypatch):
    def windows(out: Path, stop: int | None = None) -> int:
        def done(number: int, total: int) -> None:
            if number == stop:
                raise KeyboardInterrupt

        kept_world.cache_clear()
        with suppress(KeyboardInterrupt):
            make(out, done=done)
        world = kept_world(RECIPE.seed, LEVELS)
        return sum(scene.fine.made + scene.coarse.made for scene in world.scenes)

    assert windows(tmp_path / "a", stop=1) > 0
    assert windows(tmp_path / "a") == 0, "a few windows show all of this small world"
    monkeypatch.setattr(World, "keep_in", lambda self, folder: None)
    windows(tmp_path / "b", stop=1)
    assert windows(tmp_path / "b") > 0, "the control: nothing is kept"
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(made)
    assert not (made / ".stages").exists()


def test_what_another_world_left_is_not_used(made, tmp_path):
    """As when a folder is emptied by hand, and its hidden files stay."""

    def interrupted(number: int, total: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, RECIPE.model_copy(update={"seed": 1}), done=interrupted)
    for file in tmp_path.glob("[!.]*"):
        remove(file)
    [other] = (tmp_path / ".stages").iterdir()
    kept_world.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, done=interrupted)
    assert [own.name for own in (tmp_path / ".stages").iterdir()] != [other.name]
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize("name", ["blocks", "images", "labelTxt", ".stages"])
def test_a_file_in_the_way_of_a_folder_is_told_or_replaced(name, tmp_path):
    (tmp_path / name).write_text("")
    if name != ".stages":
        with pytest.raises(UserError, match=rf"{name}: cannot be written .*remove what is in the way"):
            make_world(RECIPE, tmp_path, WorldSettings(SIZE))
        (tmp_path / name).unlink()
    make_world(RECIPE, tmp_path, WorldSettings(SIZE))
    assert verify_world(tmp_path).faults == []


@pytest.mark.parametrize(
    ("placement", "gsd_m", "said"),
    [
        (("EPSG:32633", math.nan, 0.0), 0.5, "--corner nan 0"), (("EPSG:32633", 0.0, math.inf), 0.5, "--corner 0 inf"),
        (None, math.inf, "--gsd inf"), (None, math.nan, "--gsd nan"),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused_before_anything_is_made(placement, gsd_m, said, tmp_path):
    with pytest.raises(UserError, match=said):
        make_world(RECIPE, tmp_path / "x", WorldSettings(SIZE), placement, gsd_m)
    assert not (tmp_path / "x").exists()


def test_an_unchanged_world_has_no_faults(made, copy):
    found = verify_world(copy)
    assert not found.faults
    assert (found.images, found.what) == (9 + 4, "blocks")
    assert found.fingerprint == verify_world(made).fingerprint != ""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def with_right_sums(out: Path) -> None:
    """SHA256SUMS as of the changed files: a thorough forger's."""
    lines = (out / "SHA256SUMS").read_text().splitlines()
    names = [line.split("  ", 1)[1] for line in lines]
    (out / "SHA256SUMS").write_text("".join(f"{sha256_of(out / name)}  {name}\n" for name in names))


def object_block(out: Path) -> Path:
    return next(f for f in sorted((out / BLOCKS).glob("*.json")) if json.loads(f.read_text())["objects"])


LABELS, BLOCKS, PICTURE = "level-0/labelTxt/world.txt", "level-0/blocks", "level-0/images/world.tif"
TAMPERINGS = {
    "a picture of a block": lambda out: Image.new("RGB", (BLOCK, BLOCK)).save(out / BLOCKS / "00000_00000.png"),
    "a box": lambda out: edit(object_block(out), '"box": [', '"box": [1'),
    "a missing block": lambda out: (out / "level-1" / "blocks" / "00001_00001.json").unlink(),
    "a foreign file": lambda out: (out / BLOCKS / "notes.txt").write_text("x"),
    "a label": lambda out: edit(out / LABELS, "1", "2"),
    "a label and its checksum": lambda out: (edit(out / LABELS, "1", "2"), with_right_sums(out)),
    "a report": lambda out: (edit(out / "report.json", '"difficult": ', '"difficult": 1'), with_right_sums(out)),
    "a GeoTIFF": lambda out: (
        shutil.copy(out / "level-1" / "images" / "world.tif", out / PICTURE), with_right_sums(out)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_changed_is_found(copy, name):
    TAMPERINGS[name](copy)
    assert verify_world(copy).faults


def test_report_counts_objects_of_blocks_and_what_levels_show_too_small(made):
    report = json.loads((made / "report.json").read_text())
    labels = [
        line for line in (made / "level-0" / "labelTxt" / "world.txt").read_text().splitlines() if ":" not in line
    ]
    assert sum(report["objects"].values()) == len(labels) > 3
    assert report["erased"] == {"car": 0, "van": 0}
    assert [level["size"] for level in report["levels"]] == [96, 48]
    assert [len(sample.layout) for sample in formats.read(made)] == 2 * [len(labels)]
    coarse = formats.read(made / "level-1")
    assert not coarse.problems
    assert len(next(iter(coarse)).layout) == len(labels)
    assert next(iter(coarse)).layout.acquisition.gsd_m == 1.0


def test_tiles_of_the_blocks_are_those_of_the_geotiff(made, tmp_path, monkeypatch):
    report = write_tiles(made, tmp_path / "direct", 40, 8, "coco", min_visible=0.01)
    monkeypatch.setattr(images, "for_suffix", None)  # would decode the whole
    whole = tile(formats.read(made / "level-0"), tmp_path / "work", 40, 8, min_visible=0.01)
    direct = formats.read(tmp_path / "direct")
    assert report["images"] == len(whole) == len(direct) == 9
    parts, same = {sample.name: sample for sample in direct}, 0
    for sample in whole:
        twin = parts[sample.name]
        assert np.array_equal(images.rgb(sample.image), images.rgb(twin.image))
        assert np.allclose(sample.layout.boxes, twin.layout.boxes, atol=0.02)
        assert (twin.layout.visible < sample.layout.visible + 0.01).all(), (
            "DOTA text cannot say what the world cuts off"
        )
        same += int((abs(twin.layout.visible - sample.layout.visible) < 0.01).sum())
    assert sum(len(sample.layout) for sample in direct) == report["objects"] > report["cut"] > 0
    assert same > 0


def test_tiles_that_are_there_are_not_cut_again_and_those_of_other_sizes_are_refused(made, tmp_path):
    first = write_tiles(made, tmp_path / "tiles", 40, 8)
    before = contents(tmp_path / "tiles")
    assert write_tiles(made, tmp_path / "tiles", 40, 8) == first
    assert contents(tmp_path / "tiles") == before
    with pytest.raises(UserError, match="holds tiles of another world or other sizes"):
        write_tiles(made, tmp_path / "tiles", 48, 8)
    for damaged in ("", "[]", "{}"):
        (tmp_path / "tiles" / CUT_FROM).write_text(damaged)
        with pytest.raises(UserError, match="is damaged; remove the folder"):
            write_tiles(made, tmp_path / "tiles", 40, 8)


def test_a_folder_of_another_world_is_refused_with_what_is_not_the_same(copy):
    for recipe, said in (
        (RECIPE.model_copy(update={"seed": 77}), "another seed;"),
        (RECIPE, "another placement and gsd_m;"),
    ):
        with pytest.raises(UserError, match=f"holds a world with {said}"):
            make_world(
                recipe, copy, WorldSettings(SIZE, levels=LEVELS), ("EPSG:32633", 5e5, 58e5),
                0.25 if recipe is RECIPE else 0.5,
            )  # fmt: skip


def test_geoparquet_says_the_same_as_geojson(made):
    parquet = pytest.importorskip("pyarrow.parquet")
    shapely = pytest.importorskip("shapely")
    table = parquet.read_table(made / "level-0" / "world.parquet")
    features = json.loads((made / "level-0" / "world.geojson").read_text())["features"]
    assert table["id"].to_pylist() == [feature["id"] for feature in features]
    for wkb, feature in zip(table["geometry"].to_pylist(), features, strict=True):
        assert shapely.from_wkb(wkb).equals_exact(shapely.geometry.shape(feature["geometry"]), 1e-3)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["crs"]["id"] == {"authority": "EPSG", "code": 32633}


def toy_job(folder: Path) -> ToyJob:
    blocks = BlockFolder(folder, 5 * BLOCK, BLOCK)
    blocks.prepare()
    return ToyJob(RECIPE, WorldSettings(blocks.size), None, {}, blocks, blocks.made())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The blocks of a world of four chunks, made in one process."""
    job = toy_job(tmp_path_factory.mktemp("alone"))
    job.blocks.make(toy_world())
    return job.blocks.folder


@pytest.mark.slow
def test_worker_processes_make_the_same_blocks_and_leave_those_that_are_there(alone, tmp_path):
    for name in ("00000_00000.png", "00000_00000.json"):
        shutil.copy(alone / name, tmp_path / name)
    before = (tmp_path / "00000_00000.png").stat().st_mtime_ns
    job = toy_job(tmp_path)
    assert job.missing() == [0, 1, 2, 3]
    chunks = iter(job.missing())
    done = [one.shard for one in in_processes(job, job.blocks, 2, lambda: next(chunks, None))]
    assert sorted(n for n in done if n is not None) == [0, 1, 2, 3]
    assert contents(tmp_path) == contents(alone)
    assert (tmp_path / "00000_00000.png").stat().st_mtime_ns == before


@pytest.mark.slow
def test_ray_makes_the_same_blocks(alone, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from dataengine.engine.cluster import on_cluster

    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{os.environ.get('PYTHONPATH', '')}")
    job = toy_job(tmp_path)
    chunks = iter(job.missing())
    list(on_cluster(job, job.blocks, 1, None, None, lambda: next(chunks, None)))
    assert contents(tmp_path) == contents(alone)


@pytest.mark.slow
def test_a_killed_process_is_continued_to_the_same_bytes(alone, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {TESTS!r}); from pathlib import Path; from toy_world import toy_world;"
        "from dataengine.world.blocks import BlockFolder;"
        f"BlockFolder(Path({str(tmp_path)!r}), {5 * BLOCK}, {BLOCK}).make(toy_world())"
    )
    for least in (3, 9):
        process = subprocess.Popen([sys.executable, "-c", code])
        assert wait_until(lambda least=least: len(list(tmp_path.glob("*.json"))) >= least, 300)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(tmp_path.glob("*.json"))) < 25
    subprocess.run([sys.executable, "-c", code], check=True)
    assert contents(tmp_path) == contents(alone)
