"""Near copies of training images are refused, or left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_scenes import ground, scenes

from dataengine.errors import UserError
from dataengine.export.release import copies
from dataengine.export.release.make import make


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> Path:
    """Real images that nothing was trained on."""
    folder = tmp_path_factory.mktemp("held-out")
    scenes(folder, 30, seed=91)
    return folder


@pytest.fixture(scope="module")
def copied(painted_run, tmp_path_factory) -> tuple[Path, list[str]]:
    """Training images of which the first three accepted images are noisy copies, and the names of these."""
    folder = tmp_path_factory.mktemp("trained")
    scenes(folder, 20, seed=92)
    records = map(json.loads, (painted_run / "manifest.jsonl").read_text().splitlines())
    some = [record for record in records if record["verdict"]["kept"]][:3]
    rng = np.random.default_rng(0)
    for record in some:
        with Image.open(painted_run / record["image"]) as image:
            noise = rng.normal(0, 2, (96, 96, 3))
            pixels = np.clip(np.asarray(image.convert("RGB")) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"copied-{record['index']}.png")
    return folder, [f"{record['index']:08d}" for record in some]


def test_copies_are_named_and_not_released(painted_run, settings, held_out, copied, tmp_path):
    training, names = copied
    with pytest.raises(UserError, match=r"of 12 images .* Leave them out with --drop-copies") as refused:
        make(painted_run, tmp_path / "out", replace(settings, training=training, held_out=held_out))
    assert all(name in str(refused.value) for name in names)
    assert not list(tmp_path.iterdir())


def test_copies_can_be_left_out_and_the_card_says_how_many(painted_run, settings, held_out, copied, tmp_path):
    training, names = copied
    changed = replace(settings, training=training, held_out=held_out, drop_copies=True)
    done = make(painted_run, tmp_path / "out", changed)
    assert done.copies >= len(names)
    assert not {path.stem for path in done.folder.glob("images/*/*.png")} & set(names)
    card = (done.folder / "README.md").read_text()
    assert f"{done.copies} near copies are left out." in card
    assert "| noisy copies of training |" in card


def test_images_unlike_the_training_images_are_released(painted_run, settings, held_out, copied, tmp_path):
    """Control: the same training images without the copies."""
    training = tmp_path / "trained"
    shutil.copytree(copied[0], training, ignore=shutil.ignore_patterns("copied-*"))
    done = make(painted_run, tmp_path / "out", replace(settings, training=training, held_out=held_out))
    assert done.copies == 0
    assert "0.0% are near copies, 0.0% show a copied part; none is left out." in (done.folder / "README.md").read_text()


def test_a_share_of_near_images_may_be_allowed(painted_run, settings, held_out, copied, tmp_path):
    changed = replace(settings, training=copied[0], held_out=held_out, most_copies=0.5)
    assert make(painted_run, tmp_path / "out", changed).copies == 0


def test_a_part_of_a_training_image_is_found_mirrored_and_elsewhere(tmp_path, monkeypatch):
    """Mutation: without the search for parts, no window of the training image is near the copy."""
    made = {f"new-{i}": ground(200 + i)[:128, :128] for i in range(10)}
    made["copy"] = np.rot90(ground(5)[150:278, 31:159][:, ::-1])
    sets = {
        "made": made,
        "trained": {str(i): ground(i) for i in range(12)},
        "held out": {str(i): ground(100 + i)[:128, :128] for i in range(30)},
    }
    for folder, images in sets.items():
        (tmp_path / folder).mkdir()
        for name, pixels in images.items():
            Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / folder / f"{name}.png")
    folders = [tmp_path / folder for folder in sets]
    results, near = copies.near_copies(*folders, lambda items, title: items)
    assert near == ["copy"]
    assert results[1].value("generated", "copied") == pytest.approx(1 / 11)
    monkeypatch.setattr(copies, "undetected", lambda parts: "switched off")
    assert copies.near_copies(*folders, lambda items, title: items)[1] == []
