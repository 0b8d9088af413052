"""Real objects that painted ones begin from: with few images to learn from, a renderer redraws better than it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.data.images import read_picture
from dataengine.data.layout import Acquisition, Dataset, Layout
from dataengine.errors import UserError
from dataengine.render.frame import FrameSpec, box_in_frame, cut, frame_matrices, masks

MOST = 2000  # objects of a class that are kept
NEAREST_SHARE, NEAREST = 0.1, 8  # one is drawn among this share of its class, and at least so many
OTHER_LIGHT = 10.0  # distance between day and night; else it is in doublings of length and of aspect


@dataclass(frozen=True)
class RealObjects:
    """Whole objects of a labelled data set, cut into the frames of an in-scene model.

    frames: uint8 (N, F, F, 3). boxes: float32 (N, 2), width and height of each object's box in its frame, in pixels.
    labels: int64 (N,) in the model's numbering. traits: float32 (N, 3), see `_traits`. strength: in (0, 1), how much
    noise they are put under before they are redrawn; 1 would leave nothing of them.
    """

    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    traits: np.ndarray
    strength: float

    def draw(
        self, one: Layout, label: int, ground: np.ndarray, spec: FrameSpec, rng: np.random.Generator
    ) -> np.ndarray | None:
        """A real object of the class, much like the one that a layout of one asks for, as a frame (F, F, 3) float32.

        It is stretched into the box, mirrored half of the time, and as much lighter or darker as the frame that it
        comes into, `ground` (F, F, 3) in [0, 255], is around the part to be painted. None where there is none.
        """
        import cv2

        own = np.flatnonzero(self.labels == label)
        if not len(own):
            return None
        far = np.abs(self.traits[own] - _traits(one.boxes, one.acquisition)[0]).sum(1)
        count = min(len(own), max(NEAREST, round(NEAREST_SHARE * len(own))))
        i = own[rng.choice(np.argsort(far, kind="stable")[:count])]
        sx, sy = self.boxes[i] / box_in_frame(one.boxes[0], one.kind, spec)
        middle = (spec.size - 1) / 2  # of pixel indices
        matrix = np.float32([[sx, 0, middle * (1 - sx)], [0, sy, middle * (1 - sy)]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = self.frames[i].astype(np.float32)
        frame = cv2.warpAffine(frame, matrix, (spec.size, spec.size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        if rng.random() < 0.5:
            frame = frame[:, ::-1]
        around = masks(one.boxes[0], one.kind, spec)[0] == 0
        return np.clip(frame + (ground[around].mean(0) - frame[around].mean(0)), 0, 255)


def _traits(boxes: np.ndarray, taken: Acquisition) -> np.ndarray:
    """(N, 3) float32: log2 of the long side in pixels and of the aspect, and light."""
    light = 0.5 if taken.night is None else float(taken.night)
    long, short = np.maximum(boxes[:, 2], 1), np.maximum(boxes[:, 3], 1)
    return np.column_stack([np.log2(long), np.log2(long / short), np.full(len(boxes), OTHER_LIGHT * light)]).astype(
        np.float32
    )


def collect_objects(dataset: Dataset, classes: Sequence[str], spec: FrameSpec, strength: float) -> RealObjects:
    """Objects that lie whole in their pictures, of the model's `classes`, matched without regard to case; of a class
    of more than MOST, those of images spread over the data set. Raises UserError where there is none."""
    number = {name.lower(): i for i, name in enumerate(classes)}
    found = [
        (i, k, label)
        for i, sample in enumerate(dataset)
        for k in np.flatnonzero(~sample.layout.difficult & (sample.layout.visible > 0.99))
        if (label := number.get(sample.layout.classes[sample.layout.labels[k]].lower())) is not None
    ]
    labels = np.array([label for _, _, label in found], np.int64)
    chosen = [own[np.linspace(0, len(own) - 1, min(len(own), MOST)).astype(int)]
              for label in np.unique(labels) if len(own := np.flatnonzero(labels == label))]  # fmt: skip
    frames, boxes, kept, traits, picture, at = [], [], [], [], None, None
    for n in np.sort(np.concatenate(chosen)) if chosen else ():
        i, k, label = found[n]
        if i != at:
            at, picture = i, read_picture(dataset.samples[i])
        if picture is None:
            continue
        one = dataset.samples[i].layout.select([k])
        frames.append(cut(picture, frame_matrices(one.boxes, one.kind, spec)[0], spec.size))
        boxes.append(box_in_frame(one.boxes[0], one.kind, spec))
        kept.append(label)
        traits.append(_traits(one.boxes, one.acquisition)[0])
    if not frames:
        raise UserError(f"no object of {', '.join(classes)} lies whole in a picture, so none can be begun from.")
    return RealObjects(np.stack(frames), np.float32(boxes), np.int64(kept), np.stack(traits), strength)
