r"""How right and how complete are the labels of `dataengine filter label`, on real images that nothing was trained on?

python tools/bench/labelling.py hit-uav
python tools/bench/labelling.py hrplanes --tile-size 384 --doubt 0.2 \
    --detector work/hrplanes-100/detector --calibration work/hrplanes-100/calibration.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, load, splits

from dataengine import geometry, weights
from dataengine.data.tile import crop_layout, windows
from dataengine.judge.calibration import Calibration
from dataengine.judge.commands import MIN_VISIBLE
from dataengine.judge.detector import load_detector
from dataengine.judge.labelling import label
from dataengine.render.placement import empty_layout

RIGHT = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("hit-uav", "hrplanes"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--sure", type=float)
    parser.add_argument("--doubt", type=float)
    parser.add_argument("--detector", type=Path, default=weights.packaged("detector"))
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    test = splits(arguments.data)[arguments.dataset]["test"]
    detector = load_detector(arguments.detector)
    packaged = weights.packaged(f"calibration/{arguments.dataset}.json")
    rule = Calibration.load(arguments.calibration or packaged)
    tiles, kept, in_kept = 0, 0, 0
    objects, labelled, right = (np.zeros(len(test.classes), int) for _ in range(3))
    for i in np.random.default_rng(0).permutation(len(test))[: arguments.images]:
        sample = test.samples[i]
        found = detector.detect([load(sample)])[0]
        bare = replace(empty_layout(sample.layout), classes=test.classes)
        made = label(found, bare, detector.classes, rule, arguments.sure, arguments.doubt)
        for window in windows(sample.layout.size, arguments.tile_size, 0):
            tiles += 1
            truth, mine = (crop_layout(x, window, MIN_VISIBLE) for x in (sample.layout, made))
            if len(mine.ignored):
                continue
            kept += 1
            in_kept += bool(len(truth)) or bool(len(mine))
            same = (geometry.iou(mine.boxes, truth.boxes) >= RIGHT) & (mine.labels[:, None] == truth.labels[None])
            objects += np.bincount(truth.labels, minlength=len(objects))
            labelled += np.bincount(mine.labels, minlength=len(objects))
            right += np.bincount(mine.labels[same.any(1)], minlength=len(objects))
    print(
        f"{tiles} tiles of {arguments.tile_size} px, {kept} show nothing doubtful ({kept / tiles:.0%}), "
        f"{in_kept} of them an object"
    )
    for name, *row in zip(test.classes, objects, labelled, right, strict=True):
        print(f"{name:14} objects {row[0]:5} labelled {row[1]:5} right {row[2] / max(1, row[1]):6.1%} "
              f"of all {row[2] / max(1, row[0]):6.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
