"""One shard of a run: a fixed range of attempts, rendered, judged and stored as a folder that appears at once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data.layout import Layout, layout_to_json
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe, image_seed
from dataengine.engine.records import examine_shard, image_name, shard_folder
from dataengine.judge.verdict import Verdict
from dataengine.render.in_scene_pipeline import beside, merge
from dataengine.render.inpaint import paint_mask
from dataengine.render.into import Target
from dataengine.render.scene import Scene


@dataclass(frozen=True)
class Rendered:
    """An image that nobody has judged yet: the layout asked for, the labels (its objects first, then those that a scene
    held before) and what was painted into. bare: the same picture before they were painted, None where nobody knows
    it: all of it was drawn at once, or the scene already with rough forms of them. left_out: objects of the layout for
    which there was no room, or no likely place."""

    index: int
    asked: Layout
    image: np.ndarray
    labels: Layout
    scene: Scene | Target | None
    bare: np.ndarray | None
    left_out: int = 0


@dataclass(frozen=True)
class Attempt:
    """One image that was tried: the layout asked for, and what came of it."""

    index: int
    asked: Layout
    image: np.ndarray
    labels: Layout
    scene: str
    scene_license: str
    scene_source: str
    unreadable: tuple[str, ...]
    verdict: Verdict
    left_out: int = 0


def draw_layouts(parts: Parts, recipe: Recipe, indices: range) -> list[Layout]:
    """Layouts of these attempts; each depends on (run seed, index) only."""
    return [parts.sampler.sample(np.random.default_rng((image_seed(recipe.seed, i), 0x1A7))) for i in indices]


def render_batch(parts: Parts, recipe: Recipe, indices: range) -> list[Rendered]:
    """Draw the layouts of a batch and render them."""
    layouts = draw_layouts(parts, recipe, indices)
    wanted = [len(layout) for layout in layouts]
    seeds = [image_seed(recipe.seed, i) for i in indices]
    targets = [None] * len(layouts)
    if parts.into is not None:
        targets = parts.into.draw(layouts, seeds)
        layouts = [target.new for target in targets]
    elif parts.scenes is not None and (recipe.augment_scenes or parts.places is not None):
        targets, margin = parts.scenes.draw(layouts, seeds), parts.pipeline.unet.spec.hole_margin
        if parts.places is not None:
            placing = [np.random.default_rng((seed, 0x91A)) for seed in seeds]
            layouts = [parts.places.placed(*each) for each in zip(targets, layouts, placing, strict=True)]
        # of few images, or of likely places, no object is given up for a painted one
        layouts = [beside(scene.layout, layout, margin) for scene, layout in zip(targets, layouts, strict=True)]
    drawn = [i for i, layout in enumerate(layouts) if len(layout)]  # a picture may have no room for anything new
    part = [[values[i] for i in drawn] for values in (layouts, seeds, targets)]
    rendered = dict(zip(drawn, render(parts, recipe, *part) if drawn else (), strict=True))
    results = []
    for i, (index, target) in enumerate(zip(indices, targets, strict=True)):
        if i in rendered:
            image, labels, scene, bare = rendered[i]
        elif isinstance(target, Target):
            (image, labels), scene, bare = target.put_back(target.window.image), target, None
        else:
            image, labels, scene, bare = target.image, merge(target.layout, layouts[i], 0.0), target, None
        results.append(Rendered(index, layouts[i], image, labels, scene, bare, wanted[i] - len(layouts[i])))
    return results


def drawing_settings(parts: Parts, recipe: Recipe) -> dict:
    """How the pipeline is called: the recipe's settings, or its own."""
    own = parts.pipeline.guidance_scale
    return {
        "num_inference_steps": recipe.steps or parts.pipeline.steps,
        "guidance_scale": own if recipe.guidance_scale is None else recipe.guidance_scale,
    }


def render(
    parts: Parts, recipe: Recipe, layouts: list[Layout], seeds: list[int], targets: Sequence[Target | Scene | None]
) -> list[tuple[np.ndarray, Layout, Scene | Target | None, np.ndarray | None]]:
    """Image, labels (the objects of the layout first), what was painted into, and the picture before that (None where
    nobody knows it), for each layout. targets: where to, as far as that is settled."""
    pipeline, into = parts.pipeline, parts.into is not None
    settings = drawing_settings(parts, recipe)
    scenes = [target.window for target in targets] if into else targets
    if recipe.renderer == "in-scene":
        if scenes[0] is None:
            scenes = parts.scenes.draw(layouts, seeds)
        scenes = pipeline.clear(scenes, layouts, seeds, **settings)
        images, labelled = pipeline(scenes, layouts, seeds, objects=parts.objects, **settings)
    else:
        if parts.references is not None:
            settings["references"] = parts.references.draw(seeds)
        seen = layouts
        if into:
            seen = [merge(s.layout, layout, 0.0) for s, layout in zip(scenes, layouts, strict=True)]
            seen = [x.select(np.isin(np.array(x.names()), parts.classes)) for x in seen]
            settings["images"] = [scene.image for scene in scenes]
            settings["masks"] = [paint_mask(x, s.layout) for x, s in zip(layouts, scenes, strict=True)]
        images, labelled = pipeline(seen, seeds, parts.preset.name, **settings), layouts
    if into:
        whole = [target.put_back(image) for target, image in zip(targets, images, strict=True)]
        return [(image, labels, target, target.image) for (image, labels), target in zip(whole, targets, strict=True)]
    bare = [None if scene is None or scene.generated else scene.image for scene in scenes]
    return list(zip(images, labelled, scenes, bare, strict=True))


def batches(recipe: Recipe, number: int, batch_size: int) -> list[range]:
    """The attempts of shard `number`, at most `batch_size` together."""
    first, end = number * recipe.shard_size, min((number + 1) * recipe.shard_size, recipe.budget)
    return [range(start, min(start + batch_size, end)) for start in range(first, end, batch_size)]


def encode(made: Attempt, recipe: Recipe, number: int) -> tuple[str, bytes, str]:
    """Name and content of an attempt's PNG file, and its line in the records of shard `number`."""
    buffer = io.BytesIO()
    Image.fromarray(made.image).save(buffer, "PNG")
    image = image_name(number, made.index)
    record = {
        "index": made.index,
        "seed": image_seed(recipe.seed, made.index),
        "image": image,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "scene": made.scene,
        "scene_license": made.scene_license,
        "scene_source": made.scene_source,
        "layout_from": list(made.asked.origins),
        "unreadable_scenes": list(made.unreadable),
        "left_out": made.left_out,
        "asked": layout_to_json(made.asked),
        "labels": layout_to_json(made.labels),
        "verdict": asdict(made.verdict),
    }
    return Path(image).name, buffer.getvalue(), json.dumps(record)


class ShardFolder:
    """A shard that is being written beside its place, and appears there whole or not at all."""

    def __init__(self, out: Path, number: int):
        self.final = shard_folder(out, number)
        self.building = self.final.with_name(f".{self.final.name}.{os.getpid()}")
        shutil.rmtree(self.building, ignore_errors=True)
        self.building.mkdir(parents=True)

    def put(self, name: str, content: bytes) -> None:
        """Write one file."""
        (self.building / name).write_bytes(content)

    def close(self) -> None:
        """Rename it into place."""
        if self.final.exists():  # another worker was faster; both made the same
            shutil.rmtree(self.building)
        else:
            self.building.rename(self.final)

    def abandon(self) -> None:
        """Remove what was written: a full disk would stay full."""
        shutil.rmtree(self.building, ignore_errors=True)


def read_shard(out: Path, number: int) -> list[dict] | None:
    """The records of a finished shard, None where there is none; a damaged one is removed, to be made again."""
    folder = shard_folder(out, number)
    if not folder.exists():
        return None
    records, faults = examine_shard(out, number)
    if not faults:
        return records
    shutil.rmtree(folder)
    return None
