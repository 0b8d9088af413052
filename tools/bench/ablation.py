"""What each part of the whole-image model buys: each switched off in turn, equal steps, on HIT-UAV at a small size.

    python tools/bench/ablation.py --work work/ablation              # all rows, about 15 minutes each on one core
    python tools/bench/ablation.py --work work/ablation --rows full "no masked attention"

Windows of 128 px in patches of 8, which is AeroGen's own ratio (512 px on a grid of 64). Layout score: AP50 and AP of
the packaged evaluation detector, which no model saw, on images made for the layouts of held-out flights. "shuffled"
scores the full model's images against the labels of other images (must be near zero), "real" the real images.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, hit_uav_splits, load

from dataengine import weights
from dataengine.data.layout import Dataset, Layout
from dataengine.evaluate.average_precision import average_precision
from dataengine.judge.detector import OnnxDetector
from dataengine.layouts.windows import cut
from dataengine.render.augment import augment, random_window
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.reference import load_encoder
from dataengine.train.flow_loss import flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, train
from dataengine.train.thumbnails import Windows, make_batch, window_example

SIZE, PATCH, CLASSES = 128, 8, ("Person", "Car", "Bicycle", "OtherVehicle")
MOST = 15  # boxes in AeroGen
MODEL = {
    "sample_size": SIZE, "patch": PATCH, "latent_channels": 1, "block_out_channels": (32, 64),
    "cross_attention_dim": 64, "attention_head_dim": 16, "shape_prior": True,
}  # fmt: skip
# name: arguments of the model, and of the training and sampling around it
ROWS: dict[str, tuple[dict, dict]] = {
    "full": ({}, {}),
    "no masked attention": ({"masked_attention": False}, {}),
    "no exact corners": ({"corners": "grid"}, {}),
    "no exact areas": ({"areas": "grid"}, {}),
    "no angle": ({"angle": False}, {}),
    "no painted input": ({"painted_channels": 0}, {}),
    "no shape prior": ({"shape_prior": False}, {}),
    "no box dropout, no guidance": ({}, {"null_probability": 0.0, "guidance_scale": 1.0}),
    "no foreground weight": ({}, {"foreground_weight": 1.0}),
    "at most 15 boxes": ({}, {"most": MOST}),
    "with regional attention": ({"regional": True}, {}),
    "AeroGen's form": (
        {"masked_attention": False, "corners": "grid", "areas": "grid", "angle": False, "painted_channels": 0,
         "shape_prior": False, "regional": True, "padded_to": MOST},
        {"null_probability": 0.0, "guidance_scale": 1.0, "foreground_weight": 1.0, "most": MOST},
    ),
}  # fmt: skip
AROUND = {"null_probability": 0.1, "guidance_scale": 2.0, "foreground_weight": 2.0, "most": 10_000}


def collect(dataset: Dataset, copies: int, rng: np.random.Generator, encoder=None) -> tuple[list[np.ndarray], Windows]:
    """Windows of each picture, with the embedding of the whole picture as the reference."""
    pictures, layouts, labels, references = [], [], [], []
    for sample in track(list(dataset), "cutting windows"):
        image = load(sample)
        embedding = encoder([image])[0] if encoder else None
        for _ in range(copies):
            turned = augment(image, sample.layout, rng) if copies > 1 else (image, sample.layout)
            window, layout = window_of_an_object(*turned, rng)
            known = np.array([name in CLASSES for name in layout.names()], bool)
            layout = layout.select(known)
            pictures.append(np.ascontiguousarray(window))
            layouts.append(layout)
            labels.append(np.array([CLASSES.index(name) for name in layout.names()], np.int64))
            references.append(embedding)
    grey = np.stack([picture[None, :, :, 0] for picture in pictures])
    latents = ((grey / 127.5 - 1) * 2).astype(np.float16)
    found = np.stack(references) if encoder else None
    return pictures, Windows(latents, layouts, labels, np.zeros(len(layouts), np.int64), found)


def window_of_an_object(image: np.ndarray, layout: Layout, rng: np.random.Generator) -> tuple[np.ndarray, Layout]:
    """A window with some object in it: crowded places come often, as they have many."""
    if not len(layout):
        return random_window(image, layout, SIZE, rng)
    room = np.array([image.shape[1], image.shape[0]]) - SIZE
    corner = layout.boxes[rng.integers(len(layout)), :2] - rng.uniform(0.1, 0.9, 2) * SIZE
    left, top = np.clip(corner.astype(int), 0, room)
    return image[top : top + SIZE, left : left + SIZE], cut(layout, left, top, (SIZE, SIZE))


def capped(windows: Windows, most: int) -> Windows:
    """The windows with at most so many boxes in each layout."""
    layouts = [layout.select(np.arange(len(layout)) < most) for layout in windows.layouts]
    return replace(windows, layouts=layouts, labels=[numbers[:most] for numbers in windows.labels])


def to_images(latents: torch.Tensor) -> list[np.ndarray]:
    """Latents (B, 1, S, S) -> uint8 (S, S, 3) each."""
    grey = ((latents / 2 + 1) * 127.5).round().clamp(0, 255).byte()
    return list(grey.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def draw(model: LayoutUNet, windows: Windows, guidance_scale: float, steps: int = 20) -> list[np.ndarray]:
    """One image for each layout; its noise depends on its number only."""
    images = []
    for start in range(0, len(windows.layouts), 64):
        part = slice(start, start + 64)
        references = None if windows.references is None else windows.references[part]
        batch = model.layout_batch(windows.layouts[part], windows.labels[part], windows.domains[part], references)
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(batch.known))]
        latents = sample_latents(model, batch, generators=generators, guidance_scale=guidance_scale, steps=steps)
        images += to_images(latents)
    return images


def score(images: list[np.ndarray], layouts: list[Layout], detector: OnnxDetector) -> dict[str, float]:
    """AP50 of each class and their mean; AP75."""
    found = average_precision(detector.detect(images), layouts, detector.classes, (0.5, 0.75))
    at = {name: round(value, 4) for name, value in found.at(0.5).items() if name in CLASSES}
    return {"AP50": round(found.mean(0.5), 4), "AP75": round(found.mean(0.75), 4)} | at


def train_row(name: str, windows: Windows, out: Path, settings: TrainSettings) -> tuple[LayoutUNet, dict]:
    """Train a row's model; the model and what was set around it."""
    torch.manual_seed(0)
    arguments, around = ROWS[name][0], AROUND | ROWS[name][1]
    width = 0 if windows.references is None else windows.references.shape[-1]
    model = LayoutUNet(list(CLASSES), ["hit-uav"], **(MODEL | {"reference_width": width} | arguments))
    if width:
        model.standardise_references(windows.references)
    batch = make_batch(capped(windows, around["most"]), model, settings.batch_size, around["null_probability"])
    loss = flow_loss(partial(window_example, foreground_weight=around["foreground_weight"]))
    done = train(model, batch, loss, out, settings, f"ablation {name} {model_settings_text(model)}")
    assert done
    model.save_pretrained(out / "model")
    return model.eval(), around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--windows", type=int, default=4, help="augmented windows of each training image")
    parser.add_argument("--images", type=int, default=400, help="images to score")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = hit_uav_splits(arguments.data)
    encoder = load_encoder(weights.packaged("encoder") / "model.onnx")
    cache = arguments.work / "windows.pt"
    if cache.exists():
        windows, held_out, real = torch.load(cache, weights_only=False)  # our own file, made by the line below
    else:
        windows = collect(parts["train"], arguments.windows, np.random.default_rng(0), encoder)[1]
        real, held_out = collect(parts["test"], 2, np.random.default_rng(1), encoder)
        arguments.work.mkdir(parents=True, exist_ok=True)
        torch.save((windows, held_out, real), cache)
    chosen = [i for i in range(len(real)) if len(held_out.layouts[i])][: arguments.images]
    held_out = Windows(
        held_out.thumbnails[chosen], [held_out.layouts[i] for i in chosen], [held_out.labels[i] for i in chosen],
        held_out.domains[chosen], held_out.references[chosen],
    )  # fmt: skip
    real, detector = [real[i] for i in chosen], OnnxDetector(weights.packaged("evaluation-detector"), threads=1)
    settings = TrainSettings(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=1e-3, ema_decay=0.998,
        warmup_steps=min(100, arguments.steps), checkpoint_minutes=5,
    )  # fmt: skip
    results = arguments.work / "results.jsonl"
    done = {json.loads(line)["row"] for line in results.read_text().splitlines()} if results.exists() else set()

    def note(row: str, values: dict) -> None:
        print(row, values, flush=True)
        with open(results, "a") as file:
            file.write(json.dumps({"row": row, "steps": arguments.steps, "images": len(real)} | values) + "\n")

    if "real" not in done:
        note("real", score(real, held_out.layouts, detector))
    for name in arguments.rows:
        if name in done:
            continue
        model, around = train_row(name, windows, arguments.work / name.replace(" ", "-"), settings)
        asked = capped(held_out, around["most"])
        images = draw(model, asked, around["guidance_scale"])
        note(name, score(images, held_out.layouts, detector))
        if name == "full":
            note("shuffled", score(images, held_out.layouts[1:] + held_out.layouts[:1], detector))
            unknown = replace(asked, references=np.full_like(asked.references, np.nan))
            note("full, without reference", score(draw(model, unknown, 2.0), held_out.layouts, detector))


if __name__ == "__main__":
    main()
