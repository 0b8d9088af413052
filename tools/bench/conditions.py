"""Does the packaged whole-image renderer follow the conditions that it was trained with? Night and references, HIT-UAV.

    python tools/bench/conditions.py --images 100

Layouts of held-out flights. Night: each is drawn by day and by night; a linear classifier of real training windows
tells which (control: real held-out windows; the answers shuffled). Reference: likeness is the correlation, over all
pairs of pictures, of how alike two references are with how alike the two drawn pictures are (control: references
shuffled afterwards; pictures drawn without one).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from acquisition import NightClassifier
from reference import likeness

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, hit_uav_splits, load, windows

from dataengine import weights
from dataengine.data.layout import Layout
from dataengine.render.reference import load_encoder
from dataengine.render.renderer import load_renderer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--model", type=Path, help="a whole-image pipeline; the packaged one if not given")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    parts = hit_uav_splits(arguments.data)
    renderer = load_renderer(arguments.model or weights.packaged("whole"), "whole")
    trained, trained_layouts = windows(parts["train"])
    held_out, held_out_layouts = windows(parts["test"])
    rng = np.random.default_rng(0)
    chosen = rng.permutation([i for i, x in enumerate(held_out_layouts) if x.size == (renderer.size,) * 2])
    layouts = [held_out_layouts[i] for i in chosen[: arguments.images]]

    def draw(some: list[Layout], references: np.ndarray | None = None) -> list[np.ndarray]:
        drawn: list[np.ndarray] = []
        for start in range(0, len(some), 16):
            part = slice(start, start + 16)
            given = None if references is None else references[part]
            seeds = range(start, start + len(some[part]))
            drawn += renderer(some[part], seeds, "hit-uav", renderer.steps, 1.0, references=given)
        return drawn

    def at(night: bool) -> list[Layout]:
        return [replace(x, acquisition=x.acquisition.model_copy(update={"night": night})) for x in layouts]

    def nights(some: list[Layout]) -> np.ndarray:
        return np.array([bool(x.acquisition.night) for x in some])

    classifier = NightClassifier(trained, nights(trained_layouts))
    pictures, asked = draw(at(False)) + draw(at(True)), np.repeat([False, True], len(layouts))
    result = {
        "night_told_from_day": {
            "drawn": classifier.accuracy(pictures, asked),
            "shuffled": classifier.accuracy(pictures, rng.permutation(asked)),
            "real_held_out": classifier.accuracy(held_out, nights(held_out_layouts)),
        }
    }
    if renderer.unet.config.reference_width:
        encode = load_encoder(weights.packaged("encoder") / "model.onnx")
        # pictures of training images, so that they are not what the layouts were taken from
        samples = parts["train"].samples
        own = np.concatenate([encode([load(samples[i])]) for i in rng.permutation(len(samples))[: len(layouts)]])
        drawn, without = (encode(draw(layouts, given))[:, 0] for given in (own, None))
        result["likeness"] = {
            "reference": likeness(own[:, 0], drawn),
            "shuffled": likeness(rng.permutation(own[:, 0]), drawn),
            "without": likeness(own[:, 0], without),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
