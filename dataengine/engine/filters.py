"""The filters of a recipe, calibrated on real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dataengine import weights
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset
from dataengine.data.presets import Preset
from dataengine.engine.pictures import real_pictures
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detector

if TYPE_CHECKING:
    from dataengine.judge.semantic import SemanticFilter


def find_calibration(recipe: Recipe, preset: Preset, dataset: Dataset | None) -> Calibration | None:
    """The one given, or the packaged one; None where there is neither, but a data set to calibrate on."""
    if recipe.calibration is not None:
        return Calibration.load(recipe.calibration)
    packaged = f"calibration/{preset.name}.json"
    if recipe.detector is None and weights.has(packaged):
        return Calibration.load(weights.packaged(packaged))
    if dataset is None:
        raise UserError("this detector has no calibration: give --calibration, or --data to calibrate it on.")
    return None


def make_calibration(
    recipe: Recipe, preset: Preset, detector: Detector, dataset: Dataset, notes: list[str]
) -> Calibration:
    """A new one, on the data set's own images."""
    from dataengine.judge.calibrate import calibrate

    chosen = np.random.default_rng(recipe.seed).permutation(len(dataset))[:200]
    samples = [dataset.samples[i] for i in sorted(chosen)]
    readable = [sample for sample in samples if read_picture(sample) is not None]
    notes.append(f"the filter was calibrated on {len(readable)} images of the data set itself")
    if len(readable) < len(samples):
        notes.append(f"{len(samples) - len(readable)} of its images cannot be read; see dataengine data check")
    loaders = [lambda sample=sample: read_picture(sample) for sample in readable]
    return calibrate(detector, loaders, [s.layout for s in readable], preset.name, recipe.pass_share)


def make_semantic(recipe: Recipe, dataset: Dataset | None, notes: list[str]) -> SemanticFilter | None:
    """The semantic filter with its threshold set on the data set's own images, None where the recipe has none."""
    if recipe.semantic_filter is None:
        return None
    from dataengine.judge.semantic import SemanticFilter

    semantic = SemanticFilter(recipe.semantic_filter)
    semantic.calibrate(*real_pictures(dataset, "the semantic filter"), recipe.pass_share)
    notes.append(f"{recipe.pass_share:.0%} of real images agree with their prompt by {semantic.threshold:.3f}, to CLIP")
    return semantic
