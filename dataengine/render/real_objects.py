"""Real objects to start painting from: trained on few images, a renderer repaints an object better than it paints one
from noise (SDEdit, Meng et al. 2022)."""

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

MAX_FRAMES = 2000  # of a class, counted at the model's resolution
MAX_FINENESS = 3  # frames of large objects keep up to this many times the model's resolution
BORDER_PX = 2.0  # a box that ends this near to the image's border counts as cut by it
FADE_PX = 1.0  # frame pixels (standard deviation) over which an object's own ground blends into the scene's
# A class is used cut out only if at least this share of this many sampled objects can be cut out: what hides most
# objects of a class spoils the others too.
CUTOUT_TRIALS, MIN_CUTOUT_RATE = 48, 2 / 3
SIMILAR_SHARE, MIN_SIMILAR = 0.1, 24  # candidates: this share of a class, and at least this many
SIMILAR_GROUNDS = 8  # candidates whose ground is most like the scene's, of which one is sampled
NIGHT_DISTANCE = 10.0  # between day and night; the other traits are in doublings of length and of aspect ratio


@dataclass(frozen=True)
class RealObjects:
    """Whole objects of a labelled data set, cut into frames of an in-scene model.

    frames: N of uint8 (K F, K F, 3), K as in `fineness`.
    objects: N of bool (F, F), which pixels of the model's frame any box covers.
    grounds: float32 (N, 3), median colour of the other pixels.
    boxes: float32 (N, 2), width and height of each object's box in pixels of the model's frame.
    labels: int64 (N,), in the model's numbering.
    traits: float32 (N, 3), see `_traits`.
    strength: in (0, 1), the share of noise added before denoising; 1 would leave nothing of the objects.
    cutouts, separable: caches, of `_cutout` by object and of `_class_separable` by label.
    """

    frames: list[np.ndarray]
    objects: list[np.ndarray]
    grounds: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    traits: np.ndarray
    strength: float
    cutouts: dict[int, Cutout | None] = field(default_factory=dict)
    separable: dict[int, bool] = field(default_factory=dict)

    def cutout(self, i: int) -> Cutout | None:
        """Object i without its ground, in pixels of (K F, K F), K = MAX_FINENESS; None where it, or most objects of its
        class, cannot be separated from the ground."""
        return self._cutout(i) if self._class_separable(int(self.labels[i])) else None

    def _class_separable(self, label: int) -> bool:
        if label not in self.separable:
            members = np.flatnonzero(self.labels == label)
            trials = members[np.linspace(0, len(members) - 1, min(len(members), CUTOUT_TRIALS)).astype(int)]
            rate = np.mean([self._cutout(int(i)) is not None for i in trials])
            self.separable[label] = rate >= MIN_CUTOUT_RATE
        return self.separable[label]

    def _cutout(self, i: int) -> Cutout | None:
        if i not in self.cutouts:
            size = MAX_FINENESS * len(self.objects[i])
            frame = np.clip(np.rint(resized(self.frames[i].astype(np.float32), size)), 0, 255).astype(np.uint8)
            box = box_coverage(*MAX_FINENESS * self.boxes[i], size) > 0.5
            self.cutouts[i] = cutout(frame, box, finer_mask(self.objects[i], size))
        return self.cutouts[i]

    def draw(
        self, one: Layout, label: int, ground: np.ndarray, spec: FrameSpec, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Sample a real object of the class, similar to the one that a layout of one object asks for.

        ground: (F, F, 3) in [0, 255], the frame to paint into. Returns a frame (K F, K F, 3) float32 in [0, 255], K as
        in `fineness` of the layout's box, and the share of each pixel (K F, K F) that surely belongs to the object (0
        where it could not be cut out); or None where there is no object of the class.

        The object is stretched into the box, which it fills as far as it filled its own, mirrored half of the time, and
        shifted in brightness by the difference between the two grounds. An object that can be cut out is preferred; it
        is placed on `ground`. Otherwise its whole box is used, shifted along its edge to meet the ground (`membrane`).
        Among similar objects, those that stood on similar ground are preferred: a white object from bright concrete,
        darkened for asphalt, would be grey.
        """
        tone = np.median(ground[masks(one.boxes[0], one.kind, spec)[0] == 0], 0)
        i = self._choose(one, label, tone, rng)
        if i is None:
            return None
        size = spec.size * fineness(one.boxes[0], spec)
        frame, surely, inside = self._stretch(i, box_in_frame(one.boxes[0], one.kind, spec), size, spec)
        if rng.random() < 0.5:
            frame, surely, inside = frame[:, ::-1], surely[:, ::-1], inside[:, ::-1]
        shift = tone - self.grounds[i]
        if self.cutout(i) is None:
            shift = resized(membrane(ground - resized(frame, spec.size), resized(inside, spec.size) > 0.5), size)
        frame, ground = frame + shift, resized(ground.astype(np.float32), size)
        return np.clip(ground + inside[..., None] * (frame - ground), 0, 255), surely

    def _choose(self, one: Layout, label: int, tone: np.ndarray, rng: np.random.Generator) -> int | None:
        """Number of a real object of the class, similar to the one asked for, on ground of similar colour `tone` (3,),
        preferably one that can be cut out; None where there is no object of the class."""
        members = np.flatnonzero(self.labels == label)
        if not len(members):
            return None
        distance = np.abs(self.traits[members] - _traits(one.boxes, one.acquisition)[0]).sum(1)
        count = min(len(members), max(MIN_SIMILAR, round(SIMILAR_SHARE * len(members))))
        similar = np.argsort(distance, kind="stable")[:count]
        similar = members[similar[distance[similar] < distance.min() + NIGHT_DISTANCE / 2]]
        ground_distance = np.abs(self.grounds[similar] - tone).sum(1)
        similar = similar[np.argsort(ground_distance, kind="stable")]
        first = similar[:SIMILAR_GROUNDS]
        # each object has its own random key: with one seed, neighbours in a row get similar objects
        similar[:SIMILAR_GROUNDS] = first[np.argsort(rng.random(len(self.labels))[first])]
        # lazily: cutting out every candidate takes longer than painting
        return next((int(i) for i in similar if self.cutout(int(i)) is not None), int(similar[0]))

    def _stretch(
        self, i: int, box: tuple[float, float], size: int, spec: FrameSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Object i stretched into a box of this width and height, in pixels of the model's frame.

        Returns a frame (size, size, 3), and for each pixel the shares (size, size) that surely belong to the object and
        that are taken from its own frame.
        """
        import cv2

        piece, side, fineness = self.cutout(i), len(self.frames[i]), size // spec.size
        if piece is None:
            middle, sides = np.full(2, side / 2), self.boxes[i] * side / spec.size
        else:
            ends = np.reshape(piece.bounds, (2, 2)) * side / len(piece.share)
            middle, sides = ends.mean(0), ends[1] - ends[0]
        stretch = sides / (np.array(box) * fineness)
        origin = middle - stretch * (size - 1) / 2 - 0.5  # source of the first pixel's centre
        matrix = np.float32([[stretch[0], 0, origin[0]], [0, stretch[1], origin[1]]])
        cubic, linear = (how | cv2.WARP_INVERSE_MAP for how in (cv2.INTER_CUBIC, cv2.INTER_LINEAR))
        frame = self.frames[i].astype(np.float32)
        frame = cv2.warpAffine(frame, matrix, (size, size), flags=cubic, borderMode=cv2.BORDER_REFLECT_101)
        if piece is not None:
            surely = cv2.warpAffine(resized(piece.share, side), matrix, (size, size), flags=linear)
            return frame, surely, surely
        inside = box_coverage(*((length + 2 * FADE_PX) * fineness for length in box), size)
        return frame, np.zeros((size, size), np.float32), cv2.GaussianBlur(inside, (0, 0), FADE_PX * fineness)


def fineness(box: np.ndarray, spec: FrameSpec) -> int:
    """How many times the model's resolution a frame of this box (5,) needs to keep the image's own pixels.

    >>> [fineness(np.float32([0, 0, side, 10, 0]), FrameSpec(size=48, context=2)) for side in (20, 40, 500)]
    [1, 2, 3]
    """
    return int(np.clip(np.ceil(frame_sides(box[None], spec)[0] / spec.size), 1, MAX_FINENESS))


def whole(layout: Layout) -> np.ndarray:
    """Bool (N,): objects that no border cuts and that are not difficult.

    A box that ends at the border covers only the visible part of its object.

    >>> layout = Layout([[50, 50, 20, 10, 0], [5, 50, 10, 10, 0]], [0, 0], ("car",), (100, 100))
    >>> whole(layout).tolist()
    [True, False]
    """
    corners = geometry.to_corners(layout.boxes)
    inside = ((corners >= BORDER_PX) & (corners <= np.array(layout.size) - BORDER_PX)).all((1, 2))
    return inside & ~layout.difficult & (layout.visible > 0.99)


def _traits(boxes: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """(N, 3) float32: log2 of the long side in pixels, log2 of the aspect ratio, and night."""
    night = 0.5 if acquisition.night is None else float(acquisition.night)
    long, short = np.maximum(boxes[:, 2], 1), np.maximum(boxes[:, 3], 1)
    return np.column_stack([np.log2(long), np.log2(long / short), np.full(len(boxes), NIGHT_DISTANCE * night)]).astype(
        np.float32
    )


def collect_objects(dataset: Dataset, classes: Sequence[str], spec: FrameSpec, strength: float) -> RealObjects:
    """Cut every whole object of the model's `classes` (matched by `class_key`) out of the data set's images.

    Of a class with more than MAX_FRAMES frames, objects of images spread evenly over the data set are used. Raises
    UserError where there is no such object.
    """
    number = {class_key(name): i for i, name in enumerate(classes)}
    candidates = [
        (i, k, label)
        for i, sample in enumerate(dataset)
        for k in np.flatnonzero(whole(sample.layout))
        if (label := number.get(class_key(sample.layout.classes[sample.layout.labels[k]]))) is not None
    ]
    labels = np.array([label for _, _, label in candidates], np.int64)
    areas = np.array([fineness(dataset.samples[i].layout.boxes[k], spec) ** 2 for i, k, _ in candidates])
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members), round(MAX_FRAMES / areas[members].mean()))
        chosen.append(members[np.linspace(0, len(members) - 1, count).astype(int)])
    frames, objects, grounds, boxes, numbers, traits, image, current = [], [], [], [], [], [], None, None
    for n in np.sort(np.concatenate(chosen)) if chosen else ():
        i, k, label = candidates[n]
        if i != current:
            current, image = i, read_picture(dataset.samples[i])
            labelled = covered(dataset.samples[i].layout.boxes, dataset.samples[i].layout.size[::-1]).astype(np.uint8)
        if image is None:
            continue
        one = dataset.samples[i].layout.select([k])
        fine = replace(spec, size=spec.size * fineness(one.boxes[0], spec))
        frames.append(cut(image, frame_matrices(one.boxes, one.kind, fine)[0], fine.size))
        objects.append(cut(labelled, frame_matrices(one.boxes, one.kind, spec)[0], spec.size)[..., 0] > 0)
        free = ~objects[-1] | objects[-1].all()
        grounds.append(np.median(resized(frames[-1].astype(np.float32), spec.size)[free], 0))
        boxes.append(box_in_frame(one.boxes[0], one.kind, spec))
        numbers.append(label)
        traits.append(_traits(one.boxes, one.acquisition)[0])
    if not frames:
        raise UserError(f"no object of {', '.join(classes)} lies completely inside an image, so --strength has none.")
    each = np.stack(grounds), np.float32(boxes), np.int64(numbers), np.stack(traits)
    return RealObjects(frames, objects, *each, strength)
