"""The in-scene renderer: objects painted one frame at a time into scenes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from dataengine import geometry
from dataengine.data.layout import Layout, class_key
from dataengine.errors import UserError
from dataengine.layouts.constraints import MIN_VISIBLE
from dataengine.render.flow import Start
from dataengine.render.frame import (
    covered,
    cut,
    finer_mask,
    frame_angles,
    frame_matrices,
    frame_sides,
    greyed,
    masks,
    matte,
    paste,
    resized,
)
from dataengine.render.in_scene import InSceneUNet, object_fields, sample_frames
from dataengine.render.precision import fast_autocast
from dataengine.render.real_objects import RealObjects
from dataengine.render.scene import Scene

FRAMES_PER_BATCH = 64
COARSE = 4.0  # frame pixels, standard deviation; an object is some 50 long
CLEARED, ERASED = (
    1 << 20,
    1 << 22,
)  # added to the numbers of objects, whose places are painted over with noise of their own


def class_numbers(layout: Layout, known: Sequence[str]) -> np.ndarray:
    """Labels of the layout in a model's numbering, int64 (N,), matched by name without regard to case.

    Raises UserError that names the classes the model does not know.
    """
    number = {class_key(name): i for i, name in enumerate(known)}
    unknown = sorted({name for name in layout.names() if class_key(name) not in number})
    if unknown:
        raise UserError(
            f"the renderer does not know the class{'es' if len(unknown) > 1 else ''} {', '.join(unknown)}; "
            f"it knows {', '.join(known)}. Leave them out, or train a renderer on them."
        )
    return np.array([number[class_key(name)] for name in layout.names()], np.int64)


def painting_order(layout: Layout, sides: np.ndarray) -> np.ndarray:
    """Round (N,) in which each object is painted: objects that share surroundings follow one another, large first,
    so that each sees what was painted beside it; all others go in the same round."""
    frames = np.column_stack([layout.boxes[:, :2], sides, sides, frame_angles(layout.boxes, layout.kind)])
    touching = geometry.intersection(frames, frames) > 0
    rounds = np.full(len(layout), -1)
    for i in np.argsort(-layout.boxes[:, 2], kind="stable"):
        before = touching[i] & (rounds >= 0)
        rounds[i] = rounds[before].max() + 1 if before.any() else 0
    return rounds


class InScenePipeline(DiffusionPipeline):
    """Paints a layout's objects into scenes. Label effect: keeps (every painted object fills its own box)."""

    label_effect = "keeps"

    def __init__(
        self,
        unet: InSceneUNet,
        scheduler: FlowMatchEulerDiscreteScheduler,
        few_steps: int | None = None,
        guidance: float = 1.0,
    ):
        """few_steps: the number of steps that the model was trained to need, if it was (`train.adversarial`).
        guidance: on the class label, of a run, unless told otherwise; other than 1 it costs a second pass."""
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(few_steps=few_steps, guidance=guidance)

    @property
    def steps(self) -> int:
        """Denoising steps of a run, unless told otherwise."""
        return self.config.few_steps or 12

    @property
    def guidance_scale(self) -> float:
        """Guidance of a run, unless told otherwise."""
        return self.config.guidance

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it can paint."""
        return tuple(self.unet.config.classes)

    @torch.no_grad()
    def __call__(
        self,
        scenes: Sequence[Scene],
        layouts: Sequence[Layout],
        seeds: Sequence[int],
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
        objects: RealObjects | None = None,
    ) -> tuple[list[np.ndarray], list[Layout]]:
        """Paint layouts[i] into scenes[i]: images uint8 (H, W, 3), and layouts with what the scene held before added.

        An object of the scene that a new one would touch is painted over with empty ground first, and its label goes;
        all others keep pixels and label. Noise of object k of image i depends on (seeds[i], k) only (contract 4).
        objects: real ones that the painted ones begin from, where there is one of the class.
        Raises UserError for a class that the model does not know.
        """
        settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        scenes = self.clear(scenes, layouts, seeds, **settings)
        margin = self.unet.spec.hole_margin
        results = [merge(scene.layout, layout, margin) for scene, layout in zip(scenes, layouts, strict=True)]
        labels = [class_numbers(layout, self.classes) for layout in layouts]
        keys = [[(seed, k) for k in range(len(layout))] for seed, layout in zip(seeds, layouts, strict=True)]
        images = self._painted(scenes, layouts, labels, keys, **settings, objects=objects)
        for image, scene, layout, merged in zip(images, scenes, layouts, results, strict=True):
            _restore(image, scene.image, merged.boxes[len(layout) :])
        return images, results

    @torch.no_grad()
    def clear(
        self,
        scenes: Sequence[Scene],
        layouts: Sequence[Layout],
        seeds: Sequence[int],
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
    ) -> list[Scene]:
        """The scenes with room for the layouts: own objects that a new one would touch are painted over with empty
        ground, and their labels go. A scene where there are none stays as it is."""
        margin = self.unet.spec.hole_margin
        parts = [parted(scene.layout, layout, margin) for scene, layout in zip(scenes, layouts, strict=True)]
        crowded = [i for i, (_, removed) in enumerate(parts) if len(removed)]
        cleared = list(scenes)
        now = [(scenes[i], *parts[i], [(seeds[i], k + CLEARED) for k in range(len(parts[i][1]))]) for i in crowded]
        images = self._painted_over(now, num_inference_steps, guidance_scale)
        for i, image in zip(crowded, images, strict=True):
            cleared[i] = replace(scenes[i], image=image, layout=parts[i][0])
        return cleared

    @torch.no_grad()
    def paint_over(
        self,
        scene: Scene,
        gone: np.ndarray,
        seed: int,
        numbers: Sequence[int],
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
    ) -> Scene:
        """The scene with empty ground in place of the objects `gone`, bool (N,), of its layout. Noise depends on seed
        and each one's number only. Label effect: keeps those of all others."""
        keys = [(seed, number + ERASED) for number in numbers]
        kept = scene.layout.select(~gone)
        now = [(scene, kept, scene.layout.select(gone), keys)]
        [image] = self._painted_over(now, num_inference_steps, guidance_scale)
        return replace(scene, image=image, layout=kept)

    def _painted_over(self, jobs, steps: int, guidance_scale: float) -> list[np.ndarray]:
        """Images of (scene, kept, removed, noise keys) with empty ground in place of the removed objects; pixels in the
        boxes of those kept stay as they are."""
        scenes, _, removed, keys = zip(*jobs, strict=True) if jobs else ((), (), (), ())
        labels = [np.full(len(layout), self.unet.nothing) for layout in removed]
        images = self._painted(scenes, removed, labels, keys, steps, guidance_scale, None)
        for image, (scene, kept, *_) in zip(images, jobs, strict=True):
            _restore(image, scene.image, kept.boxes)
        return images

    def _painted(self, scenes, layouts, labels, keys, num_inference_steps, guidance_scale, objects) -> list[np.ndarray]:
        """Images uint8 (H, W, 3) of scenes with each layout's objects painted; labels and noise keys of each object."""
        pictures, jobs = [scene.image.astype(np.float32) for scene in scenes], []
        grey = [np.ptp(scene.image, axis=2).max() == 0 for scene in scenes]  # a one-channel sensor stays one
        for i, layout in enumerate(layouts):
            rounds = painting_order(layout, frame_sides(layout.boxes, self.unet.spec))
            for k in range(len(layout)):
                jobs.append((int(rounds[k]), i, layout.select([k]), int(labels[i][k]), keys[i][k]))
        for number in sorted({job[0] for job in jobs}):
            now = [job[1:] for job in jobs if job[0] == number]
            self._paint(pictures, grey, now, num_inference_steps, guidance_scale, objects)
        return [np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in pictures]

    def _paint(self, pictures, grey, jobs, steps, guidance_scale, objects) -> None:
        """Paint the objects of one round. All frames are cut before any is pasted: none depends on its batch."""
        spec = self.unet.spec
        frames, holes, boxes, fields, starts, own = [], [], [], [], [], []
        for image, one, label, key in jobs:
            matrix = frame_matrices(one.boxes, one.kind, spec)[0]
            hole, box = masks(one.boxes[0], one.kind, spec)
            frames.append(cut(pictures[image], matrix, spec.size))
            holes.append(hole), boxes.append(box)
            fields.append(object_fields(one, spec)[0])
            # boxes of one size in an image are those of a row, which are of one make
            make = np.rint(16 * one.boxes[0, 2:4]).astype(np.int64)
            rng = np.random.default_rng((key[0], *make, 0x0B1))
            drawn = None if objects is None else objects.draw(one, label, frames[-1], spec, rng)
            start, inside = drawn or (None, None)
            starts.append(start), own.append(inside)
        strength = 1.0 if objects is None else objects.strength
        begun, blank = ([k for k, s in enumerate(starts) if (s is not None) == real] for real in (True, False))
        for indices in (*_batches(begun), *_batches(blank)):
            now, *stacks = ([values[k] for k in indices] for values in (jobs, frames, holes, boxes, fields, starts))
            patches = self._denoise(now, *stacks, strength, steps, guidance_scale)
            for k, patch in zip(indices, patches, strict=True):
                (image, one, label, _), start = jobs[k], starts[k]
                if grey[image]:
                    patch, start = greyed(patch), None if start is None else greyed(start)
                if start is not None:
                    patch = with_detail(patch, start, strength)
                fine = replace(spec, size=len(patch))
                # what is there is no ground where an object is to vanish
                vanishes = label == self.unet.nothing
                changed = np.ones_like(holes[k]) if vanishes else matte(resized(patch, spec.size), frames[k])
                changed = resized(changed, fine.size)
                if start is not None:  # however like the ground it is, an object hides it
                    changed = np.maximum(changed, own[k])
                hole = finer_mask(holes[k], fine.size)
                matrix = frame_matrices(one.boxes, one.kind, fine)[0]
                paste(pictures[image], patch, hole, matrix, changed)

    def _denoise(self, jobs, frames, holes, boxes, fields, starts, strength, steps, guidance_scale) -> np.ndarray:
        """Painted frames (B, F, F, 3) float32 in [0, 255]. starts: frames to begin from, all of them or none."""
        device = self.unet.device

        def tensor(stack: list[np.ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.stack(stack)).to(device)

        def pictures(stack: list[np.ndarray]) -> torch.Tensor:
            return tensor(stack).permute(0, 3, 1, 2) / 127.5 - 1

        surroundings = pictures(frames)
        size = self.unet.spec.size
        begun = None if starts[0] is None else Start(pictures([resized(start, size) for start in starts]), strength)
        hole, box = tensor(holes)[:, None], tensor(boxes)[:, None]
        labels = torch.tensor([job[2] for job in jobs], device=device)
        generators = [torch.Generator().manual_seed(noise_seed(*job[3])) for job in jobs]
        with fast_autocast(device):
            painted = sample_frames(
                self.unet, surroundings * (1 - hole), hole, box, labels, tensor(fields), generators=generators,
                steps=steps, guidance_scale=guidance_scale,
                scheduler=copy.deepcopy(self.scheduler),  # counts its steps, and two threads may paint at a time
                few=bool(self.config.few_steps), start=begun,
            )  # fmt: skip
        return ((painted + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).cpu().numpy()


def with_detail(patch: np.ndarray, start: np.ndarray, strength: float) -> np.ndarray:
    """A painted frame (F, F, C) with the fine part of the frame that it began from, (K F, K F, C), at its resolution.

    What is coarser than COARSE is as painted, so that the object fits its surroundings; what is finer, which a model of
    few pictures blurs, is as it began, unless the noise of this strength was stronger: then to the share
    (1 - strength) / strength, its ratio to that noise. Both float32 in [0, 255].
    """
    import cv2

    sigma = COARSE * len(start) / len(patch)

    def fine(frame: np.ndarray) -> np.ndarray:
        return frame - cv2.GaussianBlur(frame, (0, 0), sigma)

    patch = resized(patch, len(start))
    kept = min(1.0, (1 - strength) / strength)
    return np.clip(patch + kept * (fine(start) - fine(patch)), 0, 255)


def _batches(indices: list[int]) -> list[list[int]]:
    return [indices[start : start + FRAMES_PER_BATCH] for start in range(0, len(indices), FRAMES_PER_BATCH)]


def noise_seed(seed: int, k: int) -> int:
    """Seed of the noise of object k of an image, from the image's own seed."""
    return int(np.random.SeedSequence((seed, k)).generate_state(1, np.uint64)[0] >> 1)


def _restore(image: np.ndarray, scene: np.ndarray, boxes: np.ndarray) -> None:
    """Give the pixels of the boxes (N, 5) back, in place: a neighbour that was painted over may have reached them."""
    mask = covered(boxes, image.shape)
    image[mask] = scene[mask]


def parted(existing: Layout, new: Layout, margin: float) -> tuple[Layout, Layout]:
    """`(kept, removed)`: the scene's objects that the new layout leaves alone, and those it touches, in its kind."""
    existing = existing.in_kind(new.kind)
    touched = _touching(existing, new, margin).any(1)
    return existing.select(~touched), existing.select(touched)


def beside(existing: Layout, new: Layout, margin: float) -> Layout:
    """The objects of the new layout that touch none of the scene's, so that these may stay; perhaps none."""
    return new.select(~_touching(existing.in_kind(new.kind), new, margin).any(0))


def _touching(existing: Layout, new: Layout, margin: float) -> np.ndarray:
    """Bool (N, M): which of the scene's N objects stand where one of M new ones is painted, margin and all."""
    grown = new.boxes.copy()
    grown[:, 2:4] += 2 * margin * new.boxes[:, 2:3] + 4
    return geometry.intersection(existing.boxes, grown) > 0


def merge(existing: Layout, new: Layout, margin: float) -> Layout:
    """The new layout joined by the scene's objects that it leaves alone (`parted`) and by its ignored regions, of which
    what the border leaves too little of to be an object is one: it is to be seen, and has no label."""
    kept, _ = parted(existing, new, margin)
    enough = kept.visible >= MIN_VISIBLE
    return new.joined(replace(kept.select(enough), ignored=np.concatenate([kept.ignored, kept.boxes[~enough]])))
