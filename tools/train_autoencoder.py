"""Train the packaged autoencoder on the sample imagery. The same command resumes a stopped run.

python tools/train_autoencoder.py --out work/autoencoder --threads 1 --minutes 150

Half-way weights are kept in the repository, so that a training can go on on another machine, with a new optimizer:

python tools/train_autoencoder.py --out work/autoencoder --save tools/weights/autoencoder
python tools/train_autoencoder.py --out work/autoencoder --start tools/weights/autoencoder --threads 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sample_splits import DEFAULT_DATA, splits
from taef2 import LATENT_CHANNELS, load_teacher

from dataengine.render.autoencoder import Autoencoder
from dataengine.train.autoencoder import mixed_windows, train_autoencoder
from dataengine.train.checkpoint import save_averaged
from dataengine.train.loop import TrainSettings

SHARES = {"hit-uav": 0.25, "hrplanes": 0.25, "naip-urban-ca": 0.3, "aerial-maritime": 0.15, "kit-ais-cars": 0.05}
SUFFIXES = (".jpg", ".jpeg", ".png")
HELD_OUT_WINDOWS = 20  # of each source


def files(data: Path, part: str) -> dict[str, list[Path]]:
    """Image files of each source; part is "train" or "val"."""
    named = {name: parts["train" if part == "train" else "calibration"] for name, parts in splits(data).items()}
    images = {name: [sample.image for sample in dataset] for name, dataset in named.items()}
    for name in ("naip-urban-ca", "aerial-maritime", "kit-ais-cars"):
        images[name] = sorted(f for f in (data / name / part).rglob("*") if f.suffix.lower() in SUFFIXES)
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--teacher", type=Path, default=DEFAULT_DATA.parent / "weights" / "taef2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--minutes", type=float, help="stop after this long, with a checkpoint")
    parser.add_argument("--start", type=Path, help="folder of weights to start from, instead of random ones")
    parser.add_argument("--save", type=Path, help="write the averaged weights of the checkpoint in --out, and end")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.save is not None:
        save_averaged(arguments.out / "checkpoint", Autoencoder(latent_channels=LATENT_CHANNELS), arguments.save)
        return
    torch.set_num_threads(arguments.threads)
    start = None if arguments.start is None else Autoencoder.from_pretrained(arguments.start)
    settings = TrainSettings(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=8e-4,
        ema_decay=0.999,
        minutes=arguments.minutes,
        checkpoint_minutes=5,
        evaluate_every=500,
    )
    held_out = {}
    for name, images in files(arguments.data, "val").items():
        windows = mixed_windows([images], [1.0], seed=1)[:HELD_OUT_WINDOWS]
        held_out[name] = [np.asarray(window.pixels()) for window in windows]
    model_settings = {"latent_channels": LATENT_CHANNELS}
    teacher = load_teacher(arguments.teacher)
    sources = files(arguments.data, "train")
    train_autoencoder(
        sources, SHARES, held_out, teacher, arguments.out, settings, model_settings=model_settings, start=start
    )


if __name__ == "__main__":
    main()
