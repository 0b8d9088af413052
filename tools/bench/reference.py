"""Does the picture look like its reference, and does the layout still hold? On the ablation's full model.

    python tools/bench/ablation.py --work work/ablation --rows full
    python tools/bench/reference.py --work work/ablation            # goes on from there, with more weight on it

Likeness: correlation, over all pairs of drawn images, of how near their references' embeddings are with how near their
own are. Control: the same with the references shuffled afterwards; and images drawn without any reference. Layout
score (AP50) with the held-out images' own references, with new ones drawn like the training images', and with none.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from ablation import AROUND, draw, score

from dataengine import weights
from dataengine.judge.detector import OnnxDetector
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.reference import ReferenceSampler, load_encoder
from dataengine.train.flow_loss import flow_loss
from dataengine.train.loop import TrainSettings, train
from dataengine.train.thumbnails import make_batch, window_example


def likeness(references: np.ndarray, images: np.ndarray) -> float:
    """Correlation of the cosine similarities of all pairs, embeddings (M, E) centred."""

    def similarities(x: np.ndarray) -> np.ndarray:
        x = x - x.mean(0)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (x @ x.T)[np.triu_indices(len(x), 1)]

    return round(float(np.corrcoef(similarities(references), similarities(images))[0, 1]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    windows, held_out, _ = torch.load(arguments.work / "windows.pt", weights_only=False)  # our own file, see ablation
    model = LayoutUNet.from_pretrained(arguments.work / "full" / "model")
    model.standardise_references(windows.references)
    settings = TrainSettings(
        steps=arguments.steps, batch_size=32, learning_rate=1e-3, ema_decay=0.998, warmup_steps=20,
        checkpoint_minutes=5,
    )  # fmt: skip
    batch = make_batch(windows, model, settings.batch_size)
    train(model, batch, flow_loss(window_example), arguments.work / "reference", settings, "reference")
    model.eval()
    chosen = [i for i in range(len(held_out.layouts)) if len(held_out.layouts[i])][: arguments.images]
    held_out = replace(
        held_out, thumbnails=held_out.thumbnails[chosen], layouts=[held_out.layouts[i] for i in chosen],
        labels=[held_out.labels[i] for i in chosen], domains=held_out.domains[chosen],
        references=held_out.references[chosen],
    )  # fmt: skip
    encoder = load_encoder(weights.packaged("encoder") / "model.onnx")
    detector = OnnxDetector(weights.packaged("evaluation-detector"), threads=1)
    new = ReferenceSampler(np.unique(windows.references, axis=0)).draw(range(len(chosen)))
    given = {"own": held_out.references, "drawn": new, "none": np.full_like(new, np.nan)}
    images = {name: draw(model, replace(held_out, references=r), AROUND["guidance_scale"]) for name, r in given.items()}
    embedded = {name: encoder(some)[:, 0] for name, some in images.items()}
    own, rng = held_out.references[:, 0], np.random.default_rng(0)
    result = {
        "likeness_to_own_reference": likeness(own, embedded["own"]),
        "likeness_to_drawn_reference": likeness(new[:, 0], embedded["drawn"]),
        "likeness_shuffled": likeness(rng.permutation(own), embedded["own"]),
        "likeness_without_reference": likeness(own, embedded["none"]),
        "spread_of_embeddings": {name: round(float(x.std(0).mean()), 3) for name, x in embedded.items()},
        "AP50": {name: score(some, held_out.layouts, detector)["AP50"] for name, some in images.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
