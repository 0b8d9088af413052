"""What `tools/fuzz.py` feeds: every reader of files that may come from strangers, with a valid file to be changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data import formats, images, presets
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.errors import UserError


class Wrong(Exception):
    """A reader gave a value that it must never give."""


@dataclass(frozen=True)
class Reader:
    """make: writes valid files into a folder and gives back those that are to be changed. read: reads the folder, and
    raises `allowed` for what is broken."""

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    allowed: tuple[type[BaseException], ...] = (UserError,)
    heavy: bool = False


def _dataset(folder: Path, kind: str) -> Dataset:
    rng, samples = np.random.default_rng(0), []
    taken = Acquisition(gsd_m=0.5, altitude_m=80, camera_angle_deg=60, night=True, date="2021-01-14")
    for i in range(2):
        file = folder / "raw" / f"image_{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(file)
        boxes = [[10, 8, 6, 3, 0.3 if kind == "obb" else 0], [20, 15, 8, 5, 0]]
        ignored = [[5, 20, 4, 4, 0]]
        layout = Layout(boxes, [0, 1], ("plane", "large ship"), (32, 24), kind, [False, True], None, ignored, taken)
        samples.append(Sample(file.stem, file, layout, "drone", "CC0"))
    return Dataset(("plane", "large ship"), samples, kind, "made")


def data_set(format: str, kind: str = "obb") -> Reader:
    """A format of `dataengine.data`, of which every file that is no image is changed."""

    def make(folder: Path) -> list[Path]:
        formats.write(_dataset(folder / "in", kind), folder / "set", format)
        shutil.rmtree(folder / "in")
        changed = (f for f in (folder / "set").rglob("*") if f.suffix in (".txt", ".json", ".xml", ".yaml", ".csv"))
        return sorted(f for f in changed if f.name[0] != ".")

    return Reader(make, lambda folder: _read_data_set(folder, format))


def read_only(format: str, image: str, label: str, content: str) -> Reader:
    """A format that is read and not written: one image and one label file."""

    def make(folder: Path) -> list[Path]:
        for file in (folder / "set" / image, folder / "set" / label):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24)).save(folder / "set" / image)
        (folder / "set" / label).write_text(content)
        return [folder / "set" / label]

    return Reader(make, lambda folder: _read_data_set(folder, format))


def _read_data_set(folder: Path, format: str) -> None:
    dataset = formats.read(folder / "set", format)
    for sample in dataset:
        layout = sample.layout
        if not np.isfinite(layout.boxes).all() or not np.isfinite(layout.ignored).all():
            raise Wrong("boxes are not finite")
        if len(layout) and not 0 <= layout.labels.min() <= layout.labels.max() < len(dataset.classes):
            raise Wrong("labels are outside the class list")
        if ".." in Path(sample.name).parts or Path(sample.name).is_absolute():
            raise Wrong(f"a sample is called {sample.name}")
        # data.yaml may name folders elsewhere, as everywhere where YOLO is trained
        if format != "yolo" and folder not in Path(os.path.abspath(sample.image)).parents:
            raise Wrong(f"an image of another folder is read: {sample.image}")


def one_file(name: str, write: Callable[[Path], object], read: Callable[[Path], object], **more) -> Reader:
    """A reader of one file, `name`, that `write` makes."""

    def make(folder: Path) -> list[Path]:
        write(folder / name)
        return [folder / name]

    return Reader(make, lambda folder: read(folder / name), **more)


def _image(format: str) -> Reader:
    def write(file: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(file, format)

    def read(file: Path) -> None:
        images.measure(file)
        images.decode(file)

    return one_file(f"image.{format.lower()}", write, read, allowed=(ValueError,))


RECIPE = {
    "dataset": "hit-uav", "n": 20, "seed": 1, "size": 256, "layouts": "reuse", "altitude": [100, 130], "night": True,
    "classes": ["Car"], "draw_as": {"Car": "windmill"}, "guidance_scale": 1.5, "filter": "drop", "model": "somewhere",
}  # fmt: skip
PRESET = {"name": "mine", "classes": ["a", "b"], "kind": "obb", "image_size": [64, 64], "places": ["data/mine"]}


def _calibration(file: Path) -> None:
    from dataengine import weights

    shutil.copy(weights.packaged("calibration/hit-uav.json"), file)


def _read_calibration(file: Path) -> None:
    from dataengine.judge.calibration import Calibration

    values = Calibration.load(file).thresholds.values()
    if not all(np.isfinite(np.ravel(value)).all() for value in values):
        raise Wrong("thresholds are not finite")


def _read_recipe(file: Path) -> None:
    from dataengine.engine.recipe import load_recipe

    load_recipe(file, {})


def _stored(file: Path) -> None:
    from dataengine.layouts.stored import save_layouts

    save_layouts(file, [sample.layout for sample in _dataset(file.parent / "in", "obb")])
    shutil.rmtree(file.parent / "in")


def _read_stored(file: Path) -> None:
    from dataengine.layouts.stored import load_layouts

    for layout in load_layouts(file):
        if not np.isfinite(layout.boxes).all() or (len(layout) and layout.labels.min() < 0):
            raise Wrong("a stored layout is broken")


def _run(folder: Path) -> list[Path]:
    """A run of two images, with all that verification compares but the parts."""
    from dataengine.data.layout import layout_to_json
    from dataengine.engine.finish import Tally, write_derived
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run_folder import RunFolder, StoredRecipe, image_name, record_files
    from dataengine.seeds import image_seed

    lines, run = [], RunFolder(folder)
    run.shard(0).mkdir(parents=True)
    for i, sample in enumerate(_dataset(folder / "in", "obb")):
        shutil.copy(sample.image, folder / image_name(0, i))
        checksum = hashlib.sha256(sample.image.read_bytes()).hexdigest()
        labels = layout_to_json(sample.layout)
        # fmt: off
        verdict = {"kept": True, "reason": "", "scores": [0.5, 0.4], "missed": [], "extra": [], "repairs": []}
        record = {"index": i, "seed": image_seed(0, i), "image": image_name(0, i), "sha256": checksum, "asked": labels,
                  "labels": labels, "verdict": verdict,
                  "layout_from": ["a.png"], "scene": "b.png@0,0", "scene_source": "c", "scene_license": "CC0"}
        # fmt: on
        lines.append(json.dumps(record))
    shutil.rmtree(folder / "in")
    for name, content in record_files(lines).items():
        (run.shard(0) / name).write_bytes(content)
    run.manifest.write_text("".join(f"{line}\n" for line in lines))
    recipe, parts = Recipe(dataset="hit-uav", n=2, shard_size=2, filter="off"), {"model": "01", "layouts": "02"}
    identity, classes = recipe.identity(parts), ("plane", "large ship")
    stored = StoredRecipe(recipe.model_dump(mode="json"), parts, identity, classes, "none", "hit-uav", (), True)
    stored.save(run.recipe)
    tally = Tally(None, classes)
    for record in run.records():
        tally.add(record)
    write_derived(run, run.manifest, recipe, stored, tally, None, run)
    assert run.examine_shard(0).faults == []
    return [run.manifest, run.recipe, run.report, *sorted(run.shard(0).glob("records*"))]


def _read_run(folder: Path) -> None:
    """A changed shard is always told; the manifest and the recipe are read or refused."""
    from dataengine.engine.run_folder import RunFolder
    from dataengine.evaluate.windows import read_generated
    from dataengine.seeds import image_seed

    shard = RunFolder(folder).examine_shard(0)
    if not shard.faults and (len(shard.records) != 2 or shard.records[0].seed != image_seed(0, 0)):
        raise Wrong("a changed shard passes for what was written")
    RunFolder(folder).stored_recipe()
    for sample in read_generated(folder):
        if folder not in Path(os.path.abspath(sample.image)).parents:
            raise Wrong(f"an image of another folder is read: {sample.image}")


def _renderer(folder: Path) -> list[Path]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from dataengine.render.in_scene import InSceneUNet
    from dataengine.render.in_scene_pipeline import InScenePipeline

    torch.manual_seed(0)
    model = InSceneUNet(["car", "van"], frame_size=24, patch=3, block_out_channels=(16, 32))
    InScenePipeline(model, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return sorted(f for f in folder.rglob("*") if f.suffix in (".json", ".safetensors"))


def _read_renderer(folder: Path) -> None:
    from dataengine.render.renderer import load_renderer

    load_renderer(folder, "in-scene")


def _verify_run(folder: Path) -> None:
    from dataengine.engine.verify import verify

    verify(folder)


def _read_accepted(folder: Path) -> None:
    """As `dataengine export shards` reads a run."""
    from dataengine.engine.run_folder import RunFolder

    for sample in RunFolder(folder).accepted_images():
        if folder not in Path(os.path.abspath(sample.image)).parents:
            raise Wrong(f"an image of another folder is read: {sample.image}")


def _read_for_release(folder: Path) -> None:
    from dataengine.export.release.finished_run import read_run

    run = read_run(folder)
    for record in run.records:
        run.labels(record)


def _read_for_view(folder: Path) -> None:
    from dataengine.view.index import load_index
    from dataengine.view.source import Source

    stamp = (folder / "manifest.jsonl").read_bytes() if (folder / "manifest.jsonl").is_file() else b""
    cache = folder.parent / f"{folder.name}-cache"
    cache.mkdir(exist_ok=True)
    stamp = hashlib.md5(stamp).hexdigest()
    source = Source(folder, "run", "run", folder / "manifest.jsonl", cache, stamp, {}, {}, (), {})
    os.close(load_index(source)._file)


def _release(folder: Path) -> list[Path]:
    """A release of two images."""
    from dataengine.export.release.make import Settings, make

    _run(folder / "run")
    settings = Settings("made", "cc-by-4.0", val=0, formats="coco", archive_size="10MB", source_license="cc0-1.0")
    made = make(folder / "run", folder / "made", settings).folder
    shutil.rmtree(folder / "run")
    for entry in made.iterdir():
        entry.rename(folder / entry.name)
    made.rmdir()
    return sorted(f for f in folder.rglob("*") if f.is_file())


def _verify_release(folder: Path) -> None:
    from dataengine.export.release.verify import verify

    verify(folder)


def _detector(folder: Path) -> list[Path]:
    """An ONNX model that gives constants."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values = {"all": np.ones((1, 2, 5), np.float32), "sure": np.full((1, 2, 1), 0.5, np.float32),
              "none": np.zeros((), np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["zero"]),
        helper.make_node("Add", ["all", "zero"], ["boxes"]),
        helper.make_node("Add", ["sure", "zero"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes, "made", [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(values[of].shape))
         for name, of in (("boxes", "all"), ("scores", "sure"))],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"classes": ["a"], "image_size": 32, "score_threshold": 0.05}))
    return [folder / "config.json", folder / "model.onnx"]


def _read_detector(folder: Path) -> None:
    from dataengine.judge.detector import load_detector

    detector = load_detector(folder, threads=1)
    if json.loads((folder / "config.json").read_text("utf-8-sig"))["image_size"] <= 256:
        for found in detector.detect([np.zeros((24, 32, 3), np.uint8)]):
            if not np.isfinite(found.boxes).all() or not np.isfinite(found.scores).all():
                raise Wrong("detections are not finite")


def _mmengine_config(file: Path) -> None:
    file.with_name("base.py").write_text("angle = 'le90'\nmodel = dict(backbone=dict(type='mmdet.ResNet', depth=50))\n")
    file.write_text(
        "_base_ = ['base.py']\n"
        "custom_imports = dict(imports=['dataengine.mmrotate.cpu_layers'], allow_failed_imports=False)\n"
        "norm = dict(type='BN')\n"
        "model = dict(type='mmdet.FCOS', test_cfg=dict(score_thr=0.5, nms=None), train=True, head=dict(**norm))\n"
        "optim_wrapper = {'optimizer': {'type': 'SGD', 'lr': -0.5 / 16, 'angle': {{_base_.angle}}}}\n"
        "optim_wrapper['optimizer']['root'] = '{{ fileDirname }}/data'\n"
    )


def _read_mmengine_config(file: Path) -> None:
    from dataengine.mmrotate.safe_config import read_config

    _check_plain(read_config(file))
    content = file.read_text("utf-8-sig")
    for word in ("__import__", "lambda", "os.system", "exec(", "open("):
        if word in "\n".join(line for line in content.splitlines() if "#" not in line):
            _outside_of_texts(content, word)


def _check_plain(value: object) -> None:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item)
    elif not isinstance(value, str | int | float | None):
        raise Wrong(f"a config has a {type(value).__name__}")


def _outside_of_texts(content: str, word: str) -> None:
    import io
    import tokenize

    texts = (tokenize.STRING, tokenize.COMMENT)
    rest = " ".join(t.string for t in tokenize.generate_tokens(io.StringIO(content).readline) if t.type not in texts)
    if word.rstrip("(") in rest.replace(" . ", ".").split():
        raise Wrong(f"a config with {word} passes for values")


def _aerogen(file: Path) -> None:
    import torch

    torch.save({"state_dict": {"model.a": torch.zeros(2, 3), "model.b": torch.ones(4)}, "epoch": 1}, file)


def _read_aerogen(file: Path) -> None:
    from dataengine.render.aerogen_import import read_state_dict

    read_state_dict(file)


def _layout_model(folder: Path) -> list[Path]:
    import torch

    from dataengine.layouts.denoiser import LayoutDenoiser

    torch.manual_seed(0)
    LayoutDenoiser(["a"], "obb", 64, [(2, "{}")], (2.0, 1.0), 4, width=8, layers=1, heads=1).save_pretrained(folder)
    return sorted(f for f in folder.iterdir() if f.suffix in (".json", ".safetensors"))


def _read_layout_model(folder: Path) -> None:
    from dataengine.layouts.diffusion_sampler import load_layout_model

    load_layout_model(folder)


CORNERS = [4, 4, 14, 6, 13, 12, 3, 10]
_POINTS = "".join(f"<point>{x},{y}</point>" for x, y in zip(CORNERS[::2], CORNERS[1::2], strict=True))
_FEATURE = {"properties": {"bounds_imcoords": "3,4,20,12", "type_id": 18, "image_id": "a.png"}}
READ_ONLY = {
    "fair1m": read_only(
        "fair1m", "images/a.png", "labelXml/a.xml",
        "<annotation><source><filename>a.png</filename></source><size><width>32</width><height>24</height></size>"
        "<objects><object><coordinate>pixel</coordinate><possibleresult><name>Van</name></possibleresult>"
        f"<points>{_POINTS}</points></object></objects></annotation>",
    ),
    "ucas-aod": read_only("ucas-aod", "CAR/a.png", "CAR/a.txt", " ".join(map(str, [*CORNERS, 30, 3, 4, 11, 8])) + "\n"),
    "visdrone": read_only("visdrone", "images/a.png", "annotations/a.txt", "3,4,10,8,1,4,0,0\n0,0,5,5,0,0,0,0,\n"),
    "soda-a": read_only(
        "soda-a", "Images/a.png", "Annotations/a.json",
        json.dumps({"images": {"file_name": "a.png", "width": 32, "height": 24},
                    "annotations": [{"poly": CORNERS, "category_id": 0}, {"poly": CORNERS, "category_id": 9}]}),
    ),
    "xview": read_only("xview", "train_images/a.png", "xView_train.geojson", json.dumps({"features": [_FEATURE] * 2})),
    "airbus": read_only(
        "airbus", "images/a.png", "annotations.csv", 'image_id,class,bounds\na,tank,"(3, 4, 20, 12)"\n'
    ),
}  # fmt: skip
READERS: dict[str, Reader] = {
    **{name: data_set(name) for name in formats.WRITTEN},
    "coco-upright": data_set("coco", "hbb"),
    **READ_ONLY,
    **{format.lower(): _image(format) for format in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")},
    "preset": one_file("mine.yaml", lambda f: f.write_text(json.dumps(PRESET, indent=1)),
                       lambda f: presets.load_preset(str(f))),
    "recipe": one_file("run.yaml", lambda f: f.write_text(json.dumps(RECIPE, indent=1)), _read_recipe),
    "calibration": one_file("calibration.json", _calibration, _read_calibration),
    "layouts": one_file("layouts.npz", _stored, _read_stored),
    "run": Reader(_run, _read_run, heavy=True),
    "run-verify": Reader(_run, _verify_run, heavy=True),
    "run-export": Reader(_run, _read_accepted, heavy=True),
    "run-release": Reader(_run, _read_for_release, heavy=True),
    "run-view": Reader(_run, _read_for_view, heavy=True),
    "release": Reader(_release, _verify_release, heavy=True),
    "detector": Reader(_detector, _read_detector, heavy=True),
    "mmengine-config": one_file("config.py", _mmengine_config, _read_mmengine_config),
    "aerogen": one_file("model.ckpt", _aerogen, _read_aerogen, heavy=True),
    "layout-model": Reader(_layout_model, _read_layout_model, heavy=True),
    "renderer": Reader(_renderer, _read_renderer, heavy=True),
}  # fmt: skip
