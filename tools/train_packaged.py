"""Train the packaged weights on the sample data, on two CPU cores or a GPU. The same command resumes a stopped run.

The whole-image renderer (decoder, thumbnails) is trained on all imagery of WHOLE_REPEATS, the others on the two
labelled data sets. `--start packaged` goes on from the packaged renderers instead of random weights.

    python tools/headings.py --out work/headings.json                                       # of HRPlanes' airplanes
    python tools/train_packaged.py --work work decoder thumbnails in-scene                  # base environment
    python tools/train_packaged.py --work work few-step-decoder few-step-thumbnails whole \\
        few-step-in-scene layouts
    python tools/train_packaged.py --work work control              # of the packaged whole-image renderer, then
    python tools/train_packaged.py --work work store-control
    python tools/train_packaged.py --work work detector-data
    dataengine train detector work/detector-data --preset small --batch-size 16 --steps 3000 --out work/filter
    dataengine train detector work/detector-data --preset rotated-fcos --batch-size 16 --tile-size 256 --seed 2 \\
        --options configs/detectors/slim-rotated-fcos.yaml --steps 800 --out work/evaluation
    dataengine filter export-detector work/filter/training/detector.py work/filter/training/checkpoint.pth \\
        --out work/export/filter --score-threshold 0.02 --half       # in the environment of mmrotate
    python tools/train_packaged.py --work work detector calibration

The present detectors were trained on random tiles with a tool of version 0.2.0; these commands train the same networks
on the same images. Weights are written to dataengine/weights as fp16 safetensors in files below 16 MB. `--scale 0.01`
trains everything with a hundredth of the steps, as a test.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from sample_splits import DEFAULT_DATA, naip_scenes, sources, splits, windows

from dataengine import weights
from dataengine.data import coco
from dataengine.data.layout import Dataset
from dataengine.train.loop import TrainSettings

MAX_FILE_SIZE = "15MB"
# of real images (contract 10); at 0.95 the thresholds of HIT-UAV could not tell painted noise from persons
MIN_PASS_RATES = {"hit-uav": 0.9, "hrplanes": 0.95}
# name: (steps, batch size, learning rate, EMA decay); each takes about an hour on two cores
SCHEDULES = {
    "decoder": (5000, 64, 8e-4, 0.9985),
    "thumbnails": (9000, 64, 8e-4, 0.9985),
    "in-scene": (12_000, 64, 6e-4, 0.9985),
    "few-step-decoder": (2000, 16, 1e-3, 0.998),
    "few-step-thumbnails": (2000, 32, 1e-3, 0.998),
    "few-step-in-scene": (4000, 32, 1e-3, 0.998),
    "control": (850, 8, 1e-3, 0.99),
}
STEPS, DECODER_STEPS, GUIDANCE = 4, 2, 2.0  # of the packaged renderers, chosen in docs/quality.md
THUMBNAILS = {"shape_prior": True, "reference_width": 96}
# times that the images of a data set are cut into thumbnails; of KIT there are 14, which are large
WHOLE_REPEATS = {"hit-uav": 1, "hrplanes": 1, "naip-urban-ca": 1, "kit-ais-cars": 20}
# of the control: windows of each data set, and the classes of configs/maps/osm.yaml in each group of its map
GROUND_WINDOWS = {"train": {"hit-uav": 450, "hrplanes": 450, "naip-urban-ca": 250}, "test": dict.fromkeys(
    ("hit-uav", "hrplanes", "naip-urban-ca"), 64)}  # fmt: skip
GROUND_GROUPS = {
    "vegetation": ("grass", "forest", "wetland", "farmland"),
    "water": ("water", "pool"),
    "paved": ("apron", "taxiway", "runway", "bridge", "paved", "path", "parking", "road", "pier"),
    "building": ("building",),
    "bare": ("sand", "rail"),
}
TYPICAL_GSD_M = {"hit-uav": 0.12, "hrplanes": 0.8}  # where an image does not state it


def settings_for(name: str, scale: float, minutes: float | None) -> TrainSettings:
    """Settings of a stage, with its number of steps scaled."""
    steps, batch_size, learning_rate, ema_decay = SCHEDULES[name]
    steps = max(1, round(steps * scale))
    return TrainSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        minutes=minutes,
        evaluate_every=200 if name == "control" else 500,
        compile=scale >= 1 and name in ("decoder", "in-scene"),  # no gain for the others on a CPU
        warmup_steps=min(200, steps // 2),
    )


def save_half(pipeline, folder: Path) -> None:
    """Write a pipeline as fp16 in files of at most MAX_FILE_SIZE; it is loaded as fp32."""
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(folder, max_shard_size=MAX_FILE_SIZE)
    for file in folder.glob("*/config.json"):
        forget_origin(file)


def forget_origin(config: Path) -> None:
    """Remove the machine path that a part was loaded from."""
    settings = json.loads(config.read_text())
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2) + "\n")


def train_stage(
    name: str, data: Path, work: Path, scale: float, minutes: float | None, start: Path | None = None
) -> None:
    """Train one model; the few-step in-scene one is written to the packaged weights. start: a whole-image pipeline."""
    from dataengine.render.in_scene import InSceneUNet
    from dataengine.render.in_scene_pipeline import InScenePipeline
    from dataengine.render.layout_unet import LayoutUNet
    from dataengine.render.reference import load_encoder
    from dataengine.render.thumbnail_decoder import ThumbnailDecoder
    from dataengine.train.decoder import train_decoder
    from dataengine.train.distill import distill_decoder, distill_in_scene, distill_thumbnails
    from dataengine.train.in_scene import train_in_scene
    from dataengine.train.thumbnails import train_thumbnails

    parts = [named["train"] for named in splits(data).values()]
    classes = [c for dataset in parts for c in dataset.classes]
    scenes = [source for source in sources(data, "train") if source.dataset.name in WHOLE_REPEATS]
    unlabelled = [source.dataset.name for source in scenes if not source.labelled]
    crops = [source.dataset for source in scenes]
    repeated = [replace(d, samples=list(d.samples) * WHOLE_REPEATS[d.name]) for d in crops]
    settings, out = settings_for(name, scale, minutes), work / name
    trained = work / name.removeprefix("few-step-") / "model"
    encoder = load_encoder(weights.packaged("encoder") / "model.onnx") if "thumbnails" in name else None
    if name == "decoder":
        model = None if start is None else ThumbnailDecoder.from_pretrained(start / "decoder")
        without_boxes = {"classes": [], "padding": "replicate"}
        train_decoder(crops, classes, out, settings, model_settings=without_boxes, start=model)
    elif name == "thumbnails":
        model = None if start is None else LayoutUNet.from_pretrained(start / "unet")
        train_thumbnails(
            repeated, classes, out, settings, copies=6, model_settings=THUMBNAILS, start=model, encoder=encoder,
            unlabelled=unlabelled,
        )  # fmt: skip
    elif name == "in-scene":
        model = None if start is None else InSceneUNet.from_pretrained(start.parent / "in-scene" / "unet")
        train_in_scene(parts, classes, out, settings, start=model, headings=read_headings(work))
    elif name == "few-step-decoder":
        model = ThumbnailDecoder.from_pretrained(trained)
        distill_decoder(model, crops, out, settings, DECODER_STEPS)
        model.save_pretrained(out / "model")
    elif name == "few-step-thumbnails":
        model = LayoutUNet.from_pretrained(trained)
        distill_thumbnails(model, repeated, out, settings, STEPS, encoder, unlabelled)
        model.save_pretrained(out / "model")
    else:
        model = InSceneUNet.from_pretrained(trained)
        pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler(), guidance=GUIDANCE)
        few = distill_in_scene(pipeline, parts, out, settings, STEPS, headings=read_headings(work))
        save_half(few, weights.FOLDER / "in-scene")


def read_headings(work: Path) -> dict[str, dict[tuple[str, int], float]]:
    """Headings of HRPlanes' airplanes, from tools/headings.py."""
    file = work / "headings.json"
    if not file.exists():
        sys.exit(f"{file} is missing; first: python tools/headings.py --out {file}")
    found = json.loads(file.read_text())
    return {"hrplanes": {(key.rpartition("/")[0], int(key.rpartition("/")[2])): turn for key, turn in found.items()}}


def ground_windows(data: Path, unet, part: str, seed: int, kept: Path | None = None):
    """Windows of a part of the data sets with their groups, for training the control and for judging it. kept: folder
    that they are kept in."""
    from dataengine.train.ground_control import GroundWindows, collect_ground

    if kept is not None and (kept / "windows.npz").exists():
        return GroundWindows.load(kept)

    named = splits(data)
    datasets = [named[name][part] for name in ("hit-uav", "hrplanes")]
    datasets.append(naip_scenes(data, "train" if part == "train" else "val"))
    found = collect_ground(
        datasets, unet, GROUND_WINDOWS[part], np.random.default_rng((seed, 1)), thermal=("hit-uav",),
        vehicles=("Car", "OtherVehicle"), gsd_m=TYPICAL_GSD_M,
    )  # fmt: skip
    if kept is not None:
        found.save(kept)
    return found


def train_ground(data: Path, work: Path, scale: float, minutes: float | None) -> None:
    """The control of the packaged whole-image renderer."""
    from dataengine.engine.recipe import folder_hash
    from dataengine.render.imagery import read_imagery
    from dataengine.render.layout_unet import LayoutUNet
    from dataengine.train.ground_control import train_ground_control

    folder = weights.packaged("whole") / "unet"
    unet, settings = LayoutUNet.from_pretrained(folder), settings_for("control", scale, minutes)
    settings = settings.model_copy(update={"checkpoint_minutes": 5.0})
    windows = ground_windows(data, unet, "train", settings.seed, work / "control-windows")
    ranges = [one.gsd_m for one in read_imagery(folder.parent)]
    gsd_m = min(low for low, _ in ranges), max(high for _, high in ranges)
    renderer, out = folder_hash(folder), work / "control"
    train_ground_control(unet, windows, GROUND_GROUPS, out, settings, STEPS, renderer, gsd_m)


def store_control(work: Path) -> None:
    """The trained control as fp16."""
    from diffusers import ControlNetModel

    folder, source = weights.FOLDER / "control", work / "control" / "control"
    network = ControlNetModel.from_pretrained(source, use_safetensors=True).to(torch.float16)
    network.save_pretrained(folder, max_shard_size=MAX_FILE_SIZE)
    forget_origin(folder / "config.json")
    shutil.copy(source / "map.json", folder / "map.json")


def store_whole(data: Path, work: Path) -> None:
    """Thumbnail model and decoder as one pipeline."""
    from dataengine.render.layout_pipeline import LayoutPipeline
    from dataengine.render.layout_unet import LayoutUNet
    from dataengine.render.thumbnail_decoder import ThumbnailDecoder
    from dataengine.train.thumbnails import grey_domains

    grey = grey_domains([named["train"] for named in splits(data).values()])
    unet = LayoutUNet.from_pretrained(work / "few-step-thumbnails" / "model")
    decoder = ThumbnailDecoder.from_pretrained(work / "few-step-decoder" / "model")
    steps = {"few_steps": STEPS, "decoder_few_steps": DECODER_STEPS}
    save_half(LayoutPipeline(unet, decoder, FlowMatchEulerDiscreteScheduler(), grey, **steps), weights.FOLDER / "whole")


def store_layouts(data: Path) -> None:
    """Real training layouts, without images, for machines without data."""
    from dataengine.layouts.stored import save_layouts

    (weights.FOLDER / "layouts").mkdir(exist_ok=True)
    for name, parts in splits(data).items():
        save_layouts(weights.FOLDER / "layouts" / f"{name}.npz", [sample.layout for sample in parts["train"]])


def write_detector_data(data: Path, work: Path) -> None:
    """The training parts of all data sets as one, `work/detector-data`; difficult objects become ignored regions."""
    parts = [named["train"] for named in splits(data).values()]
    classes = tuple(name for part in parts for name in part.classes)
    samples = []
    for part in parts:
        for sample in part:
            counted, difficult = (
                sample.layout.select(chosen) for chosen in (~sample.layout.difficult, sample.layout.difficult)
            )
            labels = [classes.index(name) for name in counted.names()]
            ignored = np.concatenate([counted.ignored, difficult.boxes])
            layout = replace(counted, labels=np.array(labels, int), classes=classes, ignored=ignored)
            samples.append(replace(sample, name=f"{part.name}-{sample.name}", layout=layout))
    coco.write(Dataset(classes, samples, "obb", name="packaged"), work / "detector-data", split="train")


def copy_detectors(work: Path) -> None:
    """Copy detectors exported in the other environment."""
    for source, target in (("filter", "detector"), ("evaluation", "evaluation-detector")):
        if (work / "export" / source).exists():
            ignored = shutil.ignore_patterns("metrics.json")  # shown on the detector's card
            shutil.copytree(work / "export" / source, weights.FOLDER / target, ignore=ignored, dirs_exist_ok=True)


def calibrate_filter(data: Path) -> None:
    """Calibrate thresholds on the calibration part, in windows of the packaged size."""
    from dataengine.judge.calibrate import calibrate
    from dataengine.judge.detector import OnnxDetector

    (weights.FOLDER / "calibration").mkdir(exist_ok=True)
    detector = OnnxDetector(weights.packaged("detector"))
    for name, parts in splits(data).items():
        images, layouts = windows(parts["calibration"])
        loaders = [lambda image=image: image for image in images]
        calibration = calibrate(detector, loaders, layouts, name, MIN_PASS_RATES[name])
        calibration.save(weights.FOLDER / "calibration" / f"{name}.json")
        print(calibration.model_dump_json(indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stages",
        nargs="+",
        choices=[*SCHEDULES, "whole", "layouts", "store-control", "detector-data", "detector", "calibration"],
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, curves, sample grids")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of steps")
    parser.add_argument("--start", choices=["packaged"], help="what thumbnails, decoder and in-scene start with")
    parser.add_argument("--minutes", type=float, help="stop each training after this long, with a checkpoint")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = weights.packaged("whole") if arguments.start else None
    for stage in arguments.stages:
        if stage == "whole":
            store_whole(arguments.data, arguments.work)
        elif stage == "control":
            train_ground(arguments.data, arguments.work, arguments.scale, arguments.minutes)
        elif stage == "store-control":
            store_control(arguments.work)
        elif stage == "layouts":
            store_layouts(arguments.data)
        elif stage == "detector-data":
            write_detector_data(arguments.data, arguments.work)
        elif stage == "detector":
            copy_detectors(arguments.work)
        elif stage == "calibration":
            calibrate_filter(arguments.data)
        else:
            train_stage(stage, arguments.data, arguments.work, arguments.scale, arguments.minutes, start)


if __name__ == "__main__":
    main()
