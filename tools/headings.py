"""Where the airplanes of HRPlanes point, whose labels are horizontal boxes; the in-scene model learns from it.

    python tools/headings.py --out work/headings.json --sheet work/headings.png

1. Each airplane is matched with drawn airplanes of four kinds in 72 directions; an airplane is symmetric about its
   fuselage, so its own symmetry about the direction counts too. The drawings are then replaced by the means of what
   matched them, ten times.
2. Directions of two of the kinds are right nearly always, those of the others are often a quarter turn off. A small
   network learns from the first, which of four quarter turns a picture shows, and corrects all; then from the surest of
   all, twice.

Written: {"image name/number of the object": radians}, clockwise from "to the right"; the least sure are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from sample_splits import DEFAULT_DATA, hrplanes_splits
from torch import nn

from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset
from dataengine.files import write_whole

SIDE = 40  # pixels of a crop
CONTEXT = 1.25  # side of a crop / long side of the box
MIN_SIDE_PX = 14.0  # smaller airplanes show no nose
DIRECTIONS = 72
SYMMETRY_WEIGHT = 0.6
SURE_KINDS = {0: 0.8, 3: 0.6}  # kinds whose directions are right, and the share of each that is learned from
STEPS = (400, 500, 500)
SHARES = (0.65, 0.8, 0.85)  # of all airplanes, the surest, that are kept after each round
BATCH = 96

_rows, _columns = np.mgrid[:SIDE, :SIDE] + 0.5
DISC = np.clip((SIDE / 2 - np.hypot(_columns - SIDE / 2, _rows - SIDE / 2)) / 2, 0, 1).astype(np.float32)


def crops_of(dataset: Dataset) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Crops (N, SIDE, SIDE, 3) uint8 of whole airplanes, and the image name and number of each."""
    crops, keys = [], []
    for sample in dataset:
        image, layout = read_or_fail(sample), sample.layout
        for k, box in enumerate(layout.boxes):
            side = max(box[2], box[3]) * CONTEXT
            if layout.visible[k] < 0.99 or side < MIN_SIDE_PX * CONTEXT:
                continue
            scale = side / SIDE
            matrix = np.float32([[scale, 0, box[0] - side / 2], [0, scale, box[1] - side / 2]])
            source = cv2.GaussianBlur(image, (0, 0), 0.35 * scale) if scale > 1.2 else image
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            crops.append(cv2.warpAffine(source, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT_101))
            keys.append((sample.name, k))
    return np.stack(crops), keys


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """An image with its content turned clockwise."""
    matrix = cv2.getRotationMatrix2D((SIDE / 2 - 0.5, SIDE / 2 - 0.5), -degrees, 1)
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def normed(images: np.ndarray) -> np.ndarray:
    """Grey images (..., SIDE, SIDE) in a disc, with mean 0 and norm 1."""
    images = (images - (images * DISC).sum((-1, -2), keepdims=True) / DISC.sum()) * DISC
    return images / np.sqrt((images**2).sum((-1, -2), keepdims=True) + 1e-6)


def drawn_airplanes() -> list[np.ndarray]:
    """Four kinds, nose to the right: swept wings, straight wings, a delta, and a short one with a propeller."""

    def wings(root: float, tip: float, chord: float, span: float) -> list:
        back, middle = root - chord, tip - chord / 2
        return [(root, 0), (tip, span), (middle, span), (back, 0), (middle, -span), (tip, -span)]

    def tail(root: float, span: float, sweep: float) -> list:
        tip, middle = root - sweep, root - sweep - 0.1
        return [(root, 0), (tip, span), (middle, span), (root - 0.22, 0), (middle, -span), (tip, -span)]

    body = [(0.97, 0), (0.85, 0.08), (-0.95, 0.05), (-0.95, -0.05), (0.85, -0.08)]
    short = [(0.75, 0), (0.7, 0.1), (-0.75, 0.06), (-0.75, -0.06), (0.7, -0.1)]
    kinds = (
        (body, wings(0.3, -0.2, 0.38, 0.95), tail(-0.75, 0.36, 0.15)),
        (body, wings(0.25, 0.1, 0.3, 1.0), tail(-0.75, 0.4, 0.05)),
        (body, wings(0.35, -0.6, 0.95, 0.7), tail(-0.8, 0.25, 0.15)),
        (short, wings(0.4, 0.3, 0.35, 1.05), tail(-0.6, 0.4, 0.03)),
    )
    drawings = []
    for parts in kinds:
        canvas = np.zeros((4 * SIDE, 4 * SIDE), np.float32)
        for points in parts:
            cv2.fillPoly(canvas, [np.int32(2 * SIDE + np.array(points) * 4 * SIDE / 2 / CONTEXT)], 1.0)
        drawings.append(cv2.resize(cv2.GaussianBlur(canvas, (0, 0), 5), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return drawings


def matched(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kind (N,), direction in degrees (N,), and by how much it fits better than a quarter turn away (N,)."""
    grey = normed(crops.astype(np.float32).mean(3))
    n, step = len(grey), 360 / DIRECTIONS
    symmetry = np.zeros((n, DIRECTIONS), np.float32)
    for a in range(DIRECTIONS // 2):
        upright = normed(np.stack([turned(image, -step * a) for image in grey]))
        symmetry[:, a] = symmetry[:, a + DIRECTIONS // 2] = (upright * upright[:, ::-1]).sum((1, 2))
    kinds = drawn_airplanes()
    for round_ in range(11):
        bank = normed(np.stack([turned(kind, step * a) for kind in kinds for a in range(DIRECTIONS)]))
        scores = grey.reshape(n, -1) @ bank.reshape(len(bank), -1).T + SYMMETRY_WEIGHT * np.tile(symmetry, len(kinds))
        best, score = scores.argmax(1), scores.max(1)
        kind, direction = best // DIRECTIONS, best % DIRECTIONS
        if round_ == 10:
            break
        upright = np.stack([turned(image, -step * a) for image, a in zip(grey, direction, strict=True)])
        means = []
        for k in range(len(kinds)):
            chosen = kind == k
            chosen &= score > np.quantile(score[chosen], 0.4)
            mean = upright[chosen].mean(0)
            means.append((mean + mean[::-1]) / 2)
        kinds = means
    by_direction = scores.reshape(n, len(kinds), DIRECTIONS).max(1)
    quarters = [by_direction[np.arange(n), (direction + q * DIRECTIONS // 4) % DIRECTIONS] for q in (1, 2, 3)]
    return kind, direction * step, score - np.max(quarters, 0)


def corrected(crops: np.ndarray, kind: np.ndarray, degrees: np.ndarray, margin: np.ndarray):
    """Directions in degrees (N,) without errors by quarter turns, and how sure each is (N,)."""
    rng, degrees = np.random.default_rng(0), degrees.copy()
    torch.manual_seed(0)
    learned = np.zeros(len(crops), bool)
    for k, share in SURE_KINDS.items():
        learned |= (kind == k) & (margin > np.quantile(margin[kind == k], 1 - share))
    for steps, share in zip(STEPS, SHARES, strict=True):
        network = _trained(crops, np.flatnonzero(learned), degrees, steps, rng)
        scores = _scores(network, crops, degrees)
        degrees = degrees + 90 * scores.argmax(1)
        ordered = np.sort(scores, 1)
        sure = ordered[:, -1] - ordered[:, -2]
        learned = sure > np.quantile(sure, 1 - share)
    return degrees % 360, sure


def _view(crop: np.ndarray, degrees: float) -> np.ndarray:
    pixels = turned(crop, -degrees).astype(np.float32)
    return (pixels - np.median(pixels, (0, 1))) / 40 * DISC[..., None]


def _trained(crops, chosen, degrees, steps: int, rng: np.random.Generator) -> nn.Module:
    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [*block(3, 24, 2), *block(24, 48, 2), *block(48, 64, 1), *block(64, 96, 2), nn.Flatten(), nn.Dropout(0.3)]
    network = nn.Sequential(*layers, nn.Linear(96 * 25, 4))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        index, quarters = rng.choice(chosen, BATCH), rng.integers(0, 4, BATCH)
        views = [_view(crops[i], degrees[i] + 90 * q + rng.normal(0, 6)) for i, q in zip(index, quarters, strict=True)]
        x, mirrored = np.stack(views), rng.random(BATCH) < 0.5
        x[mirrored] = x[mirrored, ::-1]
        quarters = np.where(mirrored, -quarters % 4, quarters)
        x = x * rng.uniform(0.7, 1.4, (BATCH, 1, 1, 1)).astype(np.float32)
        x = x[..., rng.permutation(3)] if rng.random() < 0.5 else x
        loss = nn.functional.cross_entropy(network(_tensor(x)), torch.from_numpy(quarters), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _tensor(views: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2)).astype(np.float32))


@torch.no_grad()
def _scores(network: nn.Module, crops: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Mean log probability (N, 4) that a direction is 0 to 3 quarter turns more than `degrees`."""
    scores = np.zeros((len(crops), 4), np.float32)
    for quarter in range(4):
        for start in range(0, len(crops), 512):
            rows = range(start, min(start + 512, len(crops)))
            views = np.stack([_view(crops[i], degrees[i] + 90 * quarter) for i in rows])
            for mirrored in (False, True):
                logs = torch.log_softmax(network(_tensor(views[:, ::-1] if mirrored else views)), 1).numpy()
                for more in range(4):
                    shown = (quarter - more) % 4
                    scores[rows, more] += logs[:, -shown % 4 if mirrored else shown] / 8
    return scores


def sheet(crops: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """192 random crops with the nose to the right."""
    chosen = np.random.default_rng(0).choice(len(crops), 192, replace=False)
    pictures = [cv2.resize(turned(crops[i], -degrees[i]), (80, 80)) for i in chosen]
    return np.concatenate([np.concatenate(pictures[row : row + 16], 1) for row in range(0, 192, 16)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="picture of airplanes turned with the nose to the right")
    arguments = parser.parse_args()
    crops, keys = crops_of(hrplanes_splits(arguments.data)["train"])
    degrees, sure = corrected(crops, *matched(crops))
    kept = sure > np.quantile(sure, 1 - SHARES[-1])
    found = {f"{name}/{k}": float(np.radians(d)) for (name, k), d, s in zip(keys, degrees, kept, strict=True) if s}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.out, json.dumps(found))
    print(f"{len(found)} headings of {len(keys)} airplanes")
    if arguments.sheet:
        cv2.imwrite(str(arguments.sheet), sheet(crops[kept], degrees[kept])[..., ::-1])


if __name__ == "__main__":
    main()
