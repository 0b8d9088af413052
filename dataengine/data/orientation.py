"""EXIF orientation: whether boxes lie in the upright picture or in the stored one.

A camera that is held upright may store a lying picture with a tag that says how to turn it. Inside the package all
pictures and boxes are upright; boxes that a file has in the stored picture are turned when it is read.

The size that an annotation states decides where the tag swaps the sides: 480x640 for a picture stored as 640x480 means
upright boxes, 640x480 stored ones. Without that evidence (half turns, mirrored or square pictures, no size), the tool
of the format decides:

| format | tool | boxes |
|---|---|---|
| YOLO | Ultralytics: `cv2.imread` turns; `exif_size` in `ultralytics/data/utils.py` | upright |
| COCO, DOTA, DIOR, HRSC, HIT-UAV | mmdetection, mmrotate: `mmcv.imread` turns unless `ignore_orientation` | upright |
| COCO, VOC, labelme of CVAT | upright since version 2.1 (cvat-ai/cvat#4529) | upright |
| VOC | labelImg: upright with the upright size since 1.8.4 (HumanSignal/labelImg#650), stored before | upright |
| labelme | upright since 2019 (wkentaro/labelme#305) | upright |
| roLabelImg | Qt without auto transform, as in labelImg before | stored |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.images import Header

IN_STORED_PICTURE = frozenset({"rolabelimg"})  # formats
# for each orientation, the upright x and y axes in the stored picture
_AXES = {
    1: ((1, 0), (0, 1)), 2: ((-1, 0), (0, 1)), 3: ((-1, 0), (0, -1)), 4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)), 6: ((0, -1), (1, 0)), 7: ((0, -1), (-1, 0)), 8: ((0, 1), (-1, 0)),
}  # fmt: skip


@dataclass
class Orientations:
    """How many turned pictures of a data set have boxes in which picture, and why; for one sentence about them."""

    upright_by_size: int = 0
    stored_by_size: int = 0
    upright_by_format: int = 0
    stored_by_format: int = 0

    def stored(self, header: Header, stated: tuple[int, int] | None, format: str) -> bool:
        """Whether the boxes of an image lie in the stored picture; counts the decision.

        stated: (width, height) of the annotation.
        """
        if header.orientation == 1:
            return False
        width, height = header.size
        swaps = header.orientation > 4 and width != height
        if swaps and stated == (width, height):
            self.upright_by_size += 1
            return False
        if swaps and stated == (height, width):
            self.stored_by_size += 1
            return True
        if format in IN_STORED_PICTURE:
            self.stored_by_format += 1
            return True
        self.upright_by_format += 1
        return False

    def notes(self, format: str) -> list[str]:
        """A sentence, if any picture has an orientation."""
        reasons = [
            (self.upright_by_size, "in the upright picture, as the stated size says"),
            (self.stored_by_size, "in the stored picture, as the stated size says, and are turned with it"),
            (self.upright_by_format, f"in the upright picture, as tools for {format} have it"),
            (self.stored_by_format, f"in the stored picture, as tools for {format} have it, and are turned with it"),
        ]
        parts = [f"boxes of {n} are {reason}" for n, reason in reasons if n]
        n = sum(count for count, _ in reasons)
        return [f"{n} image{'s have' if n > 1 else ' has'} an EXIF orientation: {'; '.join(parts)}"] if parts else []


def turn_points(points: np.ndarray, header: Header) -> np.ndarray:
    """Points (..., 2) of the stored picture in the upright one, float64; pixels.

    >>> turn_points(np.array([0, 0]), Header(size=(48, 64), orientation=6, deep=False)).tolist()
    [48.0, 0.0]
    """
    axes = np.array(_AXES[header.orientation], np.float64)
    return np.asarray(points, np.float64) @ axes.T + np.where(axes.sum(axis=1) < 0, header.size, 0)


def turn_boxes(boxes: np.ndarray, header: Header) -> np.ndarray:
    """Boxes (N, 5) of the stored picture in the upright one, le90, float32.

    >>> turn_boxes(np.array([[10, 20, 8, 4, 0]]), Header((48, 64), 6, False)).round(2)
    array([[28.  , 10.  ,  8.  ,  4.  , -1.57]], dtype=float32)
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 5)
    directions = np.stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])], axis=1) @ np.array(_AXES[header.orientation]).T
    theta = np.arctan2(directions[:, 1], directions[:, 0])
    turned = np.column_stack([turn_points(boxes[:, :2], header), boxes[:, 2:4], theta])
    return geometry.regularize(turned.astype(np.float32))
