"""How many planted copies of training images `dataengine evaluate memorisation` finds, by kind, and how many false
alarms real held-out images raise.

    python tools/bench/planted_copies.py --images 200 --copies 20

Training and held-out images of each source are those of tools/train_autoencoder.py: other flights, plots, photographs.
The limit is set on one half of the held-out images; false alarms are of the other half.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA
from train_autoencoder import files

from dataengine.data.images import rgb
from dataengine.evaluate.copies import CopyFinder, copied_parts, planted_copy

SIDE = 256
SOURCES = ("hit-uav", "hrplanes", "naip-urban-ca")
RNG = np.random.default_rng(0)


def window(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A random window of at most side x side pixels."""
    height, width = (min(side, extent) for extent in image.shape[:2])
    y, x = (RNG.integers(0, extent - part + 1) for extent, part in zip(image.shape, (height, width), strict=False))
    return image[y : y + height, x : x + width]


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """A window of side x side pixels at 256 x 256."""
    shrinks = side > SIDE
    return cv2.resize(window(image, side), (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """A window of the turned image, without its corners."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    full = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    side = int(min(height, width) * 0.68)
    y, x = (height - side) // 2, (width - side) // 2
    return window(full[y : y + side, x : x + side])


def lit(image: np.ndarray, gamma: float = 1.0, gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
    return np.clip(255 * (image / 255.0) ** gamma * gain + offset, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray, spread: float) -> np.ndarray:
    return np.clip(image + RNG.normal(0, spread, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def half_new(image: np.ndarray) -> np.ndarray:
    """The left half is a copy, the right one grey."""
    copy = window(image).copy()
    copy[:, copy.shape[1] // 2 :] = copy.mean(dtype=np.float64)
    return copy


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "another window": window,
    "mirrored": lambda x: window(x)[:, ::-1],
    "upside down": lambda x: window(x)[::-1],
    "turned by 90": lambda x: np.rot90(window(x)),
    "turned by 180": lambda x: np.rot90(window(x), 2),
    "turned by 270": lambda x: np.rot90(window(x), 3),
    "turned by 30": lambda x: turned(x, 30),
    "turned by 45": lambda x: turned(x, 45),
    "turned by 75, mirrored": lambda x: turned(x, 75)[:, ::-1],
    "window of 160 px": lambda x: resized(x, 160),
    "window of 200 px": lambda x: resized(x, 200),
    "window of 320 px": lambda x: resized(x, 320),
    "stretched by 10 %": lambda x: cv2.resize(window(x), (SIDE, 230)),
    "brighter": lambda x: lit(window(x), offset=50),
    "darker": lambda x: lit(window(x), gain=0.5),
    "gamma 0.5": lambda x: lit(window(x), gamma=0.5),
    "gamma 2": lambda x: lit(window(x), gamma=2.0),
    "more contrast": lambda x: lit(window(x), gain=1.6, offset=-77),
    "less contrast": lambda x: lit(window(x), gain=0.5, offset=64),
    "grey": lambda x: np.repeat(window(x).mean(2, keepdims=True), 3, 2).astype(np.uint8),
    "other colours": lambda x: window(x)[:, :, [2, 0, 1]],
    "noise of 5": lambda x: noisy(window(x), 5),
    "noise of 12": lambda x: noisy(window(x), 12),
    "blurred by 1 px": lambda x: cv2.GaussianBlur(window(x), (0, 0), 1),
    "blurred by 2 px": lambda x: cv2.GaussianBlur(window(x), (0, 0), 2),
    "JPEG of quality 30": lambda x: jpeg(window(x), 30),
    "half of it new": half_new,
    "window, mirrored, gamma 1.6": lambda x: lit(window(x)[:, ::-1], gamma=1.6),
    "turned by 90, noise of 6": lambda x: noisy(np.rot90(window(x)), 6),
    "drawn at random": lambda x: planted_copy(x, SIDE, RNG),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--images", type=int, default=200, help="training images of each source")
    parser.add_argument("--copies", type=int, default=20, help="of each kind")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    training, held_out = (files(arguments.data, part) for part in ("train", "val"))
    for source in arguments.sources:
        chosen = RNG.choice(training[source], min(arguments.images, len(training[source])), replace=False)
        images = [rgb(Path(file)) for file in chosen]
        started = time.perf_counter()
        finder = CopyFinder(images)
        learned = (time.perf_counter() - started) / len(images)
        others = RNG.choice(held_out[source], min(arguments.images, len(held_out[source])), replace=False)
        started = time.perf_counter()
        real = finder.find_all(window(rgb(Path(file))) for file in others)
        searched = (time.perf_counter() - started) / len(others)
        print(f"{source}: {len(images)} training images, {1000 * learned:.0f} ms each to learn; {len(others)} held-out "
              f"images, {1000 * searched:.0f} ms each to search", flush=True)  # fmt: skip
        shares = []
        for kind, change in KINDS.items():
            sources = [images[i] for i in RNG.integers(0, len(images), arguments.copies)]
            copies = finder.find_all(np.ascontiguousarray(change(image)) for image in sources)
            result, _ = copied_parts(copies, real, copies)
            shares.append(result.value("generated", "copied"))
            print(f"  {kind}: {shares[-1]:.0%}", flush=True)
        print(f"{source}: recall {np.mean(shares):.1%}, in {sum(share >= 0.95 for share in shares)} of {len(KINDS)} "
              f"kinds at least 95 %; false alarms {result.value('real, held out', 'copied'):.1%}, "
              f"limit {result.settings['limit']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
