"""Oriented boxes: conversions, IoU, clipping. Boxes are float32 (N, 5) in le90 (see `boxes`)."""

from dataengine.geometry.boxes import (
    area,
    from_aabb,
    from_corners,
    from_frame,
    from_le135,
    from_opencv,
    hulls,
    regularize,
    to_aabb,
    to_corners,
    to_frame,
    to_le135,
    to_opencv,
    transform,
)
from dataengine.geometry.clip import clip, clip_aabb, visible_fraction
from dataengine.geometry.iou import containment, intersection, intersection_pairs, iou, iou_pairs

__all__ = [
    "area",
    "clip",
    "clip_aabb",
    "containment",
    "from_aabb",
    "from_corners",
    "from_frame",
    "from_le135",
    "from_opencv",
    "hulls",
    "intersection",
    "intersection_pairs",
    "iou",
    "iou_pairs",
    "regularize",
    "to_aabb",
    "to_corners",
    "to_frame",
    "to_le135",
    "to_opencv",
    "transform",
    "visible_fraction",
]
