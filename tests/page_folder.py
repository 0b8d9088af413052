"""The folder in which the commands of the pages run, with small versions of the files that they name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import aerogen_shapes
import numpy as np
from PIL import Image
from toy_detector import save_detector
from toy_scenes import paint, random_layout
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.data.layout import Dataset, Sample

SPLITS = {"train": 20, "test": 16}  # a calibration needs at least 20 images


def make_folder(root: Path) -> None:
    """Data sets, detectors, models and a run, under the paths of the pages."""
    own = root / "path" / "to" / "dataset"
    labelled(own, "coco", ("Person", "Car"))
    for name in ("held-out", "labelled", "train"):
        own.with_name(name).symlink_to(own)
    labelled(own.with_name("hit-uav"), "coco", ("Person", "Car", "Bicycle", "OtherVehicle"))
    labelled(own.with_name("DIOR"), "dior", ("airplane", "ship"))
    own.with_name("DIOR-R").symlink_to("DIOR")
    labelled(root / "aerogen", "yolo", ("airplane", "ship"))
    for name, classes in (("detector", ("Person", "Car")), ("dior-detector", ("airplane", "ship"))):
        own.with_name(name).mkdir()
        save_detector(own.with_name(name), classes, stride=4)
    shutil.copy(min(own.glob("images/*/*.png")), root / "scene.png")
    own.with_name("unlabelled").symlink_to(own / "images" / "test")
    (root / "models").mkdir()
    models_with_text(root)
    map_and_images(own.parent)
    small = root / "small.yaml"
    small.write_text("shard_size: 2")  # this many images are made even if fewer are requested
    words = ["synth", "--dataset", "hit-uav", "--data", own, "--out", root / "runs" / "first", "--config", small]
    words += ["--n", 10, "--size", 96, "--filter", "off", "--workers", 1]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (root / "runs" / "mine").symlink_to("first")
    (root / "data").mkdir()
    for name in ("train", "val"):
        (root / "data" / name).symlink_to(own)
    (root / "models" / "dior-r-detector").symlink_to(own.with_name("dior-detector"))
    shutil.copy(Path(__file__).parents[1] / "configs" / "detectors" / "small-rtmdet-r.yaml", root)


def map_and_images(folder: Path) -> None:
    """A map, and an aerial image of it."""
    try:
        import rasterio
        from toy_map import METRES, write_pbf
    except ImportError:  # not in the environment of mmrotate
        return
    write_pbf(folder / "region.osm.pbf")
    (folder / "geotiffs").mkdir()
    profile = {"driver": "GTiff", "width": 512, "height": 256, "count": 3, "dtype": "uint8", "crs": METRES.crs,
               "transform": rasterio.transform.from_origin(0, 120, 0.12, 0.12)}  # fmt: skip
    with rasterio.open(folder / "geotiffs" / "image.tif", "w", **profile) as image:
        image.write(np.random.default_rng(0).integers(0, 255, (3, 256, 512), np.uint8))


def labelled(folder: Path, format: str, classes: tuple[str, ...]) -> None:
    """Images of 96 px with three rotated squares each, which the detector finds, in two splits."""
    for seed, (split, n) in enumerate(SPLITS.items()):
        rng, samples = np.random.default_rng(seed), []
        for i in range(n):
            layout = random_layout(rng)
            layout.boxes[:, 2:4] = 14
            layout = replace(layout, labels=rng.integers(0, len(classes), len(layout)), classes=classes)
            file = folder.parent / "raw" / folder.name / f"{split}-{i:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture = paint(layout, rng)
            if (
                "Car" in classes
            ):  # as the packaged models know cars: thermal, on grey ground; the detector looks for red
                ground = np.abs(picture[..., 0].astype(int) - picture[..., 2]) < 85
                picture[ground] = picture[ground].mean(1, keepdims=True)
            Image.fromarray(picture).save(file)
            samples.append(Sample(file.stem, file, layout))
        formats.write(Dataset(classes, samples, "obb", name=folder.name), folder, format, split=split)


def models_with_text(root: Path) -> None:
    """Stable Diffusion, CLIP, and AeroGen's checkpoint with its class vectors, all random and tiny."""
    try:
        import transformers  # noqa: F401
    except ImportError:  # not in the environment of mmrotate, whose pages do not need these models
        return
    from toy_text import toy_clip, toy_stable_diffusion, toy_tokenizer

    base = toy_stable_diffusion(root / "path" / "to" / "sd15")
    (root / "path" / "to" / "tokenizer").symlink_to(base / "tokenizer")
    toy_clip(root / "models" / "clip-vit-large-patch14")
    aerogen_shapes.write_tiny(root, "aerogen_diorr_last.ckpt")
    (root / "demo.txt").write_text("13 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n")
    (root / "published").mkdir()  # as downloaded by hand
    for name in ("aerogen_diorr_last.ckpt", "category_embeddings.npy"):
        (root / "published" / name).symlink_to(root / name)
    toy_tokenizer(root / "published")
    (root / "published" / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    (root / "published" / "special_tokens_map.json").write_text("{}")
