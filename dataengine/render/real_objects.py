"""Real objects to start painting from: trained on few images, a renderer repaints an object better than it paints one
from noise (SDEdit, Meng et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Acquisition, Dataset, Kind, Layout, model_key
from dataengine.errors import UserError
from dataengine.layouts.constraints import BORDER_PX, FULLY_VISIBLE, MIN_VISIBLE, whole
from dataengine.render.canvas import Canvas, ObjectOrigin
from dataengine.render.cutout import Cutout, cutout, membrane
from dataengine.render.frame import (
    FrameSpec,
    box_coverage,
    box_in_frame,
    covered,
    cut,
    finer_mask,
    frame_angles,
    frame_matrices,
    frame_sides,
    masks,
    resized,
)
from dataengine.render.shadows import angle_between, shadow_direction
from dataengine.seeds import Stream, generator

MAX_FRAMES = 2000  # of a class, counted at the model's resolution
MAX_FINENESS = 3  # frames of large objects keep up to this many times the model's resolution
FADE_PX = 1.0  # frame pixels (standard deviation) over which an object's own ground blends into the scene's
# A class is used cut out only if at least this share of this many sampled objects can be cut out: what hides most
# objects of a class spoils the others too.
CUTOUT_TRIALS, MIN_CUTOUT_RATE = 48, 2 / 3
SIMILAR_SHARE, MIN_SIMILAR = 0.1, 24  # candidates: this share of a class, and at least this many
SPARE_SIMILAR = 48  # further candidates, where none of the first can be cut out
SIMILAR_GROUNDS = 8  # candidates whose ground is most like the scene's, of which one is sampled
MAX_ASPECT_OCTAVES = float(np.log2(1.15))  # between the width to height of a box and of the object painted into it,
MAX_SIZE_OCTAVES = 1.0  # between their lengths, in upright boxes: an object is halved or doubled in size at most
ASPECT_TIE_OCTAVES = 0.1  # or, in a rotated box, so much more than that of the nearest, if no object is so near
MAX_SHADOW_ANGLE = np.pi / 4  # radians, between an object's shadow and the scene's
# How the frame of an object can be turned, (8, 2, 2). In that of a rotated box the long side stays along x: the first
# four; where gravity has a direction, only the first two.
FRAME_TURNS = np.array([
    [[1, 0], [0, 1]], [[-1, 0], [0, 1]], [[1, 0], [0, -1]], [[-1, 0], [0, -1]],
    [[0, 1], [1, 0]], [[0, -1], [1, 0]], [[0, 1], [-1, 0]], [[0, -1], [-1, 0]],
], float)  # fmt: skip
NIGHT_DISTANCE = 10.0  # between day and night; the other traits are in doublings of length and of aspect ratio


@dataclass(frozen=True)
class RealObjects:
    """Whole objects of a labelled data set, cut into frames of an in-scene model.

    frames: N of uint8 (K F, K F, 3), K as in `fineness`.
    objects: N of bool (F, F), which pixels of the model's frame any box covers.
    grounds: float32 (N, 3), median colour of the other pixels.
    boxes: float32 (N, 2), width and height of each object's box in pixels of the model's frame.
    sides: float32 (N,), side of each frame in pixels of the image.
    angles: float32 (N,), of each frame in the image, in radians.
    labels: int64 (N,), in the model's numbering.
    traits: float32 (N, 3), see `_traits`.
    shadows: float64 (N,), direction from the object to its shadow in its frame, `nan` where unknown.
    images: names of the images that they are cut from. labelled_boxes: float32 (N, 5), their labels there.
    strength: in (0, 1), the share of noise added before denoising; 1 would leave nothing of the objects.
    cutouts, separable: caches, of `_cutout` by object and of `_class_separable` by label.
    """

    frames: list[np.ndarray]
    objects: list[np.ndarray]
    grounds: np.ndarray
    boxes: np.ndarray
    sides: np.ndarray
    angles: np.ndarray
    labels: np.ndarray
    traits: np.ndarray
    shadows: np.ndarray
    images: list[str]
    labelled_boxes: np.ndarray
    strength: float
    cutouts: dict[int, Cutout | None] = field(default_factory=dict)
    separable: dict[int, bool] = field(default_factory=dict)

    def cutout(self, i: int) -> Cutout | None:
        """Object i without its ground, in pixels of (K F, K F), K = MAX_FINENESS; None where it, or most objects of its
        class, cannot be separated from the ground, or where a part was lost, so that the rest has another shape."""
        piece = self._cutout(i) if self._class_separable(int(self.labels[i])) else None
        if piece is None:
            return None
        (width, height), box = np.ptp(np.reshape(piece.bounds, (2, 2)), axis=0), self.boxes[i]
        return piece if abs(np.log2(width / height * box[1] / box[0])) <= MAX_ASPECT_OCTAVES else None

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

    def fitted(self, canvas: Canvas, labels: np.ndarray, spec: FrameSpec, seed: int) -> Canvas:
        """The canvas with a real object for each of its new ones (`starts`), and each box fitted to its object.

        labels: int64 (N,), of the new objects, in the model's numbering. An object is painted as it was: scaled, turned
        and mirrored as a whole, never stretched. So the box of the layout becomes the largest one of the object's own
        width and height inside it; a box cut by the border is first completed. An object is left out if too little of
        it would be visible, or if no real one has the shape of its upright box however it is turned by quarters: it
        would lie across the box. Which objects are chosen depends on the canvas and the seed only.
        """
        starts: list[ObjectOrigin | None] = []
        fits = np.ones(len(canvas.new), bool)
        window, sources = canvas.window(), {*canvas.new.origins, canvas.provenance.name}
        boxes, visible = canvas.new.boxes.copy(), canvas.new.visible.copy()
        for k in range(len(canvas.new)):
            one = canvas.new.select([k])
            complete = completed(one)
            # boxes of one size in an image are those of a row, which are of one make
            make = np.rint(16 * one.boxes[0, 2:4]).astype(np.int64)
            rng = generator(seed, *make, Stream.REAL_OBJECT)
            if not (self.labels == labels[k]).any():
                starts.append(None)
                continue
            chosen = self._choose(one, complete, int(labels[k]), window, spec, rng, sources)
            if chosen is None:
                starts.append(None)
                fits[k] = False
                continue
            index, frame_turn = chosen
            start = self._start(index, frame_turn, one, complete)
            inside = geometry.visible_fraction(start.whole_box[None], one.size)[0]
            visible[k] = 1 if inside >= FULLY_VISIBLE else inside
            clip = geometry.clip if one.kind == "obb" else geometry.clip_aabb
            boxes[k] = clip(geometry.regularize(start.whole_box), one.size)[0]
            starts.append(start)
        shown = fits & (visible >= MIN_VISIBLE)
        new = replace(canvas.new, boxes=boxes, visible=visible, silhouettes=None).select(shown)
        starts = [start for start, s in zip(starts, shown, strict=True) if s]
        return replace(canvas.keep(new), starts=tuple(starts))

    def draw(
        self, start: ObjectOrigin, kind: Kind, ground: np.ndarray, spec: FrameSpec
    ) -> tuple[np.ndarray, np.ndarray]:
        """The real object of a start, placed on the ground of the frame of its `whole_box`.

        ground: (F, F, 3) in [0, 255], the frame to paint into. Returns a frame (K F, K F, 3) float32 in [0, 255], K as
        in `fineness` of the box, and the share of each pixel (K F, K F) that surely belongs to the object (0 where it
        could not be cut out).

        The object is shifted in brightness by the difference between the two grounds. One that can be cut out is placed
        on `ground`; otherwise its whole box is used, shifted along its edge to meet the ground (`membrane`).
        """
        size, i = spec.size * fineness(start.whole_box, spec), start.index
        tone = np.median(ground[masks(start.whole_box, kind, spec)[0] == 0], 0)
        frame, surely, inside = self._placed(start, kind, size, spec)
        shift = tone - self.grounds[i]
        if self.cutout(i) is None:
            shift = resized(membrane(ground - resized(frame, spec.size), resized(inside, spec.size) > 0.5), size)
        frame, ground = frame + shift, resized(ground.astype(np.float32), size)
        return np.clip(ground + inside[..., None] * (frame - ground), 0, 255), surely

    def _choose(
        self,
        one: Layout,
        complete: np.ndarray,
        label: int,
        window: Canvas,
        spec: FrameSpec,
        rng: np.random.Generator,
        sources: set[str],
    ) -> tuple[int, np.ndarray] | None:
        """Number of a real object of the class, and how its frame is turned, (2, 2); None where none has the shape of
        an upright box and about its size.

        Objects are as long as asked for, of like length to width, with their shadow on the scene's side, by the same
        light; of these, some on ground like the scene's, such as bright concrete: a white object from it, darkened for
        asphalt, would be grey. One that can be cut out is preferred, then one of an image that the layout or
        the scene is made from anyway (`sources`). The shape comes before the side of the shadow: an upright box tells
        nothing of its object but how it lies.
        """
        members = np.flatnonzero(self.labels == label)
        turns = FRAME_TURNS if one.kind == "hbb" else FRAME_TURNS[:4]
        length, aspect, night = _traits(complete[None], one.kind, one.acquisition)[0]
        crosswise = np.array([turn[0, 0] == 0 for turn in turns])
        mismatch = np.abs(self.traits[members, 1, None] * np.where(crosswise, -1, 1) - aspect)  # (M, T)
        otherwise_lit = np.abs(self.traits[members, 2] - night)
        lit_alike = (otherwise_lit < otherwise_lit.min() + NIGHT_DISTANCE / 2)[:, None]
        choices = self._turns_by_preference(members, turns, one, complete, window)
        choices = [some & lit_alike for some in choices] + choices
        shaped = mismatch <= MAX_ASPECT_OCTAVES
        sized = (np.abs(self.traits[members, 0] - length) <= MAX_SIZE_OCTAVES)[:, None]
        if one.kind == "hbb" and sized.any():  # else all objects are of another scale, as with --layout-scale
            shaped &= sized
        fits = next((near for some in choices if (near := some & shaped).any()), None)
        if fits is None:
            if one.kind == "hbb":
                return None
            first = next(some for some in choices if some.any())
            fits = first & (mismatch <= mismatch[first].min() + ASPECT_TIE_OCTAVES)
        traits = self.traits[members]
        distance = mismatch + (np.abs(traits[:, 0] - length) + np.abs(traits[:, 2] - night))[:, None]
        rows, columns = np.nonzero(fits)
        distance = distance[rows, columns]
        count = max(MIN_SIMILAR, round(SIMILAR_SHARE * len(members)))
        by_distance = np.argsort(distance, kind="stable")
        by_distance = by_distance[distance[by_distance] < distance.min() + NIGHT_DISTANCE / 2]
        spare = [(int(members[rows[n]]), turns[columns[n]]) for n in by_distance[count : SPARE_SIMILAR + count]]
        rows, columns = rows[by_distance[:count]], columns[by_distance[:count]]
        ground = cut(window.image.astype(np.float32), frame_matrices(complete[None], one.kind, spec)[0], spec.size)
        tone = np.median(ground[masks(complete, one.kind, spec)[0] == 0], 0)
        order = np.argsort(np.abs(self.grounds[members[rows]] - tone).sum(1), kind="stable")
        first = order[:SIMILAR_GROUNDS]
        # each object has its own random key: with one seed, neighbours in a row get similar objects
        keys = rng.random((len(self.labels), len(FRAME_TURNS)))[members[rows[first]], columns[first]]
        known = np.array([self.images[i] in sources for i in members[rows[first]]])
        order[:SIMILAR_GROUNDS] = first[np.lexsort([keys, ~known])]
        pairs = [(int(members[rows[n]]), turns[columns[n]]) for n in order]
        # lazily: cutting out every candidate takes longer than painting
        cut_out = None
        for i, turn in pairs + spare:
            if self.cutout(i) is None:
                continue
            cut_out = cut_out or (i, turn)
            width, height = self._extent(i)
            if abs(np.log2(width / height) * (1 if turn[0, 0] else -1) - aspect) <= MAX_ASPECT_OCTAVES:
                return i, turn
        return cut_out or pairs[0]

    def _turns_by_preference(
        self, members: np.ndarray, turns: np.ndarray, one: Layout, complete: np.ndarray, window: Canvas
    ) -> list[np.ndarray]:
        """Bool (M, T) each, the best first: for each member, which turns of its frame may be used.

        First those that put its shadow on the scene's side. Where a shadow is unknown, likely ones: objects in upright
        boxes are turned as the scene was, since images of one data set are often of one flight; those in rotated boxes
        are only mirrored. Then any turn, and last objects whose shadow lies on another side. Where gravity has a
        direction in the image, nothing is put on its head.
        """
        allowed = np.ones(len(turns), bool)
        if not one.acquisition.looks_down:
            allowed = np.array([turn[1, 1] == 1 for turn in turns])
        own = self.shadows[members]
        frame_angle = float(complete[4]) if one.kind == "obb" else 0.0
        directions = np.einsum("tij,mj->mti", turns, np.column_stack([np.cos(own), np.sin(own)]))
        turned = np.arctan2(directions[..., 1], directions[..., 0]) + frame_angle
        same_side = allowed & (angle_between(turned, window.shadow) <= MAX_SHADOW_ANGLE)  # nan compares as False
        if one.kind == "obb":
            likely = np.array([turn[1, 1] == 1 for turn in turns])
        else:
            likely = np.arange(len(turns)) == np.argmax([(turn * window.turn).sum() for turn in turns])
        everywhere = np.ones_like(same_side)
        unknown = everywhere & (np.isnan(own)[:, None] | math.isnan(window.shadow))
        return [same_side, likely & allowed & unknown, allowed & unknown, likely & allowed & everywhere,
                allowed & everywhere]  # fmt: skip

    def _extent(self, i: int) -> np.ndarray:
        """Width and height along its frame, in image pixels, of the box that object i fills as far as its label's."""
        piece = self.cutout(i)
        if piece is None:
            return self.boxes[i] * self.sides[i] / len(self.objects[i])
        return np.ptp(np.reshape(piece.bounds, (2, 2)), axis=0) * self.sides[i] / len(piece.share)

    def _start(self, i: int, frame_turn: np.ndarray, one: Layout, complete: np.ndarray) -> ObjectOrigin:
        """Object i in the largest box of its width and height inside a box, at the end where the border does not cut
        it."""
        extent = self._extent(i) if frame_turn[0, 0] else self._extent(i)[::-1]
        asked = one.boxes[0]
        if one.kind == "hbb":
            x1, y1, x2, y2 = geometry.to_aabb(complete[None])[0]
            centre, sides, theta = np.array([x1 + x2, y1 + y2]) / 2, np.array([x2 - x1, y2 - y1]), 0.0
        else:
            centre, sides, theta = complete[:2].astype(float), complete[2:4], float(complete[4])
        scale = float((sides / extent).min())
        axes = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
        outward = np.sign(np.round(axes @ (complete[:2] - asked[:2]), 3))  # 0 along an axis that is not cut
        centre = centre - axes.T @ (outward * (sides - scale * extent) / 2)
        whole_box = np.float32([*centre, *(scale * extent), theta])
        if one.kind == "hbb":
            whole_box = geometry.regularize(whole_box)[0]
        image_turn = axes.T @ frame_turn @ _rotation(-self.angles[i])
        return ObjectOrigin(self.images[i], self.labelled_boxes[i], image_turn, scale, asked, whole_box, i, frame_turn)

    def _placed(
        self, start: ObjectOrigin, kind: Kind, size: int, spec: FrameSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The object of a start in the frame of its box, scaled and turned.

        Returns a frame (size, size, 3), and for each pixel the shares (size, size) that surely belong to the object and
        that are taken from its own frame.
        """
        import cv2

        i = start.index
        piece, side = self.cutout(i), len(self.frames[i])
        middle = np.full(2, side / 2)
        if piece is not None:
            middle = np.reshape(piece.bounds, (2, 2)).mean(0) * side / len(piece.share)
        # pixels of the object's own frame for each of this frame's
        shrink = (side / self.sides[i]) / start.scale * float(frame_sides(start.whole_box[None], spec)[0]) / size
        linear = shrink * start.frame_turn.T
        origin = middle - linear @ np.full(2, (size - 1) / 2) - 0.5  # source of the first pixel's centre
        matrix = np.float32(np.column_stack([linear, origin]))
        cubic, straight = (how | cv2.WARP_INVERSE_MAP for how in (cv2.INTER_CUBIC, cv2.INTER_LINEAR))
        frame = self.frames[i].astype(np.float32)
        frame = cv2.warpAffine(frame, matrix, (size, size), flags=cubic, borderMode=cv2.BORDER_REFLECT_101)
        if piece is not None:
            surely = cv2.warpAffine(resized(piece.share, side), matrix, (size, size), flags=straight)
            return frame, surely, surely
        times = size // spec.size
        box = box_in_frame(start.whole_box, kind, spec)
        inside = box_coverage(*((length + 2 * FADE_PX) * times for length in box), size)
        return frame, np.zeros((size, size), np.float32), cv2.GaussianBlur(inside, (0, 0), FADE_PX * times)


def _rotation(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def completed(one: Layout) -> np.ndarray:
    """Box (5,) of the only object of a layout, with the part that the border cuts off, as far as its visible share
    tells; upright boxes stay upright.

    >>> completed(Layout([[5, 50, 10, 10, 0]], [0], ("car",), (100, 100), visible=[0.5])).tolist()
    [0.0, 50.0, 20.0, 10.0, 0.0]
    """
    box, visible = one.boxes[0].astype(np.float64), float(one.visible[0])
    if visible >= FULLY_VISIBLE:
        return one.boxes[0]
    low, high = geometry.to_aabb(box[None])[0].reshape(2, 2)
    outward = (high >= np.array(one.size) - BORDER_PX).astype(float) - (low <= BORDER_PX)
    theta = 0.0 if one.kind == "hbb" else box[4]
    sides = high - low if one.kind == "hbb" else box[2:4]
    axes = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    along = axes @ outward
    cut = np.abs(along) > 0.99 * np.abs(along).max() if outward.any() else np.zeros(2, bool)
    grown = np.where(cut, sides * visible ** (-1 / max(1, cut.sum())), sides)
    centre = box[:2] + axes.T @ (np.sign(along) * (grown - sides) / 2)
    return geometry.regularize([*centre, *grown, theta])[0]


def fineness(box: np.ndarray, spec: FrameSpec) -> int:
    """How many times the model's resolution a frame of this box (5,) needs to keep the image's own pixels.

    >>> [fineness(np.float32([0, 0, side, 10, 0]), FrameSpec(size=48, context=2)) for side in (20, 40, 500)]
    [1, 2, 3]
    """
    return int(np.clip(np.ceil(frame_sides(box[None], spec)[0] / spec.size), 1, MAX_FINENESS))


def _traits(boxes: np.ndarray, kind: Kind, acquisition: Acquisition) -> np.ndarray:
    """(N, 3) float32: log2 of the long side in pixels, log2 of width to height along the frame, and night."""
    night = 0.5 if acquisition.night is None else float(acquisition.night)
    long, short = np.maximum(boxes[:, 2], 1), np.maximum(boxes[:, 3], 1)
    standing = (kind == "hbb") & (np.abs(boxes[:, 4]) > np.pi / 4)
    aspect = np.log2(long / short) * np.where(standing, -1, 1)
    return np.column_stack([np.log2(long), aspect, np.full(len(boxes), NIGHT_DISTANCE * night)]).astype(np.float32)


def collect_objects(dataset: Dataset, classes: Sequence[str], spec: FrameSpec, strength: float) -> RealObjects:
    """Cut every whole object of the model's `classes` (matched by `model_key`) out of the data set's images.

    Of a class with more than MAX_FRAMES frames, objects of images spread evenly over the data set are used. Raises
    UserError where there is no such object.
    """
    number = {model_key(name): i for i, name in enumerate(classes)}
    candidates = [
        (i, k, label)
        for i, sample in enumerate(dataset)
        for k in np.flatnonzero(whole(sample.layout))
        if (label := number.get(model_key(sample.layout.classes[sample.layout.labels[k]]))) is not None
    ]
    labels = np.array([label for _, _, label in candidates], np.int64)
    areas = np.array([fineness(dataset.samples[i].layout.boxes[k], spec) ** 2 for i, k, _ in candidates])
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members), round(MAX_FRAMES / areas[members].mean()))
        chosen.append(members[np.linspace(0, len(members) - 1, count).astype(int)])
    frames, objects, grounds, boxes, numbers, traits, members, image, current = [], [], [], [], [], [], [], None, None
    shadows, shadow = [], float("nan")
    for n in np.sort(np.concatenate(chosen)) if chosen else ():
        i, k, label = candidates[n]
        if i != current:
            current, image = i, read_picture(dataset.samples[i])
            labelled = covered(dataset.samples[i].layout.boxes, dataset.samples[i].layout.size[::-1]).astype(np.uint8)
            if image is not None:
                shadow = shadow_direction(image, dataset.samples[i].layout)
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
        traits.append(_traits(one.boxes, one.kind, one.acquisition)[0])
        shadows.append(shadow - frame_angles(one.boxes, one.kind)[0])
        members.append((dataset.samples[i].name, one))
    if not frames:
        raise UserError(f"no object of {', '.join(classes)} lies completely inside an image, so --strength has none.")
    own = np.concatenate([one.boxes for _, one in members])
    return RealObjects(
        frames, objects, np.stack(grounds), np.float32(boxes), frame_sides(own, spec),
        np.concatenate([frame_angles(one.boxes, one.kind) for _, one in members]), np.int64(numbers), np.stack(traits),
        np.array(shadows), [name for name, _ in members], own, strength,
    )  # fmt: skip
