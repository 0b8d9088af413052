"""The picture of README: 16 random accepted images of each run, in rows without and with boxes.

dataengine synth --dataset hit-uav --n 40 --seed 7 --out runs/thermal
dataengine synth --dataset hrplanes --n 40 --seed 7 --out runs/optical
python tools/kept_picture.py runs/thermal runs/optical --out docs/images/kept.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data import coco
from dataengine.data.draw import draw
from dataengine.data.images import read_or_fail

IMAGES, COLUMNS, SIDE_PX = 16, 8, 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for run in arguments.runs:
        dataset = coco.read(run / "coco")
        chosen = np.random.default_rng(0).choice(len(dataset), IMAGES, replace=False)
        samples = [dataset.samples[i] for i in chosen]
        for start in range(0, IMAGES, COLUMNS):
            now = [(read_or_fail(sample), sample.layout) for sample in samples[start : start + COLUMNS]]
            for pictures in ([image for image, _ in now], [np.asarray(draw(*each)) for each in now]):
                small = [
                    Image.fromarray(each).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS) for each in pictures
                ]
                rows.append(np.concatenate([np.asarray(each) for each in small], 1))
    Image.fromarray(np.concatenate(rows, 0)).save(arguments.out, quality=88)


if __name__ == "__main__":
    main()
