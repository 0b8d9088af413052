"""The layouts of a recipe, and the sampler that it names."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from dataengine.data.layout import Dataset, Layout, class_key, restrict_layout
from dataengine.data.presets import Preset
from dataengine.engine.recipe import RANGES, Recipe
from dataengine.engine.stand_in import StandIn
from dataengine.errors import UserError
from dataengine.layouts.constraints import whole
from dataengine.layouts.given import GivenSampler
from dataengine.layouts.sampler import EnhancedSampler, FilteredSampler, NormalFilter, Sampler
from dataengine.layouts.windows import random_windows
from dataengine.render.renderer import Renderer

CROWDING_SEED, N_CROWDING_DRAWS = 0, 20
MAX_REUSES = 50  # of each real object of a class; more are reported,
MAX_REUSE_RATIO = 5  # if that is also so many times as often as objects of all classes
N_LENGTH_DRAWS, MIN_LENGTHS = 60, 10  # layouts sampled to measure lengths; objects of a class that give a median
MIN_CLASS_SHARE = 0.4  # of a class among the objects of layouts, compared with that among the real ones
MAX_LENGTH_RATIO = 1.2  # of the median length of a class, real to sampled or the reverse; more is reported,
MIN_WHOLE_SHARE = 0.5  # and a class of which fewer are whole, of the share that is whole in real images


def find_layouts(
    preset: Preset, dataset: Dataset | None, classes: tuple[str, ...], stand_in: StandIn | None = None
) -> tuple[list[Layout], str]:
    """Layouts with an object in them, of the data set, the preset's packaged ones or what stands in for them, and the
    hash of them all."""
    if dataset is not None:
        layouts = [replace(sample.layout, origins=(sample.name,)) for sample in dataset if len(sample.layout)]
        if not layouts:
            raise UserError(
                f"{preset.title}: no image shows {', '.join(classes)}, which is all that the renderer and the detector "
                "both know of it; see that it is labelled (dataengine data info), or train a renderer on it "
                "(dataengine train renderer)."
            )
        total = hashlib.sha256()
        for sample in dataset:
            total.update(sample.name.encode())
            total.update(sample.layout.boxes.tobytes())
        return layouts, total.hexdigest()[:16]
    return (stand_in or StandIn(preset, classes)).layouts(classes)


def choose_layouts(recipe: Recipe, layouts: list[Layout]) -> list[Layout]:
    """The layouts with the acquisition that the recipe asks for. Raises UserError, which names what is available, where
    there is none."""
    chosen = [layout for layout in layouts if recipe.wants(layout.acquisition)]
    if chosen:
        return chosen
    known = {}
    for option, name in RANGES.items():
        option = option.replace("_", "-")
        values = [v for layout in layouts if (v := getattr(layout.acquisition, name)) is not None]
        known[option] = f"--{option} {min(values):g} {max(values):g}" if values else f"no {option}"
    nights = {layout.acquisition.night for layout in layouts} - {None}
    known["night"] = " and ".join("--night" if night else "--day" for night in sorted(nights)) or "no night or day"
    raise UserError(
        f"no layout matches these filters. Available: {', '.join(known.values())}. Widen a range, or leave out an "
        "option of which nothing is known."
    )


def make_sampler(recipe: Recipe, layouts: list[Layout], classes: tuple[str, ...]) -> Sampler:
    """The sampler that the recipe names, with enhancement and label filter around it where they are asked for."""
    sampler = _base_sampler(recipe, layouts, classes)
    if recipe.layouts == "diffusion" and recipe.enhance:
        sampler = EnhancedSampler(sampler, layouts)
    if recipe.label_filter is not None:
        windows = random_windows(layouts, sampler.size, np.random.default_rng(recipe.seed))
        sampler = FilteredSampler(sampler, NormalFilter(windows, recipe.label_filter))
    return sampler


def _base_sampler(recipe: Recipe, layouts: list[Layout], classes: tuple[str, ...]) -> Sampler:
    size = (recipe.size, recipe.size)
    if recipe.layout is not None:
        return GivenSampler(layouts[0])
    if recipe.layouts == "diffusion":
        from dataengine.layouts.diffusion_sampler import DiffusionSampler, load_layout_model

        if recipe.balance is not None:
            raise UserError("--balance is for reuse and prior; a layout model draws classes as it has learnt them.")
        return _Restricted(DiffusionSampler(load_layout_model(recipe.layout_model), size, wanted=recipe.wants), classes)
    if recipe.layouts == "map":
        from dataengine.layouts.map_sampler import map_sampler

        return map_sampler(recipe.map, layouts, size, recipe.map_gsd, recipe.map_box)
    if recipe.layouts == "prior":
        from dataengine.layouts.prior_fit import fit
        from dataengine.layouts.prior_sampler import PriorSampler

        return PriorSampler(fit(layouts, size), size, recipe.balance)
    from dataengine.layouts.reuse import ReuseSampler

    as_they_are = {} if recipe.enhance else {"scale": (1.0, 1.0), "turn": False, "merge": 0.0}
    return ReuseSampler(layouts, size, recipe.balance, rows=recipe.rows, **as_they_are)


def reuse_warnings(recipe: Recipe, sampler: Sampler, layouts: list[Layout]) -> list[str]:
    """A sentence for each class that --balance raises so far that its few real objects come up again and again."""
    if recipe.balance is None or recipe.layouts != "reuse":
        return []
    classes, draws = len(sampler.classes), 40
    drawn = [sampler.sample(np.random.default_rng((recipe.seed, i))) for i in range(draws)]
    real, made = (
        np.bincount(np.concatenate([x.labels for x in some]).astype(int), minlength=classes)
        for some in (layouts, drawn)
    )
    times = made * recipe.n / draws / np.maximum(real, 1)
    raised = times / (made.sum() * recipe.n / draws / real.sum())
    return [
        f"--balance shows each of the {real[i]} real {sampler.classes[i]} about {times[i]:.0f} times; a detector "
        "may learn little from so many copies"
        for i in np.flatnonzero((times >= MAX_REUSES) & (raised >= MAX_REUSE_RATIO))
    ]


def scale_warnings(recipe: Recipe, sampler: Sampler, layouts: list[Layout]) -> list[str]:
    """Sentences on sizes: whether images are parts of the real ones, and classes whose objects are of another length
    than the real ones, mostly cut, or far rarer since few fit."""
    # one is given; others sample slowly, and a map has sizes in metres
    if recipe.layout is not None or recipe.layouts in ("diffusion", "map"):
        return []
    sizes = [layout.size for layout in layouts]
    largest = max(map(max, sizes))
    drawn = [sampler.sample(np.random.default_rng((recipe.seed, i))) for i in range(N_LENGTH_DRAWS)]
    real, made = ([_lengths(layout) for layout in some] for some in (layouts, drawn))
    changed, cut, rare = [], [], []
    all_real, all_made = (sum(map(len, some)) for some in (layouts, drawn))
    for i, name in enumerate(sampler.classes):
        before, after = (np.concatenate([lengths[i] for lengths in some]) for some in (real, made))
        n_real, n_made = (sum(int((layout.labels == i).sum()) for layout in some) for some in (layouts, drawn))
        if len(before) >= MIN_LENGTHS <= n_made and len(after) / n_made < MIN_WHOLE_SHARE * len(before) / n_real:
            cut.append(f"{name} ({n_made - len(after)} of {n_made})")
        if n_real >= MIN_LENGTHS and n_made * all_real < MIN_CLASS_SHARE * n_real * all_made:
            rare.append(f"{name} ({n_made / all_made:.0%}, real: {n_real / all_real:.0%})")
        if min(len(before), len(after)) < MIN_LENGTHS:
            continue
        before, after = np.median(before), np.median(after)
        if max(before / after, after / before) > MAX_LENGTH_RATIO:
            changed.append(f"{name} {after:.0f} px (real: {before:.0f})")
    notes = []
    if largest > recipe.size and recipe.into is None:
        width, height = (int(side) for side in np.median(sizes, axis=0))
        notes.append(
            f"each image is a part of {recipe.size}x{recipe.size} px of real ones of about {width}x{height} px, at "
            "their own scale; --size makes larger ones"
        )
    if cut:
        notes.append(f"the border of {recipe.size} px cuts most {', '.join(cut)}; a larger --size shows them whole")
    if rare and largest > recipe.size and recipe.balance is None:
        notes.append(
            f"a smaller share of the objects than of the real ones: {', '.join(rare)}; few fit into "
            f"{recipe.size} px; give a larger --size, or raise them by --balance"
        )
    if changed:
        parts = f"few larger ones fit into {recipe.size} px; give a larger --size"
        why = parts if largest > recipe.size else "--layouts reuse keeps their length"
        notes.append(f"objects of another length than the real ones, median: {', '.join(changed)}; {why}")
    return notes


def _lengths(layout: Layout) -> list[np.ndarray]:
    """Long sides in pixels of the whole objects of each class."""
    inside = whole(layout)
    return [layout.boxes[inside & (layout.labels == i), 2] for i in range(len(layout.classes))]


def crowding_warnings(renderer: Renderer, sampler: Sampler) -> list[str]:
    """A sentence where layouts hold more objects than a renderer of AeroGen's form has seen in one image."""
    most = getattr(renderer, "trained_boxes", None)
    if most is None:
        return []
    counts = [len(sampler.sample(np.random.default_rng((CROWDING_SEED, i)))) for i in range(N_CROWDING_DRAWS)]
    crowded = sum(count > most for count in counts)
    if not crowded:
        return []
    return [
        f"this model was trained with at most {most} objects an image; {crowded} of {len(counts)} sampled layouts have "
        f"more (up to {max(counts)}). All are given to it and labelled; a filter tells which it drew (--detector)"
    ]


class _Restricted:
    """A sampler with only the classes that can be drawn and judged, in their numbering; others are left out."""

    def __init__(self, sampler: Sampler, classes: tuple[str, ...]):
        known = {class_key(name) for name in sampler.classes}
        if not known & {class_key(name) for name in classes}:
            raise UserError(f"the layout model draws {', '.join(sampler.classes)}, none of which is wanted here.")
        self.sampler, self.classes, self.kind, self.size = sampler, classes, sampler.kind, sampler.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object. Raises UserError when none of 100 has one."""
        for _ in range(100):
            layout = replace(restrict_layout(self.sampler.sample(rng), self.classes), ignored=np.zeros((0, 5)))
            if len(layout):
                return layout
        raise UserError(f"the layout model drew no {', '.join(self.classes)} in 100 layouts.")
