"""Cut training tiles from the sample data into one file that training elsewhere needs nothing else for.

python tools/pack_tiles.py --out work/tiles.npz --copies 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track
from sample_splits import DEFAULT_DATA, splits

from dataengine.train.augment import augment, random_window

MIN_VISIBLE = 0.3


def pack(data: Path, part: str, copies: int, size: int, seed: int) -> dict[str, np.ndarray]:
    """Tiles of one part of all data sets. images: uint8 (N, size, size, 3); boxes float32 (K, 6): five numbers and the
    class; first: int64 (N + 1,), tile i owns boxes first[i]:first[i + 1]; dataset: int64 (N,). Without `copies`, every
    image gives one window that is not augmented."""
    rng = np.random.default_rng(seed)
    images, boxes, first, source = [], [], [0], []
    parts = [named[part] for named in splits(data).values()]
    classes = [name for dataset in parts for name in dataset.classes]
    for number, dataset in enumerate(parts):
        for sample in track(dataset.samples, f"{dataset.name} {part}"):
            picture = np.asarray(Image.open(sample.image).convert("RGB"))
            for _ in range(max(1, copies)):
                image, layout = picture, sample.layout
                if copies:
                    image, layout = augment(image, layout, rng, scale=(0.75, 1.3))
                image, layout = random_window(image, layout, size, rng)
                layout = layout.select(layout.visible >= MIN_VISIBLE)
                labels = [classes.index(name) for name in layout.names()]
                images.append(image), source.append(number)
                boxes.append(np.column_stack([layout.boxes, np.float32(labels)]).reshape(-1, 6))
                first.append(first[-1] + len(layout))
    return {
        "images": np.stack(images),
        "boxes": np.concatenate(boxes).astype(np.float32),
        "first": np.asarray(first),
        "dataset": np.asarray(source),
        "classes": np.asarray(classes),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="train", choices=("train", "calibration", "test"))
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    packed = pack(arguments.data, arguments.part, arguments.copies, arguments.size, arguments.seed)
    np.savez(arguments.out, **packed)
    print(f"{arguments.out}: {len(packed['images'])} tiles, {len(packed['boxes'])} objects")
