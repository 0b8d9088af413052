"""Real objects that painted ones begin from: with few images to learn from, a renderer redraws better than it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Acquisition, Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.render.cutout import Cutout, cutout, membrane
from dataengine.render.frame import (
    FrameSpec,
    box_coverage,
    box_in_frame,
    covered,
    cut,
    finer_mask,
    frame_matrices,
    frame_sides,
    masks,
    resized,
)

MOST = 2000  # frames' worth of a class that is kept
FINEST = 3  # frames of large objects are kept up to so many times as fine, near the picture's own resolution
BORDER = 2.0  # pixels within which a box ends at its picture's border
FADE = 1.0  # frame pixels (standard deviation) over which an object's own ground gives way to the scene's
# of so many of a class, this share can be cut out, or none is: what hides most of them spoils the others
TRIED, TOLD = 48, 2 / 3
NEAREST_SHARE, NEAREST = 0.1, 24  # those of a class that are most alike: this share, and at least so many
LIKE_GROUND = 8  # one is drawn among so many of these that stood on ground most like the scene's
OTHER_LIGHT = 10.0  # distance between day and night; else it is in doublings of length and of aspect


@dataclass(frozen=True)
class RealObjects:
    """Whole objects of a labelled data set, cut into the frames of an in-scene model.

    frames: N of uint8 (K F, K F, 3), K as `fineness` says. objects: N of bool (F, F), what boxes cover of the model's
    frame. grounds: float32 (N, 3), median colour of the rest. boxes: float32 (N, 2), width and height of each object's
    box, in pixels of that frame. labels: int64 (N,) in the model's numbering. traits: float32 (N, 3), see `_traits`.
    strength: in (0, 1), how much noise they are put under before they are redrawn; 1 would leave nothing of them.
    cutouts, told: what is known so far: of an object by its number (`cutout`), of a class by its label (`_told`).
    """

    frames: list[np.ndarray]
    objects: list[np.ndarray]
    grounds: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    traits: np.ndarray
    strength: float
    cutouts: dict[int, Cutout | None] = field(default_factory=dict)
    told: dict[int, bool] = field(default_factory=dict)

    def cutout(self, i: int) -> Cutout | None:
        """The object of frame i, in pixels of (K F, K F), K = FINEST; None where it, or most objects of its class,
        cannot be told from the ground."""
        return self._cutout(i) if self._told(int(self.labels[i])) else None

    def _told(self, label: int) -> bool:
        if label not in self.told:
            own = np.flatnonzero(self.labels == label)
            tried = own[np.linspace(0, len(own) - 1, min(len(own), TRIED)).astype(int)]
            self.told[label] = np.mean([self._cutout(int(i)) is not None for i in tried]) >= TOLD
        return self.told[label]

    def _cutout(self, i: int) -> Cutout | None:
        if i not in self.cutouts:
            size = FINEST * len(self.objects[i])
            frame = np.clip(np.rint(resized(self.frames[i].astype(np.float32), size)), 0, 255).astype(np.uint8)
            box = box_coverage(*FINEST * self.boxes[i], size) > 0.5
            self.cutouts[i] = cutout(frame, box, finer_mask(self.objects[i], size))
        return self.cutouts[i]

    def draw(
        self, one: Layout, label: int, ground: np.ndarray, spec: FrameSpec, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """A real object of the class, much like the one that a layout of one asks for.

        A frame (K F, K F, 3) float32 in [0, 255], K as `fineness` of the layout's box, and the share of each pixel
        (K F, K F) that is surely the object, 0 where it could not be cut out. It is stretched into the box, which it
        fills as far as it filled its own, mirrored half of the time, and as much lighter or darker as the ground is of
        the frame that it comes into, `ground` (F, F, 3) in [0, 255], around the part to be painted. Around the object
        that ground stays, or what surrounded it elsewhere would show as a pane: one is drawn that can be cut out, if
        there is one; else all of its box comes, so much lighter or darker along its edge that it joins the ground
        (`membrane`). Of those alike, it is one of the few that stood on such ground: made
        darker for dark asphalt, a white object of bright concrete is grey. None where there is no object of the class.
        """
        tone = np.median(ground[masks(one.boxes[0], one.kind, spec)[0] == 0], 0)
        i = self._chosen(one, label, tone, rng)
        if i is None:
            return None
        size = spec.size * fineness(one.boxes[0], spec)
        frame, surely, inside = self._stretched(i, box_in_frame(one.boxes[0], one.kind, spec), size, spec)
        if rng.random() < 0.5:
            frame, surely, inside = frame[:, ::-1], surely[:, ::-1], inside[:, ::-1]
        lighter = tone - self.grounds[i]
        if self.cutout(i) is None:
            lighter = resized(membrane(ground - resized(frame, spec.size), resized(inside, spec.size) > 0.5), size)
        frame, ground = frame + lighter, resized(ground.astype(np.float32), size)
        return np.clip(ground + inside[..., None] * (frame - ground), 0, 255), surely

    def _chosen(self, one: Layout, label: int, tone: np.ndarray, rng: np.random.Generator) -> int | None:
        """The number of a real object of the class that is much like the one asked for and stood on ground of much this
        tone (3,), one that can be cut out if there is one; None where there is none of the class."""
        own = np.flatnonzero(self.labels == label)
        if not len(own):
            return None
        far = np.abs(self.traits[own] - _traits(one.boxes, one.acquisition)[0]).sum(1)
        count = min(len(own), max(NEAREST, round(NEAREST_SHARE * len(own))))
        alike = np.argsort(far, kind="stable")[:count]
        near = own[alike[far[alike] < far.min() + OTHER_LIGHT / 2]]
        other_ground = np.abs(self.grounds[near] - tone).sum(1)
        near = near[np.argsort(other_ground, kind="stable")]
        first = near[:LIKE_GROUND]
        # each object has its own lot: with one seed, much the same is drawn in the next place of a row
        near[:LIKE_GROUND] = first[np.argsort(rng.random(len(self.labels))[first])]
        # one by one: to cut out all that might be drawn takes longer than to paint it
        return next((int(i) for i in near if self.cutout(int(i)) is not None), int(near[0]))

    def _stretched(
        self, i: int, box: tuple[float, float], size: int, spec: FrameSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Object i, stretched into a box of this width and height, in pixels of the model's frame: a frame (size, size,
        3), and of each pixel the shares (size, size) that are surely it, and that come from its own frame."""
        import cv2

        piece, fine, times = self.cutout(i), len(self.frames[i]), size // spec.size
        if piece is None:
            middle, sides = np.full(2, fine / 2), self.boxes[i] * fine / spec.size
        else:
            ends = np.reshape(piece.bounds, (2, 2)) * fine / len(piece.share)
            middle, sides = ends.mean(0), ends[1] - ends[0]
        stretch = sides / (np.array(box) * times)
        at = middle - stretch * (size - 1) / 2 - 0.5  # where the first pixel's centre comes from
        matrix = np.float32([[stretch[0], 0, at[0]], [0, stretch[1], at[1]]])
        cubic, linear = (how | cv2.WARP_INVERSE_MAP for how in (cv2.INTER_CUBIC, cv2.INTER_LINEAR))
        frame = self.frames[i].astype(np.float32)
        frame = cv2.warpAffine(frame, matrix, (size, size), flags=cubic, borderMode=cv2.BORDER_REFLECT_101)
        if piece is not None:
            surely = cv2.warpAffine(resized(piece.share, fine), matrix, (size, size), flags=linear)
            return frame, surely, surely
        inside = box_coverage(*((side + 2 * FADE) * times for side in box), size)
        return frame, np.zeros((size, size), np.float32), cv2.GaussianBlur(inside, (0, 0), FADE * times)


def fineness(box: np.ndarray, spec: FrameSpec) -> int:
    """How many times as fine as the model's a frame of this box (5,) has to be to keep the picture's own pixels."""
    return int(np.clip(np.ceil(frame_sides(box[None], spec)[0] / spec.size), 1, FINEST))


def whole(layout: Layout) -> np.ndarray:
    """Bool (N,): objects that no border cuts. A box that ends at the border is that of the part that is to be seen."""
    corners = geometry.to_corners(layout.boxes)
    inside = ((corners >= BORDER) & (corners <= np.array(layout.size) - BORDER)).all((1, 2))
    return inside & ~layout.difficult & (layout.visible > 0.99)


def _traits(boxes: np.ndarray, taken: Acquisition) -> np.ndarray:
    """(N, 3) float32: log2 of the long side in pixels and of the aspect, and light."""
    light = 0.5 if taken.night is None else float(taken.night)
    long, short = np.maximum(boxes[:, 2], 1), np.maximum(boxes[:, 3], 1)
    return np.column_stack([np.log2(long), np.log2(long / short), np.full(len(boxes), OTHER_LIGHT * light)]).astype(
        np.float32
    )


def collect_objects(dataset: Dataset, classes: Sequence[str], spec: FrameSpec, strength: float) -> RealObjects:
    """Objects that lie whole in their pictures, of the model's `classes`, matched without regard to case; of a class
    of more than MOST frames' worth, those of images spread over the data set. Raises UserError where there is none."""
    number = {class_key(name): i for i, name in enumerate(classes)}
    found = [
        (i, k, label)
        for i, sample in enumerate(dataset)
        for k in np.flatnonzero(whole(sample.layout))
        if (label := number.get(class_key(sample.layout.classes[sample.layout.labels[k]]))) is not None
    ]
    labels = np.array([label for _, _, label in found], np.int64)
    worth = np.array([fineness(dataset.samples[i].layout.boxes[k], spec) ** 2 for i, k, _ in found])
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        chosen.append(own[np.linspace(0, len(own) - 1, min(len(own), round(MOST / worth[own].mean()))).astype(int)])
    frames, objects, grounds, boxes, kept, traits, picture, at = [], [], [], [], [], [], None, None
    for n in np.sort(np.concatenate(chosen)) if chosen else ():
        i, k, label = found[n]
        if i != at:
            at, picture = i, read_picture(dataset.samples[i])
            labelled = covered(dataset.samples[i].layout.boxes, dataset.samples[i].layout.size[::-1]).astype(np.uint8)
        if picture is None:
            continue
        one = dataset.samples[i].layout.select([k])
        fine = replace(spec, size=spec.size * fineness(one.boxes[0], spec))
        frames.append(cut(picture, frame_matrices(one.boxes, one.kind, fine)[0], fine.size))
        objects.append(cut(labelled, frame_matrices(one.boxes, one.kind, spec)[0], spec.size)[..., 0] > 0)
        free = ~objects[-1] | objects[-1].all()
        grounds.append(np.median(resized(frames[-1].astype(np.float32), spec.size)[free], 0))
        boxes.append(box_in_frame(one.boxes[0], one.kind, spec))
        kept.append(label)
        traits.append(_traits(one.boxes, one.acquisition)[0])
    if not frames:
        raise UserError(f"no object of {', '.join(classes)} lies whole in a picture, so none can be begun from.")
    each = np.stack(grounds), np.float32(boxes), np.int64(kept), np.stack(traits)
    return RealObjects(frames, objects, *each, strength)
