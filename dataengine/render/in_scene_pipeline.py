"""The in-scene renderer: objects painted one frame at a time into scenes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.layouts.constraints import MIN_VISIBLE
from dataengine.render.canvas import Canvas, Painted
from dataengine.render.erase import erase
from dataengine.render.flow import Start
from dataengine.render.frame import (
    FrameSpec,
    covered,
    cut,
    finer_mask,
    frame_angles,
    frame_matrices,
    frame_sides,
    greyed,
    hole_in_frame,
    masks,
    matte,
    paste,
    resized,
)
from dataengine.render.heading import along_heading, draw_headings
from dataengine.render.in_scene import InSceneUNet, object_fields, sample_frames, without_angle
from dataengine.render.placement import class_numbers, merge, parted
from dataengine.render.precision import fast_autocast
from dataengine.render.real_objects import RealObjects
from dataengine.render.renderer import DEFAULTS, PaintSettings
from dataengine.seeds import Noise, noise_seed

FRAMES_PER_BATCH = 64
DETAIL_BLUR_PX = 4.0  # frame pixels, standard deviation; an object is some 50 long


def painting_order(framed: Sequence[Layout], spec: FrameSpec) -> np.ndarray:
    """Round (N,) in which each of N single objects is painted: those that share surroundings follow one another, large
    first, so that each sees what was painted next to it; all others go in the same round."""
    frames = _squares(framed, spec)
    touching = geometry.intersection(frames, frames) > 0
    rounds = np.full(len(framed), -1)
    longest = np.array([one.boxes[0, 2:4].max() for one in framed])
    for i in np.argsort(-longest, kind="stable"):
        before = touching[i] & (rounds >= 0)
        rounds[i] = rounds[before].max() + 1 if before.any() else 0
    return rounds


def _squares(framed: Sequence[Layout], spec: FrameSpec) -> np.ndarray:
    """What the frames of single objects show, as boxes (N, 5)."""
    boxes = np.concatenate([np.zeros((0, 5), np.float32), *(one.boxes for one in framed)])
    angles = [float(frame_angles(one.boxes, one.kind)[0]) for one in framed]
    sides = frame_sides(boxes, spec)
    return np.column_stack([boxes[:, :2], sides, sides, angles])


@dataclass(frozen=True)
class Sampling:
    """How frames are denoised.

    batch: so many at a time, filled up with repeats where there are fewer: rounding depends on the number of frames, so
    each has the same bits whatever is painted with it. None for as many as there are, up to FRAMES_PER_BATCH.
    """

    steps: int
    guidance_scale: float
    batch: int | None = None


class InScenePipeline(DiffusionPipeline):
    """Paints new objects into scenes, one frame at a time. Label effect: keeps (every object fills its own box)."""

    label_effect = "keeps"
    batch_size = 16
    paints_on = "scene"
    reference_width = 0

    def __init__(
        self,
        unet: InSceneUNet,
        scheduler: FlowMatchEulerDiscreteScheduler,
        few_steps: int | None = None,
        guidance: float = 1.0,
    ):
        """few_steps: the only number of steps that the model was trained for, if it was (`train.adversarial`).
        guidance: on the class label, used unless another is asked for; other than 1 it costs a second pass."""
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(few_steps=few_steps, guidance=guidance)
        self.few_steps, self.steps, self.guidance_scale = few_steps, few_steps or 12, guidance
        self.classes, self.margin = tuple(unet.config.classes), unet.spec.hole_margin
        self.headed = frozenset(i for i, name in enumerate(self.classes) if name in unet.config.headed)

    @torch.no_grad()
    def __call__(
        self,
        canvases: Sequence[Canvas],
        seeds: Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        real_objects: RealObjects | None = None,
        batch: int | None = None,
    ) -> list[Painted]:
        """Paint the new objects of each canvas.

        An existing object that a new one would touch is first painted over with empty ground, and its label goes; all
        others keep pixels and label. Noise of object k of canvas i depends on (seeds[i], k) only (contract 4).
        num_inference_steps, guidance_scale: the model's own if None. real_objects: objects that the painted ones start
        from, where there is one of the class; the boxes are then fitted to them. batch: frames that are denoised at a
        time; with a number, an object has the same bits whatever is painted with it, at some cost. Raises UserError for
        a class that the model does not know.
        """
        if real_objects is not None:
            canvases = [
                real_objects.fitted(canvas, class_numbers(canvas.new, self.classes), self.unet.spec, seed)
                for canvas, seed in zip(canvases, seeds, strict=True)
            ]
        sampling = self._sampling(num_inference_steps, guidance_scale, batch)
        windows = self._cleared([canvas.window() for canvas in canvases], seeds, sampling)
        layouts = [_with_whole_boxes(window) for window in windows]
        labels = [class_numbers(layout, self.classes) for layout in layouts]
        starts = [window.starts or (None,) * len(window.new) for window in windows]
        keys = [[(seed, k) for k in range(len(layout))] for seed, layout in zip(seeds, layouts, strict=True)]
        scenes = [window.image for window in windows]
        images = self._painted(scenes, layouts, labels, keys, sampling, real_objects, starts)
        results = []
        for image, canvas, window in zip(images, canvases, windows, strict=True):
            least = 0.0 if canvas.complete else MIN_VISIBLE
            merged = merge(window.existing, window.new, self.margin, least)
            _restore(image, window.image, merged.boxes[len(window.new) :])
            if canvas.whole:
                before = None if canvas.provenance.generated else window.image
                results.append(Painted(image, merged, canvas, before))
            else:
                results.append(Painted(*canvas.put_back(image), canvas, canvas.image))
        return results

    def paint(
        self, canvases: Sequence[Canvas], seeds: Sequence[int], settings: PaintSettings = DEFAULTS
    ) -> list[Painted]:
        """`Renderer.paint`."""
        steps, guidance_scale = settings.num_inference_steps, settings.guidance_scale
        return self(canvases, seeds, steps, guidance_scale, settings.real_objects)

    def frames(self, layout: Layout, seed: int) -> np.ndarray:
        """What is seen of the scene when the objects of a layout are painted with this seed, as boxes (N, 5): the
        square frames that are cut around each of them."""
        wholes, labels = [layout.select([k]) for k in range(len(layout))], class_numbers(layout, self.classes)
        keys = [(seed, k) for k in range(len(layout))]
        return _squares(self._framed(wholes, labels, keys, [None] * len(layout)), self.unet.spec)

    @torch.no_grad()
    def remove(self, painted: Painted, gone: np.ndarray, seed: int, settings: PaintSettings = DEFAULTS) -> Painted:
        """The image without the painted objects `gone`, bool (N,), of its labels. Label effect: keeps all others.

        What was there before comes back; where there is nothing before, empty ground is painted over them, with noise
        that depends on the seed and each one's number only.
        """
        kept, numbers = painted.labels.select(~gone), painted.numbers
        going = gone[: len(numbers)]
        if painted.before is not None:
            image = erase(painted.image, painted.before, painted.labels, gone, self.unet.spec)
        else:
            keys = [(seed, number + Noise.REMOVED_OBJECT) for number in numbers[going]]
            removed = painted.labels.select(gone)
            sampling = self._sampling(settings.num_inference_steps, settings.guidance_scale)
            [image] = self._painted_over([painted.image], [kept], [removed], [keys], sampling)
        return replace(painted, image=image, labels=kept, numbers=numbers[~going])

    @torch.no_grad()
    def clear(self, image: np.ndarray, kept: Layout, removed: Layout, seed: int) -> np.ndarray:
        """An image uint8 (H, W, 3) with empty ground in place of the removed objects; pixels in the boxes of those kept
        stay. The ground of an object depends on the seed, the image and its own place, not on which others are removed.
        """
        if not len(removed):
            return image
        places = removed.boxes[:, :2].astype(np.int64) @ np.array([1, 1 << 16])
        keys = [(seed, int(place) + Noise.CLEARED_OBJECT) for place in places]
        [cleared] = self._painted_over([image], [kept], [removed], [keys], self._sampling())
        return cleared

    def _sampling(
        self, steps: int | None = None, guidance_scale: float | None = None, batch: int | None = None
    ) -> Sampling:
        """The model's own steps and guidance where None is given."""
        return Sampling(steps or self.steps, self.guidance_scale if guidance_scale is None else guidance_scale, batch)

    def _cleared(self, windows: list[Canvas], seeds: Sequence[int], sampling: Sampling) -> list[Canvas]:
        """The canvases with room for their new objects: existing ones that a new one would touch are painted over with
        empty ground, and their labels go."""
        parts = [parted(window.existing, window.new, self.margin) for window in windows]
        crowded = [i for i, (_, removed) in enumerate(parts) if len(removed)]
        keys = [[(seeds[i], k + Noise.CLEARED_OBJECT) for k in range(len(parts[i][1]))] for i in crowded]
        kept, removed = ([parts[i][side] for i in crowded] for side in (0, 1))
        images = self._painted_over([windows[i].image for i in crowded], kept, removed, keys, sampling)
        cleared = list(windows)
        for i, image in zip(crowded, images, strict=True):
            cleared[i] = replace(windows[i], image=image, existing=parts[i][0])
        return cleared

    def _painted_over(
        self, images: list[np.ndarray], kept: list[Layout], removed: list[Layout], keys, sampling: Sampling
    ) -> list[np.ndarray]:
        """The images with empty ground in place of the removed objects; pixels in the boxes of those kept stay."""
        labels = [np.full(len(layout), self.unet.nothing) for layout in removed]
        results = self._painted(images, removed, labels, keys, sampling)
        for result, image, layout in zip(results, images, kept, strict=True):
            _restore(result, image, layout.boxes)
        return results

    def _painted(
        self, images, layouts, labels, keys, sampling: Sampling, real_objects=None, starts=None
    ) -> list[np.ndarray]:
        """Images uint8 (H, W, 3) with each layout's objects painted; labels, noise keys and starts of each object."""
        starts = starts or [(None,) * len(layout) for layout in layouts]
        pictures, jobs = [image.astype(np.float32) for image in images], []
        grey = [np.ptp(image, axis=2).max() == 0 for image in images]  # a one-channel sensor stays one
        for i, layout in enumerate(layouts):
            wholes = [layout.select([k]) for k in range(len(layout))]
            framed = self._framed(wholes, labels[i], keys[i], starts[i])
            rounds = painting_order(framed, self.unet.spec)
            for k, (whole, one) in enumerate(zip(wholes, framed, strict=True)):
                jobs.append((int(rounds[k]), i, whole, one, int(labels[i][k]), keys[i][k], starts[i][k]))
        for number in sorted({job[0] for job in jobs}):
            now = [job[1:] for job in jobs if job[0] == number]
            self._paint(pictures, grey, now, sampling, real_objects)
        return [np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in pictures]

    def _framed(self, wholes: list[Layout], labels, keys, starts) -> list[Layout]:
        """Single objects as frames are cut around them: `headed` ones in horizontal boxes along headings."""
        framed = list(wholes)
        chosen = [
            k for k, one in enumerate(wholes) if one.kind == "hbb" and starts[k] is None and labels[k] in self.headed
        ]
        if chosen:
            boxes = np.concatenate([wholes[k].boxes for k in chosen])
            headings = draw_headings(boxes, keys[0][0], [keys[k][1] for k in chosen])
            for k, box in zip(chosen, along_heading(boxes, headings), strict=True):
                framed[k] = replace(framed[k], boxes=box[None], kind="obb")
        return framed

    def _paint(self, pictures, grey, jobs, sampling: Sampling, real_objects) -> None:
        """Paint the objects of one round. All frames are cut before any is pasted: none depends on its batch."""
        spec = self.unet.spec
        frames, holes, boxes, fields, starts, own = [], [], [], [], [], []
        for image, _, one, label, _, real in jobs:
            matrix = frame_matrices(one.boxes, one.kind, spec)[0]
            hole, box = masks(one.boxes[0], one.kind, spec)
            frames.append(cut(pictures[image], matrix, spec.size))
            holes.append(hole), boxes.append(box)
            known = object_fields(one, spec)
            fields.append((without_angle(known) if one.kind == "hbb" and label in self.headed else known)[0])
            start, inside = (None, None) if real is None else real_objects.draw(real, one.kind, frames[-1], spec)
            starts.append(start), own.append(inside)
        strength = 1.0 if real_objects is None else real_objects.strength
        begun, blank = ([k for k, s in enumerate(starts) if (s is not None) == real] for real in (True, False))
        for indices in (*_batches(begun, sampling), *_batches(blank, sampling)):
            missing = (sampling.batch or 0) - len(indices)
            full = indices + indices[:1] * missing
            now, *stacks = ([values[k] for k in full] for values in (jobs, frames, holes, boxes, fields, starts))
            patches = self._denoise(now, *stacks, strength, sampling)[: len(indices)]
            for k, patch in zip(indices, patches, strict=True):
                (image, whole, one, label, *_), start = jobs[k], starts[k]
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
                if one.kind != whole.kind:  # the frame's hole lies askew: no pixel beyond that of the label is changed
                    hole = hole * hole_in_frame(whole.boxes[0], matrix, fine)
                paste(pictures[image], patch, hole, matrix, changed)

    def _denoise(self, jobs, frames, holes, boxes, fields, starts, strength, sampling: Sampling) -> np.ndarray:
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
        labels = torch.tensor([job[3] for job in jobs], device=device)
        generators = [torch.Generator().manual_seed(noise_seed(*job[4])) for job in jobs]
        with fast_autocast(device):
            painted = sample_frames(
                self.unet, surroundings * (1 - hole), hole, box, labels, tensor(fields), generators=generators,
                steps=sampling.steps, guidance_scale=sampling.guidance_scale,
                scheduler=copy.deepcopy(self.scheduler),  # counts its steps, and two threads may paint at a time
                few=bool(self.config.few_steps), start=begun,
            )  # fmt: skip
        return ((painted + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).cpu().numpy()


def _with_whole_boxes(window: Canvas) -> Layout:
    """The new objects of a window, with the parts that the border cuts off where those are known."""
    boxes = window.new.boxes.copy()
    for k, start in enumerate(window.starts):
        if start is not None:
            boxes[k] = start.whole_box
    return replace(window.new, boxes=boxes)


def with_detail(patch: np.ndarray, start: np.ndarray, strength: float) -> np.ndarray:
    """A painted frame (F, F, C) with the fine part of the frame that it began from, (K F, K F, C), at its resolution.

    Detail coarser than DETAIL_BLUR_PX is as painted, so that the object fits its surroundings. Finer detail, which a
    model trained on few images blurs, is as it began, unless the noise of this strength was stronger: then to the
    share (1 - strength) / strength, its ratio to that noise. Both float32 in [0, 255].
    """
    import cv2

    sigma = DETAIL_BLUR_PX * len(start) / len(patch)

    def fine(frame: np.ndarray) -> np.ndarray:
        return frame - cv2.GaussianBlur(frame, (0, 0), sigma)

    patch = resized(patch, len(start))
    kept = min(1.0, (1 - strength) / strength)
    return np.clip(patch + kept * (fine(start) - fine(patch)), 0, 255)


def _batches(indices: list[int], sampling: Sampling) -> list[list[int]]:
    size = sampling.batch or FRAMES_PER_BATCH
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _restore(image: np.ndarray, scene: np.ndarray, boxes: np.ndarray) -> None:
    """Give the pixels of the boxes (N, 5) back, in place: a neighbour that was painted over may have reached them."""
    mask = covered(boxes, image.shape)
    image[mask] = scene[mask]
