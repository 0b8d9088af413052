"""What may not change unnoticed from one version to the next: layouts, seeds, scenes and noise of the packaged runs.

    python tests/engine/test_golden.py      # writes golden_manifest.json anew, for a change that is meant; commit both

Pixels are not in it: they depend on the kind of CPU, and on weights, which are compared by their hashes in a run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dataengine import weights
from dataengine.data.layout import layout_to_json
from dataengine.engine.attempt import sample_layouts
from dataengine.engine.recipe import Recipe
from dataengine.engine.samplers import choose_layouts, find_layouts, make_sampler
from dataengine.render.flow import draw_noise
from dataengine.seeds import image_seed, noise_seed

GOLDEN = Path(__file__).with_name("golden_manifest.json")
IMAGES, OBJECTS = 6, 2
TOLERANCE = 2e-3  # a step of the last digit that is kept; elsewhere, a float may round the other way


def drawn(name: str, seed: int = 0) -> list[dict]:
    """Of the first images of a run on a machine without data: seed, layout, and a checksum of some objects' noise."""
    from dataengine.data.presets import load_preset

    recipe, preset = Recipe(dataset=name, seed=seed), load_preset(name)
    layouts, _ = find_layouts(preset, None, preset.classes)
    sampler = make_sampler(recipe, choose_layouts(recipe, layouts), preset.classes)
    images = []
    for index, layout in enumerate(sample_layouts(SimpleNamespace(sampler=sampler), recipe, range(IMAGES))):
        own = image_seed(recipe.seed, index)
        generators = [torch.Generator().manual_seed(noise_seed(own, k)) for k in range(OBJECTS)]
        noise = draw_noise(generators, (3, 8, 8), torch.device("cpu"))().numpy()
        checksum = hashlib.sha256(np.rint(noise * 1000).astype(np.int32).tobytes()).hexdigest()[:16]
        images.append({"seed": own, "layout": layout_to_json(layout), "noise": checksum})
    return images


def moved(golden: dict, now: dict) -> list[str]:
    """What of an image is another now."""
    names = [name for name in ("seed", "noise") if golden[name] != now[name]]
    before, after = dict(golden["layout"]), dict(now["layout"])
    boxes = np.array(before.pop("boxes")), np.array(after.pop("boxes"))
    if boxes[0].shape != boxes[1].shape or np.abs(boxes[0] - boxes[1]).max(initial=0) > TOLERANCE:
        names.append("boxes")
    return names + sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@pytest.mark.parametrize("name", ["hit-uav", "hrplanes"])
def test_layouts_seeds_and_noise_are_those_of_the_version_before(name):
    assert weights.has(f"layouts/{name}.npz")
    golden = json.loads(GOLDEN.read_text())[name]
    found = {i: names for i, pair in enumerate(zip(golden, drawn(name), strict=True)) if (names := moved(*pair))}
    assert not found, f"of image, another: {found}; if that is meant, see the head of this file"


@pytest.mark.parametrize("change", ["seed of the run", "sampler", "noise"])
def test_a_change_would_be_noticed(change, monkeypatch):
    golden = json.loads(GOLDEN.read_text())["hit-uav"]
    if change == "sampler":
        monkeypatch.setattr("dataengine.layouts.reuse._MAX_WINDOWS", 0)
    if change == "noise":
        monkeypatch.setattr(sys.modules[__name__], "noise_seed", lambda seed, k: seed % 2**63)
    now = drawn("hit-uav", seed=int(change == "seed of the run"))
    assert any(moved(*pair) for pair in zip(golden, now, strict=True))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: drawn(name) for name in ("hit-uav", "hrplanes")}, separators=(",", ":")) + "\n")
