"""Pack the images and labels of one part of the sample data into one file, for detector training elsewhere.

    python tools/pack_images.py --out work/train.npz

data: uint8, the concatenated image files; image i is data[start[i]:start[i + 1]]. boxes: float32 (K, 6), box and class;
those of image i are first[i]:first[i + 1]. ignored: float32 (M, 5), likewise by ignored_first. down: bool (N,), the
camera looks straight down. upright: bool (N,), boxes are axis-aligned by definition.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sample_splits import DEFAULT_DATA, PARTS, splits


def pack(data: Path, part: str) -> dict[str, np.ndarray]:
    """Pack one part of both data sets, with a common list of classes; difficult objects become ignored regions."""
    datasets = [named[part] for named in splits(data).values()]
    classes = [name for dataset in datasets for name in dataset.classes]
    files, boxes, ignored, down, upright = [], [], [], [], []
    for dataset in datasets:
        for sample in dataset:
            layout = sample.layout
            counted = layout.select(~layout.difficult)
            labels = np.float32([classes.index(name) for name in counted.names()])
            files.append(np.frombuffer(sample.image.read_bytes(), np.uint8))
            boxes.append(np.column_stack([counted.boxes, labels]).reshape(-1, 6))
            ignored.append(np.concatenate([layout.ignored, layout.boxes[layout.difficult]]))
            down.append(layout.acquisition.looks_down)
            upright.append(layout.kind == "hbb")

    def ends(parts: list) -> np.ndarray:
        return np.cumsum([0, *map(len, parts)])

    return {
        "data": np.concatenate(files),
        "start": ends(files),
        "boxes": np.concatenate(boxes).astype(np.float32),
        "first": ends(boxes),
        "ignored": np.concatenate(ignored).astype(np.float32),
        "ignored_first": ends(ignored),
        "down": np.array(down),
        "upright": np.array(upright),
        "classes": np.array(classes),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="train", choices=PARTS)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    packed = pack(arguments.data, arguments.part)
    np.savez(arguments.out, **packed)
    print(f"{arguments.out}: {len(packed['down'])} images, {len(packed['boxes'])} objects")
